"""Breaker: leaves a host alone for a while once it has failed several times in a row. Frozen; its methods are pure.

closed ──FAILURES in a row──▶ open until `retry_at` ──one trial──▶ closed, or open twice as long
"""

from __future__ import annotations

from dataclasses import dataclass

FAILURES = 5
"""So many in a row open the breaker."""
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is remembered of one host. `Breaker()` is a host of which nothing bad is known."""

    failures: int = 0
    """Since the last success."""
    retry_at: float = 0.0
    """Unix seconds; until then the host is left alone."""

    @property
    def is_tripped(self) -> bool:
        """Whether only one request at a time may try the host."""
        return self.failures >= FAILURES

    def allows(self, now: float, under_way: int, cap: int) -> bool:
        """Whether one more request may go out while `under_way` are: `cap` of them, or one trial when tripped."""
        return now >= self.retry_at and under_way < (1 if self.is_tripped else cap)

    def after(self, *, success: bool, now: float) -> Breaker:
        """The breaker once a request has ended."""
        if success:
            return Breaker()
        failures = self.failures + 1
        if failures < FAILURES:
            return Breaker(failures)
        # A host that is down for days must not raise a float to its limit.
        doublings = min(failures - FAILURES, 16)
        return Breaker(failures, now + min(FIRST_PAUSE_SECONDS * 2**doublings, LONGEST_PAUSE_SECONDS))
