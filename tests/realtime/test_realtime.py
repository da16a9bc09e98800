"""Realtime for one user, put together, over real sockets."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatsdk.core.chatsdk_backend import ChatSDKBackend
from chatsdk.core.events import Event
from chatsdk.core.realtime_events import MessageReceived, TypingStarted
from chatsdk.devserver.process import DevServer
from chatsdk.realtime.realtime import Kind, Realtime, Workshop
from tests.realtime.bots import WAIT, Bot, Writer
from tests.realtime.channels import channel_id
from tests.realtime.peers import Server, serving
from tests.waiting import eventually

CHANNEL = channel_id(1)


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    """Give one server to all tests of this file."""
    with DevServer() as started:
        yield started


@pytest.fixture
def writer(server: DevServer) -> Iterator[Writer]:
    """Give somebody who writes."""
    made = Writer(server)
    yield made
    made.connection.close()


@pytest.fixture
def channel(server: DevServer) -> str:
    """Give a channel that no other test uses."""
    return server.channel("alice", "bob")


def test_nothing_is_opened_before_connect(server: DevServer, tmp_path: Path) -> None:
    """No thread, no socket, no file."""
    with Bot(server, tmp_path / "state", cursors=tmp_path / "cursors") as bot:
        assert bot.realtime.connection.state == "CLOSED"
        assert not (tmp_path / "cursors").exists()
        assert bot.workshop.dispatch.threads == bot.workshop.errands.threads == 0


def test_what_waits_for_a_plain_connection_follows_its_subscriptions() -> None:
    """A server may take no typing for a conversation that it was not asked for: also if it answers no frame."""
    server = Server()
    workshop = Workshop(lambda event: None)
    with serving(server) as raw:
        realtime = Realtime(
            "bob", f"ws://127.0.0.1:{raw.port}/ws", ChatSDKBackend(), workshop, ask=lambda call: None, kind="json"
        )
        realtime.subscribe(CHANNEL, since=0)
        realtime.typing(CHANNEL, True)
        assert realtime.connect(wait=WAIT)
        eventually(lambda: len(server.heard) == 3)
        realtime.close()
    workshop.close(WAIT)
    assert [json.loads(frame)["type"] for frame in server.heard] == ["ping", "subscribe", "typing"]


@pytest.mark.parametrize("kind", ["centrifugo", "json"])
def test_ones_own_message_comes_back_once(server: DevServer, channel: str, tmp_path: Path, kind: Kind) -> None:
    """Flagged as own; also if the connection is lost and it comes by recovery or backfill."""
    with Bot(server, tmp_path, kind=kind) as bot:
        bot.hear(channel)
        sent = []
        for number in range(5):
            sent.append(bot.client.send(channel, f"mine {number}").key)
            server.realtime.cut()
        bot.wait_for_seqs(channel, 5)
        came = [event for event in bot.events if isinstance(event, MessageReceived)]
        assert [event.key for event in came] == sent
        assert all(event.own for event in came)


def test_who_wants_to_know_hears_of_messages_before_the_handlers(
    server: DevServer, writer: Writer, channel: str, tmp_path: Path
) -> None:
    """`on_message`, in the same thread; and `on_connected` at each connection."""
    heard: list[str] = []
    connected: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, MessageReceived):
            heard.append(f"handler {event.seq}")

    with Bot(
        server,
        tmp_path,
        on_message=lambda event: heard.append(f"message {event.seq}"),
        on_connected=lambda: connected.append(time.monotonic()),
    ) as bot:
        bot.on_event = note
        bot.hear(channel)
        del heard[:]
        writer.write(channel, 2)
        bot.wait_for_seqs(channel, 2)
        assert heard == ["message 1", "handler 1", "message 2", "handler 2"]
        assert len(connected) == 1
        server.realtime.cut()
        bot.wait_for(lambda: len(connected) == 2)


@pytest.mark.parametrize("kind", ["centrifugo", "json"])
def test_typing_reaches_others(server: DevServer, channel: str, tmp_path: Path, kind: Kind) -> None:
    """Over HTTP, or by a frame."""
    with (
        Bot(server, tmp_path / "bob", kind=kind) as bob,
        Bot(server, tmp_path / "alice", user="alice", kind=kind) as al,
    ):
        bob.hear(channel)
        al.hear(channel)
        al.realtime.typing(channel, True)
        bob.wait_for(lambda: [event for event in bob.events if isinstance(event, TypingStarted)])
        [event] = [event for event in bob.events if isinstance(event, TypingStarted)]
        assert event.channel == channel
        assert event.by == "alice"


def test_a_removed_member_is_told(server: DevServer, channel: str, tmp_path: Path) -> None:
    """The subscription ended, and stays so."""
    with Bot(server, tmp_path) as bot:
        bot.hear(channel)
        alice = Writer(server)
        alice.request("DELETE", f"/api/channels/{channel}/members/bob")
        alice.connection.close()
        bot.wait_for(lambda: bot.states[channel] == "ended")


def test_a_strangers_channel_failed(server: DevServer, tmp_path: Path) -> None:
    """With the error that the server gave."""
    with Bot(server, tmp_path) as bot:
        theirs = server.channel("alice", "carol")
        bot.realtime.subscribe(theirs)
        bot.realtime.connect(WAIT)
        bot.wait_for(lambda: bot.states.get(theirs) == "failed")
        error = bot.realtime.error(theirs)
        assert error is not None
        assert error.code == "forbidden"


def test_the_users_own_stream_is_heard(server: DevServer, channel: str, writer: Writer, tmp_path: Path) -> None:
    """Without subscribing to anything."""
    with Bot(server, tmp_path) as bot:
        bot.realtime.connect(WAIT)
        bot.wait_for(lambda: bot.states.get("") == "subscribed")
        writer.write(channel, 1)
        bot.wait_for(lambda: [event for event in bot.events if event.NAME == "unread:changed"])


def test_a_forked_child_begins_without_channels(
    server: DevServer, channel: str, writer: Writer, tmp_path: Path
) -> None:
    """Its parent hears them; the parent's connection is not disturbed."""
    with Bot(server, tmp_path) as bot:
        bot.hear(channel)
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(into, _in_a_child(bot.realtime).encode())
            finally:
                os._exit(0)
        os.close(into)
        with os.fdopen(out) as pipe:
            assert pipe.read() == "CLOSED {}"
        os.waitpid(child, 0)
        writer.write(channel, 3)
        bot.wait_for_seqs(channel, 3)
        assert bot.realtime.metrics().reconnects == 0


def _in_a_child(realtime: Realtime) -> str:
    try:
        return f"{realtime.connection.state} {realtime.states()}"
    except BaseException as error:
        return repr(error)
