"""What a realtime connection brings, and how the connection itself fares.

What came from a server is a `RealtimeEvent`: the JSON as it came (`raw`), with the few facts by which it is ordered.
Models are made on first access, because most handlers look at one thing of it, and thousands may come in a second. So
these are plain classes with slots, not dataclasses (ten times as slow to make); frozen like all events. Writing past
its own guard would be most of what a frozen object costs, so an event is filled in while it is a `_Draft`, a class of
the same layout without the guard, and then given its class (0.2 us where it was 1.0).

A backend says how to read `raw`: it hands each event a function that gives its facts by name.
They are found as `chatsdk.events.MessageReceived` and the like; the module is loaded when the first one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from .errors import ChatError
from .events import Event
from .exchange import Json
from .models import Channel, Message, User

Facts = Mapping[str, Any]
Reader = Callable[[Json], Facts]

_SHOWN = ("user", "channel", "message_id", "seq", "offset", "late", "raw")
_SLOTS = (*_SHOWN, "_facts", "_read")

_put = object.__setattr__


def _no_facts(_: Json) -> Facts:
    """The reader of what nobody can read."""
    return {}


class _Draft(Event):
    """An event that is still being filled in: the layout of `RealtimeEvent`, and open."""

    __slots__ = _SLOTS
    __setattr__ = object.__setattr__
    __delattr__ = object.__delattr__

    if not TYPE_CHECKING:  # the base's `__init__` puts something in already
        __init__ = object.__init__


class RealtimeEvent(Event):
    """Something that a realtime server told.

    user        on whose connection it came
    channel     the channel's id, "" for what is about the user
    raw         the JSON as it came
    message_id  the message that it brings or is about, or None
    seq         that message's place in the channel, or None where it does not say
    offset      the publication's place in its stream, or None
    late        a message that came after later ones of its channel

    A subclass has no slots of its own: `__slots__ = ()`; what more it tells, it reads from `facts`.
    """

    __slots__ = _SLOTS

    NAME: ClassVar[str] = "realtime"
    refers: ClassVar[bool] = False
    """It is about a message that must have come before."""
    fleeting: ClassVar[bool] = False
    """It is true for a moment only: who missed it misses nothing."""

    user: str
    channel: str
    raw: Json
    message_id: str | None
    seq: int | None
    offset: int | None
    late: bool
    _read: Reader
    _facts: Facts | None

    def __new__(
        cls,
        user: str,
        channel: str,
        raw: Json,
        read: Reader = _no_facts,
        message_id: str | None = None,
        seq: int | None = None,
        offset: int | None = None,
        late: bool = False,
        at: float = 0.0,
    ) -> Self:
        return make_event(cls, user, channel, raw, read, message_id, seq, offset, late, at)

    if not TYPE_CHECKING:  # the type checker goes by `__new__`
        __init__ = object.__init__  # the base's takes `at` alone

    @property
    def facts(self) -> Facts:
        """What `raw` says, read by the backend, by name; {} where nobody can read it."""
        facts = self._facts
        if facts is None:
            facts = self._read(self.raw)
            _put(self, "_facts", facts)
        return facts

    def flagged_late(self) -> Self:
        """The same, flagged `late`."""
        return _made(type(self), {**self._values(), "late": True})

    def timed(self, at: float) -> Self:
        return _made(type(self), {**self._values(), "at": at})

    def _values(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("at", *_SLOTS)}

    def to_dict(self) -> dict[str, Any]:
        return {"event": self.NAME, "at": self.at, **{name: getattr(self, name) for name in _SHOWN}}

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in ("at", *_SHOWN))

    def __hash__(self) -> int:
        return hash((self.channel, self.message_id, self.seq, self.offset, self.at))

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(channel={self.channel!r}, message_id={self.message_id!r}, seq={self.seq!r})"

    def __reduce__(self) -> Any:
        return _made, (type(self), self._values())


_E = TypeVar("_E", bound=RealtimeEvent)


def make_event(
    cls: type[_E],
    user: str,
    channel: str,
    raw: Json,
    read: Reader,
    message_id: str | None,
    seq: int | None,
    offset: int | None,
    late: bool,
    at: float,
) -> _E:
    """An event of `cls`; the same as calling that, in half of the time."""
    draft: Any = _Draft()
    draft.at = at
    draft.user = user
    draft.channel = channel
    draft.raw = raw
    draft.message_id = message_id
    draft.seq = seq
    draft.offset = offset
    draft.late = late
    draft._read = read
    draft._facts = None
    draft.__class__ = cls
    event: _E = draft
    return event


def _made(cls: type[_E], values: Mapping[str, Any]) -> _E:
    draft: Any = _Draft()
    for name, value in values.items():
        setattr(draft, name, value)
    draft.__class__ = cls
    event: _E = draft
    return event


class _WithMessage(RealtimeEvent):
    """Brings a message."""

    __slots__ = ()

    NAME: ClassVar[str] = "realtime:message"

    @property
    def message(self) -> Message:
        """The message, as far as the server told it."""
        message: Message = self.facts["message"]
        return message

    @property
    def key(self) -> str | None:
        """The idempotency key that it was sent with."""
        return self.message.key

    @property
    def own(self) -> bool:
        """The user of this connection sent it, from here or elsewhere: a bot that answers should leave it alone."""
        return self.message.user_id == self.user


class _AboutUser(RealtimeEvent):
    """Something that somebody did."""

    __slots__ = ()

    NAME: ClassVar[str] = "realtime:user"

    @property
    def by(self) -> str:
        """The id of who did it, "" where the server does not say."""
        return str(self.facts.get("by", ""))

    @property
    def by_user(self) -> User | None:
        """Who did it, where the server tells more than the id."""
        found: User | None = self.facts.get("by_user")
        return found


class MessageReceived(_WithMessage):
    """A message, each once, in the order of its channel."""

    __slots__ = ()
    NAME: ClassVar[str] = "message:received"


class MessageUpdated(_WithMessage):
    """A message was changed. `message` may hold no more than its id and what changed (a pin, link previews)."""

    __slots__ = ()
    NAME: ClassVar[str] = "message:updated"
    refers: ClassVar[bool] = True


class MessageDeleted(RealtimeEvent):
    """A message was deleted: `message_id`."""

    __slots__ = ()
    NAME: ClassVar[str] = "message:deleted"
    refers: ClassVar[bool] = True


class ThreadReplied(_WithMessage):
    """A reply in a thread; it comes as MessageReceived too."""

    __slots__ = ()
    NAME: ClassVar[str] = "thread:reply"


class _Reacted(_AboutUser):
    __slots__ = ()
    NAME: ClassVar[str] = "realtime:reaction"
    refers: ClassVar[bool] = True

    @property
    def reaction(self) -> str:
        """The emoji."""
        return str(self.facts.get("reaction", ""))


class ReactionAdded(_Reacted):
    """Somebody reacted to a message."""

    __slots__ = ()
    NAME: ClassVar[str] = "reaction:added"


class ReactionRemoved(_Reacted):
    """Somebody took a reaction back."""

    __slots__ = ()
    NAME: ClassVar[str] = "reaction:removed"


class TypingStarted(_AboutUser):
    """Somebody is typing."""

    __slots__ = ()
    NAME: ClassVar[str] = "typing:start"
    fleeting: ClassVar[bool] = True


class TypingStopped(_AboutUser):
    """Somebody stopped typing."""

    __slots__ = ()
    NAME: ClassVar[str] = "typing:stop"
    fleeting: ClassVar[bool] = True


class ReadUpdated(_AboutUser):
    """Somebody has read up to `last_read_seq`."""

    __slots__ = ()
    NAME: ClassVar[str] = "read:updated"

    @property
    def last_read_seq(self) -> int:
        """The last message that was read."""
        return int(self.facts.get("last_read_seq") or 0)


class _AboutChannel(RealtimeEvent):
    __slots__ = ()
    NAME: ClassVar[str] = "realtime:channel"

    @property
    def about(self) -> Channel | None:
        """The channel, where the server told it."""
        found: Channel | None = self.facts.get("channel")
        return found


class ChannelCreated(_AboutChannel):
    """There is a new channel."""

    __slots__ = ()
    NAME: ClassVar[str] = "channel:created"


class ChannelUpdated(_AboutChannel):
    """A channel was changed."""

    __slots__ = ()
    NAME: ClassVar[str] = "channel:updated"


class ChannelDeleted(_AboutChannel):
    """A channel is gone."""

    __slots__ = ()
    NAME: ClassVar[str] = "channel:deleted"


class MemberJoined(_AboutUser):
    """Somebody became a member of the channel."""

    __slots__ = ()
    NAME: ClassVar[str] = "member:joined"


class MemberLeft(_AboutUser):
    """Somebody is no longer a member of the channel."""

    __slots__ = ()
    NAME: ClassVar[str] = "member:left"


class UnreadChanged(RealtimeEvent):
    """How many messages of `channel` ("": of all) are unread."""

    __slots__ = ()
    NAME: ClassVar[str] = "unread:changed"

    @property
    def count(self) -> int:
        """Unread messages."""
        return int(self.facts.get("count") or 0)


class PollCreated(RealtimeEvent):
    """A poll was attached to a message; `raw` has it."""

    __slots__ = ()
    NAME: ClassVar[str] = "poll:created"
    refers: ClassVar[bool] = True


class PollVoted(_AboutUser):
    """Somebody voted; `raw` has the poll's id and the votes."""

    __slots__ = ()
    NAME: ClassVar[str] = "poll:voted"


