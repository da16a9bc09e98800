"""Every kind of fault, seen by a raw client on a real socket, and what the logs say of it."""

from __future__ import annotations

import gzip
import http.client
import socket
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from chatsdk.devserver.process import DevServer
from tests.devserver.caller import Reply, call, exchange, send, send_bytes


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


def last_attempt(server: DevServer) -> dict[str, Any]:
    return server.log()["attempts"][-1]


def stored(server: DevServer, key: str) -> bool:
    return key in [message["key"] for message in server.log()["messages"]]


def new_key() -> str:
    return str(uuid.uuid4())


def retry_is(server: DevServer, key: str, status: int) -> None:
    """The same key again, undisturbed."""
    reply = send(server, "again", key)
    assert reply.status == status, reply


@pytest.mark.parametrize("kind", ["drop", "reset"])
def test_connection_ends_before_processing(server: DevServer, kind: str) -> None:
    """drop and reset: no answer, nothing stored, and the try is in the log; the retry is the first to be stored."""
    server.faults(kind, operation="send", times=1)
    key = new_key()
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)) as caught:
        send(server, "x", key)
    assert isinstance(caught.value, http.client.RemoteDisconnected) == (kind == "drop")
    assert not stored(server, key)
    attempt = last_attempt(server)
    assert (attempt["outcome"], attempt["result"], attempt["key"]) == (f"fault:{kind}", None, key)
    assert attempt["user"] == "alice"
    retry_is(server, key, 201)


def test_reply_lost(server: DevServer) -> None:
    """reply_lost: no answer, but the message is stored once; the retry is a duplicate."""
    server.faults("reply_lost", operation="send", times=1)
    key = new_key()
    with pytest.raises(http.client.RemoteDisconnected):
        send(server, "x", key)
    assert stored(server, key)
    attempt = last_attempt(server)
    assert (attempt["outcome"], attempt["result"], attempt["status"]) == ("fault:reply_lost", "stored", 201)
    retry_is(server, key, 200)


def test_drop_sends_no_byte(server: DevServer) -> None:
    """The caller of a dropped request gets an orderly end of the stream and not one byte."""
    server.faults("drop", operation="send", times=1)
    assert exchange(server, send_bytes(server, new_key())) == b""


def test_other_requests_on_a_kept_connection_go_on(server: DevServer) -> None:
    """A fault hits the request it fits, not the requests before it on the same connection."""
    server.faults("drop", operation="send", times=1)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        for _ in range(3):
            connection.request("GET", "/health")
            assert connection.getresponse().read()
        connection.sock.sendall(send_bytes(server, new_key()))
        assert connection.sock.recv(1) == b""
    finally:
        connection.close()


def test_truncated(server: DevServer) -> None:
    """truncated: the head promises more than comes; the message is stored."""
    server.faults("truncated", operation="send", times=1)
    key = new_key()
    with pytest.raises(http.client.IncompleteRead) as caught:
        send(server, "x", key)
    assert 0 < len(caught.value.partial) < 2000
    assert stored(server, key)
    retry_is(server, key, 200)


def test_truncated_without_processing(server: DevServer) -> None:
    """`processed` turns the custom of a kind round."""
    server.faults("truncated", operation="send", processed=False, times=1)
    key = new_key()
    with pytest.raises(http.client.IncompleteRead):
        send(server, "x", key)
    assert not stored(server, key)


def test_drip(server: DevServer) -> None:
    """drip: byte after byte, each in its own time; together they are the true answer."""
    server.faults("drip", operation="health", interval_s=0.002, times=1)
    begun = time.monotonic()
    reply = call(server, "GET", "/health")
    assert reply.body["status"] == "ok"
    assert time.monotonic() - begun >= 0.002 * (len(reply.raw) - 1)


def test_drip_ends_with_the_caller(server: DevServer) -> None:
    """A caller who hangs up on a drip does not keep the server: it answers others and forgets this one."""
    server.faults("drip", operation="health", interval_s=3600, times=1)
    with pytest.raises(TimeoutError):
        call(server, "GET", "/health", timeout=0.2)
    assert call(server, "GET", "/health").status == 200


