"""Tokens that expire, are refused though they are good, or are lost for good: no message is lost for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from chatsdk import ChatClient, Reason, State, TokenExpiredError, Unauthorized, events
from chatsdk.devserver.process import DevServer
from tests.waiting import eventually


def watch_refreshes(server: DevServer) -> Callable[[], int]:
    """Counts the refreshes that the server is asked for from now on."""
    rule = server.faults("latency", operation=["refresh", "legacy_refresh"], ms=0)  # a rule counts what it is asked
    return lambda: next(int(each["seen"]) for each in server.fault_rules() if each["id"] == rule)


def session(server: DevServer) -> dict[str, str]:
    """The settings of a fresh session of alice's."""
    pair = server.session("alice")
    return {"token": pair["token"], "refresh_token": pair["refreshToken"]}


def test_eight_threads_that_meet_an_expired_token_refresh_once(
    server: DevServer, connect: Callable[..., ChatClient], texts: Callable[[str], list[str]]
) -> None:
    """All of them are served, with one refresh between them."""
    chat = connect(**session(server))
    channels = [server.channel("alice") for _ in range(8)]
    refreshed: list[events.TokenRefreshed] = []
    chat.on(events.TokenRefreshed, refreshed.append)
    chat.send(channels[0], "before")
    count = watch_refreshes(server)
    server.faults("expire_tokens")
    start = Barrier(8)

    def act(number: int) -> object:
        start.wait()
        if number % 2:
            return chat.send(channels[number], "after").state
        return chat.channels.get(channels[number], fresh=True).id

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(act, range(8)))
    assert answers == [State.SENT if number % 2 else channels[number] for number in range(8)]
    assert count() == 1
    assert [event.user for event in refreshed] == ["alice"]
    assert [texts(channel) for channel in channels[1::2]] == [["after"]] * 4


def test_server_that_refuses_good_tokens_costs_nothing(
    server: DevServer,
    connect: Callable[..., ChatClient],
    texts: Callable[[str], list[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """401 to good tokens, and to good refresh tokens, for 10 s: everything is delivered, and both sessions are still
    good: one that can be refreshed and one that cannot."""
    made = [session(server), {}]
    chats = [connect(**given, state_dir=str(tmp_path_factory.mktemp("state"))) for given in made]
    channels = [server.channel("alice") for _ in chats]
    lost: list[events.TokenExpired] = []
    for chat, channel in zip(chats, channels, strict=True):
        chat.on(events.TokenExpired, lost.append)
        chat.send(channel, "before")
    count = watch_refreshes(server)
    server.faults("unauthorized", for_s=10)
    ends = time.monotonic() + 10
    pairs = list(zip(chats, channels, strict=True))
    receipts = [chat.send(channel, f"{n}", wait=0) for chat, channel in pairs for n in range(5)]
    waited = [chat.send(channel, "last") for chat, channel in pairs]
    assert [(each.state, each.reason) for each in waited] == [(State.QUEUED, Reason.AUTH)] * 2
    assert time.monotonic() < ends - 5, "somebody waited for a server that refuses tokens"
    for receipt in (*receipts, *waited):
        assert receipt.wait(60).state is State.SENT
    late = time.monotonic() - ends
    print(f"delivered {late:.1f} s after the end, {count()} refreshes asked for")
    assert -1 < late < 20
    assert [texts(channel) for channel in channels] == [["before", *"01234", "last"]] * 2
    assert lost == []
    assert count() < 20, "it asked for a refresh again and again"
    server.faults("expire_tokens", operation=["send", "get_channel"])
    eventually(lambda: _is_served(chats[0], channels[0]), "one more refresh")


def _is_served(chat: ChatClient, channel: str) -> bool:
    try:
        return chat.channels.get(channel, fresh=True).id == channel
    except Unauthorized:  # a token that is refused right after it was made is not renewed again at once
        return False


def test_lost_session_keeps_the_queue_and_a_new_one_wakes_it(
    server: DevServer, connect: Callable[..., ChatClient], channel: str, texts: Callable[[str], list[str]]
) -> None:
    """A revoked session: one event, messages wait with the reason `auth`, direct calls say how to go on, other users
    are served, and `connect_user` sends what waited."""
    chat = connect(**session(server))
    bob = chat.as_user("bob", token=server.tokens["bob"])
    lost: list[events.TokenExpired] = []
    chat.on("auth:token_expired", lost.append)
    chat.send(channel, "before")
    server.end_sessions("alice")
    first = chat.send(channel, "first", wait=2)
    eventually(lambda: lost, "auth:token_expired")
    began = time.monotonic()
    second = chat.send(channel, "second")
    assert time.monotonic() - began < 0.5
    assert (first.state, first.reason) == (State.QUEUED, Reason.AUTH)
    assert second.state is State.QUEUED
    with pytest.raises(TokenExpiredError) as caught:
        chat.channels.get(channel, fresh=True)
    assert "connect_user" in caught.value.hint
    assert bob.send(channel, "from bob").state is State.SENT
    chat.connect_user("alice", server.mint("alice"))
    assert second.wait(10).state is State.SENT
    assert texts(channel) == ["before", "from bob", "first", "second"]
    assert [event.user for event in lost] == ["alice"]


def test_views_of_many_users_share_one_client(
    server: DevServer, connect: Callable[..., ChatClient], channel: str, texts: Callable[[str], list[str]]
) -> None:
    """Each view sends as its user; the outbox of a view shows its own; closing a view closes nothing."""
    chat = connect(token=None, user="service", token_provider=lambda wanted: server.mint(wanted.user))
    alice, bob = chat.as_user("alice"), chat.as_user("bob")
    assert [view.send(channel, view.user).state for view in (alice, bob)] == [State.SENT] * 2
    alice.close()
    server.faults("status", operation="send", status=503)
    waiting = [view.send(channel, f"{view.user} again", wait=0) for view in (alice, bob)]
    assert [each.to_dict()["user"] for each in alice.outbox.list()] == ["alice"]
    assert len(chat.outbox.list()) == 2
    server.clear_faults()
    assert [receipt.wait(10).state for receipt in waiting] == [State.SENT] * 2
    log = [(each["user"], each["text"]) for each in server.log()["messages"] if each["channel"] == channel]
    assert log[:2] == [("alice", "alice"), ("bob", "bob")]
    assert sorted(log[2:]) == [("alice", "alice again"), ("bob", "bob again")]


def test_messages_of_a_lost_session_outlive_the_process(
    server: DevServer, connect: Callable[..., ChatClient], channel: str, texts: Callable[[str], list[str]]
) -> None:
    """The next start, with a good token, delivers what a lost session left behind."""
    with connect(token=server.mint("alice", ttl=-60), close_timeout=0.3) as chat:
        assert chat.send(channel, "left", wait=1).state is State.QUEUED
    with connect() as chat:
        assert chat.send(channel, "next").state is State.SENT
    assert texts(channel) == ["left", "next"]
