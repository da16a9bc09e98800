"""The outbox on disk: `core.store.OutboxStore` over one SQLite file, shared by threads and processes.

Here are the verbs of an outbox. Each change is one operation of the group commit, which writes under the file
lock; each query reads what is committed, on another connection, and never waits for a writer.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from ..core.clock import Clock
from ..core.errors import OutboxFullError, SettingsError, StorageError
from ..core.events import Event, OutboxQuarantined
from ..core.store import Claim, Entry, Lane, LaneStatus, Park, Put, Row, Selection, Stats
from ..resilience.deadline import clamp
from ..resilience.process_lock import ProcessLock
from . import files, forks, lanes, rows, schema, trouble
from .database import Database
from .group_commit import GroupCommit, Transaction
from .oldest import Oldest
from .owners import Owners
from .queue import OutboxQueue
from .wake import WakeFile

T = TypeVar("T")

logger = logging.getLogger("chatsdk.outbox")

PURGE_EVERY = 256
"""Results between two looks for what may be forgotten."""

LOOK_FOR_DEAD = 0.2
"""Seconds between two looks whether other owners live, while there is other work."""

PENDING_WAITS = 0.02
"""Seconds that `pending` waits for another reader: a query takes a hundredth of that, a fork holds it for longer."""

IDS_AT_ONCE = 200
"""Rows retried or discarded in one transaction."""

_OLDEST_SQLITE = (3, 38, 0)  # RETURNING, json_each


class SQLiteStore:
    """See `core.store.OutboxStore` for the verbs.

    directory     the state directory; made (0700) if it is missing
    lock_timeout  seconds to wait for other processes' writing before a call gives up with StorageError
    max_pending   rows that may wait; max_bytes: stored bytes that waiting and dead rows may take
    emit          told of `OutboxQuarantined`

    A process opens a directory once; `shared.open_store` sees to that. Raises SettingsError or StorageError.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        clock: Clock,
        lock_timeout: float = 2.0,
        max_pending: int = 1_000_000,
        max_bytes: int = 1 << 30,
        emit: Callable[[Event], None] | None = None,
    ) -> None:
        files.require_locks()
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise SettingsError(
                f"SQLite {sqlite3.sqlite_version} is too old for the outbox",
                hint="use a Python that comes with SQLite 3.38 or later",
            )
        self.directory = os.path.realpath(os.path.dirname(os.path.abspath(directory)))
        self.directory = os.path.join(self.directory, os.path.basename(os.path.abspath(directory)))
        self.wake_file = WakeFile(self.directory)
        self.listeners: list[Callable[[Event], None]] = [] if emit is None else [emit]
        self._clock = clock
        self._lock_timeout = lock_timeout
        self._room = rows.Room(max_pending, max_bytes)
        self._owners = Owners(os.path.join(self.directory, "owners"))
        self._database = Database(self.directory, self._connect, clock)
        self._file_lock = files.FileLock(os.path.join(self.directory, "write.lock"), clock)
        self._commit = self._new_commit()
        self._pid = os.getpid()
        self._closed = False
        self._held: object | None = None
        self._still = False
        self._finished = PURGE_EVERY - 1  # a process that finishes little forgets something too
        self._looked_for_dead = 0.0
        self._parked_first = False
        self._claims = itertools.count(1)
        self._orphans: list[tuple[int, list[Claim]]] = []
        self._oldest = Oldest()
        forks.enter(self)
        try:
            files.make_directory(self.directory)
            for name in ("write.lock", "reserve", "wake"):
                files.check_file(os.path.join(self.directory, name))
            self._read(_nothing)
        except BaseException:
            forks.leave(self)
            self._database.close()
            self._file_lock.close()
            raise

    def _connect(self, file: str, new: bool) -> OutboxQueue:
        return OutboxQueue(self.directory, file, new=new, timeout=self._lock_timeout)

    def _new_commit(self) -> GroupCommit:
        return GroupCommit(self._database, self._file_lock, self._clock, self._lock_timeout)

    # ---- in

    def put(self, entry: Entry) -> Put:
        """Make one message durable. Raises KeyReusedError, OutboxFullError, InvalidMessage, StorageError."""
        new = schema.encode(entry)
        reserve = self._database.reserve

        def work(tx: Transaction) -> tuple[Row, bool, rows.LaneFacts | None]:
            if not reserve.exists() and not reserve.make() and self._free(tx) < files.RESERVE:
                raise OutboxFullError(
                    "the disk is nearly full; what room is left is kept for messages on their way out",
                    hint=f"free at least {files.RESERVE >> 20} MiB on the disk of {self.directory}",
                )
            return rows.put(tx, new, self._room)

        try:
            row, created, lane = self._write(work, drains=False, patience=clamp(self._lock_timeout))
        except StorageError as error:
            if error.code == "disk_full":
                raise OutboxFullError(error.message, hint=error.hint) from error
            raise
        return Put(row, created, lanes.as_status(lane, self._owners.is_alive))

    def _free(self, tx: Transaction) -> int:
        """Room for rows, in the file or beside it. SQLite never gives back what the file has."""
        return rows.free_inside(tx) + files.free_room(self.directory)

    # ---- out

    def claim(
        self,
        now: float,
        *,
        limit: int = 25,
        lane: Lane | None = None,
        users: Collection[str] | None = None,
        skip_users: Collection[str] = (),
    ) -> Claim | None:
        """Take a lane that is due."""
        who = lanes.Who(users, skip_users)
        if lane is None and not self._orphans:
            due = self._next_due(now, who)
            if due is None or due > now:
                return None  # the lock is for those who have something to do
        me, number, orphans = self._owners.claim_id(), next(self._claims), tuple(self._orphans)
        claimed: list[Claim] = []

        def attempt(tx: Transaction) -> Claim | None:
            return lanes.claim(tx, me, number, now, limit, lane, who, self._parked_first)

        def work(tx: Transaction) -> Claim | None:
            for orphan, claims in orphans:
                for each in claims:
                    lanes.give_back_claim(tx, me, each.lane, orphan)
            looked = self._time_to_look_for_dead()
            if looked:
                lanes.take_from_the_dead(tx, me, self._owners.is_alive)
            found = attempt(tx)
            if found is None and not looked and lanes.take_from_the_dead(tx, me, self._owners.is_alive):
                found = attempt(tx)
            claimed[:] = [] if found is None else [found]
            return found

        try:
            found = self._write(work)
        except BaseException as error:
            if claimed or not isinstance(error, Exception):
                # Ctrl-C, or a disk that failed at the end: what it got, if anything, the next claim gives back
                self._orphans.append((number, claimed))
            raise
        self._orphans = [each for each in self._orphans if each not in orphans]
        self._parked_first = not self._parked_first  # neither kind starves the other
        return found

    def finish(
        self,
        lane: Lane,
        row: int,
        result: Mapping[str, Any] | None,
        now: float,
        *,
        attempts: int = 1,
        more: int = 0,
    ) -> Sequence[Row]:
        """The row was delivered."""
        text = schema.optional_json(result)
        self._finished += 1
        purge = self._finished % PURGE_EVERY == 0

        def work(tx: Transaction) -> Sequence[Row]:
            following = rows.finish(tx, self._owners.me, lane, row, text, now, attempts, more)
            if purge or not self._database.reserve.exists():
                rows.purge(tx, now, self._results_kept())
            return following

        return self._write(work)

    def bury(
        self,
        lane: Lane,
        row: int,
        reason: str,
        error: Mapping[str, Any] | None,
        now: float,
        *,
        attempts: int = 0,
        more: int = 0,
    ) -> Sequence[Row]:
        """The row is a dead letter."""
        text = schema.optional_json(error)
        return self._write(lambda tx: rows.bury(tx, self._owners.me, lane, row, reason, text, now, attempts, more))

    def park(self, lane: Lane, row: int | None, park: Park) -> None:
        """The lane waits."""
        now = self._clock.time()
        self._write(lambda tx: rows.park(tx, self._owners.me, lane, row, park, now))

    def release(self, lane: Lane) -> None:
        """Give the lane back; nothing happens if it is not ours."""

        def work(tx: Transaction) -> None:
            found = lanes.status(tx, lane)
            if found is not None and found[0] is not None and found[0] == self._owners.me:
                lanes.give_back(tx, lane)

        self._write(work)

    def wake(self, *, user: str | None = None, lane: Lane | None = None) -> int:
        """Let parked lanes be tried at once."""
        if not self._read(lambda connection: lanes.any_to_wake(connection, user, lane)):
            return 0
        return self._write(lambda tx: lanes.wake(tx, user, lane))

    # ---- by hand

    def retry(self, ids: Collection[int], now: float, ttl: float) -> int:
        """Dead letters go out again."""
        return self._in_portions(ids, lambda tx, some: rows.retry(tx, some, now, ttl))

    def discard(self, ids: Collection[int], now: float) -> int:
        """Give rows up."""

        def work(tx: Transaction, some: Sequence[int]) -> int:
            lanes.take_from_the_dead(tx, self._owners.me, self._owners.is_alive)
            return rows.discard(tx, some)

        return self._in_portions(ids, work)

    def _in_portions(self, ids: Collection[int], work: Callable[[Transaction, Sequence[int]], int]) -> int:
        ordered = sorted(set(ids))
        count = 0
        for start in range(0, len(ordered), IDS_AT_ONCE):
            some = ordered[start : start + IDS_AT_ONCE]
            count += self._write(lambda tx, some=some: work(tx, some), patience=clamp(self._lock_timeout))  # type: ignore[misc]
        return count

    # ---- looking

    def get(self, *, id: int | None = None, key: str | None = None) -> Row | None:
        """One row in any state."""
        return self._read(lambda connection: rows.get(connection, id, key))

    def list(self, selection: Selection) -> Sequence[Row]:
        """Rows by id, ascending."""
        return self._read(lambda connection: rows.select(connection, selection))

    def lane_status(self, lane: Lane) -> LaneStatus:
        """What is known of a lane."""
        return lanes.as_status(self._read(lambda connection: lanes.status(connection, lane)), self._owners.is_alive)

    def next_due(
        self, now: float, *, users: Collection[str] | None = None, skip_users: Collection[str] = ()
    ) -> float | None:
        """When the next lane that no living process owns may be tried."""
        return now if self._orphans else self._next_due(now, lanes.Who(users, skip_users))

    def _next_due(self, now: float, who: lanes.Who) -> float | None:
        def query(connection: sqlite3.Connection) -> float | None:
            def is_dead() -> bool:
                return any(
                    not self._owners.is_alive(owner) and lanes.owned_by(connection, owner, who)
                    for owner in lanes.owners(connection, self._owners.me)
                )

            return lanes.next_due(connection, now, who, is_dead)

        return self._read(query)

    def stats(self) -> Stats:
        """Loss accounting."""

        def query(connection: sqlite3.Connection) -> Stats:
            now = self._clock.time()
            connection.execute("BEGIN")  # all figures of one moment
            try:
                counted = rows.counters(connection)
                oldest = self._oldest.accepted_at(connection) if counted["pending"] else None
                count = 0 if oldest is None else lanes.count(connection)
                due = lanes.next_due(connection, now, lanes.Who(), lambda: bool(lanes.owners(connection, None)))
            finally:
                connection.execute("ROLLBACK")
            return Stats(**counted, lanes=count, oldest=oldest, next_attempt_at=due)

        return self._read(query)

    def pending(self) -> int | None:
        """How many rows wait, told at once or not at all (None): for gauges, which are read at every event and with
        other people's locks held. So it waits a moment at most, and mends nothing."""
        database = self._database
        mutex = database.mutex
        if self._closed or self._pid != os.getpid() or not mutex.acquire(timeout=PENDING_WAITS):
            return None
        try:
            connection = database.reader()
            return None if connection is None else rows.counters(connection)["pending"]
        except (sqlite3.Error, OSError, StorageError, SettingsError):
            return None
        finally:
            mutex.release()

    # ---- keeping house

    def sweep(self, now: float) -> None:
        """Forget old results, free what the dead hold, undo what a clock that was set back did."""
        self._database.reserve.make()

        def work(tx: Transaction) -> int:
            lanes.take_from_the_dead(tx, self._owners.me, self._owners.is_alive)
            lanes.clock_went_back(tx, self._clock.time())
            return rows.purge(tx, now, self._results_kept())

        while self._write(work) >= rows.PURGE:
            pass  # a full portion: there may be more
        self._owners.sweep()

    def _results_kept(self) -> int:
        """Few while the disk is full: a result takes more room than the row that it was."""
        return rows.RESULTS_KEPT if self._database.reserve.exists() else 100

    def _time_to_look_for_dead(self) -> bool:
        now = self._clock.monotonic()
        if now - self._looked_for_dead < LOOK_FOR_DEAD:
            return False
        self._looked_for_dead = now
        return True

    def close(self) -> None:
        """Release lanes and files."""
        if self._closed:
            return
        me = self._owners.me
        if me is not None and self._pid == os.getpid():
            with contextlib.suppress(StorageError, SettingsError):  # others see that we are gone
                self._write(lambda tx: lanes.free(tx, me))
        self._closed = True
        self.wake_file.close()
        forks.leave(self)
        if self._pid != os.getpid():
            return
        held = self._commit.hold(self._lock_timeout)
        if held is None:
            return  # a commit hangs: its end is the process's end
        try:
            self._database.close()
            self._owners.close()
            self._file_lock.close()
        finally:
            self._commit.resume(held)

    # ---- the way to the disk

    def _write(self, work: Callable[[Transaction], T], *, drains: bool = True, patience: float | None = None) -> T:
        """`patience`: seconds to wait for the lock, where a caller has less than `lock_timeout`. Delivery is not bound
        by that: what became of a message has to be written down."""
        self._check()
        try:
            try:
                return self._commit.run(work, patience)
            except sqlite3.Error as error:
                if not (drains and trouble.is_full(error) and self._database.reserve.spend()):
                    raise
                return self._commit.run(work, patience)
        except sqlite3.Error as error:
            raise trouble.translated(error, self._database.path) from error
        finally:
            self._tell()

    def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        self._check()
        try:
            try:
                return self._query(query)
            except sqlite3.Error as error:
                # to open the file takes room for what SQLite keeps beside it
                if not (trouble.is_full(error) and self._database.reserve.spend()):
                    raise
                return self._query(query)
        except sqlite3.Error as error:
            raise trouble.translated(error, self._database.path) from error
        finally:
            self._tell()

    def _query(self, query: Callable[[sqlite3.Connection], T]) -> T:
        database = self._database
        for _ in range(3):
            with database.mutex:
                connection = database.reader()
                if connection is not None:
                    return query(connection)
            self._commit.run(_nothing)
        raise StorageError(f"{database.path} is exchanged all the time", hint="look who does that")

    def _check(self) -> None:
        if self._pid != os.getpid():
            self.after_fork_in_child()
        if self._closed:
            raise StorageError("the outbox is closed", code="closed", hint="the client was closed; open another one")
        self._database.check()

    def _tell(self) -> None:
        """Say what happened to the file. Handlers may use the store: nothing is held here."""
        news = self._database.news
        while news:
            try:
                found = news.pop(0)
            except IndexError:
                return  # another thread was quicker
            if not found.kept:
                logger.error("%s: %s; a new outbox was begun", self._database.path, found.why)
                continue
            logger.error(
                "%s could not be used (%s); it is kept as %s, %d of its messages were saved into a new one",
                self._database.path,
                found.why,
                found.kept,
                found.salvaged,
            )
            event = OutboxQuarantined(at=self._clock.time(), path=found.kept, salvaged=found.salvaged, error=found.why)
            for listener in tuple(self.listeners):
                listener(event)

    # ---- forks

    def before_fork(self) -> None:
        if self._pid != os.getpid():
            return
        self._held = self._commit.hold(self._lock_timeout + 1.0)
        self._still = self._held is not None and self._database.before_fork(self._lock_timeout)

    def after_fork_in_parent(self) -> None:
        if self._still:
            self._still = False
            self._database.after_fork_in_parent()
        held, self._held = self._held, None
        if held is not None:
            self._commit.resume(held)

    def after_fork_in_child(self) -> None:
        """Everything open is the parent's; begin afresh at the next call."""
        with _afresh:
            if self._pid == os.getpid():
                return
            busy = self._commit.in_transaction and not self._still
            self._held, self._still = None, False
            self._database.after_fork_in_child(in_transaction=busy)
            self._file_lock.close()
            self._owners.forget()
            self.wake_file.forget()
            self._orphans = []
            self._oldest = Oldest()
            self._commit = self._new_commit()
            self._pid = os.getpid()


_afresh = ProcessLock()


def _nothing(_: object) -> None:
    """An operation, or a query, that only sees to it that there is a file."""
