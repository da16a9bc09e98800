"""A lock for an import that a thread does when it is needed: a fork waits for it.

A module that another thread is importing at the moment of a fork stays half imported in the child for ever. So the fork
waits for whoever is inside, at most FORK_WAITS seconds; where no hook runs (uWSGI) nobody waits, but the child does not
inherit the lock. Made once, at import of the module that uses it: what is registered with a fork cannot be taken back.
"""

from __future__ import annotations

import os
import threading

from .process_lock import ProcessLock

FORK_WAITS = 2.0
"""Seconds that a fork waits: an import takes a tenth of that."""


class ImportLock(ProcessLock):
    """A context manager; for module level."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        super().__init__()
        self._held: threading.Lock | None = None
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._before_fork, after_in_parent=self._after_fork_in_parent)

    def _before_fork(self) -> None:
        lock = self.here()
        self._held = lock if lock.acquire(timeout=FORK_WAITS) else None

    def _after_fork_in_parent(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.release()