@pytest.mark.parametrize(
    ("rule", "status", "header", "text"),
    [
        ({"status": 503}, 503, None, "Injected fault 503"),
        ({"status": 500}, 500, None, "INTERNAL_ERROR"),
        ({"status": 429, "retry_after": 7}, 429, "7", '"retryAfter":7'),
        ({"status": 429, "retry_after": "Fri, 01 Jan 2100 00:00:00 GMT"}, 429, "Fri, 01 Jan 2100 00:00:00 GMT", "RATE"),
        ({"status": 502, "body": "Bad gateway"}, 502, None, "Bad gateway"),
        ({"status": 418, "body": {"error": {"message": "teapot"}}}, 418, None, "teapot"),
    ],
)
def test_status(server: DevServer, rule: dict[str, Any], status: int, header: str | None, text: str) -> None:
    """status: the code, the Retry-After and the body that the rule names; nothing is stored."""
    server.faults("status", operation="send", times=1, **rule)
    key = new_key()
    reply = send(server, "x", key)
    assert reply.status == status
    assert reply.headers.get("retry-after") == header
    assert text in reply.raw.decode()
    assert not stored(server, key)
    retry_is(server, key, 201)


def test_status_after_processing(server: DevServer) -> None:
    """A 500 after the message was stored: the answer lies, the log does not."""
    server.faults("status", operation="send", status=500, processed=True, times=1)
    key = new_key()
    assert send(server, "x", key).status == 500
    assert stored(server, key)
    assert last_attempt(server)["outcome"] == "fault:status"
    retry_is(server, key, 200)


def test_captive_portal(server: DevServer) -> None:
    """html: 200 and a page, where JSON was expected."""
    server.faults("html", operation="send", times=1)
    key = new_key()
    reply = send(server, "x", key)
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/html")
    assert b"<html>" in reply.raw
    assert not stored(server, key)


def test_garbage(server: DevServer) -> None:
    """garbage: 200, said to be JSON, and none."""
    server.faults("garbage", operation="send", times=1)
    reply = send(server, "x")
    assert (reply.status, reply.body) == (200, None)
    assert reply.headers["content-type"] == "application/json"


def test_huge(server: DevServer) -> None:
    """huge: as many bytes as asked for, and proper JSON."""
    server.faults("huge", operation="health", size=3_000_000, times=1)
    reply = call(server, "GET", "/health")
    assert len(reply.body["padding"]) == 3_000_000


def test_gzip_bomb(server: DevServer) -> None:
    """gzip_bomb: few bytes on the wire, very many unpacked."""
    server.faults("gzip_bomb", operation="health", size=5_000_000, times=1)
    reply = call(server, "GET", "/health")
    assert reply.headers["content-encoding"] == "gzip"
    assert len(reply.raw) < 50_000
    assert len(gzip.decompress(reply.raw)) > 5_000_000


def test_redirect(server: DevServer) -> None:
    """redirect: 302 to another host."""
    server.faults("redirect", operation="send", location="http://other.invalid/x", times=1)
    reply = send(server, "x")
    assert (reply.status, reply.headers["location"]) == (302, "http://other.invalid/x")


def test_unauthorized(server: DevServer) -> None:
    """unauthorized: good tokens are called bad, on the refresh route in its own words; a moment later all is well."""
    session = server.session("alice")
    server.faults("unauthorized", operation=["me", "refresh"])
    me = call(server, "GET", "/api/users/me", user="alice")
    assert (me.status, me.body["error"]["message"]) == (401, "Invalid token")
    refused = call(server, "POST", "/api/auth/refresh", token=session["refreshToken"])
    assert refused.status == 401
    assert refused.body["error"]["code"] == "INVALID_REFRESH_TOKEN"
    assert refused.body["error"]["message"] == "Invalid refresh token"
    server.clear_faults()
    assert call(server, "POST", "/api/auth/refresh", token=session["refreshToken"]).status == 200


