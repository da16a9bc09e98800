"""Waking other processes that share an outbox: a touch of the file `wake`, which they hear by inotify.

Theory. Who delivers looks once a second for what others have put, and who waits looks for what others have delivered.
That alone is right, and slow. A signal only cuts such a wait short: it carries nothing, and may be missed or come
twice. So nothing here raises, and where there is no inotify, or no more of it, the looks remain.

There are two signals, so that nobody is woken for what is not his:

    work    the file's time is set (IN_ATTRIB), for processes that deliver
    result  its one byte is written again (IN_MODIFY), for processes that wait; and only if another one waits, which
            says so by a shared lock on the file: the kernel takes it away with the process

Rules.
1. Who listens makes the file. Where there is none, nobody listens, and a signal is one system call.
2. A process opens it once: closing any descriptor of it would drop the lock. What is written is written with the
   mutex held, or another file might have that descriptor by then.
3. One daemon thread a process and directory, which sleeps in the kernel while nobody signals, and for PAUSE after a
   signal: a busy process does not keep idle ones busy. It ends when nobody here listens, and when the file is gone.
   Then the next `listen` begins again; a process that delivers calls that once a second while it is idle.
4. In a forked child nothing of the parent's is used but to close it: to take back a watch would be to take the
   parent's.
5. A fork waits while the library is being imported: it would stay half imported in the child for ever.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from time import monotonic  # threads wait in real time, whatever clock is injected
from typing import Any

from ..core.errors import ChatError
from ..resilience.import_lock import ImportLock
from ..resilience.process_lock import ProcessLock
from .files import open_private, try_lock, unlock

if sys.platform != "win32":
    import fcntl

NAME = "wake"

PAUSE = 0.05
"""Seconds between two signals that are heard, at least."""

TRY_AGAIN = 30.0
"""Seconds until inotify is tried again where it failed: it may have been out of descriptors."""

_MODIFY, _ATTRIB, _DELETED, _MOVED, _UNMOUNTED, _IGNORED = 0x2, 0x4, 0x400, 0x800, 0x2000, 0x8000  # <sys/inotify.h>
_DONT_FOLLOW = 0x02000000
_LOST = _DELETED | _MOVED | _UNMOUNTED | _IGNORED

_FLOCK = "hhqqi"  # type, whence, start, length, process: Linux's struct flock

logger = logging.getLogger("chatsdk.outbox")

_importing = ImportLock()


class WakeFile:
    """The signals of one state directory; of none (a store that is no file), and where there is no inotify, they reach
    nobody. Thread-safe."""

    def __init__(self, directory: str | None) -> None:
        self._path = (
            None if directory is None or not sys.platform.startswith("linux") else os.path.join(directory, NAME)
        )
        self._process = _Process(self._path or "")

    # ---- to others

    def work(self) -> None:
        """There is something to deliver. For who does not deliver it himself."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.utime(self._path, follow_symlinks=False)

    def result(self) -> None:
        """A message met its fate: for who waits for one in another process, if anybody does."""
        if self._path is not None:
            with contextlib.suppress(OSError, ChatError):
                self._here().result()

    # ---- from others

    def listen(self, look: Callable[[], object]) -> None:
        """From now on `look` is called, in a thread of ours, when another process said `work`, and once where we begin
        to hear. Call it again now and then: it sees to it that we still hear."""
        if self._path is not None:
            self._here().listen(look)

    def leave(self, look: Callable[[], object], timeout: float) -> None:
        """`look` is not called any more. Waits at most `timeout` seconds for a thread that is not needed any more."""
        if self._path is not None:
            self._here().leave(look, timeout)

    @contextlib.contextmanager
    def waiting(self, look: Callable[[], object]) -> Iterator[None]:
        """While inside, `look` is called when another process said `result`, and once where we begin to hear. What came
        before is not told again: look when inside."""
        if self._path is None:
            yield
            return
        here = self._here()
        here.begin_waiting(look)
        try:
            yield
        finally:
            here.end_waiting(look)

    # ---- the end, and forks

    def close(self) -> None:
        """Nobody here listens any more."""
        self._here().close()

    def forget(self) -> None:
        """In a forked child: descriptors and thread are the parent's."""
        self._here()

    def _here(self) -> _Process:
        if self._process.pid != os.getpid():
            with _afresh:
                old = self._process
                if old.pid != os.getpid():
                    old.abandon()  # first: to close a file drops this process's locks on it
                    self._process = _Process(self._path or "")
        return self._process


