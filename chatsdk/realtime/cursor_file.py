"""The cursor file of the one process that owns it: opened, checked, locked, mapped, grown.

`cursor_records` says what is in it and `cursors` why it is so. Not thread-safe: who calls is alone.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
import stat
import sys
from collections import deque
from collections.abc import Callable

from ..core.errors import SettingsError
from ..resilience.process_lock import ProcessLock
from . import cursor_records as records
from .cursor_records import Stored

if sys.platform != "win32":
    import fcntl

GROWTH = 16384
"""Bytes of a new file, 127 channels; then it doubles. Older mappings stay as long as a record in them is used, and are
in sum no larger than the last."""

log = logging.getLogger("chatsdk.realtime")

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH

_changing = ProcessLock()
_owned: dict[str, int] = {}
"""Lock files that a process holds: closing any descriptor of such a file would give its lock away."""


class ForeignVersion(Exception):
    """A file of a version that is not known here."""


class CursorFile:
    """Channels' records, by the hash of their keys. Raises OSError, SettingsError (it cannot be trusted) and
    ForeignVersion where it cannot be opened; `open_file` opens it."""

    def __init__(self, path: str, limit: int, lock: _Lock) -> None:
        self._path = path
        self._limit = limit
        self._lock = lock
        self._index: dict[bytes, Stored] = {}
        self._asked: set[bytes] = set()
        self._free: deque[int] = deque()
        self._old: list[Stored] = []  # those to be given up, the next one last
        self._generation = 1
        self._descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
        try:
            self._check()
            self.buffer = self._map()
            self._load()
        except BaseException:
            os.close(self._descriptor)
            raise

    def find(self, hash: bytes) -> Stored | None:
        """The record of a channel that is asked for, with the numbers of when it was read or made."""
        stored = self._index.get(hash)
        if stored is not None and hash not in self._asked:
            self._asked.add(hash)
            records.write_used(self.buffer, stored.at, self._generation)
        return stored

    def add(self, hash: bytes, epoch: str | None, seq: int | None, offset: int | None) -> int | None:
        """Write a new record, in place of the one there may be; where it is in `buffer`, or None: there is no room."""
        before = self._index.get(hash)
        at = self._oldest() if before is None and len(self._index) >= self._limit else self._room()
        if at is None:
            return None
        self._generation += 1
        records.write_record(self.buffer, at, hash, self._generation, epoch, seq, offset)
        self._sync()
        self._index[hash] = Stored(at, hash, self._generation, self._generation, epoch, seq, offset)
        self._asked.add(hash)
        if before is not None:
            self._erase(before)
        return at

    def close(self) -> None:
        """Let others have it. The mapping ends with the last record in use."""
        os.close(self._descriptor)
        self._lock.close()

    # ---- room

    def _room(self) -> int | None:
        return self._free.popleft() if self._free or self._grow() else None

    def _grow(self) -> bool:
        """More room; False if the disk has none."""
        size = len(self.buffer)
        new = min(size * 2, (self._limit + 2) * records.SIZE)  # one more than `limit`, for another epoch's
        if new <= size:
            return False
        try:
            # zeros that are written have their place on the disk; a hole would be filled when it is touched, or not
            _write(self._descriptor, bytes(new - size), size)
            self.buffer = mmap.mmap(self._descriptor, new)
        except (OSError, ValueError) as error:
            log.warning("the cursor file %s cannot grow (%s): new channels are kept in memory", self._path, error)
            return False
        self._free.extend(range(size, new, records.SIZE))
        return True

    def _oldest(self) -> int | None:
        """The room of the channel that was not asked for the longest, which is forgotten."""
        if not self._old:
            unasked = (stored for stored in self._index.values() if stored.hash not in self._asked)
            self._old = sorted(unasked, key=lambda stored: stored.used, reverse=True)
        while self._old:
            stored = self._old.pop()
            if stored.hash not in self._asked and self._index.get(stored.hash) is stored:
                del self._index[stored.hash]
                records.erase(self.buffer, stored.at)
                return stored.at
        return None

    def _sync(self) -> None:
        try:
            os.fsync(self._descriptor)  # what is mapped is part of the file
        except OSError as error:
            log.warning("%s: %s", self._path, error)

    def _erase(self, stored: Stored) -> None:
        records.erase(self.buffer, stored.at)
        self._free.append(stored.at)

    # ---- opening

    def _check(self) -> None:
        """Begin the file, or put it aside and begin another, if it is not one of ours."""
        start = os.pread(self._descriptor, records.SIZE, 0)
        header = records.header()
        if start == header:
            return
        if header.startswith(start):  # new, or its process was killed at this very place
            _write(self._descriptor, header, 0)
            _sync_directory(os.path.dirname(self._path))
            return
        if records.ANY_VERSION.fullmatch(start):
            raise ForeignVersion(self._path)
        aside = f"{self._path}.damaged"
        log.error("%s is damaged: put aside as %s; its channels start anew", self._path, aside)
        os.replace(self._path, aside)
        os.close(self._descriptor)
        self._descriptor = open_private(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        _write(self._descriptor, header, 0)

    def _map(self) -> mmap.mmap:
        size = os.fstat(self._descriptor).st_size
        whole = max(GROWTH, size - size % records.SIZE)
        if whole > size:
            _write(self._descriptor, bytes(whole - size), size)
        return mmap.mmap(self._descriptor, whole)

    def _load(self) -> None:
        damaged = 0
        doubles: list[Stored] = []
        for at in range(records.SIZE, len(self.buffer) - records.SIZE + 1, records.SIZE):
            stored = records.read_record(self.buffer, at)
            if stored is None:
                damaged += not records.is_free(self.buffer, at)
                self._free.append(at)
                continue
            other = self._index.get(stored.hash)
            if other is None or other.generation < stored.generation:
                self._index[stored.hash] = stored
            if other is not None:
                doubles.append(min(stored, other, key=lambda each: each.generation))
        for stored in doubles:
            self._erase(stored)
        self._generation += max((stored.generation for stored in self._index.values()), default=0)
        if damaged:
            log.warning("%s: %d records are not whole and count no more", self._path, damaged)


class _Lock:
    """The lock of a cursor file, had."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def close(self) -> None:
        with _changing:
            if _owned.get(self._path) == os.getpid():
                del _owned[self._path]
            os.close(self._descriptor)


