"""A clock that stands still until it is told to move: for tests and simulations of hours that take no time."""

from __future__ import annotations

import threading

from ..core.clock import Waitable


class FakeClock:
    """A `chatsdk.core.clock.Clock` moved by hand.

    Waiting moves it: `wait(event, 5)` returns at once, five seconds later, unless the event is set. So code that waits
    in a loop runs through its waits without waiting. Thread-safe.

        clock = FakeClock()
        clock.advance(3600)         # an hour passes, on both clocks
        clock.set_time(clock.time() - 60)   # somebody sets the wall clock back; monotonic time goes on
    """

    def __init__(self, time: float = 1_800_000_000.0, monotonic: float = 1_000.0) -> None:
        self._lock = threading.Lock()
        self._time = time
        self._monotonic = monotonic

    def monotonic(self) -> float:
        """Seconds that never jump."""
        return self._monotonic

    def time(self) -> float:
        """Unix time in seconds."""
        return self._time

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass. Raises ValueError for a step back."""
        if seconds < 0:
            raise ValueError("time passes forwards; set_time moves the wall clock only")
        with self._lock:
            self._time += seconds
            self._monotonic += seconds

    def set_time(self, time: float) -> None:
        """Set the wall clock; monotonic time stays."""
        with self._lock:
            self._time = time

    def wait(self, event: Waitable, timeout: float) -> bool:
        """True at once if `event` is set; else time moves on by `timeout`, and the answer is whether it is set then."""
        if event.is_set():
            return True
        self.advance(max(0.0, timeout))
        return event.is_set()
