"""Centrifugo's protocol, rule by rule."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chatsdk.core.protocols.centrifugo import NOT_CONNECTED, TIMED_OUT, Centrifugo
from chatsdk.core.protocols.centrifugo_commands import MAX_COMMAND
from chatsdk.core.protocols.outputs import (
    Close,
    Heartbeat,
    Joined,
    Left,
    Malformed,
    Opened,
    Position,
    Published,
    RealtimeProtocol,
    Replied,
    Send,
    Subscribed,
    SubscribeFailed,
    TokenWanted,
    Unsubscribed,
)
from chatsdk.core.tokens import Secret
from tests.core.protocols.kit import CONNECTED, TOKEN, commands, connected, frame, of, subscribed

FRESH = Secret("a fresh token")


def pub(offset: int, stream: str = "chat:1", **facts: Any) -> dict[str, Any]:
    return {"push": {"channel": stream, "pub": {"data": {"i": offset}, "offset": offset, **facts}}}


# ---- connecting


def test_it_is_a_realtime_protocol() -> None:
    """The seam's type fits."""
    protocol: RealtimeProtocol = Centrifugo()
    assert list(protocol.subprotocols) == ["centrifuge-json"]


def test_connect_is_sent_once() -> None:
    """With the token, which stands in no repr but the frame's."""
    protocol = Centrifugo()
    assert commands(protocol.opened(TOKEN, 0.0)) == [{"id": 1, "connect": {"token": "a token"}}]
    assert protocol.opened(TOKEN, 0.0) == []


@pytest.mark.parametrize("token", [None, Secret("")])
def test_without_a_token_another_one_is_asked_for(token: Secret | None) -> None:
    """A connect without one would end in 3501, for good."""
    protocol = Centrifugo()
    assert protocol.opened(token, 0.0) == [Close(0, "there is no token", fresh_token=True)]
    assert protocol.next_due() is None


def test_a_token_that_fits_no_frame_ends_it() -> None:
    """The server would cut the connection without a word, over and over."""
    assert of(Close, Centrifugo().opened(Secret("x" * MAX_COMMAND), 0.0))[0].reconnect is False


def test_the_answer_opens() -> None:
    """`Opened` names the client and the streams that the server subscribed by itself; their publications follow."""
    protocol = Centrifugo()
    protocol.opened(TOKEN, 0.0)
    subs = {"user:1": {"epoch": "e", "offset": 3, "publications": [{"data": 1, "offset": 3}]}, "user:2": {}, "": {}}
    assert protocol.receive(frame({"id": 1, "connect": {**CONNECTED, "subs": subs}}), 0.0) == [
        Opened("c", "v", ("user:1", "user:2")),
        Subscribed("user:1", False, Position(3, "e"), by_server=True),
        Published("user:1", 1, 3),
        Subscribed("user:2", by_server=True),
    ]
    assert protocol.subscribe("user:2", TOKEN, None, 0.0) == [Subscribed("user:2", by_server=True)]


def test_wishes_wait_for_the_answer_and_share_a_frame() -> None:
    """No command before `connect` is answered; then all of them at once."""
    protocol = Centrifugo()
    assert protocol.subscribe("a", TOKEN, None, 0.0) == []
    protocol.opened(TOKEN, 0.0)
    for name in "bcd":
        assert protocol.subscribe(name, TOKEN, Position(7, "e"), 0.0) == []
    protocol.unsubscribe("c", 0.0)
    outputs = protocol.receive(frame({"id": 1, "connect": CONNECTED}), 0.0)
    assert [type(output) for output in outputs] == [Opened, Send]
    assert [command["subscribe"]["channel"] for command in commands(outputs)] == ["a", "b", "d"]


def test_no_frame_is_longer_than_the_server_takes() -> None:
    """Many wishes are spread over frames; one that fits none is refused here."""
    protocol = Centrifugo()
    protocol.opened(TOKEN, 0.0)
    for number in range(200):
        protocol.subscribe(f"chat:{number}", Secret("x" * 1000), None, 0.0)
    protocol.subscribe("too long", Secret("x" * MAX_COMMAND), None, 0.0)
    outputs = protocol.receive(frame({"id": 1, "connect": CONNECTED}), 0.0)
    assert len(commands(outputs)) == 200
    assert max(len(send.text) for send in of(Send, outputs)) <= MAX_COMMAND
    assert len(of(Send, outputs)) == 4
    assert [failed.stream for failed in of(SubscribeFailed, outputs)] == ["too long"]


