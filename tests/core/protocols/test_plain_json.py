"""The plain protocol, rule by rule, and with a server that says anything."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core.protocols.outputs import (
    Close,
    Heartbeat,
    Malformed,
    Opened,
    Output,
    Ping,
    Position,
    Published,
    RealtimeProtocol,
    Send,
    Subscribed,
    SubscribeFailed,
    Unsubscribed,
)
from chatsdk.core.protocols.plain_json import UNANSWERED, PlainJson
from tests.core.protocols.kit import TOKEN, commands, frame

MESSAGE = {"type": "message", "id": "m", "conversation_id": "a", "text": "hi", "sequence_number": 7}
PING, PONG = Send('{"type":"ping"}'), Send('{"type":"pong"}')


def opened(*streams: str, now: float = 0.0, own: str | None = None) -> PlainJson:
    protocol = PlainJson(streams, own=own)
    protocol.opened(TOKEN, now)
    protocol.receive(b'{"type":"pong"}', now)
    return protocol


def hearing(*streams: str, own: str | None = None) -> PlainJson:
    """A protocol that hears these streams."""
    protocol = opened(own=own)
    for stream in streams:
        protocol.subscribe(stream, None, None, 0.0)
        protocol.receive(frame({"type": "subscribed", "conversation_id": stream}), 0.0)
    return protocol


def test_it_is_a_realtime_protocol() -> None:
    """The seam's type fits; no subprotocol is asked for."""
    protocol: RealtimeProtocol = PlainJson()
    assert list(protocol.subprotocols) == []


def test_the_first_frame_opens() -> None:
    """After the handshake it is asked for life; with the answer, wishes from before are sent."""
    protocol = PlainJson()
    assert protocol.subscribe("a", TOKEN, None, 0.0) == []
    protocol.subscribe("b", TOKEN, None, 0.0)
    protocol.unsubscribe("b", 0.0)
    assert protocol.opened(TOKEN, 0.0) == [PING, Ping()]
    assert protocol.opened(TOKEN, 0.0) == []
    protocol.subscribe("c", TOKEN, None, 0.5)
    outputs = protocol.receive(b'{"type":"pong"}', 1.0)
    assert outputs[0] == Opened("")
    assert [command["conversation_id"] for command in commands(outputs)] == ["a", "c"]
    assert outputs[-1] == Heartbeat(1.0)


@pytest.mark.parametrize("life", [b"rubbish", b'{"type":"ping"}', b'{"type":"subscribed","conversation_id":"a"}'])
def test_any_frame_opens(life: bytes) -> None:
    """Whatever it says: it came through. The URL's conversation is answered before our ping may be."""
    protocol = PlainJson(["a"])
    protocol.opened(TOKEN, 0.0)
    outputs = protocol.receive(life, 1.0)
    assert outputs[0] == Opened("", "", ("a",))
    assert (Subscribed("a", by_server=True) in outputs) == (b"subscribed" in life)


def test_bytes_of_another_kind_open() -> None:
    """A server that knows no ping and waits for a subscription answers the ping frame at least."""
    protocol = PlainJson(["a"])
    protocol.subscribe("b", TOKEN, None, 0.0)
    protocol.opened(TOKEN, 0.0)
    protocol.heard(1.0)
    assert protocol.next_due() == 1.0
    outputs = protocol.due(1.0)
    assert outputs[0] == Opened("", "", ("a",))
    assert [command["conversation_id"] for command in commands(outputs)] == ["b"]
    assert (protocol.due(1.0), protocol.next_due()) == ([], 1.0 + UNANSWERED)


def test_a_handshake_with_nothing_after_it_is_no_connection() -> None:
    """It never opens, and ends when the pong should have come."""
    protocol = PlainJson()
    protocol.opened(TOKEN, 100.0)
    assert protocol.next_due() == 110.0
    assert protocol.due(110.0) == [Heartbeat(None, ok=False), Close(0, "no pong from the server")]
    assert protocol.next_due() is None


def test_a_pong_tells_the_latency() -> None:
    """Of the ping before it, once; also if something else came in between."""
    protocol = opened(now=0.0)
    protocol.due(30.0)
    assert Heartbeat(0.25) in protocol.receive_all([frame(MESSAGE).decode(), '{"type":"pong"}'], 30.25)
    assert protocol.receive(b'{"type":"pong"}', 31.0) == []


# ---- life


def test_a_heartbeat_after_silence() -> None:
    """A ping after 30 s without anything, and the end 10 s later."""
    protocol = opened(now=100.0)
    assert protocol.next_due() == 130.0
    assert protocol.due(129.9) == []
    assert protocol.due(130.0) == [PING]
    assert protocol.next_due() == 140.0
    assert protocol.due(139.9) == []
    assert protocol.due(140.0) == [Heartbeat(None, ok=False), Close(0, "no pong from the server")]
    assert protocol.next_due() is None
    assert protocol.receive(frame(MESSAGE), 140.0) == protocol.due(999.0) == []


