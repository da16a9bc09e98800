"""JSON of the ChatSDK server, read into models.

Rules. What names the thing that was asked for (an id, a list) must be there, or the answer is an
`InvalidResponseError`: somebody else answered. Everything else is read if it has the expected type and otherwise left
at "not said"; `raw` keeps it as it came. Nothing else is ever raised, whatever the JSON. The server writes large
integers as text ("maxSeq": "7") in some places and as numbers in others, so both are read everywhere. No error text
quotes the answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from .errors import InvalidResponseError
from .exchange import Json
from .models import (
    Attachment,
    Channel,
    Health,
    Member,
    Message,
    MessagePage,
    Presence,
    Reaction,
    SearchHit,
    SearchPage,
    User,
    UserPresence,
)
from .tokens import Secret, Token

T = TypeVar("T")
Object = Mapping[str, Any]

_INTEGER = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_BEARER = re.compile(r"[\x21-\x7e]+")


# ---- fields: None, or an empty value, for what is not there or is something else


def _text(body: Object, name: str) -> str | None:
    value = body.get(name)
    return value if isinstance(value, str) else None


def _words(body: Object, name: str) -> str:
    return _text(body, name) or ""


def _integer(body: Object, name: str) -> int | None:
    value = body.get(name)
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(body: Object, name: str) -> float | None:
    value = body.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _moment(body: Object, name: str) -> datetime | None:
    value = body.get(name)
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _mapping(body: Object, name: str) -> Object:
    value = body.get(name)
    return value if isinstance(value, dict) else {}


def _all(body: Object, name: str, read: Callable[[Object], T | None]) -> tuple[T, ...]:
    """What can be read of the objects in a list."""
    values = body.get(name)
    found = (read(value) for value in values if isinstance(value, dict)) if isinstance(values, list) else ()
    return tuple(value for value in found if value is not None)


def _object(body: Json, what: str) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise InvalidResponseError(f"the answer is no {what}")
    return body


def _id(body: Object, what: str, name: str = "id") -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidResponseError(f"the answer is no {what}: it has no {name}")
    return value


def _list(body: Json, name: str) -> tuple[dict[str, Any], list[Json]]:
    values = body.get(name) if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(values, list):
        raise InvalidResponseError(f"the answer is no list of {name}")
    return body, values


# ---- people


def read_user(body: Json) -> User:
    """A user. Raises InvalidResponseError."""
    found = _object(body, "user")
    return User(
        id=_id(found, "user"),
        name=_text(found, "name"),
        image=_text(found, "image"),
        email=_text(found, "email"),
        custom=_mapping(found, "custom"),
        last_active_at=_moment(found, "lastActiveAt"),
        created_at=_moment(found, "createdAt"),
        raw=found,
    )


def _maybe_user(body: Object) -> User | None:
    return read_user(body) if isinstance(body.get("id"), str) and body["id"] else None


def read_member(body: Json) -> Member:
    """A member, in either shape: `{userId, role, joinedAt, user}` or `{id, name, ..., role, joinedAt}`."""
    found = _object(body, "member")
    user = _maybe_user(_mapping(found, "user")) if "userId" in found else _maybe_user(found)
    return Member(
        user_id=_id(found, "member", "userId" if "userId" in found else "id"),
        role=_text(found, "role"),
        joined_at=_moment(found, "joinedAt"),
        user=user,
        raw=found,
    )


def _maybe_member(body: Object) -> Member | None:
    try:
        return read_member(body)
    except InvalidResponseError:
        return None


def read_members(body: Json) -> tuple[Member, ...]:
    """`{"members": [...]}`. Raises InvalidResponseError."""
    _, members = _list(body, "members")
    return tuple(read_member(member) for member in members)


def _user_presence(body: Object) -> UserPresence | None:
    name = _words(body, "id")
    if not name:
        return None
    return UserPresence(
        user_id=name,
        name=_text(body, "name"),
        image=_text(body, "image"),
        online=body.get("online") is True,
        last_seen=_moment(body, "lastSeen"),
        raw=body,
    )


def read_presence(body: Json) -> Presence:
    """Who of a channel is there. Raises InvalidResponseError."""
    found, _ = _list(body, "online")
    online, offline = _all(found, "online", _user_presence), _all(found, "offline", _user_presence)
    total = _integer(found, "totalMembers")
    present = _integer(found, "totalOnline")
    return Presence(
        online=online,
        offline=offline,
        total_online=len(online) if present is None else present,
        total_members=len(online) + len(offline) if total is None else total,
        raw=found,
    )


# ---- messages


def _attachment(body: Object) -> Attachment:
    size = _integer(body, "size")
    waveform = body.get("waveform")
    samples = waveform if isinstance(waveform, list) else []
    return Attachment(
        type=_words(body, "type"),
        url=_words(body, "url"),
        name=_text(body, "name"),
        title=_text(body, "title"),
        mime_type=_text(body, "mimeType"),
        size=_integer(body, "fileSize") if size is None else size,
        width=_integer(body, "width"),
        height=_integer(body, "height"),
        duration=_number(body, "duration"),
        waveform=tuple(float(each) for each in samples if _number({"": each}, "") is not None),
        thumbnail_url=_text(body, "thumbnailUrl"),
        raw=body,
    )


def _reaction(body: Object) -> Reaction | None:
    emoji = _words(body, "type")
    if not emoji:
        return None
    return Reaction(
        type=emoji,
        count=_integer(body, "count") or 0,
        own=body.get("own") is True,
        users=_all(body, "users", _maybe_user),
        raw=body,
    )


def read_message(body: Json, *, channel: str = "") -> Message:
    """A message in any of its shapes; `channel`: which channel was asked, for those that do not say it. Raises
    InvalidResponseError."""
    found = _object(body, "message")
    user = _maybe_user(_mapping(found, "user"))
    mentions = found.get("mentions")
    return Message(
        id=_id(found, "message"),
        channel_id=_words(found, "channelId") or _words(found, "cid") or channel,
        user_id=_words(found, "userId") or (user.id if user else ""),
        text=_words(found, "text"),
        seq=_integer(found, "seq"),
        key=_text(found, "clientMsgId"),
        status=_words(found, "status"),
        type=_words(found, "type") or "regular",
        created_at=_moment(found, "createdAt"),
        updated_at=_moment(found, "updatedAt"),
        deleted_at=_moment(found, "deletedAt"),
        parent_id=_text(found, "parentId"),
        reply_to_id=_text(found, "replyToId"),
        attachments=_all(found, "attachments", _attachment),
        reactions=_all(found, "reactions", _reaction),
        mentions=tuple(each for each in mentions if isinstance(each, str)) if isinstance(mentions, list) else (),
        user=user,
        duplicate=found.get("duplicate") is True,
        raw=found,
    )


def read_message_page(body: Json, *, channel: str, limit: int) -> MessagePage:
    """A page of at most `limit` messages, sorted by seq: the server sorts some by time, which can disagree. Its
    `hasMore` is not believed; a full page has more. Raises InvalidResponseError."""
    found, values = _list(body, "messages")
    messages = [read_message(value, channel=channel) for value in values]
    messages.sort(key=lambda message: (message.seq is None, message.seq or 0))
    return MessagePage(
        messages=tuple(messages),
        max_seq=_integer(found, "maxSeq") or 0,
        has_more=len(messages) >= limit,
        raw=found,
    )


def read_search_page(body: Json) -> SearchPage:
    """A page of search results. Raises InvalidResponseError."""
    found, values = _list(body, "results")
    return SearchPage(
        hits=tuple(_hit(value) for value in values),
        query=_words(found, "query"),
        total=_integer(found, "totalHits") or 0,
        offset=_integer(found, "offset") or 0,
        limit=_integer(found, "limit") or 0,
        raw=found,
    )


def _hit(body: Json) -> SearchHit:
    found = _object(body, "search result")
    return SearchHit(
        message_id=_id(found, "search result", "messageId"),
        channel_id=_words(found, "channelId"),
        channel_name=_text(found, "channelName"),
        user_id=_words(found, "userId"),
        user_name=_text(found, "userName"),
        text=_words(found, "text"),
        highlighted=_words(found, "highlightedText"),
        created_at=_moment(found, "createdAt"),
        raw=found,
    )


# ---- channels


def read_channel(body: Json) -> Channel:
    """A channel. Raises InvalidResponseError."""
    found = _object(body, "channel")
    return Channel(
        id=_id(found, "channel"),
        cid=_text(found, "cid"),
        type=_words(found, "type"),
        name=_text(found, "name"),
        image=_text(found, "image"),
        member_count=_integer(found, "memberCount") or 0,
        message_count=_integer(found, "messageCount") or 0,
        last_message_at=_moment(found, "lastMessageAt"),
        created_by=_text(found, "createdBy"),
        created_at=_moment(found, "createdAt"),
        updated_at=_moment(found, "updatedAt"),
        config=_mapping(found, "config"),
        workspace_id=_text(found, "workspaceId"),
        role=_text(found, "role"),
        last_read_seq=_integer(found, "lastReadSeq") or 0,
        unread_count=_integer(found, "unreadCount") or 0,
        muted=found.get("muted") is True,
        starred=found.get("starred") is True,
        members=_all(found, "members", _maybe_member),
        raw=found,
    )


def read_channels(body: Json) -> tuple[Channel, ...]:
    """`{"channels": [...]}`. Raises InvalidResponseError."""
    _, values = _list(body, "channels")
    return tuple(read_channel(value) for value in values)


# ---- the rest


def read_done(body: Json) -> None:
    """`{"success": true}`. Raises InvalidResponseError."""
    if _object(body, "confirmation").get("success") is not True:
        raise InvalidResponseError("the answer is no confirmation")


def read_last_read(body: Json) -> int:
    """How far a channel is read now. Raises InvalidResponseError."""
    seq = _integer(_object(body, "confirmation"), "lastReadSeq")
    if seq is None:
        raise InvalidResponseError("the answer does not say how far the channel is read")
    return seq


def read_health(body: Json) -> Health:
    """What the server says of itself. Raises InvalidResponseError."""
    found = _object(body, "health report")
    return Health(
        status=_id(found, "health report", "status"),
        time=_moment(found, "timestamp"),
        uptime=_number(found, "uptime"),
        raw=found,
    )


def read_token(body: Json, *, now: float) -> Token:
    """A pair of tokens: `token` or `accessToken`, `refreshToken`, `_internal.wsToken` or `wsToken`, `expiresIn` seconds
    counted from `now` (Unix time). Raises InvalidResponseError, which quotes nothing."""
    found = _object(body, "token")
    access = _bearer(found, "token") or _bearer(found, "accessToken")
    if access is None:
        raise InvalidResponseError("the answer holds no token")
    life = _number(found, "expiresIn")
    return Token(
        access=access,
        ws=_bearer(_mapping(found, "_internal"), "wsToken") or _bearer(found, "wsToken"),
        refresh=_bearer(found, "refreshToken"),
        expires_at=now + life if life is not None and life > 0 else None,
    )


def read_stream_token(body: Json) -> Secret:
    """The token of a subscription. Raises InvalidResponseError."""
    token = _bearer(_object(body, "token"), "token")
    if token is None:
        raise InvalidResponseError("the answer is no token: it has no token")
    return token


def _bearer(body: Object, name: str) -> Secret | None:
    value = _words(body, name)
    return Secret(value) if _BEARER.fullmatch(value) else None  # anything else can't stand in a header
