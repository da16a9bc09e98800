"""Publications of the ChatSDK server, read into events.

Two envelopes say the same: `{"type": "message.new", "payload": {...}}` as Centrifugo carries it (contract, 11.4), and
the plain frames of seed 004, `{"type": "message", "id": ..., "conversation_id": ..., "sequence_number": ...}`. What an
event must have to be ordered (the message's id and seq) is looked at at once, everything else on first access. A type
that is not in the table, or one without what it must have, is `Unknown`. Nothing is ever raised here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from . import realtime_events as events
from .chatsdk_models import read_channel, read_message, read_user
from .errors import InvalidResponseError
from .exchange import Json
from .models import Message
from .realtime_events import Facts, RealtimeEvent, make_event

Object = Mapping[str, Any]

_NOTHING: Object = {}

_MAX_SEQ = 2**63 - 1


def read_event(data: Json, user: str, channel: str = "", offset: int | None = None, at: float = 0.0) -> RealtimeEvent:
    """The event that a publication stands for. `channel`: the channel's id, "" on a user's own stream."""
    try:
        kind = _KINDS[data["type"]]
    except (KeyError, TypeError):
        return events.Unknown(user, channel, data, offset=offset, at=at)
    payload = data.get("payload", data)
    if payload.__class__ is not dict:
        return events.Unknown(user, channel, data, offset=offset, at=at)
    cls, read, message_at = kind
    if not channel:
        channel = _text(payload, "channelId", "conversation_id")
    if message_at is None:
        if cls is events.TypingStarted and (payload.get("typing") is False or payload.get("is_typing") is False):
            cls = events.TypingStopped
        return cls(user, channel, data, read, None, None, offset, False, at)
    if message_at == "message":
        message = payload.get("message", payload)
        if message.__class__ is not dict:
            return events.Unknown(user, channel, data, offset=offset, at=at)
        name = message.get("id")
        seq = message.get("seq")
        if seq is None:
            seq = message.get("sequence_number")  # so the plain protocol calls it
        if seq.__class__ is not int or not 0 <= seq <= _MAX_SEQ:
            seq = _seq(seq)
    else:
        name = payload.get(message_at) or payload.get("message_id") or payload.get("id")
        seq = None
    if name.__class__ is not str or not name:
        return events.Unknown(user, channel, data, offset=offset, at=at)
    return make_event(cls, user, channel, data, read, name, seq, offset, False, at)


def event_of(message: Message, *, user: str, channel: str, at: float = 0.0) -> events.MessageReceived:
    """The event of a message that was fetched over HTTP."""
    facts = {"message": message}
    return events.MessageReceived(user, channel, message.raw, lambda _: facts, message.id, message.seq, None, False, at)


# ---- what must be known at once


def _text(found: Object, *names: str) -> str:
    for name in names:
        value = found.get(name)
        if isinstance(value, str):
            return value
    return ""


def _seq(value: Json) -> int | None:
    """The thread route writes it as text (contract, 11.4)."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        value = int(value)
    return value if value.__class__ is int and 0 <= value <= _MAX_SEQ else None


# ---- what is read on first access


def _payload(raw: Json) -> Object:
    payload = raw.get("payload", raw)
    return payload if isinstance(payload, dict) else _NOTHING


def _message_facts(raw: Json) -> Facts:
    payload = _payload(raw)
    message = payload.get("message", payload)
    channel = _text(payload, "channelId", "conversation_id")
    return {"message": read_message(_as_contract(message), channel=channel)}


_PLAIN = {
    "conversation_id": "channelId",
    "sender_id": "userId",
    "user_id": "userId",
    "sequence_number": "seq",
    "client_msg_id": "clientMsgId",
    "idempotency_key": "clientMsgId",
    "plaintext": "text",
    "content": "text",
    "created_at": "createdAt",
    "updated_at": "updatedAt",
    "deleted_at": "deletedAt",
    "parent_id": "parentId",
    "reply_to_id": "replyToId",
}
"""Names of seed 004 and of its server, and ours."""


