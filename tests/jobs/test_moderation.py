from __future__ import annotations

import pytest

from enlarger.errors import ContentRefused
from enlarger.jobs.job import Output
from enlarger.jobs.moderation import nsfw_flags, refuse_nsfw


def output(score: float | None) -> Output:
    return Output(
        blob_key="outputs/x/1/1.png",
        media_type="image/png",
        width=1,
        height=1,
        bytes=1,
        sha256="",
        nsfw_score=score,
    )


def test_an_output_is_flagged_from_the_threshold_on() -> None:
    outputs = [output(score) for score in (0.0, 0.79, 0.8, 1.0)]
    assert nsfw_flags(outputs, 0.8) == [False, False, True, True]


def test_an_output_that_was_not_checked_is_not_flagged() -> None:
    assert nsfw_flags([output(None)], 0.0) == [False]
    refuse_nsfw([output(None)], 0.0)


def test_one_flagged_output_refuses_the_job() -> None:
    refuse_nsfw([output(0.1), output(0.7)], 0.8)
    with pytest.raises(ContentRefused, match="content policy"):
        refuse_nsfw([output(0.1), output(0.9)], 0.8)
