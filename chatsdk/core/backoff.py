"""How long to wait before the next try. Pure: the random number is an argument.

Presets carry the seeds' numbers; the settings name them (`retry = "default" | "standard" | "patient"`).
"""

from __future__ import annotations

from dataclasses import replace

from .record import Record, record


@record(frozen=True, slots=True)
class Backoff(Record):
    """`delay(n, r)` for the n-th failure in a row (from 1): `first * factor**(n-1)`, capped, then spread by jitter.

    The delay lies in `[d * low, d * high + extra]` with `d = min(cap, first * factor**(n-1))`; all in seconds.
    """

    tries: int
    first: float
    factor: float
    cap: float
    low: float = 1.0
    high: float = 1.5
    extra: float = 0.0

    def delay(self, failures: int, random: float) -> float:
        """Seconds to wait after the `failures`-th failure; `random` in [0, 1)."""
        exponent = min(max(failures, 1) - 1, 64)  # beyond that every cap is reached, and floats overflow
        base = min(self.cap, self.first * self.factor**exponent)
        return base * (self.low + (self.high - self.low) * random) + self.extra * random

    def with_tries(self, tries: int) -> Backoff:
        """The same, with another number of tries."""
        return replace(self, tries=tries)


DEFAULT = Backoff(tries=5, first=0.1, factor=2.0, cap=10.0, low=1.0, high=1.5)
"""Seed 002: 5 tries, 100 ms x2, cap 10 s, jitter 0-50 %."""

STANDARD = Backoff(tries=3, first=0.5, factor=2.0, cap=30.0, low=0.8, high=1.2)
"""Seed 003: 3 tries, 500 ms x2, cap 30 s, jitter 20 %."""

PATIENT = Backoff(tries=5, first=1.0, factor=2.0, cap=30.0, low=1.0, high=1.0, extra=1.0)
"""Seed 000: connection errors 5 tries (5xx: PATIENT_5XX_TRIES), 1 s x2, cap 30 s, + 0-1 s."""

PATIENT_5XX_TRIES = 3
"""Seed 000: 5xx are tried 3 times."""

UNKEYED_TRIES = 3
"""Tries of a mutation that is neither keyed nor repeatable, and only after NotSentError (seed 002)."""

LANE = Backoff(tries=0, first=0.1, factor=2.0, cap=60.0, low=0.5, high=1.0)
"""A parked lane of the outbox: 100 ms x2, cap 60 s, jitter downwards so that the cap holds. `tries` does not apply: a
lane is tried until its rows' time to live ends."""

PRESETS = {"default": DEFAULT, "standard": STANDARD, "patient": PATIENT}

RECONNECT_FAST = Backoff(tries=10, first=0.1, factor=2.0, cap=2.0, low=0.5, high=1.0)
"""Reconnecting: 100 ms x2, cap 2 s, 10 tries; jitter downwards, so that a lost connection is back within 2 s (the
seeds ask for that)."""

RECONNECT_PATIENT = Backoff(tries=10, first=1.0, factor=1.5, cap=30.0, low=0.5, high=1.0)
"""Seed 004: 1 s x1.5, times 0.5-1.0, cap 30 s, 10 tries."""

RECONNECTS = {
    "forever": (RECONNECT_FAST, RECONNECT_PATIENT.with_tries(0)),
    "fast": (RECONNECT_FAST,),
    "patient": (RECONNECT_PATIENT,),
}
"""What is gone through when a connection is lost, one after the other; 0 tries: without an end. The settings name them
(`reconnect = "forever" | "fast" | "patient"`)."""
