"""Group commit: operations of many threads share one transaction, one fsync and one turn at the kernel's lock.

Theory. A durable commit costs one fsync whether it holds one operation or a hundred. Who comes first *leads*: takes the
file lock, then everything that waits by then, runs it in one transaction, commits, hands the leadership to the next
one that waits, and goes. There is no thread of our own: alone, an operation costs what it costs; in company, a batch.
A leader that stayed until nobody waits would be starved of its own result, so it leads one batch only.

The fsync, which takes longer than all the rest, is done after the file lock was given back, so other processes write
meanwhile. What others see of us before it is on disk does no harm: their own fsync comes before anything that they do
because of it, and an fsync of the log covers all that was committed before it, no matter by whom. For the same reason
every transaction is followed by one, also if it changed nothing: it may have seen what is not on disk yet.

Rules.
1. What `run` says is true: it returned, so it is on disk; it raised an Exception, so nothing happened. (But for a disk
   that takes what is written and fails the fsync: StorageError "unsynced"; what became of it is not known.)
2. An operation that fails without having changed anything fails alone. One that fails later takes the batch back,
   which is then run again with a savepoint for each operation: neighbours do not fail with it, and savepoints cost
   nothing while all goes well.
3. `lock_timeout` bounds the wait for the file lock, counted from the call. After BEGIN the fate is awaited. What has
   less patience leaves the queue when that is over: it was not begun, so nothing happened.
4. Whatever happens to a leader (an error, a full disk, Ctrl-C), the leadership is passed on, and each operation of the
   batch is either decided or waits for the next leader.
5. Python cannot mask signals, so an interruption (KeyboardInterrupt, SystemExit) may come between any two lines. State
   that others need is changed by assignments without a call in between, and `_leave` can be run again from any point.
   The interrupted caller gets its KeyboardInterrupt: its own operation may have happened or not, as after any Ctrl-C.
6. SQLite may roll back by itself (a full disk): `in_transaction` says what is so, not what was asked for.
"""

from __future__ import annotations

import copy
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

from ..core.clock import Clock
from ..core.errors import ChatError, StorageError
from .files import FileLock

T = TypeVar("T")
_Run = Callable[["Transaction", sqlite3.Connection, Sequence["_Op"]], None]

BATCH = 256
"""Operations in one transaction at most; it bounds how long the lock is held."""

MOMENT = 0.05
"""Seconds that even an operation without patience waits: a batch takes a few milliseconds, and a send that finds
nothing left must not be refused because its neighbour is writing."""


@dataclass(slots=True)
class Counts:
    """What a transaction adds to the counters."""

    accepted: int = 0
    delivered: int = 0
    dead: int = 0
    pending: int = 0
    discarded: int = 0
    bytes: int = 0
    ids: int = 0


class Transaction:
    """What an operation works with: `execute`, and `counts`, written once when all operations have run."""

    __slots__ = ("_before", "counts", "execute")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.execute = connection.execute
        self.counts = Counts()
        self._before: tuple[int, int, int] | None = None

    def held(self) -> tuple[int, int]:
        """(pending rows, bytes) as of now, this transaction included."""
        pending, size, _ = self._before or self._read()
        return pending + self.counts.pending, size + self.counts.bytes

    def next_id(self) -> int:
        """An id that no row ever had."""
        last = (self._before or self._read())[2]
        self.counts.ids += 1
        return last + self.counts.ids

    def _read(self) -> tuple[int, int, int]:
        found: tuple[int, int, int] = self.execute("SELECT pending, bytes, last_id FROM counters").fetchone()
        self._before = found
        return found

    def flush(self) -> None:
        """Write the counters."""
        c = self.counts
        change = (c.accepted, c.delivered, c.dead, c.pending, c.discarded, c.bytes, c.ids)
        if any(change):
            self.execute(
                "UPDATE counters SET accepted = accepted + ?, delivered = delivered + ?, dead = dead + ?, "
                "pending = pending + ?, discarded = discarded + ?, bytes = bytes + ?, last_id = last_id + ?",
                change,
            )


Source = Transaction | sqlite3.Connection
"""What a query may be asked of."""


class Database(Protocol):
    """Where the connection comes from."""

    def writer(self) -> sqlite3.Connection:
        """The connection to write with. Called with the file lock held."""
        ...

    def failed(self, error: sqlite3.Error) -> None:
        """A transaction failed and was rolled back; the file lock is held."""
        ...

    def discard(self) -> None:
        """Close the connection: it cannot even roll back."""
        ...

    def sync(self) -> None:
        """See to it that all that was committed is on disk. Called without the file lock. Raises StorageError."""
        ...


