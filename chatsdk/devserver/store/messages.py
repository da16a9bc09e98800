"""Messages: accepting one, finding them again, changing them, and their shape (contract, sections 5 and 7).

Rules: `accept` must run inside a transaction with the log entry. A seq is taken there, so that the seqs of a channel
have no gap; replies take one as well. A soft-deleted message stays in the lists, a purged one leaves them.
"""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chatsdk.devserver.ids import iso
from chatsdk.devserver.store.database import Database, like, marks, packed

_MENTION = re.compile(r"@\[([^\]]+)\]|@([\w.-]+)")
_SELECT = "SELECT messages.*, users.name, users.image FROM messages JOIN users ON users.id = messages.user"
_SHOWN_REACTORS = 5


@dataclass(frozen=True)
class Messages:
    """The tables `messages`, `reactions`, `mentions` and `receipts`."""

    db: Database

    def find(self, channel: str, message: str) -> sqlite3.Row | None:
        """One message of a channel, also a deleted one or a reply; a purged one is gone."""
        return self.db.row(f"{_SELECT} WHERE messages.id = ? AND channel = ? AND purged IS NULL", (message, channel))

    def find_any(self, channel: str, message: str) -> sqlite3.Row | None:
        """One message of a channel, even if it was purged."""
        return self.db.row(f"{_SELECT} WHERE messages.id = ? AND channel = ?", (message, channel))

    def exists(self, message: str) -> bool:
        """Whether any channel has this message."""
        return self.db.value("SELECT 1 FROM messages WHERE id = ?", (message,)) is not None

    def accept(
        self,
        message: str,
        channel: str,
        user: str,
        text: str,
        attachments: Sequence[Any],
        now: int,
        *,
        parent: str | None = None,
        reply_to: str | None = None,
        counts_as_unread: bool = True,
    ) -> int:
        """Stores a new message and returns its seq, one higher than the channel's last."""
        seq = int(
            self.db.value(
                "UPDATE channels SET last_seq = last_seq + 1, message_count = message_count + 1, last_message = ?,"
                " updated = ? WHERE id = ? RETURNING last_seq",
                (now, now, channel),
            )
        )
        self.db.run(
            "INSERT INTO messages (id, channel, user, seq, text, attachments, parent, reply_to, created)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (message, channel, user, seq, text, packed(attachments), parent, reply_to, now),
        )
        if parent is not None:
            self.db.run("UPDATE messages SET replies = replies + 1 WHERE id = ?", (parent,))
        if counts_as_unread:
            self.db.run("UPDATE members SET unread = unread + 1 WHERE channel = ? AND user <> ?", (channel, user))
        return seq

    # Reading

    def newest(self, channel: str, limit: int, *, before: int | None = None) -> list[sqlite3.Row]:
        """The newest messages (below seq `before`), oldest of them first."""
        rows = self.db.rows(
            f"{_SELECT} WHERE channel = ? AND parent IS NULL AND purged IS NULL AND (? IS NULL OR seq < ?)"
            " ORDER BY seq DESC LIMIT ?",
            (channel, before, before, limit),
        )
        return rows[::-1]

    def following(self, channel: str, seq: int, limit: int) -> list[sqlite3.Row]:
        """The messages after `seq`, oldest first."""
        return self.db.rows(
            f"{_SELECT} WHERE channel = ? AND parent IS NULL AND purged IS NULL AND seq > ? ORDER BY seq LIMIT ?",
            (channel, seq, limit),
        )

    def replies(self, parent: str, limit: int, before: int | None) -> list[sqlite3.Row]:
        """The oldest replies (made before a time in milliseconds)."""
        return self.db.rows(
            f"{_SELECT} WHERE parent = ? AND purged IS NULL AND (? IS NULL OR messages.created < ?)"
            " ORDER BY seq LIMIT ?",
            (parent, before, before, limit),
        )

    def participants(self, parent: str) -> list[dict[str, Any]]:
        rows = self.db.rows(
            "SELECT users.id, name, image, count(*) AS replies FROM messages JOIN users ON users.id = messages.user"
            " WHERE parent = ? AND purged IS NULL GROUP BY users.id ORDER BY replies DESC, min(seq)",
            (parent,),
        )
        return [
            {"id": row["id"], "name": row["name"], "image": row["image"], "replyCount": row["replies"]} for row in rows
        ]

    def search(
        self, user: str, text: str, channel: str | None, start: int | None, end: int | None, limit: int, offset: int
    ) -> tuple[list[dict[str, Any]], int]:
        """Messages of the user's channels that contain `text`, the newest first, and how many there are in all."""
        condition = (
            " FROM messages JOIN members ON members.channel = messages.channel AND members.user = ?"
            " JOIN channels ON channels.id = messages.channel JOIN users ON users.id = messages.user"
            " WHERE messages.text LIKE ? ESCAPE '\\' AND deleted IS NULL AND purged IS NULL"
            " AND (? IS NULL OR messages.channel = ?) AND messages.created >= coalesce(?, 0)"
            " AND messages.created <= coalesce(?, messages.created)"
        )
        wanted = (user, like(text), channel, channel, start, end)
        total = int(self.db.value(f"SELECT count(*){condition}", wanted))
        rows = self.db.rows(
            "SELECT messages.*, channels.name AS channel_name, users.name AS user_name"
            f"{condition} ORDER BY messages.created DESC, seq DESC LIMIT ? OFFSET ?",
            (*wanted, limit, offset),
        )
        pattern = re.compile(re.escape(text), re.IGNORECASE)
        hits = [
            {
                "messageId": row["id"],
                "channelId": row["channel"],
                "channelName": row["channel_name"],
                "userId": row["user"],
                "userName": row["user_name"],
                "text": row["text"],
                "highlightedText": pattern.sub(lambda match: f"<mark>{match[0]}</mark>", row["text"]),
                "createdAt": iso(row["created"]),
            }
            for row in rows
        ]
        return hits, total

    # Changing

    def edit(self, message: str, text: str, now: int) -> None:
        self.db.run("UPDATE messages SET text = ?, edited = ? WHERE id = ?", (text, now, message))

    def delete(self, message: str, now: int) -> None:
        self.db.run("UPDATE messages SET deleted = coalesce(deleted, ?) WHERE id = ?", (now, message))

    def purge(self, message: str, now: int) -> None:
        self.db.run(
            "UPDATE messages SET purged = coalesce(purged, ?), deleted = coalesce(deleted, ?) WHERE id = ?",
            (now, now, message),
        )

    def react(self, message: str, emoji: str, user: str, now: int) -> bool:
        """Adds a reaction; False where it was there."""
        return self.db.run("INSERT OR IGNORE INTO reactions VALUES (?, ?, ?, ?)", (message, emoji, user, now)) == 1

    def unreact(self, message: str, emoji: str, user: str) -> bool:
        """Takes a reaction back; False where there was none."""
        given = (message, emoji, user)
        return self.db.run("DELETE FROM reactions WHERE message = ? AND emoji = ? AND user = ?", given) == 1

    # Mentions and receipts

    def mention(self, message: str, channel: str, author: str, text: str, now: int) -> list[str]:
        """Stores who is named in the text (`@name`, `@id`, `@[Full Name]`) among the members; returns their ids."""
        named = {(full or short).casefold() for full, short in _MENTION.findall(text)}
        named |= {name.rstrip(".-") for name in named}
        if not named:
            return []
        rows = self.db.rows(
            "SELECT users.id, name FROM members JOIN users ON users.id = user WHERE channel = ? AND user <> ?",
            (channel, author),
        )
        found = sorted(
            row["id"] for row in rows if row["id"].casefold() in named or (row["name"] or "").casefold() in named
        )
        for user in found:
            self.db.run("INSERT INTO mentions VALUES (?, ?, ?, ?)", (str(uuid.uuid4()), message, user, now))
        return found

    def mentions_of(self, user: str, limit: int, before: int | None) -> list[dict[str, Any]]:
        """Where the user is named, the latest first."""
        rows = self.db.rows(
            "SELECT mentions.id AS mention, mentions.created AS mentioned, messages.id, messages.text,"
            " messages.created, messages.channel, users.id AS author, users.name, users.image,"
            " channels.name AS channel_name, channels.type"
            " FROM mentions JOIN messages ON messages.id = message JOIN users ON users.id = messages.user"
            " JOIN channels ON channels.id = messages.channel WHERE mentions.user = ? AND purged IS NULL"
            " AND (? IS NULL OR mentions.created < ?) ORDER BY mentions.created DESC, mentions.rowid DESC LIMIT ?",
            (user, before, before, limit),
        )
        return [
            {
                "id": row["mention"],
                "mentionedAt": iso(row["mentioned"]),
                "message": {
                    "id": row["id"],
                    "channelId": row["channel"],
                    "text": row["text"],
                    "createdAt": iso(row["created"]),
                },
                "mentioner": {"id": row["author"], "name": row["name"], "image": row["image"]},
                "channel": {"id": row["channel"], "name": row["channel_name"], "type": row["type"]},
                "read": False,
            }
            for row in rows
        ]

    def mention_count(self, user: str) -> int:
        return int(self.db.value("SELECT count(*) FROM mentions WHERE user = ?", (user,)))

    def receipt(self, message: str, user: str, now: int) -> None:
        self.db.run("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?)", (message, user, now))

    def readers(self, message: str) -> list[dict[str, Any]]:
        rows = self.db.rows(
            "SELECT users.id, name, image, receipts.created AS since FROM receipts JOIN users ON users.id = user"
            " WHERE message = ? ORDER BY receipts.created",
            (message,),
        )
        return [
            {"userId": row["id"], "name": row["name"], "image": row["image"], "readAt": iso(row["since"])}
            for row in rows
        ]

    # Shapes

    def shapes(self, rows: Sequence[sqlite3.Row], user: str) -> list[dict[str, Any]]:
        """Messages as list, get and send show them: with reactions and mentions, in two statements for all."""
        ids = [row["id"] for row in rows]
        reactions: dict[str, dict[str, dict[str, Any]]] = {}
        for row in self.db.rows(
            f"SELECT message, emoji, user, name FROM reactions JOIN users ON users.id = user"
            f" WHERE message IN ({marks(ids)}) ORDER BY emoji, user",
            ids,
        ):
            of_emoji = reactions.setdefault(row["message"], {}).setdefault(
                row["emoji"], {"type": row["emoji"], "count": 0, "own": False, "users": []}
            )
            of_emoji["count"] += 1
            of_emoji["own"] |= row["user"] == user
            if len(of_emoji["users"]) < _SHOWN_REACTORS:
                of_emoji["users"].append({"id": row["user"], "name": row["name"]})
        mentions: dict[str, list[str]] = {}
        for row in self.db.rows(
            f"SELECT message, user FROM mentions WHERE message IN ({marks(ids)}) ORDER BY user", ids
        ):
            mentions.setdefault(row["message"], []).append(row["user"])
        shaped = []
        for row in rows:
            own = list(reactions.get(row["id"], {}).values())
            shape = message_shape(row, sum(reaction["count"] for reaction in own))
            shaped.append({**shape, "reactions": own, "mentions": mentions.get(row["id"], [])})
        return shaped

    def reaction_count(self, message: str) -> int:
        return int(self.db.value("SELECT count(*) FROM reactions WHERE message = ?", (message,)))


