"""Server-sent events, read by a parser of the format's own rules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import httpx2
import pytest

from enlarger.api.events import with_keep_alive

from .conftest import Running

Event = dict[str, str]


def events_of(answer: httpx2.Response) -> Iterator[Event]:
    """One dictionary an event: its fields by name. Comments are left out, as the format says."""
    event: Event = {}
    for line in answer.iter_lines():
        if line:
            name, _, value = line.partition(":")
            if name:
                event[name] = value.removeprefix(" ")
        elif event:
            yield event
            event = {}


def watch(server: Running, job_id: str, **headers: str) -> Any:
    return server.http.stream("GET", f"/api/v3/predictions/{job_id}/events", headers=headers)


def test_stream_tells_states_and_tiles_and_ends_with_the_end(server: Running) -> None:
    with server.held_up():
        job_id = server.submit(scale=4).json()["data"]["id"]
        with watch(server, job_id) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            told = []
            for event in events_of(answer):
                told.append(event)
                if event["event"] == "status":
                    server.compute.open()
    statuses = [json.loads(event["data"]) for event in told if event["event"] == "status"]
    assert [data["status"] for data in statuses][-1] == "completed"
    assert statuses[-1] == server.poll(job_id).json()["data"]
    tiles = [json.loads(event["data"]) for event in told if event["event"] == "tile"]
    # 7×5 pixels × 4 in two halves. A stream that began late may have missed the first.
    expected = [
        {"x": 0, "y": 0, "w": 28, "h": 10, "done": 1, "total": 2},
        {"x": 0, "y": 10, "w": 28, "h": 10, "done": 2, "total": 2},
    ]
    assert tiles in (expected, expected[1:])
    assert {event["event"] for event in told} <= {"status", "progress", "tile"}


def test_stream_of_what_has_ended_is_one_event(server: Running) -> None:
    data = server.finished(server.submit())
    with watch(server, data["id"]) as answer:
        (event,) = events_of(answer)
    assert (event["event"], json.loads(event["data"])) == ("status", data)


def test_client_that_has_seen_the_end_need_not_come_again(server: Running) -> None:
    job_id = server.finished(server.submit())["id"]
    with watch(server, job_id) as answer:
        (event,) = events_of(answer)
    with watch(server, job_id, **{"Last-Event-ID": event["id"]}) as answer:
        assert (answer.status_code, answer.read()) == (204, b"")


@pytest.mark.parametrize("seen", ["", "nonsense", "created-0", "-1", "9" * 500])
def test_any_last_event_id_is_fine(server: Running, seen: str) -> None:
    job_id = server.finished(server.submit())["id"]
    with watch(server, job_id, **{"Last-Event-ID": seen}) as answer:
        (event,) = events_of(answer)
    assert json.loads(event["data"])["status"] == "completed"


def test_stream_ends_when_the_prediction_is_cancelled(server: Running) -> None:
    with server.held_up():
        job_id = server.submit().json()["data"]["id"]
        with watch(server, job_id) as answer:
            stream = events_of(answer)
            next(stream)
            server.http.post(f"/api/v3/predictions/{job_id}/cancel")
            *_, last = stream
    assert json.loads(last["data"])["status"] == "cancelled"


def test_unknown_prediction_has_no_stream(server: Running) -> None:
    with watch(server, "0" * 32) as answer:
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/json"


def test_silence_is_filled_with_comments_and_the_source_is_closed() -> None:
    closed: list[bool] = []

    async def slow(go_on: asyncio.Event) -> AsyncGenerator[bytes]:
        try:
            yield b"first"
            await go_on.wait()
            yield b"second"
        finally:
            closed.append(True)

    async def listen() -> list[bytes]:
        go_on, heard = asyncio.Event(), list[bytes]()
        async for event in with_keep_alive(slow(go_on), 0.01):
            heard.append(event)
            if heard.count(b": keep-alive\n\n") == 3:
                go_on.set()
        return heard

    heard = asyncio.run(listen())
    assert (heard[0], heard[-1]) == (b"first", b"second")
    assert set(heard[1:-1]) == {b": keep-alive\n\n"}
    assert len(heard) >= 5
    assert closed == [True]


def test_listener_that_leaves_closes_the_source() -> None:
    closed: list[bool] = []

    async def endless() -> AsyncGenerator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async def listen() -> None:
        stream = with_keep_alive(endless(), 0.01)
        assert await anext(stream) == b"first"
        assert await anext(stream) == b": keep-alive\n\n"
        await stream.aclose()

    asyncio.run(listen())
    assert closed == [True]
