"""Sending, reading and changing messages; threads, reactions, receipts, search (contract, sections 7 and 8).

Rules of sending: `clientMsgId` is the message's id and is remembered for good. The first send of a key is 201, every
repeat in the same channel 200 with the short body, whatever its text or author; the same key in another channel is 409.
The message, its log entry and the record of the attempt are one transaction. Replies through the thread route follow
the same rules (the original answers 500 to their repeats).
"""

from __future__ import annotations

import sqlite3
from typing import Any

from chatsdk.devserver import limits
from chatsdk.devserver.answers import SUCCESS, Answer, ok, refused, thrown
from chatsdk.devserver.checks import Form, whole_number
from chatsdk.devserver.handlers.channels import ROLES, joined, readable
from chatsdk.devserver.ids import canonical_uuid, from_iso, iso, uuid7
from chatsdk.devserver.routes import Operation
from chatsdk.devserver.store.channels import OPEN_TYPES
from chatsdk.devserver.store.messages import message_shape, reply_shape
from chatsdk.devserver.world import Call

TEXT_LIMIT = 10_000
EMOJI_LIMIT = 50
_ATTACHMENT_TYPES = ("image", "video", "audio", "file", "giphy", "voicenote")
_OWN_MEDIA = "/api/uploads/content"


def send(call: Call) -> Answer:
    form = call.form()
    text = form.string("text", required=True, least=1, most=TEXT_LIMIT)
    key = _key(form)
    attachments = _attachments(form)
    parent, reply_to = form.string("parentId", form="uuid"), form.string("replyToId", form="uuid")
    form.done()
    assert text is not None
    channel = _writable(call)
    for attachment in attachments:
        if _OWN_MEDIA in attachment["url"]:
            raise refused(403, "Attachment media is not available in this channel", "ATTACHMENT_FORBIDDEN")
    if key is not None and (repeat := _repeat(call, key, channel)) is not None:
        return repeat
    for name, other in (("Parent message", parent), ("Quoted message", reply_to)):
        if other is not None and not call.world.messages.exists(other.lower()):
            raise refused(404, f"{name} not found")
    row = _accept(
        call,
        channel,
        key,
        text,
        attachments,
        parent=parent and parent.lower(),
        reply_to=reply_to and reply_to.lower(),
    )
    return Answer(201, call.world.messages.shapes([row], call.user)[0])


def reply(call: Call) -> Answer:
    """The thread route: answers in the reply's shape, and counts as no unread message."""
    form = call.form()
    text = form.string("text", required=True, least=1, most=TEXT_LIMIT)
    key = form.string("clientMsgId", form="uuid")
    attachments = form.array("attachments") or []
    form.done()
    assert text is not None
    channel = joined(call, "FORBIDDEN")
    parent = _parent(call, channel)
    key = key and key.lower()
    if key is not None and (repeat := _repeat(call, key, channel)) is not None:
        return repeat
    row = _accept(call, channel, key, text, attachments, parent=parent["id"], by_thread_route=True)
    return Answer(201, {**_new_reply(row), **({"clientMsgId": key} if key else {})})


def _new_reply(row: sqlite3.Row) -> dict[str, Any]:
    """A reply as the thread route answers and publishes it."""
    shape = reply_shape(row)
    shape["user"] = {name: shape["user"][name] for name in ("id", "name")}
    return {name: value for name, value in shape.items() if name not in ("editedAt", "deletedAt")}


def _key(form: Form) -> str | None:
    """The canonical clientMsgId; "" counts as none."""
    given = form.string("clientMsgId")
    if not given:
        return None
    key = canonical_uuid(given)
    if key is None:
        form.issue("clientMsgId", "invalid_string", "Invalid uuid", validation="uuid")
    return key


