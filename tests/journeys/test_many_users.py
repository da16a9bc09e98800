"""One client that speaks for hundreds of users, as a web application's does: nobody gets anything of another's, one
user's trouble is nobody else's, and users cost neither threads nor descriptors."""

from __future__ import annotations

import gc
import os
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import pytest

from chatsdk import ChatClient, Forbidden, InvalidArgument, NotFound, Reason, State, TokenExpiredError
from chatsdk.auth import SignedTokens
from chatsdk.core.tokens import Token, TokenRequest
from chatsdk.devserver.process import DevServer
from tests.waiting import eventually

USERS = 300
THREADS = 8


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


def shares(names: list[str]) -> list[list[str]]:
    """What each of eight threads does."""
    return [names[start::THREADS] for start in range(THREADS)]


def test_300_users_from_8_threads_and_one_dead_token(
    server: DevServer, connect: Callable[..., ChatClient], state_dir: Path
) -> None:
    """Each of 300 users sends twice to one channel and once to another, all at once; one has a dead token. The 299
    deliver, each as itself, once and in order; the one waits, says why, and goes out with a new token."""
    names = [f"user-{number}" for number in range(USERS)]
    dead = names[137]
    hall, side = server.channel(*names), server.channel(*names)
    tokens = {name: server.mint(name, ttl=-60 if name == dead else 900) for name in names}
    chat = connect(token=None, user="service", users_kept=50)
    before = descriptors()

    def talk(share: list[str]) -> None:
        for name in share:
            view = chat.as_user(name, token=tokens[name])
            view.send(hall, f"{name} 1", wait=0)
            view.send(side, f"{name} side", wait=0)
            view.send(hall, f"{name} 2", wait=0)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(talk, shares(names)))
        gc.collect()
        eventually(lambda: chat.outbox.stats().pending == 3, "the delivery of the 299")
        threads = [each.name for each in threading.enumerate() if each.name.startswith("chatsdk")]
        opened = descriptors() - before
    assert len(threads) <= 15, threads
    assert opened <= 40
    said: dict[str, list[str]] = defaultdict(list)
    for each in server.log()["messages"]:
        if each["channel"] in (hall, side):
            said[each["user"]].append(each["text"])
    alive = [name for name in names if name != dead]
    assert {name: sorted(said[name]) for name in alive} == {n: [f"{n} 1", f"{n} 2", f"{n} side"] for n in alive}
    assert all(said[name].index(f"{name} 1") < said[name].index(f"{name} 2") for name in alive)
    assert dead not in said
    view = chat.as_user(dead)
    assert [(each.state, each.reason) for each in view.outbox.list()] == [(State.QUEUED, Reason.AUTH)] * 3
    with pytest.raises(TokenExpiredError):
        view.channels.get(hall, fresh=True)
    assert len(chat._parts.users._kept) <= 51
    chat.as_user(dead, token=server.mint(dead))
    eventually(lambda: chat.outbox.stats().pending == 0, "the delivery of the one")
    assert chat.outbox.stats().delivered == 3 * USERS


def test_no_cached_read_of_one_user_reaches_another(server: DevServer, connect: Callable[..., ChatClient]) -> None:
    """Eight threads read the same things for 40 users, again and again: each gets its own channels, and a stranger is
    refused what the cache holds for a member."""
    names = [f"reader-{number}" for number in range(40)]
    own = {name: server.channel(name, name=f"of {name}") for name in names}
    chat = connect(token=None, user="service", token_provider=lambda wanted: server.mint(wanted.user))
    for name in names:
        chat.as_user(name).send(own[name], f"secret of {name}")
    chain_calls = len(server.log()["attempts"])
    wrong: list[object] = []

    def read(share: list[str]) -> None:
        for _ in range(3):
            for name in share:
                view = chat.as_user(name)
                listed = {each.id for each in view.channels.list()} & set(own.values())
                texts = [each.text for each in view.messages.list(own[name])]
                if listed != {own[name]} or texts != [f"secret of {name}"]:
                    wrong.append((name, listed, texts))

    mixed = [names[start:] + names[:start] for start in range(0, 40, 5)]  # everybody is read for by all threads
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(read, mixed))
    assert wrong == []
    assert len(server.log()["attempts"]) - chain_calls < THREADS * 3 * 40, "nothing came from the cache"
    stranger = chat.as_user(names[1])
    chat.as_user(names[0]).channels.get(own[names[0]])
    with pytest.raises((Forbidden, NotFound)):
        stranger.channels.get(own[names[0]])
    with pytest.raises((Forbidden, NotFound)):
        list(stranger.messages.list(own[names[0]]))