def message_shape(row: sqlite3.Row, reaction_count: int) -> dict[str, Any]:
    """A message as edit shows it; the other routes add reactions and mentions."""
    created, deleted = iso(row["created"]), iso(row["deleted"])
    updated = iso(row["edited"]) or created
    return {
        "id": row["id"],
        "channelId": row["channel"],
        "cid": row["channel"],
        "userId": row["user"],
        "type": "regular" if deleted is None else "deleted",
        "text": row["text"] if deleted is None else None,
        "seq": row["seq"],
        "clientMsgId": row["id"],
        "user": {
            "id": row["user"],
            "name": row["name"],
            "image": row["image"],
            "custom": None,
            "lastActiveAt": None,
            "createdAt": created,
            "updatedAt": created,
        },
        "attachments": json.loads(row["attachments"]),
        "parentId": row["parent"],
        "replyToId": row["reply_to"],
        "reactionCount": reaction_count,
        "replyCount": row["replies"],
        "threadCount": row["replies"],
        "status": "sent",
        "pinned": False,
        "pinnedAt": None,
        "pinnedBy": None,
        "linkPreviews": [],
        "pollId": None,
        "poll": None,
        "createdAt": created,
        "updatedAt": updated,
        "deletedAt": deleted,
        "hardDeletedAt": None,
        "created_at": created,
        "updated_at": updated,
        "deleted_at": deleted,
        "hard_deleted_at": None,
    }


def reply_shape(row: sqlite3.Row) -> dict[str, Any]:
    """A reply as the thread route lists it: seq is a text there."""
    deleted = iso(row["deleted"])
    return {
        "id": row["id"],
        "cid": row["channel"],
        "seq": str(row["seq"]),
        "type": "regular" if deleted is None else "deleted",
        "text": row["text"] if deleted is None else None,
        "attachments": json.loads(row["attachments"]),
        "user": {"id": row["user"], "name": row["name"], "image": row["image"]},
        "parentId": row["parent"],
        "status": "sent",
        "createdAt": iso(row["created"]),
        "editedAt": iso(row["edited"]),
        "deletedAt": deleted,
    }
