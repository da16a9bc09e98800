"""Protocols for time, randomness and waiting.

Decisions take `now` as an argument; loops take a `Clock`. Two kinds of time: `monotonic()` for everything that is
measured or waited for, `time()` (Unix seconds) only for what other processes or people read. Waiting is always on an
event that somebody can set, never a bare sleep, so that closing wakes it and a clock under test can move it.
"""

from __future__ import annotations

from typing import Protocol


class Waitable(Protocol):
    """What `threading.Event` looks like."""

    def is_set(self) -> bool: ...

    def wait(self, timeout: float | None = None) -> bool: ...


class Clock(Protocol):
    """Time as the SDK sees it. `resilience.system_clock.SystemClock` is the real one."""

    def monotonic(self) -> float:
        """Seconds that never jump; only differences mean anything."""
        ...

    def time(self) -> float:
        """Unix time in seconds; may jump."""
        ...

    def wait(self, event: Waitable, timeout: float) -> bool:
        """Wait until `event` is set or `timeout` seconds passed; True if it was set."""
        ...


class Random(Protocol):
    """A source of randomness: `random.random` fits."""

    def __call__(self) -> float:
        """A number in [0, 1)."""
        ...
