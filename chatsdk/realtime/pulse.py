"""How an open connection tells of the network: its protocol's heartbeats, and pings of our own while somebody watches.

Rules.
1. A heartbeat is a sample: the answer to a ping has a latency; a ping of the server is contact, as is its taking us;
   one that did not come is a lost try.
2. Who watches the network wants to know within seconds. So while somebody does and nothing came for INTERVAL seconds a
   ping frame is sent, which any WebSocket peer answers (RFC 6455, 5.5.2): the monitor then has no need of a request
   over HTTP. Nobody watches: no ping, no wake-up.
3. A try that finds no connection is a lost one, where the chat server has the same address; else it says nothing of
   that server.
4. A ping that is not answered within TIMEOUT is a lost try, no more. Whether the connection is alive is the protocol's
   business, by its own heartbeat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

INTERVAL = 8.0
"""Seconds after the last sign of the network; less than the 10 s after which the monitor would ask over HTTP."""

TIMEOUT = 5.0
"""Seconds that an answer may take, as with the monitor's own probe."""


class Sample(Protocol):
    """`network.monitor.NetworkMonitor.sample`."""

    def __call__(self, latency: float | None, ok: bool = True) -> object: ...


def _nobody() -> bool:
    return False


def _nothing(latency: float | None, ok: bool = True) -> None:
    """For connections whose heartbeats nobody wants."""


class Pulse:
    """Of one connection; `begin` for each socket. Belongs to the reader thread.

    sample    told of every heartbeat
    watched   whether anybody watches the network
    same      the chat server has the same address as the realtime server
    interval  see above
    """

    def __init__(
        self,
        sample: Sample = _nothing,
        watched: Callable[[], bool] = _nobody,
        *,
        same: bool = False,
        interval: float = INTERVAL,
    ) -> None:
        self.sample = sample
        self._same = same
        self._interval = interval
        self._watched = watched
        self._sign = 0.0
        self._asked: float | None = None
        self._number = 0

    def unreached(self) -> None:
        """There was no way to the server."""
        if self._same:
            self.sample(None, False)

    def begin(self, now: float) -> None:
        """The connection is open."""
        self._sign, self._asked = now, None
        self.sample(None)

    def beat(self, latency: float | None, ok: bool, now: float) -> None:
        """A heartbeat of the protocol."""
        self._sign = now
        self.sample(latency, ok)

    def next_due(self) -> float | None:
        """When to call `due`, at the latest; None: nobody watches."""
        if self._asked is not None:
            return self._asked + TIMEOUT
        return self._sign + self._interval if self._watched() else None

    def due(self, now: float) -> bytes | None:
        """What to send as a ping, if that is due."""
        if self._asked is not None:
            if now >= self._asked + TIMEOUT:
                self._asked, self._sign = None, now
                self.sample(None, False)
            return None
        if now < self._sign + self._interval or not self._watched():
            return None
        self._asked = now
        self._number += 1
        return str(self._number).encode()

    def pong(self, data: bytes, now: float) -> None:
        """A pong came, perhaps the answer to a ping of ours."""
        if self._asked is not None and data == str(self._number).encode():
            asked, self._asked, self._sign = self._asked, None, now
            self.sample(max(0.0, now - asked))
