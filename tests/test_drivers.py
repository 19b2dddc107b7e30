from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from enlarger.drivers import open_blobs
from enlarger.errors import InvalidOption
from enlarger.jobs.blobs import LocalBlobs, check_blobs
from enlarger.jobs.split_blobs import SplitBlobs
from enlarger.settings import Settings, read_settings

from .services.s3 import ACCESS_KEY, SECRET_KEY, SeaweedS3


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def settings_of(data_dir: Path, **values: Any) -> Settings:
    return read_settings(data_dir=data_dir, **values)


@pytest.mark.anyio
@pytest.mark.parametrize(("url", "folder"), [("", "data/blobs"), ("file://{}/else%20where", "else where")])
async def test_pictures_are_in_the_folder_named(tmp_path: Path, url: str, folder: str) -> None:
    blobs = open_blobs(settings_of(tmp_path / "data", blob_url=url.format(tmp_path)), time.time)
    assert isinstance(blobs, LocalBlobs)
    await blobs.put("inputs/1/link", b"x")
    assert (tmp_path / folder / "inputs" / "1" / "link").read_bytes() == b"x"


@pytest.mark.anyio
async def test_pictures_are_in_the_bucket_named(tmp_path: Path, s3: SeaweedS3) -> None:
    bucket = s3.create_bucket()
    keys = {"s3_endpoint": s3.endpoint, "s3_access_key": ACCESS_KEY, "s3_secret_key": SECRET_KEY}
    settings = settings_of(tmp_path, blob_url=f"s3://{bucket}/a/b/", blob_links="presigned", **keys)
    blobs = open_blobs(settings, time.time)
    assert isinstance(blobs, SplitBlobs)
    await check_blobs(blobs, "1")
    assert blobs.direct
    assert blobs.direct.get("x/1", "GET", {}).startswith(f"{s3.endpoint}/{bucket}/a/b/x/1?")


def test_clients_are_sent_to_the_address_they_know(tmp_path: Path) -> None:
    keys = {"s3_access_key": "a", "s3_secret_key": "b", "s3_public_endpoint": "https://s3.example.org/"}
    settings = settings_of(
        tmp_path, blob_url="s3://pictures", blob_links="presigned", s3_endpoint="http://s3:8333", **keys
    )
    direct = open_blobs(settings, time.time).direct
    assert direct
    assert direct.get("x/1", "GET", {}).startswith("https://s3.example.org/pictures/x/1?")


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"blob_links": "presigned"}, "blob_links"),
        ({"blob_url": "s3://pictures", "blob_links": "presigned"}, "blob_links"),
        ({"blob_url": "s3://pictures", "s3_access_key": "a"}, "s3_secret_key"),
        ({"blob_url": "s3://pictures", "s3_secret_key": "a"}, "s3_secret_key"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    tmp_path: Path, values: dict[str, str], field: str
) -> None:
    with pytest.raises(InvalidOption) as refusal:
        open_blobs(settings_of(tmp_path, **values), time.time)
    assert refusal.value.field == field


@pytest.mark.parametrize("url", ["pictures", "s3://", "s3://P", "file://relative", "http://a/b", "s3://ab c"])
def test_url_of_another_form_is_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidOption, match="ENLARGER_BLOB_URL="):
        settings_of(tmp_path, blob_url=url)


def test_keys_of_s3_are_never_shown(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path, blob_url="s3://pictures", s3_access_key="see-no", s3_secret_key="evil-key"
    )
    blobs = open_blobs(settings, time.time)
    shown = f"{settings!r} {settings.model_dump_json()} {blobs!r} {vars(blobs)!r}"
    assert "evil-key" not in shown
    assert "see-no" not in shown
