"""`enlarger models`, run as a user runs it, with a server on loopback in place of the official one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from enlarger.cli_models import models_app
from enlarger.engine.networks import cards, compact
from enlarger.engine.networks.catalogue import FACE_MODELS, FACE_SET, MODELS
from enlarger.engine.networks.safetensors import write_safetensors
from enlarger.errors import InvalidOption, ModelUnavailable, WeightsCorrupt

HYPER = {"convs": 1, "features": 4, "scale": 2}
CONTENT = write_safetensors(
    {name: np.ones(shape, np.float32) for name, shape in compact.shapes(HYPER).items()}
)

Run = Callable[..., Result]


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a folder that holds `net.pth`; the catalogue has one model more, published there."""
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "net.pth").write_bytes(CONTENT)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder))) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        known = MODELS["realesr-general-x4v3"]
        file = replace(
            known.files[0],
            name="net.pth",
            layout="safetensors",
            url=f"{url}/net.pth",
            sha256=sha256(CONTENT).hexdigest(),
            bytes=len(CONTENT),
        )
        spec = replace(known, name="small", scale=2, hyper=HYPER, files=(file,), denoise_files=())
        monkeypatch.setitem(MODELS, "small", spec)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield url
        server.shutdown()
        thread.join()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*words: str | Path) -> Result:
        folder = str(tmp_path / "weights")
        return CliRunner().invoke(models_app, [*map(str, words), "--weights-dir", folder])

    return run


def line_of(name: str, result: Result) -> str:
    return next(line for line in result.output.splitlines() if name in line)


@pytest.mark.usefixtures("published")
def test_a_model_is_pulled_listed_verified_and_removed(run: Run, tmp_path: Path) -> None:
    assert "missing" in line_of("small", run("list"))
    pulled = run("pull", "small")
    assert pulled.exit_code == 0, pulled.output
    assert "small: BSD-3-Clause repository" in pulled.output
    assert (tmp_path / "weights" / "net.pth").read_bytes() == CONTENT
    assert "pulled" in line_of("small", run("list"))
    assert line_of("small", run("verify")).startswith("ok")
    assert "small: already in" in run("pull", "small").output
    assert "net.pth" in run("remove", "small").output
    assert "missing" in line_of("small", run("list"))


def test_pull_faces_brings_all_three_with_their_licences(
    run: Run, published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in FACE_SET:
        content = f"weights of {name}".encode()
        (tmp_path / "published" / name).write_bytes(content)
        file = replace(
            FACE_MODELS[name].files[0],
            url=f"{published}/{name}",
            sha256=sha256(content).hexdigest(),
            bytes=len(content),
        )
        monkeypatch.setitem(FACE_MODELS, name, replace(FACE_MODELS[name], files=(file,)))
    pulled = run("pull", "faces", "YuNet")
    assert pulled.exit_code == 0, pulled.output
    for name in FACE_SET:
        assert f"{name}: {FACE_MODELS[name].licence}" in pulled.output
        assert "pulled" in line_of(name, run("list"))
        assert (tmp_path / "weights" / FACE_MODELS[name].files[0].name).is_file()
    assert "research and evaluation only" in pulled.output
    assert line_of("YuNet", run("verify", "YuNet")).startswith("ok")
    # The file is the one that was published, but no network.
    assert line_of("ParseNet", run("verify")).startswith("BAD")
    assert run("remove", *FACE_SET).exit_code == 0
    assert "missing" in line_of("GFPGANv1.4", run("list"))


def test_list_tells_what_each_face_model_does(run: Run) -> None:
    listed = run("list")
    roles = {"GFPGANv1.4": "restorer", "YuNet": "detector", "ParseNet": "mask"}
    assert all(role in line_of(name, listed) for name, role in roles.items())


@pytest.mark.usefixtures("published")
def test_verify_fails_where_a_file_changed(run: Run, tmp_path: Path) -> None:
    run("pull", "small")
    (tmp_path / "weights" / "net.pth").write_bytes(CONTENT[:-1] + b"x")
    for words in (["verify"], ["verify", "small"]):
        result = run(*words)
        assert result.exit_code == 1
        assert line_of("small", result).startswith("BAD")
    assert run("verify", "RealESRGAN_x2plus").exit_code == 1
    assert run("verify", "realesr-animevideov3").exit_code == 0


def test_a_mirror_is_asked_first(run: Run, published: str, tmp_path: Path) -> None:
    (tmp_path / "published" / "mirror").mkdir()
    (tmp_path / "published" / "mirror" / "net.pth").write_bytes(CONTENT)
    (tmp_path / "published" / "net.pth").write_bytes(b"other")
    assert isinstance(run("pull", "small").exception, WeightsCorrupt)
    assert run("pull", "small", "--mirror", f"{published}/mirror").exit_code == 0


@pytest.mark.usefixtures("published")
def test_all_means_what_is_missing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {name: MODELS[name] for name in ("realesr-animevideov3", "small")}  # the first comes with a package
    monkeypatch.setattr(cards, "MODELS", few)
    assert run("pull", "all").exit_code == 0
    assert [path.name for path in (tmp_path / "weights").iterdir()] == ["net.pth"]


def test_offline_tells_the_way_by_hand(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    by_flag = run("pull", "RealESRGAN_x2plus", "--offline").exception
    monkeypatch.setenv("ENLARGER_OFFLINE", "1")
    by_setting = run("pull", "RealESRGAN_x2plus").exception
    for error in (by_flag, by_setting):
        assert isinstance(error, ModelUnavailable)
        assert "https://github.com/xinntao/Real-ESRGAN/releases/download/v0.2.1/" in error.message


def test_a_checkpoint_is_imported_listed_and_removed(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(CONTENT)
    imported = run("import", tmp_path / "mine.safetensors", "--licence", "CC0-1.0")
    assert imported.output == "mine ×2: Imported: compact with convs 1, features 4, scale 2\n"
    assert "imported" in line_of("mine", run("list"))
    (tmp_path / "weights" / "imported" / "mine.json").write_text("{")
    assert "broken" in line_of("mine", run("list"))
    assert run("remove", "mine").exit_code == 0
    assert list((tmp_path / "weights" / "imported").iterdir()) == []


@pytest.mark.parametrize("command", ["pull", "verify", "remove"])
def test_a_name_nobody_knows_is_refused_with_those_there_are(run: Run, command: str) -> None:
    error = run(command, "Nobody").exception
    assert isinstance(error, InvalidOption)
    assert "there is no model 'Nobody'; there are RealESRGAN_x4plus" in error.message