def _attachments(form: Form) -> list[dict[str, Any]]:
    checked = []
    for position, item in enumerate(form.array("attachments") or ()):
        each = Form(item, ["attachments", position], form.issues)
        fields: dict[str, Any] = {
            "type": each.choice("type", _ATTACHMENT_TYPES, required=True),
            "url": each.string("url", required=True, form="url"),
            "thumbnailUrl": each.string("thumbnailUrl", form="url"),
            "waveform": each.array("waveform"),
        }
        fields.update((name, each.string(name)) for name in ("name", "title", "mimeType"))
        fields.update((name, each.number(name)) for name in ("size", "fileSize", "width", "height", "duration"))
        checked.append({name: value for name, value in fields.items() if value is not None})
    return checked


def _writable(call: Call) -> str:
    channel = readable(call)
    if channel["type"] in OPEN_TYPES:
        call.world.channels.add_member(channel["id"], call.user, "member", call.now)
    return str(channel["id"])


def _repeat(call: Call, key: str, channel: str) -> Answer | None:
    known = call.world.log.find(key)
    if known is None:
        return None
    if known["channel"] != channel:
        raise thrown(409, "This clientMsgId was used in another channel")
    call.world.log.record(call.attempt(call.user), "duplicate", 200)
    call.attempt_recorded = True
    return ok({"id": key, "seq": str(known["seq"]), "status": "sent", "duplicate": True})


def _accept(
    call: Call,
    channel: str,
    key: str | None,
    text: str,
    attachments: list[Any],
    *,
    parent: str | None = None,
    reply_to: str | None = None,
    by_thread_route: bool = False,
) -> sqlite3.Row:
    world, now = call.world, call.now
    message = key or uuid7(now)
    with world.db.transaction():
        seq = world.messages.accept(
            message,
            channel,
            call.user,
            text,
            attachments,
            now,
            parent=parent,
            reply_to=reply_to,
            counts_as_unread=not by_thread_route,
        )
        if "@" in text:
            world.messages.mention(message, channel, call.user, text, now)
        world.log.accept(message, channel, call.user, text, seq, call.ordinal, now)
        world.log.record(call.attempt(call.user), "stored", 201)
        row = world.messages.find(channel, message)
        assert row is not None
        if by_thread_route:
            world.events.reply_new(channel, _new_reply(row))
        else:
            world.events.message_new(row)
    call.attempt_recorded = True
    return row


def list_messages(call: Call) -> Answer:
    channel, messages, query = readable(call), call.world.messages, call.query
    limit = whole_number(query.get("limit"), 100, "limit", most=200)
    since = whole_number(query.get("since_seq"), 0, "since_seq", least=-1, lenient=True)
    ends: dict[str, int | None] = {}
    for name in ("before", "after"):
        if query.get(name):
            anchor = canonical_uuid(query[name])
            if anchor is None:
                raise thrown(400, f"Query parameter '{name}' must be a UUID")
            row = messages.find(channel["id"], anchor)
            ends[name] = None if row is None else row["seq"]
    # One more than asked for tells whether there is more.
    if since > 0:
        rows = messages.following(channel["id"], since, limit + 1)
        page = rows[:limit]
    elif "before" in ends:
        rows = [] if ends["before"] is None else messages.newest(channel["id"], limit + 1, before=ends["before"])
        page = rows[-limit:] if limit else []
    elif "after" in ends:
        rows = [] if ends["after"] is None else messages.following(channel["id"], ends["after"], limit + 1)
        page = rows[:limit]
    else:
        rows = messages.newest(channel["id"], limit + 1)
        page = rows[-limit:] if limit else []
    shapes = messages.shapes(page, call.user)
    return ok({"messages": shapes, "maxSeq": str(channel["last_seq"]), "hasMore": len(rows) > limit})


def get(call: Call) -> Answer:
    row = _existing(call, readable(call)["id"])
    return ok(call.world.messages.shapes([row], call.user)[0])


def edit(call: Call) -> Answer:
    form = call.form()
    text = form.string("text", required=True, least=1, most=TEXT_LIMIT)
    form.done()
    assert text is not None
    channel = joined(call)
    row = _existing(call, channel)
    if row["deleted"] is not None:
        raise refused(404, "Message not found")
    if row["user"] != call.user:
        raise refused(403, "Can only edit own messages")
    messages = call.world.messages
    with call.world.db.transaction():
        messages.edit(row["id"], text, call.now)
        edited, reactions = _existing(call, channel), messages.reaction_count(row["id"])
        call.world.events.message_updated(edited, reactions)
    return ok(message_shape(edited, reactions))


