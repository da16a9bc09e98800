"""What SQLite's errors mean for who uses the outbox: whose fault it is, and what to do."""

from __future__ import annotations

import sqlite3

from ..core.errors import StorageError


def _code(error: BaseException | None) -> int:
    return getattr(error, "sqlite_errorcode", 0) or 0


def is_damage(error: BaseException | None) -> bool:
    """The file is broken (and not just: busy, full, forbidden)."""
    return _code(error) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_full(error: BaseException | None) -> bool:
    """There is no room on the disk."""
    return _code(error) & 0xFF == sqlite3.SQLITE_FULL or _code(error) == sqlite3.SQLITE_IOERR_SHMSIZE


def translated(error: sqlite3.Error, path: str) -> StorageError:
    """The same, as one of our errors. Nothing happened."""
    code = _code(error) & 0xFF
    if is_full(error):
        return StorageError("the disk is full", code="disk_full", hint=f"free some room on the disk of {path}")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError(f"another program holds {path}", code="locked", hint="close what has the file open")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return StorageError(
            f"{path} cannot be written: {error}",
            code="read_only",
            hint="this user needs to write the state directory; see its owner, its mode and how its disk is mounted",
        )
    if is_damage(error):
        return StorageError(
            f"{path} was damaged: {error}", code="damaged", hint="try again: a new outbox takes its place"
        )
    return StorageError(f"{path}: {error}", hint="see the disk's health and the system's log")
