"""The `websockets` client, which nobody here wrote, speaks the plain JSON protocol with the development server."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from chatsdk.devserver.process import DevServer
from tests.devserver.caller import call, send


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    """Give one server to all tests of this file; each has a channel of its own."""
    with DevServer() as started:
        yield started


def open_as(server: DevServer, user: str, query: str = "", token: str | None = None) -> ClientConnection:
    headers = {"Authorization": f"Bearer {token or server.tokens[user]}"}
    return connect(server.plain_url + query, additional_headers=headers, proxy=None, compression=None)


def read(client: ClientConnection, *kinds: str) -> dict[str, Any]:
    """The next frame of one of these types."""
    while True:
        frame: dict[str, Any] = json.loads(client.recv(timeout=10))
        if frame["type"] in kinds:
            return frame


def say(client: ClientConnection, **frame: Any) -> None:
    client.send(json.dumps(frame))


def test_interop_heartbeat(server: DevServer) -> None:
    """A ping is answered with a pong, and with nothing else."""
    with open_as(server, "alice") as client:
        for _ in range(3):
            say(client, type="ping")
            assert json.loads(client.recv(timeout=10)) == {"type": "pong"}


def test_interop_messages_of_a_conversation(server: DevServer) -> None:
    """The query chooses the conversation; sends, edits and deletes over HTTP come as frames, whole and in order."""
    channel = server.channel("alice", "bob")
    with open_as(server, "bob", f"?conversation_id={channel}&user_id=bob") as client:
        assert read(client, "subscribed") == {"type": "subscribed", "conversation_id": channel}
        key = str(uuid.uuid4())
        sent = send(server, "hello", key, channel=channel).body
        assert read(client, "message") == {
            "type": "message",
            "id": key,
            "conversation_id": channel,
            "sender_id": "alice",
            "text": "hello",
            "sequence_number": 1,
            "client_msg_id": key,
            "status": "sent",
            "user": {"id": "alice", "name": "Alice", "image": None},
            "attachments": [],
            "parent_id": None,
            "reply_to_id": None,
            "created_at": sent["createdAt"],
            "updated_at": sent["createdAt"],
            "deleted_at": None,
        }
        path = f"/api/channels/{channel}/messages/{key}"
        call(server, "PATCH", path, {"text": "hello!"}, user="alice")
        updated = read(client, "message.updated")
        assert (updated["id"], updated["text"], updated["sequence_number"]) == (key, "hello!", 1)
        call(server, "POST", f"{path}/reactions", {"emoji": "+1"}, user="alice")
        reaction = read(client, "reaction.added")
        assert reaction["conversation_id"] == channel
        assert reaction["payload"]["reaction"]["type"] == "+1"
        call(server, "DELETE", path, user="alice")
        deleted = read(client, "message.deleted")
        assert deleted == {"type": "message.deleted", "conversation_id": channel, "message_id": key}


def test_interop_subscribing_by_frames(server: DevServer) -> None:
    """Frames choose conversations as well; strangers and unknown ids are refused by name, and the rest goes on."""
    mine, foreign, unknown = server.channel("bob"), server.channel("alice"), str(uuid.uuid4())
    with open_as(server, "bob") as client:
        for asked, answer in (
            (mine, {"type": "subscribed"}),
            (foreign, {"type": "error", "code": "FORBIDDEN", "message": "Not a member of this channel"}),
            (unknown, {"type": "error", "code": "NOT_FOUND", "message": "Channel not found"}),
            ("nonsense", {"type": "error", "code": "NOT_FOUND", "message": "Channel not found"}),
        ):
            say(client, type="subscribe", conversation_id=asked)
            assert json.loads(client.recv(timeout=10)) == {**answer, "conversation_id": asked}
        send(server, "for me", user="bob", channel=mine)
        assert read(client, "message")["text"] == "for me"
        say(client, type="unsubscribe", conversation_id=mine)
        assert read(client, "unsubscribed") == {"type": "unsubscribed", "conversation_id": mine}
        send(server, "unheard", user="bob", channel=mine)
        say(client, type="ping")
        assert read(client, "message", "pong") == {"type": "pong"}


def test_interop_several_conversations_in_the_query(server: DevServer) -> None:
    """The parameter may repeat; each is answered."""
    channels = [server.channel("bob") for _ in range(3)]
    query = "&".join(f"conversation_id={channel}" for channel in channels)
    with open_as(server, "bob", f"?{query}") as client:
        assert [read(client, "subscribed")["conversation_id"] for _ in channels] == channels


def test_interop_typing(server: DevServer) -> None:
    """A typing frame reaches the others and not its sender, whichever protocol they speak; so does typing over HTTP."""
    channel = server.channel("alice", "bob")
    query = f"?conversation_id={channel}"
    with open_as(server, "alice", query) as alice, open_as(server, "bob", query) as bob:
        read(alice, "subscribed")
        read(bob, "subscribed")
        say(alice, type="typing", conversation_id=channel, user_id="alice")
        heard = {"type": "typing", "conversation_id": channel, "user_id": "alice", "typing": True}
        assert read(bob, "typing") == {**heard, "user": {"id": "alice", "name": "Alice"}}
        say(alice, type="typing", conversation_id=channel, user_id="alice", typing=False)
        assert read(bob, "typing")["typing"] is False
        call(server, "POST", f"/api/channels/{channel}/typing", {"typing": True}, user="bob")
        assert read(alice, "typing")["user_id"] == "bob"


def test_interop_the_users_own_events(server: DevServer) -> None:
    """Unread counts come without a subscription; so does being taken off a channel, after which nothing is heard."""
    channel = server.channel("alice", "bob")
    with open_as(server, "bob", f"?conversation_id={channel}") as bob:
        read(bob, "subscribed")
        send(server, "one", channel=channel)
        assert read(bob, "channel.unread_changed")["payload"] == {"channelId": channel, "count": 1}
        assert call(server, "DELETE", f"/api/channels/{channel}/members/bob", user="alice").status == 200
        gone = read(bob, "unsubscribed")
        assert (gone["conversation_id"], gone["code"]) == (channel, 2000)
        send(server, "two", channel=channel)
        say(bob, type="ping")
        assert read(bob, "message", "pong")["type"] == "pong"


@pytest.mark.parametrize(
    "frame", ["nonsense", "[]", '"x"', "{}", '{"type":"sing"}', '{"type":"subscribe"}', "[" * 5000]
)
def test_interop_frames_that_make_no_sense(server: DevServer, frame: str) -> None:
    """They are answered with an error, and the connection goes on."""
    with open_as(server, "alice") as client:
        client.send(frame)
        assert read(client, "error")["code"] == "BAD_REQUEST"
        say(client, type="ping")
        assert read(client, "pong")


@pytest.mark.parametrize(
    ("token", "query", "status"),
    [("", "", 401), ("x.y.z", "", 401), ("expired", "", 401), ("alice", "?user_id=bob", 403), ("ws", "", 101)],
)
def test_interop_handshakes(server: DevServer, token: str, query: str, status: int) -> None:
    """Without a good token there is no upgrade; the websocket token is as good as the access token."""
    made = {"alice": server.tokens["alice"], "ws": server.ws_tokens["alice"], "expired": server.mint("alice", ttl=-5)}
    headers = {"Authorization": f"Bearer {made.get(token, token)}"} if token else {}
    if status == 101:
        with connect(server.plain_url + query, additional_headers=headers, proxy=None):
            return
    with pytest.raises(InvalidStatus) as refused:
        connect(server.plain_url + query, additional_headers=headers, proxy=None)
    assert refused.value.response.status_code == status
    assert "message" in json.loads(refused.value.response.body or b"")["error"]


def test_interop_token_in_the_query(server: DevServer) -> None:
    """Where headers cannot be set, the token may be a parameter."""
    with connect(f"{server.plain_url}?token={server.tokens['bob']}", proxy=None) as client:
        say(client, type="ping")
        assert read(client, "pong")


def test_interop_the_end_of_a_token(server: DevServer) -> None:
    """When the token runs out the connection is closed with 4401."""
    with open_as(server, "bob", token=server.mint("bob", ttl=1)) as client, pytest.raises(ConnectionClosed) as closed:
        read(client, "never")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401


@pytest.mark.parametrize(("code", "seen"), [(4001, 1012), (4500, 1008), (3503, 1008)])
def test_interop_taken_off(server: DevServer, code: int, seen: int) -> None:
    """Taken off by the server: 1008 for good, 1012 for a while."""
    with open_as(server, "bob") as client:
        server.realtime.api("disconnect", user="bob", disconnect={"code": code, "reason": "x"})
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == seen


def test_interop_close_and_stop() -> None:
    """A client's close is answered; a server that stops says so with 1001."""
    with DevServer() as server:
        with open_as(server, "alice") as client:
            client.close(1000)
            assert client.protocol.close_rcvd is not None
        with open_as(server, "alice") as other:
            server.stop()
            with pytest.raises(ConnectionClosed) as closed:
                other.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
