"""The seeds' scenarios of a connection, with a whole client against a development server: how soon it is back, how a
silent server is found out, what observers see, and what it says of itself meanwhile."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from chatsdk import ChatClient, ConnectionFailedError, events
from chatsdk.core.protocols.states import ConnectionState as S
from chatsdk.devserver.process import DevServer
from tests.journeys.listeners import LIMIT, PROTOCOLS, Listener
from tests.waiting import eventually

RECONNECT_S = 2.0
"""The seeds' limit, from the loss until it is connected again."""

HEARTBEAT_S = 1.0
HEARTBEAT_TIMEOUT_S = 0.5
"""In place of the seeds' 30 s and 10 s."""

SLACK_S = 0.5
"""A busy machine may look late."""

TRIES = 10
"""Of the preset `fast`, and of the seeds."""


@pytest.fixture(scope="module")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServer]:
    data = tmp_path_factory.mktemp("server") / "server.db"
    with DevServer(data, ping_interval=HEARTBEAT_S, pong_timeout=HEARTBEAT_S * 0.8) as server:
        yield server


@pytest.fixture
def server(_server: DevServer) -> Iterator[DevServer]:
    """The server, up and without faults."""
    yield _server
    _server.start()
    _server.clear_faults()


@pytest.fixture
def channel(server: DevServer) -> str:
    return server.channel("alice", "bob")


@pytest.fixture
def alice(server: DevServer, tmp_path: Path) -> Iterator[ChatClient]:
    """Who writes."""
    with closing(ChatClient(server.url, server.tokens["alice"], state_dir=str(tmp_path / "a"), discover=False)) as chat:
        yield chat


@pytest.fixture(params=PROTOCOLS)
def listener(request: pytest.FixtureRequest, server: DevServer, channel: str, tmp_path: Path) -> Iterator[Listener]:
    """Who listens to the channel, by either protocol."""
    settings: dict[str, Any] = {"heartbeat": HEARTBEAT_S, "heartbeat_timeout": HEARTBEAT_TIMEOUT_S}
    with Listener(server, tmp_path / "b", request.param, **settings) as listener:
        yield listener.hear(channel)


