"""Where a user's newest token pair survives a restart: one small file per user in the state directory.

A refresh token is good for one use, so the pair that it bought must be on disk before anybody uses it, or a crash ends
the session. Rules:

* Saved whole or not at all: a temporary file, fsync, rename, fsync of the directory.
* A pair carries the `origin`, a hash of the configured token that the session began with, and is used only for that: a
  fresh token from the operator always wins over what was kept.
* Directory 0700, files 0600, created so. A link, a foreign owner or open permissions are refused (`StorageError`), not
  repaired: somebody else may have been there. Root works as the directory's owner.
* Whoever refreshes holds the user's lock, so that of many threads, clients and processes that share the directory one
  refreshes and the others find its pair. The lock is the kernel's (`lockf`): it ends with its process, and a forked
  child does not inherit it. It belongs to the process, so within one a plain lock stands before it.

Reading, writing and locking raise `StorageError`; the token manager then goes on in memory.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ..core.clock import Clock
from ..core.errors import StorageError
from ..core.tokens import Secret, Token
from .expiry import number
from .sources import MAX_TEXT

VERSION = 1
POLL = 0.02
"""Seconds between two looks at a lock that is taken; a refresh holds it for one exchange."""

_Owner = tuple[int, int]
_in_process: dict[tuple[int, str], threading.Lock] = {}  # by process too: a forked child must not meet a held one


def origin_of(token: Token) -> str:
    """A hash of all of a token's parts: what the operator configured, recognised again without keeping it."""
    digest = hashlib.sha256(b"chatsdk token origin\0")
    for secret in (token.access, token.ws, token.refresh):
        text = b"" if secret is None else secret.reveal().encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(text) + text)
    return digest.hexdigest()


class PairStore:
    """Token pairs under `directory`, which is made when the first one is saved. Opens nothing before that."""

    def __init__(self, directory: str | os.PathLike[str], *, clock: Clock) -> None:
        self._directory = Path(directory)
        self._clock = clock

    def load(self, user: str, origin: str) -> Token | None:
        """The pair kept for `user` that began with `origin`, or None. Raises StorageError."""
        with _translated(self._directory):
            owner = self._owner(create=False)
            data = None if owner is None else _read(self._path(user, "json"), owner)
        try:
            kept = None if data is None else json.loads(data)
        except (ValueError, RecursionError):
            kept = None  # no file of ours can be half written; whatever this is, the configured token stands
        if not isinstance(kept, dict) or (kept.get("version"), kept.get("user")) != (VERSION, user):
            return None
        access, ws, refresh = (_secret(kept.get(name)) for name in ("access", "ws", "refresh"))
        if kept.get("origin") != origin or access is None:
            return None
        return Token(access, ws, refresh, number(kept.get("expires_at")))

    def save(self, user: str, origin: str, token: Token) -> None:
        """Keep the pair; when this returns it is on disk. Hold the lock. Raises StorageError."""
        kept: dict[str, Any] = {"version": VERSION, "user": user, "origin": origin, "expires_at": token.expires_at}
        for name in ("access", "ws", "refresh"):
            secret: Secret | None = getattr(token, name)
            kept[name] = None if secret is None else secret.reveal()
        with _translated(self._directory):
            owner = self._owner(create=True)
            assert owner is not None
            _write(self._path(user, "json"), json.dumps(kept).encode(), owner)
            _sync(self._directory)

    @contextlib.contextmanager
    def lock(self, user: str, deadline: float) -> Iterator[None]:
        """Hold the user's lock. Raises TimeoutError at `deadline` (monotonic), StorageError if there can be no lock."""
        path = self._path(user, "lock")
        key = (os.getpid(), os.path.realpath(path))
        while True:
            # setdefault is one step: of two threads that come at once, both get the same
            mutex = _in_process.setdefault(key, threading.Lock())
            self._poll(partial(mutex.acquire, blocking=False), deadline)
            if _in_process.get(key) is mutex:
                break
            mutex.release()  # whoever had it before put it away: it keeps nobody out any more
        try:
            with _translated(self._directory):
                owner = self._owner(create=True)
                assert owner is not None
                descriptor = _open(path, os.O_RDWR | os.O_CREAT, owner)
            try:
                self._poll(lambda: _take(descriptor), deadline)
                yield
            finally:
                os.close(descriptor)  # which also gives the kernel's lock back
        finally:
            del _in_process[key]  # or there would be one for each user who ever was here
            mutex.release()

    def _poll(self, take: Callable[[], bool], deadline: float) -> None:
        never = threading.Event()
        while not take():
            if self._clock.monotonic() >= deadline:
                raise TimeoutError("another thread or process holds the lock of the token pair")
            self._clock.wait(never, POLL)

    def _path(self, user: str, suffix: str) -> Path:
        name = hashlib.sha256(b"chatsdk token user\0" + user.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self._directory / f"{name}.{suffix}"

    def _owner(self, *, create: bool) -> _Owner | None:
        """Who owns the directory, which is checked; None if there is none and none is to be made."""
        made = False
        if create:
            self._directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._directory, 0o700)
                made = True
        try:
            facts = os.lstat(self._directory)
        except FileNotFoundError:
            return None
        if made and _is_root():
            parent = os.stat(self._directory.parent)
            os.chown(self._directory, parent.st_uid, parent.st_gid, follow_symlinks=False)
            facts = os.lstat(self._directory)
        if not stat.S_ISDIR(facts.st_mode):
            raise StorageError(f"{self._directory} is a link or no directory")
        _check_private(facts, self._directory, facts.st_uid if _is_root() else _own_uid(facts))
        return facts.st_uid, facts.st_gid


def _open(path: Path, flags: int, owner: _Owner) -> int:
    """Open a file of ours without following a link, and check that it is ours."""
    descriptor = os.open(
        path, flags | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0), 0o600
    )
    try:
        if flags & os.O_CREAT and _is_root():
            os.fchown(descriptor, *owner)
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise StorageError(f"{path} is no regular file")
        _check_private(facts, path, owner[0])
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _read(path: Path, owner: _Owner) -> bytes | None:
    try:
        descriptor = _open(path, os.O_RDONLY, owner)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        return file.read(8 * MAX_TEXT)


def _write(path: Path, data: bytes, owner: _Owner) -> None:
    temporary = path.with_suffix(".tmp")  # one name, under the lock: what a crash left behind is found and goes
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = _open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, owner)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _sync(directory: Path) -> None:
    if sys.platform == "win32":  # a directory cannot be opened there
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    if sys.platform == "win32":  # best effort: one process there
        return True
    import fcntl

    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise StorageError(f"the token pair cannot be locked: {error.strerror}") from None
    return True


def _is_root() -> bool:
    return sys.platform != "win32" and os.geteuid() == 0


def _own_uid(facts: os.stat_result) -> int:
    return facts.st_uid if sys.platform == "win32" else os.geteuid()


def _check_private(facts: os.stat_result, path: Path, owner: int) -> None:
    if facts.st_uid != owner:
        raise StorageError(f"{path} belongs to another user (uid {facts.st_uid})")
    if sys.platform != "win32" and facts.st_mode & 0o077:
        raise StorageError(f"{path} can be used by others (mode {stat.S_IMODE(facts.st_mode):o}): chmod go= it")


@contextlib.contextmanager
def _translated(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"token pairs can't be kept in {directory}: {error.strerror or error}") from None


def _secret(value: Any) -> Secret | None:
    return Secret(value) if isinstance(value, str) and value else None
