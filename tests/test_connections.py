"""What connections do for the rest of the client."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from chatsdk import ChatClient, events
from chatsdk.connections import ECHOES, Echoes, url_beside
from chatsdk.devserver.process import DevServer


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
