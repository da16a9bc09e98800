"""A lock for an import that a thread does when it is needed: a fork waits for it.

A module that another thread is importing at the moment of a fork stays half imported in the child for ever. So the fork
waits for whoever is inside, at most FORK_WAITS seconds, and the child begins with a fresh lock. Made once, at import of
the module that uses it: what is registered with a fork cannot be taken back.
"""

from __future__ import annotations

import os
import threading

FORK_WAITS = 2.0
"""Seconds that a fork waits: an import takes a tenth of that."""


class ImportLock:
    """A context manager; for module level."""

    __slots__ = ("_held", "_lock")

    def __init__(self) -> None:
        self._after_fork_in_child()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork_in_parent,
                after_in_child=self._after_fork_in_child,
            )

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._lock.release()

    def _before_fork(self) -> None:
        self._held = self._lock.acquire(timeout=FORK_WAITS)

    def _after_fork_in_parent(self) -> None:
        if self._held:
            self._held = False
            self._lock.release()

    def _after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self._held = False
