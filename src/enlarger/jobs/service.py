"""Service: what a client of the API can ask of its jobs. Every call names the key it is made with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from enlarger.engine.networks.cards import face_models, models
from enlarger.engine.networks.catalogue import FACE_MODELS, MODELS, FaceModelSpec
from enlarger.engine.options import Options
from enlarger.errors import EnlargerError, Forbidden, InvalidOption, NotFound, Overloaded, Unauthorized
from enlarger.jobs.admission import Limits, Repeat, network_of, repeat_of
from enlarger.jobs.blobs import Blobs, delete_files
from enlarger.jobs.changes import Change, Changes, StatusChanged, next_change, status_changed
from enlarger.jobs.files import Files, ServedFile
from enlarger.jobs.history import DAY_SECONDS, MAX_PAGE_SIZE, Asked, Used
from enlarger.jobs.intake import Intake
from enlarger.jobs.job import Job, Key, Output, Scope
from enlarger.jobs.keys import secret_hash
from enlarger.jobs.limits import AtOnce
from enlarger.jobs.line import Line, Standing, one_device
from enlarger.jobs.preflight import Planner, Preflight
from enlarger.jobs.routes import route_of
from enlarger.jobs.sources import InlineSource, Source, UrlSource, fetch_limits
from enlarger.jobs.store import Store
from enlarger.jobs.uploads import Ticket, Upload, Uploads
from enlarger.jobs.weights import SharedDownloads
from enlarger.settings import Settings

_POLL_SECONDS = 1.0
"""How often the store is asked while waiting: a change made by another process makes no sound here."""
_MAX_DELETED_AT_ONCE = 1000
_CHECKS_AT_ONCE = 300
_SUBMITS_AT_ONCE = 100
"""More would only wait for each other, in the end longer than their clients do. A submit costs three polls."""
_REFUSING_SECONDS = 60.0


class Service:
    """Submit, watch, cancel, delete, upload. Any number may share one store and blobs.

    clock: Unix seconds. new_id: 32 lower-case hex characters, unguessable. link_secret: signs links to files.
    planner: what `preflight` asks; without one it raises FeatureUnavailable. weights: those that jobs wait for.
    devices: how many compute.
    """

    def __init__(
        self,
        *,
        store: Store,
        blobs: Blobs,
        settings: Settings,
        clock: Callable[[], float],
        new_id: Callable[[], str],
        link_secret: bytes,
        changes: Changes | None = None,
        planner: Planner | None = None,
        weights: SharedDownloads | None = None,
        devices: Callable[[], Awaitable[int]] = one_device,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._settings = settings
        self._clock = clock
        self._new_id = new_id
        self._link_secret = link_secret
        self._changes = changes or Changes()
        self._checks = AtOnce(_CHECKS_AT_ONCE, "checks of API keys")
        self._submits = AtOnce(_SUBMITS_AT_ONCE, "submits")
        self._refusing_until = float("-inf")
        self._line = Line(store, clock, devices)
        self._intake = Intake(blobs=blobs, settings=settings, clock=clock, link_secret=link_secret)
        weights = weights or SharedDownloads(None, settings)
        self._preflight = Preflight(planner, weights, blobs, fetch_limits(settings))
        self._files = Files(
            blobs=blobs, clock=clock, link_secret=link_secret, retention_days=settings.retention_days
        )
        self._uploads = Uploads(
            database=store.database,
            blobs=blobs,
            settings=settings,
            clock=clock,
            new_id=new_id,
            secret=link_secret,
        )

    # Keys

    async def authenticate(self, secret: str) -> Key:
        """The key of a secret. Raises Unauthorized when it is unknown, revoked or expired; Overloaded."""
        with self._checks.one():
            return self._valid(await self._store.key_by_hash(secret_hash(secret)))

    def require(self, key: Key, *scopes: Scope) -> None:
        """Raises Forbidden when the key has none of the scopes."""
        if key.scopes.isdisjoint(scopes):
            raise Forbidden(
                f"This API key may not do that: it has the scopes {', '.join(sorted(key.scopes))}, "
                f"and this needs {' or '.join(scopes)}"
            )

    # Jobs: submit and look

    async def submit(
        self,
        key: Key,
        *,
        model: str,
        image: str,
        options: Options,
        echo: Mapping[str, Any],
        webhook_url: str = "",
        idempotency_key: str = "",
        base64_output: bool = False,
    ) -> Job:
        """Accept a job. When this returns the job survives a crash of the server.

        image: http(s) URL, data URI or base64; a link of ours is read from the store. echo: the request as sent; an
        inline picture in its `image` is replaced by a note of its size. The same `idempotency_key` with the same
        request within 24 h gives the job of the first.
        Raises Forbidden, InvalidOption, PayloadTooLarge, IdempotencyConflict, RateLimited, Overloaded, StorageFull.
        """
        self.require(key, Scope.SUBMIT)
        check_models(options, self._settings.weights_dir)
        job = Job(
            id=self._new_id(),
            key_id=key.id,
            model=model,
            input=echo,
            options={spec.name: getattr(options, spec.name) for spec in fields(options)},
            webhook_url=webhook_url,
            base64_output=base64_output,
            created_at=self._clock(),
            route=str(route_of(options.model, self._settings.pools)),
            rank=-key.priority,
        )
        with self._submits.one():
            repeat = (
                await asyncio.to_thread(repeat_of, idempotency_key, job, image) if idempotency_key else None
            )
            if repeat and (found := await self._store.earlier(key, repeat, self._clock())):
                return found
            source = await self._intake.read(image)
            if isinstance(source, InlineSource):
                job = replace(job, input={**echo, "image": f"(inline picture, {len(source.data)} bytes)"})
            return await self._admitted(job, key, source, repeat)

    async def poll(self, secret: str, job_id: str) -> Job:
        """`authenticate` and `get` in one query. Raises Unauthorized, Forbidden, NotFound, Overloaded."""
        with self._checks.one():
            key, job = await self._store.poll(secret_hash(secret), job_id)
        self.require(self._valid(key), Scope.READ)
        return _found(job, job_id)

    async def get(self, key: Key, job_id: str) -> Job:
        """The job. Raises NotFound when there is none or it belongs to another key."""
        self.require(key, Scope.READ, Scope.SUBMIT)
        return _found(await self._store.get(job_id, key.id), job_id)

    async def wait(self, key: Key, job_id: str, seconds: float) -> Job:
        """The job as soon as it has ended, or as it stands after `seconds` or at `let_go`. Raises as `get`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        with self._changes.listening(job_id) as changes:
            while True:
                job = await self.get(key, job_id)
                left = deadline - loop.time()
                if job.state.is_terminal or left <= 0 or self._changes.ending:
                    return job
                await status_changed(changes, min(left, _POLL_SECONDS))

    async def events(self, key: Key, job_id: str) -> AsyncGenerator[Job | Change]:
        """The job as it stands, then every tile (TileDone) and the job again whenever its row has changed.

        Ends after the job in its terminal state, when it is deleted, or at `let_go`. Raises NotFound as `get`.
        """
        with self._changes.listening(job_id) as changes:
            job = await self.get(key, job_id)
            yield job
            while not (job.state.is_terminal or self._changes.ending):
                change = await next_change(changes, _POLL_SECONDS)
                if not isinstance(change, StatusChanged):
                    yield change
                    continue
                latest = await self._store.get(job_id, key.id)
                if latest is None:
                    return
                if latest != job:
                    yield (job := latest)

    def let_go(self) -> None:
        """Let `wait` and `events` wait no longer: the server ends."""
        self._changes.end()

    async def history(
        self,
        key: Key,
        *,
        page: int = 1,
        page_size: int = 20,
        model: str = "",
        status: str = "",
        created_after: float | None = None,
        created_before: float | None = None,
    ) -> list[Job]:
        """The key's jobs, newest first. page_size: 1 to 100; times: Unix seconds. Raises InvalidOption."""
        self.require(key, Scope.READ)
        # The offset has to fit the integers of the database.
        for name, value, high in (("page", page, 10**9), ("page_size", page_size, MAX_PAGE_SIZE)):
            if not 1 <= value <= high:
                raise InvalidOption(f"{name} must be from 1 to {high}, not {value}", name)
        asked = Asked(model=model, status=status, created_after=created_after, created_before=created_before)
        return await self._store.history(key.id, asked, page, page_size)

    async def usage(self, key: Key, start: float, end: float) -> list[Used]:
        """What the key's jobs took, by UTC day and model, of the days from `start` to `end` (Unix seconds)."""
        self.require(key, Scope.READ)
        return await self._store.used(key.id, int(start // DAY_SECONDS), int(end // DAY_SECONDS))

    async def position_and_eta(self, job: Job) -> Standing:
        """How many jobs until it is this one's turn, and seconds to its end; both None when it has ended."""
        return await self._line.standing(job)

    async def preflight(self, key: Key, image: str, options: Options) -> Mapping[str, Any]:
        """What the job would be, without running it: the planner's words and `eta_seconds`. Raises its refusal."""
        self.require(key, Scope.SUBMIT)
        plan = await self._preflight.plan(await self._intake.read(image), options)
        line = await self._line.look()
        return {**plan, "eta_seconds": line.seconds + float(plan["seconds"])}

    # Jobs: end and remove

    async def cancel(self, key: Key, job_id: str) -> Job:
        """End the job; the device lets go of it within one tile. A job that has ended stays as it is."""
        self.require(key, Scope.SUBMIT)
        job = await self._store.cancel(job_id, key.id, self._clock())
        if job is None:
            return await self.get(key, job_id)
        self._changes.publish(job_id, StatusChanged())
        return job

    async def delete(self, key: Key, job_ids: Collection[str]) -> int:
        """Remove jobs of the key with their files, also unfinished ones; how many of the ids there were.

        Raises InvalidOption for more than 1000 ids.
        """
        self.require(key, Scope.SUBMIT)
        if len(job_ids) > _MAX_DELETED_AT_ONCE:
            raise InvalidOption(f"ids must be at most {_MAX_DELETED_AT_ONCE}, not {len(job_ids)}", "ids")
        gone = await self._store.delete(job_ids, key.id)
        for job_id in gone:
            self._changes.publish(job_id, StatusChanged())
            await delete_files(self._blobs, job_id)
        return len(gone)

    # Files

    async def create_upload(
        self, key: Key, filename: str, size: int | None, content_type: str, *, may_be_direct: bool = True
    ) -> Ticket:
        """Permission to upload one file of `size` bytes (None: unknown). Raises Forbidden and as `Uploads.create`."""
        self.require(key, Scope.SUBMIT)
        return await self._uploads.create(key, filename, size, content_type, may_be_direct=may_be_direct)

    async def receive_upload(self, token: str, stream: AsyncIterator[bytes]) -> Upload:
        """Take the file of a ticket, once. Raises as `Uploads.receive`.

        A stream that raises or is abandoned leaves nothing behind, and the ticket stays good.
        """
        return await self._uploads.receive(token, stream)

    def link(self, blob_key: str, base_url: str) -> str:
        """As `Files.link`."""
        return self._files.link(blob_key, base_url)

    def output_url(self, output: Output, base_url: str) -> str:
        """The link to a result."""
        return self.link(output.blob_key, base_url)

    def open_file(self, token: str, key: str) -> AbstractAsyncContextManager[ServedFile]:
        """As `Files.open`."""
        return self._files.open(token, key)

    async def direct_url(self, token: str, key: str, method: str) -> str | None:
        """As `Files.direct_url`."""
        return await self._files.direct_url(token, key, method)

    def _valid(self, key: Key | None) -> Key:
        if key is None or not key.is_valid(self._clock()):
            raise Unauthorized("Invalid API key: create one with `enlarger keys create`")
        return key

    async def _admitted(self, job: Job, key: Key, source: Source, repeat: Repeat | None) -> Job:
        """The job as it was recorded and queued, or the one it repeats. Blob, row, queue: in this order."""
        settings = self._settings
        limits = Limits(max_jobs=settings.max_backlog_jobs, max_seconds=settings.max_backlog_seconds)
        await self._intake.check_space(source)
        if isinstance(source, UrlSource):
            job = replace(job, source_url=source.url)
        else:
            if self._clock() < self._refusing_until:
                await self._store.check_admission(key, network_of(job.options), limits, self._clock())
            job = replace(job, source_blob=await self._intake.store(job.id, source))
        try:
            admitted = await self._store.admit(job, key, limits, repeat, self._clock())
        except EnlargerError as error:
            if isinstance(error, Overloaded) and error.may_have_happened:
                raise  # the row may be there, and needs its picture; if it is not, the sweep finds an orphan
            await delete_files(self._blobs, job.id)
            if isinstance(error, Overloaded):
                # From now on it is asked before the bytes are written: refused submits shall not keep the disk busy.
                self._refusing_until = self._clock() + _REFUSING_SECONDS
            raise
        if admitted.id != job.id:
            await delete_files(self._blobs, job.id)
        return admitted


def _found(job: Job | None, job_id: str) -> Job:
    if job is None:
        raise NotFound(f"Prediction not found: {job_id[:64]}")
    return job


def check_models(options: Options, weights_dir: Path | None) -> None:
    """Raises InvalidOption for a name of no model. Whether its weights are here shows when the job runs."""
    if options.model != "auto" and options.model not in MODELS:
        known = models(weights_dir)  # looks at the disk
        if options.model not in known:
            raise InvalidOption(
                f"model must be one of {', '.join(known)} or auto, not {options.model!r}", "model"
            )
    if _is_restorer(FACE_MODELS.get(options.face_model)):
        return
    restorers = [name for name, spec in face_models(weights_dir).items() if _is_restorer(spec)]
    if options.face_model not in restorers:
        raise InvalidOption(
            f"face_model must be one of {', '.join(restorers)}, not {options.face_model!r}", "face_model"
        )


def _is_restorer(spec: FaceModelSpec | None) -> bool:
    return spec is not None and spec.role == "restorer"
