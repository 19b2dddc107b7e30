"""The decoder: the same pixels as without it, and nothing lost when a file turns out to be an attack.

Attacks are played by a real child whose reader of headers runs the "picture" as code: what a hole in a
decoder would allow.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import IO

import numpy as np
import psutil
import pytest
from PIL import Image

from enlarger.engine import decoder as decoder_module
from enlarger.engine import sandbox
from enlarger.engine.decoder import Decoder, DecoderLimits
from enlarger.engine.decoder_answers import RawFile, animation_from, header_from, receive
from enlarger.engine.pictures import codec
from enlarger.engine.pictures.picture import Picture
from enlarger.errors import (
    InvalidPicture,
    OutOfMemory,
    PictureTooLarge,
    RuntimeUnavailable,
    UnsupportedFormat,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")
landlocked = pytest.mark.skipif(sandbox.landlock_abi() < 4, reason="needs Landlock ABI 4 or later")


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    with closing(Decoder(DecoderLimits(max_pixels=1_000_000, max_animation_pixels=100_000))) as opened:
        yield opened


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "scratch"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


def noise(width: int, height: int, channels: int = 3, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def rows_of(picture: Picture) -> np.ndarray:
    return picture.rows(0, picture.size.height)


def saved(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def animated(path: Path, frames: int = 3) -> Path:
    images = [Image.fromarray(noise(40, 30, seed=seed)) for seed in range(frames)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=[100, 200, 300][:frames], loop=2)
    return path


def png(width: int, height: int, *, bits: int = 8, pixels: bytes = b"") -> bytes:
    """A gray PNG by hand, with whatever header."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def turned(**more: object) -> dict[str, object]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return {"exif": exif, **more}


FILES: dict[str, Callable[[Path], Path]] = {
    "gray-16.png": lambda path: saved(path, noise(50, 20, 1)[:, :, 0].astype(np.uint16) * 257),
    "rgba.png": lambda path: saved(path, noise(50, 20, 4)),
    "turned.jpg": lambda path: saved(path, noise(50, 20), **turned(icc_profile=_srgb(), xmp=b"<x:xmpmeta/>")),
    "cmyk.jpg": lambda path: saved(path, noise(50, 20, 3)) and _as_cmyk(path),
    "rgba.webp": lambda path: saved(path, noise(50, 20, 4), lossless=True),
    "rgb.tif": lambda path: saved(path, noise(50, 20)),
    "rgb.avif": lambda path: saved(path, noise(50, 20)),
    "palette.gif": lambda path: saved(path, noise(50, 20)),
    "rgb.bmp": lambda path: saved(path, noise(50, 20)),
}


def _srgb() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _as_cmyk(path: Path) -> Path:
    Image.open(path).convert("CMYK").save(path)
    return path


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_the_same_picture_as_without_the_child(
    name: str, decoder: Decoder, tmp_path: Path, scratch: Path
) -> None:
    path = FILES[name](tmp_path / name)
    picture, expected = decoder.decode(path, scratch), codec.decode(path.read_bytes())
    np.testing.assert_array_equal(rows_of(picture), rows_of(expected))
    for field in ("size", "colours", "has_alpha", "depth", "icc", "exif", "xmp", "format", "notes"):
        assert getattr(picture, field) == getattr(expected, field), field
    assert decoder.probe(path) == codec.probe(path.read_bytes())


def test_rows_come_in_any_order_after_the_decoder_is_closed(tmp_path: Path, scratch: Path) -> None:
    pixels = noise(64, 48)
    with closing(Decoder()) as own:
        picture = own.decode(saved(tmp_path / "a.png", pixels), scratch)
    np.testing.assert_array_equal(picture.rows(40, 48), pixels[40:48])
    np.testing.assert_array_equal(picture.rows(3, 4), pixels[3:4])


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_an_animation_comes_with_its_timing(
    name: str, decoder: Decoder, tmp_path: Path, scratch: Path
) -> None:
    path = animated(tmp_path / name)
    animation, expected = decoder.decode_animation(path, scratch), codec.decode_animation(path.read_bytes())
    assert (animation.delays_ms, animation.loop) == ((100, 200, 300), expected.loop)
    for frame, other in zip(animation.frames, expected.frames, strict=True):
        np.testing.assert_array_equal(rows_of(frame), rows_of(other))
    chosen = decoder.decode(path, scratch, frame=1)
    np.testing.assert_array_equal(rows_of(chosen), rows_of(expected.frames[1]))


