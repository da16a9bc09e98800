"""Group commit: what `run` says is true, neighbours do not fail with a failure, and nothing stops the queue."""

from __future__ import annotations

import dis
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from chatsdk.core.errors import KeyReusedError, StorageError
from chatsdk.outbox import group_commit
from chatsdk.outbox.files import FileLock
from chatsdk.outbox.group_commit import GroupCommit, Transaction
from chatsdk.resilience.system_clock import SystemClock
from tests.waiting import eventually

CLOCK = SystemClock()


class File:
    """A database as the group commit sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failures: list[sqlite3.Error] = []
        self.opened: sqlite3.Connection | None = None
        self.synced: list[str] = []
        connection = self.writer()
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE IF NOT EXISTS item(name TEXT UNIQUE)")
        connection.execute("CREATE TABLE counters(id, accepted, delivered, dead, pending, discarded, bytes, last_id)")
        connection.execute("INSERT INTO counters VALUES(1, 0, 0, 0, 0, 0, 0, 0)")

    def writer(self) -> sqlite3.Connection:
        if self.opened is None:
            self.opened = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        return self.opened

    def failed(self, error: sqlite3.Error) -> None:
        self.failures.append(error)

    def discard(self) -> None:
        if self.opened is not None:
            self.opened.close()
        self.opened = None

    def sync(self) -> None:
        self.synced = self.names()

    def names(self) -> list[str]:
        """What is committed, as another connection sees it."""
        other = sqlite3.connect(self.path)
        try:
            return [name for (name,) in other.execute("SELECT name FROM item ORDER BY rowid")]
        finally:
            other.close()

    def accepted(self) -> int:
        other = sqlite3.connect(self.path)
        try:
            return int(other.execute("SELECT accepted FROM counters").fetchone()[0])
        finally:
            other.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    """A new file."""
    made = File(tmp_path / "file.db")
    yield made
    made.discard()


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[FileLock]:
    """A lock that nobody else wants."""
    made = FileLock(str(tmp_path / "lock"), CLOCK)
    yield made
    made.close()


@pytest.fixture
def commit(file: File, lock: FileLock) -> GroupCommit:
    """A group commit."""
    return GroupCommit(file, lock, CLOCK, 2.0)


def insert(name: str) -> Callable[[Transaction], str]:
    """An operation that adds a name and counts it."""

    def work(tx: Transaction) -> str:
        tx.execute("INSERT INTO item VALUES(?)", (name,))
        tx.counts.accepted += 1
        return name

    return work


def not_synced(commit: GroupCommit, name: str) -> list[str]:
    """The name, if it was told before it was on disk."""
    file = commit._database
    assert isinstance(file, File)
    return [] if name in file.synced else [name]


class Company:
    """Threads that run operations, and wait in the queue of a batch that is held back."""

    def __init__(self, commit: GroupCommit) -> None:
        self.commit = commit
        self.outcomes: dict[str, Any] = {}
        self.too_early: list[str] = []
        self._threads: list[threading.Thread] = []

    def start(self, name: str, work: Callable[[Transaction], Any]) -> None:
        """Run `work` in a thread of its own; its result or error is kept under `name`."""

        def run() -> None:
            try:
                self.outcomes[name] = self.commit.run(work)
            except BaseException as error:
                self.outcomes[name] = error
            else:
                self.too_early += not_synced(self.commit, name)

        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        thread.start()

    def queue_up(self, works: dict[str, Callable[[Transaction], Any]]) -> None:
        """Start these one after the other, so that they stand in the queue in this order."""
        for name, work in works.items():
            waiting = len(self.commit._queue)
            self.start(name, work)
            eventually(partial(self._longer_than, waiting))

    def _longer_than(self, waiting: int) -> bool:
        return len(self.commit._queue) > waiting

    def join(self) -> None:
        """Wait for all; none may be frozen."""
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive(), "a thread waits for ever"


def together(commit: GroupCommit, works: dict[str, Callable[[Transaction], Any]]) -> dict[str, Any]:
    """Run these in one batch."""
    held = commit.hold(1.0)
    assert held is not None
    company = Company(commit)
    company.queue_up(works)
    commit.resume(held)
    company.join()
    return company.outcomes


def test_alone(file: File, commit: GroupCommit) -> None:
    """A single operation is committed when `run` returns."""
    assert commit.run(insert("a")) == "a"
    assert file.names() == ["a"]
    assert file.accepted() == 1


def test_a_batch_is_one_commit(file: File, commit: GroupCommit) -> None:
    """Operations that wait together share a transaction, and stay in the order of their coming."""
    statements: list[str] = []
    file.writer().set_trace_callback(statements.append)
    names = [f"n{n}" for n in range(20)]
    assert together(commit, {name: insert(name) for name in names}) == {name: name for name in names}
    assert file.names() == names
    assert statements.count("COMMIT") == 1
    assert sum(statement.startswith("UPDATE counters") for statement in statements) == 1
    assert not any(statement.startswith("SAVEPOINT") for statement in statements)


def test_a_refusal_fails_alone(file: File, commit: GroupCommit) -> None:
    """An operation that changed nothing fails by itself, without a second run of the batch."""
    runs: list[str] = []

    def refuse(tx: Transaction) -> None:
        runs.append("refused")
        raise KeyReusedError("no")

    outcomes = together(commit, {"a": insert("a"), "no": refuse, "b": insert("b")})
    assert isinstance(outcomes.pop("no"), KeyReusedError)
    assert outcomes == {"a": "a", "b": "b"}
    assert runs == ["refused"]
    assert file.names() == ["a", "b"]


def test_a_failure_after_a_change_is_taken_back(file: File, commit: GroupCommit) -> None:
    """The neighbours of an operation that fails half-way succeed; of itself nothing stays, not even what it counted."""

    def half(tx: Transaction) -> None:
        insert("half")(tx)
        raise ValueError("half-way")

    outcomes = together(commit, {"a": insert("a"), "half": half, "b": insert("b"), "a again": insert("a")})
    assert isinstance(outcomes["half"], ValueError)
    assert isinstance(outcomes["a again"], sqlite3.IntegrityError)
    assert (outcomes["a"], outcomes["b"]) == ("a", "b")
    assert file.names() == ["a", "b"]
    assert file.accepted() == 2
    with pytest.raises(ValueError, match="half-way"):
        commit.run(half)
    assert file.names() == ["a", "b"]


def test_what_was_refused_beside_a_failure_is_asked_again(file: File, commit: GroupCommit) -> None:
    """An answer that depended on what was then taken back is not kept."""

    def unless_there(tx: Transaction) -> str:
        if tx.execute("SELECT 1 FROM item WHERE name = 'a'").fetchone():
            raise KeyReusedError("a is there")
        return insert("mine")(tx)

    runs: list[int] = []

    def first(tx: Transaction) -> str:
        runs.append(1)
        if len(runs) > 1:
            raise ValueError("the second run fails")
        return insert("a")(tx)

    def fails(tx: Transaction) -> None:
        insert("x")(tx)
        raise ValueError("always")

    outcomes = together(commit, {"first": first, "unless": unless_there, "fails": fails})
    assert outcomes["unless"] == "mine"
    assert file.names() == ["mine"]


def test_a_commit_that_fails_is_everybodys_failure(
    file: File, commit: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each operation of a batch that could not be committed gets an error of its own, and the queue goes on."""

    class Failing:
        def __init__(self, real: sqlite3.Connection) -> None:
            self._real = real

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def execute(self, sql: str, *arguments: Any) -> Any:
            if sql == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return self._real.execute(sql, *arguments)

    real = file.writer()
    with monkeypatch.context() as patch:
        patch.setattr(file, "writer", lambda: Failing(real))
        outcomes = together(commit, {"a": insert("a"), "b": insert("b")})
    assert [type(error) for error in outcomes.values()] == [sqlite3.OperationalError] * 2
    assert outcomes["a"] is not outcomes["b"]
    assert file.names() == []
    assert len(file.failures) == 1
    assert commit.run(insert("c")) == "c"
    assert file.names() == ["c"]


