"""What of an outbox belongs to one process, and is left behind by a fork: worker, threads, waiters."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import monotonic  # threads wait in real time, whatever clock is injected

from ..core.clock import Clock
from ..core.store import Lane, Row, State
from . import forks
from .calls import UNBOUND, Bound
from .probing import Probing
from .threads import Threads
from .waiters import Waiters
from .wake import WakeFile
from .worker import Worker


class Process:
    """Delivery in this process. `make_worker(on_fate=, on_wait=)` makes its worker; `wake_file`: how it and others wake
    each other; `circuit_open`: see `Probing`."""

    def __init__(
        self,
        make_worker: Callable[..., Worker],
        clock: Clock,
        wake_file: WakeFile,
        circuit_open: Callable[[], float],
        *,
        limit: int,
        poll: float,
    ) -> None:
        self._clock = clock
        self._wake_file = wake_file
        self._moved = threading.Condition()
        self._by_threads: set[Lane] = set()
        self.closing = threading.Event()
        self.waiters = Waiters()
        self.sent = self.dead = 0
        self.worker = make_worker(on_fate=self._on_fate, on_wait=self._on_wait)
        self.probing = Probing(circuit_open, lambda: self.worker.busy, clock.monotonic)
        self.threads = Threads(self._turn, self._delay, limit=limit, poll=poll, idle=self.listen)

    # ---- delivering

    def serve(self, *, only: Lane | None = None, bound: Bound = UNBOUND) -> bool:
        """Serve one lane in the calling thread; False if none was due."""
        try:
            return self.worker.serve(self._clock.time(), only=only, bound=bound) is not None
        finally:
            self._tell()

    def put(self, lane: Lane) -> None:
        """Something was put into a lane: have a thread look, unless one is at it, which will see it anyway."""
        if not self.delivers(lane):
            self.threads.notify()

    def delivers(self, lane: Lane) -> bool:
        """A thread of ours is at this lane."""
        return lane in self._by_threads

    def wait_for_move(self, seconds: float) -> None:
        """Until a row met its fate, a lane was parked or left, or `seconds` passed."""
        with self._moved:
            self._moved.wait(seconds)

    def listen(self) -> None:
        """Have the threads look when another process put something. A short process never comes to that: the threads
        call it once they had nothing to do for a while."""
        if not self.closing.is_set() and not forks.is_bare_master():
            self._wake_file.listen(self.threads.notify_all)

    def waiting(self) -> AbstractContextManager[None]:
        """While inside, those who wait here look when another process has delivered something."""
        return nullcontext() if forks.is_bare_master() else self._wake_file.waiting(self.waiters.look)

    def close(self, timeout: float) -> bool:
        """See `Outbox.close`."""
        end = monotonic() + timeout
        self.closing.set()
        self.worker.stop()
        self.waiters.look()
        self.threads.stop(timeout)
        self._wake_file.leave(self.threads.notify_all, max(0.0, end - monotonic()))  # now nobody comes back to listen
        with self._moved:
            idle = self._moved.wait_for(lambda: not self.worker.busy, max(0.0, end - monotonic()))
        self.worker.abandon()
        self.waiters.look()
        return idle

    # ---- what the threads do

    def _turn(self) -> bool:
        if self.probing.wait():
            return False
        lane = None
        try:
            lane = self.worker.serve(self._clock.time(), claimed=self._claimed)
        finally:
            if lane is not None:
                # from here on a put has to say so; what came before is seen by this thread's next look
                self._by_threads.discard(lane)
                self._tell()
        return lane is not None

    def _claimed(self, lane: Lane) -> None:
        self._by_threads.add(lane)
        self.threads.cover()

    def _delay(self) -> float | None:
        now = self._clock.time()
        due = self.worker.next_due(now)
        return None if due is None else max(due - now, self.probing.wait())

    # ---- what the worker tells

    def _on_fate(self, row: Row) -> None:
        with self._moved:
            if row.state is State.SENT:
                self.sent += 1
            else:
                self.dead += 1
            self._moved.notify_all()
        self.waiters.ended(row)
        self._wake_file.result()

    def _on_wait(self, lane: Lane) -> None:
        self.waiters.look(lane)
        self.threads.due_sooner()
        self._tell()

    def _tell(self) -> None:
        with self._moved:
            self._moved.notify_all()
