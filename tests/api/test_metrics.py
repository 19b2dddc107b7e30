from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request

from enlarger.api.metrics import is_from_this_machine
from enlarger.jobs.devices import Devices
from enlarger.jobs.fleet import Member
from enlarger.jobs.job import Job, State
from enlarger.jobs.metrics import Depths, Metrics, Waiting
from enlarger.jobs.outbox import Attempt, Delivery, DeliveryState

from ..receiver import Receiver, eventually
from .conftest import Running, running


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Running]:
    allowed = {"allow_private_networks": "127.0.0.0/8", "allow_ports": str(receiver.port)}
    with running(tmp_path_factory.mktemp("data"), **allowed) as this:
        yield this


WAITS = Waiting(created=3, processing=1, oldest_seconds=9.0, backlog_seconds=40.0)
MEMBERS = [
    Member(id=f"{n}", name="", version="", routes=(), devices=2, idle=n, started_at=0.0, seen_at=0.0)
    for n in (0, 2)
]


def test_signals_for_the_number_of_workers_are_there_by_route() -> None:
    devices = Devices({"cuda:0": None})  # type: ignore[dict-item]
    devices.all[0].busy_seconds, devices.all[0].waited_seconds = 95.0, 5.0
    metrics = Metrics(devices)
    depths = Depths(
        created=3,
        processing=1,
        oldest_seconds=9.0,
        backlog_seconds=40.0,
        webhooks_pending=0,
        routes={"gpu.large": WAITS},
    )
    found = samples(metrics.exposed(depths, MEMBERS).decode())
    assert {name: found[name] for name in found if "route" in name} == {
        "enlarger_route_created route=gpu.large": 3,
        "enlarger_route_processing route=gpu.large": 1,
        "enlarger_route_oldest_seconds route=gpu.large": 9,
        "enlarger_route_backlog_seconds route=gpu.large": 40,
    }
    assert found["enlarger_workers"] == 2
    assert (found["enlarger_devices does=idle"], found["enlarger_devices does=computes"]) == (2, 2)
    assert found["enlarger_device_busy_seconds device=cuda:0"] == 95
    assert found["enlarger_device_gap_seconds device=cuda:0"] == 5
    # A route whose last job is done must not keep its last value.
    later = samples(metrics.exposed(replace(depths, routes={}), []).decode())
    assert not [name for name in later if "route" in name]


def samples(text: str) -> dict[str, float]:
    """Every sample by its name and labels, as Prometheus' own parser reads them."""
    return {
        sample.name
        + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_jobs_stages_attempts_and_webhooks(
    server: Running, receiver: Receiver, stranger: httpx2.Client
) -> None:
    server.finished(server.submit(webhook_url=receiver.url))
    assert server.finished(server.submit(image="bm90IGEgcGljdHVyZQ=="))["status"] == "failed"

    def told() -> dict[str, float] | None:
        found = samples(stranger.get(f"{server.url}/metrics").text)
        return found if found.get("enlarger_webhook_attempts_total outcome=2xx") else None

    found = eventually(told, "the webhook to be counted")
    assert found["enlarger_jobs_ended_total error_code= state=completed"] == 1
    assert found["enlarger_jobs_ended_total error_code=invalid_picture state=failed"] == 1
    assert found["enlarger_webhook_deliveries_ended_total state=delivered"] == 1
    assert found["enlarger_stage_seconds_sum stage=network"] == pytest.approx(0.007)
    assert found["enlarger_stage_seconds_count stage=queued"] == 2
    assert found["enlarger_job_attempts_bucket le=1.0"] == 2
    for gauge in ("queue_depth state=created", "queue_depth state=processing", "backlog_seconds"):
        assert found[f"enlarger_{gauge}"] == 0
    assert found["enlarger_queue_oldest_seconds"] == found["enlarger_webhooks_pending"] == 0


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "203.0.113.9"},
        {"Forwarded": "for=203.0.113.9"},
        {"Via": "1.1 proxy"},
        {"X-Real-IP": "203.0.113.9"},
        {"Origin": "https://evil.test"},
        {"Host": "rebound.test:8000"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_whoever_speaks_for_somebody_else_needs_a_key(
    server: Running, stranger: httpx2.Client, headers: dict[str, str]
) -> None:
    assert stranger.get(f"{server.url}/metrics", headers=headers).status_code == 401
    assert server.http.get("/metrics", headers=headers).status_code == 200
    wrong = {**headers, "Authorization": "Bearer wsk_wrong"}
    assert stranger.get(f"{server.url}/metrics", headers=wrong).status_code == 401


def test_key_without_the_scope_admin_is_not_enough(server: Running) -> None:
    with server.client(server.add_key("narrow", scopes=frozenset({"submit", "read"}))) as narrow:
        assert narrow.get("/metrics", headers={"Via": "1.1 proxy"}).status_code == 403


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("127.9.9.9", True),
        ("192.168.0.7", False),
        ("not an address", False),
    ],
)
def test_only_a_peer_of_this_machine_is_let_in_without_a_key(peer: str, local: bool) -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": "/metrics",
        "query_string": b"",
        "headers": [(b"host", b"localhost:8000")],
        "client": (peer, 1234),
    }
    assert is_from_this_machine(Request(scope)) is local


def test_gauges_show_what_waits() -> None:
    depths = Depths(created=3, processing=1, oldest_seconds=12.5, backlog_seconds=99.0, webhooks_pending=2)
    found = samples(Metrics().exposed(depths).decode())
    assert found["enlarger_queue_depth state=created"] == 3
    assert found["enlarger_queue_depth state=processing"] == 1
    assert found["enlarger_queue_oldest_seconds"] == 12.5
    assert found["enlarger_backlog_seconds"] == 99
    assert found["enlarger_webhooks_pending"] == 2


@pytest.mark.parametrize(("status", "outcome"), [(0, "none"), (204, "2xx"), (302, "3xx"), (999, "none")])
def test_outcome_of_a_webhook_is_the_class_of_its_status(status: int, outcome: str) -> None:
    metrics = Metrics()
    attempt = Attempt(at=0.0, duration_ms=1, status=status)
    delivery = Delivery(
        id="d", job_id="j", key_id="k", url="u", host="h", due_at=0, created_at=0, attempts=(attempt,)
    )
    metrics.webhook_attempted(delivery)
    nothing = Depths(created=0, processing=0, oldest_seconds=0, backlog_seconds=0, webhooks_pending=0)
    found = samples(metrics.exposed(nothing).decode())
    assert found[f"enlarger_webhook_attempts_total outcome={outcome}"] == 1
    assert delivery.state is DeliveryState.PENDING
    assert not any("deliveries_ended_total" in name for name in found)


def test_job_that_never_started_has_no_time_in_the_queue() -> None:
    metrics = Metrics()
    metrics.job_ended(
        Job(id="j", key_id="k", model="m", input={}, options={}, created_at=1.0, state=State.CANCELLED)
    )
    nothing = Depths(created=0, processing=0, oldest_seconds=0, backlog_seconds=0, webhooks_pending=0)
    assert "stage=queued" not in "".join(samples(metrics.exposed(nothing).decode()))
