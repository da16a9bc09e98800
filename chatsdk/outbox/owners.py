"""Which process owns a lane, and whether it still lives.

An owner is one process that holds the kernel's lock on its file `owners/<id>`. The kernel drops the lock when the
process ends, however it ends, so "dead" is known at once and for certain: the lock can be had, or the file is gone.
A lease time would be either too short for a stopped process or too long for a dead one.

Rules.
1. A process never opens its own file a second time: closing any descriptor of it would drop the lock.
2. `lockf`, not `flock`: a forked child would go on holding a `flock`.
3. The file is made when the first lane is claimed, not before: who only sends leaves no trace.
4. When in doubt (no descriptors left, no permission) an owner lives: its lanes wait, nothing is sent twice.
5. Whose file was deleted is dead for all others, and so becomes somebody new at the next claim.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import threading

from ..core.errors import StorageError
from .files import make_directory, open_private, try_lock

_ID = re.compile(r"[0-9]+-[0-9a-f]{16}")


class Owners:
    """The owners of one state directory, and this process among them."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._inode = 0
        self.me: str | None = None
        """This process's id, once it has one."""

    def claim_id(self) -> str:
        """This process's id; its file is made and locked at the first call. Raises SettingsError, StorageError."""
        me = self.me
        if me is None or not self._is_in_place(me):
            with self._lock:
                me = self.me
                if me is None or not self._is_in_place(me):
                    me = self._new_id()
        return me

    def _is_in_place(self, me: str) -> bool:
        try:
            return os.lstat(os.path.join(self._directory, me)).st_ino == self._inode
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def _new_id(self) -> str:
        make_directory(self._directory)
        old, self._descriptor, self.me = self._descriptor, None, None
        if old is not None:
            os.close(old)
        while True:
            name = f"{os.getpid()}-{secrets.token_hex(8)}"
            try:
                descriptor = open_private(os.path.join(self._directory, name), os.O_EXCL)
            except FileExistsError:
                continue
            try:
                # a sweep of another process may have taken the new file for a dead owner's
                mine = try_lock(descriptor) and (facts := os.fstat(descriptor)).st_nlink == 1
            except OSError as error:
                os.close(descriptor)
                raise StorageError(f"cannot lock {name} in {self._directory}: {error.strerror}") from error
            if mine:
                self._descriptor, self._inode, self.me = descriptor, facts.st_ino, name
                return name
            os.close(descriptor)

    def is_alive(self, owner: str) -> bool:
        """True if the process behind `owner` lives, or if that cannot be found out."""
        if owner == self.me:
            return True
        if not _ID.fullmatch(owner):
            return False  # nobody that we know calls itself so
        try:
            descriptor = os.open(os.path.join(self._directory, owner), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            return error.errno != errno.ELOOP  # a link: the owner's own file is gone
        try:
            return not try_lock(descriptor, shared=True)  # shared: two that ask at a time must not see each other
        except OSError:
            return True
        finally:
            os.close(descriptor)

    def sweep(self) -> None:
        """Remove the files of dead owners."""
        with self._lock:  # a file that is being made must not be opened twice
            self._sweep()

    def _sweep(self) -> None:
        try:
            names = os.listdir(self._directory)
        except OSError:
            return
        for name in names:
            if name == self.me or not _ID.fullmatch(name):
                continue
            path = os.path.join(self._directory, name)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                if try_lock(descriptor):
                    os.unlink(path)
            except OSError:
                continue  # it is somebody's, or gone already
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Stop being an owner. Release the lanes first."""
        me, descriptor = self.me, self._descriptor
        self.me = self._descriptor = None
        if me is not None and descriptor is not None:
            try:
                os.unlink(os.path.join(self._directory, me))
            except OSError:
                pass  # it is unlocked in a moment, and the next sweep removes it
            finally:
                os.close(descriptor)

    def forget(self) -> None:
        """In a forked child: the id and its lock are the parent's."""
        self._lock = threading.Lock()
        descriptor, self._descriptor, self.me = self._descriptor, None, None
        if descriptor is not None:
            os.close(descriptor)
