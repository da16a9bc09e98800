"""The fault switches of the realtime side, each as its victim sees it on a real socket."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from chatsdk.devserver.process import ControlRefused, DevServer
from tests.devserver.caller import call, send
from tests.devserver.listening import PATH, listening, numbers, offsets, plainly
from tests.devserver.wsclient import CLOSE, PING, HandshakeRefused, WsClient


@pytest.fixture(scope="module")
def shared() -> Iterator[DevServer]:
    """Give one server to all tests of this file."""
    with DevServer() as started:
        yield started


@pytest.fixture
def server(shared: DevServer) -> Iterator[DevServer]:
    """Give the server without the rules of the test before."""
    shared.clear_faults()
    yield shared
    shared.clear_faults()


@pytest.fixture
def stream(server: DevServer) -> str:
    """Give a stream that no other test uses."""
    return server.stream(server.channel("alice", "bob"))


def ends(client: WsClient) -> BaseException:
    """How the stream ends, without a close frame."""
    try:
        while client.frame().opcode != CLOSE:
            pass
    except ConnectionError as error:
        return error
    pytest.fail("the server closed in good order")


def test_cut_with_rst_and_fin(server: DevServer, stream: str) -> None:
    """cut ends every connection, by a reset or by an end of stream, and says how many."""
    with listening(server, "bob", stream) as one, plainly(server, "alice") as other:
        assert server.realtime.cut() == 2
        assert isinstance(ends(one), ConnectionResetError)
        assert isinstance(ends(other), ConnectionResetError)
    with listening(server, "bob", stream) as one:
        server.realtime.cut(how="fin")
        assert not isinstance(ends(one), ConnectionResetError)


def test_cut_of_one_user_and_with_a_code(server: DevServer, stream: str) -> None:
    """cut may mean one user alone, and may be a close frame with a code."""
    with listening(server, "bob", stream) as bob, listening(server, "alice", stream) as alice:
        assert server.realtime.cut("bob", code=3012, reason="no pong") == 1
        assert bob.until(lambda message: "close" in message)[-1] == {"close": 3012, "reason": "no pong"}
        server.realtime.publish(stream, 1)
        assert numbers(alice, 1) == [1]


def test_half_open(server: DevServer, stream: str) -> None:
    """half_open: the socket stays, nothing comes and nothing is answered; a new connection works."""
    with listening(server, "bob", stream) as bob:
        assert server.realtime.half_open() == 1
        bob.send_frame(PING, b"x")
        bob.send({"id": 9, "unsubscribe": {"channel": stream}})
        server.realtime.publish(stream, 1)
        assert bob.nothing_comes(0.3)
        with listening(server, "bob", stream) as again:
            server.realtime.publish(stream, 2)
            assert numbers(again, 1) == [2]
        assert server.realtime.overview()["connections"] == []


def test_silent(server: DevServer) -> None:
    """silent: TCP is accepted, the handshake never answered; the next one is, once the rule is used up."""
    server.realtime.silent(times=1)
    with pytest.raises(TimeoutError):
        WsClient(server.port, PATH, timeout=0.3)
    with listening(server, "bob"):
        pass


def test_refuse(server: DevServer) -> None:
    """refuse: an HTTP status instead of 101, for one path or user where the rule says so."""
    server.realtime.refuse(403, operation="websocket")
    with pytest.raises(HandshakeRefused) as refused:
        WsClient(server.port, PATH)
    assert refused.value.status == 403
    with plainly(server, "alice"):
        server.realtime.refuse(503, operation="ws", user="bob", retry_after=3)
    with plainly(server, "alice"), pytest.raises(HandshakeRefused) as also:
        with plainly(server, "bob"):
            pass
    assert also.value.status == 503


def test_slow_by_bytes(server: DevServer, stream: str) -> None:
    """slow: what is sent drips at so many bytes a second, and arrives whole."""
    with listening(server, "bob", stream) as bob:
        server.realtime.slow(10_000, user="bob")
        started = time.monotonic()
        server.realtime.publish(stream, *("x" * 400 for _ in range(10)))
        assert len(numbers(bob, 10)) == 10
        assert 0.3 < time.monotonic() - started < 5


def test_slow_by_delay(server: DevServer, stream: str) -> None:
    """slow with ms: each write waits; a close frame comes after what was under way."""
    with listening(server, "bob", stream) as bob:
        server.realtime.slow(ms=200)
        started = time.monotonic()
        server.realtime.publish(stream, 1)
        assert numbers(bob, 1) == [1]
        assert time.monotonic() - started >= 0.2
        server.realtime.publish(stream, 2)
        server.realtime.cut(code=3001)
        assert numbers(bob, 1) == [2]
        assert bob.message()["close"] == 3001


def test_no_pong(server: DevServer, stream: str) -> None:
    """no_pong: neither the plain protocol's ping nor a WebSocket's is answered while the rule stands."""
    with plainly(server, "alice") as alice:
        rule = server.realtime.no_pong(user="alice")
        alice.send({"type": "ping"})
        alice.send_frame(PING, b"x")
        assert alice.nothing_comes(0.2)
        server.clear_faults(rule)
        alice.send({"type": "ping"})
        assert alice.message() == {"type": "pong"}


def test_no_pong_on_centrifugo() -> None:
    """no_pong: Centrifugo's server pings stop, and come again afterwards."""
    with DevServer(ping_interval=0.1, pong_timeout=5) as server, listening(server, "bob") as bob:
        assert bob.message() == {}
        rule = server.realtime.no_pong()
        assert _pings_stop(bob)
        server.clear_faults(rule)
        assert bob.message() == {}


