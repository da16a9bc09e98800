"""Up to where each channel was handled, kept across restarts and kill -9.

Rules.
1. A cursor is set after the handler returned. What is stored is true at any moment (see `cursor_records`): a process
   that is killed, or a machine that loses power, repeats events and never skips one.
2. One process owns the file, by a kernel lock that dies with it (`lockf` on a file beside it, which nobody else
   opens). Others begin where the owner stands at that moment, go on in memory, and say so once. At each channel's
   first question, and by `take_over`, they try again: of two bots that overlap in a deployment the new one gets the
   file, with the positions that it has itself. A second client in the owner's process is such another one.
3. The file grows by zeros that are written before they are used: to meet a full disk in a mapped hole would kill the
   process. Where it cannot grow, new channels are kept in memory. It holds `limit` channels; then the one that was not
   asked for the longest makes room. A new record is on the disk before `set` returns, for a channel without one begins
   at its end; that is once a channel and epoch, and takes as long as the disk does. Later numbers may lag.
4. A damaged file is put aside, and another one started; one of a newer version is left alone. A link, a foreign owner
   or a file that others may write is refused. Any other trouble with the disk: in memory, said once.
5. Without a path everything is in memory.
6. A forked child does not own the file. That is found out by pid in `get`, so who begins there asks first.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from time import monotonic  # how old a look at another's file is, in real time
from typing import NamedTuple

from ..core.errors import SettingsError
from ..resilience.process_lock import ProcessLock
from . import cursor_records as records
from .cursor_file import CursorFile, ForeignVersion, open_file, read_file

LIMIT = 100_000
"""Channels in a file (12.8 MB)."""

STALE = 1.0
"""Seconds for which a look at another's file is good enough."""

log = logging.getLogger("chatsdk.realtime")


class Cursor(NamedTuple):
    """Everything up to here was handled: by the messages' `seq`, and by `offset` in the stream's `epoch`; None: not
    known."""

    seq: int | None
    offset: int | None
    epoch: str | None


class _Place(NamedTuple):
    """Where the numbers of a channel are. Replaced, never changed: who sets one holds a whole one."""

    buffer: records.Buffer
    words: memoryview  # of `buffer`
    at: int
    epoch: str | None


