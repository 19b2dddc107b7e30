from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from enlarger.errors import InvalidOption
from enlarger.settings import PREFIX, Settings, read_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)
        monkeypatch.delenv(f"{PREFIX}{name.upper()}_FILE", raising=False)


def test_server_listens_to_this_machine_only_unless_told_otherwise() -> None:
    settings = read_settings()
    assert (settings.host, settings.port, settings.allow_private_networks) == ("127.0.0.1", 8000, ())


def test_limits_are_those_that_the_vendor_s_users_expect() -> None:
    settings = read_settings()
    assert (settings.max_input_bytes, settings.max_inline_bytes) == (200_000_000, 64_000_000)
    assert (settings.max_input_megapixels, settings.max_output_megapixels) == (64, 400)


def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENLARGER_ALLOW_PRIVATE_NETWORKS", "127.0.0.0/8, fd00::/8 ,10.1.2.3")
    monkeypatch.setenv("ENLARGER_ALLOW_PORTS", "8080,9000")
    settings = read_settings()
    assert settings.allow_ports == (8080, 9000)
    assert settings.allow_private_networks == tuple(
        map(ip_network, ("127.0.0.0/8", "fd00::/8", "10.1.2.3/32"))
    )


def test_mirrors_are_those_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENLARGER_WEIGHTS_MIRRORS", "https://a.example.org/w http://b/")
    assert read_settings().weights_mirrors == ("https://a.example.org/w", "http://b/")


def test_nothing_is_downloaded_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not read_settings().auto_download
    monkeypatch.setenv("ENLARGER_AUTO_DOWNLOAD", "1")
    assert read_settings().auto_download


def test_schedule_of_webhooks_is_a_list_that_may_be_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENLARGER_WEBHOOK_RETRY_SECONDS", "0.5, 60")
    assert read_settings().webhook_retry_seconds == (0.5, 60.0)


def test_argument_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENLARGER_PORT", "9999")
    assert read_settings().port == 9999
    assert read_settings(port=1234).port == 1234


def test_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENLARGER_PORT", "")
    assert read_settings().port == 8000


def test_home_folder_and_trailing_slash_are_resolved() -> None:
    settings = read_settings(data_dir="~/pictures", public_base_url="https://up.example.org/")
    assert settings.data_dir == Path.home() / "pictures"
    assert settings.public_base_url == "https://up.example.org"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("port", "65536"), ("port", "http"), ("max_input_bytes", "0"), ("max_job_seconds", "-1")),
        *(
            ("allow_ports", "0"),
            ("weights_mirrors", "ftp://a"),
            ("allow_ports", "http"),
            ("allow_private_networks", "10.0.0.1/8"),
        ),
        *(("public_base_url", "up.example.org"), ("retention_days", "0")),
        *(("webhook_retry_seconds", "-1"), ("webhook_retry_seconds", "soon"), ("webhook_signature", "v2")),
        *(("nsfw_threshold", "1.5"), ("log_level", "loud")),
    ],
)
def test_bad_value_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"ENLARGER_{name.upper()}", value)
    with pytest.raises(InvalidOption, match=f"ENLARGER_{name.upper()}={value}: ") as caught:
        read_settings()
    assert caught.value.field == name


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_says_what_it_is(name: str) -> None:
    description = Settings.model_fields[name].description
    assert description
    assert description.endswith(".")


def test_value_may_stand_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret, ports = tmp_path / "secret", tmp_path / "ports"
    secret.write_text("a secret from a file\n")
    ports.write_text("8080,9000\n")
    monkeypatch.setenv("ENLARGER_FIRST_KEY_FILE", str(secret))
    monkeypatch.setenv("ENLARGER_ALLOW_PORTS_FILE", str(ports))
    settings = read_settings()
    assert settings.first_key is not None
    assert settings.first_key.get_secret_value() == "a secret from a file"
    assert settings.allow_ports == (8080, 9000)


def test_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENLARGER_FIRST_KEY_FILE", str(tmp_path / "missing"))
    with pytest.raises(InvalidOption, match=r"ENLARGER_FIRST_KEY_FILE=.*missing"):
        read_settings()


def test_value_and_file_together_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENLARGER_PORT", "1")
    monkeypatch.setenv("ENLARGER_PORT_FILE", str(tmp_path / "port"))
    with pytest.raises(InvalidOption, match="ENLARGER_PORT and ENLARGER_PORT_FILE"):
        read_settings()


def test_secret_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENLARGER_FIRST_KEY", "not-to-be-seen-by-anyone")
    settings = read_settings()
    assert (
        "not-to-be-seen"
        not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    )
    monkeypatch.setenv("ENLARGER_FIRST_KEY", "too-short-secret")
    with pytest.raises(InvalidOption, match="ENLARGER_FIRST_KEY=") as caught:
        read_settings()
    assert "too-short-secret" not in caught.value.message


def test_pools_are_pairs_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENLARGER_POOLS", "realesrgan-x4plus=gpu, my model =lab-2")
    monkeypatch.setenv("ENLARGER_WORKER_POOLS", "lab-2, night")
    monkeypatch.setenv("ENLARGER_WORKER_SIZES", "large")
    settings = read_settings()
    assert settings.pools == {"realesrgan-x4plus": "gpu", "my model": "lab-2"}
    assert (settings.worker_pools, settings.worker_sizes) == (("lab-2", "night"), ("large",))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POOLS", "realesrgan-x4plus"),
        ("POOLS", "x=Not A Pool"),
        ("WORKER_POOLS", "a.b"),
        ("WORKER_SIZES", "huge"),
        ("DEVICE", "cuda:0;rm"),
        ("LEASE_SECONDS", "0"),
    ],
)
def test_bad_route_is_refused_with_its_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"ENLARGER_{name}", value)
    with pytest.raises(InvalidOption, match=f"ENLARGER_{name}.*{value.partition(';')[0]}"):
        read_settings()


def test_address_of_the_database_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENLARGER_DATABASE_URL", "postgresql://u:geheim@h/d")
    assert "geheim" not in repr(read_settings())