def _pings_stop(client: WsClient) -> bool:
    for _ in range(3):  # some may have been on their way
        try:
            client.message(0.4)
        except TimeoutError:
            return True
    return False


def test_drop(server: DevServer, stream: str) -> None:
    """drop: each n-th publication is not delivered; the offsets show it and the history has it."""
    with listening(server, "bob", stream) as bob:
        server.realtime.drop(every=3)
        server.realtime.publish(stream, *range(1, 10))
        assert offsets(bob, 6) == [1, 2, 4, 5, 7, 8]
    kept = server.realtime.api("history", channel=stream, limit=-1)["result"]["publications"]
    assert [each["offset"] for each in kept] == list(range(1, 10))


def test_drop_the_next(server: DevServer, stream: str) -> None:
    """drop with times: so many, then never again; with user, only that user misses them."""
    with listening(server, "bob", stream) as bob, listening(server, "alice", stream) as alice:
        server.realtime.drop(times=2, user="bob")
        server.realtime.publish(stream, *range(4))
        assert numbers(bob, 2) == [2, 3]
        assert numbers(alice, 4) == [0, 1, 2, 3]


def test_drop_in_the_queue(server: DevServer) -> None:
    """drop in the API's queue: the message is stored, its event is never published, and no offset tells."""
    channel = server.channel("alice", "bob")
    with listening(server, "bob", server.stream(channel)) as bob:
        server.realtime.drop(queue=True, operation="message.new", text_contains="lost")
        for text in ("one", "lost", "three"):
            assert send(server, text, channel=channel).status == 201
        pushes = [bob.message()["push"]["pub"] for _ in range(2)]
        assert [push["offset"] for push in pushes] == [1, 2]
        assert [push["data"]["payload"]["message"]["seq"] for push in pushes] == [1, 3]
    assert len(server.log()["messages"]) >= 3


def test_duplicate(server: DevServer, stream: str) -> None:
    """duplicate: the same publication again, with the same offset; in the queue, with one of its own."""
    with listening(server, "bob", stream) as bob:
        rule = server.realtime.duplicate(times=1)
        server.realtime.publish(stream, 1)
        assert offsets(bob, 2) == [1, 1]
        server.clear_faults(rule)
        server.realtime.duplicate(2, queue=True)
        call(server, "POST", f"/api/channels/{stream[-36:]}/typing", {"typing": True}, user="alice")
        assert offsets(bob, 3) == [2, 3, 4]


def test_reorder(server: DevServer, stream: str) -> None:
    """reorder: windows of publications come shuffled, the same by the same seed; none is lost, none waits for ever."""
    orders = []
    for _ in range(2):
        server.clear_faults()
        with listening(server, "bob", stream) as bob:
            server.realtime.reorder(5, seed=3)
            server.realtime.publish(stream, *range(12))
            orders.append(numbers(bob, 12))
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == list(range(12))
    assert orders[0] != list(range(12))
    assert all(abs(position - number) < 5 for position, number in enumerate(orders[0]))


def test_reorder_in_the_queue(server: DevServer) -> None:
    """reorder in the API's queue: offsets without holes, seqs out of order, as the real server was seen to do."""
    channel = server.channel("alice", "bob")
    with listening(server, "bob", server.stream(channel)) as bob:
        server.realtime.reorder(4, queue=True, operation="message.new", seed=1)
        for number in range(8):
            send(server, str(number), channel=channel)
        pushes = [bob.message()["push"]["pub"] for _ in range(8)]
    seqs = [push["data"]["payload"]["message"]["seq"] for push in pushes]
    assert [push["offset"] for push in pushes] == list(range(1, 9))
    assert sorted(seqs) == list(range(1, 9))
    assert seqs != sorted(seqs)


def test_delay(server: DevServer, stream: str) -> None:
    """delay: publications come later, in order where no jitter is asked for."""
    with listening(server, "bob", stream) as bob:
        server.realtime.delay(200)
        started = time.monotonic()
        server.realtime.publish(stream, *range(5))
        assert numbers(bob, 5) == list(range(5))
        assert time.monotonic() - started >= 0.2