def delete(call: Call) -> Answer:
    row, world = _deletable(call, author_may=True), call.world
    with world.db.transaction():
        world.messages.delete(row["id"], call.now)
        if row["deleted"] is None:
            world.events.message_deleted(row["channel"], row["id"])
    return SUCCESS


def purge(call: Call) -> Answer:
    row = _deletable(call, author_may=False)
    call.world.messages.purge(row["id"], call.now)
    return ok({"success": True, "purged": True})


def _deletable(call: Call, *, author_may: bool) -> sqlite3.Row:
    world, channel = call.world, call.uuid("channel")
    role = world.channels.role(channel, call.user)
    row = world.messages.find_any(channel, call.uuid("message"))
    if role is None or row is None:
        raise refused(404, "Message not found")
    if not (author_may and row["user"] == call.user) and ROLES.index(role) > ROLES.index("moderator"):
        raise refused(403, "Permission denied")
    return row


def react(call: Call) -> Answer:
    form = call.form()
    emoji = form.string("emoji", required=True, least=1, most=EMOJI_LIMIT)
    form.done()
    assert emoji is not None
    row, world = _existing(call, joined(call)), call.world
    with world.db.transaction():
        if world.messages.react(row["id"], emoji, call.user, call.now):
            world.events.reaction(row["channel"], row["id"], emoji, call.user, added=True)
    return SUCCESS


def unreact(call: Call) -> Answer:
    row, world, emoji = _existing(call, joined(call)), call.world, call.params["emoji"]
    with world.db.transaction():
        if world.messages.unreact(row["id"], emoji, call.user):
            world.events.reaction(row["channel"], row["id"], emoji, call.user, added=False)
    return SUCCESS


def thread(call: Call) -> Answer:
    limit = whole_number(call.query.get("limit"), 50, "limit")
    before = _time(call, "before")
    channel = joined(call, "FORBIDDEN")
    parent = _parent(call, channel)
    replies = call.world.messages.replies(parent["id"], limit + 1, before)
    shape = message_shape(parent, 0)
    shown = {name: shape[name] for name in ("id", "type", "text", "replyCount", "createdAt")}
    user = {name: shape["user"][name] for name in ("id", "name", "image")}
    return ok(
        {
            "parent": {**shown, "seq": str(parent["seq"]), "user": user},
            "replies": [reply_shape(row) for row in replies[:limit]],
            "hasMore": len(replies) > limit,
        }
    )


def participants(call: Call) -> Answer:
    parent = _parent(call, joined(call, "FORBIDDEN"))
    return ok({"participants": call.world.messages.participants(parent["id"])})


def receipt(call: Call) -> Answer:
    """Marks one message as read (the original always answers 500)."""
    form = call.form()
    message = form.string("messageId", required=True, form="uuid")
    form.done()
    channel = joined(call, "FORBIDDEN")
    if call.world.messages.find(channel, str(message).lower()) is None:
        raise refused(404, "Message not found")
    call.world.messages.receipt(str(message).lower(), call.user, call.now)
    return SUCCESS


def receipts_of(call: Call) -> Answer:
    channel = joined(call, "FORBIDDEN")
    readers = call.world.messages.readers(_existing(call, channel)["id"])
    total = len(call.world.channels.members(channel))
    return ok({"readBy": readers, "readCount": len(readers), "totalMembers": total})


def query_receipts(call: Call) -> Answer:
    form = call.form()
    wanted = form.strings("messageIds")
    form.done()
    channel, messages = joined(call, "FORBIDDEN"), call.world.messages
    found = [each for each in (wanted or [])[:100] if messages.find(channel, each.lower()) is not None]
    readers = {each: messages.readers(each.lower()) for each in found}
    return ok({"receipts": {each: {"readCount": len(who), "readers": who} for each, who in readers.items()}})


