"""The threads in which tokens are renewed: a few for all users of a client, however many users there are.

Rules.
1. A renewal that finds all threads at work waits for its turn: those that somebody waits for first, then those of
   tokens that are still good, each in the order of asking. So a thousand tokens that come due together cost a few
   threads, and nobody's first token waits behind them.
2. A renewal ends in time, but for a `token_provider` that hangs. One that is late does not count any more, and another
   thread may be started in its place, for a few of them: so a provider that hangs for one user stops nobody else.
3. Threads are started when they are needed and end when nothing waits. A forked child begins without any, by pid.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic  # threads run in real time, whatever clock is injected

LIMIT = 6
"""Threads at most: a refresh or a provider takes about one exchange with a server, so six do dozens a second."""

LATE = 15.0
"""Seconds after which a renewal does not count any more; a refresh has `timeout`, 10 s."""

LATE_LIMIT = 10
"""So many that are late are replaced, and no more."""

log = logging.getLogger("chatsdk.auth")


class _Here:
    """Those of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.urgent: deque[Callable[[], None]] = deque()
        self.others: deque[Callable[[], None]] = deque()
        self.began: dict[threading.Thread, float] = {}  # when each thread began what it does

    def next(self) -> Callable[[], None] | None:
        waiting = self.urgent or self.others
        return waiting.popleft() if waiting else None


class RenewalThreads:
    """Runs renewals, at most `limit` at once but for those that took longer than `late` seconds."""

    def __init__(self, limit: int = LIMIT, late: float = LATE) -> None:
        self._limit = limit
        self._late = late
        self._processes: dict[int, _Here] = {}

    def run(self, renewal: Callable[[], None], *, urgent: bool) -> bool:
        """Have it run in a thread, now or when one is free; `urgent`: somebody waits for it. False if there can be no
        thread: run it yourself."""
        here = self._processes.get(os.getpid()) or self._processes.setdefault(os.getpid(), _Here())
        with here.lock:
            queue = here.urgent if urgent else here.others
            queue.append(renewal)
            if self._full(here):
                return True
            thread = threading.Thread(target=_work, args=(here,), name="chatsdk-token-renewal", daemon=True)
            here.began[thread] = monotonic()
            try:
                thread.start()
            except RuntimeError:  # no thread is started while the interpreter ends
                del here.began[thread]
                queue.pop()
                return False
            return True

    def _full(self, here: _Here) -> bool:
        now = monotonic()
        in_time = sum(now - began < self._late for began in here.began.values())
        return in_time >= self._limit or len(here.began) >= self._limit + LATE_LIMIT


def _work(here: _Here) -> None:
    me = threading.current_thread()
    while True:
        with here.lock:
            renewal = here.next()
            if renewal is None:
                del here.began[me]
                return
            here.began[me] = monotonic()
        try:
            renewal()
        except BaseException as error:  # a provider's SystemExit must not stop those that wait behind it
            log.warning("a renewal was interrupted: %s", type(error).__name__)
