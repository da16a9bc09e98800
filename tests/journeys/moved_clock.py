"""The real clock, moved by hand while a client goes by it."""

from __future__ import annotations

import time

from chatsdk.core.clock import Waitable


class MovedClock:
    """Waits take as long as they do."""

    def __init__(self) -> None:
        self._wall = self._slept = 0.0

    def monotonic(self) -> float:
        """Seconds that never jump, but for a sleep that the system counts."""
        return time.monotonic() + self._slept

    def time(self) -> float:
        """Unix time, as somebody set it."""
        return time.time() + self._wall

    def wait(self, event: Waitable, timeout: float) -> bool:
        """As the real clock does."""
        return event.wait(timeout)

    def set(self, seconds: float) -> None:
        """Somebody sets the wall clock: so much later, or earlier."""
        self._wall += seconds

    def sleep(self, seconds: float, *, counted: bool) -> None:
        """The machine sleeps. counted: the monotonic clock goes on meanwhile, as it does for a process that is stopped;
        Linux's does not while the machine is suspended."""
        self._wall += seconds
        if counted:
            self._slept += seconds
