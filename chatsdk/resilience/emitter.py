"""Who hears which event.

Handlers run in the thread where something happened, one after the other, parents' handlers too: a handler of `Event`
hears everything. One that raises is logged once and isolated; SystemExit and KeyboardInterrupt go on to the caller when
all were told. `emit` takes no lock: the table of handlers is replaced as a whole, never changed, so telling nobody
costs one look-up, and a handler may subscribe and unsubscribe.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..core import events
from ..core.clock import Clock
from ..core.events import Event
from .system_clock import SystemClock

log = logging.getLogger("chatsdk.events")

E = TypeVar("E", bound=Event)
Handler = Callable[[Any], object]


class Emitter:
    """`subscribe` and `emit`. Events without a time get one (`at`, Unix seconds) when somebody listens."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._subscribed: tuple[tuple[type[Event], Handler, object], ...] = ()
        self._by_class: Mapping[type[Event], tuple[Handler, ...]] = {}
        self._blamed: set[int] = set()

    def subscribe(self, event: type[E] | str, handler: Callable[[E], object]) -> Callable[[], None]:
        """Call `handler` with every event of a class (and of those below it), or of a seed name ("message:sent").

        Returns a function that ends that; calling it again does nothing. Raises ValueError for a name that no event
        has.
        """
        cls = _event_class(event)
        entry = (cls, handler, object())  # a mark of its own: the same handler may be subscribed twice
        with self._lock:
            self._set((*self._subscribed, entry))

        def unsubscribe() -> None:
            with self._lock:
                self._set(tuple(other for other in self._subscribed if other is not entry))
                self._blamed.discard(id(handler))

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Tell everybody who listens. Raises nothing that a handler does but SystemExit and KeyboardInterrupt."""
        cls = type(event)
        handlers = self._by_class.get(cls)
        if handlers is None:
            handlers = self._find(cls)
        if not handlers:
            return
        if not event.at:
            event = event.timed(self._clock.time())
        leaving: BaseException | None = None
        for handler in handlers:
            try:
                handler(event)
            except Exception as error:
                self._blame(handler, event, error)
            except BaseException as error:
                leaving = leaving or error
        if leaving is not None:
            raise leaving

    def after_fork(self) -> None:
        """In a forked child: a lock that another thread held there would never be released."""
        self._lock = threading.Lock()

    def _set(self, subscribed: tuple[tuple[type[Event], Handler, object], ...]) -> None:
        self._subscribed = subscribed
        self._by_class = {}  # found again, class by class, when they are next emitted

    def _find(self, cls: type[Event]) -> tuple[Handler, ...]:
        with self._lock:
            handlers = tuple(handler for wanted, handler, _ in self._subscribed if issubclass(cls, wanted))
            self._by_class = {**self._by_class, cls: handlers}
            return handlers

    def _blame(self, handler: Handler, event: Event, error: Exception) -> None:
        if id(handler) in self._blamed:
            return
        self._blamed.add(id(handler))
        name = getattr(handler, "__qualname__", repr(handler))
        log.error(
            "handler %s raised on %s; it is still called, but not reported again",
            name,
            event.NAME,
            exc_info=error,
            extra={"correlation_id": getattr(event, "correlation_id", "")},
        )


def ends_the_program(error: BaseException) -> bool:
    """A listener's SystemExit or KeyboardInterrupt, in the main thread. In any other it would end that thread only, and
    with it what the thread is there for."""
    return not isinstance(error, Exception) and threading.current_thread() is threading.main_thread()


def _event_class(event: object) -> type[Event]:
    if isinstance(event, str):
        try:
            return events.by_name(event)
        except KeyError:
            from difflib import get_close_matches

            near = get_close_matches(event, _names(Event), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"there is no event {event!r}{hint}") from None
    if isinstance(event, type) and issubclass(event, Event):
        return event
    raise ValueError(f"an event's class or name is wanted, not {event!r}")


def _names(cls: type[Event]) -> list[str]:
    return [cls.NAME, *(name for child in cls.__subclasses__() for name in _names(child))]
