"""Asking for a server that was away: one lane at a time, in place of all that are due.

Theory. When the circuit opens, every lane that comes to it is refused and parked, so that each says why it waits. Once
its time is over all of them are due at the same moment, and the circuit lets one through: without this, a thread would
wake for each of the others, claim it, have it refused and write that down, for every probe of an outage.

    well     nobody is held back
    away     the circuit is open: lanes are claimed, refused and parked, each once
    probing  its time was over and has not closed it: one lane is claimed while no other is served; if it opens again,
             none is, until its time is over

One that is served for long (a handler that blocks, say) holds the others back for `PATIENCE` and no longer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

WELL, AWAY, PROBING = range(3)

LOOK = 1.0
"""Seconds until it is looked again whether a probe under way has ended; who made it goes on by himself."""


PATIENCE = 10.0
"""Seconds: a try's time by default."""


class Probing:
    """circuit_open: seconds until the circuit lets a call through, 0 if it is not open; busy: a lane is served.
    Thread-safe: two threads that ask at once may both be let through, which the circuit then sorts out. A look at the
    circuit and what follows from it are one step: else one from before `over` could begin anew what has just ended, and
    nobody would say again that it is over."""

    def __init__(
        self, circuit_open: Callable[[], float], busy: Callable[[], bool], monotonic: Callable[[], float]
    ) -> None:
        self._circuit_open = circuit_open
        self._busy = busy
        self._monotonic = monotonic
        self._lock = threading.RLock()  # a signal's handler may call `over`
        self._step = WELL
        self._waits_since: float | None = None

    def wait(self) -> float:
        """Seconds until a lane may be claimed; 0: now."""
        with self._lock:
            return self._wait()

    def over(self) -> None:
        """The circuit closed, or something else happened for which all lanes are to be tried."""
        with self._lock:
            self._step = WELL

    def _wait(self) -> float:
        opens = self._circuit_open()
        if opens > 0:
            if self._step == PROBING:
                return opens
            self._step = AWAY
        elif self._step != WELL:
            self._step = PROBING
            if not self._busy():
                self._waits_since = None
                return 0.0
            now, since = self._monotonic(), self._waits_since
            if since is None:
                since = self._waits_since = now
            if now - since < PATIENCE:
                return LOOK
        return 0.0