class PollVoteRemoved(_AboutUser):
    """Somebody took a vote back."""

    __slots__ = ()
    NAME: ClassVar[str] = "poll:vote_removed"


class PresenceOnline(_AboutUser):
    """Somebody came online."""

    __slots__ = ()
    NAME: ClassVar[str] = "presence:online"
    fleeting: ClassVar[bool] = True


class PresenceOffline(_AboutUser):
    """Somebody went offline."""

    __slots__ = ()
    NAME: ClassVar[str] = "presence:offline"
    fleeting: ClassVar[bool] = True


class ListenerJoined(_AboutUser):
    """Somebody's connection began to listen to the channel."""

    __slots__ = ()
    NAME: ClassVar[str] = "listener:joined"
    fleeting: ClassVar[bool] = True


class ListenerLeft(_AboutUser):
    """Somebody's connection stopped listening to the channel."""

    __slots__ = ()
    NAME: ClassVar[str] = "listener:left"
    fleeting: ClassVar[bool] = True


class WorkspaceChanged(RealtimeEvent):
    """Something about a workspace; `raw` says what."""

    __slots__ = ()
    NAME: ClassVar[str] = "workspace:changed"


class Unknown(RealtimeEvent):
    """A type of event that this version does not know, or one without what it must have: `raw` is all there is."""

    __slots__ = ()
    NAME: ClassVar[str] = "unknown"


