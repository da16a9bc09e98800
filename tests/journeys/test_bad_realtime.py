"""A realtime server, and handlers, that do everything wrong: what is wrong is typed, logged once and counted, and the
connection and the other channels go on."""

from __future__ import annotations

import json
import logging
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chatsdk import ChatClient, ConnectionFailedError, events
from chatsdk.core.protocols.states import ConnectionState as S
from chatsdk.devserver.process import DevServer
from tests.journeys.listeners import PROTOCOLS, Listener
from tests.waiting import eventually

LOGGER = "chatsdk.realtime"
RECONNECT_S = 2.0


@pytest.fixture
def alice(connect: Callable[..., ChatClient]) -> ChatClient:
    """Who writes."""
    return connect()


@pytest.fixture(params=PROTOCOLS)
def bob(request: pytest.FixtureRequest, server: DevServer, channel: str, tmp_path: Path) -> Iterator[Listener]:
    """Who listens to the channel, by either protocol."""
    with Listener(server, tmp_path / "b", request.param) as listener:
        yield listener.hear(channel)


@pytest.fixture
def centrifugo(server: DevServer, channel: str, tmp_path: Path) -> Iterator[Listener]:
    """Who listens to it by Centrifugo's protocol."""
    with Listener(server, tmp_path / "b") as listener:
        yield listener.hear(channel)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of realtime, from warnings up."""
    return [each.getMessage() for each in caplog.records if each.name == LOGGER and each.levelno >= logging.WARNING]


# ---- frames


NONSENSE = {
    "no JSON": '{"push":',
    "empty": "",
    "half of a surrogate pair": '"\\ud800"',
    "a list": "[1, 2]",
    "a number": "1e999",
    "NaN": "NaN",
    "null": "null",
    "deep": "[" * 5000,
    "deep and well-formed": "[" * 200 + "]" * 200,
    "a long number": "9" * 5000,
    "an answer to nothing": '{"id": 999, "subscribe": {}}',
    "a push of nothing": '{"push": {}}',
    "a push without a channel": '{"push": {"pub": {"data": 1}}}',
    "a push of the wrong type": '{"push": {"channel": 5, "pub": [1]}}',
    "an error without a code": '{"id": 1, "error": "no"}',
    "a type of the wrong type": '{"type": ["message"]}',
    "a message without anything": '{"type": "message"}',
    "control characters": "\x00\x01\x02",
    "many lines of nothing": "\n" * 5000,
}


@pytest.mark.parametrize("text", NONSENSE.values(), ids=NONSENSE)
def test_a_frame_that_makes_no_sense_changes_nothing(
    text: str, server: DevServer, bob: Listener, alice: ChatClient, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However often it comes: said once at most, and the connection is the same one."""
    for _ in range(3):
        server.realtime.garbage(text, user="bob")
    alice.send(channel, "after it")
    eventually(lambda: bob.texts(channel) == ["after it"])
    assert bob.chat.connection.metrics().reconnects == 0
    assert len(warnings_of(caplog)) <= 1


