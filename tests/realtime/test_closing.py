"""`close()` returns within its limit in every state of a connection, and its thread has ended by then."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chatsdk.core.protocols.outputs import Output, Send
from chatsdk.core.protocols.states import ConnectionState
from chatsdk.core.tokens import Secret
from chatsdk.pipeline import resolver
from chatsdk.realtime.connection import Connection
from chatsdk.realtime.dial import DialSettings
from tests.realtime.peers import (
    LIMIT,
    Peer,
    Server,
    Simple,
    connecting,
    frame,
    header,
    readers,
    serving,
    shake_hands,
    took,
)
from tests.waiting import eventually

AT_ONCE = 0.3
"""Seconds that it may take where there is nobody to say goodbye to; a thread that gets its turn late is not ours."""

GOODBYE = 0.5 + AT_ONCE
"""Seconds where there is: half a second for the answer to our close frame."""

SLOW = DialSettings(connect_timeout=60.0)


def hold(peer: Peer) -> None:
    """Accept and say nothing."""
    peer.hold()


def mute_proxy(peer: Peer) -> None:
    """Hear what is asked, and say nothing."""
    peer.request()
    peer.hold()


def drip(peer: Peer) -> None:
    """Begin to answer the handshake, a byte at a time."""
    peer.request()
    peer.drip(b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"a" * 10_000)


def silent_after_handshake(peer: Peer) -> None:
    """Shake hands, and answer nothing that follows."""
    shake_hands(peer)
    peer.hold()


def middle_of_a_frame(peer: Peer) -> None:
    """Take the client, and stop in the middle of a frame."""
    shake_hands(peer)
    peer.say(frame('{"opened": true}') + header(1000) + b"abc")
    peer.hold()


def deaf(peer: Peer) -> None:
    """Take the client, and never read again."""
    shake_hands(peer)
    peer.say(frame('{"opened": true}'))
    peer.server.stopped.wait(LIMIT)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """No reader thread outlives its connection."""
    yield
    eventually(lambda: not readers())


def closed_within(connection: Connection, limit: float) -> None:
    """It closes in time, and is CLOSED."""
    began = time.monotonic()
    assert connection.close(LIMIT)
    assert time.monotonic() - began < limit
    assert connection.state is ConnectionState.CLOSED
    assert not readers()


def test_never_connected() -> None:
    """A connection that was never used has nothing to end."""
    with connecting(1) as connection:
        closed_within(connection, AT_ONCE)


def test_while_the_name_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lookup can't be ended: its thread is left behind, and the reader thread is not."""
    asked, go = threading.Event(), threading.Event()

    def look_up(host: str, port: int) -> list[Any]:
        asked.set()
        go.wait(LIMIT)
        return []

    monkeypatch.setattr(resolver.Resolver.__init__, "__kwdefaults__", {"threaded": True, "lookup": look_up})
    with connecting(1, url="ws://chat.invalid/ws", dial=SLOW) as connection:
        connection.connect()
        assert asked.wait(LIMIT)
        closed_within(connection, AT_ONCE)
        go.set()


