"""The server's idea of now: real time plus what a test has skipped over `/__dev__/clock`.

Everything that expires or refills (tokens, sessions, rate limits, presence) asks here, so a test can let an hour pass
in no time. Fault durations and latencies are real time: they are about the wire.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class DevClock:
    """Unix time that can be moved forward."""

    def __init__(self, real: Callable[[], float] = time.time) -> None:
        self._real = real
        self.skipped = 0.0

    def seconds(self) -> float:
        return self._real() + self.skipped

    def milliseconds(self) -> int:
        return int(self.seconds() * 1000)

    def skip(self, seconds: float) -> None:
        """Moves the time forward by `seconds`; it never goes back."""
        self.skipped += max(0.0, seconds)
