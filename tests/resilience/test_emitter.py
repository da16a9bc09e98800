"""Who hears which event, and what becomes of a handler that raises."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from chatsdk.core.events import Event, MessageEvent, MessageQueued, MessageSent, RetryScheduled
from chatsdk.resilience.emitter import Emitter
from tests.pipeline.kit import FakeClock


def sent(**facts: Any) -> MessageSent:
    return MessageSent(**{"id": 1, "key": "k", "user": "alice", "channel": "c", "state": "SENT", **facts})


def test_by_class_by_parent_and_by_name() -> None:
    """A handler hears its class and those below it; a seed name is as good as the class."""
    emitter = Emitter()
    heard: list[str] = []

    def note(name: str, event: Event) -> None:
        heard.append(name)

    for name, event in (("all", Event), ("messages", MessageEvent), ("sent", MessageSent), ("queued", MessageQueued)):
        emitter.subscribe(event, partial(note, name))
    emitter.subscribe("message:sent", lambda event: heard.append("by name"))
    emitter.emit(sent())
    assert heard == ["all", "messages", "sent", "by name"]
    heard.clear()
    emitter.emit(RetryScheduled(operation="x", attempt=1, delay=0.1))
    assert heard == ["all"]


def test_event_gets_its_time() -> None:
    """An event without a time is given one; one that has a time keeps it."""
    clock = FakeClock()
    emitter = Emitter(clock)
    heard: list[Event] = []
    emitter.subscribe(Event, heard.append)
    emitter.emit(sent())
    emitter.emit(sent(at=5.0))
    assert [event.at for event in heard] == [clock.time(), 5.0]


def test_unsubscribe() -> None:
    """It ends one subscription, once; the same handler may be subscribed twice."""
    emitter = Emitter()
    heard: list[Event] = []
    first = emitter.subscribe(Event, heard.append)
    emitter.subscribe(Event, heard.append)
    emitter.emit(sent())
    first()
    first()
    emitter.emit(sent())
    assert len(heard) == 3


def test_a_handler_may_subscribe_and_unsubscribe() -> None:
    """The round that is under way goes to who was subscribed when it began."""
    emitter = Emitter()
    heard: list[str] = []

    def again(event: Event) -> None:
        heard.append("again")
        stop()
        emitter.subscribe(Event, lambda event: heard.append("new"))

    stop = emitter.subscribe(Event, again)
    emitter.emit(sent())
    emitter.emit(sent())
    assert heard == ["again", "new"]


def test_raising_handler_is_isolated_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """The others are told, the emitter goes on, and the log holds one record with the traceback."""
    emitter = Emitter()
    heard: list[Event] = []

    def broken(event: Event) -> None:
        raise ValueError("boom")

    emitter.subscribe(MessageSent, broken)
    emitter.subscribe(MessageSent, heard.append)
    emitter.emit(sent())
    emitter.emit(sent())
    assert len(heard) == 2
    assert len(caplog.records) == 1
    assert "broken" in caplog.text
    assert "boom" in caplog.text


@pytest.mark.parametrize("what", ["message:snet", 5, str, None])
def test_unknown_event(what: Any) -> None:
    """A name that no event has is answered with the nearest one."""
    with pytest.raises(ValueError, match="message:sent" if what == "message:snet" else "event"):
        Emitter().subscribe(what, print)


def test_emitting_does_not_wait_for_subscribers() -> None:
    """Nobody who holds the table can hold an event: telling a class that was told before takes no lock."""
    emitter = Emitter()
    heard: list[Event] = []
    emitter.subscribe(Event, heard.append)
    emitter.emit(sent())
    emitter._lock.acquire()
    emitter.emit(sent())
    assert len(heard) == 2
    emitter.after_fork()
    emitter.subscribe(Event, heard.append)


def test_threads() -> None:
    """Subscribing and emitting at once loses nothing of who stays subscribed."""
    emitter = Emitter()
    heard: list[Event] = []
    emitter.subscribe(MessageSent, heard.append)
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            stop: Callable[[], None] = emitter.subscribe(Event, lambda event: None)
            stop()

    thread = threading.Thread(target=churn)
    thread.start()
    for _ in range(500):
        emitter.emit(sent())
    done.set()
    thread.join()
    assert len(heard) == 500
