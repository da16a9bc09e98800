"""Who is told of a change: in a thread of its own, so that a listener that blocks delays no call.

The thread is started when there is something to tell and ends when all is told. An observer that blocks holds up the
others, nothing else; of what it misses, the newest `BACKLOG` are kept. Without threads (one-shot mode, interpreter
exit) whoever caused the change tells it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from ..resilience.emitter import ends_the_program
from ..resilience.threads import has_ended

T = TypeVar("T")

BACKLOG = 100

log = logging.getLogger("chatsdk.network")


class Teller:
    """`put(job)`: have it run soon, after those before it. Never raises. `background` False: run it here and now."""

    def __init__(self, *, background: bool = True) -> None:
        self._background = background
        self._lock = threading.Lock()
        self._jobs: deque[Callable[[], object]] = deque(maxlen=BACKLOG)
        self._thread: threading.Thread | None = None

    def after_fork(self) -> None:
        """In a forked child: no thread, and nothing to tell that the parent tells."""
        self._lock = threading.Lock()
        self._jobs.clear()
        self._thread = None

    def put(self, job: Callable[[], object]) -> None:
        """Run `job`, after all that was put before."""
        if not self._background:
            _run(job)
            return
        with self._lock:
            self._jobs.append(job)
            if self._thread is None:
                self._start()
            if self._thread is not None:
                return
            jobs = list(self._jobs)
            self._jobs.clear()
        for each in jobs:
            _run(each)

    def join(self, timeout: float) -> bool:
        """Wait until all is told, at most `timeout` seconds; True if it is."""
        return has_ended(self._thread, timeout)

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="chatsdk-network-tell", daemon=True)
        with contextlib.suppress(RuntimeError):  # the interpreter ends
            thread.start()
            self._thread = thread

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._thread = None
                    return
                job = self._jobs.popleft()
            _run(job)


def _run(job: Callable[[], object]) -> None:
    try:
        job()
    except BaseException as error:
        if ends_the_program(error):
            raise
        log.exception("telling how the network is failed")


class Observer(Generic[T]):
    """One who watches. It is told by several threads, each thing once and never an older one after a newer one."""

    def __init__(self, function: Callable[[T], object]) -> None:
        self._function = function
        self._lock = threading.RLock()
        self._version = -1
        self._blamed = False
        self.ended = False

    def tell(self, version: int, what: T) -> None:
        """Call it, unless it knows newer things. Raises nothing but a wish to end the program, in the main thread."""
        with self._lock:
            if self.ended or version <= self._version:
                return
            self._version = version
            try:
                self._function(what)
            except BaseException as error:
                if ends_the_program(error):
                    raise
                if not self._blamed:
                    self._blamed = True
                    log.exception("an observer of the network raised; it is still told, but not reported again")

    def after_fork(self) -> None:
        """In a forked child: a lock that another thread held there would never be released."""
        self._lock = threading.RLock()
