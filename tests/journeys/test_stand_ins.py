"""Features that are off, and what stands in for them: a search that fails, presence that hides, an outbox that takes
nothing. Each is told, and each comes back by itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from chatsdk import ChatClient, Forbidden, InvalidArgument, OutboxFullError, SettingsError, StorageError, events
from chatsdk.core.exchange import Call, Request
from chatsdk.devserver.process import DevServer
from chatsdk.network.quality import Quality
from chatsdk.resilience.circuit_rules import CircuitRules
from tests.journeys.listeners import PROTOCOLS, Listener
from tests.waiting import eventually

until = partial(eventually, seconds=15.0)

SOON = CircuitRules(failures=3, open_first=0.2, open_max=0.2)
"""A feature's circuit that opens and tries again within the patience of a test."""


@pytest.fixture
def chat(connect: Callable[..., ChatClient]) -> ChatClient:
    """alice's client, whose features give up soon and are soon tried again."""
    made = connect(retry_tries=1)
    for feature in ("search", "presence"):
        made.circuits.define(feature, SOON)
    return made


def told(chat: ChatClient) -> list[tuple[str, ...]]:
    """What is told of features and levels from now on, in short; the network is well meanwhile, however busy the
    machine that has the server."""
    chat.features._quality = lambda: Quality.GOOD
    chat.features.refresh()
    heard: list[tuple[str, ...]] = []
    chat.on(events.FeatureStateChanged, lambda event: heard.append((event.feature, "on" if event.available else "off")))
    chat.on(events.DegradationChanged, lambda event: heard.append((event.level, event.effect)))
    return heard


def found(chat: ChatClient, query: str, **options: Any) -> list[str]:
    """Texts that a search finds, which must have been answered here."""
    page = chat.messages.search(query, **options)
    assert page.local
    return [hit.text for hit in page.hits]


def test_a_search_that_fails(chat: ChatClient, server: DevServer, channel: str) -> None:
    """The server's answer while it has one; else what was seen, newest first; then the server's again. Sending goes on
    all the time, and nobody else's circuit moves."""
    heard = told(chat)
    for text in ("Red apple", "green apple", "red pear"):
        assert chat.send(channel, text).delivered
    page = chat.messages.search("apple")
    assert (page.local, page.total) == (False, 2)
    server.faults("status", operation="search", status=503)
    assert found(chat, "APPLE") == ["green apple", "Red apple"]
    assert found(chat, "apple red", channel=channel, limit=1) == ["Red apple"]
    assert found(chat, "apple", limit=1, offset=1) == ["Red apple"]
    for _ in range(3):
        assert found(chat, "plum") == []
    assert chat.features.states()["search"] == "circuit search"
    assert (chat.features.level, chat.health().degradation) == ("moderate", "moderate")
    assert chat.circuits.state("api") == "closed"
    assert chat.send(channel, "blue plum").delivered
    assert found(chat, "plum") == ["blue plum"]
    server.clear_faults()
    until(lambda: not chat.messages.search("plum").local)
    until(lambda: not chat.messages.search("plum").local and chat.features.level == "none")
    assert heard == [("search", "off"), ("moderate", "warning"), ("search", "on"), ("none", "")]


def test_without_a_server(chat: ChatClient, server: DevServer, channel: str) -> None:
    """Offline the answer comes at once, from lists and gets as well."""
    bob = chat.as_user("bob", server.tokens["bob"])
    receipts = [bob.send(channel, f"bob's {word}") for word in ("first", "second", "third")]
    list(chat.messages.list(channel, limit=1))
    chat.messages.get(channel, receipts[0].key)
    server.kill()
    assert found(chat, "bob's") == ["bob's third", "bob's first"]
    until(lambda: chat.network.quality == "OFFLINE" or not found(chat, "nothing"))
    began = monotonic()
    assert found(chat, "THIRD") == ["bob's third"]
    assert monotonic() - began < 1.0


def test_mistakes_surface(chat: ChatClient, server: DevServer) -> None:
    """A wrong argument and a missing right are no outage, whatever the server's search does."""
    server.faults("status", operation="search", status=503)
    for mistake in ({"query": ""}, {"query": "x", "limit": 0}, {"query": "x", "channel": "no such"}):
        with pytest.raises(InvalidArgument):
            chat.messages.search(**mistake)
    server.clear_faults()
    server.faults("status", operation=["search", "channel_presence", "online"], status=403)
    with pytest.raises(Forbidden):
        chat.messages.search("x")
    with pytest.raises(Forbidden):
        chat.presence.set(True)


