"""The commands of docs/deploy.md do what the page says, and the programs its files are for take them."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from enlarger.settings import read_settings

from .api.conftest import running
from .conftest import ROOT
from .services.pgbouncer import PgBouncer
from .services.ports import free_ports
from .services.postgres import Postgres

PAGE = (ROOT / "docs" / "deploy.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of the page in a language, as they stand there."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def block(language: str, start: str) -> str:
    """The one that starts so."""
    (found,) = (text for text in blocks(language) if text.startswith(start))
    return found


def file_of(name: str) -> str:
    """The block below a sentence that ends with the file's name."""
    (found,) = re.findall(rf"{re.escape(name)}`:\n\n```ini\n(.*?)```", PAGE, re.DOTALL)
    return found


def run_block(start: str, **variables: str) -> None:
    """Run the code block of the page that starts with this comment."""
    words = ["bash", "-euc", block("sh", f"# {start}")]
    subprocess.run(words, env={**os.environ, **variables}, check=True)


@contextlib.contextmanager
def only_these(monkeypatch: pytest.MonkeyPatch, *texts: str):
    """An environment of files of systemd, which are lines `NAME=value`."""
    with monkeypatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("ENLARGER_")]:
            patch.delenv(name)
        for text in texts:
            for name, value in re.findall(r"^(ENLARGER_\w+)=(.*)$", text, re.MULTILINE):
                patch.setenv(name, value)
        yield


def test_backup_of_a_running_server_restores_its_predictions_files_and_keys(tmp_path: Path) -> None:
    backup, restored = tmp_path / "backup", tmp_path / "restored"
    backup.mkdir()
    with running(tmp_path / "data") as server:
        prediction = server.finished(server.submit())
        data = httpx2.get(prediction["outputs"][0]).content
        run_block("Backup", DATA=str(server.data_dir), BACKUP=str(backup))
        server.finished(server.submit())
        key = server.key
    run_block("Restore", DATA=str(restored), BACKUP=str(backup))
    assert (restored / "enlarger.db").stat().st_mode & 0o077 == 0
    with running(restored) as server:
        assert server.key == key
        listed = server.http.post("/api/v3/predictions", content="{}").json()["data"]["items"]
        assert [item["id"] for item in listed] == [prediction["id"]]
        assert httpx2.get(listed[0]["outputs"][0]).content == data
        assert server.finished(server.submit())["status"] == "completed"


@pytest.mark.parametrize("machine", ["An API machine", "A CPU worker", "A GPU worker"])
def test_settings_of_every_kind_of_machine_are_settings(
    machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = block("sh", "# Every machine"), block("sh", f"# {machine}")
    with only_these(monkeypatch, *texts):
        settings = read_settings()
    assert settings.pools == {"RealESRGAN_x4plus": "gpu"}
    assert settings.database_url is not None
    written = {name.lower() for text in texts for name in re.findall(r"^ENLARGER_(\w+)=", text, re.MULTILINE)}
    assert written == settings.model_fields_set


@pytest.mark.parametrize("unit", ["enlarger", "enlarger-api", "enlarger-worker"])
def test_unit_is_one_that_systemd_takes_and_starts_a_command_there_is(unit: str, tmp_path: Path) -> None:
    text = file_of(f"/etc/systemd/system/{unit}.service")
    (command,) = re.findall(r"^ExecStart=/opt/enlarger/.venv/bin/enlarger (.*)$", text, re.MULTILINE)
    words = [sys.executable, "-m", "enlarger", *shlex.split(command), "--help"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    file = tmp_path / f"{unit}.service"
    file.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_nginx_takes_the_server_block_in_front_of_two_machines(tmp_path: Path) -> None:
    server = block("nginx", "server {").replace("http://127.0.0.1:8000", "http://enlarger")
    # What a test has not: a certificate, ports below 1024, and nginx 1.25.1, which knows http2 as a word of its own.
    server = re.sub(r"(?m)^ +(ssl_certificate|http2).*$", "", server)
    server = server.replace("listen 443 ssl;", f"listen 127.0.0.1:{free_ports(1)[0]};")
    file = tmp_path / "nginx.conf"
    own = f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\n"
    file.write_text(f"{own}http {{\naccess_log off;\n{block('nginx', 'upstream')}{server}}}\n")
    # Debian puts it where only root looks.
    path = f"{os.environ['PATH']}:/usr/sbin"
    words = ["nginx", "-t", "-q", "-p", str(tmp_path), "-c", str(file)]
    done = subprocess.run(
        words, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_pgbouncer_takes_its_file_and_lets_statements_through(postgres: Postgres, database_url: str) -> None:
    file = configparser.ConfigParser()
    file.read_string(file_of("/etc/pgbouncer/pgbouncer.ini"))
    assert file["pgbouncer"]["pool_mode"] == "transaction"
    assert set(file["databases"]) == {"enlarger"}
    # Where it listens and whom it believes are this machine's matter.
    rest = {
        name: value for name, value in file["pgbouncer"].items() if not name.startswith(("listen_", "auth_"))
    }
    pooler = PgBouncer(postgres, settings="".join(f"{name} = {value}\n" for name, value in rest.items()))
    try:
        assert postgres.ask(pooler.url(database_url), "SELECT 1") == "1"
    finally:
        pooler.close()


def test_metrics_that_the_pages_name_are_told(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        server.finished(server.submit())
        text = httpx2.get(f"{server.url}/metrics").text
    told = {family.name for family in text_string_to_metric_families(text)}
    pages = "\n".join(path.read_text("utf-8") for path in (ROOT / "docs").glob("*.md"))
    named = set(re.findall(r"\benlarger_[a-z_]+[a-z]\b", pages))
    assert named
    assert {name.removesuffix("_total") for name in named} - told == set()


def test_manifest_of_the_autoscaler_is_yaml_and_asks_for_a_metric() -> None:
    (manifest,) = (yaml.safe_load(text) for text in blocks("yaml"))
    (trigger,) = manifest["spec"]["triggers"]
    assert trigger["type"] == "prometheus"
    assert "enlarger_route_backlog_seconds" in trigger["metadata"]["query"]