def test_a_bomb_is_refused_by_its_header(decoder: Decoder, tmp_path: Path, scratch: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(60_000, 50_000))  # without pixels: decoding them would say "damaged"
    assert tuple(decoder.probe(bomb).size) == (60_000, 50_000)
    with pytest.raises(PictureTooLarge, match=r"60000×50000, 3000\.0 megapixels; the limit is 1;"):
        decoder.decode(bomb, scratch)


def test_frames_of_an_animation_are_counted_together(decoder: Decoder, tmp_path: Path, scratch: Path) -> None:
    images = [Image.fromarray(noise(200, 200, seed=seed)) for seed in range(3)]
    path = tmp_path / "a.gif"
    images[0].save(path, save_all=True, append_images=images[1:])
    with pytest.raises(PictureTooLarge, match="3 frames of 200×200"):
        decoder.decode_animation(path, scratch)
    assert decoder.decode(path, scratch, frame=2).size == (200, 200)


def test_a_large_page_behind_a_small_one_is_refused(decoder: Decoder, tmp_path: Path, scratch: Path) -> None:
    path = tmp_path / "pages.tif"
    Image.new("L", (10, 10)).save(path, save_all=True, append_images=[Image.new("L", (2000, 2000))])
    with pytest.raises(PictureTooLarge, match="2000×2000"):
        decoder.decode(path, scratch, frame=1)


@linux
def test_a_scratch_disk_that_is_full_costs_one_picture(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The limit on written bytes stands for the full disk: to the child it is the same refusal.
    monkeypatch.setattr(DecoderLimits, "child_file_bytes", 10_000)
    with closing(Decoder()) as own:
        for side in (60, 2000):
            with pytest.raises(OutOfMemory, match="the scratch folder cannot hold"):
                own.decode(saved(tmp_path / "a.png", noise(side, side)), scratch)
        assert own.decode(saved(tmp_path / "a.png", noise(8, 8)), scratch).size == (8, 8)


def test_a_file_of_too_many_bytes_is_not_opened(tmp_path: Path, scratch: Path) -> None:
    path = saved(tmp_path / "a.png", noise(100, 100))
    with closing(Decoder(DecoderLimits(max_source_bytes=1000))) as own:
        with pytest.raises(PictureTooLarge, match=r"0\.0 MB; the limit is 0\.001"):
            own.decode(path, scratch)
        assert own.pid is None


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"%PDF-1.7", UnsupportedFormat), (b"", InvalidPicture), (png(9, 9, pixels=b"\0" * 20), InvalidPicture)],
    ids=["pdf", "empty", "truncated"],
)
def test_a_bad_file_does_not_cost_the_child(
    content: bytes, error: type[Exception], decoder: Decoder, tmp_path: Path, scratch: Path
) -> None:
    good = saved(tmp_path / "good.png", noise(8, 8))
    decoder.probe(good)
    before = decoder.pid
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(error):
        decoder.decode(tmp_path / "bad", scratch)
    assert decoder.decode(good, scratch).size == (8, 8)
    assert decoder.pid == before


