"""What else may go wrong between many machines: dead and frozen workers, wrong clocks, full disks, bad networks."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import requests
from PIL import Image
from psycopg.rows import DictRow

from ..receiver import Receiver
from ..services.cable import laid_cable
from ..services.disk import SmallDisk
from ..services.postgres import Postgres
from ..services.proxy import Proxy
from ..services.s3 import SeaweedS3
from .cluster import KEY, Cluster, Node, Rows
from .conftest import eventually, png, webhooks_to
from .evidence import Told, is_whole

LEASE_SECONDS = 4.0
DRAIN_SECONDS = 1.0
LONG_LEASE = {"ENLARGER_LEASE_SECONDS": "60"}
"""For a worker that shall not take another one's job, unless that lets go of it."""
SLOW = "RealESRGAN_x4plus"
"""A model that takes some seconds."""
_FAKETIME = "libfaketimeMT.so.1"


class Shared:
    """A cluster that tests use one after the other, with a proxy before its S3."""

    def __init__(self, cluster: Cluster, rows: Rows, s3: Proxy) -> None:
        self.cluster = cluster
        self.rows = rows
        self.s3 = s3


@pytest.fixture(scope="module")
def ever(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: Postgres, s3_server: SeaweedS3
) -> Iterator[Shared]:
    """One API and two workers, until the module ends."""
    postgres_server.start()
    s3_server.start()
    with closing(Proxy(("127.0.0.1", s3_server.port))) as s3:
        cluster = Cluster(
            tmp_path_factory.mktemp("cluster"),
            postgres_server,
            s3_server,
            ENLARGER_S3_ENDPOINT=f"http://127.0.0.1:{s3.port}",
            ENLARGER_S3_SECONDS="2",
            ENLARGER_LEASE_SECONDS=str(LEASE_SECONDS),
            ENLARGER_DRAIN_SECONDS=str(DRAIN_SECONDS),
        )
        with closing(cluster), closing(Rows(cluster)) as rows:
            cluster.start(apis=1, workers=2)
            yield Shared(cluster, rows, s3)


@pytest.fixture
def shared(ever: Shared) -> Shared:
    """As `ever`, with all of its processes up and with the same settings."""
    for node in [*ever.cluster.apis, *ever.cluster.workers]:
        if not node.is_as_others:
            node.close()
        if node.has_ended():
            node.start()
    for node in [*ever.cluster.apis, *ever.cluster.workers]:
        node.wait_until_ready()
    return ever


def restart(node: Node, **settings: str) -> None:
    """With other settings, until it ends the next time."""
    node.kill()
    node.start(**settings)
    node.wait_until_ready()


@contextmanager
def frozen(*nodes: Node) -> Iterator[None]:
    """They do nothing, and do not know it."""
    with ExitStack() as stack:
        for node in nodes:
            node.signal(signal.SIGSTOP)
            stack.callback(node.signal, signal.SIGCONT)
        yield


def noise(side: int = 64) -> bytes:
    """A picture unlike any other: nobody has its result. It takes three bytes a pixel, however it is packed."""
    file = io.BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(side * side * 3)).save(file, "png")
    return file.getvalue()


def computing_on(shared: Shared, worker: Node, side: int = 64) -> str:
    """A slow job that this worker is computing; `side` of its picture, pixels."""
    others = [other for other in shared.cluster.workers if other is not worker and not other.has_ended()]
    with frozen(*others):
        # In f32, which no kernel of ours makes quick.
        job_id = shared.cluster.submit(noise(side), model=SLOW, precision="f32")
        shared.rows.until(job_id, lambda row: row["compute_starts"] == 1, "computed")
    return job_id


def claimed_at(rows: Rows, job_id: str, epoch: int) -> float:
    """When, by the database's clock."""
    return min(change["at"] for change in rows.changes(job_id) if change["epoch"] == epoch)


def assert_result_is_whole(cluster: Cluster, rows: Rows, job_id: str) -> DictRow:
    """The job completes, once, and its link gives the bytes whose hash the row holds; the row."""
    row = rows.until_ended(job_id)
    assert (row["state"], row["error_message"]) == ("completed", "")
    assert rows.ends(job_id) == ["completed"]
    assert is_whole(cluster.links(job_id), row)
    return row


def test_job_of_a_killed_worker_is_taken_over_within_its_lease_and_five_seconds(shared: Shared) -> None:
    first, _ = shared.cluster.workers
    job_id = computing_on(shared, first)
    killed_at = shared.rows.now()
    first.kill()
    row = assert_result_is_whole(shared.cluster, shared.rows, job_id)
    assert (row["epoch"], row["compute_starts"]) == (2, 2)
    assert claimed_at(shared.rows, job_id, 2) - killed_at <= LEASE_SECONDS + 5


