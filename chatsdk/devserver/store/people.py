"""Users, who blocked whom, and who is online."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chatsdk.devserver.ids import iso
from chatsdk.devserver.store.database import Database, like, marks, packed

ONLINE_FOR_MS = 300_000
"""Without a sign of life for five minutes nobody is online (contract, section 8)."""


@dataclass(frozen=True)
class People:
    """The users' table."""

    db: Database

    def exists(self, user: str) -> bool:
        return self.db.value("SELECT 1 FROM users WHERE id = ?", (user,)) is not None

    def all_ids(self) -> list[str]:
        return [row["id"] for row in self.db.rows("SELECT id FROM users ORDER BY id")]

    def known(self, users: Sequence[str]) -> set[str]:
        """Those of `users` that exist."""
        found = self.db.rows(f"SELECT id FROM users WHERE id IN ({marks(users)})", users)
        return {row["id"] for row in found}

    def upsert(
        self, user: str, name: str | None, image: str | None, custom: dict[str, Any], now: int
    ) -> dict[str, Any]:
        """Makes the user or merges what is new into it; a missing name never replaces one."""
        row = self.db.row("SELECT * FROM users WHERE id = ?", (user,))
        if row is None:
            self.db.run(
                "INSERT INTO users (id, name, image, custom, last_active, created) VALUES (?, ?, ?, ?, ?, ?)",
                (user, name if name is not None else user, image, packed(custom), now, now),
            )
        else:
            self.db.run(
                "UPDATE users SET name = coalesce(?, name), image = coalesce(?, image), custom = ?, last_active = ?"
                " WHERE id = ?",
                (name, image, packed({**json.loads(row["custom"]), **custom}), now, user),
            )
        return self.profile(user) or {}

    def update(self, user: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Sets name, image or custom (replaced as a whole) and returns the four fields the original answers with."""
        for column in ("name", "image", "custom"):
            if column in changes:
                value = packed(changes[column]) if column == "custom" else changes[column]
                self.db.run(f"UPDATE users SET {column} = ? WHERE id = ?", (value, user))
        profile = self.profile(user) or {}
        return {key: profile[key] for key in ("id", "name", "image", "custom")}

    def profile(self, user: str) -> dict[str, Any] | None:
        """The user as seen by themselves (`GET /api/users/me`)."""
        row = self.db.row("SELECT * FROM users WHERE id = ?", (user,))
        return None if row is None else {**_public(row), "createdAt": iso(row["created"])}

    def visible(self, user: str, now: int) -> dict[str, Any] | None:
        """The user as seen by others."""
        row = self.db.row("SELECT * FROM users WHERE id = ?", (user,))
        return None if row is None else {**_public(row), "online": now - row["last_active"] < ONLINE_FOR_MS}

    def search(self, text: str, limit: int, offset: int, now: int) -> list[dict[str, Any]]:
        """Users by name, those first whose name or id contains `text` (empty: all)."""
        rows = self.db.rows(
            "SELECT * FROM users WHERE name LIKE ?1 ESCAPE '\\' OR id LIKE ?1 ESCAPE '\\'"
            " ORDER BY name, id LIMIT ?2 OFFSET ?3",
            (like(text), limit, offset),
        )
        return [{**_public(row), "online": now - row["last_active"] < ONLINE_FOR_MS} for row in rows]

    def touch(self, user: str, now: int, online: bool | None = None) -> None:
        """A sign of life, and the presence flag where it is given."""
        self.db.run(
            "UPDATE users SET last_active = ?, online = coalesce(?, online) WHERE id = ?",
            (now, None if online is None else int(online), user),
        )

    def presence(self, users: Sequence[str], now: int) -> list[dict[str, Any]]:
        """Id, name, image, online and last sign of life of each known user, in the order of their ids."""
        rows = self.db.rows(f"SELECT * FROM users WHERE id IN ({marks(users)}) ORDER BY id", users)
        return [
            {
                "id": row["id"],
                "name": row["name"],
                "image": row["image"],
                "online": bool(row["online"]) and now - row["last_active"] < ONLINE_FOR_MS,
                "lastSeen": iso(row["last_active"]),
            }
            for row in rows
        ]

    def sharing_a_channel(self, user: str, others: Sequence[str]) -> list[str]:
        rows = self.db.rows(
            "SELECT DISTINCT theirs.user FROM members AS mine JOIN members AS theirs USING (channel)"
            f" WHERE mine.user = ? AND theirs.user IN ({marks(others)})",
            (user, *others),
        )
        return [row["user"] for row in rows]

    def block(self, user: str, blocked: str, now: int) -> None:
        self.db.run("INSERT OR IGNORE INTO blocks VALUES (?, ?, ?)", (user, blocked, now))

    def unblock(self, user: str, blocked: str) -> None:
        self.db.run("DELETE FROM blocks WHERE user = ? AND blocked = ?", (user, blocked))

    def blocked(self, user: str) -> list[dict[str, Any]]:
        rows = self.db.rows(
            "SELECT users.id, name, image, blocks.created AS since FROM blocks JOIN users ON users.id = blocked"
            " WHERE user = ? ORDER BY blocks.created",
            (user,),
        )
        return [
            {"id": row["id"], "name": row["name"], "image": row["image"], "blockedAt": iso(row["since"])}
            for row in rows
        ]


def _public(row: Any) -> dict[str, Any]:
    custom = json.loads(row["custom"])
    return {
        "id": row["id"],
        "name": row["name"],
        "image": row["image"],
        "email": custom.get("email"),
        "custom": custom,
        "lastActiveAt": iso(row["last_active"]),
    }
