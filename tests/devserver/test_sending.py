"""Sending over a real socket: idempotency under parallel repeats, gapless seqs, and logs that tell what happened."""

from __future__ import annotations

import socket
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chatsdk.devserver.api import BODY_LIMIT
from chatsdk.devserver.process import DevServer
from tests.devserver.caller import call, send


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    """Give one server to all tests of this file."""
    with DevServer() as started:
        yield started


def seqs(server: DevServer, channel: str) -> list[int]:
    return [message["seq"] for message in server.log()["messages"] if message["channel"] == channel]


def test_parallel_repeats_of_one_key(server: DevServer) -> None:
    """Of many sends of a key at once one is 201 and all others 200 duplicates of it; one message is stored."""
    key = str(uuid.uuid4())
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: send(server, "at once", key), range(16)))
    assert Counter(reply.status for reply in replies) == {201: 1, 200: 15}
    seq = next(reply.body["seq"] for reply in replies if reply.status == 201)
    assert {reply.body["seq"] for reply in replies if reply.status == 200} == {str(seq)}
    assert [message["key"] for message in server.log()["messages"]].count(key) == 1
    outcomes = Counter(attempt["outcome"] for attempt in server.log()["attempts"] if attempt["key"] == key)
    assert outcomes == {"stored": 1, "duplicate": 15}


def test_seqs_have_no_gap(server: DevServer) -> None:
    """Many senders, repeats and refusals: the seqs of a channel are 1 to n, and the log has them in that order."""
    channel = server.channel("alice", "bob")
    keys = [str(uuid.uuid4()) for _ in range(60)]

    def one(position: int) -> None:
        user = "alice" if position % 2 else "bob"
        assert send(server, "x", keys[position], user=user, channel=channel).status == 201
        assert send(server, "x", keys[position], user=user, channel=channel).status == 200
        assert send(server, "", str(uuid.uuid4()), user=user, channel=channel).status == 400

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, range(60)))
    assert seqs(server, channel) == list(range(1, 61))


def test_key_in_another_channel_is_a_conflict(server: DevServer) -> None:
    """A key belongs to the channel it was first used in, also after that channel is gone."""
    one, other, key = server.channel("alice"), server.channel("alice"), str(uuid.uuid4())
    assert send(server, "x", key, channel=one).status == 201
    reply = send(server, "x", key, channel=other)
    assert (reply.status, reply.body["error"]["code"]) == (409, "CONFLICT")
    assert call(server, "DELETE", f"/api/channels/{one}", user="alice").status == 200
    assert send(server, "x", key, channel=other).status == 409
    assert seqs(server, other) == []


def test_every_try_is_logged(server: DevServer) -> None:
    """Refused sends are tries as well: with their key, user, status and reason to be found."""
    key = str(uuid.uuid4())
    before = server.log()["attempts"][-1]["ordinal"] if server.log()["attempts"] else 0
    unknown = str(uuid.uuid4())
    send(server, "", key)
    send(server, "x", key, channel=unknown)
    send(server, "x", key, token="rubbish")
    path = f"/api/channels/{server.channel_id}/messages"
    call(server, "POST", path, user="alice", headers={"Content-Type": "application/json"})
    attempts = server.log(attempts_since=before)["attempts"]
    assert [(each["outcome"], each["status"]) for each in attempts] == [
        ("rejected", 400),
        ("rejected", 404),
        ("rejected", 401),
        ("rejected", 400),
    ]
    assert [each["key"] for each in attempts] == [key, key, key, None]
    assert [each["user"] for each in attempts] == ["alice", "alice", None, "alice"]
    assert attempts[1]["channel"] == unknown
    assert [each["ordinal"] for each in attempts] == sorted({each["ordinal"] for each in attempts})


def test_reply_route_is_idempotent(server: DevServer) -> None:
    """The thread route keeps the same promise, and its replies are in the log."""
    parent, key = send(server, "parent").body["id"], str(uuid.uuid4())
    path = f"/api/channels/{server.channel_id}/messages/{parent}/thread"
    body = {"text": "reply", "clientMsgId": key}
    assert [call(server, "POST", path, body, user="bob").status for _ in range(3)] == [201, 200, 200]
    assert [message["text"] for message in server.log()["messages"] if message["key"] == key] == ["reply"]


