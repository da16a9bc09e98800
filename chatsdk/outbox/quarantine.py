"""Telling a damaged file from a busy one, putting it aside, and saving what can be read of it.

Rules.
1. Only what SQLite calls damaged or no database, a file that is no outbox, and an empty one are set aside. A lock that
   is taken, a missing permission, a full disk and an I/O error say nothing about the file; a file of a newer version
   is good, and is refused.
2. Nothing is ever removed: file, -wal and -shm are renamed and kept.
3. The new file is complete before the old one goes, so that a crash in between loses no salvage.
4. What is saved keeps its id and key. Its tries are not known for certain any more: pending rows become `uncertain`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from ..core.errors import SettingsError
from .lanes import NEXT_TURN
from .schema import APPLICATION_ID, DEAD, TABLE, TABLES, VERSION
from .trouble import is_damage

SUFFIXES = ("", "-wal", "-shm")

_COLUMNS = (
    "_id, data, timestamp, status, key, user, channel, hash, expires_at, attempts, strikes, uncertain, settle, misses, "
    "settled_at, reason, error, finished_at"
)


class Unusable(Exception):
    """The file is no outbox that can be worked with."""


def judge(connection: sqlite3.Connection, path: str) -> None:
    """Raises Unusable for a damaged or foreign file, SettingsError for one of a newer version."""
    try:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        if is_damage(error):
            raise Unusable(str(error)) from error
        raise
    if application != APPLICATION_ID:
        raise Unusable("it is the file of another program")
    if version > VERSION:
        raise SettingsError(
            f"{path} has format {version}, this version of chatsdk knows {VERSION}",
            hint="upgrade chatsdk, or give the older one a state directory of its own; the file was left as it is",
        )
    if not tables >= TABLES:
        raise Unusable(f"tables are missing: {', '.join(sorted(TABLES - tables))}")


def is_sound(path: str) -> bool:
    """A thorough look at every page, after SQLite called the file damaged. False if it is, or if it cannot be told."""
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
            judge(connection, path)
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except (sqlite3.Error, Unusable):
        return False


def set_aside(path: str, now: float) -> str:
    """Rename the file and what belongs to it. Returns the new path."""
    when = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    kept = f"{path}.quarantined-{when}-{secrets.token_hex(3)}"
    for suffix in SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + suffix, kept + suffix)
    return kept


def salvage(path: str, into: sqlite3.Connection) -> int:
    """Copy pending rows and dead letters that can be read into a new file. Returns how many."""
    if os.path.getsize(path) == 0:
        return 0  # SQLite would remove its -wal
    into.execute("BEGIN IMMEDIATE")
    marks = ", ".join("?" * len(_COLUMNS.split(",")))
    for row in _readable(path):
        # a row that is readable and yet senseless (types, a key twice) is left behind
        with contextlib.suppress(sqlite3.IntegrityError, sqlite3.InterfaceError):
            into.execute(f"INSERT INTO {TABLE}({_COLUMNS}) VALUES({marks})", row)
    into.execute(f"UPDATE {TABLE} SET uncertain = 1 WHERE status < 2")
    into.execute(
        f"INSERT INTO lanes(user, channel, turn) SELECT user, channel, {NEXT_TURN} FROM {TABLE} "
        "WHERE status < 2 GROUP BY user, channel"
    )
    pending, dead, size, last_id = into.execute(
        f"SELECT count(*) FILTER (WHERE status < 2), count(*) FILTER (WHERE status = {DEAD}), "
        f"coalesce(sum(length(data)), 0), coalesce(max(_id), 0) FROM {TABLE}"
    ).fetchone()
    into.execute(
        "UPDATE counters SET accepted = ?, pending = ?, dead = ?, bytes = ?, last_id = ?",
        (pending + dead, pending, dead, size, last_id),
    )
    into.execute("COMMIT")
    return int(pending + dead)


def _readable(path: str) -> Iterator[tuple[Any, ...]]:
    """Rows of a damaged file: from the front to the first bad page, then from the back to the last one."""
    query = f"SELECT {_COLUMNS} FROM {TABLE} WHERE (status < 2 OR status = {DEAD}) AND _id > ? ORDER BY _id"
    try:
        connection = sqlite3.connect(path, isolation_level=None)
    except sqlite3.Error:
        return
    with contextlib.closing(connection):
        last = 0
        try:
            for row in connection.execute(query, (last,)):
                last = row[0]
                yield row
        except sqlite3.Error:
            try:
                yield from connection.execute(f"{query} DESC", (last,))
            except sqlite3.Error:
                return
