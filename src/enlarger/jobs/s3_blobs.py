"""S3 blobs: pictures in a bucket of any S3-compatible store, through obstore.

What the store acknowledges is durable, and an object is never visible in part; so all that is left to do here is to
bound waits, to give failures names, and to keep files of hundreds of megabytes out of memory.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from mmap import ACCESS_READ, mmap
from pathlib import Path
from shutil import disk_usage
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from enlarger.errors import AlreadyExists, EnlargerError, NotFound, StorageUnavailable
from enlarger.jobs.blobs import Direct, Stored, is_key
from enlarger.jobs.scratch import Scratch

if TYPE_CHECKING:
    from obstore.store import BackoffConfig, ClientConfig, RetryConfig, S3Config
    from typing_extensions import Buffer

logger = logging.getLogger(__name__)

_PART_BYTES = 8 << 20
_PARTS_AT_ONCE = 4
_LARGE_BYTES = 1 << 20
"""From here on a body may take _PATIENCE times as long: the answer to a PUT cannot come before its last byte."""
_PATIENCE = 10
_PAGE = 1000
"""Objects listed, and deleted, in one request: the most S3 takes."""
_AGAIN_SECONDS = 5.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Where the objects are. endpoint: `https://host[:port]`; prefix: before every key, no slash at its ends.

    access_key, secret_key: both empty means those that the machine has by its role or its AWS_ variables.
    """

    name: str
    prefix: str = ""
    endpoint: str = ""
    region: str = "us-east-1"
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)

    def opened(self, answer_seconds: float, retry_seconds: float) -> S3Store:
        """A client that waits `answer_seconds` for an answer, and repeats what failed within `retry_seconds`."""
        config: S3Config = {"region": self.region}
        if self.endpoint:
            config["endpoint"] = self.endpoint
        if self.access_key:
            config["access_key_id"] = self.access_key
            config["secret_access_key"] = self.secret_key
        client: ClientConfig = {
            "allow_http": self.endpoint.startswith("http:"),
            "connect_timeout": timedelta(seconds=min(answer_seconds, 5.0)),
            "read_timeout": timedelta(seconds=answer_seconds),
            "timeout": timedelta(hours=1),  # of a whole request with its body; silence is what counts
        }
        backoff: BackoffConfig = {
            "init_backoff": timedelta(seconds=0.1),
            "max_backoff": timedelta(seconds=1.0),
            "base": 2,
        }
        retry: RetryConfig = {
            "max_retries": 1000,
            "retry_timeout": timedelta(seconds=retry_seconds),
            "backoff": backoff,
        }
        return S3Store(
            self.name, prefix=self.prefix or None, config=config, client_options=client, retry_config=retry
        )


