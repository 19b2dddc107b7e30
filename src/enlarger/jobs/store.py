"""Store: jobs and keys in one SQL database, SQLite today. The row is the truth; the queue only wakes workers.

Every change of a claimed job is fenced: it names the epoch of the claim and does nothing once a newer claim
exists or the job has ended, so a worker that was thought dead cannot overwrite the work of its successor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Select, Update, bindparam, case, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from enlarger.jobs import admission, fairness, history, tables
from enlarger.jobs.admission import Limits, Repeat
from enlarger.jobs.database import Database, insert_or_update
from enlarger.jobs.history import Asked, Used
from enlarger.jobs.job import Job, Key, Output, State
from enlarger.jobs.rows import UNFINISHED, columns_of_job, columns_of_key, job_of, key_of

_OLD_PACE_WEIGHT = 0.8


def _poll() -> Select[*tuple[Any, ...]]:
    mine = (tables.jobs.c.key_id == tables.keys.c.id) & (tables.jobs.c.id == bindparam("job_id"))
    return (
        select(tables.keys, *(column.label(f"job_{column.name}") for column in tables.jobs.c))
        .select_from(tables.keys.outerjoin(tables.jobs, mine))
        .where(tables.keys.c.secret_sha256 == bindparam("secret_sha256"))
    )


_POLL = _poll()
"""Built once: nothing is asked more often."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An unfinished job, as far as the line cares."""

    id: str
    in_work: bool
    remaining_seconds: float
    """Estimate of the device time it still takes."""