class _Process:
    """What of it belongs to one process."""

    def __init__(self, path: str) -> None:
        self.pid = os.getpid()
        self._path = path
        self._lock = threading.Lock()
        self._file: int | None = None
        self._identity: tuple[int, int] | None = None
        self._workers: set[Callable[[], object]] = set()
        self._waiters: Counter[Callable[[], object]] = Counter()
        self._ear: _Ear | None = None
        self._not_before = 0.0
        self._closed = False

    # ---- to others

    def result(self) -> None:
        facts = os.stat(self._path, follow_symlinks=False)
        with self._lock:
            if self._closed:  # by a handler, in the middle of delivery
                return
            file = self._open(facts)
            if _is_waited_for(file):
                os.pwrite(file, b"\0", 0)

    # ---- from others

    def listen(self, look: Callable[[], object]) -> None:
        with self._lock:
            self._workers.add(look)
            self._see_to_it()

    def leave(self, look: Callable[[], object], timeout: float) -> None:
        with self._lock:
            self._workers.discard(look)
            ear = self._ear
            self._see_to_it()
        if ear is not None and ear is not self._ear:
            ear.join(timeout)

    def begin_waiting(self, look: Callable[[], object]) -> None:
        with self._lock:
            self._waiters[look] += 1
            if self._waiters.total() == 1:
                with contextlib.suppress(OSError, ChatError):
                    try_lock(self._open(), shared=True, size=1)
                self._see_to_it()

    def end_waiting(self, look: Callable[[], object]) -> None:
        with self._lock:
            self._waiters[look] -= 1
            self._waiters += Counter()  # without those that are 0
            if not self._waiters:
                if self._file is not None:
                    with contextlib.suppress(OSError):
                        unlock(self._file, size=1)
                self._see_to_it()

    def _see_to_it(self) -> None:
        """With the lock held: have one thread that hears what is wanted, or none."""
        wanted = (_ATTRIB if self._workers else 0) | (_MODIFY if self._waiters else 0)
        ear = self._ear
        if ear is not None and (not wanted or ear.ended or ear.file != self._identity or not self._is_in_place()):
            ear.end()
            if ear.failed:
                self._not_before = monotonic() + TRY_AGAIN
            ear = self._ear = None
        if not wanted:
            return
        if ear is not None:
            ear.hear(wanted)
        elif monotonic() >= self._not_before:
            try:
                self._open()
                ear = _Ear(self._path, self._identity, wanted, self._heard)
                ear.start()
                self._ear = ear
            except (OSError, ChatError, RuntimeError) as error:  # the last one: no thread can be had
                logger.debug("what other processes do is looked for once a second only: %s", error)
                self._not_before = monotonic() + TRY_AGAIN

    def _heard(self, mask: int) -> None:
        with self._lock:
            looks = (*(self._workers if mask & _ATTRIB else ()), *(self._waiters if mask & _MODIFY else ()))
        for look in looks:
            look()

    # ---- the file

    def _open(self, facts: os.stat_result | None = None) -> int:
        """With the lock held: the descriptor of the file that has the name now; `facts`: of that file."""
        if self._file is not None and self._is_in_place(facts):
            return self._file
        file = open_private(self._path)
        self._close_file()  # after that: as long as the old one is open no other file is mistaken for it
        self._file = file
        facts = os.fstat(file)
        self._identity = facts.st_dev, facts.st_ino
        if facts.st_size == 0:
            os.pwrite(file, b"\0", 0)
        if self._waiters:
            try_lock(file, shared=True, size=1)
        return file

    def _is_in_place(self, facts: os.stat_result | None = None) -> bool:
        try:
            facts = facts or os.stat(self._path, follow_symlinks=False)
        except OSError:
            return False
        return (facts.st_dev, facts.st_ino) == self._identity

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    # ---- the end

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._workers.clear()
            self._waiters.clear()
            self._see_to_it()
            self._close_file()

    def abandon(self) -> None:
        """In a forked child, where the lock may be held by nobody."""
        self._close_file()
        if self._ear is not None:
            self._ear.abandon()