def open_file(path: str, limit: int) -> CursorFile | None:
    """The file, which is ours from now on; None: somebody else owns it. Raises as `CursorFile`."""
    make_directory(os.path.dirname(path))
    lock = _take_lock(f"{path}.lock")
    if lock is None:
        return None
    try:
        return CursorFile(path, limit, lock)
    except BaseException:
        lock.close()
        raise


def read_file(path: str) -> dict[bytes, Stored]:
    """What the file of another owner holds at this moment. Raises OSError, SettingsError."""
    found: dict[bytes, Stored] = {}
    descriptor = open_private(path, os.O_RDONLY)
    with open(descriptor, "rb") as file:
        data = file.read()
    if data[: records.SIZE] == records.header():
        for at in range(records.SIZE, len(data) - records.SIZE + 1, records.SIZE):
            stored = records.read_record(data, at)
            if stored is not None and (stored.hash not in found or found[stored.hash].generation < stored.generation):
                found[stored.hash] = stored
    return found


def make_directory(path: str) -> None:
    """Make `path` (0700) and what is missing above it, and check it. Raises OSError, SettingsError."""
    if not os.path.lexists(path):
        with contextlib.suppress(FileExistsError):
            os.makedirs(path, 0o700)
    _check_private(path, os.lstat(path), stat.S_ISDIR)


def open_private(path: str, flags: int) -> int:
    """A descriptor of one of our files (0600). Raises OSError, SettingsError."""
    flags |= os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # never wait for a pipe's end
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EACCES):
            _check_private(path, os.lstat(path), stat.S_ISREG)  # says it better
        raise
    try:
        _check_private(path, os.fstat(descriptor), stat.S_ISREG)
    except SettingsError:
        os.close(descriptor)
        raise
    return descriptor


def _check_private(path: str, facts: os.stat_result, is_kind: Callable[[int], bool]) -> None:
    hint = "somebody may have put it there; remove it, or choose another state directory (CHATSDK_STATE_DIR)"
    if not is_kind(facts.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(facts.st_mode) else "not what it should be"
        raise SettingsError(f"{path} is {what}", hint=hint)
    if sys.platform == "win32":
        return
    if facts.st_uid != os.geteuid():
        raise SettingsError(f"{path} belongs to user id {facts.st_uid}, not to {os.geteuid()}", hint=hint)
    if facts.st_mode & _WRITABLE_BY_OTHERS:
        raise SettingsError(f"others may write {path}", hint=f"chmod go-w {path}")


def _take_lock(path: str) -> _Lock | None:
    directory, name = os.path.split(path)
    path = os.path.join(os.path.realpath(directory), name)  # not of the file itself: a link is refused
    with _changing:
        if _owned.get(path) == os.getpid():
            return None
        if sys.platform == "win32":
            raise OSError(errno.ENOLCK, "this system has no POSIX file locks")
        descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return None
            raise
        _owned[path] = os.getpid()
        return _Lock(path, descriptor)


def _sync_directory(path: str) -> None:
    """Make a new name in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, data: bytes, at: int) -> None:
    """All of it, or OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written
