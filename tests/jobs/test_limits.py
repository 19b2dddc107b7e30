"""How many do something at once."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from enlarger.errors import Overloaded
from enlarger.jobs.limits import AtOnce


def test_more_than_there_may_be_are_refused_until_one_is_done() -> None:
    limit = AtOnce(2, "submits")
    with limit.one(), ExitStack() as second:
        second.enter_context(limit.one())
        with pytest.raises(Overloaded, match="2 submits") as refusal, limit.one():
            pytest.fail("a third was let in")
        assert refusal.value.retry_after_seconds > 0
        second.close()
        with limit.one():
            pass


def test_one_that_fails_makes_room_as_well() -> None:
    limit = AtOnce(1, "submits")
    for _ in range(3):
        with pytest.raises(ValueError, match="mine"), limit.one():
            raise ValueError("mine")