class _Ear:
    """One watch of the file and the thread that reads what it says. Once ended, it stays so."""

    def __init__(self, path: str, file: tuple[int, int] | None, mask: int, heard: Callable[[int], None]) -> None:
        self.file = file
        """Which file it hears: device and inode of what has the name."""
        self._path = path
        self._mask = mask
        self._heard = heard
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._inotify: Any = None
        self._watch = 0
        self.failed = False
        """It ended because there is no inotify for us."""
        self._thread = threading.Thread(target=self._run, name="chatsdk-outbox-wake", daemon=True)

    def start(self) -> None:
        if not threading.main_thread().is_alive():
            raise RuntimeError("the interpreter is shutting down")
        self._thread.start()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def hear(self, mask: int) -> None:
        """Hear these events, and no others."""
        with self._lock:
            if mask != self._mask:
                self._mask = mask
                if self._inotify is not None:
                    with contextlib.suppress(OSError):
                        self._add_watch()

    def _add_watch(self) -> None:
        self._watch = self._inotify.add_watch(self._path, self._mask | _DELETED | _MOVED | _DONT_FOLLOW)

    def end(self) -> None:
        """Let the thread end: to lose its watch is an event too."""
        with self._lock:
            if not self._ended.is_set():
                self._ended.set()
                if self._inotify is not None:
                    with contextlib.suppress(OSError):
                        self._inotify.rm_watch(self._watch)

    def join(self, timeout: float) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def abandon(self) -> None:
        inotify = self._inotify
        if inotify is not None:
            inotify.close()

    def _run(self) -> None:
        try:
            self._begin()
            self._heard(self._mask)  # what came before we could hear
            while not self._ended.is_set():
                told = 0
                for event in self._inotify.read():
                    told |= event.mask
                if self._ended.is_set() or told & _LOST:
                    return
                self._heard(told)
                self._ended.wait(PAUSE)
        except (ImportError, OSError) as error:
            self.failed = True
            logger.info("no inotify (%s): what other processes do is looked for once a second", error)
        except Exception:
            logger.exception("listening to other processes ended unexpectedly; it begins again")
        finally:
            with self._lock:
                self._ended.set()
                if self._inotify is not None:
                    self._inotify.close()

    def _begin(self) -> None:
        make = _import()
        with self._lock:
            if not self._ended.is_set():
                self._inotify = make()
                self._add_watch()


def _is_waited_for(file: int) -> bool:
    """Another process has a lock on the file. Asking takes none, and does not see our own."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
    found: int = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked))[0]
    return found != fcntl.F_UNLCK


def _import() -> Callable[[], Any]:
    """The library, imported in the thread that needs it: ctypes takes 10 ms."""
    with _importing:
        import ctypes

        import inotify_simple

        if getattr(inotify_simple, "_libc", 0) is None:
            # what it comes to by itself, but after it has run ldconfig to find what is loaded already
            inotify_simple._libc = ctypes.CDLL(None, use_errno=True)
        make: Callable[[], Any] = inotify_simple.INotify
        return make


_afresh = ProcessLock()