@pytest.mark.parametrize(
    ("error", "close"),
    [
        ({"code": 109, "message": "token expired"}, Close(109, "token expired", True, True)),
        ({"code": 100, "message": "internal"}, Close(100, "internal", True)),
        ({"code": 111, "message": "many", "temporary": True}, Close(111, "many", True)),
        ({"code": 4711, "message": "soon", "temporary": True}, Close(4711, "soon", True)),
        ({"code": 42, "message": "own"}, Close(42, "own", True)),
        ({"code": 101, "message": "unauthorized"}, Close(101, "unauthorized", False)),
        ({"code": 103, "message": "permission denied"}, Close(103, "permission denied", False)),
    ],
)
def test_a_refused_connect_ends_it(error: dict[str, Any], close: Close) -> None:
    """Come back or not, with another token or not; afterwards nothing is sent."""
    protocol = Centrifugo()
    protocol.opened(TOKEN, 0.0)
    assert protocol.receive(frame({"id": 1, "error": error}), 0.0) == [close]
    assert protocol.subscribe("a", TOKEN, None, 0.0) == []
    assert protocol.receive(frame({}, pub(1)), 0.0) == []


def test_an_unanswered_connect_ends_it() -> None:
    """After five seconds."""
    protocol = Centrifugo()
    protocol.opened(TOKEN, 10.0)
    assert protocol.next_due() == 15.0
    assert protocol.due(14.9) == []
    assert protocol.due(15.0) == [Close(0, "no answer to connect")]
    assert protocol.due(99.0) == []


# ---- pings and life


def test_each_ping_is_answered_once() -> None:
    """Also where several share a frame with others; order is kept. Each is contact, without a latency."""
    protocol = subscribed()
    assert protocol.receive(b"{}", 1.0) == [Heartbeat(None), Send("{}")]
    assert protocol.receive(frame(pub(1), {}, pub(2)), 1.0) == [
        Published("chat:1", {"i": 1}, 1),
        Heartbeat(None),
        Send("{}"),
        Published("chat:1", {"i": 2}, 2),
    ]


def test_no_ping_is_answered_that_wants_no_answer() -> None:
    """Only where connect said pong, and not before."""
    assert connected(pong=False).receive(b"{}", 1.0) == [Heartbeat(None)]
    protocol = Centrifugo()
    protocol.opened(TOKEN, 0.0)
    assert protocol.receive(b"{}", 0.0) == []


def test_silence_ends_it() -> None:
    """`ping` seconds and a margin after the last bytes of any kind."""
    protocol = connected(now=100.0)
    assert protocol.next_due() == 135.0
    protocol.receive(b"rubbish", 110.0)
    assert protocol.next_due() == 145.0
    protocol.heard(120.0)
    assert protocol.due(154.9) == []
    assert protocol.due(155.0) == [Heartbeat(None, ok=False), Close(0, "no ping from the server")]
    assert protocol.next_due() is None


@pytest.mark.parametrize("ping", [0, -1, "25", True, None, 10**9, [], 1e308])
def test_a_ping_interval_that_is_none_is_not_waited_for(ping: object) -> None:
    """A server may have its pings switched off, or write rubbish."""
    assert connected(ping=ping, ttl=0, expires=False).next_due() is None


# ---- subscribing


def test_recovery_is_asked_for_twice() -> None:
    """`recoverable` always, `recover` with a position; the empty token is left out."""
    protocol = connected()
    assert commands(protocol.subscribe("a", TOKEN, None, 0.0)) == [
        {"id": 2, "subscribe": {"channel": "a", "recoverable": True, "token": "a token"}}
    ]
    assert commands(protocol.subscribe("b", Secret(""), Position(0, ""), 0.0)) == [
        {"id": 3, "subscribe": {"channel": "b", "recoverable": True, "recover": True, "offset": 0, "epoch": ""}}
    ]


