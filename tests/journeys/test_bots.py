"""Stories of bots: they hear everything once and in order, answer, end politely, and go on where they stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from chatsdk import ChatClient, ConnectionFailedError, InvalidArgument, Token, events
from chatsdk.devserver.process import DevServer
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 15.0


until = partial(eventually, seconds=LIMIT)


@pytest.fixture(params=["centrifugo", "json"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def bot(server: DevServer, tmp_path: Path) -> Iterator[Callable[..., ChatClient]]:
    """Makes clients that can listen, each with a state directory of its own unless it is said."""
    made: list[ChatClient] = []

    def make(user: str = "bob", **options: Any) -> ChatClient:
        given = {
            "token": server.tokens[user],
            "ws_token": server.ws_tokens[user],
            "state_dir": str(tmp_path / f"bot-{len(made)}"),
            "discover": False,
            "reconnect": "fast",
            **options,
        }
        made.append(ChatClient(server.url, **given))
        return made[-1]

    yield make
    for chat in made:
        with contextlib.suppress(Exception):
            chat.close(1.0)


def listen(chat: ChatClient, channel: str, **options: Any) -> list[events.RealtimeEvent]:
    """What `chat` hears of a channel, from now on: returns when it is subscribed."""
    heard: list[events.RealtimeEvent] = []
    ready = threading.Event()
    chat.on(events.RealtimeEvent, heard.append)
    chat.on(
        events.SubscriptionStateChanged,
        lambda event: ready.set() if (event.channel, event.state) == (channel, "subscribed") else None,
    )
    chat.subscribe(channel, **options)
    assert ready.wait(LIMIT), chat.connection.status_text
    return heard


def texts(heard: list[events.RealtimeEvent]) -> list[str]:
    return [event.message.text for event in heard if isinstance(event, events.MessageReceived)]


def test_messages_arrive(
    protocol: str, connect: Callable[..., ChatClient], bot: Callable[..., ChatClient], channel: str
) -> None:
    """What others send is heard, in order, with its models."""
    alice = connect()
    heard = listen(bot(realtime=protocol), channel)
    for number in range(20):
        alice.send(channel, f"m{number}")
    until(lambda: len(texts(heard)) == 20)
    assert texts(heard) == [f"m{number}" for number in range(20)]
    first = next(event for event in heard if isinstance(event, events.MessageReceived))
    assert (first.channel, first.user, first.own, first.message.user_id) == (channel, "bob", False, "alice")


def test_ones_own_message_comes_once(protocol: str, bot: Callable[..., ChatClient], channel: str) -> None:
    """It is MessageQueued, MessageSent, and once MessageReceived, by the same key, marked as one's own."""
    chat = bot(realtime=protocol)
    heard = listen(chat, channel)
    told: list[Any] = []
    chat.on(events.MessageEvent, told.append)
    receipt = chat.send(channel, "mine")
    until(lambda: texts(heard))
    chat.send(channel, "and another")
    until(lambda: len(texts(heard)) == 2)
    assert [type(event) for event in told[:2]] == [events.MessageQueued, events.MessageSent]
    echoes = [event for event in heard if isinstance(event, events.MessageReceived) and event.key == receipt.key]
    assert [event.own for event in echoes] == [True]


def test_send_inside_a_handler(
    protocol: str, connect: Callable[..., ChatClient], bot: Callable[..., ChatClient], channel: str
) -> None:
    """A handler may do what it likes, also wait for its answer's delivery."""
    chat = bot(realtime=protocol)

    @chat.on(events.MessageReceived)
    def answer(event: events.MessageReceived) -> None:
        if not event.own:
            assert chat.send(channel, f"re: {event.message.text}", reply_to=event.message_id).delivered

    heard = listen(chat, channel)
    for number in range(5):
        connect().send(channel, f"m{number}")
    until(lambda: len(texts(heard)) == 10)
    assert [text for text in texts(heard) if text.startswith("re")] == [f"re: m{number}" for number in range(5)]


def test_edits_reactions_typing(
    connect: Callable[..., ChatClient], bot: Callable[..., ChatClient], channel: str
) -> None:
    """Everything else that happens in a channel is heard too."""
    alice, heard = connect(), listen(bot(), channel)
    message = alice.send(channel, "first").message
    assert message is not None
    alice.messages.edit(channel, message.id, "second")
    alice.messages.react(channel, message.id, "👍")
    alice.typing.start(channel)
    alice.typing.stop(channel)
    alice.messages.delete(channel, message.id)
    wanted = (
        events.MessageReceived,
        events.MessageUpdated,
        events.ReactionAdded,
        events.MessageDeleted,
    )
    until(lambda: {type(event) for event in heard} >= set(wanted))
    until(lambda: any(isinstance(event, events.TypingStopped) for event in heard))
    assert [type(event) for event in heard if isinstance(event, wanted)] == list(wanted)
    update = next(event for event in heard if isinstance(event, events.MessageUpdated))
    assert update.message.text == "second"