@pytest.mark.parametrize("life", [b'{"type":"pong"}', frame(MESSAGE), b"rubbish", None])
def test_any_bytes_are_life(life: bytes | None) -> None:
    """A pong, a message, rubbish, or a frame of another kind."""
    protocol = hearing("a")
    protocol.due(30.0)
    if life is None:
        protocol.heard(39.0)
    else:
        protocol.receive(life, 39.0)
    assert protocol.due(68.9) == []
    assert protocol.due(69.0) == [PING]


def test_the_servers_ping_is_answered() -> None:
    """Each once."""
    protocol = opened()
    assert protocol.receive(b'{"type":"ping"}', 0.0) == [PONG]
    assert protocol.receive_all(['{"type":"ping"}', '{"type":"ping"}'], 0.0) == [PONG, PONG]
    assert protocol.receive(b'{"type":"pong"}', 0.0) == []


def test_times_are_arguments() -> None:
    """Of a heartbeat and of a subscription that nobody answers."""
    protocol = PlainJson(["a"], interval=3.0, timeout=1.0, unanswered=0.5)
    protocol.opened(None, 0.0)
    assert protocol.next_due() == 1.0
    protocol.receive(b'{"type":"pong"}', 0.0)
    assert protocol.next_due() == 0.5
    assert protocol.due(0.5) == [Subscribed("a", by_server=True)]
    assert protocol.due(3.0) == [PING]
    assert protocol.next_due() == 4.0


# ---- subscribing


def test_an_answered_subscription() -> None:
    """Nothing is recovered, ever; a second wish is told what stands."""
    protocol = opened()
    assert commands(protocol.subscribe("a", TOKEN, Position(1, "e"), 0.0)) == [
        {"type": "subscribe", "conversation_id": "a"}
    ]
    assert protocol.subscribe("a", TOKEN, Position(1, "e"), 0.0) == []
    answer = frame({"type": "subscribed", "conversation_id": "a"})
    assert protocol.receive(answer, 1.0) == [Subscribed("a", asked=True)]
    assert protocol.receive(answer, 1.0) == []
    assert protocol.subscribe("a", TOKEN, None, 1.0) == [Subscribed("a")]
    assert protocol.subscribe("", TOKEN, None, 1.0) == [SubscribeFailed("", 0, "a stream has a name")]


def test_an_unanswered_subscription_counts_after_a_while() -> None:
    """A server may know nothing of such frames."""
    protocol = opened()
    protocol.subscribe("a", None, None, 10.0)
    protocol.subscribe("b", None, None, 11.0)
    assert protocol.next_due() == 12.0
    assert protocol.due(12.0) == [Subscribed("a")]
    assert protocol.next_due() == 13.0
    assert protocol.due(13.0) == [Subscribed("b")]
    assert protocol.next_due() == 30.0


def test_a_message_answers_a_subscription() -> None:
    """It can only come from a server that has us there."""
    protocol = opened()
    protocol.subscribe("a", None, None, 0.0)
    assert protocol.receive(frame(MESSAGE), 0.0) == [Subscribed("a"), Published("a", MESSAGE)]
    assert protocol.due(2.0) == []


def test_the_urls_conversation_needs_no_frame() -> None:
    """It is subscribed by the server, with an answer or without."""
    protocol = PlainJson(["a", "a", ""])
    protocol.opened(None, 0.0)
    assert protocol.receive(b'{"type":"pong"}', 0.0)[0] == Opened("", "", ("a",))
    assert protocol.subscribe("a", None, Position(1, ""), 0.0) == []
    assert protocol.due(2.0) == [Subscribed("a", asked=True, by_server=True)]


@pytest.mark.parametrize(
    ("code", "number"),
    [("NOT_FOUND", 102), ("FORBIDDEN", 103), ("LIMIT", 106), ("BAD_REQUEST", 107), (7, 7), ("X", 0), (None, 0)],
)
def test_a_refused_subscription(code: object, number: int) -> None:
    """For good, with the number that Centrifugo has for the same."""
    protocol = opened()
    protocol.subscribe("a", None, None, 0.0)
    error = {"type": "error", "code": code, "message": "no", "conversation_id": "a"}
    assert protocol.receive(frame(error), 0.0) == [SubscribeFailed("a", number, "no")]
    assert protocol.due(2.0) == []
    assert [type(each) for each in protocol.receive(frame(error), 0.0)] == [Malformed]