def test_the_lock_is_given_back_before_the_disk_is_waited_for(
    file: File, lock: FileLock, commit: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Committed, unlocked, synced, and only then told; also what changed nothing, for it may have seen what others
    have not synced yet."""
    order: list[str] = []
    file.writer().set_trace_callback(order.append)
    release, sync = lock.release, file.sync

    def release_and_say() -> None:
        order.append("release")
        release()

    def sync_and_say() -> None:
        order.append("sync")
        sync()

    monkeypatch.setattr(lock, "release", release_and_say)
    monkeypatch.setattr(file, "sync", sync_and_say)
    for work in (insert("a"), lambda tx: None):
        order.clear()
        commit.run(work)
        assert order[order.index("COMMIT") + 1 :][:2] == ["release", "sync"]
        assert order.count("sync") == 1


def test_a_sync_that_fails_is_everybodys_failure(
    file: File, commit: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told that it is on disk; who was refused keeps its own error; the queue goes on."""

    def fail() -> None:
        raise StorageError("the disk failed", code="unsynced")

    def refuse(tx: Transaction) -> None:
        raise KeyReusedError("no")

    with monkeypatch.context() as patch:
        patch.setattr(file, "sync", fail)
        outcomes = together(commit, {"a": insert("a"), "no": refuse, "b": insert("b")})
    assert [getattr(error, "code", None) for error in (outcomes["a"], outcomes["b"])] == ["unsynced"] * 2
    assert outcomes["a"] is not outcomes["b"]
    assert isinstance(outcomes["no"], KeyReusedError)
    assert file.failures == []
    assert commit.run(insert("c")) == "c"


def test_sqlite_rolls_back_by_itself(file: File, commit: GroupCommit) -> None:
    """A full disk ends a transaction without being asked: all of the batch fails, and the next one works."""
    connection = file.writer()
    connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
    outcomes = together(commit, {"a": insert("a" * 100_000), "b": insert("b" * 100_000)})
    assert {getattr(error, "sqlite_errorcode", None) for error in outcomes.values()} == {sqlite3.SQLITE_FULL}
    assert file.names() == []
    connection.execute("PRAGMA max_page_count = 1000000")
    assert commit.run(insert("c")) == "c"


def test_the_lock_is_not_waited_for_without_end(file: File, lock: FileLock) -> None:
    """Each operation gives up `lock_timeout` after its own call, not after its leader's; then nothing happened."""

    class Taken(FileLock):
        def acquire(self, deadline: float) -> None:
            while CLOCK.monotonic() < deadline:
                time.sleep(0.005)
            raise StorageError("taken")

    commit = GroupCommit(file, Taken("unused", CLOCK), CLOCK, 0.3)
    company = Company(commit)
    waited: dict[int, float] = {}

    def timed(number: int) -> None:
        started = time.monotonic()
        with pytest.raises(StorageError):
            commit.run(insert(str(number)))
        waited[number] = time.monotonic() - started

    threads = [threading.Thread(target=timed, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join(10)
    company.join()
    assert len(waited) == 6
    assert max(waited.values()) < 0.3 + 0.25
    assert file.names() == []


def test_who_has_less_patience_leaves(file: File, lock: FileLock) -> None:
    """Beside a leader that waits for the file for long: an impatient operation is told in its own time that nothing
    happened, also if it is behind others in the queue; patient ones go on to wait."""
    commit = GroupCommit(file, lock, CLOCK, 30.0)
    other = FileLock(lock._path, CLOCK)
    script = (
        "import fcntl, os, sys; f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT);"
        "fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, other._path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        outcomes: dict[str, Any] = {}

        def run(name: str, patience: float | None) -> None:
            began = time.monotonic()
            try:
                commit.run(insert(name), patience)
            except StorageError as error:
                outcomes[name] = (error.code, time.monotonic() - began)
            else:
                outcomes[name] = "done"

        patient = [threading.Thread(target=run, args=(name, None)) for name in ("a", "b")]
        hasty = [threading.Thread(target=run, args=(f"hasty {limit}", limit)) for limit in (0.0, 0.1, 0.3)]
        for thread in (*patient[:1], *hasty, *patient[1:]):
            thread.start()
            eventually(lambda: commit._leader is not None)
        for thread in hasty:
            thread.join(10)
        assert {name: outcome[0] for name, outcome in outcomes.items()} == {
            f"hasty {limit}": "locked" for limit in (0.0, 0.1, 0.3)
        }
        assert all(outcome[1] < 5 for outcome in outcomes.values())
        holder.communicate(b"\n", timeout=10)
    for thread in patient:
        thread.join(10)
    assert (outcomes["a"], outcomes["b"]) == ("done", "done")
    assert sorted(file.names()) == ["a", "b"]


def test_without_patience_it_is_still_tried(file: File, commit: GroupCommit) -> None:
    """A lock that is free, or busy for a moment, is no reason to refuse."""
    assert commit.run(insert("a"), 0.0) == "a"
    held = commit.hold(1.0)
    assert held is not None
    threading.Timer(0.01, commit.resume, (held,)).start()
    assert commit.run(insert("b"), 0.0) == "b"
    assert file.names() == ["a", "b"]


@pytest.mark.parametrize("seed", range(3))
def test_patient_and_hasty_ones_together(file: File, commit: GroupCommit, seed: int) -> None:
    """What was said to have happened is there, and nothing else, whoever leaves when."""
    chance = random.Random(seed)
    told: list[str] = []
    refused: list[str] = []

    def work(names: list[tuple[str, float | None]]) -> None:
        for name, patience in names:
            try:
                told.append(commit.run(insert(name), patience))
            except StorageError:
                refused.append(name)

    threads = [
        threading.Thread(
            target=work,
            args=([(f"{seed} {thread} {n}", chance.choice([None, 0.0, 0.001])) for n in range(40)],),
        )
        for thread in range(6)
    ]
    for thread in threads:
        thread.start()
    for _ in range(20):
        held = commit.hold(5.0)
        time.sleep(chance.choice([0.0, 0.01, 0.06]))
        if held is not None:
            commit.resume(held)
    for thread in threads:
        thread.join(30)
    assert sorted(file.names()) == sorted(told)
    assert len(told) + len(refused) == 240
    assert commit._leader is None
    assert not commit._queue


def test_hold_stands_still(file: File, commit: GroupCommit) -> None:
    """While it is held nothing is written; who waits goes on afterwards; a second holder waits in the queue."""
    held = commit.hold(1.0)
    assert held is not None
    company = Company(commit)
    company.queue_up({"a": insert("a")})
    assert commit.hold(0.05) is None, "the thread that holds cannot wait for itself"
    late: list[object | None] = []
    thread = threading.Thread(target=lambda: late.append(commit.hold(10.0)))
    thread.start()
    eventually(lambda: len(commit._queue) == 2)
    company.queue_up({"b": insert("b")})
    assert file.names() == []
    commit.resume(held)
    thread.join(10)
    assert file.names() == ["a"], "what came before the second holder, and no more"
    assert late[0] is not None
    commit.resume(late[0])
    company.join()
    assert file.names() == ["a", "b"]


def test_hold_gives_up(commit: GroupCommit) -> None:
    """Who cannot get hold of it in time leaves no trace in the queue."""
    entered, leave = threading.Event(), threading.Event()

    def slow(tx: Transaction) -> None:
        entered.set()
        leave.wait(10)

    company = Company(commit)
    company.start("slow", slow)
    assert entered.wait(10)
    assert commit.hold(0.05) is None
    leave.set()
    company.join()
    assert commit.run(insert("a")) == "a"


# ---- interruptions

_AFTER = frozenset({"CALL", "CALL_FUNCTION_EX", "CALL_KW", "RESUME", "JUMP_BACKWARD"})


class Interrupting:
    """Raises KeyboardInterrupt in the `when`-th place of group_commit's code where a signal could come in.

    CPython looks for signals when a function is entered, when a call returns and when a loop goes round, and nowhere
    else: the places are counted by tracing instructions.
    """

    def __init__(self, when: int) -> None:
        self.left = when
        self.fired = False
        self._last: dict[FrameType, str] = {}

    def __enter__(self) -> Interrupting:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if frame.f_code.co_filename != group_commit.__file__:
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._step

    def _step(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "opcode" and not self.fired:
            before = self._last.get(frame)
            self._last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if before in _AFTER:
                self.left -= 1
                if self.left == 0:
                    self.fired = True
                    raise KeyboardInterrupt
        return self._step


class Gathering(FileLock):
    """A lock whose first acquisition lets others stand in the queue first."""

    def __init__(self, path: str) -> None:
        super().__init__(path, CLOCK)
        self.first: Callable[[], None] | None = None

    def acquire(self, deadline: float) -> None:
        first, self.first = self.first, None
        if first is not None:
            trace = sys.gettrace()
            sys.settrace(None)
            first()
            sys.settrace(trace)
        super().acquire(deadline)


def check_after(file: File, commit: GroupCommit, company: Company, mine: object, where: int) -> None:
    """Nobody is frozen, what was said is true, and the next operation works."""
    company.join()
    assert company.too_early == [], where
    assert commit.run(insert("next")) == "next", where
    names = file.names()
    for name, outcome in company.outcomes.items():
        assert outcome == name, (where, name, outcome)
        assert names.count(name) == 1, (where, names)
    assert mine in ("mine", KeyboardInterrupt), (where, mine)
    assert "mine" in names or mine is KeyboardInterrupt, (where, names)
    assert file.accepted() == len(names), where
    assert not commit.in_transaction
    assert not commit._queue


def sweep(tmp_path: Path, scene: Callable[[GroupCommit, Gathering, Company, Interrupting], object]) -> int:
    """Interrupt `scene` in each place, one after the other. Returns how many there were."""
    where = 0
    while True:
        where += 1
        file = File(tmp_path / f"{where}.db")
        lock = Gathering(str(tmp_path / "lock"))
        commit = GroupCommit(file, lock, CLOCK, 5.0)
        company, interrupting = Company(commit), Interrupting(where)
        mine = scene(commit, lock, company, interrupting)
        check_after(file, commit, company, mine, where)
        lock.close()
        file.discard()
        if not interrupting.fired:
            return where - 1


def run_mine(commit: GroupCommit, interrupting: Interrupting, patience: float | None = None) -> object:
    """Run an operation under interruption."""
    try:
        with interrupting:
            mine = commit.run(insert("mine"), patience)
        assert not_synced(commit, mine) == []
        return mine
    except KeyboardInterrupt:
        return KeyboardInterrupt


def test_an_interrupted_leader(tmp_path: Path) -> None:
    """Ctrl-C anywhere in a leader neither loses nor freezes the operations of the other threads in its batch."""

    def scene(commit: GroupCommit, lock: Gathering, company: Company, interrupting: Interrupting) -> object:
        lock.first = lambda: company.queue_up({"a": insert("a"), "b": insert("b")})
        return run_mine(commit, interrupting)

    assert sweep(tmp_path, scene) > 40


@pytest.mark.parametrize("patience", [None, 4.0])
def test_an_interrupted_follower(tmp_path: Path, patience: float | None) -> None:
    """Ctrl-C anywhere in an operation that waits for another thread's batch, and leads the next one, freezes nobody."""

    def scene(commit: GroupCommit, lock: Gathering, company: Company, interrupting: Interrupting) -> object:
        entered, leave = threading.Event(), threading.Event()

        def slow(tx: Transaction) -> str:
            entered.set()
            leave.wait(10)
            return insert("slow")(tx)

        company.start("slow", slow)
        assert entered.wait(10)

        def afterwards() -> None:
            # mine stands in the queue first, then another one; and then the batch ends
            end = time.monotonic() + 0.3
            while not commit._queue and time.monotonic() < end and not interrupting.fired:
                time.sleep(0.001)
            company.start("behind", insert("behind"))
            time.sleep(0.005)
            leave.set()

        helper = threading.Thread(target=afterwards)
        helper.start()
        outcome = run_mine(commit, interrupting, patience)
        helper.join(10)
        leave.set()
        return outcome

    assert sweep(tmp_path, scene) > 30


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a signal may meet a finalizer, too
# An interruption that hits a finalizer is dropped by Python, which says so; pytest would make a failure of that.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_real_signals(file: File, commit: GroupCommit) -> None:
    """Under a rain of real signals that raise in the main thread, the other threads' operations all get their fate."""
    stop = threading.Event()
    done: dict[int, list[str]] = {n: [] for n in range(3)}

    def others(number: int) -> None:
        while not stop.is_set():
            done[number].append(commit.run(insert(f"{number}-{len(done[number])}")))

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    threads = [threading.Thread(target=others, args=(n,), daemon=True) for n in range(3)]
    before = signal.signal(signal.SIGALRM, interrupt)
    rng = random.Random(7)
    returned, interrupted = [], 0
    end = time.monotonic() + 1.5
    try:
        for thread in threads:
            thread.start()
        number = 0
        while time.monotonic() < end:
            number += 1
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(0.00005, 0.002))
                returned.append(commit.run(insert(f"main-{number}")))
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        stop.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), "a thread waits for ever"
    names = set(file.names())
    assert interrupted > 50
    assert set(returned) <= names
    for number, mine in done.items():
        assert mine, number
        assert set(mine) <= names
    assert file.accepted() == len(names)