def test_a_loop(connect: Callable[..., ChatClient], bot: Callable[..., ChatClient], channel: str) -> None:
    """`for event in chat.events()` gives the same, and ends when nothing comes."""
    chat = bot()
    with chat.events(events.MessageReceived, timeout=2.0) as stream:
        chat.subscribe(channel)
        until(lambda: chat.connection.subscriptions.get(channel) == "subscribed")
        alice = connect()
        for number in range(3):
            alice.send(channel, f"m{number}", wait=0)
        assert [event.message.text for event in stream] == ["m0", "m1", "m2"]


def test_a_loop_hears_what_is_missing(
    server: DevServer, connect: Callable[..., ChatClient], bot: Callable[..., ChatClient], channel: str
) -> None:
    """The server forgets its history while the connection is down: the loop is told, in its place, and the message
    comes all the same."""
    chat = bot()
    with chat.events(timeout=LIMIT) as stream:
        chat.subscribe(channel)
        until(lambda: chat.connection.subscriptions.get(channel) == "subscribed")
        server.realtime.epoch_reset(tell=False)
        server.realtime.cut()
        connect().send(channel, "meanwhile", wait=0)
        kinds = []
        while events.MessageReceived not in kinds:
            kinds.append(type(next(stream)))
    assert events.ChangesMissed in kinds


def test_cuts_lose_nothing(
    protocol: str, server: DevServer, connect: Callable[..., ChatClient], bot: Callable[..., ChatClient], channel: str
) -> None:
    """The connection is cut while messages come: all of them are heard, once, in order."""
    alice, chat = connect(), bot(realtime=protocol)
    heard = listen(chat, channel)
    for number in range(60):
        alice.send(channel, f"m{number}")
        if number % 20 == 10:
            server.realtime.cut()
    until(lambda: len(texts(heard)) >= 60)
    assert texts(heard) == [f"m{number}" for number in range(60)]
    assert chat.connection.metrics().reconnects >= 1


def test_going_on_where_it_stopped(
    connect: Callable[..., ChatClient], bot: Callable[..., ChatClient], channel: str, tmp_path: Path
) -> None:
    """A bot that was away hears what was said meanwhile; what it had handled it does not hear again."""
    alice = connect()
    first = bot(state_dir=str(tmp_path / "kept"))
    heard = listen(first, channel)
    alice.send(channel, "one")
    until(lambda: texts(heard) == ["one"])
    first.close()
    alice.send(channel, "two")
    again = listen(bot(state_dir=str(tmp_path / "kept")), channel)
    alice.send(channel, "three")
    until(lambda: len(texts(again)) == 2)
    assert texts(again) == ["two", "three"]


def test_from_the_first_one(connect: Callable[..., ChatClient], bot: Callable[..., ChatClient], channel: str) -> None:
    """`since=0` begins with the channel's first message, and stores nothing with `keep=False`."""
    alice = connect()
    for number in range(3):
        alice.send(channel, f"m{number}")
    chat = bot()
    heard = listen(chat, channel, since=0, keep=False)
    until(lambda: len(texts(heard)) == 3)
    assert texts(heard) == ["m0", "m1", "m2"]


def test_several_users_of_one_client(
    server: DevServer, connect: Callable[..., ChatClient], bot: Callable[..., ChatClient], channel: str
) -> None:
    """Each user has a connection of his own, and events say whose they are."""
    chat = bot("alice")
    bob = chat.as_user("bob", Token(server.tokens["bob"], server.ws_tokens["bob"]))
    heard: list[events.MessageReceived] = []
    chat.on(events.MessageReceived, heard.append)
    for each in (chat, bob):
        each.subscribe(channel)
        until(lambda each=each: each.connection.subscriptions.get(channel) == "subscribed")
    chat.send(channel, "hello")
    until(lambda: len(heard) == 2)
    assert {(event.user, event.own) for event in heard} == {("alice", True), ("bob", False)}