def _as_contract(message: Object) -> Object:
    more = {ours: message[name] for name, ours in _PLAIN.items() if name in message and ours not in message}
    if not more:
        return message
    facts = {**message, **more}
    if facts.get("type") in ("message", "message.new", "message.updated"):
        facts["type"] = "regular"  # the frame's, not the message's
    return facts


def _who(found: Object) -> dict[str, Any]:
    user = found.get("user")
    try:
        known = read_user(user) if isinstance(user, dict) else None
    except InvalidResponseError:
        known = None
    return {"by": _text(found, "userId", "user_id") or (known.id if known else ""), "by_user": known}


def _user_facts(raw: Json) -> Facts:
    return _who(_payload(raw))


def _reaction_facts(raw: Json) -> Facts:
    reaction = _payload(raw).get("reaction")
    if not isinstance(reaction, dict):
        return {"reaction": reaction if isinstance(reaction, str) else "", **_who(_payload(raw))}
    return {"reaction": _text(reaction, "type"), **_who(reaction)}


def _read_facts(raw: Json) -> Facts:
    payload = _payload(raw)
    return {"last_read_seq": _seq(payload.get("lastReadSeq")), **_who(payload)}


def _channel_facts(raw: Json) -> Facts:
    try:
        return {"channel": read_channel(_payload(raw).get("channel"))}
    except InvalidResponseError:
        return {}


def _count_facts(raw: Json) -> Facts:
    count = _payload(raw).get("count")
    return {"count": count if isinstance(count, int) else 0}


def _no_facts(_: Json) -> Facts:
    return _NOTHING


_Kind = tuple[type[RealtimeEvent], Callable[[Json], Facts], str | None]
"""(event, how to read the rest, where the message is: "message" for the whole, another name for its id)."""

_KINDS: Mapping[str, _Kind] = {
    "message.new": (events.MessageReceived, _message_facts, "message"),
    "message": (events.MessageReceived, _message_facts, "message"),
    "message.updated": (events.MessageUpdated, _message_facts, "message"),
    "message.deleted": (events.MessageDeleted, _no_facts, "messageId"),
    "thread.reply": (events.ThreadReplied, _message_facts, "message"),
    "reaction.added": (events.ReactionAdded, _reaction_facts, "messageId"),
    "reaction.removed": (events.ReactionRemoved, _reaction_facts, "messageId"),
    "typing": (events.TypingStarted, _user_facts, None),
    "typing.start": (events.TypingStarted, _user_facts, None),
    "typing.stop": (events.TypingStopped, _user_facts, None),
    "read.updated": (events.ReadUpdated, _read_facts, None),
    "channel.created": (events.ChannelCreated, _channel_facts, None),
    "channel.updated": (events.ChannelUpdated, _channel_facts, None),
    "channel.deleted": (events.ChannelDeleted, _channel_facts, None),
    "channel.member_joined": (events.MemberJoined, _user_facts, None),
    "channel.member_left": (events.MemberLeft, _user_facts, None),
    "channel.unread_changed": (events.UnreadChanged, _count_facts, None),
    "channel.total_unread_changed": (events.UnreadChanged, _count_facts, None),
    "poll.created": (events.PollCreated, _no_facts, "messageId"),
    "poll.voted": (events.PollVoted, _user_facts, None),
    "poll.vote_removed": (events.PollVoteRemoved, _user_facts, None),
    "presence.online": (events.PresenceOnline, _user_facts, None),
    "presence.offline": (events.PresenceOffline, _user_facts, None),
    "workspace.created": (events.WorkspaceChanged, _no_facts, None),
    "workspace.updated": (events.WorkspaceChanged, _no_facts, None),
    "workspace.deleted": (events.WorkspaceChanged, _no_facts, None),
    "workspace.member_joined": (events.WorkspaceChanged, _no_facts, None),
}
