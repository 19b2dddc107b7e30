"""The engine's one door to the network: a file of known size and sha256, from the first address that has it.

What has arrived is kept in `<name>.part` beside the target and continued, in this run or a later one. The target
gets its name only when size and sha256 are right. Nothing is ever downloaded without being asked for by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from io import BufferedRandom
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from enlarger.engine.networks.durable_files import settle
from enlarger.errors import Cancelled, ModelUnavailable, WeightsCorrupt

if TYPE_CHECKING:
    import httpx2

Progress = Callable[[int, int], None]
"""Called with (bytes here, bytes in all)."""

_WORTHWHILE = 1 << 20  # a transfer that brought this much before it broke does not count as a failure
_MAX_REDIRECTS = 5
_LOCK_SECONDS = 0.5
"""Between two looks whether another process still downloads the same file."""
_WORTH_RETRYING = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A file to fetch: the addresses in the order to try, and what it must turn out to be."""

    target: Path
    urls: tuple[str, ...]
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """`attempts` an address gets before the next one; the pause between two doubles each time."""

    attempts: int = 4
    pause_seconds: float = 1.0
    silence_seconds: float = 30.0


class _Refusal(Exception):
    """This address cannot give the file."""

    def __init__(self, reason: str, *, is_wrong: bool = False) -> None:
        super().__init__(reason)
        self.is_wrong = is_wrong


class _Interruption(Exception):
    """The transfer broke off; another attempt may bring the rest."""


def download(
    wanted: Download,
    *,
    is_offline: bool = False,
    progress: Progress = lambda done, total: None,
    pace: Pace | None = None,
    stopped: Event | None = None,
) -> None:
    """Fetch a file, complete and verified when this returns.

    `stopped` ends the call early, with Cancelled, at the next bytes that come; what has come is kept. With it, a
    download of the same file by another process is waited for; without, it is an error.

    Raises ModelUnavailable with what each address answered and the way to do it by hand, or WeightsCorrupt when
    an address gave other bytes than expected.
    """
    if is_offline:
        raise ModelUnavailable(
            f"{wanted.target.name} is not here and nothing is fetched offline; {_by_hand(wanted)}"
        )
    try:
        wanted.target.parent.mkdir(parents=True, exist_ok=True)
        with _opened_part(wanted, stopped) as part:
            if is_whole(wanted):  # by the process that was waited for
                _part_path(wanted).unlink(missing_ok=True)
                return
            with _client(pace or Pace()) as client:
                _from_any(_Transfer(client, wanted, part, progress, pace or Pace(), stopped or Event()))
        settle(_part_path(wanted), wanted.target)
    except OSError as error:
        raise ModelUnavailable(f"cannot write {wanted.target}: {error.strerror or error}") from error


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_whole(wanted: Download) -> bool:
    """Whether the file is there already, as it should be."""
    try:
        return wanted.target.stat().st_size == wanted.bytes and file_sha256(wanted.target) == wanted.sha256
    except FileNotFoundError:
        return False


@dataclass(frozen=True, slots=True)
class _Transfer:
    client: httpx2.Client
    wanted: Download
    part: BufferedRandom
    progress: Progress
    pace: Pace
    stopped: Event

    def check_stopped(self, seconds: float = 0.0) -> None:
        """Wait, and raise Cancelled when the download is no longer wanted."""
        if self.stopped.wait(seconds):
            raise _no_longer_wanted(self.wanted)

    def size(self) -> int:
        return self.part.seek(0, 2)

    def start_over(self) -> None:
        self.part.truncate(0)


def _from_any(transfer: _Transfer) -> None:
    refusals: dict[str, _Refusal] = {}
    for url in transfer.wanted.urls:
        try:
            _from_one(transfer, url)
        except _Refusal as refusal:
            refusals[url] = refusal
        else:
            return
    told = "; ".join(f"{url} {refusal}" for url, refusal in refusals.items())
    is_wrong = any(refusal.is_wrong for refusal in refusals.values())
    raise (WeightsCorrupt if is_wrong else ModelUnavailable)(
        f"cannot download {transfer.wanted.target.name}: {told or 'no address is known'}; {_by_hand(transfer.wanted)}"
    )


def _from_one(transfer: _Transfer, url: str) -> None:
    """Returns when the part is whole and right. Raises _Refusal."""
    is_continued = transfer.size() > 0
    failures, won = 0, transfer.size()
    while True:
        try:
            _receive(transfer, url)
            if _is_right(transfer):
                return
            transfer.start_over()
            if not is_continued:
                raise _Refusal("sent other bytes than expected (the sha256 differs)", is_wrong=True)
            is_continued, won = False, 0  # what an earlier run left may have been the wrong half
        except _Interruption as interruption:
            size = transfer.size()
            failures = 1 if size >= won + _WORTHWHILE else failures + 1
            won = max(won, size)
            if failures >= transfer.pace.attempts:
                raise _Refusal(f"{interruption}, {failures} times") from interruption
            transfer.check_stopped(transfer.pace.pause_seconds * 2 ** (failures - 1))