def test_wrong_channels(bot: Callable[..., ChatClient]) -> None:
    """A channel that cannot be is refused at once; one that is not there fails with a reason."""
    chat = bot()
    with pytest.raises(InvalidArgument):
        chat.subscribe("no such alias")
    errors: list[Any] = []
    chat.on(events.SubscriptionStateChanged, lambda event: errors.append(event.error) if event.error else None)
    missing = "00000000-0000-7000-8000-00000000dead"
    chat.subscribe(missing)
    until(lambda: errors)
    assert chat.connection.subscriptions[missing] == "failed"
    assert errors[0].hint


def test_close_is_quick(protocol: str, bot: Callable[..., ChatClient], channel: str) -> None:
    """Closing a client that listens takes no time and leaves no thread."""
    chat = bot(realtime=protocol)
    listen(chat, channel)
    began = monotonic()
    chat.close()
    assert monotonic() - began < 2.0
    assert chat.connection.state == "CLOSED"
    until(lambda: not [each for each in threading.enumerate() if each.name.startswith("chatsdk-realtime")])


def test_close_inside_a_handler(
    connect: Callable[..., ChatClient], bot: Callable[..., ChatClient], channel: str
) -> None:
    """A bot that is told to stop may close its client there and then."""
    chat, closed = bot(), threading.Event()

    @chat.on(events.MessageReceived)
    def stop(_: events.MessageReceived) -> None:
        chat.close(2.0)
        closed.set()

    listen(chat, channel)
    connect().send(channel, "stop")
    assert closed.wait(LIMIT)
    chat.run_forever()  # returns at once


def test_given_up(nowhere: str, server: DevServer, bot: Callable[..., ChatClient], channel: str) -> None:
    """With a limit of tries `run_forever` raises when it is reached; a wrong token ends it at once."""
    chat = bot(ws_url=nowhere.replace("http", "ws"))
    chat.subscribe(channel)
    with pytest.raises(ConnectionFailedError):
        chat.run_forever()
    assert chat.connection.state == "FAILED"
    wrong = bot(ws_token="x.y.z", reconnect="forever")
    wrong.subscribe(channel)
    with pytest.raises(ConnectionFailedError) as failure:
        wrong.run_forever()
    assert failure.value.hint


def test_a_forked_child_listens_for_itself(
    connect: Callable[..., ChatClient], bot: Callable[..., ChatClient], channel: str
) -> None:
    """A fork leaves the parent's connection alone; the child has none until it asks for one."""
    chat = bot()
    heard = listen(chat, channel)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            assert chat.connection.state == "CLOSED"
            with chat.events(events.MessageReceived, timeout=LIMIT) as stream:
                chat.subscribe(channel)
                until(lambda: chat.connection.subscriptions.get(channel) == "subscribed")
                os.write(write, b"ready")
                assert next(stream).message.text == "both"
                os.write(write, b"heard")
            os._exit(0)
        except BaseException as error:
            os.write(write, repr(error).encode())
            os._exit(1)
    assert os.read(read, 1000) == b"ready"
    connect().send(channel, "both")
    assert os.read(read, 1000) == b"heard"
    assert os.waitpid(child, 0)[1] == 0
    until(lambda: texts(heard) == ["both"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_echo_bot(
    number: signal.Signals,
    server: DevServer,
    environment: dict[str, str],
    bot: Callable[..., ChatClient],
    tmp_path: Path,
) -> None:
    """The example answers each message once, also those that came while it was down, and ends politely."""
    channel = server.channel("alice", "bob")
    mine = {**environment, "CHATSDK_WS_TOKEN": server.ws_tokens["alice"], "CHATSDK_STATE_DIR": str(tmp_path / "echo")}
    command = [sys.executable, str(ROOT / "examples" / "echo_bot.py"), channel]
    stack = contextlib.ExitStack()

    def run() -> subprocess.Popen[str]:
        process = stack.enter_context(subprocess.Popen(command, env=mine, stderr=subprocess.PIPE, text=True))
        stack.callback(process.kill)
        assert process.stderr is not None
        for line in process.stderr:
            if " subscribed" in line:
                return process
        raise AssertionError("it did not subscribe")

    with stack:
        heard = listen(chat := bot("bob"), channel)
        process = run()
        chat.send(channel, "one")
        until(lambda: "echo: one" in texts(heard))
        process.send_signal(number)
        assert process.wait(LIMIT) == 0
        chat.send(channel, "two")
        process = run()
        until(lambda: "echo: two" in texts(heard))
        process.kill()
        process.wait(LIMIT)
        process = run()
        chat.send(channel, "three")
        until(lambda: "echo: three" in texts(heard))
        process.send_signal(number)
        assert process.wait(LIMIT) == 0
        assert [text for text in texts(heard) if text.startswith("echo: ")] == [
            "echo: one",
            "echo: two",
            "echo: three",
        ]
