"""Answers that wait: enable_sync_mode, Prefer, and what a client knows already."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from enlarger.api.wavespeed import MAX_WAIT_SECONDS, is_known, wait_of

from .conftest import SUBMIT, Running, picture, running


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose synchronous answers wait a tenth of a second."""
    with running(tmp_path_factory.mktemp("impatient"), sync_wait_seconds=0.1) as this:
        yield this


def test_sync_submit_answers_with_the_result(server: Running) -> None:
    data = server.submit(enable_sync_mode=True, scale=2).json()["data"]
    assert (data["status"], data["progress"], len(data["outputs"])) == ("completed", 1.0, 1)


def test_sync_submit_that_fails_is_a_success_with_an_error_inside(server: Running) -> None:
    answer = server.submit(enable_sync_mode=True, face_enhance=True)
    assert answer.status_code == 200
    assert (answer.json()["data"]["status"], answer.json()["data"]["code"]) == ("failed", 1403)


def test_sync_submit_that_takes_too_long_says_so_and_goes_on(impatient: Running) -> None:
    with impatient.held_up():
        answer = impatient.submit(enable_sync_mode=True)
        data = answer.json()["data"]
        assert (answer.status_code, answer.json()["code"]) == (200, 200)
        assert (data["status"], data["code"], data["outputs"]) == ("processing", 5004, [])
        assert "Sync mode timed out" in data["error"]
        assert data["urls"]["get"].endswith(f"/api/v3/predictions/{data['id']}/result")
        # The prediction itself knows nothing of the client's patience.
        now = impatient.poll(data["id"]).json()["data"]
        assert (now["error"], now["code"]) == ("", 0)
    assert impatient.until(data["id"], "completed")["outputs"]


@pytest.mark.parametrize("fields", [{}, {"enable_sync_mode": True}])
def test_base64_output_is_the_file_itself(server: Running, fields: dict[str, Any]) -> None:
    submitted = server.submit(enable_base64_output=True, scale=3, **fields)
    (output,) = server.finished(submitted)["outputs"]
    data = base64.b64decode(output, validate=True)
    with Image.open(io.BytesIO(data)) as large:
        assert (large.format, large.size) == ("PNG", (21, 15))
    answer = server.poll(submitted.json()["data"]["id"])
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_base64_and_webhook_exclude_each_other(server: Running) -> None:
    body = {"image": picture(), "enable_base64_output": True}
    for answer in (
        server.http.post(SUBMIT, params={"webhook": "https://example.com/hook"}, json=body),
        server.http.post(SUBMIT, json={**body, "webhook_url": "https://example.com/hook"}),
    ):
        assert answer.status_code == 400
        assert "webhook" in answer.json()["error"]


@pytest.mark.parametrize("url", ["ftp://example.com/x", "nonsense", "http://", "https://u:p@example.com/"])
def test_webhook_that_could_never_be_called_is_refused_at_submit(server: Running, url: str) -> None:
    answer = server.http.post(SUBMIT, params={"webhook": url}, json={"image": picture()})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "invalid_option")
    assert "webhook" in answer.json()["message"]


def test_preferring_to_wait_makes_a_poll_wait_for_the_end(server: Running) -> None:
    with server.held_up():
        job_id = server.submit().json()["data"]["id"]
        server.until(job_id, "processing")
        releaser = threading.Timer(0.2, server.compute.open)
        releaser.start()
        answer = server.poll(job_id, Prefer="respond-async, wait=20")
        releaser.join()
    assert answer.json()["data"]["status"] == "completed"
    assert answer.headers["preference-applied"] == "wait=20"


def test_preference_holds_for_a_submit_too_and_ends_without_an_error(server: Running) -> None:
    assert server.submit(headers={"Prefer": "wait=20"}).json()["data"]["status"] == "completed"
    with server.held_up():
        data = server.submit(headers={"Prefer": "wait=1"}).json()["data"]
        assert (data["status"], data["code"], data["error"]) == ("processing", 0, "")
        server.http.post(f"/api/v3/predictions/{data['id']}/cancel")


def test_poll_of_what_is_known_has_no_body(server: Running) -> None:
    job_id = server.finished(server.submit())["id"]
    first = server.poll(job_id)
    again = server.poll(job_id, **{"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert server.poll(job_id, **{"If-None-Match": '"another"'}).json() == first.json()


def test_waiting_with_a_known_state_ends_at_the_next_change(server: Running) -> None:
    with server.held_up():
        server.until(server.submit().json()["data"]["id"], "processing")
        waiting = server.submit().json()["data"]["id"]
        known = ""
        # Its place in the line is estimated first, and settles with the next look at the line.
        while (
            answer := server.poll(waiting, **{"If-None-Match": known, "Prefer": "wait=2"})
        ).status_code != 304:
            known = answer.headers["etag"]
        server.http.post(f"/api/v3/predictions/{waiting}/cancel")
        changed = server.poll(waiting, **{"If-None-Match": known, "Prefer": "wait=20"})
        assert changed.json()["data"]["status"] == "cancelled"


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        *(("", 0), ("wait", 0), ("wait=", 0), ("wait=x", 0), ("await=5", 0), ("wait=-5", 0)),
        *(("wait=5", 5), ('Wait="5"', 5), ("respond-async; wait=5", 5), ("wait=7, handling=lenient", 7)),
        ("wait=100000", MAX_WAIT_SECONDS),
    ],
)
def test_prefer_header_is_read_as_rfc_7240_writes_it(prefer: str, seconds: float) -> None:
    assert wait_of(prefer) == seconds


@pytest.mark.parametrize(
    ("header", "known"),
    [
        *(('W/"a"', True), ('"a"', True), ('"b", W/"a"', True), ("*", True)),
        *(("", False), ('"b"', False), ("a", False), ('"aa"', False)),
    ],
)
def test_tags_are_compared_weakly(header: str, known: bool) -> None:
    assert is_known(header, 'W/"a"') is known


def test_client_that_leaves_while_it_waits_disturbs_nobody(server: Running) -> None:
    with server.held_up():
        job_id = server.submit().json()["data"]["id"]
        with pytest.raises(httpx2.ReadTimeout):
            server.http.get(
                f"/api/v3/predictions/{job_id}/result", headers={"Prefer": "wait=20"}, timeout=0.2
            )
    assert server.until(job_id, "completed")


def test_progress_and_place_in_the_line_are_told(server: Running, tmp_path: Path) -> None:
    del tmp_path
    with server.held_up():
        first, second, third = (server.submit().json()["data"]["id"] for _ in range(3))
        server.until(first, "processing")
        shown = [server.poll(job_id).json()["data"] for job_id in (first, second, third)]
        assert shown[0]["queue_position"] == 0
        assert shown[1]["queue_position"] <= shown[2]["queue_position"]
        assert all(data["eta_seconds"] >= 0 for data in shown)
    for job_id in (first, second, third):
        done = server.until(job_id, "completed")
        assert (done["queue_position"], done["eta_seconds"], done["progress"]) == (None, None, 1.0)
