"""Streams: where each one stands, and the publications that are kept of it.

Rules: `append` belongs into the transaction of the change that it tells of, so that a killed server has both or
neither, and clients find after its restart what they missed. A stream's epoch is made with it; offsets count from 1
without holes. Memory and file are the same here, so a server in memory begins with new epochs.
"""

from __future__ import annotations

import secrets
import sqlite3
import string
from dataclasses import dataclass

from chatsdk.devserver.store.database import Database

_TRIM_EVERY = 32


@dataclass(frozen=True)
class Streams:
    """The tables `streams` and `publications`."""

    db: Database

    def position(self, stream: str) -> tuple[int, str]:
        """Offset and epoch of a stream's end; the stream is made if need be."""
        row = self.db.row("SELECT last, epoch FROM streams WHERE name = ?", (stream,))
        if row is not None:
            return row["last"], row["epoch"]
        epoch = _new_epoch()
        self.db.run("INSERT INTO streams (name, epoch) VALUES (?, ?)", (stream, epoch))
        return 0, epoch

    def append(self, stream: str, body: str, now: int, keep: int) -> tuple[int, str]:
        """Adds a publication (`body`: its JSON without offset and epoch) and returns its offset and epoch."""
        rows = self.db.rows("UPDATE streams SET last = last + 1 WHERE name = ? RETURNING last, epoch", (stream,))
        if not rows:
            self.position(stream)
            return self.append(stream, body, now, keep)
        last, epoch = rows[0]["last"], rows[0]["epoch"]
        self.db.run(
            "INSERT INTO publications (stream, position, body, at) VALUES (?, ?, ?, ?)", (stream, last, body, now)
        )
        if last % _TRIM_EVERY == 0:
            self.db.run("DELETE FROM publications WHERE stream = ? AND position <= ?", (stream, last - keep))
        return last, epoch

    def kept(self, stream: str, keep: int, oldest: int) -> list[sqlite3.Row]:
        """The newest `keep` publications made since `oldest` (milliseconds): position and body, oldest first."""
        return self.db.rows(
            "SELECT position, body FROM publications WHERE stream = ? AND at >= ?"
            " AND position > (SELECT last FROM streams WHERE name = ?) - ? ORDER BY position",
            (stream, oldest, stream, keep),
        )

    def names(self) -> list[str]:
        return [row["name"] for row in self.db.rows("SELECT name FROM streams ORDER BY name")]

    def clear(self, stream: str) -> None:
        """Drops what is kept of a stream; it goes on counting in the same epoch."""
        self.db.run("DELETE FROM publications WHERE stream = ?", (stream,))

    def restart(self, stream: str) -> None:
        """Begins a new epoch: offsets start over and nothing is kept."""
        self.clear(stream)
        self.db.run("DELETE FROM streams WHERE name = ?", (stream,))


def _new_epoch() -> str:
    return "".join(secrets.choice(string.ascii_letters) for _ in range(8))
