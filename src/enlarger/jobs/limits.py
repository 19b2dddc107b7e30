"""Limits: how often a key may submit. GCRA, the leaky bucket as one number: when the bucket will be empty again.

`arrival_at` of a key moves one interval ahead with every submit, and may lie at most a minute minus one interval
ahead of now. A key may so spend a minute's worth at once, and then goes on at its rate.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Update, case, update

from enlarger.errors import RateLimited
from enlarger.jobs.job import Key
from enlarger.jobs.tables import keys

_MINUTE_SECONDS = 60.0


def wait_seconds(key: Key, arrival_at: float, now: float) -> float:
    """How long the key has to wait until it may submit; 0 or less: it may now."""
    if not key.rate_per_minute:
        return 0.0
    return arrival_at - now - (_MINUTE_SECONDS - _interval(key))


def check_rate(key: Key, arrival_at: float, now: float) -> None:
    """Raises RateLimited while the key has to wait."""
    # A billionth of a second: sums of intervals are not exact.
    if (seconds := wait_seconds(key, arrival_at, now)) > 1e-9:
        raise RateLimited(
            f"This API key may submit {key.rate_per_minute} pictures a minute: try again in {seconds:.1f} s",
            seconds,
        )


def charged(key: Key, now: float, values: dict[str, Any]) -> Update:
    """Charge one submit and set `values` on the key's row; reaches no row while the key has to wait."""
    statement = update(keys).where(keys.c.id == key.id)
    if not key.rate_per_minute:
        return statement.values(**values)
    start = case((keys.c.arrival_at > now, keys.c.arrival_at), else_=now)
    latest = now + _MINUTE_SECONDS - _interval(key) + 1e-9
    return statement.where(keys.c.arrival_at <= latest).values(arrival_at=start + _interval(key), **values)


def _interval(key: Key) -> float:
    return _MINUTE_SECONDS / key.rate_per_minute
