"""What is told of a message's way: events, and one ERROR record for each dead letter. Called after the commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from ..core.errors import ChatError
from ..core.events import Event, MessageFailed, MessagePermanentFailure, MessageQueued, MessageSent, RetryScheduled
from ..core.models import Message
from ..core.store import Park, Reason, Row, State

Emit = Callable[[Event], None]

logger = logging.getLogger("chatsdk.outbox")


def quietly(emit: Emit) -> Emit:
    """The same, but what it raises is logged: a listener must not stop delivery."""

    def tell(event: Event) -> None:
        try:
            emit(event)
        except Exception:
            logger.exception("a handler of %s raised", event.NAME)

    return tell


def queued(emit: Emit, row: Row) -> None:
    """It is safe on disk."""
    _say(row, "is on disk")
    emit(MessageQueued(at=row.created_at, **_who(row), state=State.QUEUED.value))


def sent(emit: Emit, row: Row, message: Message, now: float) -> None:
    """It was delivered. `row` as it is now."""
    _say(row, "was delivered")
    emit(MessageSent(at=now, **_who(row), state=State.SENT.value, attempts=row.attempts, message=message))


def died(emit: Emit, row: Row, now: float) -> None:
    """It is a dead letter. `row` as it is now."""
    error = row.error or {}
    logger.error(
        "message %s (key %s, channel %s) is a dead letter: %s after %s tries%s",
        row.id,
        row.key,
        row.request.channel,
        row.reason,
        row.attempts,
        f"; last answer: {error.get('code')}, {error.get('message')}" if error else "",
        extra=correlation(row),
    )
    emit(
        MessagePermanentFailure(
            at=now,
            **_who(row),
            state=State.DEAD.value,
            attempts=row.attempts,
            reason=row.reason,
            error=as_error(row.error),
        )
    )


def waits(emit: Emit, row: Row, park: Park, now: float) -> None:
    """A try failed and another one follows. What was no try (an open circuit, a missing token, a question to the
    server) is told by others or by nobody; but that a plugin stops a message is told here."""
    _say(row, f"waits: {park.reason}", park.not_before - now, row.attempts + park.attempts)
    if not park.attempts and park.reason != Reason.PLUGIN.value:
        return
    error, attempts = as_error(park.error), row.attempts + park.attempts
    emit(
        MessageFailed(at=now, **_who(row), state=State.QUEUED.value, attempts=attempts, reason=park.reason, error=error)
    )
    emit(
        RetryScheduled(
            at=now,
            operation=row.request.operation,
            attempt=row.attempts + 1,
            delay=max(0.0, park.not_before - now),
            error=error,
            correlation_id=row.request.correlation_id,
            key=row.key,
        )
    )


def tried(row: Row) -> None:
    """It is on its way."""
    _say(row, "goes out")


def _say(row: Row, what: str, delay: float = 0.0, attempts: int | None = None) -> None:
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug(
            "message %s (key %s, channel %s) %s%s, tries so far: %d",
            row.id,
            row.key,
            row.request.channel,
            what,
            f", next try in {delay:.3f} s" if delay > 0 else "",
            row.attempts if attempts is None else attempts,
            extra=correlation(row),
        )


def correlation(row: Row) -> dict[str, str]:
    """What every record about a message carries: the id that the server is told with each try."""
    return {"correlation_id": row.request.correlation_id}


def as_error(stored: Mapping[str, Any] | None) -> ChatError | None:
    """The error that a row keeps, as one that can be raised."""
    if stored is None:
        return None
    facts = {name: stored[name] for name in ("code", "hint") if isinstance(stored.get(name), str)}
    return ChatError(str(stored.get("message", "")), **facts)


def _who(row: Row) -> dict[str, Any]:
    request = row.request
    return {
        "id": row.id,
        "key": row.key,
        "user": request.user,
        "channel": request.channel,
        "correlation_id": request.correlation_id,
    }