BROKEN = {
    "reserved bits": b"\xf1\x00",
    "an unknown opcode": b"\x83\x00",
    "compressed": b"\xc1\x0b\x4a\x4c\x4a\x06\x00\x00\x00\x00\xff\xff\x00",
    "1 TiB announced": b"\x81\x7f" + (2**40).to_bytes(8, "big") + b"{",
    "more than there are numbers": b"\x81\x7f" + b"\xff" * 8,
    "not UTF-8": b"\x81\x04\xff\xfe\xfd\xfc",
    "half of a surrogate pair in UTF-8": b"\x81\x05" + b'"\xed\xa0\x80"',
    "masked": b"\x81\x85\x01\x02\x03\x04hello",
    "the end of what never began": b"\x80\x02{}",
    "two beginnings": b"\x01\x02{}\x01\x02{}",
    "a long ping": b"\x89\x7e\x00\x80" + b"x" * 128,
    "a ping in pieces": b"\x09\x01x",
    "HTTP": b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
    "a close code that nobody may send": b"\x88\x02\x03\xed",
    "a close frame of one byte": b"\x88\x01\x03",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_is_no_frame_costs_one_reconnect(
    data: bytes, server: DevServer, bob: Listener, alice: ChatClient, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The connection is of no use any more: it is given up at once, with a reason, and the next one misses nothing."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    server.realtime.garbage(data, user="bob")
    alice.send(channel, "meanwhile", wait=0)
    eventually(lambda: bob.texts(channel) == ["meanwhile"] and bob.states[-1] is S.CONNECTED)
    assert time.monotonic() - began < RECONNECT_S
    assert bob.chat.connection.metrics().reconnects == 1
    [lost] = bob.of(events.Disconnected)
    assert lost.reason
    assert lost.reconnecting
    assert len(warnings_of(caplog)) == 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024, "KiB: nothing of it is believed"


def test_half_a_frame_and_then_the_end(server: DevServer, bob: Listener, alice: ChatClient, channel: str) -> None:
    """Cut in the middle of a message: it comes whole, once, after the reconnect."""
    server.realtime.garbage(b"\x81\x7e\x01\x00" + b'{"type":', user="bob")
    alice.send(channel, "one")
    server.realtime.cut("bob")
    alice.send(channel, "two")
    eventually(lambda: len(bob.texts(channel)) >= 2)
    assert bob.texts(channel) == ["one", "two"]


def test_a_message_longer_than_the_limit(server: DevServer, alice: ChatClient, channel: str, tmp_path: Path) -> None:
    """It is not read: one reconnect. What is within the limit is heard."""
    with Listener(server, tmp_path / "b", max_response_bytes=2**20) as bob:
        bob.hear(channel)
        server.realtime.oversized(2**20 + 100, user="bob")
        eventually(lambda: bob.chat.connection.metrics().reconnects == 1)
        server.realtime.oversized(2**20 - 100, user="bob")
        alice.send(channel, "after it")
        eventually(lambda: bob.texts(channel) == ["after it"])
        assert bob.chat.connection.metrics().reconnects == 1


# ---- publications


def publication(channel: str, **message: Any) -> dict[str, Any]:
    """What the server publishes of a new message."""
    given = {
        "id": "00000000-0000-4000-8000-000000000001",
        "seq": 1,
        "user": {"id": "alice", "name": "Alice"},
        **message,
    }
    return {"type": "message.new", "payload": {"channelId": channel, "message": given}}


def test_surrogates_are_made_whole(server: DevServer, centrifugo: Listener, channel: str) -> None:
    """JSON may hold half of a pair, text may not: a handler gets what can be written again."""
    push = {"channel": server.stream(channel), "pub": {"data": publication(channel, text="a\ud800b 😀"), "offset": 1}}
    server.realtime.garbage(json.dumps({"push": push}), user="bob")
    eventually(lambda: centrifugo.texts(channel) == ["a\N{REPLACEMENT CHARACTER}b 😀"])


@pytest.mark.parametrize(
    "data",
    [
        {"type": "sticker.sent", "payload": {"sticker": "cat"}},
        {"type": 5},
        {"type": ["message.new"]},
        {"type": "message.new"},
        {"type": "message.new", "payload": {"message": {"text": "no id"}}},
        {"type": "message.new", "payload": "text"},
        {},
        [1, {"type": "message.new"}],
        "text",
        None,
        17,
    ],
    ids=repr,
)
def test_what_nobody_knows_is_unknown(
    data: Any, server: DevServer, centrifugo: Listener, alice: ChatClient, channel: str
) -> None:
    """It comes with what the server sent, in its place, and the channel goes on."""
    server.realtime.publish(server.stream(channel), data)
    alice.send(channel, "after it")
    eventually(lambda: centrifugo.texts(channel) == ["after it"])
    [unknown] = centrifugo.of(events.Unknown)
    assert (unknown.channel, unknown.raw) == (channel, data)
    assert centrifugo.events.index(unknown) < centrifugo.events.index(centrifugo.received(channel)[0])


WRONG = {
    "a seq of the wrong type": {"seq": [1]},
    "a negative seq": {"seq": -5},
    "a seq that is text": {"seq": "1"},
    "a seq beyond 8 bytes": {"seq": 2**70},
    "a seq that the server has not reached": {"seq": 2**62},
    "a text of the wrong type": {"text": {"a": 1}},
    "no user": {"user": None},
    "a user of the wrong type": {"user": [1]},
    "a time that is none": {"createdAt": "yesterday"},
    "attachments of the wrong type": {"attachments": "x"},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_message_with_something_wrong_in_it_stops_nobody(
    wrong: dict[str, Any], server: DevServer, centrifugo: Listener, alice: ChatClient, channel: str
) -> None:
    """Whatever it is taken for: those before and after it are heard, and reading its model never raises."""
    alice.send(channel, "before it")
    server.realtime.publish(server.stream(channel), publication(channel, **{"text": "it", "seq": None, **wrong}))
    alice.send(channel, "after it")
    eventually(lambda: "after it" in centrifugo.texts(channel))
    heard = [text for text in centrifugo.texts(channel) if text in ("before it", "after it")]
    assert heard == ["before it", "after it"]
    assert centrifugo.chat.connection.metrics().reconnects == 0


def test_streams_that_nobody_subscribed(
    server: DevServer, centrifugo: Listener, alice: ChatClient, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What comes of them is passed over, and said once."""
    other = server.channel("alice")
    for _ in range(3):
        push = {"channel": server.stream(other), "pub": {"data": publication(other, text="not for you"), "offset": 1}}
        server.realtime.garbage(json.dumps({"push": push}), user="bob")
    alice.send(channel, "after it")
    eventually(lambda: centrifugo.texts(channel) == ["after it"])
    assert not centrifugo.texts(other)
    assert centrifugo.chat.connection.metrics().reconnects == 0
    assert len(warnings_of(caplog)) <= 1


@pytest.mark.parametrize("queue", [False, True], ids=["on the way", "in the queue"])
def test_repetitions_and_disorder(
    queue: bool, server: DevServer, bob: Listener, alice: ChatClient, channel: str
) -> None:
    """Each is heard once, in order."""
    server.realtime.duplicate(2, queue=queue, every=2)
    server.realtime.reorder(5, queue=queue)
    wanted = [f"m{number}" for number in range(20)]
    for text in wanted:
        alice.send(channel, text)
    eventually(lambda: len(bob.texts(channel)) >= len(wanted))
    assert bob.texts(channel) == wanted
    assert not any(event.late for event in bob.received(channel))
    assert not [gap for gap in bob.of(events.Gap) if gap.channel]


def test_messages_that_are_never_published(server: DevServer, alice: ChatClient, channel: str, tmp_path: Path) -> None:
    """Silence proves nothing: a quiet channel is looked up, and what was never published is heard."""
    with Listener(server, tmp_path / "b", quiet_check=0.3) as bob:
        bob.hear(channel)
        server.realtime.drop(queue=True, channel=channel)
        alice.send(channel, "one")
        alice.send(channel, "two")
        eventually(lambda: len(bob.texts(channel)) >= 2)
        assert bob.texts(channel) == ["one", "two"]


# ---- refusals


def wrong_tokens(server: DevServer) -> dict[str, str]:
    return {
        "no token at all": "x.y.z",
        "signed by another": server.session("bob")["wsToken"][:-8] + "AAAAAAAA",
        "an access token": server.mint("bob"),
    }


@pytest.mark.parametrize("kind", ["no token at all", "signed by another", "an access token"])
def test_wrong_tokens_end_it(kind: str, server: DevServer, channel: str, tmp_path: Path) -> None:
    """Centrifugo refuses it for good: FAILED with a hint, no storm of tries, and no secret in what is said."""
    token = wrong_tokens(server)[kind]
    with Listener(server, tmp_path / "b", ws_token=token, reconnect="forever") as bob:
        bob.chat.subscribe(channel)
        with pytest.raises(ConnectionFailedError) as failure:
            bob.chat.run_forever()
        assert failure.value.hint
        assert bob.states[-1] is S.FAILED
        assert bob.states.count(S.RECONNECTING) <= 1
        said = f"{failure.value!r} {failure.value} {bob.chat.connection.status_text} {bob.events!r}"
        assert token not in said


@pytest.mark.parametrize(
    ("protocol", "code"), [("centrifugo", 3500), ("centrifugo", 3503), ("centrifugo", 4500), ("json", 1008)]
)
def test_terminal_close_codes_are_obeyed(
    protocol: str, code: int, server: DevServer, channel: str, tmp_path: Path
) -> None:
    """The server says to stay away: FAILED with its reason, and nobody comes back."""
    with Listener(server, tmp_path / "b", protocol, reconnect="forever") as bob:
        bob.hear(channel)
        later = threading.Timer(0.2, lambda: server.realtime.cut("bob", code=code, reason="stay away"))
        later.start()
        with pytest.raises(ConnectionFailedError, match="stay away"):
            bob.chat.run_forever()
        later.join()
        assert bob.states == [S.CLOSED, S.CONNECTING, S.CONNECTED, S.FAILED]
        assert bob.chat.connection.status_text == "Failed: stay away"
        [lost] = bob.of(events.Disconnected)
        assert (lost.code, lost.reconnecting) == (code, False)


# ---- handlers


def test_a_handler_that_raises_stops_nobody(
    server: DevServer, bob: Listener, alice: ChatClient, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not the next handler, not the next event; it is logged once, and counts as handled."""
    other = server.channel("alice", "bob")
    bob.hear(other)

    def clumsy(event: events.MessageReceived) -> None:
        raise LookupError("a mistake of the bot's author")

    bob.chat.on(events.MessageReceived, clumsy)
    for number in range(5):
        alice.send(channel, f"m{number}")
        alice.send(other, f"m{number}")
    wanted = [f"m{number}" for number in range(5)]
    eventually(lambda: bob.texts(channel) == bob.texts(other) == wanted)
    assert bob.chat.connection.metrics().reconnects == 0
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == 1, [record.getMessage() for record in told]
    assert told[0].exc_info is not None


def test_a_handler_that_blocks_holds_up_its_own_channel_only(
    server: DevServer, alice: ChatClient, channel: str, tmp_path: Path
) -> None:
    """For longer than it takes to find out a dead connection: this one lives, other channels are heard, and `close`
    does not wait for it."""
    with DevServer(ping_interval=1.0, pong_timeout=0.8) as quick:
        blocked, other = quick.channel("alice", "bob"), quick.channel("alice", "bob")
        writer = ChatClient(quick.url, quick.tokens["alice"], state_dir=str(tmp_path / "a"), discover=False)
        free = threading.Event()
        entered: list[str] = []

        def hold(event: events.MessageReceived) -> None:
            if event.channel == blocked:
                entered.append(event.channel)
                free.wait(60.0)

        bob = Listener(quick, tmp_path / "b", heartbeat_timeout=0.5)
        try:
            bob.chat.on(events.MessageReceived, hold)
            bob.hear(blocked, other)
            for _ in range(3):
                writer.send(blocked, "wait for me")
            eventually(lambda: entered)
            began = time.monotonic()
            sent: list[str] = []
            while time.monotonic() - began < 3.0:
                sent.append(f"m{len(sent)}")
                writer.send(other, sent[-1])
                eventually(lambda: bob.texts(other) == sent, seconds=1.0)
            assert len(entered) == 1
            assert bob.states == [S.CLOSED, S.CONNECTING, S.CONNECTED]
            began = time.monotonic()
            bob.chat.close(1.0)
            assert time.monotonic() - began < 1.5
            assert bob.states[-1] is S.CLOSED
        finally:
            free.set()
            bob.chat.close(1.0)
            writer.close()


def test_a_handler_may_call_the_client(server: DevServer, bob: Listener, alice: ChatClient, channel: str) -> None:
    """It sends and waits, lists, subscribes, unsubscribes, disconnects: what it may do elsewhere it may do there."""
    other = server.channel("alice", "bob")
    done: list[str] = []

    def obey(event: events.MessageReceived) -> None:
        chat = bob.chat
        if event.own:
            return
        match event.message.text:
            case "send":
                assert chat.send(channel, "answer").delivered
            case "list":
                assert "list" in [message.text for message in chat.messages.list(channel)]
            case "subscribe":
                chat.subscribe(other)
            case "unsubscribe":
                chat.unsubscribe(other)
            case "reconnect":
                chat.disconnect(5.0)
                assert chat.connection.state is S.CLOSED
                chat.connect()
        done.append(str(event.message.text))

    bob.chat.on(events.MessageReceived, obey)
    given: list[str] = []
    for order in ("send", "list", "subscribe", "unsubscribe", "reconnect", "last"):
        given.append(order)
        alice.send(channel, order)
        eventually(lambda: done == given)
        if order == "subscribe":
            eventually(lambda: bob.chat.connection.subscriptions[other] == "subscribed")
    assert [text for text in bob.texts(channel) if text != "answer"] == done
    assert bob.texts(channel).count("answer") == 1


def test_a_bot_that_answers_itself_does_not_hang(
    server: DevServer, bob: Listener, alice: ChatClient, channel: str
) -> None:
    """Handlers that send, of several channels at once, wait for their own echoes only."""
    channels = [channel, *(server.channel("alice", "bob") for _ in range(7))]
    bob.hear(*channels)

    def answer(event: events.MessageReceived) -> None:
        if not event.own:
            bob.chat.send(event.channel, f"re: {event.message.text}")

    bob.chat.on(events.MessageReceived, answer)
    for number in range(5):
        for each in channels:
            alice.send(each, f"m{number}", wait=0)
    eventually(lambda: all(len(bob.texts(each)) == 10 for each in channels))
    for each in channels:
        assert [text for text in bob.texts(each) if str(text).startswith("re")] == [f"re: m{n}" for n in range(5)]
