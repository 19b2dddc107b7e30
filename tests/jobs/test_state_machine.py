"""Submit, work, cancel, poll, delete, expire and crash in any order, against a plain model. On a real SQLite file."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from enlarger.engine.options import Options
from enlarger.errors import IdempotencyConflict, NotFound, Overloaded, RateLimited
from enlarger.jobs.blobs import LocalBlobs
from enlarger.jobs.job import Job, Key, Output, State
from enlarger.jobs.queue import Entry
from enlarger.jobs.retention import Retention
from enlarger.jobs.service import Service
from enlarger.jobs.store import Store
from enlarger.settings import Settings

T = TypeVar("T")

KEYS = {
    "free": Key(id="a" * 32, name="free", created_at=0.0),
    "limited": Key(id="b" * 32, name="limited", created_at=0.0, rate_per_minute=6, max_concurrency=1),
}
MAX_BACKLOG = 6
DAY = 86_400.0
NAMES = st.sampled_from(sorted(KEYS))


@dataclass
class Known:
    """What the server has acknowledged of one job."""

    key: str
    state: State = State.CREATED
    finished_at: float = 0.0
    is_ours: Job | None = None
    """The newest claim."""


@pytest.fixture(scope="module", autouse=True)
def template(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A migrated database to start every run from: migrating takes longer than a run."""
    path = tmp_path_factory.mktemp("template") / "enlarger.db"

    async def make() -> None:
        store = Store.open(path)
        await store.migrate()
        for key in KEYS.values():
            await store.add_key(key, key.id)
        await store.close()

    asyncio.run(make())
    Jobs.template = path


