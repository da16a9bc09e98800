"""Loops over events, and what ends `run_forever`."""

from __future__ import annotations

import gc
import os
import signal
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from chatsdk.core import events
from chatsdk.core.events import Event
from chatsdk.resilience.emitter import Emitter
from chatsdk.resources.listening import MAX_WAITING, Ending, EventStream, PoliteSignals

LIMIT = 10.0


def stream_of(emitter: Emitter, timeout: float | None = LIMIT, cls: type[Event] = Event) -> EventStream[Any]:
    return EventStream(lambda handler: emitter.subscribe(cls, handler), timeout)


def received(seq: int) -> events.MessageReceived:
    return events.MessageReceived("bob", "c", {}, seq=seq, at=1.0)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_in_order_and_all() -> None:
    """What was brought comes out, in order."""
    emitter = Emitter()
    stream = stream_of(emitter)

    def bring() -> None:
        for seq in range(50):
            emitter.emit(received(seq))

    thread = in_thread(bring)
    assert [next(stream).seq for _ in range(50)] == list(range(50))
    stream.close()
    thread.join(LIMIT)
    assert not thread.is_alive()


def test_handled_when_the_loop_comes_back() -> None:
    """The handler behind the loop returns when the loop asks for the next event, not before: its place is stored
    then."""
    emitter = Emitter()
    stream = stream_of(emitter, timeout=0.05)
    returned = threading.Event()

    def bring() -> None:
        emitter.emit(received(1))
        returned.set()

    thread = in_thread(bring)
    assert next(stream).seq == 1
    assert not returned.is_set()
    assert list(stream) == []
    assert returned.wait(LIMIT)
    thread.join(LIMIT)


def test_ends_after_the_timeout() -> None:
    """Nothing for so many seconds ends the loop; it can be gone on with."""
    emitter = Emitter()
    stream = stream_of(emitter, timeout=0.01)
    assert list(stream) == []
    thread = in_thread(lambda: emitter.emit(received(1)))
    thread.join(0.01)
    stream._timeout = LIMIT
    assert next(stream).seq == 1
    stream.close()
    thread.join(LIMIT)


def test_closing_lets_everybody_go() -> None:
    """Close ends the loop and frees those who wait for it."""
    emitter = Emitter()
    stream = stream_of(emitter, timeout=None)
    thread = in_thread(lambda: emitter.emit(received(1)))
    assert next(stream).seq == 1
    ended: list[object] = []
    looping = in_thread(lambda: ended.extend(stream))
    stream.close()
    stream.close()
    for each in (thread, looping):
        each.join(LIMIT)
        assert not each.is_alive()
    assert ended == []


def test_a_loop_that_nobody_holds() -> None:
    """`break` and forget: the stream unsubscribes by itself, and nobody waits for it."""
    emitter = Emitter()
    stream = stream_of(emitter, timeout=None)
    gone = weakref.ref(stream)
    thread = in_thread(lambda: emitter.emit(received(1)))
    for _ in stream:
        break
    del stream
    gc.collect()
    assert gone() is None
    thread.join(LIMIT)
    assert not thread.is_alive()
    emitter.emit(received(2))  # nobody hears it, nobody waits


def test_the_clients_own_events_do_not_wait() -> None:
    """Only what a connection brought holds up whoever brings it; of the rest the oldest is forgotten."""
    emitter = Emitter()
    stream = stream_of(emitter)
    for number in range(MAX_WAITING + 5):
        emitter.emit(events.Connected(user="bob", reconnects=number))
    assert next(stream).reconnects == 5
    stream.close()


def test_ending_is_told_once() -> None:
    """The first thing that happens counts."""
    ending = Ending()
    ending.end(ValueError("first"))
    ending.end()
    with pytest.raises(ValueError, match="first"):
        ending.wait()


def test_signals_are_polite_and_put_back() -> None:
    """The first SIGTERM stops, and afterwards everything is as it was."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    ending = Ending()
    with PoliteSignals(ending.end):
        assert signal.getsignal(signal.SIGTERM) != before[0]
        os.kill(os.getpid(), signal.SIGTERM)
        ending.wait()
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before  # a second one is rude
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_ignored_signals_stay_ignored() -> None:
    """`nohup` and shells in the background say so, and mean it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with PoliteSignals(lambda: None):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_touch_no_signal() -> None:
    """Python lets only the main thread set them."""
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def elsewhere() -> None:
        with PoliteSignals(lambda: None):
            seen.append(signal.getsignal(signal.SIGTERM))

    in_thread(elsewhere).join(LIMIT)
    assert seen == [before]
