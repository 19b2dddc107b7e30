"""Moderation: what a result's NSFW score means to this server. Pure; the score is the engine's."""

from __future__ import annotations

from collections.abc import Iterable

from enlarger.errors import ContentRefused
from enlarger.jobs.job import Output


def nsfw_flags(outputs: Iterable[Output], threshold: float) -> list[bool]:
    """One flag an output, in their order: its score reaches the threshold. False where no check ran."""
    return [output.nsfw_score is not None and output.nsfw_score >= threshold for output in outputs]


def refuse_nsfw(outputs: Iterable[Output], threshold: float) -> None:
    """Raises ContentRefused when an output's score reaches the threshold."""
    if any(nsfw_flags(outputs, threshold)):
        raise ContentRefused("The result was refused by this server's content policy (ENLARGER_NSFW_REFUSE)")
