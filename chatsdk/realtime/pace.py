"""A bucket of permits: so many at once, so many a second. Pure; it keeps us below a server's limit, so that we are not
refused."""

from __future__ import annotations


class Pace:
    """`burst` permits at first, then `rate` a second."""

    __slots__ = ("_at", "_burst", "_held", "_left", "_rate")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._left = float(burst)
        self._at = float("-inf")
        self._held = float("-inf")

    def take(self, now: float) -> bool:
        """Use one up, if there is one."""
        self._fill(now)
        if now < self._held or self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def next(self, now: float) -> float:
        """When there is one."""
        self._fill(now)
        soonest = now if self._left >= 1.0 else now + (1.0 - self._left) / self._rate
        return max(soonest, self._held)

    def hold(self, until: float) -> None:
        """None before then: the server said so."""
        self._held = max(self._held, until)

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
