"""Channels and their members, and the shapes in which the contract shows them (section 5)."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chatsdk.devserver.ids import iso, uuid7
from chatsdk.devserver.store.database import Database, marks, packed

OPEN_TYPES = ("public", "team")
"""Everybody may read these, and joins by sending."""
_WITH_MEMBERS = ("messaging", "group")
_SHOWN_MEMBERS = 100
_OWN_VIEW = """SELECT channels.*, (SELECT count(*) FROM members AS m WHERE m.channel = channels.id) AS member_count,
    mine.role, mine.last_read_seq, mine.unread, mine.muted, mine.starred
    FROM channels LEFT JOIN members AS mine ON mine.channel = channels.id AND mine.user = ?"""


@dataclass(frozen=True)
class Channels:
    """The tables `channels` and `members`."""

    db: Database

    def find(self, channel: str) -> sqlite3.Row | None:
        return self.db.row("SELECT * FROM channels WHERE id = ?", (channel,))

    def by_key(self, idempotency_key: str) -> str | None:
        found: str | None = self.db.value("SELECT id FROM channels WHERE idempotency_key = ?", (idempotency_key,))
        return found

    def direct(self, one: str, other: str) -> str | None:
        """The channel of a pair of users, where it exists."""
        found: str | None = self.db.value("SELECT id FROM channels WHERE cid = ?", (direct_cid(one, other),))
        return found

    def create(
        self,
        kind: str,
        owner: str,
        members: Sequence[str],
        now: int,
        *,
        channel: str | None = None,
        name: str | None = None,
        image: str | None = None,
        config: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Makes a channel owned by `owner`; the id is made where none is given. Call it inside a transaction."""
        channel = channel or uuid7(now)
        cid = direct_cid(owner, members[0]) if kind == "messaging" else f"{kind}:{channel}"
        self.db.run(
            "INSERT INTO channels (id, cid, type, name, image, config, created_by, created, updated, idempotency_key)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (channel, cid, kind, name, image, packed(config or {}), owner, now, now, idempotency_key),
        )
        self.add_member(channel, owner, "owner", now)
        for member in members:
            self.add_member(channel, member, "member", now)
        return channel

    def update(self, channel: str, changes: dict[str, Any], now: int) -> None:
        """Sets name, image or config (replaced as a whole)."""
        for column in ("name", "image", "config"):
            if column in changes:
                value = packed(changes[column]) if column == "config" else changes[column]
                self.db.run(f"UPDATE channels SET {column} = ? WHERE id = ?", (value, channel))
        self.db.run("UPDATE channels SET updated = ? WHERE id = ?", (now, channel))

    def delete(self, channel: str) -> None:
        """Removes the channel with members and messages. The log of accepted messages stays."""
        inside = "(SELECT id FROM messages WHERE channel = ?)"
        for table in ("reactions", "mentions", "receipts"):
            self.db.run(f"DELETE FROM {table} WHERE message IN {inside}", (channel,))
        self.db.run("DELETE FROM messages WHERE channel = ?", (channel,))
        self.db.run("DELETE FROM members WHERE channel = ?", (channel,))
        self.db.run("DELETE FROM channels WHERE id = ?", (channel,))

    # Members

    def role(self, channel: str, user: str) -> str | None:
        found: str | None = self.db.value("SELECT role FROM members WHERE channel = ? AND user = ?", (channel, user))
        return found

    def add_member(self, channel: str, user: str, role: str, now: int) -> bool:
        """Adds a member; False where they were one."""
        return (
            self.db.run(
                "INSERT OR IGNORE INTO members (channel, user, role, joined) VALUES (?, ?, ?, ?)",
                (channel, user, role, now),
            )
            == 1
        )

    def remove_member(self, channel: str, user: str) -> None:
        self.db.run("DELETE FROM members WHERE channel = ? AND user = ?", (channel, user))

    def set_member(self, channel: str, user: str, column: str, value: Any) -> None:
        """Sets role, muted or starred of one member."""
        if column not in ("role", "muted", "starred"):
            raise ValueError(column)
        self.db.run(f"UPDATE members SET {column} = ? WHERE channel = ? AND user = ?", (value, channel, user))

    def member_ids(self, channel: str) -> list[str]:
        """The members' ids in the order they joined."""
        return [
            row["user"] for row in self.db.rows("SELECT user FROM members WHERE channel = ? ORDER BY rowid", (channel,))
        ]

    def members(self, channel: str, limit: int = -1) -> list[dict[str, Any]]:
        """The members in the order they joined, in the flat shape."""
        rows = self.db.rows(
            "SELECT users.id, name, image, custom, role, joined FROM members JOIN users ON users.id = user"
            " WHERE channel = ? ORDER BY members.rowid LIMIT ?",
            (channel, limit),
        )
        return [{**_person(row), "role": row["role"], "joinedAt": iso(row["joined"])} for row in rows]

    def mark_read(self, channel: str, user: str) -> int:
        """Reads the whole channel; returns the seq up to which it is read."""
        last = int(self.db.value("SELECT last_seq FROM channels WHERE id = ?", (channel,)))
        self.db.run(
            "UPDATE members SET last_read_seq = ?, unread = 0 WHERE channel = ? AND user = ?", (last, channel, user)
        )
        return last

    def unread_count(self, user: str) -> int:
        return int(self.db.value("SELECT coalesce(sum(unread), 0) FROM members WHERE user = ?", (user,)))

    def unread_of(self, channel: str, user: str) -> int:
        found = self.db.value("SELECT unread FROM members WHERE channel = ? AND user = ?", (channel, user))
        return int(found or 0)

    def read_status(self, channel: str) -> list[dict[str, Any]]:
        """How far each member has read."""
        rows = self.db.rows(
            "SELECT users.id, name, image, last_read_seq,"
            " (SELECT r.message FROM receipts AS r JOIN messages ON messages.id = r.message"
            "  WHERE r.user = members.user AND messages.channel = members.channel ORDER BY seq DESC LIMIT 1) AS message"
            " FROM members JOIN users ON users.id = user WHERE channel = ? ORDER BY members.rowid",
            (channel,),
        )
        return [
            {
                "userId": row["id"],
                "name": row["name"],
                "image": row["image"],
                "lastReadMessageId": row["message"],
                "lastReadSeq": str(row["last_read_seq"]),
            }
            for row in rows
        ]

    # Shapes

    def plain(self, channel: str) -> dict[str, Any]:
        """The shape that create and update answer with: nothing about the caller."""
        row = self.db.row(f"{_OWN_VIEW} WHERE channels.id = ?", ("", channel))
        assert row is not None
        return _shape(row)

    def own(self, channel: str, user: str) -> dict[str, Any]:
        """The shape that GET answers with: with the caller's part and the first members."""
        row = self.db.row(f"{_OWN_VIEW} WHERE channels.id = ?", (user, channel))
        assert row is not None
        members = [
            {
                "userId": member["id"],
                "role": member["role"],
                "joinedAt": member["joinedAt"],
                "user": {key: member[key] for key in ("id", "name", "image", "email", "custom")},
            }
            for member in self.members(channel, _SHOWN_MEMBERS)
        ]
        return {**_shape(row), **_callers_part(row), "members": members}

    def listed(self, user: str, kind: str | None, limit: int, offset: int) -> list[dict[str, Any]]:
        """The caller's channels and all open ones, the latest message first."""
        rows = self.db.rows(
            f"{_OWN_VIEW} WHERE (mine.user IS NOT NULL OR channels.type IN ({marks(OPEN_TYPES)}))"
            " AND (? IS NULL OR channels.type = ?)"
            " ORDER BY last_message IS NULL, last_message DESC, channels.rowid LIMIT ? OFFSET ?",
            (user, *OPEN_TYPES, kind, kind, limit, offset),
        )
        listed = []
        for row in rows:
            shape = {**_shape(row), **_callers_part(row)}
            if row["type"] in _WITH_MEMBERS:
                shape["members"] = [
                    {key: value for key, value in member.items() if key != "joinedAt"}
                    for member in self.members(row["id"], _SHOWN_MEMBERS)
                ]
            listed.append(shape)
        return listed


