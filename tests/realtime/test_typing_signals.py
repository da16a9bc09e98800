"""Typing signals: few, in order, and never left standing."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from time import monotonic

import pytest

from chatsdk.core.errors import NotSentError
from chatsdk.realtime.typing_signals import MAX_WAITING, REPEAT, TypingSignals
from chatsdk.resilience.system_clock import SystemClock
from chatsdk.testing.clock import FakeClock
from tests.waiting import eventually

LIMIT = 10.0


class Wire:
    """Where signals go; it can be held up."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, bool]] = []
        self.open = threading.Event()
        self.open.set()
        self.error: Exception | None = None

    def __call__(self, user: str, channel: str, typing: bool) -> None:
        assert self.open.wait(LIMIT)
        if self.error is not None:
            raise self.error
        self.sent.append((user, channel, typing))


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.open.set()


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "chatsdk-realtime-typing"]


def test_it_stops_by_itself(wire: Wire) -> None:
    """A program that forgets to say so has stopped typing all the same, and no thread is left."""
    signals = TypingSignals(wire, FakeClock())  # its waits take no time
    signals.start("bob", "c")
    eventually(lambda: len(wire.sent) == 2)
    assert wire.sent == [("bob", "c", True), ("bob", "c", False)]
    eventually(lambda: not threads())
    signals.start("bob", "c")  # a new thread
    eventually(lambda: len(wire.sent) == 4)


def test_not_with_every_key(wire: Wire) -> None:
    """Starting again soon is not told; later it is, because others' views forget."""
    clock = FakeClock()
    clock.wait = lambda event, timeout: event.wait(timeout)  # type: ignore[method-assign]
    signals = TypingSignals(wire, clock)
    for _ in range(20):
        signals.start("bob", "c")
    eventually(lambda: wire.sent)
    clock.advance(REPEAT)
    signals.start("bob", "c")
    eventually(lambda: len(wire.sent) == 2)
    signals.close(LIMIT)
    assert wire.sent == [("bob", "c", True), ("bob", "c", True), ("bob", "c", False)]


def test_stop_is_told_once(wire: Wire) -> None:
    """Who does not type cannot stop."""
    signals = TypingSignals(wire, SystemClock())
    signals.stop("bob", "c")
    signals.start("bob", "c")
    eventually(lambda: wire.sent)
    signals.stop("bob", "c")
    signals.stop("bob", "c")
    signals.close(LIMIT)
    assert wire.sent == [("bob", "c", True), ("bob", "c", False)]
    signals.start("bob", "c")  # closed: nothing
    assert signals.queued == 0


def test_the_oldest_is_dropped(wire: Wire) -> None:
    """A server that does not answer costs a bounded number of signals, and nobody waits for it."""
    wire.open.clear()
    signals = TypingSignals(wire, SystemClock())
    began = monotonic()
    for number in range(MAX_WAITING * 2):
        signals.start("bob", f"c{number}")
    assert monotonic() - began < 1.0
    assert signals.queued <= MAX_WAITING
    assert MAX_WAITING - 1 <= signals.dropped <= MAX_WAITING
    began = monotonic()
    signals.close(0.05)
    assert monotonic() - began < 1.0


@pytest.mark.parametrize("error", [NotSentError("offline"), RuntimeError("a plugin")], ids=["network", "bug"])
def test_failures_are_counted(wire: Wire, error: Exception) -> None:
    """What cannot be sent is dropped; the next one is tried."""
    wire.error = error
    signals = TypingSignals(wire, SystemClock())
    signals.start("bob", "c")
    eventually(lambda: signals.dropped == 1)
    wire.error = None
    signals.close(LIMIT)
    assert wire.sent == [("bob", "c", False)]


def test_a_forked_child_begins_anew(wire: Wire) -> None:
    """The parent's typists are the parent's; the child can type itself."""
    wire.open.clear()
    signals = TypingSignals(wire, SystemClock())
    signals.start("bob", "c")
    with signals._lock:  # the worst moment
        child = os.fork()
        if child == 0:
            wire.open.set()
            signals.start("eve", "c")
            signals.close(LIMIT)
            os._exit(0 if wire.sent[-1:] == [("eve", "c", False)] else 1)
    assert os.waitpid(child, 0)[1] == 0
    wire.open.set()
    signals.close(LIMIT)
    assert wire.sent == [("bob", "c", True), ("bob", "c", False)]