def test_a_refusal_that_comes_late() -> None:
    """After the subscription was taken for granted."""
    protocol = hearing("a")
    error = {"type": "error", "code": "FORBIDDEN", "message": "no", "conversation_id": "a"}
    assert protocol.receive(frame(error), 0.0) == [Unsubscribed("a", 103, "no")]


def test_leaving() -> None:
    """Once; the answer to it means nothing, also when the stream is wished for again meanwhile."""
    protocol = hearing("a")
    assert commands(protocol.unsubscribe("a", 0.0)) == [{"type": "unsubscribe", "conversation_id": "a"}]
    assert protocol.unsubscribe("a", 0.0) == []
    answer = frame({"type": "unsubscribed", "conversation_id": "a"})
    assert protocol.receive(answer, 0.0) == []
    protocol.subscribe("a", None, None, 0.0)
    assert protocol.receive(answer, 0.0) == []
    assert protocol.due(2.0) == [Subscribed("a")]


def test_leaving_and_coming_back_again_and_again() -> None:
    """Answers come in the order of the wishes: those to earlier ones neither end the last subscription nor begin it."""
    protocol = hearing("a")
    for _ in range(3):
        protocol.unsubscribe("a", 0.0)
        protocol.subscribe("a", None, None, 0.0)
    left = frame({"type": "unsubscribed", "conversation_id": "a"})
    joined = frame({"type": "subscribed", "conversation_id": "a"})
    early = [each for answer in (left, joined, left, joined, left) for each in protocol.receive(answer, 0.1)]
    assert early == []
    assert protocol.receive(joined, 0.1) == [Subscribed("a")]
    assert protocol.receive(left, 0.2) == [Unsubscribed("a", 0, "")]


def test_an_answer_that_never_came_is_not_waited_for_for_ever() -> None:
    """A server may not answer who leaves: later on, `unsubscribed` is the server's own wish."""
    protocol = hearing("a")
    protocol.unsubscribe("a", 0.0)
    protocol.subscribe("a", None, None, 0.0)
    assert protocol.due(UNANSWERED) == [Subscribed("a")]
    assert protocol.receive(frame({"type": "unsubscribed", "conversation_id": "a"}), UNANSWERED + 0.1) == [
        Unsubscribed("a", 0, "")
    ]


@pytest.mark.parametrize(
    ("code", "again", "fresh"), [(2000, False, False), (2500, True, False), (2501, True, True), ("x", False, False)]
)
def test_the_server_ends_a_subscription(code: Any, again: bool, fresh: bool) -> None:
    """By the codes that Centrifugo has."""
    protocol = hearing("a")
    ended = {"type": "unsubscribed", "conversation_id": "a", "code": code, "reason": "removed"}
    number = code if isinstance(code, int) else 0
    assert protocol.receive(frame(ended), 0.0) == [Unsubscribed("a", number, "removed", again, fresh)]


# ---- publications


@pytest.mark.parametrize("kind", ["message", "message.updated", "typing", "read.updated", "unheard.of", None, 7])
def test_everything_else_is_a_publication(kind: object) -> None:
    """With the object as it came, whatever its type; also of a stream that nobody asked for."""
    protocol = hearing("a")
    value = {"type": kind, "conversation_id": "a", "new": [1]}
    assert protocol.receive(frame(value), 0.0) == [Published("a", value)]
    assert protocol.receive(frame({**value, "conversation_id": "b"}), 0.0) == [
        Published("b", {**value, "conversation_id": "b"})
    ]


def test_a_frame_without_conversation_belongs_to_the_only_one() -> None:
    """With none or several nobody can tell."""
    value = {"type": "message", "id": "m"}
    assert hearing("a").receive(frame(value), 0.0) == [Published("a", value)]
    for protocol in (hearing(), hearing("a", "b")):
        assert [type(each) for each in protocol.receive(frame(value), 0.0)] == [Malformed]


def test_what_is_for_the_user_alone_goes_to_his_own_stream() -> None:
    """Where one is named; a message or typing still belongs to the only conversation."""
    count = {"type": "channel.unread_changed", "payload": {"channelId": "a", "count": 3}}
    for protocol in (hearing(own="me"), hearing("a", own="me"), hearing("a", "b", own="me")):
        assert protocol.receive(frame(count), 0.0) == [Published("me", count)]
    value = {"type": "message", "id": "m"}
    assert hearing("a", own="me").receive(frame(value), 0.0) == [Published("a", value)]
    assert hearing("a", "b", own="me").receive(frame(value), 0.0) == [Published("me", value)]