def _receive(transfer: _Transfer, url: str) -> None:
    """One request for what is missing. Raises _Refusal or _Interruption."""
    import httpx2  # costs 0.1 s, and most runs download nothing

    have = transfer.size()
    if have > transfer.wanted.bytes:
        transfer.start_over()
        have = 0
    if have == transfer.wanted.bytes:
        return
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with transfer.client.stream("GET", url, headers=headers) as response:
            _check_answer(transfer, response, have)
            for chunk in response.iter_raw():
                _keep(transfer, chunk)
    except (httpx2.UnsupportedProtocol, httpx2.TooManyRedirects, httpx2.InvalidURL) as error:
        raise _Refusal(f"cannot be asked: {error}") from error
    except httpx2.TransportError as error:
        raise _Interruption(f"broke off: {error or type(error).__name__}") from error
    if (size := transfer.size()) < transfer.wanted.bytes:
        raise _Interruption(f"ended after {size} of {transfer.wanted.bytes} bytes")


def _check_answer(transfer: _Transfer, response: httpx2.Response, have: int) -> None:
    """Starts the part over where the answer is the whole file. Raises _Refusal or _Interruption."""
    status = response.status_code
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        transfer.start_over()
        raise _Interruption("does not have the part that is missing (HTTP 416)")
    if status in _WORTH_RETRYING:
        raise _Interruption(f"answered HTTP {status} {response.reason_phrase}")
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise _Refusal(f"answered HTTP {status} {response.reason_phrase}")
    if response.headers.get("content-type", "").startswith("text/html"):
        raise _Refusal("answered with a web page, not with a file")
    total = transfer.wanted.bytes
    if status == HTTPStatus.PARTIAL_CONTENT:
        if response.headers.get("content-range", "") not in (
            f"bytes {have}-{total - 1}/{total}",
            f"bytes {have}-{total - 1}/*",
        ):
            transfer.start_over()
            raise _Interruption("sent another part than the one that is missing")
        return
    transfer.start_over()
    if (length := response.headers.get("content-length", str(total))) != str(total):
        raise _Refusal(f"has a file of {length} bytes, not of {total}", is_wrong=True)


def _keep(transfer: _Transfer, chunk: bytes) -> None:
    size = transfer.size() + len(chunk)
    if size > transfer.wanted.bytes:
        transfer.start_over()
        raise _Refusal(f"sent more than {transfer.wanted.bytes} bytes", is_wrong=True)
    transfer.part.write(chunk)
    transfer.progress(size, transfer.wanted.bytes)
    transfer.check_stopped()


def _is_right(transfer: _Transfer) -> bool:
    transfer.part.seek(0)
    return hashlib.file_digest(transfer.part, "sha256").hexdigest() == transfer.wanted.sha256


def _part_path(wanted: Download) -> Path:
    return wanted.target.with_name(f"{wanted.target.name}.part")


@contextmanager
def _opened_part(wanted: Download, stopped: Event | None) -> Generator[BufferedRandom]:
    """What has arrived so far, open for appending, by one process at a time."""
    while True:
        with _part_path(wanted).open("ab+") as part:
            if _locked(part):
                yield part
                return
        # Opened anew each time: what the other process held is the target itself once it is done.
        if stopped is None:
            raise ModelUnavailable(f"another process is downloading {wanted.target.name} right now")
        if stopped.wait(_LOCK_SECONDS):
            raise _no_longer_wanted(wanted)


def _no_longer_wanted(wanted: Download) -> Cancelled:
    return Cancelled(f"{wanted.target.name} is no longer waited for")


def _locked(file: BufferedRandom) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows; there the hash at the end must do
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _client(pace: Pace) -> httpx2.Client:
    import httpx2

    return httpx2.Client(
        follow_redirects=True,
        max_redirects=_MAX_REDIRECTS,
        timeout=pace.silence_seconds,
        headers={"Accept-Encoding": "identity", "User-Agent": "enlarger"},
    )


def _by_hand(wanted: Download) -> str:
    source = f" from {wanted.urls[-1]}" if wanted.urls else ""
    return (
        f"by hand: fetch it{source} on any machine ({wanted.bytes} bytes, sha256 {wanted.sha256}) "
        f"and put it at {wanted.target}"
    )
