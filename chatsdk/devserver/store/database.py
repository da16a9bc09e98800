"""The SQLite file: schema, settings and transactions.

`journal_mode=WAL` with `synchronous=NORMAL`: a commit survives the death of the process (kill -9), not the loss of
power, which is what a development server promises. `locking_mode=EXCLUSIVE` keeps a second server off the same file.
Times are whole milliseconds since 1970.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

SCHEMA_VERSION = 2
STREAMS_SCHEMA = """
CREATE TABLE streams (name TEXT PRIMARY KEY, epoch TEXT NOT NULL, last INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE publications (
    stream TEXT NOT NULL, position INTEGER NOT NULL, body TEXT NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (stream, position)
) WITHOUT ROWID;
"""
"""What version 2 has more than version 1."""
SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE users (
    id TEXT PRIMARY KEY, name TEXT, image TEXT, custom TEXT NOT NULL DEFAULT '{}', online INTEGER NOT NULL DEFAULT 0,
    last_active INTEGER NOT NULL, created INTEGER NOT NULL
);
CREATE TABLE blocks (user TEXT NOT NULL, blocked TEXT NOT NULL, created INTEGER NOT NULL, PRIMARY KEY (user, blocked));
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, user TEXT NOT NULL, expires INTEGER NOT NULL, revoked INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE revoked_tokens (jti TEXT PRIMARY KEY, revoked INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE channels (
    id TEXT PRIMARY KEY, cid TEXT NOT NULL UNIQUE, type TEXT NOT NULL, name TEXT, image TEXT, config TEXT NOT NULL,
    created_by TEXT NOT NULL, created INTEGER NOT NULL, updated INTEGER NOT NULL, last_message INTEGER,
    last_seq INTEGER NOT NULL DEFAULT 0, message_count INTEGER NOT NULL DEFAULT 0, idempotency_key TEXT UNIQUE
);
CREATE TABLE members (
    channel TEXT NOT NULL, user TEXT NOT NULL, role TEXT NOT NULL, joined INTEGER NOT NULL,
    last_read_seq INTEGER NOT NULL DEFAULT 0, unread INTEGER NOT NULL DEFAULT 0, muted INTEGER NOT NULL DEFAULT 0,
    starred INTEGER NOT NULL DEFAULT 0, UNIQUE (channel, user)
);
CREATE INDEX members_by_user ON members (user);
CREATE TABLE messages (
    id TEXT PRIMARY KEY, channel TEXT NOT NULL, user TEXT NOT NULL, seq INTEGER NOT NULL, text TEXT NOT NULL,
    attachments TEXT NOT NULL, parent TEXT, reply_to TEXT, replies INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL, edited INTEGER, deleted INTEGER, purged INTEGER, UNIQUE (channel, seq)
);
CREATE INDEX messages_by_parent ON messages (parent, seq) WHERE parent IS NOT NULL;
CREATE TABLE reactions (
    message TEXT NOT NULL, emoji TEXT NOT NULL, user TEXT NOT NULL, created INTEGER NOT NULL,
    PRIMARY KEY (message, emoji, user)
);
CREATE TABLE mentions (
    id TEXT PRIMARY KEY, message TEXT NOT NULL, user TEXT NOT NULL, created INTEGER NOT NULL, UNIQUE (message, user)
);
CREATE TABLE receipts (
    message TEXT NOT NULL, user TEXT NOT NULL, created INTEGER NOT NULL, PRIMARY KEY (message, user)
);
CREATE TABLE message_log (
    position INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, channel TEXT NOT NULL, user TEXT NOT NULL,
    text TEXT NOT NULL, seq INTEGER NOT NULL, ordinal INTEGER NOT NULL, at INTEGER NOT NULL
);
CREATE TABLE attempt_log (
    ordinal INTEGER PRIMARY KEY, at INTEGER NOT NULL, operation TEXT NOT NULL, key TEXT, channel TEXT, user TEXT,
    outcome TEXT NOT NULL, result TEXT, status INTEGER
);
CREATE TRIGGER message_log_is_append_only BEFORE UPDATE ON message_log
    BEGIN SELECT RAISE(ABORT, 'message_log is append-only'); END;
CREATE TRIGGER message_log_keeps_everything BEFORE DELETE ON message_log
    BEGIN SELECT RAISE(ABORT, 'message_log is append-only'); END;
"""


class DataFileError(Exception):
    """The data file cannot be used: it is of another program or version, or another server has it open."""


class Database:
    """The one connection, with the few verbs that the stores need. Rows come as `sqlite3.Row`."""

    def __init__(self, path: str) -> None:
        if path != ":memory:":
            # Created by us, so that only the owner may read the secrets inside; SQLite gives its WAL the same mode.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        self.connection = sqlite3.connect(path, isolation_level=None, timeout=1.0)
        self.connection.row_factory = sqlite3.Row
        try:
            self._prepare(path)
        except sqlite3.DatabaseError as error:
            self.connection.close()
            raise DataFileError(f"cannot use the data file {path}: {error}") from error

    def _prepare(self, path: str) -> None:
        self.connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("PRAGMA synchronous = NORMAL")
        with self.transaction():
            version = self.value("PRAGMA user_version")
            if version == 0 and self.value("SELECT count(*) FROM sqlite_master") == 0:
                self._extend(SCHEMA + STREAMS_SCHEMA)
            elif version == 1:
                self._extend(STREAMS_SCHEMA)
            elif version != SCHEMA_VERSION:
                raise DataFileError(f"{path} is not a data file of this server (version {version})")

    def _extend(self, script: str) -> None:
        for statement in _statements(script):
            self.connection.execute(statement)
        self.connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing: commits at the end, rolls back if anything is raised."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            raise

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Runs a statement that changes something; returns how many rows it changed."""
        return self.connection.execute(sql, parameters).rowcount

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[sqlite3.Row]:
        return self.connection.execute(sql, parameters).fetchall()

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self.connection.execute(sql, parameters).fetchone()
        return found

    def value(self, sql: str, parameters: Sequence[Any] = ()) -> Any:
        """The first column of the first row, or None."""
        found = self.connection.execute(sql, parameters).fetchone()
        return None if found is None else found[0]

    def setting(self, name: str, first: str) -> str:
        """A value that belongs to the file: `first` the first time, afterwards what it was then."""
        self.run("INSERT OR IGNORE INTO settings VALUES (?, ?)", (name, first))
        return str(self.value("SELECT value FROM settings WHERE name = ?", (name,)))

    def forget(self) -> None:
        """Empties every table but the settings and the two logs. Call it inside a transaction."""
        for row in self.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"):
            if row["name"] not in ("settings", "message_log", "attempt_log"):
                self.run(f"DELETE FROM {row['name']}")

    def close(self) -> None:
        self.connection.close()


def marks(values: Sequence[Any]) -> str:
    """`?, ?, ?` for an IN list. Never empty, so that `IN ()` cannot arise."""
    return ", ".join("?" * len(values)) or "NULL"


def packed(value: Any) -> str:
    """JSON as it lies in a column."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def like(text: str) -> str:
    """A pattern for LIKE ... ESCAPE '\\' that finds `text` anywhere."""
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _statements(script: str) -> Iterator[str]:
    gathered = ""
    for line in script.splitlines(keepends=True):
        gathered += line
        if sqlite3.complete_statement(gathered):
            yield gathered
            gathered = ""
