"""The idle probe: while somebody wants to know how the network is, and no traffic says so, ask the server.

Real traffic is the probe; one is sent only `interval` seconds after the last sample and after the last probe, so at
most one in that time, and none while nobody listens. The thread is started by the first who listens and ends with the
last one. What a probe finds comes in as a sample by itself, like that of any other try; here it only happens.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ..core.clock import Clock
from ..resilience.threads import has_ended

log = logging.getLogger("chatsdk.network")


class Prober:
    """`probe`: asks the server, within limits of its own; may raise. `last`: monotonic time of the last sample, or
    None."""

    def __init__(
        self,
        probe: Callable[[], object],
        last: Callable[[], float | None],
        *,
        interval: float,
        clock: Clock,
    ) -> None:
        self._probe = probe
        self._last = last
        self._interval = interval
        self._clock = clock
        self._blamed = False
        self._probed: float | None = None
        self._hurried = False
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._wanted = False

    def after_fork(self) -> None:
        """In a forked child: no thread."""
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread = None
        self._wanted = False

    def start(self) -> None:
        """Somebody listens."""
        with self._lock:
            self._wanted = True
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="chatsdk-network-probe", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter ends: nobody waits for an answer
                    return
                self._thread = thread

    def stop(self) -> None:
        """Nobody listens. The thread ends, at the latest after the probe under way."""
        with self._lock:
            self._wanted = False
            self._wake.set()

    def hurry(self) -> None:
        """Something happened to the network: probe now, if anybody listens."""
        with self._lock:
            self._hurried = True
            self._wake.set()

    def join(self, timeout: float) -> bool:
        """Wait until the thread has ended, at most `timeout` seconds; True if it has."""
        return has_ended(self._thread, timeout)

    @property
    def alive(self) -> bool:
        """Whether there is a thread."""
        return self._thread is not None

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._thread = None
                    return
                self._wake.clear()
                left = 0.0 if self._hurried else self._left()
                if left <= 0:
                    self._hurried = False
            if left > 0:
                self._clock.wait(self._wake, left)
                continue
            self._probed = self._clock.monotonic()
            try:
                self._probe()
            except Exception as error:
                if not self._blamed:  # that of a lost network comes as a sample; a broken probe should be seen once
                    self._blamed = True
                    log.debug("the probe failed: %s", type(error).__name__)

    def _left(self) -> float:
        """Seconds until a probe is due."""
        times = [at for at in (self._last(), self._probed) if at is not None]
        return max(times) + self._interval - self._clock.monotonic() if times else 0.0