def test_late_finish_of_a_worker_that_was_frozen_past_its_lease_is_rejected(shared: Shared) -> None:
    first, _ = shared.cluster.workers
    job_id = computing_on(shared, first)
    with frozen(first):  # the process that computes goes on, and has the result
        shared.rows.until(job_id, lambda row: row["epoch"] == 2, "taken over")
    eventually(
        lambda: f"The claim on job {job_id}, epoch 1, is lost" in first.log(), "the late worker to notice"
    )
    row = assert_result_is_whole(shared.cluster, shared.rows, job_id)
    assert (row["epoch"], row["compute_starts"]) == (2, 2)


def test_worker_told_to_stop_hands_its_job_to_another_at_once(shared: Shared) -> None:
    first, second = shared.cluster.workers
    restart(second, **LONG_LEASE)
    job_id = computing_on(shared, first, side=192)
    stopped_at = shared.rows.now()
    first.stop()
    row = assert_result_is_whole(shared.cluster, shared.rows, job_id)
    assert claimed_at(shared.rows, job_id, 2) - stopped_at <= DRAIN_SECONDS + 5
    assert row["epoch"] == 2


def test_ticket_queued_ten_times_more_gives_one_result(shared: Shared) -> None:
    first, _ = shared.cluster.workers
    job_id = computing_on(shared, first)
    shared.rows.ask(
        "INSERT INTO pgqueuer (priority, entrypoint, payload, status) SELECT 0, 'upscale/' || route, "
        "convert_to(id, 'UTF8'), 'queued' FROM jobs, generate_series(1, 10) WHERE id = %s",
        job_id,
    )
    assert_result_is_whole(shared.cluster, shared.rows, job_id)
    eventually(lambda: not shared.rows.ask("SELECT id FROM pgqueuer"), "the tickets to be used up")
    assert shared.rows.ends(job_id) == ["completed"]


def test_job_that_ends_every_process_it_is_given_to_fails_alone(shared: Shared) -> None:
    first, second = shared.cluster.workers
    poison = computing_on(shared, first)
    for starts in range(1, 6):
        worker = first if starts < 3 else second
        shared.rows.until(
            poison, lambda row, n=starts: row["compute_starts"] == n, f"computed {starts} times"
        )
        if starts == 2:
            first.kill()
        else:
            end_device(worker)
    row = shared.rows.until_ended(poison)
    assert (row["state"], row["error_code"], row["compute_starts"]) == ("failed", "device_crashed", 5)
    assert shared.rows.ends(poison) == ["failed"]
    assert_result_is_whole(shared.cluster, shared.rows, shared.cluster.submit())


def end_device(worker: Node) -> None:
    """Kill the process that computes."""
    eventually(worker.device, "the process that computes").kill()


def test_postgres_that_crashes_is_waited_for_and_no_work_is_done_twice(
    shared: Shared, postgres: Postgres
) -> None:
    first, second = shared.cluster.workers
    for worker in (first, second):
        restart(worker, **LONG_LEASE)
    processes = [node.pid for node in (*shared.cluster.apis, first, second)]
    job_id = computing_on(shared, first)
    postgres.crash()
    began = time.monotonic()
    answer = shared.cluster.try_to_submit(png(8, 8))
    assert (answer.status_code, answer.json()["error_code"]) == (503, "overloaded")
    assert answer.headers["Retry-After"]
    eventually(
        lambda: requests.get(f"{shared.cluster.url}/readyz", timeout=60).status_code == 503, "unreadiness"
    )
    eventually(lambda: time.monotonic() > began + 3, "three seconds to pass")
    postgres.start()
    row = assert_result_is_whole(shared.cluster, shared.rows, job_id)
    assert (row["epoch"], row["compute_starts"]) == (1, 1)
    assert_result_is_whole(shared.cluster, shared.rows, shared.cluster.submit())
    for node in (*shared.cluster.apis, first, second):
        eventually(lambda url=node.url: requests.get(f"{url}/readyz", timeout=60).ok, "readiness")
    assert processes == [node.pid for node in (*shared.cluster.apis, first, second)]


def test_slow_store_that_resets_connections_delays_jobs_and_spoils_none(shared: Shared) -> None:
    cluster, rows, store = shared.cluster, shared.rows, shared.s3
    jobs = [cluster.submit(png(200 + n, 8)) for n in range(3)]
    store.bytes_per_second = 20_000
    jobs += [cluster.submit(png(210 + n, 8)) for n in range(3)]
    store.resets_after_bytes = 400  # the head of a request passes, a body does not
    answer = cluster.try_to_submit(noise(64))
    assert (answer.status_code, answer.json()["error_code"]) == (503, "storage_unavailable")
    eventually(lambda: store.resets > 10, "connections to be reset")
    for job_id in rows.ended() & set(jobs):
        assert rows.job(job_id)["state"] == "completed"
    store.resets_after_bytes = store.bytes_per_second = None
    jobs += [cluster.submit(noise(64))]
    for job_id in jobs:
        assert_result_is_whole(cluster, rows, job_id)


