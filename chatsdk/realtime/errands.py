"""Threads for what may block: a token, a page of history. Never the thread that reads, never those of the handlers.

Rules.
1. There are two lines, each with threads of its own: `quick` for what the connection itself waits for, so that its
   token does not stand behind those of a hundred subscriptions; and one for all else.
2. Each errand ends in exactly one call: `answered` with what it returned, or `failed` with what it raised. Both run in
   the errand's thread and should be quick: they post the answer to where it belongs.
3. Nothing is stopped by force. `close` forgets what waits, and what a running errand brings later is ignored.
4. Threads are started when they are needed and end after LINGER seconds without work. A forked child begins without
   any, and without what waited: found out by pid.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic  # threads run in real time, whatever clock is injected
from typing import TypeVar

from ..resilience.per_process import PerProcess

T = TypeVar("T")

WORKERS = 2
"""Threads for what is not quick; as many again for what is."""

LINGER = 5.0
"""Seconds until a thread without work ends: longer than the pause between two paced subscription tokens (1 s)."""

log = logging.getLogger("chatsdk.realtime")

_Errand = Callable[["_Here"], None]


class _Line:
    """What waits for one kind of thread."""

    def __init__(self, lock: threading.Lock) -> None:
        self.to_work = threading.Condition(lock)
        self.waiting: deque[_Errand] = deque()
        self.threads: set[threading.Thread] = set()
        self.idle = 0


class _Here:
    """The threads of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ended = threading.Condition(self.lock)
        self.quick = _Line(self.lock)
        self.other = _Line(self.lock)
        self.running = 0
        self.started = 0
        self.closing = False


class Errands:
    """`run(work, answered, failed)`: at most `workers` at once of each kind."""

    def __init__(self, workers: int = WORKERS, *, linger: float = LINGER) -> None:
        self._workers = workers
        self._linger = linger
        self._process: PerProcess[_Here] = PerProcess(self._make)
        self._closed = False

    def run(
        self,
        work: Callable[[], T],
        answered: Callable[[T], object],
        failed: Callable[[BaseException], object],
        *,
        quick: bool = False,
    ) -> bool:
        """Have `work()` done in a thread, now or when one is free. False: it never will be, for this is closed or the
        interpreter ends."""

        def errand(here: _Here) -> None:
            try:
                result = work()
            except BaseException as error:
                if not here.closing:
                    failed(error)
            else:
                if not here.closing:
                    answered(result)

        here = self._process.get()
        with here.lock:
            if here.closing:
                return False
            line = here.quick if quick else here.other
            line.waiting.append(errand)
            if line.idle >= len(line.waiting):
                line.to_work.notify()
            elif len(line.threads) < self._workers and not self._start(here, line) and not line.threads:
                line.waiting.pop()
                return False
            return True

    @property
    def threads(self) -> int:
        """How many threads there are."""
        here = self._process.get()
        return len(here.quick.threads) + len(here.other.threads)

    def close(self, timeout: float) -> bool:
        """Forget what waits, and wait at most `timeout` seconds for what runs; True if nothing does any more. An errand
        may call this: it does not wait for itself."""
        end = monotonic() + timeout
        self._closed = True
        here = self._process.known()
        if here is None:
            return True
        me = threading.current_thread()
        with here.lock:
            here.closing = True
            for line in (here.quick, here.other):
                line.waiting.clear()
                line.to_work.notify_all()
            own = 1 if me in here.quick.threads or me in here.other.threads else 0
            return here.ended.wait_for(lambda: here.running <= own, max(0.0, end - monotonic()))

    # ---- the threads

    def _start(self, here: _Here, line: _Line) -> bool:
        """With the lock held: one more thread, unless the interpreter ends."""
        here.started += 1
        name = f"chatsdk-realtime-errand-{here.started}"
        thread = threading.Thread(target=self._run, args=(here, line), name=name, daemon=True)
        line.threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # or the system has no thread left
            line.threads.discard(thread)
            log.debug("no thread could be started: %s", error)
            return False
        return True

    def _run(self, here: _Here, line: _Line) -> None:
        while (errand := self._take(here, line)) is not None:
            try:
                errand(here)
            except BaseException as error:  # of `answered` or `failed`: those behind it are served all the same
                log.error("an errand's answer was not taken: %s", type(error).__name__, exc_info=error)
            with here.lock:
                here.running -= 1
                here.ended.notify_all()

    def _take(self, here: _Here, line: _Line) -> _Errand | None:
        """The next errand; None: end this thread."""
        with here.lock:
            end = monotonic() + self._linger
            while not line.waiting and not here.closing:
                pause = end - monotonic()
                if pause <= 0.0:
                    break
                line.idle += 1
                line.to_work.wait(pause)
                line.idle -= 1
            if line.waiting and not here.closing:
                here.running += 1
                return line.waiting.popleft()
            line.threads.discard(threading.current_thread())
            return None

    # ---- the process

    def _make(self) -> _Here:
        here = _Here()
        here.closing = self._closed
        return here
