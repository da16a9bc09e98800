"""What the reader thread does besides, while no server has taken us, in whatever stage of a try it is."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

import pytest

from chatsdk.core.backoff import Backoff
from chatsdk.core.protocols.states import ConnectionState
from chatsdk.core.tokens import Secret
from tests.realtime.peers import Peer, Server, connecting, serving
from tests.waiting import eventually

EVERY = 0.02
QUICK = (Backoff(tries=0, first=0.01, factor=1.0, cap=0.01),)


class Ticks:
    """Something that wants to be done every 20 ms."""

    def __init__(self) -> None:
        self.count = 0
        self.ends = 0
        self.threads: set[int] = set()
        self.error: Exception | None = None

    def work_without(self, now: float) -> float | None:
        self.count += 1
        self.threads.add(threading.get_ident())
        if self.error is not None:
            raise self.error
        return now + EVERY

    def over(self) -> None:
        self.ends += 1


def _never(peer: Peer) -> None:
    """Takes the connection and says nothing."""
    peer.request()
    peer.sock.recv(1)


def _answering(status: bytes, peer: Peer) -> None:
    peer.request()
    peer.say(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("peer", [_never, partial(_answering, b"503 No")], ids=["silent handshake", "back-off"])
def test_it_is_done_in_each_stage(peer: Callable[[Peer], None]) -> None:
    """As often as it asks for; and so is what others post."""
    ticks, posted = Ticks(), threading.Event()
    slow = (Backoff(tries=0, first=60.0, factor=1.0, cap=60.0),)
    with serving(peer) as raw, connecting(raw.port, meanwhile=ticks, reconnect=slow) as connection:
        connection.connect()
        eventually(lambda: raw.connections)
        before = ticks.count
        eventually(lambda: ticks.count >= before + 5)
        assert connection.post(lambda *_: posted.set())
        assert posted.wait(5.0)
        assert len(ticks.threads) == 1
    assert ticks.ends == 1


def test_while_a_token_is_fetched() -> None:
    """The source hangs: everything else goes on."""
    ticks, token = Ticks(), threading.Event()

    def fetch(_: bool) -> Secret:
        token.wait(10.0)
        return Secret("t")

    with serving(Server()) as raw, connecting(raw.port, meanwhile=ticks, ws_token=fetch) as connection:
        connection.connect()
        eventually(lambda: ticks.count >= 5)
        token.set()
        assert connection.wait_connected(5.0)


def test_not_while_connected() -> None:
    """The session has its own loop."""
    ticks = Ticks()
    with serving(Server()) as raw, connecting(raw.port, meanwhile=ticks) as connection:
        assert connection.connect(5.0)
        before, until = ticks.count, monotonic() + 10 * EVERY
        eventually(lambda: monotonic() > until)
        assert ticks.count == before


def test_what_raises_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is reported once, and the connection goes on."""
    ticks = Ticks()
    ticks.error = ValueError("a mistake")
    with serving(Server()) as raw, connecting(raw.port, meanwhile=ticks) as connection:
        assert connection.connect(5.0)
        assert connection.state is ConnectionState.CONNECTED
    assert sum("without a connection raised" in record.message for record in caplog.records) == 1


def test_each_run_has_an_end() -> None:
    """Also one that is given up, and one that is followed by another."""
    ticks = Ticks()
    limited = (Backoff(tries=2, first=0.01, factor=1.0, cap=0.01),)
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with connecting(port, meanwhile=ticks, reconnect=limited) as connection:
        connection.connect()
        eventually(lambda: connection.state is ConnectionState.FAILED)
        eventually(lambda: ticks.ends == 1)
        connection.connect()
        eventually(lambda: ticks.ends == 2)


@pytest.mark.parametrize(("status", "again"), [(b"403 Forbidden", False), (b"401 Unauthorized", True)])
def test_another_token_after_a_refusal(status: bytes, again: bool) -> None:
    """After a 401 each time; after a 403, which may be a wall's, once."""
    forced: list[bool] = []

    def token(force: bool) -> Any:
        forced.append(force)
        return Secret("t")

    with (
        serving(partial(_answering, status)) as raw,
        connecting(raw.port, ws_token=token, reconnect=QUICK) as connection,
    ):
        connection.connect()
        eventually(lambda: len(forced) >= 6)
    assert forced[:2] == [False, True]
    assert set(forced[2:6]) == {again}
