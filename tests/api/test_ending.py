"""Ends by the client's hand: cancel, delete, and submits that come twice."""

from __future__ import annotations

import json

import pytest

from .conftest import SUBMIT, Running, picture


def test_cancel_ends_a_running_prediction_for_good(server: Running) -> None:
    with server.held_up():
        job_id = server.submit().json()["data"]["id"]
        server.until(job_id, "processing")
        answer = server.http.post(f"/api/v3/predictions/{job_id}/cancel")
        assert (answer.status_code, answer.json()["data"]["status"]) == (200, "cancelled")
        # The device is free although the work was never let go.
        data = server.poll(job_id).json()["data"]
        assert (data["status"], data["outputs"]) == ("cancelled", [])
    assert server.finished(server.submit())["status"] == "completed"
    assert server.poll(job_id).json()["data"]["status"] == "cancelled"


def test_cancel_of_a_waiting_prediction_keeps_it_from_the_device(server: Running) -> None:
    with server.held_up():
        server.until(server.submit().json()["data"]["id"], "processing")
        waiting = server.submit().json()["data"]["id"]
        assert (
            server.http.post(f"/api/v3/predictions/{waiting}/cancel").json()["data"]["status"] == "cancelled"
        )
    assert server.finished(server.submit())["status"] == "completed"
    assert server.poll(waiting).json()["data"]["executionTime"] == 0


def test_cancel_of_what_has_ended_changes_nothing(server: Running) -> None:
    data = server.finished(server.submit())
    assert server.http.post(f"/api/v3/predictions/{data['id']}/cancel").json()["data"] == data


def test_deleted_predictions_are_gone_with_their_files(server: Running) -> None:
    kept, *gone = (server.finished(server.submit()) for _ in range(3))
    ids = [data["id"] for data in gone]
    answer = server.http.post("/api/v3/predictions/delete", json={"ids": [*ids, "unknown"]})
    assert answer.json() == {"code": 200, "message": "success", "data": {"deleted_count": 2}}
    for data in gone:
        assert server.poll(data["id"]).status_code == 404
        assert server.http.get(data["outputs"][0]).status_code == 404
    assert server.http.get(kept["outputs"][0]).status_code == 200


def test_one_prediction_is_deleted_by_its_path(server: Running) -> None:
    job_id = server.finished(server.submit())["id"]
    answer = server.http.delete(f"/api/v3/predictions/{job_id}")
    assert answer.json()["data"] == {"id": job_id, "status": "deleted"}
    again = server.http.delete(f"/api/v3/predictions/{job_id}")
    assert (again.status_code, "Prediction not found" in again.json()["message"]) == (404, True)


@pytest.mark.parametrize("body", [{}, {"ids": "x"}, {"ids": [1]}, {"ids": ["x"] * 1001}, {"ids": ["\ud800"]}])
def test_bad_list_of_ids_is_refused_by_name(server: Running, body: object) -> None:
    answer = server.http.post("/api/v3/predictions/delete", content=json.dumps(body))
    assert (answer.status_code, answer.json()["code"]) == (400, 1401)
    assert "ids" in answer.json()["message"]


def test_same_idempotency_key_and_request_give_the_same_prediction(server: Running) -> None:
    headers = {"Idempotency-Key": "once-only"}
    first = server.submit(headers=headers, scale=2).json()["data"]
    server.until(first["id"], "completed")
    again = server.submit(headers=headers, scale=2)
    assert again.json()["data"]["id"] == first["id"]
    assert again.json()["data"]["status"] == "completed"
    assert server.submit(headers={"Idempotency-Key": "another"}, scale=2).json()["data"]["id"] != first["id"]


def test_idempotency_key_with_another_request_is_refused(server: Running) -> None:
    headers = {"Idempotency-Key": "for one request"}
    assert server.submit(headers={"Idempotency-Key": "a" * 256}).status_code == 400
    assert server.submit(headers=headers).status_code == 400
    headers = {"Idempotency-Key": "for-one-request"}
    assert server.submit(headers=headers, scale=2).status_code == 200
    answer = server.submit(headers=headers, scale=3)
    assert (answer.status_code, answer.json()["error_code"]) == (422, "idempotency_conflict")
    assert "for-one-request" in answer.json()["message"]


def test_two_keys_may_use_the_same_idempotency_key(server: Running) -> None:
    headers = {"Idempotency-Key": "shared"}
    mine = server.submit(headers=headers).json()["data"]["id"]
    with server.client(server.add_key("other")) as other:
        theirs = other.post(SUBMIT, json={"image": picture()}, headers=headers).json()["data"]["id"]
    assert theirs != mine
