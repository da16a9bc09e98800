"""What a chat system tells us, as frozen values.

Rules. Only what names a thing is certain to be there; everything else has a default that means "not said". Times are
aware datetimes. `raw` is the JSON object as it was received, with the fields that we do not know; it is left out of
repr, comparison and `to_dict`. Reading JSON is the backend's work (`chatsdk_models`): a model never guesses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields
from datetime import datetime
from typing import Any

from .record import Record, record

_NOTHING: Mapping[str, Any] = {}


def _plain(value: Any) -> Any:
    """The JSON form of a field."""
    if isinstance(value, Model):
        return value.to_dict()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    return value


class Model(Record):
    """Base of all models."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """All fields but `raw`, JSON-able; times as ISO 8601 text."""
        # a model is a dataclass, which the base cannot say
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self) if each.name != "raw"}  # type: ignore[arg-type]


@record(frozen=True, slots=True, kw_only=True)
class User(Model):
    """A person or a bot."""

    id: str
    name: str | None = None
    image: str | None = None
    email: str | None = None
    custom: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, hash=False)
    last_active_at: datetime | None = None
    created_at: datetime | None = None
    raw: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False, compare=False)


@record(frozen=True, slots=True, kw_only=True)
class Attachment(Model):
    """A file that a message carries, uploaded before. `type`: image, video, audio, file, giphy or voicenote.

    `size` in bytes, `width` and `height` in pixels, `duration` in seconds, `waveform` as loudness samples.
    """

    type: str
    url: str
    name: str | None = None
    title: str | None = None
    mime_type: str | None = None
    size: int | None = None
    width: int | None = None
    height: int | None = None
    duration: float | None = None
    waveform: tuple[float, ...] = ()
    thumbnail_url: str | None = None
    raw: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False, compare=False)


@record(frozen=True, slots=True, kw_only=True)
class Reaction(Model):
    """One emoji under a message: how many gave it, whether the asking user did, and the first few who did."""

    type: str
    count: int = 0
    own: bool = False
    users: tuple[User, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False, compare=False)


@record(frozen=True, slots=True, kw_only=True)
class Message(Model):
    """A message as the server stored it.

    channel_id  "" where the answer names no channel and the question did not either
    text        "" once it was deleted
    seq         its place in the channel, or None where the answer does not say; order by it, not by time
    key         the idempotency key it was sent with (`clientMsgId`)
    status      "sent" for what the server has
    type        "regular" or "deleted"
    parent_id   the message whose thread it belongs to
    reply_to_id the message it quotes
    mentions    user ids
    duplicate   the answer of a send says that the server had it already
    """

    id: str
    channel_id: str = ""
    user_id: str = ""
    text: str = ""
    seq: int | None = None
    key: str | None = None
    status: str = ""
    type: str = "regular"
    created_at: datetime | None = None
    updated_at: datetime | None = None
    deleted_at: datetime | None = None
    parent_id: str | None = None
    reply_to_id: str | None = None
    attachments: tuple[Attachment, ...] = ()
    reactions: tuple[Reaction, ...] = ()
    mentions: tuple[str, ...] = ()
    user: User | None = None
    duplicate: bool = False
    raw: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False, compare=False)

    @property
    def deleted(self) -> bool:
        """True if only its place is left."""
        return self.type == "deleted" or self.deleted_at is not None

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Message:
        """The message that `to_dict` gave, such as an outbox result; fields of another version are left out."""
        facts = _known(cls, stored)
        for name in ("created_at", "updated_at", "deleted_at"):
            facts[name] = _time(facts.get(name))
        facts["attachments"] = tuple(_attachment(item) for item in facts.get("attachments") or ())
        facts["reactions"] = tuple(_reaction(item) for item in facts.get("reactions") or ())
        facts["mentions"] = tuple(facts.get("mentions") or ())
        facts["user"] = _user(facts["user"]) if facts.get("user") else None
        return cls(**facts)


def _known(cls: type[Model], stored: Mapping[str, Any]) -> dict[str, Any]:
    names: tuple[str, ...] = tuple(cls.__slots__)
    return {name: stored[name] for name in names if name in stored and name != "raw"}


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _user(stored: Mapping[str, Any]) -> User:
    facts = _known(User, stored)
    for name in ("last_active_at", "created_at"):
        facts[name] = _time(facts.get(name))
    return User(**facts)


def _attachment(stored: Mapping[str, Any]) -> Attachment:
    facts = _known(Attachment, stored)
    return Attachment(**{**facts, "waveform": tuple(facts.get("waveform") or ())})


def _reaction(stored: Mapping[str, Any]) -> Reaction:
    facts = _known(Reaction, stored)
    return Reaction(**{**facts, "users": tuple(_user(item) for item in facts.get("users") or ())})


@record(frozen=True, slots=True, kw_only=True)
class MessagePage(Model):
    """Messages in order of `seq`, oldest first.

    max_seq     the highest seq of the channel as the server knows it; it counts thread replies, so being below it is
                no proof that something is missing
    has_more    the page was full, so that another one may follow. Counted here: the server's own flag is wrong
    """

    messages: tuple[Message, ...] = ()
    max_seq: int = 0
    has_more: bool = False
    raw: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False, compare=False)

    @property
    def before(self) -> str | None:
        """The id to page back from: of the earliest message by time, because that is what the server compares; the one
        with the lowest seq may be another."""
        timed = [(message.created_at, message.id) for message in self.messages if message.created_at is not None]
        return min(timed)[1] if timed else None


@record(frozen=True, slots=True, kw_only=True)
class Member(Model):
    """A user in a channel. `role`: owner, admin, moderator or member."""

    user_id: str
    role: str | None = None
    joined_at: datetime | None = None
    user: User | None = None
    raw: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False, compare=False)


@record(frozen=True, slots=True, kw_only=True)
class Channel(Model):
    """A channel, and how the asking user stands to it (`role`, `last_read_seq`, `unread_count`, `muted`, `starred`).

    `type`: messaging (two people), group, team, livestream, public or private. `members`: the first 100, where the
    answer lists them; `message_count` counts thread replies and deleted messages too.
    """

    id: str
    cid: str | None = None
    type: str = ""
    name: str | None = None
    image: str | None = None
    member_count: int = 0
    message_count: int = 0
    last_message_at: datetime | None = None
    created_by: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    config: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, hash=False)
    workspace_id: str | None = None
    role: str | None = None
    last_read_seq: int = 0
    unread_count: int = 0
    muted: bool = False
    starred: bool = False
    members: tuple[Member, ...] = ()
    raw: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False, compare=False)


@record(frozen=True, slots=True, kw_only=True)
class UserPresence(Model):
    """Whether one user is there."""

    user_id: str
    name: str | None = None
    image: str | None = None
    online: bool = False
    last_seen: datetime | None = None
    raw: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False, compare=False)


@record(frozen=True, slots=True, kw_only=True)
class Presence(Model):
    """Who of a channel's members is there. `known`: False if that could not be had; then all else is empty, and nobody
    should be shown as away."""

    online: tuple[UserPresence, ...] = ()
    offline: tuple[UserPresence, ...] = ()
    total_online: int = 0
    total_members: int = 0
    known: bool = True
    raw: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False, compare=False)


@record(frozen=True, slots=True, kw_only=True)
class SearchHit(Model):
    """A message that a search found. `highlighted`: its text with the server's marks around what matched; without
    marks where the server was not asked."""

    message_id: str
    channel_id: str = ""
    channel_name: str | None = None
    user_id: str = ""
    user_name: str | None = None
    text: str = ""
    highlighted: str = ""
    created_at: datetime | None = None
    raw: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False, compare=False)


@record(frozen=True, slots=True, kw_only=True)
class SearchPage(Model):
    """Hits from `offset` on, at most `limit`, of `total` in all. `local`: the server's search could not be had; these
    are hits among the messages that this client has seen, and the server may know more."""

    hits: tuple[SearchHit, ...] = ()
    query: str = ""
    total: int = 0
    offset: int = 0
    limit: int = 0
    local: bool = False
    raw: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False, compare=False)


@record(frozen=True, slots=True, kw_only=True)
class Health(Model):
    """What the server says of itself. `time`: its clock; `uptime` in seconds."""

    status: str
    time: datetime | None = None
    uptime: float | None = None
    raw: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        """True if it calls itself well."""
        return self.status == "ok"


@record(frozen=True, slots=True, kw_only=True)
class FlushReport(Model):
    """What a flush of the outbox came to.

    sent, dead       how many messages ended so in this run
    queued           how many still wait
    oldest_age       age of the oldest that waits, in seconds, or None
    next_attempt_at  Unix time of the next try, or None if nothing waits
    """

    sent: int = 0
    queued: int = 0
    dead: int = 0
    oldest_age: float | None = None
    next_attempt_at: float | None = None
