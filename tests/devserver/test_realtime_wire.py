"""Bytes that no polite client sends, handshakes that are none, and the server's own API: on real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from chatsdk.devserver.process import ControlRefused, DevServer
from tests.devserver.caller import call, exchange
from tests.devserver.listening import PATH, listening, numbers, plainly, subscribe
from tests.devserver.wsclient import BINARY, CLOSE, PING, PONG, TEXT, HandshakeRefused, WsClient, masked

LIMIT = 64 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    """Give one server to all tests of this file."""
    with DevServer() as started:
        yield started


def still_works(server: DevServer) -> None:
    with listening(server, "alice"):
        pass


def closed_with(client: WsClient) -> tuple[int, str]:
    while (frame := client.frame()).opcode != CLOSE:
        pass
    return frame.close


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"\x81\x05hello", 1002),  # no mask
        (masked(TEXT, b"\xff\xfe"), 1007),
        (masked(3, b""), 1002),
        (b"\xf1" + masked(TEXT, b"x")[1:], 1002),  # reserved bits
        (masked(PING, b"x", fin=False), 1002),
        (masked(0, b"x"), 1002),
        (masked(TEXT, b"{", fin=False) + masked(TEXT, b"}"), 1002),
    ],
    ids=["no mask", "no UTF-8", "no opcode", "reserved bits", "half a ping", "no beginning", "no end"],
)
def test_broken_frames(server: DevServer, raw: bytes, code: int) -> None:
    """What breaks the rules of WebSocket is answered with a close frame that says so."""
    with listening(server, "bob") as client:
        client.sock.sendall(raw)
        assert closed_with(client)[0] == code
    still_works(server)


def test_announced_monster(server: DevServer) -> None:
    """A frame announced with 1 TiB costs no memory; its sender is cut off at 64 KiB."""
    with listening(server, "bob") as client:
        client.sock.sendall(b"\x81\xff" + (1 << 40).to_bytes(8, "big") + b"mask")
        client.sock.sendall(b"a" * LIMIT)
        client.sock.sendall(b"a" * 10)
        with pytest.raises(ConnectionResetError):
            client.frame()
    still_works(server)


@pytest.mark.parametrize("pieces", [1, 5])
def test_frame_limit(server: DevServer, pieces: int) -> None:
    """A message of 64 KiB is taken, in whatever fragments; one byte more ends in a reset."""
    for size, taken in ((LIMIT, True), (LIMIT + 1, False)):
        with plainly(server, "bob") as client:
            head = '{"type":"ping","padding":"'
            text = (head + "a" * (size - len(head) - 2) + '"}').encode()
            step = -(-size // pieces)
            for number in range(pieces):
                part = text[number * step : (number + 1) * step]
                client.sock.sendall(masked(TEXT if number == 0 else 0, part, fin=number == pieces - 1))
            if taken:
                assert client.message() == {"type": "pong"}
            else:
                with pytest.raises(ConnectionResetError):
                    client.frame()


def test_binary_frames(server: DevServer) -> None:
    """Neither protocol has any: 3501 for Centrifugo's, 1003 for the plain one."""
    with listening(server, "bob") as client:
        client.send_frame(BINARY, b"{}")
        assert closed_with(client) == (3501, "bad request")
    with plainly(server, "bob") as client:
        client.send_frame(BINARY, b"{}")
        assert closed_with(client)[0] == 1003