def test_expired_tokens(server: DevServer) -> None:
    """expire_tokens: access tokens from before are expired; refreshing goes on and gives one that works."""
    session = server.session("alice")
    server.faults("expire_tokens")
    old = call(server, "GET", "/api/users/me", token=session["token"])
    assert (old.status, old.body["error"]["message"]) == (401, "Token expired")
    fresh = call(server, "POST", "/api/auth/refresh", token=session["refreshToken"]).body["token"]
    assert call(server, "GET", "/api/users/me", token=fresh).status == 200
    assert call(server, "GET", "/api/users/me", token=session["token"]).status == 401


def test_latency(server: DevServer) -> None:
    """latency: the answer is true but late."""
    server.faults("latency", operation="health", ms=150, times=1)
    begun = time.monotonic()
    assert call(server, "GET", "/health").status == 200
    assert time.monotonic() - begun >= 0.15


def test_caller_who_gives_up_is_served_all_the_same(server: DevServer) -> None:
    """A send whose caller hung up while it was delayed is stored later, as on the real server (15.3)."""
    server.faults("latency", operation="send", ms=300, times=1)
    key = new_key()
    with pytest.raises(TimeoutError):
        send(server, "x", key, timeout=0.05)
    ends = time.monotonic() + 5
    while not stored(server, key):
        assert time.monotonic() < ends, "never stored"
    retry_is(server, key, 200)


def test_stall(server: DevServer) -> None:
    """stall: silence for the time asked for, then the end; nothing is stored."""
    server.faults("stall", operation="send", hold_s=0.2, times=1)
    key = new_key()
    begun = time.monotonic()
    with pytest.raises(http.client.RemoteDisconnected):
        send(server, "x", key)
    assert time.monotonic() - begun >= 0.2
    assert not stored(server, key)


def test_refuse(server: DevServer) -> None:
    """refuse: the port refuses connections, open ones are reset, and after the time all is as before."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    with connection:
        server.faults("refuse", for_s=0.4)
        assert _ends(connection), "the open connection goes on"
        refused, ends = 0, time.monotonic() + 10
        while time.monotonic() < ends:
            try:
                reply: Reply | None = call(server, "GET", "/health")
            except ConnectionRefusedError:
                refused += 1
            except ConnectionError:
                continue  # just at the moment of closing
            else:
                if refused:
                    assert reply is not None
                    assert reply.status == 200
                    break
        assert refused
    assert send(server, "after").status == 201


def _ends(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_text_decides(server: DevServer) -> None:
    """A poison message is refused each time, the others pass."""
    server.faults("status", status=500, text_contains="poison ☠")
    assert send(server, "this is poison ☠ indeed").status == 500
    assert send(server, "this is not").status == 201


def test_user_and_channel_decide(server: DevServer) -> None:
    """Faults of one user in one channel leave others alone."""
    channel = server.channel("alice", "bob")
    server.faults("status", operation="send", status=503, user="alice", channel=channel)
    assert send(server, "x", channel=channel).status == 503
    assert send(server, "x").status == 201
    assert send(server, "x", user="bob", channel=channel).status == 201


def test_control_routes_are_spared(server: DevServer) -> None:
    """A rule for everything does not lock its maker out."""
    server.faults("drop")
    with pytest.raises(http.client.RemoteDisconnected):
        call(server, "GET", "/health")
    server.clear_faults()
    assert call(server, "GET", "/health").status == 200


def test_strikes_are_counted(server: DevServer) -> None:
    """A checker can see that its faults have really happened, also after the rules are gone."""
    before = server.state()["faults_struck"].get("garbage", 0)
    rule = server.faults("garbage", operation="health", times=2)
    for _ in range(3):
        call(server, "GET", "/health")
    described = next(each for each in server.fault_rules() if each["id"] == rule)
    assert (described["seen"], described["fired"], described["active"]) == (2, 2, False)
    server.clear_faults(rule)
    assert server.fault_rules() == []
    assert server.state()["faults_struck"]["garbage"] == before + 2