def test_the_frames_of_one_read_may_be_taken_together() -> None:
    """In order, also with a bad one among them or one of several lines."""
    protocol = hearing("a")
    values = [{**MESSAGE, "sequence_number": number} for number in range(50)]
    texts = [json.dumps(value) for value in values]
    expected: list[Output] = [Published("a", value) for value in values]
    assert protocol.receive_all(texts, 0.0) == expected
    pretty = json.dumps(MESSAGE, indent=1)
    assert protocol.receive_all([*texts, pretty], 0.0) == [*expected, Published("a", MESSAGE)]
    outputs = protocol.receive_all(["garbage", *texts], 0.0)
    assert outputs[1:] == expected
    assert isinstance(outputs[0], Malformed)


# ---- typing and the rest


def test_typing_is_a_frame() -> None:
    """A start, and an end that says so; nothing without a connection."""
    protocol = opened()
    assert commands(protocol.typing("a", "u", True, 0.0) or []) == [
        {"type": "typing", "conversation_id": "a", "user_id": "u"}
    ]
    assert commands(protocol.typing("a", "u", False, 0.0) or []) == [
        {"type": "typing", "conversation_id": "a", "user_id": "u", "typing": False}
    ]
    assert PlainJson().typing("a", "u", True, 0.0) == []


def test_there_are_no_renewals_and_no_requests() -> None:
    """Only a handshake carries a token."""
    assert opened().renew(None, TOKEN, 0.0) == []
    with pytest.raises(ValueError):
        opened().request("history", {}, 0.0)


@pytest.mark.parametrize(
    ("code", "again", "fresh"),
    [
        (1000, True, False),
        (1001, True, False),
        (1006, True, False),
        (1008, False, False),
        (1013, True, False),
        (3500, False, False),
        (4401, True, True),
        (4403, False, False),
        (4500, False, False),
        (4001, True, False),
    ],
)
def test_close_codes(code: int, again: bool, fresh: bool) -> None:
    """Come back or not, and with another token."""
    protocol = hearing("a")
    assert protocol.closed(code, "why") == Close(code, "why", again, fresh)
    assert protocol.next_due() is None
    assert protocol.subscribe("b", None, None, 0.0) == protocol.unsubscribe("a", 0.0) == []


@pytest.mark.parametrize(
    "rubbish",
    [
        b"garbage",
        b"[]",
        b"7",
        b"\xff",
        b"[" * 5000,
        b'{"type":"message"}',
        b'{"type":"message","conversation_id":7}',
        b'{"type":"message","conversation_id":""}',
        b'{"type":"error"}',
        b'{"type":"error","conversation_id":[]}',
        b'{"type":"error","code":1e400}',
    ],
)
def test_rubbish_is_told_and_passed_over(rubbish: bytes) -> None:
    """The connection goes on."""
    protocol = hearing("a", "b")
    assert [type(output) for output in protocol.receive(rubbish, 0.0)] == [Malformed]
    assert protocol.receive(frame(MESSAGE), 0.0) == [Published("a", MESSAGE)]


ODD = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
)
FRAMES = st.dictionaries(
    st.sampled_from(["type", "conversation_id", "code", "message", "reason"]),
    st.sampled_from(["a", "b", "ping", "pong", "subscribed", "unsubscribed", "error", "message"]) | ODD,
)
STEPS = st.one_of(
    st.tuples(st.just("receive"), FRAMES.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=9)),
    st.tuples(st.sampled_from(["subscribe", "unsubscribe"]), st.sampled_from(["", "a", "b"])),
    st.tuples(st.just("wait"), st.sampled_from([0.5, 2.0, 31.0])),
)


@given(st.lists(STEPS, max_size=30), st.booleans())
def test_any_server_and_any_user(steps: list[tuple[str, Any]], early: bool) -> None:
    """Nothing is raised; nothing is sent before the start or after the end; what is sent makes sense; the times that
    it asks for always come to an end."""
    protocol, now, over = PlainJson(["a"] if early else []), 0.0, False
    is_open = False

    def take(outputs: list[Output]) -> None:
        nonlocal over
        for output in outputs:
            assert type(output) in get_args(Output)
            if isinstance(output, Send):
                assert is_open
                assert not over
                value = json.loads(output.text)
                assert value["type"] in ("ping", "pong", "subscribe", "unsubscribe")
                assert value["type"] in ("ping", "pong") or value["conversation_id"]
            over = over or isinstance(output, Close)

    if early:
        take(protocol.subscribe("b", None, None, now))
    is_open = True
    take(protocol.opened(None, now))
    for kind, value in steps:
        if kind == "receive":
            take(protocol.receive(value, now))
        elif kind == "subscribe":
            take(protocol.subscribe(value, None, None, now))
        elif kind == "unsubscribe":
            take(protocol.unsubscribe(value, now))
        else:
            until = now + value
            while (due := protocol.next_due()) is not None and due <= until:
                now = max(now, due)
                take(protocol.due(now))
                after = protocol.next_due()
                assert after is None or after > now
            now = until
