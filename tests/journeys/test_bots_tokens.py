"""A bot's connection outlives its tokens."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from chatsdk import ChatClient, events
from chatsdk.devserver.process import DevServer
from tests.waiting import eventually

LIMIT = 20.0


until = partial(eventually, seconds=LIMIT)


@pytest.fixture(scope="module")
def strict() -> Iterator[DevServer]:
    """A server that ends a connection half a second after its token's end."""
    with DevServer(expired_close_delay=0.5, expired_unsubscribe_delay=0.5) as server:
        yield server


def bot_of(server: DevServer, tmp_path: Path, session: dict[str, str], **options: Any) -> ChatClient:
    return ChatClient(
        server.url,
        session["token"],
        ws_token=session["wsToken"],
        refresh_token=session["refreshToken"],
        state_dir=str(tmp_path / "state"),
        discover=False,
        **options,
    )


def test_a_token_is_renewed_without_a_drop(strict: DevServer, tmp_path: Path) -> None:
    """The connection is given its next token before the old one ends, and stays."""
    channel = strict.channel("alice", "bob")
    heard: list[str] = []
    with bot_of(strict, tmp_path, strict.session("bob", ttl=4.0)) as chat:
        began = monotonic()
        refreshed: list[Any] = []
        chat.on(events.TokenRefreshed, refreshed.append)
        chat.on(events.MessageReceived, lambda event: heard.append(event.message.text))
        chat.subscribe(channel)
        until(lambda: chat.connection.subscriptions.get(channel) == "subscribed")
        until(lambda: monotonic() - began > 6.0)  # longer than the token and the server's patience
        assert chat.connection.connected
        assert chat.connection.metrics().reconnects == 0
        assert refreshed
        chat.send(channel, "still here")
        until(lambda: heard == ["still here"])


def test_an_expired_token_is_exchanged(strict: DevServer, tmp_path: Path) -> None:
    """The server says "token expired" (109) at connect: one refresh, and in."""
    channel = strict.channel("alice", "bob")
    old, new = strict.session("bob", ttl=-5.0), strict.session("bob")
    refreshed: list[Any] = []
    with bot_of(strict, tmp_path, {**new, "wsToken": old["wsToken"]}) as chat:
        chat.on(events.TokenRefreshed, refreshed.append)
        chat.subscribe(channel)
        until(lambda: chat.connection.subscriptions.get(channel) == "subscribed")
        assert len(refreshed) == 1


def test_a_lost_session_is_said(strict: DevServer, tmp_path: Path) -> None:
    """With nothing to renew it by, the connection is given up with the reason, and `auth:token_expired` tells it."""
    lost: list[Any] = []
    expired = strict.session("bob", ttl=-5.0)
    with ChatClient(
        strict.url, expired["token"], ws_token=expired["wsToken"], state_dir=str(tmp_path), discover=False
    ) as chat:
        chat.on(events.TokenExpired, lost.append)
        chat.subscribe(strict.channel("bob"))
        with pytest.raises(ConnectionError) as failure:
            chat.run_forever()
        assert "token" in str(failure.value)
        assert chat.connection.state == "FAILED"
    assert len(lost) == 1


def test_revoked_and_back(strict: DevServer, tmp_path: Path) -> None:
    """A revoked session ends the connection; a new token brings it back, and nothing is missed."""
    channel = strict.channel("alice", "bob")
    heard: list[str] = []
    with bot_of(strict, tmp_path, strict.session("bob")) as chat:
        chat.on(events.MessageReceived, lambda event: heard.append(event.message.text))
        chat.subscribe(channel)
        until(lambda: chat.connection.subscriptions.get(channel) == "subscribed")
        strict.end_sessions("bob")
        until(lambda: chat.connection.state == "FAILED")
        with ChatClient(strict.url, strict.tokens["alice"], state_dir=str(tmp_path / "alice"), discover=False) as alice:
            assert alice.send(channel, "meanwhile").delivered
        strict.skip(2)  # tokens have whole seconds: one of the very second of the revocation is refused
        session = strict.session("bob")
        chat.connect_user("bob", session["token"], ws_token=session["wsToken"])
        until(lambda: heard == ["meanwhile"])