def test_messages_outlive_the_views_they_were_sent_with(server: DevServer, connect: Callable[..., ChatClient]) -> None:
    """An outage, a limit of five users, 60 users whose views are dropped at once, 60 more who only read: every token
    that a message needs is still there when the server is back, and the others' are gone."""
    names = [f"guest-{number}" for number in range(60)]
    channel = server.channel(*names)
    tokens = {name: server.mint(name) for name in names}
    chat = connect(token=None, user="service", users_kept=5)
    server.faults("status", operation="send", status=503)
    for name in names:
        chat.as_user(name, token=tokens[name]).send(channel, name, wait=0)
    for number in range(60):
        chat.as_user(f"reader-{number}", token=server.mint("alice"))
    gc.collect()
    server.clear_faults()
    chat.circuits["api"].reset()
    chat.outbox.flush(20)
    eventually(lambda: chat.outbox.stats().pending == 0, "the delivery")
    assert sorted(each["user"] for each in server.log()["messages"] if each["channel"] == channel) == sorted(names)
    for number in range(60):
        chat.as_user(f"reader-{number}", token=tokens[names[0]])
    gc.collect()
    assert len(chat._parts.users._managers()) <= 5


def test_user_who_was_forgotten_without_a_token_comes_back(
    server: DevServer, connect: Callable[..., ChatClient]
) -> None:
    """The provider had no token, the message was given up, and a crowd of others took the place; when the provider has
    one, the next message goes out."""
    refused = {"shut-out"}
    crowd = [f"crowd-{number}" for number in range(5)]
    channel = server.channel("shut-out", *crowd)
    chat = connect(
        token=None,
        user="service",
        users_kept=2,
        token_provider=lambda wanted: None if wanted.user in refused else server.mint(wanted.user),
    )
    first = chat.as_user("shut-out").send(channel, "first", wait=0)
    eventually(lambda: chat._parts.users.lost("shut-out"), "the loss")
    eventually(lambda: first.reason is Reason.AUTH, "the pause")
    assert eventually(lambda: chat.outbox.discard([first.id]), "giving it up") == 1
    for name in crowd:
        chat.as_user(name).channels.get(channel)
    gc.collect()
    assert chat._parts.users.find("shut-out") is None
    refused.clear()
    assert chat.as_user("shut-out").send(channel, "second", wait=10).state is State.SENT


def test_every_source_serves_its_users(server: DevServer, connect: Callable[..., ChatClient], state_dir: Path) -> None:
    """A provider, a static token, a session that is refreshed: each user on one client is served from its own."""
    names = ["static", "pair", "provided-1", "provided-2"]
    channel = server.channel(*names)
    asked: list[TokenRequest] = []

    def provide(wanted: TokenRequest) -> str:
        asked.append(wanted)
        return server.mint(wanted.user)

    chat = connect(token=None, user="service", token_provider=provide)
    pair = server.session("pair")
    held = [
        chat.as_user("static", token=server.mint("static")),
        chat.as_user("pair", token=Token(pair["token"], refresh=pair["refreshToken"])),
        *(chat.as_user(name) for name in names[2:]),
    ]
    assert [view.send(channel, view.user).state for view in held] == [State.SENT] * 4
    assert {wanted.user for wanted in asked} == {"provided-1", "provided-2"}
    server.faults("expire_tokens")
    asked.clear()
    assert [view.send(channel, f"{view.user} again", wait=10).state for view in held] == [State.SENT] * 4
    # whose token was static gets the next one from the provider; the session is refreshed
    assert {wanted.user for wanted in asked} == {"static", "provided-1", "provided-2"}
    log = [(each["user"], each["text"]) for each in server.log()["messages"] if each["channel"] == channel]
    assert sorted(log) == sorted(chain.from_iterable([(name, name), (name, f"{name} again")] for name in names))
    assert len(list((state_dir).glob("**/tokens/*.json"))) == 1


def test_signer_serves_whoever_comes(server: DevServer, connect: Callable[..., ChatClient]) -> None:
    """A backend that signs tokens itself, 60 users from eight threads, five kept: each is delivered as itself."""
    names = [f"signed-{number}" for number in range(60)]
    channel = server.channel(*names)
    signer = SignedTokens(server.secret, server.app_id, ws_secret=server.ws_secret)
    chat = connect(token=None, user="service", signed_tokens=signer, users_kept=5)
    with ThreadPoolExecutor(THREADS) as pool:
        receipts = list(pool.map(lambda name: chat.as_user(name).send(channel, name, wait=10), names))
    assert {receipt.state for receipt in receipts} == {State.SENT}
    log = [(each["user"], each["text"]) for each in server.log()["messages"] if each["channel"] == channel]
    assert sorted(log) == [(name, name) for name in sorted(names)]
    assert len(chat._parts.users._kept) <= 6