def test_epoch_reset(server: DevServer, stream: str) -> None:
    """epoch_reset: a new epoch from offset 1; who counts on a position is told with 2500, others are not."""
    with listening(server, "bob", stream, recoverable=True) as bob, listening(server, "alice", stream) as alice:
        server.realtime.publish(stream, 1)
        before = bob.until(lambda message: "pub" in message.get("push", {}))[-1]["push"]["pub"]
        assert numbers(alice, 1) == [1]
        assert server.realtime.epoch_reset(stream[-36:]) == 1
        told = bob.message()["push"]["unsubscribe"]
        assert told == {"code": 2500, "reason": "insufficient state"}
        assert "leave" in alice.message()["push"]
        server.realtime.publish(stream, 2)
        after = alice.message()["push"]["pub"]
    assert (before["offset"], after["offset"]) == (1, 1)
    assert before["epoch"] != after["epoch"]


def test_epoch_reset_without_a_word(server: DevServer, stream: str) -> None:
    """epoch_reset with tell=False: nobody is told; the next publication shows it."""
    with listening(server, "bob", stream, recoverable=True) as bob:
        server.realtime.publish(stream, 1, 2)
        assert offsets(bob, 2) == [1, 2]
        server.realtime.epoch_reset(stream, tell=False)
        server.realtime.publish(stream, 3)
        assert offsets(bob, 1) == [1]


def test_oversized(server: DevServer, stream: str) -> None:
    """oversized: one text frame of just so many bytes, then the connection goes on."""
    with listening(server, "bob", stream) as bob:
        assert server.realtime.oversized(1_000_000) == 1
        assert len(bob.frame().payload) == 1_000_000
        server.realtime.publish(stream, 1)
        assert numbers(bob, 1) == [1]


def test_garbage(server: DevServer, stream: str) -> None:
    """garbage: a text frame that is no JSON, invalid UTF-8, or any bytes at all."""
    with listening(server, "bob", stream) as bob:
        server.realtime.garbage()
        assert bob.frame().payload == b'{"garbage":'
        server.realtime.garbage("nonsense")
        assert bob.frame().payload == b"nonsense"
        server.realtime.garbage(b"\x81\x02\xff\xfe")
        assert bob.frame().payload == b"\xff\xfe"
        server.realtime.garbage(b"\x81\x7f" + (1 << 40).to_bytes(8, "big"))
        assert bob.sock.recv(100) == b"\x81\x7f\x00\x00\x01\x00\x00\x00\x00\x00"


def test_garbage_in_place_of_a_handshake(server: DevServer) -> None:
    """garbage on a silent connection is what its handshake is answered with."""
    server.realtime.silent()
    with WsClient(server.port, PATH, handshake=False) as client:
        client.sock.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")
        client.sock.sendall(b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n")
        deadline = time.monotonic() + 5
        while server.realtime.garbage(b"HTTP/1.1 999 What\r\n\r\n") == 0 and time.monotonic() < deadline:
            pass
        assert client.sock.recv(100).startswith(b"HTTP/1.1 999 What")


def test_what_acts_now_leaves_no_rule(server: DevServer) -> None:
    """A cut is no rule that stands: connections made later live, and the list of rules stays empty."""
    assert server.realtime.cut() == 0
    assert server.fault_rules() == []
    with listening(server, "bob"):
        assert server.realtime.overview()["sockets"] >= 1
        assert server.realtime.cut("nobody") == 0
        struck = server.state()["faults_struck"].get("ws_cut", 0)
        assert server.realtime.cut("bob") == 1
        assert server.state()["faults_struck"]["ws_cut"] == struck + 1


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("ws_cut", {"times": 3}),
        ("ws_slow", {"operation": "ws"}),
        ("pub_reorder", {"window": 1}),
        ("pub_drop", {"every": 0}),
        ("pub_delay", {}),
        ("event_drop", {"user": "bob"}),
        ("ws_garbage", {"hex": "zz"}),
        ("ws_nonsense", {}),
    ],
)
def test_rules_that_cannot_be_meant_so(server: DevServer, kind: str, rule: dict[str, object]) -> None:
    """A switch that does not know an argument, or cannot use its value, is refused."""
    with pytest.raises(ControlRefused) as refused:
        server.faults(kind, **rule)
    assert refused.value.status == 400


def test_http_faults_leave_the_realtime_side_alone(server: DevServer, stream: str) -> None:
    """A rule of the HTTP side strikes neither handshakes nor publications."""
    server.faults("status", status=503)
    server.faults("latency", ms=1000)
    with WsClient(server.port, PATH) as client:
        client.send({"id": 1, "connect": {"token": server.ws_tokens["bob"]}})
        assert "connect" in client.message(0.9)


def test_refused_door_ends_websockets_too(server: DevServer) -> None:
    """refuse, the HTTP side's closed door, resets open websockets as well."""
    with plainly(server, "alice") as alice:
        server.faults("refuse", for_s=0.3)
        assert isinstance(ends(alice), ConnectionResetError)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            with plainly(server, "alice"):
                return
        except OSError:
            continue
    pytest.fail("the door stayed closed")
