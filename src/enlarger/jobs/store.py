"""Store: jobs and keys in one SQL database. The row is the truth; the queue only wakes workers.

Every change of a claimed job is fenced: it names the epoch of the claim and does nothing once a newer claim
exists or the job has ended, so a worker that was thought dead cannot overwrite the work of its successor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Executable, Select, delete, func, insert, select, update

from enlarger.jobs import admission, claims, history, statements, tables
from enlarger.jobs.admission import Limits, Repeat
from enlarger.jobs.database import LONG_PATIENCE_SECONDS, PATIENCE_SECONDS, Database, inserts_or_updates
from enlarger.jobs.history import Asked, Used
from enlarger.jobs.job import Job, Key, Output, State
from enlarger.jobs.queue import Entries, Entry, NoQueue
from enlarger.jobs.rows import Waiting, columns_of_job, columns_of_key, job_of, key_of
from enlarger.jobs.writer import Work

T = TypeVar("T")


_KEEP_SECRET = inserts_or_updates(tables.meta, lambda _: {"value": tables.meta.c.value})


class Store:
    """Jobs, keys and secrets. All methods may be called at once from many tasks of one event loop."""

    def __init__(self, database: Database, queue: Entries | None = None) -> None:
        self.database = database
        self.queue: Entries = queue or NoQueue()
        """Where the entries of new jobs go."""
        self.on_end: Callable[[Job], None] = _unheard
        """Called with every job that this process has ended, once that is durable."""

    @classmethod
    def open(cls, path: Path) -> Store:
        """A store in the SQLite file `path`, made when it is missing. Call `migrate()` first."""
        return cls(Database.open(path))

    async def migrate(self) -> None:
        """Bring the tables to the form this version needs; does nothing when they have it."""
        await self.database.migrate()

    async def close(self) -> None:
        await self.database.close()

    # Jobs: submit and look

    async def earlier(self, key: Key, repeat: Repeat, now: float) -> Job | None:
        """The job that this submit would repeat. Raises IdempotencyConflict."""
        return await self.database.read(lambda connection: admission.earlier(connection, key, repeat, now))

    async def check_admission(self, key: Key, network: str, limits: Limits, now: float) -> None:
        """Raises RateLimited or Overloaded if `admit` would, without taking anything."""
        seen = await self.database.read(lambda connection: admission.outlook(connection, key, network))
        admission.check(key, seen, limits, now)

    async def admit(self, job: Job, key: Key, limits: Limits, repeat: Repeat | None, now: float) -> Job:
        """Record and queue a new job, durable when it returns; or the job that an earlier submit made under `repeat`.

        Raises IdempotencyConflict, RateLimited, Overloaded.
        """
        entries = [Entry(job.id, job.route)]

        def admit(connection: Connection) -> Job:
            admitted = admission.admit(connection, job, key, limits, repeat, now)
            if admitted.id == job.id:
                self.queue.record(connection, entries)
            return admitted

        admitted = await self.database.write(admit)
        if admitted.id == job.id:
            await self.queue.announce(entries)
        return admitted

    async def add(self, job: Job) -> None:
        """Record a new job as it is, whatever the limits; durable when it returns."""
        await self.database.write(lambda connection: connection.execute(statements.ADD, columns_of_job(job)))

    async def get(self, job_id: str, key_id: str | None = None) -> Job | None:
        """The job, or None when there is none or it is not the key's. `key_id` None: of any key."""
        query = select(tables.jobs).where(tables.jobs.c.id == job_id)
        if key_id is not None:
            query = query.where(tables.jobs.c.key_id == key_id)
        return next(iter(await self._jobs(query)), None)

    async def poll(self, secret_sha256: str, job_id: str) -> tuple[Key | None, Job | None]:
        """The key with this hash and, if it is the key's, the job: all a poll needs, in one query."""

        def poll(connection: Connection) -> tuple[Key | None, Job | None]:
            asked = {"secret_sha256": secret_sha256, "job_id": job_id}
            row = connection.execute(statements.POLL, asked).mappings().one_or_none()
            if row is None:
                return None, None
            job = {column.name: row[f"job_{column.name}"] for column in tables.jobs.c}
            return key_of(row), job_of(job) if job["id"] is not None else None

        return await self.database.read(poll)

    async def history(self, key_id: str, asked: Asked, page: int, page_size: int) -> list[Job]:
        """Jobs of the key, newest first; `page` counts from 1."""
        return await self._jobs(history.page_of(key_id, asked, page, page_size))

    async def used(self, key_id: str, first_day: int, last_day: int) -> list[Used]:
        """What the key has used, by day (since 1970, UTC) and model."""
        query = history.used_of(key_id, first_day, last_day)
        return await self.database.read(
            lambda connection: [Used(**row) for row in connection.execute(query).mappings()]
        )

    async def unfinished(self) -> list[Entry]:
        """The entries of the jobs that are not in a terminal state, oldest job first."""
        return await self.database.read(
            lambda connection: [Entry(*row) for row in connection.execute(statements.ENTRIES)]
        )

    async def count_unfinished(self) -> int:
        query = select(func.count()).select_from(tables.jobs).where(statements.IS_UNFINISHED)
        return await self.database.read(lambda connection: connection.execute(query).scalar_one())

    async def line(self) -> list[Waiting]:
        """Every unfinished job, in the order in which they will be served."""

        return await self.database.read(
            lambda connection: [Waiting(*row) for row in connection.execute(statements.LINE)]
        )

    # Jobs: the worker's part

    async def claim(self, entry: Entry, now: float) -> Job | None:
        """As `claims.claim`."""
        return await self._worked(lambda connection: claims.claim(connection, entry, now))

    async def let_go(self, job: Job, route: str = "") -> bool:
        """Make the job wait again, for workers of `route` if that is another; False when the claim is lost.

        It needs an entry then: that of whoever lets go, or the one that is queued here with the new route.
        """
        entries = [Entry(job.id, route)] if route else []

        def let_go(connection: Connection) -> bool:
            values = claims.of_claim(job) | ({"route": route} if route else {})
            went = connection.execute(statements.LET_GO, values).one_or_none() is not None
            if went:
                self.queue.record(connection, entries)
            return went

        went = await self._worked(let_go)
        if went:
            await self.queue.announce(entries)
        return went

    async def result_like(self, job: Job, fingerprint: str, after: float) -> Job | None:
        """A completed job of the same key whose bytes are those that this one would give, finished after `after`."""
        asked = {"owner_id": job.key_id, "wanted": fingerprint, "after": after}
        return await self.database.read(
            lambda connection: next(
                (job_of(row) for row in connection.execute(statements.LIKE, asked).mappings()), None
            )
        )

    async def start_compute(self, job: Job) -> int:
        """Count one more start of the computation; the new count, or 0 when the claim is lost."""
        starts = await self._worked(
            lambda connection: connection.execute(
                statements.START_COMPUTE, claims.of_claim(job)
            ).scalar_one_or_none()
        )
        return starts or 0

    async def set_source_blob(self, job: Job, key: str) -> bool:
        """Note where the fetched picture lies; False when the claim is lost."""
        return await self._changed(statements.CHANGE_CLAIMED, claims.of_claim(job) | {"source_blob": key})

    async def set_progress(
        self, job: Job, fraction: float, stage: str = "", stage_seconds: float = 0.0
    ) -> bool:
        """Note how much of the computation is done, 0 to 1, or what it waits for; False when the claim is lost."""
        values = {"progress": fraction, "stage": stage, "stage_seconds": stage_seconds}
        return await self._changed(statements.CHANGE_CLAIMED, claims.of_claim(job) | values)

    async def is_claimed(self, job: Job) -> bool:
        """Whether `job` is still the newest claim of a job that goes on."""
        return await self.database.read(
            lambda connection: (
                connection.execute(statements.IS_CLAIMED, claims.of_claim(job)).scalar_one() == 1
            )
        )

    async def finish(
        self,
        job: Job,
        outputs: Sequence[Output],
        report: Mapping[str, Any],
        compute_ms: int,
        now: float,
        device_seconds: float | None = None,
        fingerprint: str = "",
    ) -> bool:
        """Complete the job; False, and nothing changed, when the claim is lost.

        device_seconds: how long it held the device, for the estimates of later jobs. fingerprint: what a later job
        must have to get this result as well.
        """
        values = {
            "fingerprint": fingerprint,
            "state": State.COMPLETED.value,
            "outputs": [asdict(output) for output in outputs],
            "report": dict(report),
            "compute_ms": compute_ms,
            "finished_at": now,
            "progress": 1.0,
        }

        def also(connection: Connection) -> None:
            if device_seconds is not None:
                pace = {"network": admission.network_of(job.options), "seconds": device_seconds}
                connection.execute(statements.KEEP_PACE[connection.dialect.name], pace)

        return await self._ended(statements.END_CLAIMED, claims.of_claim(job) | values, now, also) is not None

    async def fail(self, job: Job, code: str, message: str, now: float) -> bool:
        """End the job with an error of `enlarger.errors`; False as for `finish`."""
        values = {
            "state": State.FAILED.value,
            "error_code": code,
            "error_message": message,
            "finished_at": now,
        }
        return await self._ended(statements.END_CLAIMED, claims.of_claim(job) | values, now) is not None

    # Jobs: the owner's part

    async def cancel(self, job_id: str, key_id: str, now: float) -> Job | None:
        """End the job of the key, if it goes on; the cancelled job, or None when there was nothing to end."""
        mine = {"job_id": job_id, "owner_id": key_id}
        values = {"state": State.CANCELLED.value, "finished_at": now}
        return await self._ended(statements.END_OWN, mine | values, now, patience_seconds=PATIENCE_SECONDS)

    async def delete(self, job_ids: Collection[str], key_id: str) -> list[str]:
        """Remove jobs of the key, in whatever state; the ids of those there were."""
        c = tables.jobs.c
        removal = delete(tables.jobs).where(c.key_id == key_id, c.id.in_(job_ids)).returning(c.id)

        def remove(connection: Connection) -> list[str]:
            gone = list(connection.execute(removal).scalars())
            repeats = tables.idempotency
            connection.execute(delete(repeats).where(repeats.c.job_id.in_(gone)))
            return gone

        return await self.database.write(remove)

    # Keys and secrets

    async def add_key(self, key: Key, secret_sha256: str) -> None:
        values = columns_of_key(key) | {"secret_sha256": secret_sha256}
        await self.database.write(lambda connection: connection.execute(insert(tables.keys), values))

    async def key_by_hash(self, secret_sha256: str) -> Key | None:
        """The key with this hash of its secret, revoked or not."""
        asked = {"secret_sha256": secret_sha256}
        row = await self.database.read(
            lambda connection: connection.execute(statements.KEY_OF_HASH, asked).mappings().one_or_none()
        )
        return key_of(row) if row else None

    async def keys(self) -> list[Key]:
        """Every key, oldest first, revoked ones included."""
        query = select(tables.keys).order_by(tables.keys.c.created_at)
        return await self.database.read(
            lambda connection: [key_of(row) for row in connection.execute(query).mappings()]
        )

    async def revoke_key(self, key_id: str, now: float) -> bool:
        """End a key; False when there is no such key or it was revoked before."""
        alive = update(tables.keys).where(tables.keys.c.id == key_id, tables.keys.c.revoked_at.is_(None))
        return await self._changed(alive, {"revoked_at": now})

    async def secret(self, name: str, fresh: bytes) -> bytes:
        """The secret kept under `name`; the first caller's `fresh` becomes it."""

        def secret(connection: Connection) -> bytes:
            query = select(tables.meta.c.value).where(tables.meta.c.name == name)
            found: bytes | None = connection.execute(query).scalar_one_or_none()
            if found is not None:
                return found
            # Of two servers that start together the second waits here, and keeps what the first wrote.
            connection.execute(_KEEP_SECRET[connection.dialect.name], {"name": name, "value": fresh})
            kept: bytes = connection.execute(query).scalar_one()
            return kept

        return await self.database.write(secret)

    async def _ended(
        self,
        statement: Executable,
        values: Mapping[str, Any],
        now: float,
        also: Callable[[Connection], None] = lambda connection: None,
        patience_seconds: float = LONG_PATIENCE_SECONDS,
    ) -> Job | None:
        """End a job by `statement`, do `also` with it, and wake whom that lets go on; None when it reached no row."""

        def end(connection: Connection) -> tuple[Job | None, list[Entry]]:
            job = claims.end(connection, statement, values, now)
            if job is None:
                return None, []
            also(connection)
            entries = claims.held_up(connection, job)
            self.queue.record(connection, entries)
            return job, entries

        ended, entries = await self.database.write(end, patience_seconds=patience_seconds)
        await self.queue.announce(entries)
        if ended is not None:
            self.on_end(ended)
        return ended

    async def _jobs(self, query: Select[Any]) -> list[Job]:
        return await self.database.read(
            lambda connection: [job_of(row) for row in connection.execute(query).mappings()]
        )

    async def _worked(self, work: Work[T]) -> T:
        """A write of the worker's, which waits longer: what it has computed would be lost."""
        return await self.database.write(work, patience_seconds=LONG_PATIENCE_SECONDS)

    async def _changed(self, statement: Executable, values: dict[str, Any]) -> bool:
        return await self._worked(lambda connection: connection.execute(statement, values).rowcount == 1)


def _unheard(_job: Job) -> None:
    """Nobody listens."""
