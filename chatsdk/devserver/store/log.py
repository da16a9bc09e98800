"""The record that exactly-once checkers compare with: every accepted message, every try to send one.

Rules: `message_log` is append-only (a trigger forbids the rest) and is written in the transaction that stores the
message, so a message is in both or in neither. It is also the memory of idempotency keys, and so outlives edits,
deletes, purges and the channel itself. `attempt_log` has one row for each request that reached a sending operation
with its whole body, whatever became of it; its ordinal is the request's ordinal.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from chatsdk.devserver.store.database import Database


@dataclass(frozen=True)
class Attempt:
    """One try to send, as the server met it. `fault`: the kind of fault that breaks it, where one does."""

    ordinal: int
    at: int
    operation: str
    key: str | None = None
    channel: str | None = None
    user: str | None = None
    fault: str | None = None


@dataclass(frozen=True)
class Log:
    """The two tables."""

    db: Database

    def last_ordinal(self) -> int:
        """The highest request ordinal that was written down; ordinals go on from there after a restart."""
        return int(self.db.value("SELECT coalesce(max(ordinal), 0) FROM attempt_log"))

    def find(self, key: str) -> sqlite3.Row | None:
        """Where and as what an idempotency key was accepted."""
        return self.db.row("SELECT channel, seq FROM message_log WHERE key = ?", (key,))

    def accept(self, key: str, channel: str, user: str, text: str, seq: int, ordinal: int, at: int) -> None:
        self.db.run(
            "INSERT INTO message_log (key, channel, user, text, seq, ordinal, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key, channel, user, text, seq, ordinal, at),
        )

    def record(self, attempt: Attempt, result: str | None, status: int | None) -> None:
        """Writes down a try. `result`: what processing made of it (stored, duplicate, rejected; None: not processed).

        The outcome is that result, or `fault:<kind>` where a fault kept the caller from learning it.
        """
        outcome = f"fault:{attempt.fault}" if attempt.fault else result or "rejected"
        self.db.run(
            "INSERT OR REPLACE INTO attempt_log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                attempt.ordinal,
                attempt.at,
                attempt.operation,
                attempt.key,
                attempt.channel,
                attempt.user,
                outcome,
                result,
                status,
            ),
        )

    def messages(self, since: int, limit: int) -> list[dict[str, Any]]:
        """Accepted messages in the order of their arrival, from position `since` on (exclusive)."""
        rows = self.db.rows("SELECT * FROM message_log WHERE position > ? ORDER BY position LIMIT ?", (since, limit))
        return [dict(row) for row in rows]

    def attempts(self, since: int, limit: int) -> list[dict[str, Any]]:
        """Tries in the order of their ordinals, from ordinal `since` on (exclusive)."""
        rows = self.db.rows("SELECT * FROM attempt_log WHERE ordinal > ? ORDER BY ordinal LIMIT ?", (since, limit))
        return [dict(row) for row in rows]

    def counts(self) -> dict[str, Any]:
        outcomes = self.db.rows("SELECT outcome, count(*) AS n FROM attempt_log GROUP BY outcome ORDER BY outcome")
        return {
            "messages": self.db.value("SELECT count(*) FROM message_log"),
            "attempts": self.db.value("SELECT count(*) FROM attempt_log"),
            "outcomes": {row["outcome"]: row["n"] for row in outcomes},
        }
