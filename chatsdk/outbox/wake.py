"""Telling other processes that something is to be done in a shared outbox.

A signal is a new modification time of the file `wake`; who waits looks at it once a second. It carries nothing and may
be missed or come twice: it only cuts a wait short, and what to do stands in the store. Signal where it matters: a put
by a process without a worker, a result that another process waits for, a retry by hand.
"""

from __future__ import annotations

import os

from ..core.clock import Clock, Waitable
from ..core.errors import ChatError
from .files import open_private

POLL = 1.0
"""Seconds between two looks."""


class Wake:
    """Signals among the processes of one state directory. One waiting thread for each instance."""

    def __init__(self, directory: str, clock: Clock) -> None:
        self._path = os.path.join(directory, "wake")
        self._clock = clock
        self._seen = self._look()

    def signal(self) -> None:
        """Wake the others. A signal that cannot be given costs them a little time, so it never fails."""
        try:
            if self._look() is None:
                os.close(open_private(self._path))
            os.utime(self._path)
        except (OSError, ChatError):
            return

    def wait(self, event: Waitable, timeout: float) -> bool:
        """Wait until `event` is set (True), or somebody signalled or `timeout` seconds passed (False)."""
        end = self._clock.monotonic() + timeout
        while True:
            left = end - self._clock.monotonic()
            if left <= 0:
                return event.is_set()
            if self._clock.wait(event, min(POLL, left)):
                return True
            now = self._look()
            if now != self._seen:
                self._seen = now
                return False

    def _look(self) -> int | None:
        try:
            return os.stat(self._path, follow_symlinks=False).st_mtime_ns
        except OSError:
            return None