CUTS: dict[str, Callable[[DevServer], object]] = {
    "reset": lambda server: server.realtime.cut(),
    "hung up": lambda server: server.realtime.cut(how="fin"),
    "closed": lambda server: server.realtime.cut(code=1012, reason="restart"),
    "garbage": lambda server: server.realtime.garbage(b"\xff" * 20),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_a_lost_connection_is_back_within_two_seconds_and_nothing_was_missed(
    cut: Callable[[DevServer], object], server: DevServer, listener: Listener, alice: ChatClient, channel: str
) -> None:
    """However it was lost: the seeds' states, in less than the seeds' limit; and what was sent meanwhile is heard."""
    began = monotonic()
    cut(server)
    alice.send(channel, "meanwhile", wait=0)
    eventually(lambda: listener.states[-1:] == [S.CONNECTED] and len(listener.states) > 3)
    assert monotonic() - began < RECONNECT_S
    assert listener.states == [S.CLOSED, S.CONNECTING, S.CONNECTED, S.DISCONNECTED, S.RECONNECTING, S.CONNECTED]
    eventually(lambda: listener.texts(channel) == ["meanwhile"])
    assert monotonic() - began < RECONNECT_S
    listener.chat.close()
    assert listener.states[-1] is S.CLOSED


def test_after_a_restart_it_is_back_within_two_seconds(
    server: DevServer, listener: Listener, alice: ChatClient, channel: str
) -> None:
    """From the moment that the server accepts connections again. What was sent while it was down is heard."""
    server.kill()
    eventually(lambda: listener.states[-1] is not S.CONNECTED)
    alice.send(channel, "sent while it was down", wait=0)
    server.start()
    began = monotonic()
    eventually(lambda: listener.states[-1] is S.CONNECTED)
    assert monotonic() - began < RECONNECT_S
    eventually(lambda: listener.texts(channel) == ["sent while it was down"])


def test_a_silent_server_is_found_out_by_the_heartbeat(server: DevServer, listener: Listener, channel: str) -> None:
    """The socket stays open and nothing comes: it is lost after heartbeat and timeout, never later, and no sooner than
    the timeout; then it is back within the limit."""
    assert server.realtime.half_open()
    began = monotonic()
    eventually(lambda: S.DISCONNECTED in listener.states)
    found = monotonic() - began
    assert HEARTBEAT_TIMEOUT_S * 0.9 < found < HEARTBEAT_S + HEARTBEAT_TIMEOUT_S + SLACK_S
    eventually(lambda: listener.states[-1] is S.CONNECTED)
    assert monotonic() - began < found + RECONNECT_S
    assert listener.of(events.Disconnected)[0].reconnecting


def test_a_heartbeat_without_an_answer_is_a_loss(server: DevServer, listener: Listener) -> None:
    """The same where the server lives, but its heartbeat does not."""
    server.realtime.no_pong(for_s=2.5)
    eventually(lambda: S.DISCONNECTED in listener.states)
    eventually(lambda: listener.states[-1] is S.CONNECTED)


def test_a_quiet_connection_that_is_well_stays(server: DevServer, listener: Listener) -> None:
    """For longer than it takes to find out a silent one, nobody says anything: the connection is the same one."""
    began = monotonic()
    eventually(lambda: monotonic() - began > 2 * (HEARTBEAT_S + HEARTBEAT_TIMEOUT_S))
    assert listener.states == [S.CLOSED, S.CONNECTING, S.CONNECTED]
    assert listener.chat.connection.metrics().reconnects == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_after_the_last_try_it_has_failed(protocol: str, server: DevServer, tmp_path: Path) -> None:
    """With a limit of tries: each is shown, then FAILED, which `run_forever` raises; `connect` begins anew."""
    shown: list[tuple[str, float | None]] = []
    with Listener(server, tmp_path, protocol) as bob:
        server.kill()
        connection = bob.chat.connection

        def hurry(state: S) -> None:
            if state is S.DISCONNECTED:
                shown.append((connection.status_text, connection.reconnect_in))
                bob.chat.connect()  # now, in place of after up to 2 s

        connection.watch(hurry)
        with pytest.raises(ConnectionFailedError) as failure:
            bob.chat.run_forever()
        assert bob.states == [S.CLOSED, S.CONNECTING, *[S.DISCONNECTED, S.RECONNECTING] * TRIES, S.FAILED]
        assert failure.value.__cause__ is not None
        for number, (text, seconds) in enumerate(shown, 1):
            assert re.fullmatch(rf"Reconnecting in [0-2]s \(attempt {number}/{TRIES}\)", text)
            assert seconds is not None
            assert 0 <= seconds <= 2.0
        assert connection.status_text.startswith("Failed: ")
        server.start()
        bob.chat.connect()
        eventually(lambda: bob.states[-3:] == [S.FAILED, S.CONNECTING, S.CONNECTED])


def test_what_a_connection_says_of_itself(server: DevServer, listener: Listener, channel: str) -> None:
    """Metrics and status line, along the way of a loss."""
    connection = listener.chat.connection
    url = server.plain_url if listener.protocol == "json" else server.ws_url
    eventually(lambda: connection.metrics().connection_duration_ms > 0)
    first = connection.metrics()
    assert (first.state, first.connected, first.reconnects, first.queued_messages) == (S.CONNECTED, True, 0, 0)
    assert first.url == url, "no token, no query"
    assert re.fullmatch(r"Connected \(\ds\)", connection.status_text)
    server.kill()
    eventually(lambda: connection.state is not S.CONNECTED)
    eventually(lambda: connection.status_text.startswith("Reconnecting in "))
    lost = connection.metrics()
    assert (lost.connected, lost.reconnects, lost.connection_duration_ms) == (False, 0, 0)
    eventually(lambda: "/10)" in connection.status_text and "attempt 1/" not in connection.status_text)
    server.start()
    eventually(lambda: connection.state is S.CONNECTED)
    again = connection.metrics()
    assert (again.connected, again.reconnects, again.url) == (True, 1, url)
    assert again.connection_duration_ms < LIMIT * 1000
    assert connection.reconnect_in is None
    told = [(event.old, event.new) for event in listener.of(events.ConnectionStateChanged)]
    assert told == list(zip(listener.states, listener.states[1:], strict=False))
    assert [event.reconnects for event in listener.of(events.Connected)] == [0, 1]


def test_what_is_said_while_it_is_away_waits(server: DevServer, channel: str, tmp_path: Path) -> None:
    """A typing signal of the plain protocol waits in the transient queue, is counted there, and goes out afterwards."""
    with Listener(server, tmp_path / "b", "json") as bob, Listener(server, tmp_path / "c", user="alice") as alice:
        bob.hear(channel)
        alice.hear(channel)
        server.realtime.refuse(for_s=0.4, user="bob")
        server.realtime.cut("bob")
        eventually(lambda: not bob.chat.connection.connected)
        bob.chat.typing.start(channel)
        eventually(lambda: bob.chat.connection.metrics().queued_messages == 1)
        eventually(lambda: alice.of(events.TypingStarted))
        assert bob.chat.connection.metrics().queued_messages == 0


def test_observers_are_told_at_once_and_until_they_leave(server: DevServer, listener: Listener) -> None:
    """The state when they come; nothing after they went."""
    seen: list[S] = []
    leave = listener.chat.connection.watch(seen.append)
    assert seen == [S.CONNECTED]
    server.realtime.cut()
    eventually(lambda: len(seen) == 4)
    leave()
    listener.chat.close()
    assert seen == [S.CONNECTED, S.DISCONNECTED, S.RECONNECTING, S.CONNECTED]


def test_reconnects_leave_nothing_behind(server: DevServer, listener: Listener) -> None:
    """20 cuts later there is still one thread that reads."""
    reconnects = 0
    while (reconnects := reconnects + 1) <= 20:
        server.realtime.cut()
        eventually(lambda: listener.chat.connection.metrics().reconnects == reconnects)
    readers = [thread for thread in threading.enumerate() if thread.name == "chatsdk-realtime"]
    assert len(readers) == 1