def test_an_empty_answer_is_an_answer(chat: ChatClient, server: DevServer, channel: str) -> None:
    """A server without a search engine finds nothing (contract, 8); that is what it says, not an outage."""
    assert chat.send(channel, "here").delivered
    nothing = {"results": [], "query": "here", "totalHits": 0, "offset": 0, "limit": 20}
    server.faults("status", operation="search", status=200, body=nothing)
    page = chat.messages.search("here")
    assert (page.local, page.hits) == (False, ())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_realtime_told(server: DevServer, tmp_path: Path, protocol: str, channel: str) -> None:
    """Messages, edits and deletions that were only heard; a channel that was left is gone."""
    with (
        ChatClient(server.url, server.tokens["alice"], state_dir=str(tmp_path / "alice"), discover=False) as alice,
        Listener(server, tmp_path / "bob", protocol, retry_tries=1) as bob,
    ):
        bob.hear(channel)
        sent = [alice.send(channel, f"{colour} apple").message for colour in ("red", "green", "blue")]
        red, green, _ = (message.id for message in sent if message is not None)
        alice.messages.edit(channel, red, "yellow apple")
        alice.messages.delete(channel, green)
        until(lambda: bob.of(events.MessageDeleted) and bob.of(events.MessageUpdated))
        until(lambda: len(bob.received(channel)) == 3)
        server.faults("status", operation="search", status=503)
        assert found(bob.chat, "apple") == ["blue apple", "yellow apple"]
        hit = bob.chat.messages.search("yellow").hits[0]
        assert (hit.message_id, hit.channel_id, hit.user_id) == (red, channel, "alice")
        server.clear_faults()
        bob.chat.channels.leave(channel)
        server.faults("status", operation="search", status=503)
        assert found(bob.chat, "apple") == []


@pytest.mark.parametrize("what", ["members/bob", ""], ids=["removed", "deleted"])
def test_a_channel_that_is_no_longer_his(server: DevServer, tmp_path: Path, what: str, channel: str) -> None:
    """Somebody else removed him from it, or the channel itself; realtime tells him so."""
    path = f"/api/channels/{channel}/{what}".rstrip("/")
    remove = Request(operation="channels.remove", method="DELETE", path=path, user="alice", channel=channel)
    with (
        ChatClient(server.url, server.tokens["alice"], state_dir=str(tmp_path / "alice"), discover=False) as alice,
        Listener(server, tmp_path / "bob", retry_tries=1) as bob,
    ):
        bob.hear(channel)
        assert alice.send(channel, "between us").delivered
        until(lambda: bob.received(channel))
        server.faults("status", operation="search", status=503)
        assert found(bob.chat, "between") == ["between us"]
        alice.call(Call(remove, lambda _: None))
        until(lambda: bob.of(events.MemberLeft) or bob.of(events.ChannelDeleted))
        until(lambda: found(bob.chat, "between") == [])


def test_a_process_without_threads(connect: Callable[..., ChatClient], server: DevServer, channel: str) -> None:
    """One-shot mode has the same stand-ins."""
    chat = connect(background=False, retry_tries=1)
    assert chat.send(channel, "one shot").delivered
    server.faults("status", operation=["search", "channel_presence"], status=503)
    assert found(chat, "shot") == ["one shot"]
    assert not chat.presence.get(channel).known


def test_nobody_finds_what_another_saw(chat: ChatClient, server: DevServer) -> None:
    """Views of one client share memory, not what is in it."""
    private = server.channel("alice")
    assert chat.send(private, "a secret of alice's").delivered
    server.faults("status", operation="search", status=503)
    bob = chat.as_user("bob", server.tokens["bob"])
    assert found(chat, "secret") == ["a secret of alice's"]
    assert found(bob, "secret") == []


def test_a_member_no_longer(chat: ChatClient, server: DevServer, channel: str) -> None:
    """Who may not read a channel any more does not find it, either."""
    assert chat.send(channel, "of the past").delivered
    server.faults("status", operation="list_messages", status=403)
    with pytest.raises(Forbidden):
        list(chat.messages.list(channel, fresh=True))
    server.faults("status", operation="search", status=503)
    assert found(chat, "past") == []