# How far a batch is. Plain numbers: reading a member of an Enum is a call, and a call is where a signal may come in.
_IDLE = 0  # nothing of it is on disk
_COMMITTING = 1  # COMMIT was called: `in_transaction` says whether it went through
_COMMITTED = 2  # everybody sees it; it may not be on disk yet
_DECIDED = 3  # every operation of it has its result or its error


class _Op:
    __slots__ = ("alone", "deadline", "error", "gate", "impatient", "result", "settled", "thread", "work")

    def __init__(
        self, work: Callable[[Transaction], Any], deadline: float, *, alone: bool = False, impatient: bool = False
    ) -> None:
        self.work = work
        self.deadline = deadline
        self.alone = alone  # wants the leadership, not a transaction
        self.impatient = impatient  # may not even wait as long as those before it in the queue
        self.thread = threading.get_ident()
        self.gate: threading.Lock | None = None  # held until the operation is settled, or is to lead
        self.result: Any = None
        self.error: Exception | None = None
        self.settled = False


class _OperationFailed(Exception):
    """One operation failed after it had changed something."""


class GroupCommit:
    """Runs operations in shared transactions. One per database and process."""

    def __init__(self, database: Database, lock: FileLock, clock: Clock, lock_timeout: float) -> None:
        self._database = database
        self._lock = lock
        self._clock = clock
        self._lock_timeout = lock_timeout
        self._mutex = threading.Lock()
        self._queue: deque[_Op] = deque()
        self._leader: _Op | None = None
        # only the leader touches these
        self._batch: Sequence[_Op] = ()
        self._stage = _IDLE
        self._connection: sqlite3.Connection | None = None

    def run(self, work: Callable[[Transaction], T], patience: float | None = None) -> T:
        """Run `work` in a transaction and return its result when that is on disk. `work` may be run more than once, and
        only its last run counts. `patience`: seconds to wait for the lock, if less than `lock_timeout` (at least
        MOMENT). Raises what `work` raised, StorageError for a lock that was not free in time, and sqlite3.Error
        for what the disk would not take; then nothing happened."""
        impatient = patience is not None and patience < self._lock_timeout
        limit = max(MOMENT, patience) if patience is not None and impatient else self._lock_timeout
        op = _Op(work, self._clock.monotonic() + limit, impatient=impatient)
        try:
            if self._join(op) or self._wait(op):
                self._lead(op)
        finally:
            if not op.settled:
                # not a function: entering one is where a signal may come in
                try:
                    self._leave(op)
                except BaseException:
                    try:
                        self._leave(op)
                    except BaseException:
                        self._leave(op)
                    raise
        if op.error is not None:
            raise op.error
        return op.result  # type: ignore[no-any-return]

    # ---- standing still, for a fork or the end

    def hold(self, timeout: float) -> object | None:
        """Keep everybody else out, until `resume`. None if that took longer than `timeout` seconds, or if this very
        thread is in the middle of a batch (a signal handler)."""
        op = _Op(_nothing, 0.0, alone=True)
        leader = self._leader
        if leader is not None and leader.thread == op.thread:
            return None
        if not self._join(op):
            assert op.gate is not None
            if not op.gate.acquire(timeout=timeout):
                self._leave(op)
                return None
        return op

    def resume(self, held: object) -> None:
        """Let the others in again."""
        assert isinstance(held, _Op)
        self._leave(held)

    @property
    def in_transaction(self) -> bool:
        """Somebody is in the middle of a batch (asked in a forked child, where nobody goes on with it)."""
        return self._leader is not None

    # ---- to lead or to follow

    def _join(self, op: _Op) -> bool:
        """Become the leader (True), or stand in the queue."""
        with self._mutex:
            if self._leader is None:
                self._leader = op
                return True
            op.gate = threading.Lock()
            op.gate.acquire()
            self._queue.append(op)
            return False

    def _wait(self, op: _Op) -> bool:
        """Wait until the operation is settled (False) or is to lead (True)."""
        assert op.gate is not None
        if op.impatient:
            if op.gate.acquire(timeout=max(0.0, op.deadline - self._clock.monotonic())):
                return not op.settled
            with self._mutex:
                if op in self._queue:
                    self._queue.remove(op)
                    op.error = StorageError(
                        "this process was waiting for another one that holds the outbox; nothing was written",
                        code="locked",
                        hint="allow more time (chat.deadline), or look for a process that is stopped or very busy",
                    )
                    return False
        op.gate.acquire()
        return not op.settled

    def _leave(self, op: _Op) -> None:
        """Give up the leadership, or the place in the queue. Can be run again from any point of itself."""
        if self._leader is not op:
            with self._mutex:
                if self._leader is not op:
                    if op in self._queue:
                        self._queue.remove(op)  # not begun: it never happens
                    return
        self._clean_up()
        batch = self._batch
        if self._stage == _DECIDED:
            for each in batch:
                each.settled = True
        for each in batch:
            if each.settled and each is not op and each.gate is not None and each.gate.locked():
                each.gate.release()
        with self._mutex:
            queue = self._queue
            if self._stage != _DECIDED:
                queue = deque((*(each for each in batch if each is not op and not each.settled), *queue))
            following = queue[0] if queue else None
            if following is not None:
                queue = deque(islice(queue, 1, None))
            gate = following.gate if following is not None else None
            # from here to the gate there is no call, so no interruption
            self._queue = queue
            self._batch = ()
            self._stage = _IDLE
            self._connection = None
            self._leader = following
            if gate is not None:
                gate.release()

    def _clean_up(self) -> None:
        """Whatever the leader left: an open transaction, the lock, an fsync."""
        connection = self._connection
        if connection is not None and not self._abort(connection) and self._stage == _COMMITTING:
            self._stage = _COMMITTED
        self._lock.release()
        if self._stage == _COMMITTED:
            self._sync()

    def _abort(self, connection: sqlite3.Connection) -> bool:
        """Roll back what is open; True if something was."""
        try:
            if not connection.in_transaction:
                return False
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._database.discard()  # closing rolls back
        return True

    # ---- the leader's work

    def _lead(self, op: _Op) -> None:
        try:
            self._lock.acquire(op.deadline)
        except ChatError as error:
            op.error = error
            self._batch = (op,)
            self._stage = _DECIDED
            return
        with self._mutex:
            queued = list(self._queue)
            size = next((n for n, each in enumerate(queued) if each.alone), len(queued))
            size = min(size, BATCH - 1)
            batch, rest = [op, *queued[:size]], deque(queued[size:])
            self._batch = batch
            self._queue = rest
        try:
            try:
                self._attempt(batch, self._plainly)
            except _OperationFailed as failure:
                if len(batch) == 1:
                    raise
                self._roll_back(failure.__cause__)
                self._attempt(batch, self._one_by_one)
        except Exception as error:
            cause = error.__cause__ if isinstance(error, _OperationFailed) else error
            self._roll_back(cause)
            for each in batch:
                each.error = _own(cause)  # each thread raises its own
            self._stage = _DECIDED

    def _attempt(self, batch: Sequence[_Op], run: _Run) -> None:
        connection = self._connection = self._database.writer()
        connection.execute("BEGIN IMMEDIATE")
        transaction = Transaction(connection)
        run(transaction, connection, batch)
        transaction.flush()
        self._stage = _COMMITTING
        try:
            connection.execute("COMMIT")
        except sqlite3.Error:
            self._stage = _IDLE
            raise
        self._stage = _COMMITTED
        self._lock.release()
        self._sync()

    def _sync(self) -> None:
        """From committed to decided."""
        try:
            self._database.sync()
        except Exception as error:
            for each in self._batch:
                each.error = each.error or _own(error)
        self._stage = _DECIDED

    @staticmethod
    def _plainly(transaction: Transaction, connection: sqlite3.Connection, batch: Sequence[_Op]) -> None:
        for op in batch:
            op.error = None
            before = connection.total_changes
            try:
                op.result = op.work(transaction)
            except Exception as error:
                if isinstance(error, sqlite3.Error) or connection.total_changes != before:
                    raise _OperationFailed from error
                op.error = error

    @staticmethod
    def _one_by_one(transaction: Transaction, connection: sqlite3.Connection, batch: Sequence[_Op]) -> None:
        for op in batch:
            op.error = None
            counted = copy.copy(transaction.counts)
            connection.execute("SAVEPOINT operation")
            try:
                op.result = op.work(transaction)
            except Exception as error:
                if not connection.in_transaction:
                    raise  # rolled back by SQLite, and all of the batch with it
                connection.execute("ROLLBACK TO operation")
                transaction.counts = counted
                op.error = error
            connection.execute("RELEASE operation")

    def _roll_back(self, cause: BaseException | None) -> None:
        self._stage = _IDLE
        if self._connection is not None:
            self._abort(self._connection)
        if isinstance(cause, sqlite3.Error):
            self._database.failed(cause)


def _nothing(transaction: Transaction) -> None:
    """The operation of somebody who only wants to be alone."""


def _own(error: BaseException | None) -> Exception:
    return copy.copy(error) if isinstance(error, Exception) else RuntimeError("the batch failed")
