"""How messages of an outbox are listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.store import Row

SHOWN = ("ID", "STATE", "REASON", "TRIES", "AGE", "USER", "CHANNEL", "TEXT")
TEXT_WIDTH = 60
"""Characters of a message that a list shows; JSON has all."""


def facts_of(row: Row) -> dict[str, Any]:
    """A row as JSON has it, without what only its outbox knows (why its lane waits)."""
    return {
        "id": row.id,
        "key": row.key,
        "user": row.request.user,
        "channel": row.request.channel,
        "text": text_of(row),
        "state": str(row.state),
        "reason": row.reason or None,
        "attempts": row.attempts,
        "created_at": row.created_at,
        "expires_at": row.expires_at,
        "error": None if row.error is None else dict(row.error),
    }


def text_of(row: Row) -> str:
    """What the message says, where its backend calls that "text"."""
    body = row.request.body
    return str(body.get("text", "")) if isinstance(body, Mapping) else ""


def line_of(facts: Mapping[str, Any], now: float) -> Sequence[Any]:
    """One message as `SHOWN` has it. `now`: Unix time."""
    text = facts["text"]
    short = text if len(text) <= TEXT_WIDTH else text[: TEXT_WIDTH - 1] + "…"
    age = f"{max(0.0, now - facts['created_at']):.0f}s"
    known = [facts[name] for name in ("id", "state", "reason", "attempts")]
    return (*known, age, facts["user"], facts["channel"], short)
