"""What can happen, as frozen dataclasses.

Each class carries its seed name (`NAME`, such as "message:queued"), by which `chat.on("message:queued", ...)` finds
it too. Events tell; they never decide: nobody waits for a handler, and a handler that raises is logged and forgotten.
An event's `state` is one of the three words of a receipt. Events are per process.

What a realtime connection brings is in `realtime_events`, what becomes of the network in `network_events`; both are
loaded when one of them is first asked for (`events.MessageReceived`): a process that only sends has no use for them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar

from .errors import ChatError
from .record import Record

if TYPE_CHECKING:
    from .network_events import DegradationChanged as DegradationChanged
    from .network_events import FeatureStateChanged as FeatureStateChanged
    from .network_events import NetworkQualityChanged as NetworkQualityChanged
    from .realtime_events import ChangesMissed as ChangesMissed
    from .realtime_events import ChannelCreated as ChannelCreated
    from .realtime_events import ChannelDeleted as ChannelDeleted
    from .realtime_events import ChannelUpdated as ChannelUpdated
    from .realtime_events import Connected as Connected
    from .realtime_events import ConnectionStateChanged as ConnectionStateChanged
    from .realtime_events import Disconnected as Disconnected
    from .realtime_events import Gap as Gap
    from .realtime_events import ListenerJoined as ListenerJoined
    from .realtime_events import ListenerLeft as ListenerLeft
    from .realtime_events import MemberJoined as MemberJoined
    from .realtime_events import MemberLeft as MemberLeft
    from .realtime_events import MessageDeleted as MessageDeleted
    from .realtime_events import MessageReceived as MessageReceived
    from .realtime_events import MessageUpdated as MessageUpdated
    from .realtime_events import PollCreated as PollCreated
    from .realtime_events import PollingChanged as PollingChanged
    from .realtime_events import PollVoted as PollVoted
    from .realtime_events import PollVoteRemoved as PollVoteRemoved
    from .realtime_events import PresenceOffline as PresenceOffline
    from .realtime_events import PresenceOnline as PresenceOnline
    from .realtime_events import ReactionAdded as ReactionAdded
    from .realtime_events import ReactionRemoved as ReactionRemoved
    from .realtime_events import ReadUpdated as ReadUpdated
    from .realtime_events import RealtimeEvent as RealtimeEvent
    from .realtime_events import SubscriptionStateChanged as SubscriptionStateChanged
    from .realtime_events import ThreadReplied as ThreadReplied
    from .realtime_events import TypingStarted as TypingStarted
    from .realtime_events import TypingStopped as TypingStopped
    from .realtime_events import Unknown as Unknown
    from .realtime_events import UnreadChanged as UnreadChanged
    from .realtime_events import WorkspaceChanged as WorkspaceChanged

_BY_NAME: dict[str, type[Event]] = {}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Event(Record):
    """Base of all events: `chat.on(Event, handler)` hears everything. `at`: Unix time in seconds."""

    NAME: ClassVar[str] = "event"

    at: float = 0.0

    def __init_subclass__(cls) -> None:
        # `slots=True` makes each class twice, and both would be found among the subclasses: the later one counts
        if "NAME" in cls.__dict__:
            _BY_NAME[cls.NAME] = cls

    def timed(self, at: float) -> Event:
        """The same, with its time."""
        return replace(self, at=at)

    def to_dict(self) -> dict[str, Any]:
        """`{"event": NAME, ...fields}`, JSON-able."""
        facts: dict[str, Any] = {"event": self.NAME}
        for field in fields(self):
            value = getattr(self, field.name)
            facts[field.name] = value.to_dict() if hasattr(value, "to_dict") else value
        return facts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MessageEvent(Event):
    """Something about a message of the outbox. `id`: row; `key`: what travels as clientMsgId; `correlation_id`: made by
    the call that sent it, the same in each try, each log record and each process (X-Request-ID)."""

    NAME: ClassVar[str] = "message"

    id: int
    key: str
    user: str
    channel: str
    state: str
    attempts: int = 0
    correlation_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MessageQueued(MessageEvent):
    """It is safe on disk (shown as "sending")."""

    NAME: ClassVar[str] = "message:queued"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MessageSent(MessageEvent):
    """The server has it. `message`: as the server stored it, where its answer said so."""

    NAME: ClassVar[str] = "message:sent"

    message: Any = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MessageFailed(MessageEvent):
    """One try failed; it is still QUEUED and will be tried again."""

    NAME: ClassVar[str] = "message:failed"

    reason: str = ""
    error: ChatError | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MessagePermanentFailure(MessageEvent):
    """It is a dead letter now. `reason`: rejected, expired or poison."""

    NAME: ClassVar[str] = "message:permanent_failure"

    reason: str = ""
    error: ChatError | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class RetryScheduled(Event):
    """A try failed and another one follows after `delay` seconds. `attempt`: the try that failed, from 1."""

    NAME: ClassVar[str] = "retry:scheduled"

    operation: str
    attempt: int
    delay: float
    error: ChatError | None = None
    correlation_id: str = ""
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class CircuitStateChanged(Event):
    """A circuit moved. States: closed, open, half_open. `retry_after`: seconds it stays open."""

    NAME: ClassVar[str] = "circuit:state"

    circuit: str
    old: str
    new: str
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TokenRefreshed(Event):
    """A user has a new token (which is not in here). `expires_at`: Unix time or None."""

    NAME: ClassVar[str] = "auth:token_refreshed"

    user: str
    source: str = ""
    expires_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TokenExpired(Event):
    """A user's session is lost for good; the queue is kept until a new token comes."""

    NAME: ClassVar[str] = "auth:token_expired"

    user: str
    error: ChatError | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class PluginFailed(Event):
    """A plugin could not be loaded, or raised; `plugin`: whose it was."""

    NAME: ClassVar[str] = "plugin:failed"

    plugin: str
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class OutboxQuarantined(Event):
    """The outbox file was no readable outbox; it was kept under `path`, and a new one begun with `salvaged` rows of
    it."""

    NAME: ClassVar[str] = "outbox:quarantined"

    path: str
    salvaged: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ClientClosed(Event):
    """The client was closed: whoever kept something for it lets it go. No message of this process goes out after it.
    Not told where the program ends without `close`."""

    NAME: ClassVar[str] = "client:closed"


_BY_NAME[Event.NAME] = Event


def by_name(name: str) -> type[Event]:
    """The event class of a seed name ("message:sent"). Raises KeyError."""
    if name not in _BY_NAME:
        from . import network_events, realtime_events  # noqa: F401 - loading them adds their names
    return _BY_NAME[name]


if not TYPE_CHECKING:  # a checker would take any name

    def __getattr__(name: str) -> Any:
        if not name.startswith("_"):
            from . import network_events, realtime_events

            for module in (realtime_events, network_events):
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(f"there is no event {name!r}")