def test_users_come_and_go_while_the_server_stumbles(
    server: DevServer, connect: Callable[..., ChatClient], texts: Callable[[str], list[str]]
) -> None:
    """Eight threads speak for 40 users by views that they drop at once, three users are kept, every third try fails:
    every message arrives, once, and each user's in order."""
    names = [f"guest-{number}" for number in range(40)]
    channel = server.channel(*names)
    tokens = {name: server.mint(name) for name in names}
    chat = connect(token=None, user="service", users_kept=3, circuit_failures=1000)
    server.faults("status", operation="send", status=503, probability=0.3, seed=4)

    def talk(share: list[str]) -> None:
        for n in range(6):
            for name in share:
                chat.as_user(name, token=tokens[name]).send(channel, f"{name} {n}", wait=0)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(talk, shares(names)))
    server.clear_faults()
    chat.outbox.flush(20)
    eventually(lambda: chat.outbox.stats().pending == 0, "the delivery")
    arrived = texts(channel)
    assert len(arrived) == len(set(arrived)) == 6 * len(names)
    for name in names:
        assert [text for text in arrived if text.startswith(f"{name} ")] == [f"{name} {n}" for n in range(6)]
    for name in names[:8]:  # with nothing left to send, there is room for three again
        chat.as_user(name, token=tokens[name])
    for _ in range(10):
        chat.as_user(names[0], token=tokens[names[0]])
    gc.collect()
    assert len(chat._parts.users._managers()) <= 4


def test_one_key_of_two_users_is_two_messages(server: DevServer, connect: Callable[..., ChatClient]) -> None:
    """The same text under the same key by two users at the same time, in one channel: both are delivered, and neither's
    view shows the other's message."""
    channel = server.channel("one", "two")
    chat = connect(token=None, user="service", token_provider=lambda wanted: server.mint(wanted.user))
    views = [chat.as_user(name) for name in ("one", "two")]
    with ThreadPoolExecutor(2) as pool:
        receipts = list(pool.map(lambda view: view.send(channel, "paid", key="order 7"), views))
    assert [receipt.state for receipt in receipts] == [State.SENT] * 2
    assert receipts[0].key != receipts[1].key
    for view, mine, other in zip(views, receipts, reversed(receipts), strict=True):
        assert view.outbox.get(mine.id).key == mine.key
        for name in (other.id, other.key):
            with pytest.raises(NotFound):
                view.outbox.get(name)
        assert chat.outbox.get(mine.key).id == mine.id


def test_user_who_signs_in_later_on_a_named_client(server: DevServer, connect: Callable[..., ChatClient]) -> None:
    """A client that names its user and has no token yet takes one by `connect_user`; its outbox still shows all."""
    chat = connect(token=None, user="late")
    channel = server.channel("late", "other")
    chat.connect_user("late", server.mint("late"))
    first = chat.send(channel, "here")
    assert first.state is State.SENT
    chat.connect_user("other", server.mint("other"))
    assert chat.send(channel, "there").state is State.SENT
    assert chat.outbox.get(first.id).key == first.key


def test_ten_thousand_strange_ids(server: DevServer, connect: Callable[..., ChatClient], state_dir: Path) -> None:
    """255 characters with slashes: 10,000 views and tokens, of which a few send and are delivered as themselves; with
    line breaks they are refused before anything happens. No file is named after a user."""

    def strange(number: int) -> str:
        begin = f"../{number}/é %2e?#\"'\u2603:"
        return begin + "/" * (255 - len(begin))

    ids = [strange(number) for number in range(10_000)]
    senders = ids[::500]
    channel = server.channel(*senders)
    chat = connect(token=None, user="service", users_kept=100)
    before = descriptors(), threading.active_count()
    for user in ids:
        chat.as_user(user, token="t")
        with pytest.raises(InvalidArgument):
            chat.as_user(user[:-1] + "\n", token="t")
        with pytest.raises(InvalidArgument):
            chat.connect_user("\r\n" + user[2:], "t")
    assert (descriptors(), threading.active_count()) == before
    gc.collect()
    assert len(chat._parts.users._managers()) <= 100
    views = [chat.as_user(user, token=server.mint(user)) for user in senders]
    with ThreadPoolExecutor(THREADS) as pool:
        receipts = list(pool.map(lambda view: view.send(channel, view.user[:20]), views))
    assert [receipt.state for receipt in receipts] == [State.SENT] * len(senders)
    log = [(each["user"], each["text"]) for each in server.log()["messages"] if each["channel"] == channel]
    assert sorted(log) == sorted((user, user[:20]) for user in senders)
    assert [view.channels.get(channel).id for view in views] == [channel] * len(views)
    names = [path.name for path in state_dir.rglob("*")]
    assert all(name.isascii() and len(name) < 100 for name in names)
    assert list(state_dir.parent.iterdir()) == [state_dir]
