"""view(job): the one wire form of a job, used by submit and poll alike.

The field set and types are the vendor's `data` object: every string a string, `outputs` always a list,
`urls` a flat map of strings.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from enlarger.jobs.job import Job, Output, State
from enlarger.jobs.moderation import nsfw_flags

VENDOR_CODES = {
    "": 0,
    "content_refused": 1200,
    "invalid_option": 1401,
    "invalid_picture": 1401,
    "unsupported_format": 1401,
    "picture_too_large": 1401,
    "source_unreachable": 1402,
    "address_refused": 1402,
    "feature_unavailable": 1403,
    "model_unavailable": 5003,
    "weights_corrupt": 5003,
    "runtime_unavailable": 5003,
    "timed_out": 5004,
}
"""Prediction-level codes by `error_code`: 1xxx means do not retry, 5xxx means retry later."""

_INTERNAL = 5000


def vendor_code(job: Job) -> int:
    return VENDOR_CODES.get(job.error_code, _INTERNAL)


def rfc3339(seconds: float) -> str:
    """UTC with milliseconds and `Z`, e.g. 2025-09-29T23:09:43.027Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def view(
    job: Job, *, result_url: str, output_url: Callable[[Output], str], nsfw_threshold: float = 0.8
) -> dict[str, Any]:
    """The prediction as the API shows it. Without a safety check `has_nsfw_contents` holds false."""
    done = job.state is State.COMPLETED
    return {
        "id": job.id,
        "model": job.model,
        "input": dict(job.input),
        "outputs": [output_url(output) for output in job.outputs] if done else [],
        "urls": {"get": result_url},
        "has_nsfw_contents": nsfw_flags(job.outputs, nsfw_threshold) if done else [],
        "status": job.state.value,
        "created_at": rfc3339(job.created_at),
        "error": job.error_message,
        "code": vendor_code(job),
        "executionTime": job.compute_ms,
        "timings": {"inference": job.compute_ms},
    }