def test_while_tcp_connects() -> None:
    """A server that does not accept (its backlog is full)."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        with connecting(listener.getsockname()[1], dial=SLOW) as connection:
            connection.connect()
            eventually(lambda: connection._run is not None and connection._run.held is not None)
            closed_within(connection, AT_ONCE)


@pytest.mark.parametrize("scheme", ["ws", "wss"], ids=["handshake", "TLS"])
def test_silent_server(scheme: str) -> None:
    """A server that accepts, and then says nothing."""
    with serving(hold) as server, connecting(server.port, scheme=scheme, dial=SLOW, open_timeout=60.0) as connection:
        connection.connect()
        eventually(lambda: server.connections == 1)
        closed_within(connection, AT_ONCE)


def test_silent_proxy() -> None:
    """A proxy that does not answer CONNECT."""
    with serving(mute_proxy) as server:
        dial = DialSettings(connect_timeout=60.0, proxy=Secret(server.url))
        with connecting(1, url="ws://chat.invalid/ws", dial=dial) as connection:
            connection.connect()
            eventually(lambda: server.requests)
            closed_within(connection, AT_ONCE)


def test_dripping_handshake() -> None:
    """A server that answers a byte at a time."""
    with serving(drip) as server, connecting(server.port, open_timeout=60.0) as connection:
        connection.connect()
        eventually(lambda: server.requests)
        closed_within(connection, AT_ONCE)


def test_connect_is_not_answered() -> None:
    """Shaken hands, but the server does not take us."""
    with serving(silent_after_handshake) as server, connecting(server.port, open_timeout=60.0) as connection:
        connection.connect()
        eventually(lambda: server.requests)
        closed_within(connection, GOODBYE)


@pytest.mark.parametrize(("behaviour", "limit"), [(Server(), AT_ONCE), (middle_of_a_frame, GOODBYE), (deaf, GOODBYE)])
def test_connected(behaviour: Callable[[Peer], object], limit: float) -> None:
    """Idle; in the middle of a frame; and with a peer that does not answer the goodbye."""
    with serving(behaviour) as server, connecting(server.port) as connection:
        assert connection.connect(wait=LIMIT)
        closed_within(connection, limit)


def test_goodbye_is_said() -> None:
    """A server that listens hears a close frame with 1000."""
    server = Server()
    with serving(server) as raw, connecting(raw.port) as connection:
        assert connection.connect(wait=LIMIT)
        closed_within(connection, AT_ONCE)
        eventually(lambda: server.codes == [1000])


def test_while_sending_to_a_peer_that_does_not_read() -> None:
    """More than the socket takes is unsent."""
    with serving(deaf) as server, connecting(server.port) as connection:
        assert connection.connect(wait=LIMIT)
        sent = threading.Event()

        def send(protocol: Any, now: float) -> list[Output]:
            sent.set()
            return [Send("x" * 4 * 2**20)]

        connection.post(send)
        assert sent.wait(LIMIT)
        closed_within(connection, GOODBYE)


def test_while_the_next_try_is_waited_for() -> None:
    """In the pause after a failed try."""
    with connecting(1) as connection:
        connection.connect()
        eventually(lambda: connection.state is ConnectionState.DISCONNECTED)
        closed_within(connection, AT_ONCE)


def test_while_a_token_is_waited_for() -> None:
    """The thread that fetches it is left behind, and what it brings is ignored."""
    asked, go = threading.Event(), threading.Event()

    def token(force: bool) -> Secret:
        asked.set()
        go.wait(LIMIT)
        return Secret("t")

    with connecting(1, ws_token=token) as connection:
        connection.connect()
        assert asked.wait(LIMIT)
        closed_within(connection, AT_ONCE)
        go.set()


def test_from_the_listener() -> None:
    """Called on the reader thread it does not wait for that thread, which ends when the listener returns."""
    done: list[tuple[bool, float]] = []

    def listen(outputs: list[Output], now: float) -> None:
        began = time.monotonic()
        ended = connection.close()
        done.append((ended, time.monotonic() - began))

    with serving(Server()) as server, connecting(server.port, listen) as connection:
        connection.connect()
        eventually(lambda: not readers() and done)
    assert done[0][0] is False
    assert done[0][1] < AT_ONCE


def test_from_an_observer() -> None:
    """The same, from whoever watches the state; the last that he hears is CLOSED."""
    seen: list[ConnectionState] = []

    def observe(state: ConnectionState) -> None:
        seen.append(state)
        if state is ConnectionState.CONNECTED:
            connection.disconnect()

    with serving(Server()) as server, connecting(server.port) as connection:
        connection.watch(observe)
        connection.connect()
        eventually(lambda: not readers() and len(seen) == 4)
    assert seen == [ConnectionState(name) for name in ("CLOSED", "CONNECTING", "CONNECTED", "CLOSED")]


def test_limit_with_a_listener_that_hangs() -> None:
    """It returns after its limit and says that the thread still runs; the thread ends as soon as it can."""
    inside, go = threading.Event(), threading.Event()

    def listen(outputs: list[Output], now: float) -> None:
        inside.set()
        go.wait(LIMIT)

    with serving(Server()) as server, connecting(server.port, listen) as connection:
        connection.connect()
        assert inside.wait(LIMIT)
        began = time.monotonic()
        assert not connection.close(0.2)
        assert 0.2 <= time.monotonic() - began < 0.2 + AT_ONCE
        assert connection.state is ConnectionState.CLOSED
        go.set()


def test_twice() -> None:
    """Closing again does nothing, and takes no time."""
    with serving(Server()) as server, connecting(server.port) as connection:
        assert connection.connect(wait=LIMIT)
        assert connection.close()
        assert took(connection.close) < AT_ONCE


def test_at_once_after_connect() -> None:
    """In whatever stage that is."""
    with serving(Server()) as server:
        for number in range(30):
            with connecting(server.port, protocol=Simple) as connection:
                connection.connect()
                threading.Event().wait(number * 0.0005)
                closed_within(connection, GOODBYE)