class Jobs(RuleBasedStateMachine):
    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        shutil.copy(self.template, self.folder / "enlarger.db")
        self.now = 1_700_000_000.0
        self.ids = 0
        self.known: dict[str, Known] = {}
        self.repeats: dict[tuple[str, str], tuple[str, str, float]] = {}
        self.taken: list[float] = []
        self.runner = asyncio.Runner()
        self.start()

    def start(self) -> None:
        settings = Settings(data_dir=self.folder, max_backlog_jobs=MAX_BACKLOG, min_free_bytes=0)
        self.store = Store.open(self.folder / "enlarger.db")
        self.blobs = LocalBlobs(self.folder / "blobs")
        parts: dict[str, Any] = {"settings": settings, "clock": lambda: self.now, "blobs": self.blobs}
        self.service = Service(store=self.store, new_id=self.new_id, link_secret=b"s", **parts)
        self.retention = Retention(database=self.store.database, **parts)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def new_id(self) -> str:
        self.ids += 1
        return f"{self.ids:032x}"

    def unfinished(self) -> list[Known]:
        return [known for known in self.known.values() if not known.state.is_terminal]

    def may_submit(self) -> bool:
        """A leaky bucket: each submit pours in 10 s, each second one runs out, and it holds 60."""
        level, last = 0.0, 0.0
        for at in self.taken:
            level = max(0.0, level - (at - last)) + 10.0
            last = at
        return max(0.0, level - (self.now - last)) <= 50.0 + 1e-6

    @rule(
        name=NAMES,
        image=st.sampled_from(["aGk=", "http://example.com/a"]),
        repeat=st.sampled_from(["", "x"]),
    )
    def submit(self, name: str, image: str, repeat: str) -> None:
        expected: type[Exception] | None = None
        found = self.repeats.get((name, repeat)) if repeat else None
        if found and (self.now - found[2] >= DAY or found[1] not in self.known):
            found = None
        if found:
            expected = IdempotencyConflict if found[0] != image else None
        elif name == "limited" and not self.may_submit():
            expected = RateLimited
        elif len(self.unfinished()) >= MAX_BACKLOG:
            expected = Overloaded
        call = self.service.submit(
            KEYS[name], model="m", image=image, options=Options(), echo={}, idempotency_key=repeat
        )
        if expected:
            with pytest.raises(expected) as refusal:
                self.run(call)
            assert refusal.type is expected
            return
        job = self.run(call)
        if found:
            assert job.id == found[1]
            return
        assert job.id not in self.known
        self.known[job.id] = Known(name)
        if name == "limited":
            self.taken.append(self.now)
        if repeat:
            self.repeats[name, repeat] = (image, job.id, self.now)

    @initialize()
    def begin_busy(self) -> None:
        """Otherwise most of a short run goes by before two jobs of one key meet."""
        for name in ("limited", "limited", "free"):
            self.submit(name, "aGk=", "")

    @precondition(lambda self: any(known.state is State.CREATED for known in self.known.values()))
    @rule()
    def claim(self) -> None:
        ticket = self.new_id()
        job = self.run(self.store.claim(Entry(ticket), self.now))
        busy = sum(
            known.key == "limited" and known.state is State.PROCESSING for known in self.known.values()
        )
        eligible = {
            job_id
            for job_id, known in self.known.items()
            if known.state is State.CREATED and not (known.key == "limited" and busy)
        }
        assert (job is None) == (not eligible)
        if job:
            assert job.id in eligible
            self.known[job.id].state = State.PROCESSING
            self.known[job.id].is_ours = job

    @precondition(lambda self: any(known.is_ours for known in self.known.values()))
    @rule(data=st.data(), good=st.booleans())
    def end(self, data: st.DataObject, good: bool) -> None:
        """The worker reports, perhaps long after the claim was lost."""
        known = data.draw(st.sampled_from([known for known in self.known.values() if known.is_ours]))
        job = known.is_ours
        assert job
        if good:
            key = f"outputs/{job.id}/{job.epoch}/1.png"
            self.run(self.blobs.put(key, b"result"))
            output = Output(blob_key=key, media_type="image/png", width=1, height=1, bytes=6, sha256="")
            ended = self.run(self.store.finish(job, [output], {}, 1, self.now))
        else:
            ended = self.run(self.store.fail(job, "timed_out", "", self.now))
        assert ended == (known.state is State.PROCESSING)
        if ended:
            known.state = State.COMPLETED if good else State.FAILED
            known.finished_at = self.now

    @precondition(lambda self: self.known)
    @rule(data=st.data(), name=NAMES)
    def cancel(self, data: st.DataObject, name: str) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.known)))
        known = self.known[job_id]
        if known.key != name:
            with pytest.raises(NotFound):
                self.run(self.service.cancel(KEYS[name], job_id))
            return
        job = self.run(self.service.cancel(KEYS[name], job_id))
        if not known.state.is_terminal:
            known.state, known.finished_at = State.CANCELLED, self.now
        assert job.state is known.state

    @precondition(lambda self: self.known)
    @rule(data=st.data(), name=NAMES)
    def delete(self, data: st.DataObject, name: str) -> None:
        ids = data.draw(st.lists(st.sampled_from(sorted(self.known)), max_size=3))
        mine = {job_id for job_id in ids if self.known[job_id].key == name}
        assert self.run(self.service.delete(KEYS[name], [*ids, "f" * 32])) == len(mine)
        for job_id in mine:
            del self.known[job_id]

    @rule(seconds=st.sampled_from([1.0, 30.0, DAY, 8 * DAY]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.run(self.retention.sweep())
        for job_id, known in list(self.known.items()):
            if known.state.is_terminal and known.finished_at < self.now - 7 * DAY:
                del self.known[job_id]

    @rule()
    def crash(self) -> None:
        """All that is left is the file."""
        self.run(self.store.close())
        self.start()
        assert len(self.run(self.store.unfinished())) == len(self.unfinished())

    @invariant()
    def each_key_sees_its_own_jobs_as_they_are_and_no_others(self) -> None:
        for name, key in KEYS.items():
            mine = {job_id: known.state for job_id, known in self.known.items() if known.key == name}
            jobs = self.run(self.service.history(key, page_size=100))
            assert {job.id: job.state for job in jobs} == mine
            for job in jobs:
                assert (job.outputs != ()) == (job.state is State.COMPLETED)
                if job.source_blob and not job.state.is_terminal:
                    assert (self.folder / "blobs" / job.source_blob).read_bytes() == b"hi"
            for job_id in sorted(self.known)[:1]:
                found = self.run(self.store.poll(key.id, job_id))[1]
                assert (found.state if found else None) == mine.get(job_id)


TestJobs = Jobs.TestCase
TestJobs.settings = hypothesis_settings(max_examples=20, stateful_step_count=30, deadline=None)
