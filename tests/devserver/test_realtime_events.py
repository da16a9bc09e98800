"""What HTTP writes publish (contract, 11.4): the recorded events, each told once, in the order of the commits."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from chatsdk.devserver.process import DevServer
from tests.devserver.caller import call, send
from tests.devserver.listening import listening, subscribe
from tests.devserver.wsclient import WsClient


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    """Give one server to all tests of this file; each has a channel of its own."""
    with DevServer() as started:
        yield started


@pytest.fixture
def channel(server: DevServer) -> str:
    """Give a channel that alice owns and bob is in."""
    return server.channel("alice", "bob")


def own(server: DevServer, user: str) -> str:
    return f"user:{server.app_id}:{user}"


def ask(server: DevServer, method: str, path: str, body: Any = None, user: str = "alice") -> Any:
    reply = call(server, method, f"/api/{path}", body, user=user)
    assert reply.status < 300, reply
    return reply.body


def events(client: WsClient, count: int) -> list[tuple[str, Any]]:
    """The next events, as (type, payload)."""
    found: list[tuple[str, Any]] = []
    while len(found) < count:
        push = client.message().get("push", {})
        if "pub" in push:
            found.append((push["pub"]["data"]["type"], push["pub"]["data"]["payload"]))
    return found


def test_life_of_a_message(server: DevServer, channel: str) -> None:
    """Sent, edited, deleted: one event each, also for edits within one second; repeats are told to nobody."""
    key = str(uuid.uuid4())
    path = f"channels/{channel}/messages/{key}"
    with listening(server, "bob", server.stream(channel)) as bob:
        sent = send(server, "one", key, channel=channel).body
        assert send(server, "one", key, channel=channel).status == 200
        edits = [ask(server, "PATCH", path, {"text": f"edit {number}"}) for number in range(3)]
        ask(server, "DELETE", path)
        ask(server, "DELETE", path)
        found = events(bob, 5)
        assert bob.nothing_comes()
    kinds = [kind for kind, _ in found]
    assert kinds == ["message.new", "message.updated", "message.updated", "message.updated", "message.deleted"]
    shown = {name: value for name, value in sent.items() if name not in ("reactions", "mentions")}
    assert found[0][1] == {"channelId": channel, "message": shown}
    assert [payload["message"] for _, payload in found[1:4]] == edits
    assert found[4][1] == {"channelId": channel, "messageId": key}


def test_unread_counts(server: DevServer, channel: str) -> None:
    """A send tells every other member their counts, reading sets them back; the sender hears no count."""
    with listening(server, "bob", own(server, "bob")) as bob, listening(server, "alice", own(server, "alice")) as alice:
        send(server, "one", channel=channel)
        (first, one), (second, total) = events(bob, 2)
        assert (first, one) == ("channel.unread_changed", {"channelId": channel, "count": 1})
        assert second == "channel.total_unread_changed"
        assert total["count"] >= 1
        ask(server, "POST", f"channels/{channel}/read", {}, "bob")
        assert events(bob, 2)[0] == ("channel.unread_changed", {"channelId": channel, "count": 0})
        assert alice.nothing_comes()


def test_reactions(server: DevServer, channel: str) -> None:
    """Added and removed, once each; adding again after a removal is told, unlike at the original."""
    key = str(uuid.uuid4())
    send(server, "one", key, channel=channel)
    path = f"channels/{channel}/messages/{key}/reactions"
    with listening(server, "bob", server.stream(channel)) as bob:
        for _ in range(2):
            ask(server, "POST", path, {"emoji": "👍"})
        for _ in range(2):
            ask(server, "DELETE", f"{path}/%F0%9F%91%8D")
        ask(server, "POST", path, {"emoji": "👍"})
        found = events(bob, 3)
        assert bob.nothing_comes()
    assert [kind for kind, _ in found] == ["reaction.added", "reaction.removed", "reaction.added"]
    reaction = {"type": "👍", "userId": "alice", "user": {"id": "alice", "name": "Alice"}}
    assert found[0][1] == {"channelId": channel, "messageId": key, "reaction": reaction}


def test_threads(server: DevServer, channel: str) -> None:
    """The thread route publishes the reply twice, in its own shape; parentId as any message, with a numeric seq."""
    key = str(uuid.uuid4())
    send(server, "parent", key, channel=channel)
    with listening(server, "bob", server.stream(channel)) as bob:
        reply = ask(server, "POST", f"channels/{channel}/messages/{key}/thread", {"text": "via thread"})
        (first, threaded), (second, plain) = events(bob, 2)
        assert (first, second) == ("thread.reply", "message.new")
        assert threaded == {"channelId": channel, "parentId": key, "message": reply}
        assert plain == {"channelId": channel, "message": reply}
        assert plain["message"]["seq"] == "2"
        ask(server, "POST", f"channels/{channel}/messages", {"text": "via parentId", "parentId": key})
        kind, payload = events(bob, 1)[0]
        assert (kind, payload["message"]["seq"], payload["message"]["parentId"]) == ("message.new", 3, key)


def test_typing_and_reading(server: DevServer, channel: str) -> None:
    """Typing takes offsets of the stream and is told to the typist too; reading tells how far."""
    send(server, "one", channel=channel)
    with listening(server, "alice", server.stream(channel)) as alice:
        ask(server, "POST", f"channels/{channel}/typing", {"typing": True})
        ask(server, "POST", f"channels/{channel}/typing", {"typing": False})
        ask(server, "POST", f"channels/{channel}/read", {}, "bob")
        user = {"id": "alice", "name": "Alice"}
        assert events(alice, 3) == [
            ("typing.start", {"channelId": channel, "user": user}),
            ("typing.stop", {"channelId": channel, "user": user}),
            ("read.updated", {"channelId": channel, "userId": "bob", "lastReadSeq": "1"}),
        ]
    assert server.realtime.overview()["streams"][server.stream(channel)]["offset"] == 4


def test_life_of_a_channel(server: DevServer) -> None:
    """Created and deleted on the members' own streams, updated on its own; one that is open to all is told to all."""
    server.mint("carol")
    with listening(server, "bob", own(server, "bob")) as bob, listening(server, "carol", own(server, "carol")) as carol:
        made = ask(server, "POST", "channels", {"type": "group", "name": "fresh", "memberIds": ["bob"]})
        assert events(bob, 1) == [("channel.created", {"channel": made})]
        stream = server.stream(made["id"])
        subscribe(server, bob, "bob", stream, 9)
        renamed = ask(server, "PATCH", f"channels/{made['id']}", {"name": "renamed"})
        assert events(bob, 1) == [("channel.updated", {"channel": renamed})]
        ask(server, "DELETE", f"channels/{made['id']}")
        assert events(bob, 1) == [("channel.deleted", {"channelId": made["id"]})]
        assert carol.nothing_comes()
        public = ask(server, "POST", "channels", {"type": "public", "name": "for all"})
        assert events(carol, 1) == [("channel.created", {"channel": public})]


