"""A lock that a forked child does not inherit.

For the few lines in which a child puts its own affairs in order: a thread of its parent may have been in the middle of
the same, and would never release it here. No fork hook is needed: the lock is found by the process id.
"""

from __future__ import annotations

import os
import threading


class ProcessLock:
    """A context manager; each process has a lock of its own."""

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}

    def here(self) -> threading.Lock:
        """This process's."""
        # setdefault is one step: of two threads that come at once, both get the same
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def __enter__(self) -> None:
        self.here().acquire()

    def __exit__(self, *exc: object) -> None:
        self.here().release()
