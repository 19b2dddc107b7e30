from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from structlog.contextvars import bound_contextvars

from enlarger.logs import scrubbed, set_up_logging


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged, as JSON; the handlers of before come back afterwards."""
    root, ours, stream = logging.getLogger(), logging.getLogger("enlarger"), io.StringIO()
    handlers, levels = root.handlers[:], (root.level, ours.level)
    set_up_logging("info", as_json=True, stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("key wsk_Abc-123_xyz is bad", "key wsk_… is bad"),
        ("secret=whsec_AAEC/w+9= end", "secret=whsec_… end"),
        ("{'Authorization': 'Bearer 0123456789abcdef'}", "{'Authorization': 'Bearer …'}"),
        (
            "GET https://pictures.test:8443/a/b.png?sig=1 failed",
            "GET https://pictures.test:8443/… failed",
        ),
        ("to http://me:word@pictures.test/x", "to http://pictures.test/…"),
        ("https://pictures.test is fine", "https://pictures.test is fine"),
        ("/files/1700000000.c2lnbmF0dXJl/outputs/x/1/1.png", "/files/…"),
        ("image=" + "iVBORw0KGgo" * 20, "image=…"),
        ("job 6488c2754f6f4dfea924382fa14d11bd done", "job 6488c2754f6f4dfea924382fa14d11bd done"),
    ],
)
def test_a_line_loses_what_it_should_not_hold_and_nothing_else(line: str, written: str) -> None:
    assert scrubbed(line) == written


def test_a_line_carries_the_ids_bound_where_it_is_written(lines: io.StringIO) -> None:
    with bound_contextvars(request_id="r1", job_id="j1"):
        logging.getLogger("enlarger.test").info("Done in %d ms", 3)
    event = json.loads(lines.getvalue())
    wanted = {
        "event": "Done in 3 ms",
        "level": "info",
        "logger": "enlarger.test",
        "request_id": "r1",
        "job_id": "j1",
    }
    assert {name: event[name] for name in wanted} == wanted
    assert event["timestamp"].endswith("Z")


def test_a_traceback_is_scrubbed_too(lines: io.StringIO) -> None:
    try:
        raise ValueError("wsk_secret at https://pictures.test/secret.png")
    except ValueError:
        logging.getLogger("enlarger.test").exception("It failed")
    text = lines.getvalue()
    assert "Traceback" in text
    assert "ValueError" in text
    assert "secret.png" not in text
    assert "wsk_secret" not in text
    assert json.loads(text)["event"] == "It failed"


def test_lines_below_the_level_are_not_written(lines: io.StringIO) -> None:
    logging.getLogger("enlarger.test").debug("hidden")
    logging.getLogger("a.library").info("SELECT 'secret'")
    assert lines.getvalue() == ""
    logging.getLogger("a.library").warning("seen")
    assert json.loads(lines.getvalue())["logger"] == "a.library"


def test_lines_for_people_are_scrubbed_as_well(lines: io.StringIO) -> None:
    text = io.StringIO()
    set_up_logging("info", as_json=False, stream=text)
    with bound_contextvars(job_id="j1"):
        logging.getLogger("enlarger.test").warning("key wsk_abc")
    assert "wsk_…" in text.getvalue()
    assert "job_id=j1" in text.getvalue()
    assert lines.getvalue() == ""
