"""The file behind the store: opening, making, losing and finding it again, and what a fork does to it.

Theory. Two connections: one writes, under the file lock and alone; one reads, under `mutex`, and never sees what is not
committed. A new file is made under another name and renamed when it is complete, so whoever finds `outbox.db` finds a
whole one, and an empty one is damage. A good file is opened without any lock.

Rules.
1. Nobody but SQLite opens the file while SQLite has it open in this process: closing a descriptor drops its locks.
2. The file under the name may be exchanged (a quarantine by another process, a removed directory). Each transaction and
   each query looks whether it is still the one that is open: what is written to a file without a name is lost.
3. Over a fork no connection stays open. SQLite keeps its locks in a table of the process, which the child inherits
   without the locks: a connection that the *child* opens is then unlocked too, and what it writes is lost when the
   parent closes (measured). So the fork's hook closes ours first, and both sides open again when they need to.
4. Where no hook runs (uWSGI forks without), the child leaves the inherited connections alone for ever, and takes by
   hand the two locks that SQLite takes to be there. Where even that cannot be right (a fork in the middle of a
   transaction, or a parent that closed since), it refuses.
5. SQLite syncs the write-ahead log when it copies it into the file and when it begins it anew, so the file is whole
   whatever happens; that a commit survives a power cut is `sync`'s business. Of the log we may have a descriptor of our
   own: SQLite keeps no locks on it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Protocol

from ..core.clock import Clock
from ..core.errors import StorageError
from ..core.record import Record, record
from . import files, quarantine, schema, trouble

_SHARED_FIRST, _SHARED_SIZE = 0x40000002, 510
_SHM_IN_USE = 128
"""Bytes that SQLite locks: os_unix.c, SHARED_FIRST and SHARED_SIZE of the file, UNIX_SHM_DMS of -shm."""

_AFTER_THE_FORK = "create the client after the fork (uWSGI: lazy-apps = true)"

SYNCS_LOG = hasattr(os, "fdatasync")
"""`sync` does it; else (macOS) SQLite does, in each COMMIT."""

_Identity = tuple[int, int]


class Connections(Protocol):
    """The two open connections."""

    reader: sqlite3.Connection
    writer: sqlite3.Connection

    def close(self) -> None: ...


Connect = Callable[[str, bool], Connections]
"""(file name, is it new) -> its connections. Raises Unusable, SettingsError, sqlite3.Error."""


@record(frozen=True, slots=True)
class Replaced(Record):
    """The file was no outbox, or gone, and a new one was begun. `kept`: where the old one lies now, or ""."""

    why: str
    kept: str = ""
    salvaged: int = 0


class Database:
    """One outbox file. Writing is for the leader of the group commit, reading for who holds `mutex`."""

    def __init__(self, directory: str, connect: Connect, clock: Clock) -> None:
        self.directory = directory
        self.path = os.path.join(directory, schema.FILE)
        self.reserve = files.Reserve(os.path.join(directory, "reserve"))
        self.mutex = threading.Lock()
        self.news: list[Replaced] = []
        """What happened to the file and was not told yet: telling may call handlers, so the store does it later."""
        self._connect = connect
        self._clock = clock
        self._open_file: Connections | None = None
        self._log: _Log | None = None
        self._identity: _Identity | None = None
        self._shm: _Identity | None = None
        self._ancestral: tuple[_Identity | None, _Identity | None] | None = None
        # the file and -shm whose locks this process's SQLite believes in, though only an ancestor had them
        self._locked_by_hand = False
        self.refusal: str | None = None
        """Why this process cannot use the file, for ever."""

    def check(self) -> None:
        """Raises StorageError if this process can never use the file."""
        if self.refusal is not None:
            raise StorageError(self.refusal, hint=_AFTER_THE_FORK)

    # ---- for the group commit

    def writer(self) -> sqlite3.Connection:
        """The connection to write with. Makes the file if it is missing, replaces it if it is no good. Call with the
        file lock held. Raises SettingsError, StorageError, sqlite3.Error."""
        opened = self._open_file
        if opened is None or not self._is_in_place():
            with self.mutex:
                opened = self._reopen()
        return opened.writer

    def failed(self, error: sqlite3.Error) -> None:
        """If the file is damaged, replace it. Call with the file lock held, and nothing in progress."""
        if not trouble.is_damage(error):
            return
        with self.mutex:
            self._close()
            if not quarantine.is_sound(self.path):
                self._make(str(error))

    def sync(self) -> None:
        """All that was committed is on disk when this returns. Call after a transaction, before the next one begins.
        Raises StorageError, "unsynced"."""
        log = self._log
        try:
            if log is not None:
                os.fdatasync(log.descriptor)
        except OSError as error:
            raise StorageError(
                f"the disk of {self.path} failed: {error.strerror}; what was being written may be lost, or not",
                code="unsynced",
                hint="see the disk's health; the same message with the same key can be sent again without harm",
            ) from error

    def discard(self) -> None:
        """Close the connections."""
        with self.mutex:
            self._close()

    # ---- for readers

    def reader(self) -> sqlite3.Connection | None:
        """The connection to read with, or None if `writer` has to put things right first. Call with `mutex` held."""
        if self._open_file is not None:
            return self._open_file.reader if self._is_in_place() else None
        try:
            self._open_file = self._open()
        except quarantine.Unusable:
            return None
        return None if self._open_file is None else self._open_file.reader

    # ---- opening

    def _is_in_place(self) -> bool:
        return _identity(self.path) == self._identity

    def _reopen(self) -> Connections:
        vanished = self._open_file is not None and not os.path.lexists(self.path)
        self._close()
        why = "the file vanished while it was open" if vanished else ""
        try:
            self._open_file = self._open()
        except quarantine.Unusable as error:
            why = str(error)
        if self._open_file is None:
            self._make(why)
            self._open_file = self._open()
        if self._open_file is None:
            raise StorageError(f"{self.path} vanished as soon as it was made", hint="look who removes it")
        return self._open_file

    def _open(self) -> Connections | None:
        """The file as it is; None if there is none. Raises Unusable if it is no good."""
        files.make_directory(self.directory)
        for suffix in quarantine.SUFFIXES:
            facts = files.check_file(self.path + suffix)
            if not suffix and facts is None:
                return None
            if not suffix and facts is not None and facts.st_size == 0:
                raise quarantine.Unusable("the file is empty")
        found = _identity(self.path)
        if self._ancestral is not None and self._ancestral[0] == found and not self._locked_by_hand:
            self._take_locks_by_hand()
        opened = self._connect(schema.FILE, False)
        try:
            self._log = _Log(f"{self.path}-wal") if SYNCS_LOG else None
        except OSError as error:
            opened.close()
            raise StorageError(f"cannot open {self.path}-wal: {error.strerror}") from error
        if _identity(self.path) != found:
            opened.close()
            return self._open()
        self._identity, self._shm = found, _identity(self.path + "-shm")
        return opened

    def _make(self, why: str) -> None:
        """Put a new file in place. `why`: what is wrong with the old one, if there was one."""
        files.make_directory(self.directory)
        whole, draft = f"{self.path}.new", f"{self.path}.draft"
        damaged = os.path.lexists(self.path)
        salvaged = 0
        if damaged or not os.path.lexists(whole):
            for suffix in (*quarantine.SUFFIXES, "-journal"):
                if os.path.lexists(draft + suffix):
                    os.unlink(draft + suffix)  # of somebody who died over it
            os.close(files.open_private(draft, os.O_EXCL))
            made = self._connect(os.path.basename(draft), True)
            try:
                schema.create(made.writer)
                if damaged:
                    salvaged = quarantine.salvage(self.path, made.writer)
            finally:
                made.close()
            _sync(draft)
            os.rename(draft, whole)
        kept = ""
        if any(os.path.lexists(self.path + suffix) for suffix in quarantine.SUFFIXES):
            # a -wal without its file must go as well: SQLite would play it into the new one
            kept = quarantine.set_aside(self.path, self._clock.time())
            why = why or "its write-ahead log was there without it"
        os.rename(whole, self.path)
        files.sync_directory(self.directory)
        self.reserve.make()
        if why:
            self.news.append(Replaced(why, kept, salvaged))

    # ---- the end

    def close(self) -> None:
        """Close the connections; SQLite tidies up if nobody else has the file open."""
        with self.mutex:
            self._close()

    def _close(self) -> None:
        opened, self._open_file = self._open_file, None
        self._log = None
        if opened is not None:
            opened.close()

    # ---- forks

    def before_fork(self, timeout: float) -> bool:
        """Close, and keep readers out. False if that took longer than `timeout` seconds. Call while the group commit
        stands still."""
        if not self.mutex.acquire(timeout=timeout):
            return False
        self._close()
        return True

    def after_fork_in_parent(self) -> None:
        """Let readers in again."""
        self.mutex.release()

    def after_fork_in_child(self, *, in_transaction: bool) -> None:
        """Everything is the parent's. `in_transaction`: it was in the middle of writing."""
        opened, self._open_file = self._open_file, None
        self._log = None
        reading = self.mutex.locked()
        self.mutex = threading.Lock()
        self.news = []
        self._locked_by_hand = False
        if opened is None:
            return
        leak(opened.reader, opened.writer)
        self._ancestral = (self._identity, self._shm)
        if in_transaction or reading:
            self.refusal = "this process was forked while its parent was using the outbox"

    def _take_locks_by_hand(self) -> None:
        """Rule 4. The descriptors are never closed: that would drop the locks."""
        for path, size, start in (
            (self.path, _SHARED_SIZE, _SHARED_FIRST),
            (f"{self.path}-shm", 1, _SHM_IN_USE),
        ):
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                held = files.try_lock(descriptor, shared=True, size=size, start=start)
            except OSError:
                held = False
            if not held or self._ancestral != (_identity(self.path), _identity(f"{self.path}-shm")):
                self.refusal = "this process was forked from one that closed the outbox since"
                self.check()
        self._locked_by_hand = True


class _Log:
    """A descriptor of the write-ahead log, closed when nobody has it any more."""

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self.descriptor >= 0:
            close(self.descriptor)


def _sync(path: str) -> None:
    """Make a whole file durable, at once: to sync each step of its making takes ten times as long."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _identity(path: str) -> _Identity | None:
    try:
        facts = os.stat(path)
    except OSError:
        return None
    return facts.st_dev, facts.st_ino


def leak(*connections: object) -> None:
    """Keep them for ever: closing a connection that came over a fork works on memory and files the parent is using."""
    import ctypes  # in such a child only

    for connection in connections:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
