"""Logs: one line an event, with the ids of request, job and delivery, and without secrets.

Code logs through the standard library; structlog adds the ids that are bound where the line is written, and renders.
The last step before a line leaves the process takes out what it should never have held: keys, the paths of URLs
(links open files) and long runs of base64 (pictures).
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

_SECRET = re.compile(r"\b(wsk_|whsec_)[A-Za-z0-9_+/=-]+")
_BEARER = re.compile(r"\b(bearer\s+)[^\s\"',}]+", re.IGNORECASE)
_URL = re.compile(r"\b(https?://)(?:[^\s/@\"'<>]*@)?([^\s/?#\"'<>\\]*)[/?#][^\s\"'<>\\]*", re.IGNORECASE)
_LINK = re.compile(r"/(files|tiles|uploads)/[^\s\"'<>]+")
_RUN = re.compile(r"[A-Za-z0-9+/_-]{80,}={0,2}")


def scrubbed(line: str) -> str:
    """The line without API keys, webhook secrets, URLs beyond their host, links, and long base64."""
    line = _URL.sub(r"\1\2/…", line)
    line = _LINK.sub(r"/\1/…", line)
    line = _SECRET.sub(r"\1…", line)
    line = _BEARER.sub(r"\1…", line)
    return _RUN.sub("…", line)


def set_up_logging(level: str, *, as_json: bool, stream: TextIO | None = None) -> None:
    """Send the log of this process to `stream` (stderr), as JSON or as text for people.

    level: debug, info, warning or error, of our own lines; those of libraries are written from warning on.
    """
    out: TextIO = sys.stderr if stream is None else stream  # pyright: ignore[reportAssignmentType]
    last: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    render: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if as_json:
        render.append(structlog.processors.format_exc_info)
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[*render, _rendered(last)],
    )
    lines = logging.StreamHandler(out)
    lines.setFormatter(formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(lines)
    # At lower levels libraries log statements with their values, and headers.
    root.setLevel(logging.WARNING)
    logging.getLogger("enlarger").setLevel(level.upper())


def _rendered(renderer: Callable[[Any, str, EventDict], Any]) -> Processor:
    """The renderer, and then the scrubbing of all it wrote, tracebacks included."""

    def render(logger: Any, name: str, event: EventDict) -> str | Mapping[str, Any]:
        return scrubbed(str(renderer(logger, name, event)))

    return render
