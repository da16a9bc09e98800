"""One client on `/ws`: the plain JSON protocol. One JSON object with a `type` in each text frame.

Handshake: `GET /ws?conversation_id=<channel id>&user_id=<user>` with `Authorization: Bearer <access or websocket
token>` or `?token=<the same>`. `conversation_id` may be left out or repeated; `user_id` may be left out, and is 403
where it is not the token's user. No token, a bad or an expired one: HTTP 401 with the body of any other route.

What a client sends                                           what is answered
    {"type": "ping"}                                          {"type": "pong"}
    {"type": "subscribe", "conversation_id": C}               {"type": "subscribed", "conversation_id": C}, or an error
    {"type": "unsubscribe", "conversation_id": C}             {"type": "unsubscribed", "conversation_id": C}
    {"type": "typing", "conversation_id": C, "user_id": U}    nothing; the others who hear C get it. With
                                                              `"typing": false` it tells that U has stopped
The conversations of the query are answered in the same way, right after the handshake.
Errors: {"type": "error", "code": K, "message": text}, with `conversation_id` where it is about one. K is BAD_REQUEST (a
frame that makes no sense), NOT_FOUND or FORBIDDEN (no such channel; not a member), LIMIT (more than 128 conversations).
After an error the connection goes on.

What a client hears
    {"type": "message", "id": M, "conversation_id": C, "sender_id": U, "text": text or null, "sequence_number": n,
     "client_msg_id": M, "status": "sent", "user": {"id": U, "name": ..., "image": ...}, "attachments": [...],
     "parent_id": ..., "reply_to_id": ..., "created_at": ISO, "updated_at": ISO, "deleted_at": ISO or null}
    {"type": "message.updated", ...}      the same fields, as they are now
    {"type": "message.deleted", "conversation_id": C, "message_id": M}
    {"type": "typing", "conversation_id": C, "user_id": U, "typing": true or false, "user": {"id": U, "name": ...}}
    {"type": "unsubscribed", "conversation_id": C, "code": 2000, "reason": text}      removed from the channel
    every other event as the API publishes it (contract, 11.4), with the conversation beside it:
    {"type": "read.updated", "conversation_id": C, "payload": {"channelId": C, ...}}
    and without `conversation_id` what is published to the user alone:
    {"type": "channel.unread_changed", "payload": {"channelId": C, "count": n}}
Frames carry no offset and nothing is replayed: a client fetches what it missed over HTTP, by sequence number.

Closing: 1001 the server stops (come back), 1002 a broken frame, 1003 a binary frame, 1007 text that is not UTF-8, 1008
taken off by the server, such as by a revocation (stay away), 1012 the same for a while (come back), 1013 reads too
slowly (come back), 4401 the token has run out (come back with another). A frame of more than 64 KiB ends in a reset.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from chatsdk.devserver.ids import canonical_uuid
from chatsdk.devserver.realtime.connection import Connection
from chatsdk.devserver.realtime.frames import text_frame
from chatsdk.devserver.realtime.hub import Hub, Presence
from chatsdk.devserver.realtime.publication import Publication, compact
from chatsdk.devserver.realtime.rooms import NoSuchRoom, NotAMember, Rooms

CONVERSATION_LIMIT = 128
STOPPED = (1001, "server stops")
NOT_TEXT = (1003, "text frames only")
TAKEN_OFF = (1008, "taken off by the server")
TRY_AGAIN = (1012, "try again")
SLOW = (1013, "reads too slowly")
TOKEN_OVER = (4401, "token expired")


class PlainSession:
    """A client of `/ws`. `expires`: the end of its token, in Unix seconds."""

    def __init__(
        self, hub: Hub, connection: Connection, rooms: Rooms, user: str, expires: float, conversations: Sequence[str]
    ) -> None:
        self.hub, self.connection, self.rooms = hub, connection, rooms
        self.user = rooms.full_name(user)
        self._id, self._expires, self._first = user, expires, conversations
        self._presence = Presence(self.user, str(uuid.uuid4()))
        self._heard: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    # What the connection tells

    def opened(self) -> None:
        self.hub.listen(self, self.rooms.own_stream(self._id), self._presence)
        self.reschedule()
        for conversation in self._first:
            self._subscribe(conversation)

    def received(self, text: str) -> None:
        try:
            frame = json.loads(text)
        except (ValueError, RecursionError):
            frame = None
        kind = frame.get("type") if isinstance(frame, dict) else None
        if kind == "ping":
            if not self.hub.suffers("ws_no_pong", self.connection):
                self._send({"type": "pong"})
        elif kind == "typing":
            self._typing(frame)
        elif kind in ("subscribe", "unsubscribe") and isinstance(frame.get("conversation_id"), str):
            (self._subscribe if kind == "subscribe" else self._unsubscribe)(frame["conversation_id"])
        else:
            self._error("BAD_REQUEST", "This frame makes no sense")

    def received_binary(self) -> None:
        self.connection.close(*NOT_TEXT)

    def frames(self, messages: list[bytes]) -> bytes:
        return b"".join(map(text_frame, messages))

    def deliver(self, publication: Publication) -> None:
        text = publication.text(event_frame)
        if text is not None:
            self.connection.send(text)

    def removed(self, stream: str, code: int, reason: str) -> None:
        conversation = stream.rpartition(":")[2]
        # Positions are Centrifugo's: who is told that one is void here would not know what to do with it.
        if code == 2000 and conversation in self._heard:
            self._forget(conversation)
            self._send({"type": "unsubscribed", "conversation_id": conversation, "code": code, "reason": reason})

    def stop(self) -> tuple[int, str]:
        return STOPPED

    def too_slow(self) -> tuple[int, str]:
        return SLOW

    def disconnect(self, code: int, reason: str) -> None:
        for_good = 3500 <= code < 4000 or code >= 4500
        self.connection.close(*(TAKEN_OFF if for_good else TRY_AGAIN))

    def reschedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        late = max(0.0, self._expires - self.hub.clock.seconds())
        self._timer = asyncio.get_running_loop().call_later(late, self.connection.close, *TOKEN_OVER)

    def ended(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.hub.stop_listening(self, self.rooms.own_stream(self._id))
        for conversation in list(self._heard):
            self._forget(conversation)

    # Frames

    def _subscribe(self, asked: str) -> None:
        conversation = canonical_uuid(asked)
        try:
            if conversation is None:
                raise NoSuchRoom
            self.rooms.admit(self._id, conversation)
        except NoSuchRoom:
            self._error("NOT_FOUND", "Channel not found", asked)
            return
        except NotAMember:
            self._error("FORBIDDEN", "Not a member of this channel", asked)
            return
        if conversation not in self._heard and len(self._heard) >= CONVERSATION_LIMIT:
            self._error("LIMIT", f"A connection carries {CONVERSATION_LIMIT} conversations at most", asked)
            return
        self._heard.add(conversation)
        self.hub.listen(self, self.rooms.stream(conversation), self._presence)
        self._send({"type": "subscribed", "conversation_id": conversation})

    def _unsubscribe(self, asked: str) -> None:
        conversation = canonical_uuid(asked) or asked
        self._forget(conversation)
        self._send({"type": "unsubscribed", "conversation_id": conversation})

    def _forget(self, conversation: str) -> None:
        self._heard.discard(conversation)
        self.hub.stop_listening(self, self.rooms.stream(conversation))

    def _typing(self, frame: Mapping[str, Any]) -> None:
        conversation = canonical_uuid(str(frame.get("conversation_id")))
        if conversation is None or conversation not in self._heard:
            self._error("FORBIDDEN", "Subscribe to the conversation first", frame.get("conversation_id"))
        else:
            self.rooms.type(self._id, conversation, typing=frame.get("typing", True) is not False, typist=self)

    def _error(self, code: str, message: str, conversation: Any = None) -> None:
        about = {"conversation_id": conversation} if isinstance(conversation, str) else {}
        self._send({"type": "error", "code": code, "message": message, **about})

    def _send(self, frame: Mapping[str, Any]) -> None:
        self.connection.send(compact(frame).encode())


def event_frame(publication: Publication) -> bytes | None:
    """A publication of the API as a plain frame; None for what somebody else published, which has no `type`."""
    data = publication.data
    if not isinstance(data, dict) or not isinstance(data.get("type"), str):
        return None
    payload = data.get("payload")
    make = _FRAMES.get(data["type"])
    if make is not None:
        try:
            return compact(make(payload)).encode()
        except (KeyError, TypeError, ValueError, AttributeError):
            pass  # what was published past the API may look like its events and be none
    conversation = publication.stream.rpartition(":")[2]
    about = {"conversation_id": conversation} if publication.stream.startswith("chat:") else {}
    return compact({"type": data["type"], **about, "payload": payload}).encode()


def _message(kind: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    message = payload["message"]
    author = message["user"]
    seq = message["seq"]
    return {
        "type": kind,
        "id": message["id"],
        "conversation_id": payload["channelId"],
        "sender_id": author["id"],
        "text": message["text"],
        "sequence_number": int(seq),
        "client_msg_id": message.get("clientMsgId", message["id"]),
        "status": message["status"],
        "user": {"id": author["id"], "name": author["name"], "image": author.get("image")},
        "attachments": message["attachments"],
        "parent_id": message["parentId"],
        "reply_to_id": message.get("replyToId"),
        "created_at": message["createdAt"],
        "updated_at": message.get("updatedAt", message["createdAt"]),
        "deleted_at": message.get("deletedAt"),
    }


def _typing(payload: Mapping[str, Any], *, typing: bool) -> dict[str, Any]:
    user = payload["user"]
    about = {"conversation_id": payload["channelId"], "user_id": user["id"]}
    return {"type": "typing", **about, "typing": typing, "user": user}


_FRAMES = {
    "message.new": lambda payload: _message("message", payload),
    "message.updated": lambda payload: _message("message.updated", payload),
    "message.deleted": lambda payload: {
        "type": "message.deleted",
        "conversation_id": payload["channelId"],
        "message_id": payload["messageId"],
    },
    "typing.start": lambda payload: _typing(payload, typing=True),
    "typing.stop": lambda payload: _typing(payload, typing=False),
}
