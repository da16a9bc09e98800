"""Two ways to stay with a connection: a loop over events, and `run_forever`.

An event that a realtime connection brought counts as handled when its handler returns; only then its place is stored,
so that a crash repeats it and never skips it. A loop keeps that promise: the handler behind it returns when the loop
comes for the next event. It holds up its own channel meanwhile, not the connection.

`run_forever` waits for whatever ends it: a signal, `close()`, a connection that is given up. Signals are touched in the
main thread only, and put back afterwards.
"""

from __future__ import annotations

import signal
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..core.errors import ConnectionFailedError
from ..core.events import Event
from ..core.protocols.states import ConnectionState
from ..resilience.deadline import clamp, is_over

if TYPE_CHECKING:
    from ..realtime.realtime import Realtime

E = TypeVar("E", bound=Event)

MAX_WAITING = 1000
"""Events of the client itself that a loop may be behind; older ones are forgotten. What a connection brought is never
forgotten: it waits in its channel."""


class _Waiting:
    """An event, and whether the loop is done with it."""

    __slots__ = ("done", "event")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.done = False


class _Mailbox:
    """Between the threads that bring events and the one that loops over them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[_Waiting] = deque()
        self._current: _Waiting | None = None
        self._closed = False

    def bring(self, event: Event) -> None:
        """Put an event in; what a connection brought is waited for until the loop is done with it."""
        from ..core.realtime_events import RealtimeEvent

        entry = _Waiting(event)
        with self._changed:
            if self._closed:
                return
            self._waiting.append(entry)
            self._changed.notify_all()
            if isinstance(event, RealtimeEvent):
                self._changed.wait_for(lambda: entry.done or self._closed)
            elif len(self._waiting) > MAX_WAITING:
                self._forget_oldest()

    def take(self, timeout: float | None) -> Event | None:
        """The next event; None after `timeout` seconds, or when it is over. The last one is done with."""
        with self._changed:
            self._end_current()
            self._changed.wait_for(lambda: self._waiting or self._closed, timeout)
            if self._closed or not self._waiting:
                return None
            self._current = self._waiting.popleft()
            return self._current.event

    def done(self) -> None:
        """The last one is done with, and no other is asked for."""
        with self._changed:
            self._end_current()

    def close(self) -> None:
        """Let everybody go."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()

    def after_fork(self) -> None:
        """In a forked child: what waits is the parent's, and so may be who holds the lock."""
        self._changed = threading.Condition()
        self._waiting = deque()
        self._current = None

    def _end_current(self) -> None:
        if self._current is not None:
            self._current.done = True
            self._current = None
            self._changed.notify_all()

    def _forget_oldest(self) -> None:
        from ..core.realtime_events import RealtimeEvent

        for entry in self._waiting:
            if not isinstance(entry.event, RealtimeEvent):
                self._waiting.remove(entry)
                return


class EventStream(Generic[E]):
    """A loop over events: `for event in chat.events(): ...`. It hears from the moment it is made until `close()`, the
    end of its `with`, or nobody holds it any more. It is for one thread."""

    def __init__(
        self, subscribe: Callable[[Callable[[Event], None]], Callable[[], None]], timeout: float | None
    ) -> None:
        mailbox = _Mailbox()
        unsubscribe = subscribe(mailbox.bring)

        def end() -> None:
            unsubscribe()
            mailbox.close()

        self._mailbox = mailbox
        self._timeout = timeout
        self._end = weakref.finalize(self, end)
        self._end.atexit = False

    def __iter__(self) -> Iterator[E]:
        return self

    def __next__(self) -> E:
        if is_over():
            self._mailbox.done()
            raise StopIteration
        event = self._mailbox.take(clamp(self._timeout))
        if event is None:
            raise StopIteration
        return event  # type: ignore[return-value]  # it is subscribed to events of that class

    def close(self) -> None:
        """Stop hearing. What the loop was given last counts as handled by then or not at all."""
        self._end()

    def after_fork(self) -> None:
        """In a forked child: begin with nothing."""
        self._mailbox.after_fork()

    def __enter__(self) -> EventStream[E]:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Ending:
    """What ends `run_forever`: the first of several things that may happen, in any thread."""

    def __init__(self) -> None:
        self._happened = threading.Event()
        self._error: BaseException | None = None

    def end(self, error: BaseException | None = None) -> None:
        """End it; with an error, by raising that."""
        if not self._happened.is_set():
            self._error = error
            self._happened.set()

    @property
    def over(self) -> bool:
        """It has ended."""
        return self._happened.is_set()

    def wait(self, timeout: float | None = None) -> None:
        """Until it ends, at most `timeout` seconds. Raises what ended it."""
        self._happened.wait(timeout)
        if self._error is not None:
            raise self._error


def end_with(realtime: Realtime, state: ConnectionState, ending: Ending) -> None:
    """End it where a connection ends: politely if it was told to, with its error if it was given up."""
    if state is ConnectionState.CLOSED:
        ending.end()
    elif state is ConnectionState.FAILED:
        try:
            realtime.connection.wait_connected(0.0)
        except ConnectionFailedError as error:
            ending.end(error)


SIGNALS: Sequence[signal.Signals] = (signal.SIGINT, signal.SIGTERM)
"""What ends a bot politely: Ctrl-C, and what service managers send."""


class PoliteSignals:
    """A context in which the first SIGINT or SIGTERM calls `stop`, and a second one does what it did before. Does
    nothing outside of the main thread, and leaves alone a signal that is ignored."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)

    def __exit__(self, *exc: object) -> None:
        self._put_back()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._put_back()
        self._stop()

    def _put_back(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            # None: it was not set from Python, and only "as the system has it" can be put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