@pytest.mark.parametrize(
    ("position", "result", "expected"),
    [
        (None, {}, Subscribed("a")),
        (None, {"epoch": "e"}, Subscribed("a", False, Position(0, "e"))),
        (None, {"epoch": "e", "offset": 5}, Subscribed("a", False, Position(5, "e"))),
        (Position(2, "e"), {"was_recovering": True}, Subscribed("a", False, None, True)),
        (Position(2, "e"), {"was_recovering": True, "offset": 2}, Subscribed("a", False, None, True)),
        (Position(2, "e"), {"recovered": True, "offset": 2}, Subscribed("a", False, None, True)),
        (
            Position(2, "e"),
            {"recovered": True, "was_recovering": True, "epoch": "e", "offset": 2},
            Subscribed("a", True, Position(2, "e"), True),
        ),
        (
            Position(2, "e"),
            {"was_recovering": True, "epoch": "f", "offset": 5},
            Subscribed("a", False, Position(5, "f"), True),
        ),
    ],
)
def test_where_a_stream_stands(position: Position | None, result: dict[str, Any], expected: Subscribed) -> None:
    """Recovered or not, with the server's position or none."""
    protocol = connected()
    protocol.subscribe("a", TOKEN, position, 0.0)
    assert protocol.receive(frame({"id": 2, "subscribe": result}), 0.0) == [expected]


def test_a_recovered_position_is_the_last_publications() -> None:
    """The answer's own offset is the one that was sent."""
    protocol = connected()
    protocol.subscribe("a", TOKEN, Position(2, "e"), 0.0)
    pubs = [{"data": number, "offset": number} for number in (3, 4, 5)]
    result = {"recovered": True, "was_recovering": True, "epoch": "e", "offset": 2, "publications": pubs}
    assert protocol.receive(frame({"id": 2, "subscribe": result}), 0.0) == [
        Subscribed("a", True, Position(5, "e"), True),
        *[Published("a", number, number) for number in (3, 4, 5)],
    ]


def test_a_recovered_publication_without_sense_is_told() -> None:
    """The others and the position stand."""
    protocol = connected()
    protocol.subscribe("a", TOKEN, Position(2, "e"), 0.0)
    pubs = [{"data": 3, "offset": 3}, "rubbish", {"data": 5, "offset": -5}]
    outputs = protocol.receive(
        frame({"id": 2, "subscribe": {"recovered": True, "epoch": "e", "publications": pubs}}), 0.0
    )
    assert outputs[:2] == [Subscribed("a", True, Position(3, "e"), True), Published("a", 3, 3)]
    assert [type(output) for output in outputs[2:]] == [Malformed]


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        ({"code": 102, "message": "unknown channel"}, SubscribeFailed("a", 102, "unknown channel")),
        ({"code": 103, "message": "permission denied"}, SubscribeFailed("a", 103, "permission denied")),
        ({"code": 106, "message": "limit exceeded"}, SubscribeFailed("a", 106, "limit exceeded")),
        ({"code": 109, "message": "token expired"}, SubscribeFailed("a", 109, "token expired", True, True)),
        ({"code": 100, "message": "internal"}, SubscribeFailed("a", 100, "internal", True)),
        ({"code": 9999, "message": "own", "temporary": True}, SubscribeFailed("a", 9999, "own", True)),
        ({"code": "rubbish", "message": 5}, SubscribeFailed("a", 0, "", True)),
    ],
)
def test_a_refused_stream(error: dict[str, Any], failed: SubscribeFailed) -> None:
    """The connection stays, and the stream may be asked for again."""
    protocol = connected()
    protocol.subscribe("a", TOKEN, None, 0.0)
    assert protocol.receive(frame({"id": 2, "error": error}), 0.0) == [failed]
    assert [*commands(protocol.subscribe("a", FRESH, None, 0.0))[0]] == ["id", "subscribe"]


def test_already_subscribed_is_subscribed() -> None:
    """Error 105 says what was wanted, but no position."""
    protocol = connected()
    protocol.subscribe("a", TOKEN, Position(2, "e"), 0.0)
    assert protocol.receive(frame({"id": 2, "error": {"code": 105}}), 0.0) == [Subscribed("a", asked=True)]


def test_nothing_is_subscribed_twice() -> None:
    """While it is asked for nothing is sent; when it is heard that is said once more."""
    protocol = connected()
    assert len(commands(protocol.subscribe("a", TOKEN, None, 0.0))) == 1
    assert protocol.subscribe("a", TOKEN, None, 0.0) == []
    protocol.receive(frame({"id": 2, "subscribe": {}}), 0.0)
    assert protocol.subscribe("a", TOKEN, Position(1, "e"), 0.0) == [Subscribed("a", asked=True)]
    assert protocol.subscribe("", TOKEN, None, 0.0) == [SubscribeFailed("", 0, "a stream has a name")]