# ---- the connection


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ConnectionStateChanged(Event):
    """The realtime connection moved; the states are in `core.protocols.states`. `reason`: why, for people."""

    NAME: ClassVar[str] = "connection:state"

    user: str
    old: str
    new: str
    reason: str = ""
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Connected(Event):
    """The realtime server takes us. `reconnects`: how often it was lost before."""

    NAME: ClassVar[str] = "connected"

    user: str
    reconnects: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Disconnected(Event):
    """The realtime connection was lost or ended. `code`: the server's close code, 0 where there was none."""

    NAME: ClassVar[str] = "disconnected"

    user: str
    code: int = 0
    reason: str = ""
    reconnecting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SubscriptionStateChanged(Event):
    """A channel's subscription moved: "waiting" (for its turn, a token or the connection), "subscribed", "failed" (for
    good, see `error`), "ended" (by us or by the server)."""

    NAME: ClassVar[str] = "subscription:state"

    user: str
    channel: str
    state: str
    error: ChatError | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Gap(Event):
    """Events of a channel are missing and cannot be fetched again. `after`: the last seq that is certain, None where
    messages carry none. `reason`: why, for people."""

    NAME: ClassVar[str] = "gap"

    user: str
    channel: str
    after: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ChangesMissed(Event):
    """The connection was lost, and the realtime server does not give again what it published meanwhile. The channel's
    messages come all the same, fetched over HTTP; edits, deletions, reactions, thread replies and the like of that time
    were not told. Who shows messages should read them again.

    `ongoing`: so it is from now on, because the connection cannot be had and the channel is polled (`PollingChanged`).
    When it is heard again and the server does not give again what was published, that is told once more."""

    NAME: ClassVar[str] = "changes:missed"

    user: str
    channel: str
    after: int | None = None
    ongoing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PollingChanged(Event):
    """The websocket cannot be had while HTTP works, so messages are polled; or that has ended. `reason`: why no
    websocket, for people."""

    NAME: ClassVar[str] = "connection:polling"

    user: str
    polling: bool
    reason: str = ""
