"""The state directory: who may own it, how its files come to be, and the two files that are not the database.

Rules.
1. Directory 0700, files 0600 from their first moment; a symbolic link, a foreign owner or one that others may write is
   refused. Only our own directory and its files are looked at: what lies above it is the administrator's.
2. `FileLock` is `fcntl.lockf`: it dies with the process, and a forked child does not hold it. It belongs to the whole
   process and is lost when *any* descriptor of the file is closed: nobody else may open that file.
3. The lock is polled, never waited for without end: its holder may be stopped.
4. Polling alone is unfair: who gives the lock back and wants it again at once always finds it free. So who waits
   holds the *turn*, a second lock, which everybody needs for a moment to get the first one: processes alternate
   (measured with four: the longest wait 39 ms instead of 1,600). A waiter may be stopped as well, so after a while
   nobody insists on the turn.
5. A lock excludes only those who lock the same file. Somebody may delete it, or put another in its place: who got the
   lock looks whether the file still has its name, and if not takes the one that has.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from ..core.clock import Clock
from ..core.errors import SettingsError, StorageError

if sys.platform != "win32":
    import fcntl

POLL = 0.00003
TURN_POLL = 0.001
"""Seconds between two looks at a lock that is taken: of the one whose turn it is, for the lock is held for a tenth of a
millisecond; and of all others (measured with 4 and 16 processes on two cores: with 0.5 ms for all, half the puts)."""

PATIENT_AFTER = 0.1
PATIENT_POLL = 0.02
"""After this many seconds the holder is slow or stopped, and looking often is of no use."""

RESERVE = 5 << 20
"""Bytes kept free for draining a full disk: a full write-ahead log (4 MiB), and a little."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

_LOCK, _TURN = 0, 1  # bytes of the file

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def require_locks() -> None:
    """Raises SettingsError where the system has no POSIX file locks."""
    if sys.platform == "win32":
        raise SettingsError(
            "the outbox needs POSIX file locks, which this system does not have",
            hint="run it on Linux or macOS (on Windows: inside WSL), or pass a store of your own",
        )


