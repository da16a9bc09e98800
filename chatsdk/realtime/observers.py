"""Who is told what becomes of a connection: in order, one thing after the other, and with no lock held.

Whoever has something to tell while nobody tells, tells it and all that comes up meanwhile. So what happens in two
threads at once is told in the order in which it happened, and an observer may do anything: also what makes more to tell
(that comes after), also end the connection.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from ..resilience.emitter import ends_the_program

T = TypeVar("T")

log = logging.getLogger("chatsdk.realtime")


class Observers(Generic[T]):
    """`put` what is to be told, with whatever lock held that orders it; `drain` with none. Thread-safe."""

    def __init__(self) -> None:
        self._observers: tuple[tuple[Callable[[T], object], object], ...] = ()
        self._blamed: set[int] = set()
        self._lock = threading.RLock()
        self._jobs: deque[Callable[[], object]] = deque()
        self._telling = False

    def watch(self, observer: Callable[[T], object], now: Callable[[], T]) -> Callable[[], None]:
        """Tell `observer` how it is `now`, then everything that is told; returns a function that ends that."""
        entry = (observer, object())  # a mark of its own: the same observer may watch twice

        def begin() -> None:
            with self._lock:
                self._observers = (*self._observers, entry)
            self._call(observer, now())

        def end() -> None:
            with self._lock:
                self._observers = tuple(each for each in self._observers if each is not entry)

        self.put(begin)
        self.drain()
        return end

    def tell(self, what: T) -> None:
        """All observers are to be told."""
        self.put(lambda: self._tell(what))

    def put(self, job: Callable[[], object]) -> None:
        """`job` is to be run, after all that was put before."""
        self._jobs.append(job)

    def drain(self) -> None:
        """Run what was put; if another thread (or this one, further up) is at it, that one does."""
        while True:
            with self._lock:
                if self._telling or not self._jobs:
                    return
                self._telling = True
            try:
                while self._jobs:
                    self._jobs.popleft()()
            finally:
                self._telling = False

    def after_fork(self) -> None:
        """In a forked child: what another thread was telling there, it tells in the parent."""
        self._lock = threading.RLock()
        self._jobs.clear()
        self._telling = False

    def _tell(self, what: T) -> None:
        for observer, _ in self._observers:
            self._call(observer, what)

    def _call(self, observer: Callable[[T], object], what: T) -> None:
        try:
            observer(what)
        except BaseException as error:
            if ends_the_program(error):
                raise
            if id(observer) not in self._blamed:
                self._blamed.add(id(observer))
                log.exception("an observer of the connection raised; it is still told, but not reported again")