def direct_cid(one: str, other: str) -> str:
    """The cid of the one direct channel that a pair of users can have (contract, section 6)."""
    pair = json.dumps(sorted((one, other)), separators=(",", ":"), ensure_ascii=False)
    return "messaging:dm:" + hashlib.sha256(pair.encode()).hexdigest()


def _person(row: sqlite3.Row) -> dict[str, Any]:
    custom = json.loads(row["custom"])
    return {
        "id": row["id"],
        "name": row["name"],
        "image": row["image"],
        "email": custom.get("email"),
        "custom": custom,
    }


def _shape(row: sqlite3.Row) -> dict[str, Any]:
    shape = {
        "id": row["id"],
        "cid": row["cid"],
        "type": row["type"],
        "name": row["name"],
        "image": row["image"],
        "memberCount": row["member_count"],
        "messageCount": row["message_count"],
        "lastMessageAt": iso(row["last_message"]),
        "createdBy": row["created_by"],
        "createdAt": iso(row["created"]),
        "updatedAt": iso(row["updated"]),
        "config": json.loads(row["config"]),
        "workspaceId": None,
    }
    if row["idempotency_key"] is not None:
        shape["idempotencyKey"] = row["idempotency_key"]
    return shape


def _callers_part(row: sqlite3.Row) -> dict[str, Any]:
    if row["role"] is None:
        return dict.fromkeys(("lastReadSeq", "unreadCount", "muted", "starred", "role"))
    return {
        "lastReadSeq": str(row["last_read_seq"]),
        "unreadCount": row["unread"],
        "muted": bool(row["muted"]),
        "starred": bool(row["starred"]),
        "role": row["role"],
    }
