"""Files: what is stored, by link. A link carries its own right and is the same whatever the store."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from enlarger.errors import NotFound
from enlarger.jobs import links
from enlarger.jobs.blobs import Blobs
from enlarger.jobs.job import EXTENSIONS

UPLOAD_EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/gif": "gif",
    "image/bmp": "bmp",
    "image/tiff": "tiff",
    "image/avif": "avif",
    "image/heic": "heic",
}
"""Extension of an upload's blob key by the type it was announced with."""

CACHING = "private, max-age=86400, immutable"

_MEDIA_TYPES = {extension: media_type for media_type, extension in (EXTENSIONS | UPLOAD_EXTENSIONS).items()}
_UNKNOWN_MEDIA_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A stored file that may be sent to whoever holds its link."""

    path: Path
    key: str

    @property
    def media_type(self) -> str:
        return media_type_of(self.key)

    @property
    def filename(self) -> str:
        return self.key.partition("/")[2].replace("/", "-")

    @property
    def disposition(self) -> str:
        """A browser may show results, our own encoding; uploads are a stranger's bytes, to be saved."""
        return "inline" if self.key.startswith("outputs/") else "attachment"


class Files:
    """Makes links and follows them. link_secret: signs them; clock: Unix seconds."""

    def __init__(
        self, *, blobs: Blobs, clock: Callable[[], float], link_secret: bytes, retention_days: int
    ) -> None:
        self._blobs = blobs
        self._clock = clock
        self._link_secret = link_secret
        self._retention_days = retention_days

    def link(self, blob_key: str, base_url: str) -> str:
        """A link to a stored file that needs no key, valid for `retention_days` to `retention_days` + 1."""
        token = links.token_for_days(self._link_secret, blob_key, self._clock(), self._retention_days)
        return f"{base_url}/files/{token}/{blob_key}"

    @asynccontextmanager
    async def open(self, token: str, key: str) -> AsyncGenerator[ServedFile]:
        """The file behind a link, until the exit. Raises NotFound for a wrong or expired link, or none behind it."""
        self._check(token, key)
        async with self._blobs.local(key) as path:
            yield ServedFile(path, key)

    async def direct_url(self, token: str, key: str, method: str) -> str | None:
        """Where the store itself answers GET or HEAD (`method`) of a link, for some minutes. Raises as `open`.

        None when the file has to go through the service.
        """
        self._check(token, key)
        if self._blobs.direct is None:
            return None
        await self._blobs.size(key)  # whoever has a link to nothing shall hear it from us
        file = ServedFile(Path(), key)
        answer = {
            "Content-Type": file.media_type,
            "Content-Disposition": f'{file.disposition}; filename="{file.filename}"',
            "Cache-Control": CACHING,
        }
        return self._blobs.direct.get(key, method, answer)

    def _check(self, token: str, key: str) -> None:
        if not links.verify(self._link_secret, key, token, self._clock()):
            raise NotFound(
                "File not found: the link is wrong or has expired; poll the prediction for a new one"
            )


def media_type_of(blob_key: str) -> str:
    """By the key's extension; one that promises nothing for any other."""
    return _MEDIA_TYPES.get(blob_key.rpartition(".")[2], _UNKNOWN_MEDIA_TYPE)