def test_leaving_waits_for_what_is_under_way() -> None:
    """One command a stream at a time; the last wish counts."""
    protocol = connected()
    protocol.subscribe("a", TOKEN, None, 0.0)
    assert protocol.unsubscribe("a", 0.0) == []
    outputs = protocol.receive(frame({"id": 2, "subscribe": {"ttl": 900}}), 0.0)
    assert commands(outputs) == [{"id": 3, "unsubscribe": {"channel": "a"}}]
    assert len(outputs) == 1
    assert protocol.subscribe("a", FRESH, Position(1, "e"), 0.0) == []
    outputs = protocol.receive(frame({"id": 3, "unsubscribe": {}}), 0.0)
    assert commands(outputs)[0]["subscribe"]["token"] == "a fresh token"
    protocol.unsubscribe("a", 0.0)
    protocol.subscribe("a", TOKEN, None, 0.0)
    assert of(Subscribed, protocol.receive(frame({"id": 4, "subscribe": {}}), 0.0)) == [Subscribed("a", asked=True)]


def test_leaving_what_is_refused_says_nothing() -> None:
    """Nobody waits for it any more."""
    protocol = connected()
    protocol.subscribe("a", TOKEN, None, 0.0)
    protocol.unsubscribe("a", 0.0)
    assert protocol.receive(frame({"id": 2, "error": {"code": 103}}), 0.0) == []
    assert protocol.unsubscribe("a", 0.0) == []


def test_leaving_is_told_to_the_server_once() -> None:
    """And a stream that was left is not renewed."""
    protocol = subscribed("a", ttl=30)
    assert commands(protocol.unsubscribe("a", 0.0)) == [{"id": 3, "unsubscribe": {"channel": "a"}}]
    assert protocol.unsubscribe("a", 0.0) == []
    assert protocol.receive(frame({"id": 3, "unsubscribe": {}}), 0.0) == []
    assert protocol.due(29.0) == []


def test_an_answer_that_never_comes_ends_it() -> None:
    """Nobody knows then what is subscribed; coming back settles it."""
    protocol = connected()
    protocol.subscribe("a", TOKEN, None, 1.0)
    assert protocol.next_due() == 6.0
    assert protocol.due(6.0) == [Close(0, "no answer to subscribe")]
    protocol = subscribed("a")
    protocol.unsubscribe("a", 1.0)
    assert protocol.receive(frame({"id": 3, "error": {"code": 100, "message": "x"}}), 1.0) == [Close(100, "x")]


@pytest.mark.parametrize(
    ("code", "again", "fresh_token"),
    [
        (0, False, False),
        (2000, False, False),
        (2499, False, False),
        (2500, True, False),
        (2501, True, True),
        (2999, True, False),
    ],
)
def test_the_server_ends_a_subscription(code: int, again: bool, fresh_token: bool) -> None:
    """Codes below 2500 mean stay out, the others again; 2501 with another token."""
    protocol = subscribed("a")
    push = frame({"push": {"channel": "a", "unsubscribe": {"code": code, "reason": "why"}}})
    assert protocol.receive(push, 0.0) == [Unsubscribed("a", code, "why", again, fresh_token)]
    assert protocol.receive(push, 0.0) == []
    assert len(commands(protocol.subscribe("a", FRESH, Position(1, "e"), 0.0))) == 1


def test_the_server_subscribes_by_itself() -> None:
    """Also while the connection is open; once."""
    protocol = connected()
    push = frame({"push": {"channel": "a", "subscribe": {"epoch": "e", "offset": 1}}})
    assert protocol.receive(push, 0.0) == [Subscribed("a", False, Position(1, "e"), by_server=True)]
    assert protocol.receive(push, 0.0) == []


# ---- publications