def test_log_is_paged(server: DevServer) -> None:
    """`since` and `limit` give the log in pieces, in order, without overlap."""
    for number in range(5):
        send(server, f"page {number}")
    whole = server.log()["messages"]
    pieces: list[dict[str, Any]] = []
    while piece := server.log(since=pieces[-1]["position"] if pieces else 0, limit=3)["messages"]:
        pieces += piece
    assert pieces == whole


def test_log_survives_edit_purge_and_reset(server: DevServer) -> None:
    """What was accepted stays in the log as it was, whatever becomes of the message."""
    channel = server.channel("alice")
    message = send(server, "first words", channel=channel).body["id"]
    path = f"/api/channels/{channel}/messages/{message}"
    assert call(server, "PATCH", path, {"text": "edited"}, user="alice").status == 200
    assert call(server, "DELETE", f"{path}/purge", user="alice").status == 200
    server.reset()
    assert [each["text"] for each in server.log()["messages"] if each["key"] == message] == ["first words"]
    assert send(server, "again", message).status == 409


def test_paging_covers_everything_once(server: DevServer) -> None:
    """Pages forward by since_seq and backward by before show each message once, and hasMore ends with the last page."""
    channel = server.channel("alice")
    for number in range(7):
        send(server, f"m{number}", channel=channel)
    path = f"/api/channels/{channel}/messages?limit=3"
    first = call(server, "GET", path, user="alice").body
    backward, page = list(first["messages"]), first
    while page["hasMore"]:
        page = call(server, "GET", f"{path}&before={backward[0]['id']}", user="alice").body
        backward = page["messages"] + backward
    assert [message["text"] for message in backward] == [f"m{number}" for number in range(7)]
    forward, page = [backward[0]], {"hasMore": True}
    while page["hasMore"]:
        page = call(server, "GET", f"{path}&since_seq={forward[-1]['seq']}", user="alice").body
        forward += page["messages"]
    assert forward == backward


def test_search_finds_what_the_caller_may_read(server: DevServer) -> None:
    """Search finds parts of words in any case, in the caller's channels only, and marks them."""
    word = uuid.uuid4().hex
    secret = server.channel("alice", name="secret")
    send(server, f"a {word.upper()}ish thing", channel=secret)
    send(server, f"b {word} 100% thing")
    found = call(server, "GET", f"/api/search?q={word}", user="alice").body
    assert (found["totalHits"], len(found["results"])) == (2, 2)
    assert f"<mark>{word.upper()}</mark>ish" in found["results"][1]["highlightedText"]
    theirs = call(server, "GET", f"/api/search?q={word}", user="bob").body
    assert [hit["channelId"] for hit in theirs["results"]] == [server.channel_id]
    assert call(server, "GET", f"/api/search?q={word}%20100%25", user="bob").body["totalHits"] == 1
    assert call(server, "GET", f"/api/channels/{secret}/search?q={word}", user="alice").body["totalHits"] == 1


def test_receipts_are_kept(server: DevServer) -> None:
    """Who marked a message as read is told, once each (the original fails at this)."""
    message = send(server, "read me").body["id"]
    path = f"/api/channels/{server.channel_id}/receipts"
    for _ in range(2):
        assert call(server, "POST", path, {"messageId": message}, user="bob").status == 200
    read = call(server, "GET", f"{path}/messages/{message}/receipts", user="alice").body
    assert ([reader["userId"] for reader in read["readBy"]], read["readCount"], read["totalMembers"]) == (["bob"], 1, 2)
    status = call(server, "GET", f"{path}/read-status", user="alice").body["members"]
    assert {each["userId"]: each["lastReadMessageId"] for each in status} == {"alice": None, "bob": message}


def test_body_over_the_limit_is_413(server: DevServer) -> None:
    """A body that no memory should hold is refused with 413, and the server goes on."""
    head = "POST /tokens HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        # Just what the server reads: unread bytes would turn its close into a reset that may overtake the answer.
        connection.sendall(head.encode() + b"x" * (BODY_LIMIT + 1))
        assert connection.recv(12) == b"HTTP/1.1 413"
    assert call(server, "GET", "/health").status == 200
