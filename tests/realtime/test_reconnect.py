"""Back-off as values, what a status line says, and in which order observers are told."""

from __future__ import annotations

import threading

import pytest

from chatsdk.core.backoff import RECONNECT_FAST, RECONNECT_PATIENT, RECONNECTS
from chatsdk.core.protocols.states import ConnectionState
from chatsdk.realtime.observers import Observers
from chatsdk.realtime.reconnect import FLAPPING, Losses, Reconnect
from chatsdk.realtime.status import shown_url, status_text
from tests.realtime.peers import LIMIT

S = ConnectionState


def test_forever_is_fast_then_patient() -> None:
    """Ten quick tries, then patient ones without an end."""
    policy = Reconnect()
    assert policy.limit is None
    delays = [policy.delay(number, 1.0) for number in range(1, 40)]
    assert delays[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert delays[10:13] == [1.0, 1.5, 2.25]
    assert delays[-1] == 30.0
    assert policy.delay(10_000, 1.0) == 30.0


@pytest.mark.parametrize("name", ["fast", "patient"])
def test_limits(name: str) -> None:
    """Ten tries, and no eleventh; each wait between half and all of its time."""
    policy = Reconnect(RECONNECTS[name])
    assert policy.limit == 10
    assert policy.delay(11, 0.5) is None
    for number in range(1, 11):
        low, high = policy.delay(number, 0.0), policy.delay(number, 1.0)
        assert low is not None
        assert high is not None
        assert low == pytest.approx(high / 2)


def test_what_the_server_asks() -> None:
    """At least as long as it asks, but never longer than a minute for that."""
    policy = Reconnect((RECONNECT_FAST, RECONNECT_PATIENT))
    assert policy.delay(1, 1.0, 5.0) == 5.0
    assert policy.delay(1, 1.0, 86400.0) == 60.0
    assert policy.delay(1, 1.0, 0.01) == 0.1
    assert policy.delay(21, 1.0, 5.0) is None


def test_failures_add_up_until_a_connection_lived() -> None:
    """Tries that fail count up; a connection that lived starts anew, unless it had to be waited for longer."""
    losses = Losses()
    assert [losses.failed() for _ in range(3)] == [1, 2, 3]
    assert losses.lost(10.0, lived=1.0, waited=0.4, cut=True) == 1
    assert losses.failed() == 2
    assert losses.lost(20.0, lived=1.0, waited=5.0, cut=False) == 3


def test_short_connections() -> None:
    """They are met by quick tries for a minute, quickest if they were cut; then they count like failures."""
    losses = Losses()
    cuts = [losses.lost(float(now), lived=0.1, waited=0.1, cut=True) for now in range(10)]
    assert cuts == [1, *[2] * 9]
    closed = [losses.lost(float(now), lived=0.1, waited=0.1, cut=False) for now in range(10, 15)]
    assert closed == [3] * 5
    late = [losses.lost(FLAPPING + now, lived=0.1, waited=0.1, cut=True) for now in range(3)]
    assert late == [4, 5, 6]
    assert losses.lost(100.0, lived=0.3, waited=0.2, cut=True) == 1
    assert losses.lost(100.0, lived=0.1, waited=0.1, cut=True) == 2


@pytest.mark.parametrize(
    ("state", "facts", "text"),
    [
        (S.CLOSED, {}, "Not connected"),
        (S.CONNECTING, {}, "Connecting..."),
        (S.CONNECTED, {"connected_for": 45.9}, "Connected (45s)"),
        (S.CONNECTED, {"connected_for": 200.0}, "Connected (3m 20s)"),
        (S.CONNECTED, {"connected_for": 7505.0}, "Connected (2h 5m)"),
        (S.DISCONNECTED, {"reconnect_in": 2.1, "attempt": 2, "limit": 10}, "Reconnecting in 3s (attempt 2/10)"),
        (S.DISCONNECTED, {"reconnect_in": 0.0, "attempt": 12}, "Reconnecting in 0s (attempt 12)"),
        (S.RECONNECTING, {"attempt": 2, "limit": 10}, "Reconnecting... (attempt 2/10)"),
        (S.FAILED, {"reason": "shut out"}, "Failed: shut out"),
        (S.FAILED, {}, "Failed"),
    ],
)
def test_status_text(state: ConnectionState, facts: dict[str, float], text: str) -> None:
    """A line for people in each state."""
    assert status_text(state, **facts) == text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://h:1/a/b?token=x#y", "wss://h:1/a/b"),
        ("ws://me:secret@h/", "ws://h/"),
        ("ws://[::1]:2", "ws://[::1]:2"),
        ("", ""),
    ],
)
def test_shown_url(url: str, shown: str) -> None:
    """Without what may be secret."""
    assert shown_url(url) == shown


def test_observers_are_told_in_order_and_without_nesting() -> None:
    """What an observer causes is told after what it was told of, to everybody."""
    observers: Observers[int] = Observers()
    heard: list[tuple[str, int]] = []

    def first(number: int) -> None:
        heard.append(("first", number))
        if number == 1:
            observers.tell(2)
            observers.drain()

    observers.watch(first, lambda: 0)
    observers.watch(lambda number: heard.append(("second", number)), lambda: 0)
    observers.tell(1)
    observers.drain()
    assert heard[2:] == [("first", 1), ("second", 1), ("first", 2), ("second", 2)]


def test_observers_of_many_threads() -> None:
    """Whatever threads tell, everything is told once, and never by two at once."""
    observers: Observers[int] = Observers()
    heard: list[int] = []
    inside = threading.Lock()

    def observe(number: int) -> None:
        assert inside.acquire(blocking=False)
        heard.append(number)
        inside.release()

    observers.watch(observe, lambda: -1)

    def play(start: int) -> None:
        for number in range(start, start + 500):
            observers.tell(number)
            observers.drain()

    threads = [threading.Thread(target=play, args=(each * 500,)) for each in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    observers.drain()
    assert sorted(heard) == [-1, *range(2000)]