def test_control_frames(server: DevServer) -> None:
    """Pings are answered with their payload, pongs pass, a close is answered and ends the connection."""
    with listening(server, "bob") as client:
        client.send_frame(PONG, b"unasked")
        client.send_frame(PING, b"12345")
        frame = client.frame()
        assert (frame.opcode, frame.payload) == (PONG, b"12345")
        client.send_frame(CLOSE, (1000).to_bytes(2, "big"))
        assert closed_with(client)[0] == 1000
        with pytest.raises(ConnectionError, match="end of stream"):
            client.frame()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"id":2,"subscribe":{"channel":7}}', 3501),
        ('{"id":2,"subscribe":[]}', 3501),
        ('{"id":true,"unsubscribe":{"channel":"x"}}', 3501),
        ('{"id":-1,"unsubscribe":{"channel":"x"}}', 3501),
        ('{"id":2,"unsubscribe":{"channel":"x"},"presence":{"channel":"x"}}', 3501),
        ('{"id":2,"refresh":{}}', 3501),
        ('{"id":2,"refresh":{"token":"x.y.z"}}', 3500),
        ("[" * 10_000, 3501),
        ('{"id":2,"publish":{"channel":"forced:app:none"}}', None),
    ],
)
def test_commands_that_make_no_sense(server: DevServer, text: str, code: int | None) -> None:
    """They end the connection as at the real server; what is merely not permitted does not."""
    with listening(server, "bob") as client:
        client.send_text(text)
        if code is None:
            assert client.message() == {"id": 2, "error": {"code": 103, "message": "permission denied"}}
        else:
            assert closed_with(client)[0] == code


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/nowhere", {}, 404),
        (PATH, {"Origin": "http://127.0.0.1"}, 403),
        ("/ws", {"Origin": "http://evil.example"}, 403),
        ("/ws", {}, 401),
    ],
)
def test_refused_handshakes(server: DevServer, path: str, headers: dict[str, str], status: int) -> None:
    """Another path, a page of another origin, no token: an HTTP status with a body."""
    with pytest.raises(HandshakeRefused) as refused:
        WsClient(server.port, path, headers)
    assert refused.value.status == status
    assert "message" in json.loads(refused.value.body)["error"]


def test_handshakes_that_are_none(server: DevServer) -> None:
    """An upgrade without a key is a bad request; the HTTP side is untouched by half a handshake."""
    head = f"GET {PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n".encode()
    assert exchange(server, head + b"Sec-WebSocket-Version: 13\r\n\r\n").startswith(b"HTTP/1.1 400")
    with WsClient(server.port, PATH, handshake=False) as half:
        half.sock.sendall(head)
        assert call(server, "GET", "/health").status == 200
    assert call(server, "GET", "/ws", user="alice").status == 404


def test_expiry_by_the_servers_clock() -> None:
    """Time that a test skips ends tokens like time that passes: 2501 for a subscription, 3005 for the connection."""
    with DevServer() as server, listening(server, "bob") as client:
        stream = server.stream()
        token = server.subscription_token(stream, "bob", ttl=100)
        client.send({"id": 2, "subscribe": {"channel": stream, "token": token}})
        client.until(lambda message: "join" in message.get("push", {}))
        server.skip(130)
        assert client.message()["push"]["unsubscribe"] == {"code": 2501, "reason": "subscription expired"}
        server.skip(900)
        assert closed_with(client) == (3005, "connection expired")
    with DevServer() as server, plainly(server, "bob") as plain:
        server.skip(90_000)
        assert closed_with(plain)[0] == 4401


def test_recovery_with_an_empty_epoch(server: DevServer) -> None:
    """An empty epoch always fits; what history has lost it cannot give back."""
    stream = "chat:app:empty-epoch"
    server.realtime.publish(stream, *range(5))
    with listening(server, "bob") as client:
        told = subscribe(server, client, "bob", stream, 2, recoverable=True, recover=True, epoch="", offset=3)
        assert [each["offset"] for each in told["subscribe"]["publications"]] == [4, 5]
        client.send({"id": 3, "unsubscribe": {"channel": stream}})
        server.realtime.publish(stream, *range(200))
        told = subscribe(server, client, "bob", stream, 4, recoverable=True, recover=True, epoch="", offset=0)
        assert "recovered" not in told["subscribe"]
        assert told["subscribe"]["offset"] == 205


def test_history_pages(server: DevServer) -> None:
    """Limit, direction and a start; a start of another epoch is error 112."""
    stream = "chat:app:pages"
    server.realtime.publish(stream, *range(1, 6))
    position = server.realtime.overview()["streams"][stream]
    for wish, wanted in (
        ({"limit": 0}, []),
        ({"limit": 2}, [1, 2]),
        ({"limit": 2, "reverse": True}, [5, 4]),
        ({"limit": -1, "since": {**position, "offset": 3}}, [4, 5]),
        ({"limit": 1, "reverse": True, "since": {**position, "offset": 3}}, [2]),
    ):
        page = server.realtime.api("history", channel=stream, **wish)["result"]
        assert [each["offset"] for each in page["publications"]] == wanted
        assert page["offset"] == 5
    other = {"offset": 1, "epoch": "another"}
    assert server.realtime.api("history", channel=stream, limit=1, since=other)["error"]["code"] == 112


