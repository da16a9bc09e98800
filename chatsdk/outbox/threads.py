"""The threads that deliver in the background.

Theory. A thread is in one of three states. *Working*: it serves a lane. *Watching*: it waits for the next lane that
comes due, and looks once a second for what other processes have put. *Spare*: it has nothing to do, and ends after a
while. There is always one watcher, unless all threads work: a watcher that finds a lane calls in a spare thread, or
starts one, to watch in its place. So a lane that hangs never delays another, and a process with one lane has two
threads.

Rules.
1. No thread is started before it is needed, none when closing, and none at interpreter exit (Python refuses; then the
   main thread delivers by itself).
2. `notify` is never lost: it counts, and a thread waits only if the count is what it was before it looked.
3. A thread never dies of an exception.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from time import monotonic  # threads wait in real time, whatever clock is injected

LINGER = 5.0
"""Seconds until a spare thread ends."""

POLL = 1.0
"""Seconds between two looks for what other processes have put, where nobody tells us."""

logger = logging.getLogger("chatsdk.outbox")


def _nothing() -> None:
    """Nobody wants to know."""


class Threads:
    """Up to `limit` threads that call `serve` while it finds work.

    serve   serve one lane; False if none was due
    delay   seconds until `serve` is worth while again, None: nothing waits
    poll    how long to wait at most, even so
    idle    called when the watcher waited that long in vain
    """

    def __init__(
        self,
        serve: Callable[[], bool],
        delay: Callable[[], float | None],
        *,
        limit: int = 8,
        poll: float = POLL,
        linger: float = LINGER,
        idle: Callable[[], None] = _nothing,
    ) -> None:
        self._serve = serve
        self._delay = delay
        self._limit = limit
        self._poll = poll
        self._linger = linger
        self._idle = idle
        self._lock = threading.Lock()
        self._to_watcher = threading.Condition(self._lock)
        self._to_spare = threading.Condition(self._lock)
        self._threads: set[threading.Thread] = set()
        self._spare = 0
        self._called = 0  # spare threads that were told to work and have not woken yet
        self._watching = False
        self._closing = threading.Event()
        self._news = 0
        self._started = 0

    # ---- from outside

    def notify(self) -> None:
        """A lane may be due: have a thread look."""
        with self._lock:
            self._news += 1
            if not self._call_spare():
                if self._watching:
                    self._to_watcher.notify()
                else:
                    self._start()

    def notify_all(self) -> None:
        """Many lanes may be due: have all threads look that are needed (each that finds one covers itself)."""
        with self._lock:
            self._news += 1
            if self._watching:
                self._to_watcher.notify()
            elif not self._call_spare():
                self._start()

    def cover(self) -> None:
        """Called by a thread that goes to work: see to it that somebody watches."""
        with self._lock:
            if not self._watching and not self._call_spare():
                self._start()

    def due_sooner(self) -> None:
        """Called when a lane was parked: the watcher's next time may be too late."""
        with self._lock:
            if self._watching:
                self._to_watcher.notify()

    @property
    def alive(self) -> int:
        """How many threads there are."""
        return len(self._threads)

    def stop(self, timeout: float) -> bool:
        """No thread takes new work; wait for those at work, at most `timeout` seconds. True if all have ended."""
        end = monotonic() + timeout
        with self._lock:
            self._closing.set()
            self._to_watcher.notify_all()
            self._to_spare.notify_all()
            threads = list(self._threads)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - monotonic()))
        return not self._threads

    # ---- inside

    def _call_spare(self) -> bool:
        """With the lock held: put a spare thread to work; False if there is none."""
        if self._spare <= self._called:
            return False
        self._called += 1
        self._to_spare.notify()
        return True

    def _start(self) -> None:
        """With the lock held: one more thread, if there may be one."""
        if self._closing.is_set() or len(self._threads) >= self._limit or not threading.main_thread().is_alive():
            return
        self._started += 1
        thread = threading.Thread(target=self._run, name=f"chatsdk-outbox-{self._started}", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # the interpreter is shutting down, or the system has no thread left
            self._threads.discard(thread)
            logger.debug("no thread could be started: %s", error)

    def _run(self) -> None:
        try:
            while self._look():
                pass
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())

    def _look(self) -> bool:
        """Serve what is due, else wait. False: end this thread."""
        try:
            news = self._news
            while not self._closing.is_set() and self._serve():
                news = self._news
            with self._lock:
                if self._closing.is_set():
                    return False
                if self._watching:
                    return self._wait_as_spare()
                self._watching = True
            self._watch(news)
        except BaseException:  # a SystemExit would end this thread only, and delivery with it
            logger.exception("a delivery thread stumbled; it goes on")
            self._closing.wait(self._poll)
        return not self._closing.is_set()

    def _wait_as_spare(self) -> bool:
        """With the lock held: False if there was nothing to do for long."""
        self._spare += 1
        self._to_spare.wait_for(lambda: self._called or self._closing.is_set(), self._linger)
        self._spare -= 1
        if self._called:
            self._called -= 1
            return True
        self._threads.discard(threading.current_thread())  # now, so that one more may be started
        return False

    def _watch(self, news: int) -> None:
        """Until something is due, or news comes."""
        try:
            while True:
                delay = self._delay()
                if delay is not None and delay <= 0:
                    return
                with self._lock:
                    if self._closing.is_set() or news != self._news:
                        return
                    self._to_watcher.wait(self._poll if delay is None else min(delay, self._poll))
                    if self._closing.is_set() or news != self._news:
                        return
                if delay is None or delay >= self._poll:
                    self._idle()
        finally:
            with self._lock:
                self._watching = False