def search(call: Call) -> Answer:
    text, limit, offset = _search_query(call)
    channel = call.query.get("channelId")
    hits, total = call.world.messages.search(
        call.user, text, channel, _time(call, "fromDate"), _time(call, "toDate"), limit, offset
    )
    counted = {"query": text, "totalHits": total, "processingTimeMs": 0, "offset": offset, "limit": limit}
    return ok({"results": hits, **counted})


def search_channel(call: Call) -> Answer:
    text, limit, offset = _search_query(call)
    channel = joined(call, "FORBIDDEN")
    hits, total = call.world.messages.search(call.user, text, channel, None, None, limit, offset)
    return ok({"results": hits, "query": text, "totalHits": total, "processingTimeMs": 0})


def _search_query(call: Call) -> tuple[str, int, int]:
    form = Form(call.query)
    text = form.string("q", required=True, least=1, most=500)
    limit = whole_number(call.query.get("limit"), 20, "limit", most=100)
    if limit < 1:
        message = "Number must be greater than or equal to 1"
        form.issue("limit", "too_small", message, minimum=1, type="number", inclusive=True, exact=False)
    form.done()
    return str(text), limit, whole_number(call.query.get("offset"), 0, "offset")


def _time(call: Call, name: str) -> int | None:
    given = call.query.get(name)
    if not given:
        return None
    found = from_iso(given)
    if found is None:
        raise thrown(400, f"Query parameter '{name}' must be an ISO 8601 time, such as {iso(0)}")
    return found


def _existing(call: Call, channel: str) -> sqlite3.Row:
    row = call.world.messages.find(channel, call.uuid("message"))
    if row is None:
        raise refused(404, "Message not found")
    return row


def _parent(call: Call, channel: str) -> sqlite3.Row:
    row = call.world.messages.find(channel, call.uuid("message"))
    if row is None:
        raise refused(404, "Parent message not found", "NOT_FOUND")
    return row


_ALL = "/api/channels/{channel}/messages"
_ONE = "/api/channels/{channel}/messages/{message}"
_RECEIPTS = "/api/channels/{channel}/receipts"
OPERATIONS = (
    Operation("send", "POST", _ALL, send, "chat:write", limits.SEND, sends=True),
    Operation("list_messages", "GET", _ALL, list_messages, "chat:read", limits.HISTORY),
    Operation("get_message", "GET", _ONE, get, "chat:read", limits.HISTORY),
    Operation("edit", "PATCH", _ONE, edit, "chat:write", limits.MESSAGE_MUTATION),
    Operation("delete", "DELETE", _ONE, delete, "chat:write", limits.MESSAGE_MUTATION),
    Operation("purge", "DELETE", f"{_ONE}/purge", purge, "chat:write", limits.MESSAGE_MUTATION),
    Operation("react", "POST", f"{_ONE}/reactions", react, "reaction:write", limits.REACTION),
    Operation("unreact", "DELETE", f"{_ONE}/reactions/{{emoji}}", unreact, "reaction:write", limits.REACTION),
    Operation("thread", "GET", f"{_ONE}/thread", thread, "chat:read", limits.HISTORY),
    Operation("reply", "POST", f"{_ONE}/thread", reply, "chat:write", limits.SEND, sends=True),
    Operation("participants", "GET", f"{_ONE}/thread/participants", participants, "chat:read", limits.HISTORY),
    Operation("receipt", "POST", _RECEIPTS, receipt, "chat:write"),
    Operation("receipts_of", "GET", f"{_RECEIPTS}/messages/{{message}}/receipts", receipts_of, "chat:read"),
    Operation("query_receipts", "POST", f"{_RECEIPTS}/query", query_receipts, "chat:read"),
    Operation("search", "GET", "/api/search", search, "search:read", limits.SEARCH),
    Operation("search_channel", "GET", "/api/channels/{channel}/search", search_channel, "search:read", limits.SEARCH),
)