def test_publications_come_as_they_are() -> None:
    """Data of any kind, offset, epoch and info; also for a stream that nobody asked for."""
    protocol = subscribed("a")
    data: list[Any] = [{"type": "x"}, [], 1, None, "text", 1.5, False]
    message: dict[str, Any]
    for value in data:
        message = {"push": {"channel": "a", "pub": {"data": value, "offset": 9}}}
        assert protocol.receive(frame(message), 0.0) == [Published("a", value, 9)]
    info = {"user": "u", "client": "c"}
    message = {
        "push": {"channel": "b", "pub": {"data": 1, "offset": 1, "epoch": "e", "info": info, "new": 1}},
        "new": 2,
    }
    assert protocol.receive(frame(message), 0.0) == [Published("b", 1, 1, "e", info)]
    assert protocol.receive(frame({"push": {"channel": "a", "pub": {"data": 1}}}), 0.0) == [Published("a", 1)]
    assert protocol.receive(frame({"push": {"channel": "a", "pub": {"offset": 5}}}), 0.0) == [Published("a", None, 5)]


@pytest.mark.parametrize("offset", [-1, 1.5, "3", True, 2**63, 10**400, [], {}])
def test_an_offset_without_sense_is_no_publication(offset: Any) -> None:
    """A cursor could not hold it."""
    protocol = subscribed("a")
    outputs = protocol.receive(frame({"push": {"channel": "a", "pub": {"data": 1, "offset": offset}}}), 0.0)
    assert outputs == [Malformed("a publication whose offset makes no sense")]


def test_many_publications_share_a_frame() -> None:
    """In order, and the frames of one read may be taken together."""
    protocol = subscribed()
    expected = [Published("chat:1", {"i": number}, number) for number in range(1, 51)]
    pubs = [pub(number) for number in range(1, 51)]
    assert protocol.receive(frame(*pubs), 0.0) == expected
    assert protocol.receive(frame(*pubs).decode(), 0.0) == expected
    assert protocol.receive_all([frame(*pubs[:20]).decode(), frame(*pubs[20:]).decode()], 0.0) == expected
    small = Centrifugo(max_frame=2000)
    small.opened(TOKEN, 0.0)
    small.receive(frame({"id": 1, "connect": CONNECTED}), 0.0)
    assert small.receive_all([frame(each).decode() for each in pubs], 0.0) == expected


def test_joins_and_leaves() -> None:
    """With who it was, and all that the server said of them."""
    protocol = subscribed("a")
    info = {"user": "u" * 300, "client": "c", "conn_info": {"name": "Alice"}}
    assert protocol.receive(frame({"push": {"channel": "a", "join": {"info": info}}}), 0.0) == [
        Joined("a", "u" * 300, "c", info)
    ]
    assert protocol.receive(frame({"push": {"channel": "a", "leave": {"info": info}}}), 0.0) == [
        Left("a", "u" * 300, "c", info)
    ]


# ---- tokens


def test_the_connections_token_is_renewed() -> None:
    """Asked for before its end, sent, and asked for again by the new one's life."""
    protocol = connected(ttl=100)
    for now in (30.0, 60.0, 79.0):
        protocol.receive(b"{}", now)
    assert protocol.next_due() == 80.0
    assert protocol.due(80.0) == [TokenWanted(None)]
    assert commands(protocol.renew(None, FRESH, 81.0)) == [{"id": 2, "refresh": {"token": "a fresh token"}}]
    assert protocol.renew(None, FRESH, 81.0) == []
    assert protocol.receive(frame({"id": 2, "refresh": {"expires": True, "ttl": 50}}), 82.0) == []
    protocol.heard(121.0)
    assert protocol.due(122.0) == [TokenWanted(None)]


def test_a_streams_token_is_renewed() -> None:
    """The same for each stream that is heard, and for no other."""
    protocol = subscribed("a", ttl=30)
    assert protocol.due(20.0) == [TokenWanted("a")]
    assert commands(protocol.renew("a", FRESH, 21.0)) == [
        {"id": 3, "sub_refresh": {"channel": "a", "token": "a fresh token"}}
    ]
    assert protocol.receive(frame({"id": 3, "sub_refresh": {"expires": True, "ttl": 900}}), 21.0) == []
    assert protocol.renew("b", FRESH, 21.0) == []


def test_a_renewal_answered_without_a_time_failed() -> None:
    """So the server answers an expired token: another one is wanted; and again, but no sooner than in a while."""
    protocol = subscribed("a", ttl=30)
    protocol.due(20.0)
    protocol.renew("a", FRESH, 21.0)
    assert protocol.receive(frame({"id": 3, "sub_refresh": {}}), 22.0) == [TokenWanted("a", refused=True)]
    protocol.renew("a", FRESH, 23.0)
    assert protocol.receive(frame({"id": 4, "sub_refresh": {}}), 23.0) == []
    assert protocol.due(32.0) == [TokenWanted("a", refused=True)]