def test_worker_behind_a_cut_cable_loses_its_job_and_works_again_when_it_is_mended(
    shared: Shared, s3: SeaweedS3
) -> None:
    first, second = shared.cluster.workers
    first.kill()
    with laid_cable() as cable:
        far = shared.cluster.add_far(cable, s3)
        try:
            far.wait_until_ready()
            job_id = computing_on(shared, far)
            with cable.pulled():
                assert_result_is_whole(shared.cluster, shared.rows, job_id)
            eventually(
                lambda: f"The claim on job {job_id}, epoch 1, is lost" in far.log(), "the far end to notice"
            )
            second.kill()
            row = assert_result_is_whole(shared.cluster, shared.rows, shared.cluster.submit())
            assert row["epoch"] == 1
            far.stop()
        finally:
            far.close()


def test_clocks_that_jump_by_an_hour_cost_no_lease_and_no_signature(
    postgres: Postgres, receiver: Receiver, tmp_path: Path
) -> None:
    clocks = {role: Clock(tmp_path / f"{role}-clock") for role in ("api", "worker")}
    with (
        closing(
            Cluster(
                tmp_path,
                postgres,
                None,  # S3 refuses requests that are dated wrongly
                **webhooks_to(receiver),
                ENLARGER_BLOB_URL=f"file://{tmp_path}/blobs",
            )
        ) as cluster,
        closing(Rows(cluster)) as rows,
    ):
        nodes = [cluster.add("api", **clocks["api"].environment)]
        nodes += [cluster.add("worker", **clocks["worker"].environment) for _ in range(2)]
        for node in nodes:
            node.wait_until_ready()
        told = Told(cluster.url, KEY, receiver)
        jobs = [cluster.submit(noise(), model=SLOW, webhook_url=receiver.url)]
        rows.until(jobs[0], lambda row: row["compute_starts"] == 1, "computed")
        clocks["api"].jump("-1h")
        clocks["worker"].jump("+1h")
        jobs += [cluster.submit(png(8, 9), webhook_url=receiver.url)]
        assert_result_is_whole(cluster, rows, jobs[1])
        clocks["api"].jump("+1h")
        clocks["worker"].jump("-1h")
        jobs += [cluster.submit(png(8, 10), webhook_url=receiver.url)]
        for job_id in jobs:
            row = assert_result_is_whole(cluster, rows, job_id)
            assert row["epoch"] == 1
            assert abs(row["finished_at"] - time.time()) < 600
        eventually(lambda: set(jobs) <= told.genuine(), "every webhook")
        assert told.forged == 0
        cluster.stop()


class Clock:
    """The clock of the processes with this environment, which can be put wrong. What only ticks is left alone."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.jump("+0")
        found = sorted(Path("/usr/lib").glob(f"**/{_FAKETIME}"))
        assert found, f"{_FAKETIME} is not on this machine; install it with: sudo apt-get install faketime"
        self.environment = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            # Else asyncio, which waits by that clock, waits for ever.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, offset: str) -> None:
        """To so much before or after the right time."""
        beside = self._file.with_suffix(".new")
        beside.write_text(offset + "\n")
        beside.replace(self._file)


def test_full_disk_takes_nothing_and_loses_nothing(postgres: Postgres, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    disk = SmallDisk(folder, 8_000_000)
    settings = {
        "ENLARGER_BLOB_URL": f"file://{folder}/blobs",
        "ENLARGER_MIN_FREE_BYTES": "100000",
    }
    with closing(Cluster(tmp_path, postgres, None, **settings)) as cluster, closing(Rows(cluster)) as rows:
        # The API goes on where it should not, so that it is the disk itself that refuses.
        careless = {"ENLARGER_MIN_FREE_BYTES": "0", "ENLARGER_DATA_DIR": f"{folder}/api"}
        api = cluster.add("api", before=disk.before, **careless)
        api.wait_until_ready()
        before = disk.shared_with(api.pid)
        worker = cluster.add("worker", before=before, ENLARGER_DATA_DIR=f"{folder}/worker")
        worker.wait_until_ready()
        worker.signal(signal.SIGSTOP)
        waiting = cluster.submit(noise())
        disk.fill()
        for answer in (cluster.try_to_submit(noise()), upload(cluster, noise())):
            assert (answer.status_code, answer.json()["error_code"]) == (507, "storage_full")
        assert [row["id"] for row in rows.ask("SELECT id FROM jobs")] == [waiting]
        worker.signal(signal.SIGCONT)
        eventually(lambda: "is handed out again" in worker.log(), "the worker to find the disk full")
        assert rows.ends(waiting) == []
        disk.empty()
        assert upload(cluster, noise()).ok
        for job_id in (waiting, cluster.submit(noise())):
            assert_result_is_whole(cluster, rows, job_id)
        cluster.stop()


def upload(cluster: Cluster, data: bytes) -> requests.Response:
    return requests.post(
        f"{cluster.url}/api/v3/media/upload/binary",
        files={"file": ("picture.png", data, "image/png")},
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=60,
    )
