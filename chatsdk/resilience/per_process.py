"""Something that each process has its own of: a forked child makes it anew when it first asks, and leaves its parent's
alone. No fork hook is needed: it is found by the process id."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

from .process_lock import ProcessLock

T = TypeVar("T")


class PerProcess(Generic[T]):
    """`get` makes it by `make()`, once a process, whichever thread asks first; `known` only looks."""

    __slots__ = ("_changing", "_made", "_make", "_pid")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._changing = ProcessLock()
        self._pid = 0
        self._made: T | None = None

    def get(self) -> T:
        """This process's own."""
        known = self.known()
        if known is not None:
            return known
        with self._changing:
            known = self.known()
            if known is None:
                self._pid = 0  # nobody may take the parent's for ours
                known = self._made = self._make()
                self._pid = os.getpid()
            return known

    def known(self) -> T | None:
        """This process's own, None if it was never asked for here."""
        return self._made if self._pid == os.getpid() else None
