"""Sessions of `connect`, and tokens that were used up or taken back."""

from __future__ import annotations

import sqlite3
import uuid
from dataclasses import dataclass

from chatsdk.devserver.store.database import Database


@dataclass(frozen=True)
class Sessions:
    """A session begins with connect and ends a fixed time later, however often its tokens are refreshed."""

    db: Database

    def begin(self, user: str, expires: int) -> str:
        session = str(uuid.uuid4())
        self.db.run("INSERT INTO sessions (id, user, expires) VALUES (?, ?, ?)", (session, user, expires))
        return session

    def find(self, session: str) -> sqlite3.Row | None:
        return self.db.row("SELECT * FROM sessions WHERE id = ?", (session,))

    def end(self, user: str, *, revoke: bool, now: int) -> int:
        """Ends all sessions of a user, by revoking them or by letting them expire; returns how many."""
        if revoke:
            return self.db.run("UPDATE sessions SET revoked = 1 WHERE user = ?", (user,))
        return self.db.run("UPDATE sessions SET expires = ? WHERE user = ?", (now - 1, user))

    def use_up(self, jti: str, now: int) -> bool:
        """Marks a single-use token as used. False where it was used before: of many callers exactly one gets True."""
        return self.db.run("INSERT OR IGNORE INTO revoked_tokens VALUES (?, ?)", (jti, now)) == 1

    def is_revoked(self, jti: str) -> bool:
        return self.db.value("SELECT 1 FROM revoked_tokens WHERE jti = ?", (jti,)) is not None