@linux
def test_a_picture_that_needs_too_much_memory_costs_only_itself(tmp_path: Path, scratch: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(png(20_000, 20_000, bits=1, pixels=bytes(2_501 * 20_000)))
    with closing(Decoder(DecoderLimits(max_pixels=500_000_000, memory_bytes=300 * 2**20))) as own:
        with pytest.raises(OutOfMemory, match="more memory than the decoder may use"):
            own.decode(large, scratch)
        assert own.pid is None
        assert own.decode(saved(tmp_path / "small.png", noise(8, 8)), scratch).size == (8, 8)


# ---------------------------------------------------------------- the child in danger


def when(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_a_decode_that_hangs_meets_its_deadline(tmp_path: Path, scratch: Path) -> None:
    path = saved(tmp_path / "a.png", noise(8, 8))
    with closing(Decoder(DecoderLimits(seconds=0.5))) as own:
        own.probe(path)
        pid = own.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(InvalidPicture, match=r"longer than 0\.5 s"):
            own.decode(path, scratch)
        assert not psutil.pid_exists(pid)


def test_a_child_is_replaced_after_its_share_of_pictures(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", noise(8, 8))
    with closing(Decoder(DecoderLimits(pictures_per_child=2))) as own:
        pids = [own.probe(path) and own.pid for _ in range(4)]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_the_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", noise(8, 8))
    script = (
        "import sys; from pathlib import Path; from enlarger.engine.decoder import Decoder; own = Decoder();"
        "own.probe(Path(sys.argv[1])); print(own.pid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    when(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_a_child_that_cannot_start_is_told_apart_from_a_bad_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "BOOT", "raise SystemExit(3)")
    with closing(Decoder()) as own, pytest.raises(RuntimeUnavailable, match="exit code 3"):
        own.probe(saved(tmp_path / "a.png", noise(8, 8)))


# ---------------------------------------------------------------- the child taken over

TAKEN_OVER = """
import json, os, socket, struct, sys
sys.path[:] = json.loads(sys.argv[1])
from enlarger.engine.decoder_child import serve
from enlarger.engine.pictures import codec
from enlarger.errors import InvalidPicture

def run(code):
    try:
        exec(code)
    except OSError as error:
        raise InvalidPicture(f"refused: {error.strerror}") from error
    raise InvalidPicture("it worked")

codec.probe = run
serve(*map(int, sys.argv[2:]))
"""


@pytest.fixture
def taken_over(monkeypatch: pytest.MonkeyPatch) -> Iterator[Decoder]:
    monkeypatch.setattr(decoder_module, "BOOT", TAKEN_OVER)
    with closing(Decoder(DecoderLimits(seconds=20))) as own:
        yield own


REFUSED = ("refused: Permission denied", "refused: Operation not permitted")


def told(decoder: Decoder, path: Path, code: str) -> str:
    """What becomes of a picture that is `code`."""
    path.write_text(code)
    with pytest.raises((InvalidPicture, OutOfMemory)) as caught:
        decoder.probe(path)
    return str(caught.value)


@landlocked
def test_a_taken_over_child_reaches_nothing(taken_over: Decoder, tmp_path: Path, scratch: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    attempts = {
        "read a file": f"open({str(secret)!r})",
        "read a system file": "open('/etc/passwd')",
        "read the source of this program": "open(codec.__file__)",
        "list a folder": "os.listdir('/')",
        "write beside the picture": f"open({str(tmp_path / 'new')!r}, 'w')",
        "write into the scratch folder by name": f"open({str(scratch / 'new')!r}, 'w')",
        "remove a file": f"os.remove({str(secret)!r})",
        "run a program": "os.execv('/bin/true', ['true'])",
        "connect to this machine": "socket.create_connection(('127.0.0.1', 9))",
        "listen": "socket.create_server(('127.0.0.1', 0))",
    }
    if sandbox.landlock_abi() >= 6:
        attempts["signal its parent"] = "os.kill(os.getppid(), 0)"
    ends = {attempt: told(taken_over, tmp_path / "attack", code) for attempt, code in attempts.items()}
    allowed = {attempt: end for attempt, end in ends.items() if not end.startswith(REFUSED)}
    assert allowed == {}


@linux
def test_a_taken_over_child_finds_no_secret_and_keeps_its_limits(
    taken_over: Decoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENLARGER_SECRET", "key")
    attack = tmp_path / "attack"
    assert told(taken_over, attack, "raise InvalidPicture(' '.join(os.environ))").find("ENLARGER") == -1
    assert "more memory" in told(taken_over, attack, "bytearray(8 << 30)")
    assert told(taken_over, attack, "[os.dup(0) for _ in range(100)]") == "refused: Too many open files"
    child = psutil.Process(taken_over.pid)
    assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    assert child.rlimit(psutil.RLIMIT_FSIZE) == (2_048_000_000, 2_048_000_000)
    assert child.rlimit(psutil.RLIMIT_CPU)[0] <= child.cpu_times().user + 22


@pytest.mark.parametrize(
    ("code", "cause"),
    [("import ctypes; ctypes.string_at(0)", "SIGSEGV"), ("os.kill(os.getpid(), 9)", "SIGKILL")],
)
def test_a_child_that_dies_at_work_costs_one_picture(
    code: str, cause: str, taken_over: Decoder, tmp_path: Path
) -> None:
    attack = tmp_path / "attack"
    assert told(taken_over, attack, code).startswith(
        f"the decoder ended while it read this picture ({cause})"
    )
    assert taken_over.pid is None
    assert told(taken_over, attack, "pass") == "it worked"


def test_closing_ends_a_call_of_another_thread(taken_over: Decoder, tmp_path: Path) -> None:
    attack = tmp_path / "attack"
    told(taken_over, attack, "pass")
    child = psutil.Process(taken_over.pid)
    idle = child.cpu_times().user
    with ThreadPoolExecutor() as threads:
        end = threads.submit(told, taken_over, attack, "while True: pass")
        when(lambda: child.cpu_times().user > idle + 0.05)
        taken_over.close()
        assert "the decoder ended" in end.result()
    assert not child.is_running()


def said(words: object) -> bytes:
    text = words if isinstance(words, bytes) else json.dumps(words).encode()
    return struct.pack(">I", len(text)) + text


HEADER = {
    "kind": "header", "format": "png", "width": 4, "height": 4, "colours": 1, "has_alpha": False,
    "depth": 8, "frames": 1, "pages": 1, "blobs": [],
}  # fmt: skip
PIXELS = {**HEADER, "kind": "pixels", "notes": [], "blobs": [0, 0, 0], "delays_ms": [0], "loop": 0}
LIES = {
    "no JSON": said(b"\x80\x04pickle"),
    "not an object": said([1]),
    "nested": said(b"[" * 100_000),
    "endless": b"\xff\xff\xff\xff",
    "an error of another place": said(
        {"kind": "failure", "code": "unauthorized", "message": "", "blobs": []}
    ),
    "another kind": said({**HEADER, "kind": "ready"}),
    "a width that is text": said({**HEADER, "width": "4"}),
    "no width": said({**HEADER, "width": 0}),
    "two colours": said({**HEADER, "colours": 2}),
    "alpha by number": said({**HEADER, "has_alpha": 1}),
    "another format": said({**HEADER, "format": "../png"}),
    "pixels that were not written": said(PIXELS),
    "too many pixels": said({**PIXELS, "width": 2**30, "height": 2**30}),
    "a large profile": said({**PIXELS, "blobs": [2**40, 0, 0]}),
    "too few blobs": said({**PIXELS, "blobs": []}),
    "no notes": said({**PIXELS, "notes": 3}),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_a_child_says_is_not_believed(lie: str, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "raw").open("w+b") as raw:
        theirs.sendall(LIES[lie])
        with pytest.raises(ValueError, match=r"\w"):
            understood(ours, raw, "pixels" if b'"pixels"' in LIES[lie] else "header")


def understood(pipe: socket.socket, raw: IO[bytes], kind: str) -> None:
    answer = receive(pipe, kind, seconds=5, max_blob_bytes=100)
    if kind == "header":
        header_from(answer)
    else:
        animation_from(answer, raw, max_pixels=1000)


def test_a_child_that_lies_is_replaced(taken_over: Decoder, tmp_path: Path, scratch: Path) -> None:
    attack = tmp_path / "attack"
    attack.write_text(f"os.write(int(sys.argv[2]), {said([1])!r}); import time; time.sleep(60)")
    with pytest.raises(InvalidPicture, match="the decoder lost its way"):
        taken_over.decode(attack, scratch)
    assert taken_over.pid is None


def test_an_answer_that_drips_meets_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def drip() -> None:
        theirs.sendall(struct.pack(">I", 1000))
        while not stop.wait(0.05):
            theirs.sendall(b" ")

    with ours, theirs:
        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(TimeoutError):
                receive(ours, "header", seconds=0.3, max_blob_bytes=0)
        finally:
            stop.set()
            thread.join()


def test_rows_cut_off_behind_our_back_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(bytes(64))
    with path.open("r+b") as file:
        raw = RawFile(file, 8, 1, 8)
        assert raw.rows(0, 8).shape == (8, 8, 1)
        file.truncate(32)
    with pytest.raises(InvalidPicture, match="cut short"):
        raw.rows(0, 8)


def test_the_state_of_the_sandbox_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    states = []
    for abi in (7, -38, -1):
        monkeypatch.setattr(sandbox, "landlock_abi", lambda abi=abi: abi)
        states.append(sandbox.sandbox_state())
    monkeypatch.setattr(sys, "platform", "darwin")
    assert [*states, sandbox.sandbox_state()] == [
        "rlimits and Landlock ABI 7",
        "rlimits only: this kernel has no Landlock",
        "rlimits only: the container forbids Landlock",
        "none: darwin has neither these rlimits nor Landlock",
    ]
