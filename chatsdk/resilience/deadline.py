"""A deadline: one moment for a whole piece of work, handed down instead of a time-out for each of its steps.

`bounded` opens a stretch of code (`with chat.deadline(2.0): ...`) in which nothing of ours waits beyond that moment.
Whoever waits for something asks `clamp` how long, or `current` for the moment itself.

Rules.
1. Of nested ones the earliest counts: an inner one can only make the time shorter.
2. It belongs to the context (contextvars), whichever client is used. `asyncio.to_thread` takes it along; a thread that
   is started inside does not have it. Threads of our own, by their name, never have one, though a Python that hands
   contexts to new threads is asked: what they do is done for many.
3. It bounds waiting. What was begun and must not be left half done (a commit, an fsync, code of the user's) is not cut.
4. Where nothing is left, nothing is begun: `nothing_sent` is the error.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, overload

from ..core.clock import Clock
from ..core.errors import ConnectTimeoutError
from ..core.record import Record, record

OURS = "chatsdk-"
"""What the names of the SDK's own threads begin with."""


@record(frozen=True, slots=True)
class Deadline(Record):
    """`at`: monotonic time in seconds at which the caller stops waiting, or None for never."""

    at: float | None
    clock: Clock

    @classmethod
    def after(cls, seconds: float | None, clock: Clock) -> Deadline:
        """The deadline `seconds` from now; None: never."""
        return cls(None if seconds is None else clock.monotonic() + seconds, clock)

    def remaining(self) -> float:
        """Seconds that are left: 0 when none are, infinity without a deadline."""
        if self.at is None:
            return float("inf")
        return max(0.0, self.at - self.clock.monotonic())

    @property
    def expired(self) -> bool:
        """True when nothing is left."""
        return self.remaining() <= 0

    def clamp(self, seconds: float) -> float:
        """`seconds`, or what is left if that is less."""
        return min(seconds, self.remaining())


class _Scope(NamedTuple):
    deadline: Deadline
    thread: int  # where it was opened


_scope: ContextVar[_Scope | None] = ContextVar("chatsdk_deadline", default=None)


@contextmanager
def bounded(seconds: float, clock: Clock) -> Iterator[Deadline]:
    """All that runs inside ends at most `seconds` from now. Yields the deadline that counts there."""
    before, outer = _scope.get(), current()
    if outer is not None and outer.remaining() <= seconds:
        deadline = outer
    else:
        deadline = Deadline.after(seconds, clock)
    _scope.set(_Scope(deadline, threading.get_ident()))
    try:
        yield deadline
    finally:
        _scope.set(before)  # not by a token: a generator may be closed in another context than it was begun in


def current() -> Deadline | None:
    """The deadline of the caller, if there is one."""
    scope = _scope.get()
    if scope is None:
        return None
    if scope.thread != threading.get_ident() and threading.current_thread().name.startswith(OURS):
        return None
    return scope.deadline


@overload
def clamp(seconds: float) -> float: ...
@overload
def clamp(seconds: float | None) -> float | None: ...
def clamp(seconds: float | None) -> float | None:
    """`seconds` (None: for ever), or what is left to the caller if that is less."""
    deadline = current()
    if deadline is None:
        return seconds
    return deadline.remaining() if seconds is None else deadline.clamp(seconds)


def is_over() -> bool:
    """The caller has a deadline, and nothing is left of it."""
    deadline = current()
    return deadline is not None and deadline.expired


def nothing_sent(request_id: str | None = None) -> ConnectTimeoutError:
    """The error for what was not begun because nothing was left."""
    return ConnectTimeoutError(
        "the deadline passed before anything was sent",
        code="deadline",
        hint="allow more time (chat.deadline, timeout); trying again is safe",
        request_id=request_id,
    )