@pytest.mark.parametrize(("code", "wanted"), [(109, True), (103, True), (101, True), (100, False), (111, False)])
def test_a_refused_renewal(code: int, wanted: bool) -> None:
    """Another token at once, or the same later if the server could not tell."""
    for stream in (None, "a"):
        protocol = subscribed("a")
        protocol.renew(stream, FRESH, 1.0)
        outputs = protocol.receive(frame({"id": 3, "error": {"code": code}}), 1.0)
        assert outputs == ([TokenWanted(stream, refused=True)] if wanted else [])
        if not wanted:
            assert protocol.due(11.0) == [TokenWanted(stream)]


def test_an_unanswered_renewal_does_not_end_the_connection() -> None:
    """It is asked for again."""
    protocol = subscribed("a")
    protocol.renew("a", FRESH, 1.0)
    assert protocol.due(6.0) == []
    assert protocol.due(16.0) == [TokenWanted("a")]


def test_an_empty_token_is_not_sent() -> None:
    """It would end the connection for good."""
    assert subscribed("a").renew("a", Secret(""), 1.0) == [TokenWanted("a", refused=True)]
    assert subscribed("a").renew(None, Secret("x" * MAX_COMMAND), 1.0) == [TokenWanted(None, refused=True)]


def test_the_server_tells_of_another_end() -> None:
    """A push may give the connection's token another life."""
    protocol = connected(expires=False, ttl=0)
    protocol.receive(frame({"push": {"refresh": {"expires": True, "ttl": 20}}}), 0.0)
    assert protocol.next_due() == 10.0


# ---- the end


@pytest.mark.parametrize(
    ("codes", "again", "fresh_token"),
    [
        ((1000, 1001, 1006, 1011, 1013, 3000, 3001, 3008, 3012, 3499, 4000, 4001, 4499, 5000, 0), True, False),
        ((3005,), True, True),
        ((3500, 3501, 3503, 3999, 4500, 4999), False, False),
    ],
)
def test_close_codes_are_obeyed(codes: tuple[int, ...], again: bool, fresh_token: bool) -> None:
    """By a close frame or by a push, which mean the same."""
    for code in codes:
        assert connected().closed(code, "why") == Close(code, "why", again, fresh_token)
        push = {"push": {"disconnect": {"code": code, "reason": "why"}}}
        protocol = subscribed()
        outputs = protocol.receive(frame(pub(1), push, pub(2), {}), 0.0)
        assert outputs == [Published("chat:1", {"i": 1}, 1), Close(code, "why", again, fresh_token)]
        assert protocol.next_due() is None
        assert protocol.subscribe("x", TOKEN, None, 0.0) == protocol.unsubscribe("chat:1", 0.0) == []
        assert protocol.renew(None, TOKEN, 0.0) == []


# ---- requests


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("publish", {"channel": "a", "data": {"hi": 1}}),
        ("history", {"channel": "a", "limit": 10}),
        ("presence", {"channel": "a"}),
        ("presence_stats", {"channel": "a"}),
        ("rpc", {"method": "x", "data": {}}),
    ],
)
def test_requests_are_answered_by_their_id(method: str, params: dict[str, Any]) -> None:
    """With a result, with an error, with the time that it took, or at once when there is no connection."""
    protocol = connected()
    number, outputs = protocol.request(method, params, 0.0)
    assert commands(outputs) == [{"id": number, method: params}]
    assert protocol.receive(frame({"id": number, method: {"a": 1}}), 0.0) == [Replied(number, {"a": 1})]
    number, _ = protocol.request(method, params, 0.0)
    error = {"code": 103, "message": "permission denied"}
    assert protocol.receive(frame({"id": number, "error": error}), 0.0) == [
        Replied(number, None, 103, "permission denied")
    ]
    number, _ = protocol.request(method, params, 0.0)
    assert protocol.due(5.0) == [Replied(number, None, TIMED_OUT, "no answer in time")]
    number, outputs = Centrifugo().request(method, params, 0.0)
    assert outputs == [Replied(number, None, NOT_CONNECTED, "not connected")]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("subscribe", {"channel": "a"}),
        ("connect", {}),
        ("", {}),
        ("nope", {"channel": "a"}),
        ("presence", {}),
        ("history", {"channel": ""}),
        ("presence_stats", {"channel": 7}),
        ("publish", {"channel": "a"}),
        ("publish", {"channel": "a", "data": object()}),
        ("publish", {"channel": "a", "data": float("nan")}),
        ("publish", {"channel": "a", "data": "x" * MAX_COMMAND}),
    ],
)
def test_a_request_that_the_server_would_close_for_is_not_sent(method: str, params: dict[str, Any]) -> None:
    """ValueError, and the next command is as good as ever."""
    protocol = connected()
    with pytest.raises(ValueError):
        protocol.request(method, params, 0.0)
    assert commands(protocol.subscribe("a", TOKEN, None, 0.0))[0]["id"] == 2
    assert protocol.next_due() == 5.0