def test_after_a_fork(chat: ChatClient, server: DevServer, channel: str) -> None:
    """The child has seen nothing, and then what it sees itself; the parent's is the parent's."""
    assert chat.send(channel, "of the parent").delivered
    server.faults("status", operation="search", status=503)
    child = os.fork()
    if child == 0:
        try:
            before = found(chat, "parent")
            list(chat.messages.list(channel, fresh=True))
            os._exit(0 if (before, found(chat, "parent")) == ([], ["of the parent"]) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert found(chat, "parent") == ["of the parent"]


def test_presence_hides(chat: ChatClient, server: DevServer, channel: str) -> None:
    """Who is there is not known, and nobody is shown as away; messages go on; then it is known again."""
    heard = told(chat)
    assert chat.presence.set(True)
    assert chat.presence.get(channel).total_online == 1
    server.faults("status", operation=["channel_presence", "online"], status=503)
    for _ in range(4):
        hidden = chat.presence.get(channel)
        assert (hidden.known, hidden.online, hidden.offline, hidden.total_members) == (False, (), (), 0)
        assert chat.presence.set(True) is False
    assert (chat.features.level, chat.features.is_available("presence")) == ("minor", False)
    assert chat.circuits.state("api") == "closed"
    assert chat.send(channel, "hello").delivered
    server.clear_faults()
    until(lambda: chat.presence.get(channel).known)
    until(lambda: chat.presence.set(True) and chat.features.level == "none")
    assert heard == [("presence", "off"), ("minor", "info"), ("presence", "on"), ("none", "")]


def test_an_outbox_that_is_full(connect: Callable[..., ChatClient], channel: str, nowhere: str) -> None:
    """Nothing can be accepted: said once, with the reason, whoever tries how often. The next message that is accepted
    takes it back."""
    chat = connect(nowhere, background=False, user="alice", max_pending=2)
    heard = told(chat)
    first = chat.send(channel, "1", wait=0)
    chat.send(channel, "2", wait=0)
    for _ in range(5):
        with pytest.raises(OutboxFullError):
            chat.send(channel, "too many", wait=0)
    assert (chat.features.level, chat.features.level.effect) == ("critical", "full-screen")
    assert "max_pending 2" in chat.features.states()["messages"]
    assert chat.health().degradation == "critical"
    chat.outbox.discard([first.id])
    chat.send(channel, "3", wait=0)
    assert chat.features.is_available("messages")
    assert heard == [("messages", "off"), ("critical", "full-screen"), ("messages", "on"), ("none", "")]
    with pytest.raises(OutboxFullError):
        chat.send(channel, "once more", wait=0)
    assert heard[4:] == [("messages", "off"), ("critical", "full-screen")]


def test_a_disk_that_takes_nothing(connect: Callable[..., ChatClient], state_dir: Path, channel: str) -> None:
    """The same with a file that can't be written, and then can."""
    chat = connect(lock_timeout=0.2)
    assert chat.send(channel, "before").delivered
    heard = told(chat)
    (file,) = state_dir.glob("*/*/*.db")
    for each in file.parent.glob(f"{file.name}*"):
        each.unlink()
    file.mkdir()
    try:
        with pytest.raises((StorageError, SettingsError)):
            chat.send(channel, "lost")
        assert heard == [("messages", "off"), ("critical", "full-screen")]
    finally:
        shutil.rmtree(file)
    assert chat.send(channel, "after").wait(15.0).delivered  # the worker may have met the disk, too, and wait a little
    assert heard[2:] == [("messages", "on"), ("none", "")]


def test_a_fallback_for_messages_lets_one_through(
    connect: Callable[..., ChatClient], channel: str, nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sends by `features.run` would otherwise never learn that there is room again."""
    chat = connect(nowhere, background=False, user="alice", max_pending=1)
    first = chat.send(channel, "1", wait=0)

    def send() -> str:
        return chat.features.run("messages", lambda: str(chat.send(channel, "2", wait=0).state), lambda: "on paper")

    with pytest.raises(OutboxFullError):
        send()
    chat.outbox.discard([first.id])
    assert send() == "on paper"
    assert not chat.features.is_available("messages")
    later = chat._parts.clock.monotonic() + 11.0
    monkeypatch.setattr(chat.features, "_monotonic", lambda: later)
    assert send() == "QUEUED"
    assert chat.features.level == "none"


def test_events_without_anybody_asking(connect: Callable[..., ChatClient], server: DevServer, channel: str) -> None:
    """Who only listens is told of an outage, too: nobody has to look at `chat.features` first."""
    chat = connect()
    heard = told(chat)
    assert chat.send(channel, "before").delivered
    server.kill()
    chat.send(channel, "during", wait=0)
    until(lambda: ("severe", "error") in heard)
    server.start()
    until(lambda: heard[-1] == ("none", ""))
