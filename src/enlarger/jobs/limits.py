"""Limits: how often a key may submit. GCRA, the leaky bucket as one number: when the bucket will be empty again.

`arrival_at` of a key moves one interval ahead with every submit, and may lie at most a minute minus one interval
ahead of now. A key may so spend a minute's worth at once, and then goes on at its rate.

And how much of one kind the server does at once.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Float, bindparam, case, update

from enlarger.errors import Overloaded, RateLimited
from enlarger.jobs.job import Key
from enlarger.jobs.tables import keys

_MINUTE_SECONDS = 60.0


class AtOnce:
    """A limit on how many of something are under way at a time, in one event loop."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._under_way = 0

    @contextmanager
    def one(self) -> Generator[None]:
        """One more, until the exit. Raises Overloaded when there are as many as there may be."""
        if self._under_way >= self._most:
            raise Overloaded(
                f"The server is at work on {self._most} {self._name}, as many as it takes at once: "
                "try again in a second",
                1.0,
            )
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1


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


def charge(connection: Connection, key: Key, now: float, virtual_time: float, share: float) -> float | None:
    """Charge one submit and move the key's fair finish ahead by `share`, from the virtual time if that is later.

    Gives the new finish; None, and nothing changed, while the key waits. Read and written at once, so that of two
    submits at the same moment one counts from where the other ends.
    """
    values: dict[str, Any] = {"charged_id": key.id, "virtual_time": virtual_time, "share": share}
    if not key.rate_per_minute:
        return connection.execute(_UNLIMITED, values).scalar_one_or_none()
    interval = _interval(key)
    values |= {"now": now, "interval": interval, "latest": now + _MINUTE_SECONDS - interval + 1e-9}
    return connection.execute(_LIMITED, values).scalar_one_or_none()


def _interval(key: Key) -> float:
    return _MINUTE_SECONDS / key.rate_per_minute


_VIRTUAL_TIME = bindparam("virtual_time", type_=Float)
_SHARE = bindparam("share", type_=Float)
_FROM = case((keys.c.fair_finish > _VIRTUAL_TIME, keys.c.fair_finish), else_=_VIRTUAL_TIME)
_UNLIMITED = (
    update(keys)
    .where(keys.c.id == bindparam("charged_id"))
    .values(fair_finish=_FROM + _SHARE)
    .returning(keys.c.fair_finish)
)
_NOW = bindparam("now", type_=Float)
_START = case((keys.c.arrival_at > _NOW, keys.c.arrival_at), else_=_NOW)
_LIMITED = _UNLIMITED.where(keys.c.arrival_at <= bindparam("latest")).values(
    arrival_at=_START + bindparam("interval")
)
