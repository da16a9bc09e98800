"""Who waits in this process for what became of a message. Local fates are handed over; nobody polls for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..core.store import Lane, Row


class Waiter:
    """One call that waits. `event`: look again; `row`: the row as it ended, if it ended here."""

    __slots__ = ("event", "lane", "row")

    def __init__(self) -> None:
        self.lane: Lane | None = None  # set by who waits, once it is known
        self.event = threading.Event()
        self.row: Row | None = None


class Waiters:
    """All that wait, by row. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_row: dict[int, list[Waiter]] = {}

    @contextmanager
    def wait_for(self, id: int) -> Iterator[Waiter]:
        """Be told about a row while inside."""
        waiter = Waiter()
        with self._lock:
            self._by_row.setdefault(id, []).append(waiter)
        try:
            yield waiter
        finally:
            with self._lock:
                others = self._by_row[id]
                others.remove(waiter)
                if not others:
                    del self._by_row[id]

    def ended(self, row: Row) -> None:
        """A row was delivered or died."""
        if self._by_row:
            with self._lock:
                for waiter in self._by_row.get(row.id, ()):
                    waiter.row = row
                    waiter.event.set()

    def look(self, lane: Lane | None = None) -> None:
        """Something changed about a lane (None: about any): everybody there looks again."""
        if self._by_row:
            with self._lock:
                for waiters in self._by_row.values():
                    for waiter in waiters:
                        if lane in (None, waiter.lane):
                            waiter.event.set()
