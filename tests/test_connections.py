"""What connections do for the rest of the client."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from chatsdk import ChatClient, events
from chatsdk.connections import ECHOES, Echoes, url_beside
from chatsdk.devserver.process import DevServer
from tests.faults.link import REFUSED, WELL
from tests.faults.proxy import FaultProxy
from tests.waiting import eventually


@pytest.mark.parametrize(
    ("url", "protocol", "found"),
    [
        ("http://localhost:5500", "centrifugo", "ws://localhost:5500/connection/websocket"),
        ("https://chat.example.org/", "centrifugo", "wss://chat.example.org/connection/websocket"),
        ("https://example.org/chat", "json", "wss://example.org/chat/ws"),
    ],
)
def test_where_the_realtime_server_is(url: str, protocol: str, found: str) -> None:
    """Where no setting says it: beside the chat server, and never without TLS where that has it."""
    assert url_beside(url, protocol) == found


def failed(key: str, channel: str = "c") -> events.MessageFailed:
    return events.MessageFailed(id=1, key=key, user="bob", channel=channel, state="QUEUED")


def heard(key: str) -> Any:
    return SimpleNamespace(message_id=key)


def test_an_echo_in_place_of_an_answer() -> None:
    """A message that failed and is told by the server has arrived: its lane is tried at once, and only then."""
    woken: list[tuple[str, str]] = []
    echoes = Echoes(lambda user, channel: woken.append((user, channel)))
    echoes.told(failed("k1"))
    echoes.told(failed("k2"))
    echoes.heard(heard("somebody else's"))
    echoes.told(events.MessageSent(id=2, key="k2", user="bob", channel="c", state="SENT"))
    echoes.heard(heard("k2"))
    assert woken == []
    echoes.heard(heard("k1"))
    echoes.heard(heard("k1"))
    assert woken == [("bob", "c")]


def test_failures_without_an_end() -> None:
    """An outage of many messages costs a bounded memory."""
    echoes = Echoes(lambda user, channel: None)
    for number in range(ECHOES + 10):
        echoes.told(failed(f"k{number}"))
    assert len(echoes._failed) == ECHOES


def test_a_connection_wakes_the_outbox(chatsdk_server: DevServer) -> None:
    """The realtime server takes us, so the network is there: what waits for its back-off is tried at once."""
    woken: list[object] = []
    with ChatClient(chatsdk_server.url, chatsdk_server.tokens["bob"], ws_token=chatsdk_server.ws_tokens["bob"]) as chat:
        chat.send(chatsdk_server.channel_id, "opens the outbox")
        outbox = chat._parts.outbox()
        outbox.wake = lambda **which: woken.append(which) or 0  # type: ignore[method-assign, func-returns-value]
        assert chat.connect(wait=10)
        while not woken:
            pass
    assert woken == [{"lane": None}]


@pytest.fixture
def hasty() -> Iterator[None]:
    """Have threads take turns all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_polling_of_many_users_is_told_in_order(hasty: None) -> None:
    """Their reader threads begin and end together: none fails, and the last word is the last one told."""
    told: list[str] = []
    with ChatClient("http://127.0.0.1:9", "token") as chat:
        connections = chat._parts.connections
        connections._polls = told.append

        def come_and_go(user: str) -> None:
            for _ in range(500):
                connections._polled(user, f"blocked for {user}")
                connections._polled(user, "")

        threads = [threading.Thread(target=come_and_go, args=(f"user {number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        connections._polled("bob", "blocked")
        connections._polled("bob", "")
    assert told[-2:] == ["blocked", ""]
    assert all(before != after for before, after in pairwise(told))


def test_polling_that_ends_while_its_beginning_is_told(chatsdk_server: DevServer) -> None:
    """Whoever hears of it may be slow: the end is told after the beginning, by the one who tells."""
    told: list[str] = []
    began, go_on = threading.Event(), threading.Event()

    def tell(why: str) -> None:
        if why:
            began.set()
            go_on.wait(10)
        told.append(why)

    with ChatClient(chatsdk_server.url, chatsdk_server.tokens["bob"]) as chat:
        connections = chat._parts.connections
        connections._polls = tell
        teller = threading.Thread(target=connections._polled, args=("alice", "blocked"))
        teller.start()
        assert began.wait(10)
        connections._polled("alice", "")
        assert told == []
        go_on.set()
        teller.join()
    assert told == ["blocked", ""]


@pytest.mark.parametrize("refused", [False, True], ids=["no contact", "refused"])
def test_a_network_that_is_back(chatsdk_server: DevServer, refused: bool) -> None:
    """Contact over HTTP ends a websocket's wait for its next try; not where the server refused it, and told to wait."""
    with (
        FaultProxy(chatsdk_server.port, WELL if refused else REFUSED) as proxy,
        ChatClient(
            chatsdk_server.url,
            chatsdk_server.tokens["bob"],
            ws_token=chatsdk_server.ws_tokens["bob"],
            ws_url=f"ws://127.0.0.1:{proxy.port}/connection/websocket",
            reconnect="patient",
        ) as chat,
    ):
        if refused:
            chatsdk_server.faults("ws_refuse", status=503, retry_after=30)
        chat.connect()
        eventually(lambda: (chat.connection.reconnect_in or 0) > 1.4)
        chatsdk_server.clear_faults()
        proxy.set(WELL)
        chat._parts.condition.network.network(True)
        assert chat._parts.connections.get("bob").connection.wait_connected(1.2) is not refused