class Store:
    """Jobs, keys and secrets. All methods may be called at once from many tasks of one event loop."""

    def __init__(self, database: Database) -> None:
        self.database = database
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
        async with self.database.read() as connection:
            return await admission.earlier(connection, key, repeat, now)

    async def check_admission(self, key: Key, network: str, limits: Limits, now: float) -> None:
        """Raises RateLimited or Overloaded if `admit` would, without taking anything."""
        async with self.database.read() as connection:
            admission.check(key, await admission.outlook(connection, key, network), limits, now)

    async def admit(self, job: Job, key: Key, limits: Limits, repeat: Repeat | None, now: float) -> Job:
        """Record a new job, durable when it returns; or the job that an earlier submit made under `repeat`.

        Raises IdempotencyConflict, RateLimited, Overloaded.
        """
        async with self.database.write() as connection:
            return await admission.admit(connection, job, key, limits, repeat, now)

    async def add(self, job: Job) -> None:
        """Record a new job as it is, whatever the limits; durable when it returns."""
        async with self.database.write() as connection:
            await connection.execute(insert(tables.jobs).values(**columns_of_job(job)))

    async def get(self, job_id: str, key_id: str | None = None) -> Job | None:
        """The job, or None when there is none or it is not the key's. `key_id` None: of any key."""
        query = select(tables.jobs).where(tables.jobs.c.id == job_id)
        if key_id is not None:
            query = query.where(tables.jobs.c.key_id == key_id)
        return next(iter(await self._jobs(query)), None)

    async def poll(self, secret_sha256: str, job_id: str) -> tuple[Key | None, Job | None]:
        """The key with this hash and, if it is the key's, the job: all a poll needs, in one query."""
        async with self.database.read() as connection:
            rows = await connection.execute(_POLL, {"secret_sha256": secret_sha256, "job_id": job_id})
            row = rows.mappings().one_or_none()
        if row is None:
            return None, None
        job = {column.name: row[f"job_{column.name}"] for column in tables.jobs.c}
        return key_of(row), job_of(job) if job["id"] is not None else None

    async def history(self, key_id: str, asked: Asked, page: int, page_size: int) -> list[Job]:
        """Jobs of the key, newest first; `page` counts from 1."""
        return await self._jobs(history.page_of(key_id, asked, page, page_size))

    async def used(self, key_id: str, first_day: int, last_day: int) -> list[Used]:
        """What the key has used, by day (since 1970, UTC) and model."""
        async with self.database.read() as connection:
            rows = await connection.execute(history.used_of(key_id, first_day, last_day))
            return [Used(**row) for row in rows.mappings()]

    async def unfinished(self) -> list[str]:
        """The tickets of the jobs that are not in a terminal state, oldest job first."""
        ticket = case((tables.jobs.c.ticket == "", tables.jobs.c.id), else_=tables.jobs.c.ticket)
        query = select(ticket).where(_is_unfinished()).order_by(tables.jobs.c.created_at)
        async with self.database.read() as connection:
            return list((await connection.execute(query)).scalars())

    async def count_unfinished(self) -> int:
        query = select(func.count()).select_from(tables.jobs).where(_is_unfinished())
        async with self.database.read() as connection:
            return (await connection.execute(query)).scalar_one()

    async def line(self) -> list[Waiting]:
        """Every unfinished job, in the order in which they will be served."""
        c = tables.jobs.c
        query = select(c.id, c.state, (c.cost_seconds * (1.0 - c.progress)).label("remaining"))
        in_order = query.where(_is_unfinished()).order_by(c.state.desc(), *fairness.ORDER)
        async with self.database.read() as connection:
            rows = await connection.execute(in_order)
            return [Waiting(row.id, row.state == State.PROCESSING.value, row.remaining) for row in rows]

    # Jobs: the worker's part

    async def claim(self, ticket: str, now: float) -> Job | None:
        """Take the job that runs under this ticket, else the one to serve next: state processing, epoch + 1.

        None when there is none, or all that wait belong to keys with as much in work as they may have.
        """
        async with self.database.write() as connection:
            c = tables.jobs.c
            bound = case((c.ticket == "", c.id), else_=c.ticket) == ticket
            mine = (
                c.id
                == select(c.id).where(c.state == State.PROCESSING.value, bound).limit(1).scalar_subquery()
            )
            for chosen in (mine, c.id == fairness.fairest()):
                values = {
                    "state": State.PROCESSING.value,
                    "epoch": c.epoch + 1,
                    "started_at": func.coalesce(c.started_at, now),
                    "ticket": ticket,
                }
                statement = update(tables.jobs).where(chosen).values(**values).returning(*c)
                if row := (await connection.execute(statement)).mappings().one_or_none():
                    return job_of(row)
        return None

    async def start_compute(self, job: Job) -> int:
        """Count one more start of the computation; the new count, or 0 when the claim is lost."""
        starts = tables.jobs.c.compute_starts
        statement = _claimed(job).values(compute_starts=starts + 1, progress=0.0).returning(starts)
        async with self.database.write() as connection:
            return (await connection.execute(statement)).scalar_one_or_none() or 0

    async def set_source_blob(self, job: Job, key: str) -> bool:
        """Note where the fetched picture lies; False when the claim is lost."""
        return await self._changed(_claimed(job).values(source_blob=key))

    async def set_progress(self, job: Job, fraction: float) -> bool:
        """Note how much of the computation is done, 0 to 1; False when the claim is lost."""
        return await self._changed(_claimed(job).values(progress=fraction))

    async def is_claimed(self, job: Job) -> bool:
        """Whether `job` is still the newest claim of a job that goes on."""
        query = select(func.count()).select_from(tables.jobs).where(*_claim(job))
        async with self.database.read() as connection:
            return (await connection.execute(query)).scalar_one() == 1

    async def finish(
        self,
        job: Job,
        outputs: Sequence[Output],
        report: Mapping[str, Any],
        compute_ms: int,
        now: float,
        device_seconds: float | None = None,
    ) -> bool:
        """Complete the job; False, and nothing changed, when the claim is lost.

        device_seconds: how long it held the device, for the estimates of later jobs.
        """
        values = {
            "state": State.COMPLETED.value,
            "outputs": [asdict(output) for output in outputs],
            "report": dict(report),
            "compute_ms": compute_ms,
            "finished_at": now,
            "progress": 1.0,
        }
        async with self.database.write() as connection:
            ended = await _end(connection, _claimed(job).values(**values), now)
            if ended and device_seconds is not None:
                await _pace(connection, admission.network_of(job.options), device_seconds)
        return self._told(ended) is not None

    async def fail(self, job: Job, code: str, message: str, now: float) -> bool:
        """End the job with an error of `enlarger.errors`; False as for `finish`."""
        values = {
            "state": State.FAILED.value,
            "error_code": code,
            "error_message": message,
            "finished_at": now,
        }
        async with self.database.write() as connection:
            ended = await _end(connection, _claimed(job).values(**values), now)
        return self._told(ended) is not None

    # Jobs: the owner's part

    async def cancel(self, job_id: str, key_id: str, now: float) -> Job | None:
        """End the job of the key, if it goes on; the cancelled job, or None when there was nothing to end."""
        mine = update(tables.jobs).where(
            tables.jobs.c.id == job_id, tables.jobs.c.key_id == key_id, _is_unfinished()
        )
        async with self.database.write() as connection:
            ended = await _end(connection, mine.values(state=State.CANCELLED.value, finished_at=now), now)
        return self._told(ended)

    async def delete(self, job_ids: Collection[str], key_id: str) -> list[str]:
        """Remove jobs of the key, in whatever state; the ids of those there were."""
        c = tables.jobs.c
        removal = delete(tables.jobs).where(c.key_id == key_id, c.id.in_(job_ids)).returning(c.id)
        async with self.database.write() as connection:
            gone = list((await connection.execute(removal)).scalars())
            repeats = tables.idempotency
            await connection.execute(delete(repeats).where(repeats.c.job_id.in_(gone)))
        return gone

    # Keys and secrets

    async def add_key(self, key: Key, secret_sha256: str) -> None:
        async with self.database.write() as connection:
            values = columns_of_key(key) | {"secret_sha256": secret_sha256}
            await connection.execute(insert(tables.keys).values(**values))

    async def key_by_hash(self, secret_sha256: str) -> Key | None:
        """The key with this hash of its secret, revoked or not."""
        async with self.database.read() as connection:
            query = select(tables.keys).where(tables.keys.c.secret_sha256 == secret_sha256)
            row = (await connection.execute(query)).mappings().one_or_none()
        return key_of(row) if row else None

    async def keys(self) -> list[Key]:
        """Every key, oldest first, revoked ones included."""
        async with self.database.read() as connection:
            rows = await connection.execute(select(tables.keys).order_by(tables.keys.c.created_at))
            return [key_of(row) for row in rows.mappings()]

    async def revoke_key(self, key_id: str, now: float) -> bool:
        """End a key; False when there is no such key or it was revoked before."""
        alive = update(tables.keys).where(tables.keys.c.id == key_id, tables.keys.c.revoked_at.is_(None))
        return await self._changed(alive.values(revoked_at=now))

    async def secret(self, name: str, fresh: bytes) -> bytes:
        """The secret kept under `name`; the first caller's `fresh` becomes it."""
        async with self.database.write() as connection:
            query = select(tables.meta.c.value).where(tables.meta.c.name == name)
            found = (await connection.execute(query)).scalar_one_or_none()
            if found is not None:
                return found
            await connection.execute(insert(tables.meta).values(name=name, value=fresh))
            return fresh

    def _told(self, ended: Job | None) -> Job | None:
        if ended is not None:
            self.on_end(ended)
        return ended

    async def _jobs(self, query: Select[Any]) -> list[Job]:
        async with self.database.read() as connection:
            return [job_of(row) for row in (await connection.execute(query)).mappings()]

    async def _changed(self, statement: Update) -> bool:
        async with self.database.write() as connection:
            return (await connection.execute(statement)).rowcount == 1


def _unheard(_job: Job) -> None:
    """Nobody listens."""


def _is_unfinished() -> Any:
    return tables.jobs.c.state.in_(UNFINISHED)


def _claim(job: Job) -> tuple[Any, ...]:
    """True of the row only while `job` is its newest claim and goes on."""
    c = tables.jobs.c
    return c.id == job.id, c.epoch == job.epoch, c.state == State.PROCESSING.value


def _claimed(job: Job) -> Update:
    return update(tables.jobs).where(*_claim(job))


async def _end(connection: AsyncConnection, statement: Update, now: float) -> Job | None:
    """Run an update that ends a job, and record the end; the job, or None when the update reached no row."""
    row = (await connection.execute(statement.returning(*tables.jobs.c))).mappings().one_or_none()
    if row is None:
        return None
    job = job_of(row)
    await history.record_end(connection, job, now)
    return job


async def _pace(connection: AsyncConnection, network: str, seconds: float) -> None:
    mean = tables.paces.c.seconds * _OLD_PACE_WEIGHT + seconds * (1 - _OLD_PACE_WEIGHT)
    await insert_or_update(
        connection, tables.paces, {"network": network, "seconds": seconds}, {"seconds": mean}
    )
