"""What can happen, as frozen dataclasses.

Each class carries its seed name (`NAME`, such as "message:queued"), by which `chat.on("message:queued", ...)` finds
it too. Events tell; they never decide: nobody waits for a handler, and a handler that raises is logged and forgotten.
An event's `state` is one of the three words of a receipt. Events are per process.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from .errors import ChatError
from .record import Record

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

    def to_dict(self) -> dict[str, Any]:
        """`{"event": NAME, ...fields}`, JSON-able."""
        facts: dict[str, Any] = {"event": self.NAME}
        for field in fields(self):
            value = getattr(self, field.name)
            facts[field.name] = value.to_dict() if hasattr(value, "to_dict") else value
        return facts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MessageEvent(Event):
    """Something about a message of the outbox. `id`: row; `key`: what travels as clientMsgId."""

    NAME: ClassVar[str] = "message"

    id: int
    key: str
    user: str
    channel: str
    state: str
    attempts: int = 0


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


_BY_NAME[Event.NAME] = Event


def by_name(name: str) -> type[Event]:
    """The event class of a seed name ("message:sent"). Raises KeyError."""
    return _BY_NAME[name]
