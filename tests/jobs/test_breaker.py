from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from enlarger.jobs.breaker import FAILURES, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Breaker

NOW = 1000.0


def failed(times: int) -> Breaker:
    breaker = Breaker()
    for _ in range(times):
        breaker = breaker.after(success=False, now=NOW)
    return breaker


def test_unknown_host_may_be_used_up_to_the_cap() -> None:
    assert Breaker().allows(NOW, under_way=3, cap=4)
    assert not Breaker().allows(NOW, under_way=4, cap=4)


def test_few_failures_change_nothing() -> None:
    assert failed(FAILURES - 1).allows(NOW, under_way=3, cap=4)


def test_too_many_failures_leave_the_host_alone_for_a_while_then_try_it_once() -> None:
    breaker = failed(FAILURES)
    assert not breaker.allows(NOW + FIRST_PAUSE_SECONDS - 0.1, under_way=0, cap=4)
    assert breaker.allows(NOW + FIRST_PAUSE_SECONDS, under_way=0, cap=4)
    assert not breaker.allows(NOW + FIRST_PAUSE_SECONDS, under_way=1, cap=4)


def test_one_success_forgives_everything() -> None:
    assert failed(FAILURES + 5).after(success=True, now=NOW) == Breaker()


@given(st.integers(FAILURES, 5000))
def test_pauses_double_up_to_the_longest(times: int) -> None:
    pauses = [failed(n).retry_at - NOW for n in range(FAILURES, min(times, 40) + 1)]
    assert pauses[0] == FIRST_PAUSE_SECONDS
    assert all(b == min(2 * a, LONGEST_PAUSE_SECONDS) for a, b in pairwise(pauses))
    assert failed(times).retry_at - NOW <= LONGEST_PAUSE_SECONDS