def test_server_api(server: DevServer) -> None:
    """broadcast, presence, channels, info, subscribe and history_remove do what Centrifugo's do."""
    one, two, api = "chat:app:one", "chat:app:two", server.realtime.api
    with listening(server, "bob", one) as bob:
        responses = api("broadcast", channels=[one, two, "zz:x"], data=1)["result"]["responses"]
        assert [set(each) for each in responses] == [{"result"}, {"result"}, {"error"}]
        assert numbers(bob, 1) == [1]
        present = api("presence", channel=one)["result"]["presence"]
        assert [each["user"] for each in present.values()] == [f"{server.app_id}:bob"]
        assert api("presence_stats", channel=one)["result"] == {"num_clients": 1, "num_users": 1}
        assert api("presence_stats", channel=two)["result"] == {"num_clients": 0, "num_users": 0}
        assert api("channels", pattern="chat:app:*")["result"] == {"channels": {one: {"num_clients": 1}}}
        assert api("info")["result"]["nodes"][0]["num_clients"] == 1
        api("subscribe", user="bob", channel=two)
        assert bob.message()["push"]["channel"] == two
        assert "join" in bob.message()["push"]
        server.realtime.publish(two, 2)
        assert numbers(bob, 1) == [2]
        api("history_remove", channel=two)
        assert api("history", channel=two, limit=-1)["result"]["publications"] == []
        assert api("history", channel=two)["result"]["offset"] == 2


@pytest.mark.parametrize(
    ("method", "body", "code"),
    [
        ("publish", {"channel": "zz:x", "data": 1}, 102),
        ("publish", {"channel": "chat:app:x"}, 107),
        ("publish", {"data": 1}, 107),
        ("history", {"channel": "user:app:x"}, 108),
        ("presence", {"channel": "user:app:x"}, 108),
        ("batch", {"commands": [{"nonsense": {}}]}, 107),
    ],
)
def test_server_api_refuses(server: DevServer, method: str, body: dict[str, Any], code: int) -> None:
    """What makes no sense is an error with Centrifugo's code, and changes nothing."""
    assert server.realtime.api(method, **body)["error"]["code"] == code


def test_server_api_is_for_this_machines_programs(server: DevServer) -> None:
    """Like all of /__dev__/: no web page gets in, and unknown methods are not there."""
    path = "/__dev__/centrifugo/info"
    assert call(server, "POST", path, {}, headers={"Origin": "http://127.0.0.1"}).status == 403
    with pytest.raises(ControlRefused) as refused:
        server.realtime.api("nonsense")
    assert refused.value.status == 404


def test_a_batch_is_all_or_nothing(server: DevServer) -> None:
    """Where one command of a batch makes no sense, none of it was published."""
    stream = "chat:app:batch"
    with listening(server, "bob", stream) as bob:
        commands = [{"publish": {"channel": stream, "data": 1}}, {"nonsense": {}}]
        assert server.realtime.api("batch", commands=commands)["error"]["code"] == 107
        server.realtime.publish(stream, 2)
        push = bob.message()["push"]["pub"]
        assert (push["offset"], push["data"]) == (1, 2)


def test_idle_clients_who_never_connect_are_listed_and_leave_nothing(server: DevServer) -> None:
    """Open sockets are counted; when they go, no listener stays behind."""
    clients = [WsClient(server.port, PATH) for _ in range(10)]
    assert server.realtime.overview()["sockets"] >= 10
    for client in clients:
        client.sock.close()
    with listening(server, "bob", "chat:app:left"):
        pass
    for _ in range(200):
        if server.realtime.overview()["sockets"] == 0:
            break
    assert server.realtime.overview() == {**server.realtime.overview(), "sockets": 0, "connections": []}
    assert server.realtime.api("channels")["result"] == {"channels": {}}