def test_typing_goes_another_way() -> None:
    """A client may not publish there."""
    assert connected().typing("a", "u", True, 0.0) is None


# ---- rubbish


@pytest.mark.parametrize(
    "message",
    [
        b"garbage",
        b"[]",
        b"1",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 5000,
        b'{"id":1}',
        b'{"id":99,"subscribe":{}}',
        b'{"id":true,"connect":{}}',
        b'{"id":"2","subscribe":{}}',
        b'{"id":2,"publish":{}}',
        b'{"id":2,"subscribe":[]}',
        b'{"id":2,"error":7}',
        b'{"id":1e400}',
        b'{"push":[]}',
        b'{"push":{}}',
        b'{"push":{"channel":"a"}}',
        b'{"push":{"channel":"a","pub":[]}}',
        b'{"push":{"channel":7,"pub":{"data":1}}}',
        b'{"push":{"channel":{},"pub":{"data":1,"offset":1}}}',
        b'{"push":{"pub":{"data":1}}}',
        b'{"push":{"channel":"","pub":{"data":1}}}',
        b'{"push":{"channel":"a","join":{}}}',
        b'{"push":{"channel":"a","leave":{"info":7}}}',
        b'{"push":{"channel":"a","unheard of":{}}}',
    ],
)
def test_rubbish_is_told_and_passed_over(message: bytes) -> None:
    """One complaint, no exception, and the rest of the frame counts; an answer that is none stays awaited."""
    protocol = connected()
    protocol.subscribe("a", TOKEN, None, 0.0)
    outputs = protocol.receive(b"\n".join([message, frame({"id": 2, "subscribe": {}})]), 0.0)
    assert [type(output) for output in outputs] == [Subscribed, Malformed]


def test_a_complaint_quotes_nothing() -> None:
    """What a server sent may be a secret of somebody's."""
    protocol = connected()
    for text in ('{"secret', '{"push":{"channel":"secret","secret":{}}}', '{"id":"secret"}'):
        assert "secret" not in repr(protocol.receive(text, 0.0))


@pytest.mark.parametrize("facts", [{"subs": 7}, {"subs": {"a": 7}}, {"client": 7, "version": []}, {"ttl": "x"}])
def test_rubbish_in_the_answer_to_connect(facts: dict[str, Any]) -> None:
    """What can be understood counts."""
    protocol = Centrifugo()
    protocol.opened(TOKEN, 0.0)
    outputs = protocol.receive(frame({"id": 1, "connect": {**CONNECTED, **facts}}), 0.0)
    assert len(of(Opened, outputs)) == 1


def test_a_frame_over_the_limit_is_passed_over() -> None:
    """Unread."""
    protocol = Centrifugo(max_frame=100)
    assert protocol.receive(json.dumps(["x" * 200]), 0.0) == [Malformed("a frame of 204 bytes, 100 are allowed")]


def test_nothing_counts_before_the_connection_is_open() -> None:
    """But the server may end it."""
    protocol = Centrifugo()
    protocol.opened(TOKEN, 0.0)
    assert [type(output) for output in protocol.receive(frame(pub(1)), 0.0)] == [Malformed]
    push = {"push": {"disconnect": {"code": 3500, "reason": "invalid token"}}}
    assert protocol.receive(frame(push), 0.0) == [Close(3500, "invalid token", False)]