class S3Blobs:
    """Blobs as objects of a bucket, which any number of machines may share.

    seconds: how long a request waits for an answer, and is repeated; a large body gets ten times that.
    direct: signs the URLs that clients are given; without it every byte goes through the service.
    """

    def __init__(
        self,
        bucket: Bucket,
        scratch: Path,
        *,
        seconds: float,
        direct: Direct | None = None,
    ) -> None:
        self._bucket = bucket
        self._store = bucket.opened(seconds, seconds)
        self._patient = bucket.opened(seconds * _PATIENCE, seconds)
        self._scratch = Scratch(scratch)
        self.direct = direct

    def scratch(self) -> AbstractAsyncContextManager[Path]:
        return self._scratch.folder()

    async def clear_scratch(self) -> None:
        await asyncio.to_thread(self._scratch.clear)

    async def put(self, key: str, data: bytes) -> None:
        with self._named(key):
            await obstore.put_async(self._for(len(data)), key, data, chunk_size=_PART_BYTES)

    async def put_file(self, key: str, path: Path) -> None:
        store = self._for(path.stat().st_size)
        with self._named(key):
            await obstore.put_async(store, key, path, chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE)
        path.unlink()

    async def create_file(self, key: str, path: Path) -> None:
        # Only a request that holds the whole body can be made to fail when there is such an object.
        store = self._for(path.stat().st_size)
        with self._named(key):
            await obstore.put_async(store, key, _mapped(path), mode="create")
        path.unlink()

    async def copy(self, source: str, target: str) -> None:
        _check(target)
        with self._named(source):
            await obstore.copy_async(self._patient, source, target)

    @asynccontextmanager
    async def local(self, key: str) -> AsyncGenerator[Path]:
        """A copy of the blob in a scratch folder. Raises EnlargerError for one unlike the SHA-256 it is named by."""
        async with self.scratch() as folder:
            path = folder / "blob"
            digest = await self._download(key, path)
            promised = key.rpartition("/")[2]
            if _SHA256.fullmatch(promised) and digest != promised:
                raise EnlargerError("The stored picture is damaged: send it again")
            yield path

    async def size(self, key: str) -> int:
        with self._named(key):
            return (await obstore.head_async(self._store, key))["size"]

    async def delete(self, key: str) -> None:
        with self._named(key):
            await obstore.delete_async(self._store, key)

    async def delete_below(self, prefix: str) -> None:
        _check(prefix)
        async for page in self._listed(prefix):
            with self._translated(prefix):
                await obstore.delete_async(self._store, [blob.key for blob in page])

    def pages(self, prefix: str = "") -> AsyncIterator[list[Stored]]:
        return self._listed(prefix or None)

    async def free_bytes(self) -> int:
        self._scratch.root.mkdir(parents=True, exist_ok=True)
        return (await asyncio.to_thread(disk_usage, self._scratch.root)).free

    def _for(self, size: int) -> S3Store:
        return self._patient if size > _LARGE_BYTES else self._store

    async def _download(self, key: str, path: Path) -> str:
        """Write the object to `path`; the SHA-256 of its bytes."""
        digest = sha256()
        with self._named(key), path.open("wb") as file:
            found = await obstore.get_async(self._store, key)
            async for chunk in found.stream():
                await asyncio.to_thread(_take, chunk, file.write, digest.update)
        return digest.hexdigest()

    async def _listed(self, prefix: str | None) -> AsyncGenerator[list[Stored]]:
        # obstore takes a prefix by whole parts: outputs/1 is not the beginning of outputs/10.
        with self._translated(prefix or ""):
            async for page in obstore.list(self._store, prefix, chunk_size=_PAGE):
                found = [Stored(one["path"], one["last_modified"].timestamp(), one["size"]) for one in page]
                yield [blob for blob in found if is_key(blob.key)]

    def _named(self, key: str) -> AbstractContextManager[None]:
        """As `_translated`, for a key that may come from a stranger."""
        _check(key)
        return self._translated(key)

    @contextmanager
    def _translated(self, key: str) -> Generator[None]:
        """Turn what obstore raises into our errors."""
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise self._away(f"it has no bucket {self._bucket.name}", error) from error
            raise NotFound(f"No file is stored as {key!r}") from error
        except (AlreadyExistsError, PreconditionError) as error:
            raise AlreadyExists(f"A file is stored already as {key!r}") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise self._away("it refuses the key of this server", error) from error
        except BaseError as error:
            reason = "it has no such bucket" if "NoSuchBucket" in str(error) else "no answer"
            raise self._away(reason, error) from error

    def _away(self, reason: str, error: Exception) -> StorageUnavailable:
        # What obstore says after its first paragraph is a dump for its authors.
        logger.warning("The object store fails: %s", str(error).partition("\n\nDebug source")[0])
        return StorageUnavailable(
            f"The object store cannot be used at the moment ({reason}): try again later", _AGAIN_SECONDS
        )


def _check(key: str) -> None:
    if not is_key(key):
        raise NotFound(f"No file is stored as {key[:200]!r}")


def _mapped(path: Path) -> memoryview:
    """The bytes of a file without reading them: pages of the disk's cache, not memory of the process."""
    if not path.stat().st_size:
        return memoryview(b"")
    with path.open("rb") as file:
        return memoryview(mmap(file.fileno(), 0, access=ACCESS_READ))


def _take(chunk: Buffer, *takers: Callable[[Buffer], object]) -> None:
    for taker in takers:
        taker(chunk)