def test_members(server: DevServer, channel: str) -> None:
    """Joining and leaving are told in the channel and to the one concerned, who is taken off the stream first."""
    server.mint("carol")
    stream, members = server.stream(channel), f"channels/{channel}/members"
    with listening(server, "bob", stream) as bob, listening(server, "carol", own(server, "carol")) as carol:
        ask(server, "POST", members, {"userId": "carol"})
        about = {"channelId": channel, "userId": "carol"}
        assert events(bob, 1) == [("channel.member_joined", about)]
        assert events(carol, 1) == [("channel.member_joined", about)]
        subscribe(server, carol, "carol", stream, 9)
        ask(server, "DELETE", f"{members}/carol")
        told = [carol.message()["push"] for _ in range(2)]
        assert told[0] == {"channel": stream, "unsubscribe": {"code": 2000, "reason": "server unsubscribe"}}
        assert told[1]["pub"]["data"] == {"type": "channel.member_left", "payload": about}
        pushes = bob.until(lambda message: "pub" in message["push"])
        assert "leave" in pushes[-2]["push"]
        assert pushes[-1]["push"]["pub"]["data"] == {"type": "channel.member_left", "payload": about}
        send(server, "members only", channel=channel)
        assert carol.nothing_comes()
        # As at the original: a token from before still opens the stream.
        assert "subscribe" in subscribe(server, carol, "carol", stream, 10)


def test_presence_on_the_own_stream(server: DevServer) -> None:
    """Going online and offline is told to oneself alone."""
    with listening(server, "bob", own(server, "bob")) as bob:
        ask(server, "POST", "presence/online", {}, "bob")
        ask(server, "POST", "presence/offline", {}, "bob")
        (first, online), (second, offline) = events(bob, 2)
    assert (first, online) == ("presence.online", {"userId": "bob"})
    assert (second, set(offline)) == ("presence.offline", {"userId", "lastSeen"})


def test_revoked_sessions_end_connections(server: DevServer) -> None:
    """Revoking closes with 3503, and the same token connects again until it ends: that is how the original is."""
    token = server.session("bob")["wsToken"]
    with listening(server, "bob") as bob:
        server.end_sessions("bob")
        assert bob.message() == {"close": 3503, "reason": "force disconnect"}
    with WsClient(server.port, "/connection/websocket") as again:
        again.send({"id": 1, "connect": {"token": token}})
        assert "connect" in again.message()


def test_refused_writes_publish_nothing(server: DevServer, channel: str) -> None:
    """A write that was refused, or was rolled back, leaves no event behind, and takes no offset."""
    with listening(server, "bob", server.stream(channel)) as bob:
        assert call(server, "POST", f"/api/channels/{channel}/messages", {"text": ""}, user="alice").status == 400
        server.mint("eve")
        path = f"/api/channels/{channel}/messages"
        assert call(server, "POST", path, {"text": "x"}, token=server.mint("eve")).status == 403
        send(server, "one", channel=channel)
        push = bob.message()["push"]["pub"]
        assert (push["offset"], push["data"]["payload"]["message"]["text"]) == (1, "one")


def test_a_lost_reply_is_published_all_the_same(server: DevServer, channel: str) -> None:
    """The event belongs to the commit, not to the answer."""
    with listening(server, "bob", server.stream(channel)) as bob:
        server.faults("reply_lost", operation="send", times=1)
        with pytest.raises(ConnectionError):
            send(server, "committed", channel=channel)
        assert events(bob, 1)[0][1]["message"]["text"] == "committed"
