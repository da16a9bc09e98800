"""Where a connection stands, why, since when; and who is told when it moves.

It moves along the table in `core.protocols.states`, with the lock held. Observers and events are told in that order,
by `drain`, with no lock held: an observer may do anything, also what makes the connection move again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..core.clock import Clock
from ..core.errors import ChatError, ConnectionFailedError
from ..core.events import Event
from ..core.protocols.states import ConnectionState, move
from ..core.realtime_events import Connected, ConnectionStateChanged, Disconnected
from .attempt import Lost
from .observers import Observers
from .status import status_text

_S = ConnectionState
DOWN = (_S.CLOSED, _S.FAILED)
"""Nobody tries to connect."""


class Standing:
    """`lock` guards it; whoever looks at one attribute only needs none. limit: tries after a loss, None: no end."""

    def __init__(self, clock: Clock, emit: Callable[[Event], object], user: str, limit: int | None) -> None:
        self._clock = clock
        self._emit = emit
        self._user = user
        self._limit = limit
        self._observers: Observers[ConnectionState] = Observers()
        self.connections = 0
        """How often it was connected."""
        self._begin()

    def _begin(self) -> None:
        self.lock = threading.RLock()  # a signal handler may come while its thread is inside
        self.changed = threading.Condition(self.lock)
        self.state = _S.CLOSED
        self.error: ChatError | None = None
        self.attempt = 0
        self._connected_at: float | None = None
        self._retry_at: float | None = None

    def after_fork(self) -> None:
        """In a forked child: CLOSED. Who watches is told what becomes of the child's connection."""
        self._observers.after_fork()
        self._begin()

    # ---- moves, with the lock held

    def connecting(self) -> None:
        """The first try begins."""
        self.attempt = 0
        self._move(_S.CONNECTING)

    def connected(self) -> None:
        """The server has taken us."""
        self.connections += 1
        self.attempt = 0
        self.error = None
        self._connected_at = self._clock.monotonic()
        self._move(_S.CONNECTED)

    def disconnected(self, lost: Lost, attempt: int, retry_at: float) -> None:
        """Lost, or not reached; the `attempt`-th further try comes at that monotonic time."""
        self.attempt, self.error, self._retry_at = attempt, lost.error, retry_at
        self._move(_S.DISCONNECTED, lost)

    def reconnecting(self) -> None:
        """A further try begins."""
        self._move(_S.RECONNECTING)

    def failed(self, lost: Lost) -> None:
        """Given up."""
        self.error = lost.error
        self._move(_S.FAILED, lost)

    def closed(self) -> None:
        """Ended by us."""
        if self.state is not _S.CLOSED:
            self._move(_S.CLOSED)

    def _move(self, new: ConnectionState, lost: Lost | None = None) -> None:
        old, self.state = self.state, move(self.state, new)
        if new is not _S.CONNECTED:
            self._connected_at = None
        if new is not _S.DISCONNECTED:
            self._retry_at = None
        self.changed.notify_all()
        events = self._events(old, new, lost)
        self._observers.tell(new)
        self._observers.put(lambda: [self._emit(event) for event in events])

    def _events(self, old: ConnectionState, new: ConnectionState, lost: Lost | None) -> list[Event]:
        user, reason = self._user, "" if lost is None else lost.error.message
        events: list[Event] = [ConnectionStateChanged(user=user, old=old, new=new, reason=reason, attempt=self.attempt)]
        if new is _S.CONNECTED:
            events.append(Connected(user=user, reconnects=self.reconnects))
        elif old is _S.CONNECTED:
            code = 0 if lost is None else lost.code
            again = new is _S.DISCONNECTED
            events.append(Disconnected(user=user, code=code, reason=reason, reconnecting=again))
        return events

    # ---- telling, without the lock

    def drain(self) -> None:
        """Tell what was not told yet."""
        self._observers.drain()

    def watch(self, observer: Callable[[ConnectionState], object]) -> Callable[[], None]:
        """See `Connection.watch`."""
        return self._observers.watch(observer, lambda: self.state)

    # ---- looking

    @property
    def reconnects(self) -> int:
        """How often it was connected again."""
        return max(0, self.connections - 1)

    @property
    def connected_for(self) -> float:
        """Seconds."""
        connected_at = self._connected_at
        return 0.0 if connected_at is None else self._clock.monotonic() - connected_at

    @property
    def reconnect_in(self) -> float | None:
        """Seconds until the next try, None: none is waited for."""
        retry_at = self._retry_at
        return None if retry_at is None else max(0.0, retry_at - self._clock.monotonic())

    def text(self) -> str:
        """A line for people."""
        with self.lock:
            return status_text(
                self.state,
                connected_for=self.connected_for,
                reconnect_in=self.reconnect_in,
                attempt=self.attempt,
                limit=self._limit,
                reason="" if self.error is None else self.error.message,
            )

    def wait_for(self, wanted: ConnectionState, timeout: float | None) -> bool:
        """Until it stands so, or goes down; whether it stands so. Raises ConnectionFailedError if it is FAILED."""
        with self.lock:
            self.changed.wait_for(lambda: self.state is wanted or self.state in DOWN, timeout)
            if self.state is _S.FAILED:
                raise self._failure()
            return self.state is wanted

    def _failure(self) -> ConnectionFailedError:
        error = self.error
        if error is None:
            return ConnectionFailedError("the connection was given up")
        failure = ConnectionFailedError(error.message, code=error.code, hint=error.hint)
        failure.__cause__ = error
        return failure