class Cursors:
    """`get` and `set`, by a key of the caller's. Thread-safe, as long as each key is set by one thread at a time.

    Nothing is opened before the first question.
    """

    def __init__(self, path: str | os.PathLike[str] | None, *, limit: int = LIMIT) -> None:
        self._path = None if path is None else os.path.abspath(path)
        self._limit = limit
        self._lock = ProcessLock()
        self._pid = 0  # the process in which it was opened
        self._file: CursorFile | None = None
        self._places: dict[str, _Place] = {}
        self._others: dict[bytes, records.Stored] = {}
        self._looked_at_others = float("-inf")
        self._said: set[str] = set()
        self._closed = False

    def get(self, key: str) -> Cursor | None:
        """Where `key` stands; None: nothing is known of it. Raises SettingsError where the file cannot be trusted."""
        with self._lock:
            self._enter_process()
            place = self._places.get(key) or self._ask(key)
            stored = place and records.read_record(place.buffer, place.at)
        if not stored or (stored.seq is None and stored.offset is None):
            return None
        return Cursor(stored.seq, stored.offset, stored.epoch)

    def set(self, key: str, seq: int | None, offset: int | None, epoch: str | None) -> None:
        """`key` was handled up to here; None: not known. Of numbers that do not fit into 8 bytes, and of an epoch that
        does not fit into a record, nothing is kept. Never raises.

        About 0.25 us; but a channel's first position in an epoch waits for the disk (1 to 20 ms).
        """
        place = self._places.get(key)
        try:
            if place is None or place.epoch != epoch:
                if not records.fits(epoch):
                    offset = epoch = None
                if place is None or place.epoch != epoch:
                    self._replace(key, epoch, seq, offset)
                    return
            records.write_numbers(place.words, place.at, seq, offset)
        except ValueError:
            self._say("number", "a position that makes no sense was not kept")

    def take_over(self) -> bool:
        """Own the file from now on, if nobody else does (any more), with the positions that were reached meanwhile.
        True if it is ours. Raises SettingsError where it cannot be trusted."""
        with self._lock:
            self._enter_process()
            return self._own()

    @property
    def owned(self) -> bool:
        """What is set goes to the file."""
        return self._file is not None and self._pid == os.getpid()

    def close(self) -> None:
        """Let others have the file. What is set from now on is kept in memory."""
        with self._lock:
            self._closed = True
            self._leave_file()

    # ---- with the lock held

    def _enter_process(self) -> None:
        if self._pid != os.getpid():
            self._leave_file()  # it is the parent's
            self._own()
            self._pid = os.getpid()

    def _ask(self, key: str) -> _Place | None:
        """The first question for a channel."""
        hash = records.hash_of(key)
        if self._own():
            assert self._file is not None
            stored = self._file.find(hash)
            if stored is not None:
                self._places[key] = _place(self._file.buffer, stored.at, stored.epoch)
        else:
            stored = self._look_at_others().get(hash)
            if stored is not None:
                self._places[key] = _private(hash, stored.epoch, stored.seq, stored.offset)
        return self._places.get(key)

    def _replace(self, key: str, epoch: str | None, seq: int | None, offset: int | None) -> None:
        """A channel's first position, or its first one in another epoch."""
        with self._lock:
            with self._forgiving():
                self._enter_process()
            self._places[key] = self._add(records.hash_of(key), epoch, seq, offset)

    def _add(self, hash: bytes, epoch: str | None, seq: int | None, offset: int | None) -> _Place:
        place = _private(hash, epoch, seq, offset)  # first, for it raises what must not happen in the file
        if self._file is not None:
            at = self._file.add(hash, epoch, seq, offset)
            if at is not None:
                return _place(self._file.buffer, at, epoch)
            self._say("full", f"there is no room in {self._path}: some cursors are kept in memory only")
        return place

    def _own(self) -> bool:
        """Open the file, unless it is open; False if it cannot be had."""
        if self._file is not None:
            return True
        if self._path is None or self._closed:
            return False
        try:
            self._file = open_file(self._path, self._limit)
        except ForeignVersion:
            self._say("version", f"{self._path} was written by a newer version: cursors are kept in memory only")
        except OSError as error:
            self._say(
                "disk", f"{self._path} cannot be used ({error.strerror or error}): cursors are kept in memory only"
            )
        else:
            if self._file is None:
                self._say("other", f"{self._path} is another's: until that one ends, cursors are kept in memory")
        if self._file is None:
            return False
        for key, place in self._places.items():
            stored = records.read_record(place.buffer, place.at)
            if stored is not None:
                self._places[key] = self._add(stored.hash, stored.epoch, stored.seq, stored.offset)
        return True

    def _leave_file(self) -> None:
        """Go on in memory with what is known."""
        file, self._file = self._file, None
        for key, place in self._places.items():
            stored = records.read_record(place.buffer, place.at)
            if stored is not None:
                self._places[key] = _private(stored.hash, stored.epoch, stored.seq, stored.offset)
        if file is not None:
            file.close()

    def _look_at_others(self) -> dict[bytes, records.Stored]:
        if self._path is not None and monotonic() - self._looked_at_others > STALE:
            self._looked_at_others = monotonic()
            try:
                self._others = read_file(self._path)
            except OSError:
                self._others = {}  # why was said when it could not be opened
        return self._others

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except SettingsError as error:
            self._say("trust", f"{error.message}: cursors are kept in memory only")

    def _say(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning("%s", text)


def _place(buffer: records.Buffer, at: int, epoch: str | None) -> _Place:
    return _Place(buffer, records.words_of(buffer), at, epoch)


def _private(hash: bytes, epoch: str | None, seq: int | None, offset: int | None) -> _Place:
    buffer = bytearray(records.SIZE)
    records.write_record(buffer, 0, hash, 1, epoch, seq, offset)
    return _place(buffer, 0, epoch)