def make_directory(path: str) -> None:
    """Make `path` (0700) and what is missing above it, and check it. Raises SettingsError, StorageError."""
    try:
        if not os.path.lexists(path):
            parent = os.path.dirname(path)
            if parent and not os.path.isdir(parent):
                os.makedirs(parent, 0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
        facts = os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise StorageError(f"cannot make the state directory {path}: {error.strerror}") from error
        raise SettingsError(
            f"cannot make the state directory {path}: {error.strerror}",
            hint="set CHATSDK_STATE_DIR to a directory that this user may write",
        ) from error
    _check(path, facts, stat.S_ISDIR, "directory", "chmod 700")


def check_file(path: str) -> os.stat_result | None:
    """The facts of one of our files, or None if it does not exist. Raises SettingsError if it cannot be trusted."""
    try:
        facts = os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot look at {path}: {error.strerror}") from error
    _check(path, facts, stat.S_ISREG, "file", "chmod 600")
    return facts


def _check(path: str, facts: os.stat_result, is_kind: Callable[[int], bool], kind: str, remedy: str) -> None:
    if not is_kind(facts.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(facts.st_mode) else f"no {kind}"
        raise SettingsError(
            f"{path} is {what}", hint="somebody may have put it there; remove it, or choose another state directory"
        )
    if facts.st_uid != os.geteuid():
        raise SettingsError(
            f"{path} belongs to user id {facts.st_uid}, not to {os.geteuid()}",
            hint="run as the owner of the state directory, or choose one of your own with CHATSDK_STATE_DIR",
        )
    if facts.st_mode & _WRITABLE_BY_OTHERS:
        raise SettingsError(f"others may write {path}", hint=f"{remedy} {path}")


def open_private(path: str, flags: int = 0) -> int:
    """A descriptor of `path`, which is made (0600) if it is missing. Raises SettingsError, StorageError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    except FileExistsError:
        raise
    except OSError as error:
        check_file(path)  # says it better, where a link or an owner is the reason
        raise StorageError(f"cannot open {path}: {error.strerror}") from error
    try:
        _check(path, os.fstat(descriptor), stat.S_ISREG, "file", "chmod 600")
    except SettingsError:
        os.close(descriptor)
        raise
    return descriptor


def sync_directory(path: str) -> None:
    """Make renames in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, *, shared: bool = False, size: int = 0, start: int = 0) -> bool:
    """Take the lock of an open file (or of `size` bytes from `start`), if nobody else has it."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB, size, start)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True


def unlock(descriptor: int, *, size: int = 0, start: int = 0) -> None:
    """Give back the lock of an open file (or of some bytes of it)."""
    fcntl.lockf(descriptor, fcntl.LOCK_UN, size, start)


class FileLock:
    """One exclusive lock among processes. It knows no threads: who calls it must be alone in this process."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._descriptor: int | None = None
        self._identity: tuple[int, int] | None = None
        self._works = False  # it was had once
        self._held = False  # it may be

    def acquire(self, deadline: float) -> None:
        """Take the lock. Raises StorageError if it is not free by `deadline` (monotonic); it is tried once at least.
        Until it was had once: SettingsError where the file cannot be trusted, or its file system has no locks."""
        self._held = True  # before it is: an interruption may come between any two lines
        try:
            got = self._take(deadline)
            while got and not self._is_in_place():
                self.close()
                got = self._take(deadline)
        except OSError as error:
            self._refuse(error)
        self._works |= got
        if not got:
            raise StorageError(
                f"another process holds {self._path}; nothing was written",
                code="locked",
                hint="look for a process that is stopped or very busy with this state directory; raise lock_timeout",
            )

    def _take(self, deadline: float) -> bool:
        descriptor = self._descriptor
        if descriptor is None:
            descriptor = self._descriptor = self._open()
        return self._try(descriptor) or self._poll(descriptor, deadline)

    def _open(self) -> int:
        try:
            make_directory(os.path.dirname(self._path))  # it may have gone with the file
            descriptor = open_private(self._path)
        except SettingsError as error:
            if not self._works:
                raise
            raise StorageError(error.message, code=error.code, hint=error.hint) from error
        facts = os.fstat(descriptor)
        self._identity = facts.st_dev, facts.st_ino
        return descriptor

    def _is_in_place(self) -> bool:
        try:
            facts = os.lstat(self._path)
        except FileNotFoundError:
            return False
        return (facts.st_dev, facts.st_ino) == self._identity

    def _refuse(self, error: OSError) -> NoReturn:
        text = f"cannot lock {self._path}: {error.strerror}"
        if error.errno in _NO_LOCKS and not self._works:
            raise SettingsError(
                f"{text}; its file system has no locks",
                code="no_locks",
                hint="put the state directory on a local disk (CHATSDK_STATE_DIR)",
            ) from error
        raise StorageError(text, hint="see the disk's health and the system's log") from error

    @staticmethod
    def _try(descriptor: int) -> bool:
        """Lock and turn, if both are free; then the turn is for who waits."""
        if not try_lock(descriptor, size=2):
            return False
        unlock(descriptor, size=1, start=_TURN)
        return True

    def _poll(self, descriptor: int, deadline: float) -> bool:
        started = self._clock.monotonic()
        my_turn = False
        never = threading.Event()  # not one for all: a forked child would inherit its lock, perhaps held
        try:
            while (now := self._clock.monotonic()) < deadline:
                patient = now - started >= PATIENT_AFTER
                my_turn = my_turn or try_lock(descriptor, size=1, start=_TURN)
                if (my_turn or patient) and try_lock(descriptor, size=1, start=_LOCK):
                    return True
                pause = PATIENT_POLL if patient else POLL if my_turn else TURN_POLL
                self._clock.wait(never, min(pause, deadline - now))
            return False
        finally:
            if my_turn:
                unlock(descriptor, size=1, start=_TURN)

    def release(self) -> None:
        """Give the lock back; harmless if it is not held."""
        if self._held and self._descriptor is not None:
            try:
                unlock(self._descriptor)
                self._held = False
            except OSError:
                self.close()

    def close(self) -> None:
        """Forget the file, and with it the lock (in a forked child: without one, for the parent holds it)."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def free_room(path: str) -> int:
    """Bytes that this user may still write on the disk of `path`; 0 if that cannot be told."""
    try:
        facts = os.statvfs(path)
    except OSError:
        return 0
    return facts.f_bavail * facts.f_frsize


class Reserve:
    """A file that takes up room, so that there is some when the disk is full: rows that go out need a little room too.

    It is given up when an operation that drains meets a full disk; until it could be made again nothing is accepted.
    """

    def __init__(self, path: str, size: int = RESERVE) -> None:
        self._path = path
        self._size = size

    def exists(self) -> bool:
        """The room is there."""
        return os.path.lexists(self._path)

    def make(self) -> bool:
        """Take the room, if there is that much; True if the reserve stands."""
        if self.exists():
            return True
        temporary = f"{self._path}.new"
        try:
            descriptor = open_private(temporary)
            try:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(descriptor, 0, self._size)
                else:
                    os.write(descriptor, bytes(self._size))
            finally:
                os.close(descriptor)
            os.replace(temporary, self._path)
        except (OSError, StorageError):
            self._unlink(temporary)
            return False
        return True

    def spend(self) -> bool:
        """Give the room up; True if there was some."""
        return self._unlink(self._path)

    @staticmethod
    def _unlink(path: str) -> bool:
        try:
            os.unlink(path)
        except OSError:
            return False
        return True
