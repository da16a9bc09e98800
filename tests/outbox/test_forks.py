"""A fork: parent and child go on, each with locks of its own, and nothing is lost or sent twice.

`blind` forks as uWSGI does, without any hook of Python's: there the pid check alone must do.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatsdk.core.errors import StorageError
from chatsdk.core.store import Lane, Selection
from chatsdk.outbox.shared import open_store
from chatsdk.outbox.store import SQLiteStore
from chatsdk.resilience.system_clock import SystemClock
from tests.outbox.store_kit import LANE, NOW, Other, balanced, claimed, entry, open_directly

Fork = Callable[[], int]


def blind() -> int:
    """fork() without the hooks of `os.register_at_fork`."""
    libc = ctypes.PyDLL(None)  # PyDLL keeps the interpreter's lock, so the child has it
    pid = int(libc.fork())
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child  # noqa: B018 - exists, and is deliberately not called
    return pid


@pytest.fixture(params=[os.fork, blind], ids=["hooks", "blind"])
def fork(request: pytest.FixtureRequest) -> Fork:
    """Both ways to fork."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    """An outbox that was used before the fork."""
    made = open_directly(tmp_path / "state")
    made.put(entry("before"))
    yield made
    made.close()


def in_child(fork: Fork, work: Callable[[], object]) -> int:
    """Run `work` in a forked child; returns its pid. The child ends with 0 if `work` returned."""
    pid = fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(30)
        work()
        code = 0
    except BaseException as error:
        print("child:", repr(error), file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def ended_well(pid: int) -> bool:
    """Wait for a child; True if its work returned."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def sqlite_locks(pid: int) -> int:
    """How many POSIX locks a process holds."""
    with open("/proc/locks", encoding="ascii") as file:
        return sum(line.split()[4] == str(pid) for line in file if "POSIX" in line)


def test_both_write(store: SQLiteStore, fork: Fork) -> None:
    """Parent and child put at the same time; every message is there, also after the parent closed first."""

    def child() -> None:
        for n in range(50):
            store.put(entry(f"child {n}"))
        store.close()

    pid = in_child(fork, child)
    for n in range(50):
        store.put(entry(f"parent {n}"))
    assert ended_well(pid)
    found = [row.request.body["text"] for row in store.list(Selection())]
    assert len(found) == 101
    assert [text for text in found if text.startswith("child")] == [f"child {n}" for n in range(50)]
    balanced(store)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/locks")
def test_the_child_has_locks(store: SQLiteStore, fork: Fork, tmp_path: Path) -> None:
    """What the child writes survives the parent's closing: its process holds the locks that its SQLite relies on."""
    ready, told = os.pipe()
    go, release = os.pipe()

    def child() -> None:
        store.put(entry("early"))
        assert sqlite_locks(os.getpid()) >= 2, "unlocked"
        os.write(told, b"x")
        os.read(go, 1)
        store.put(entry("late"))

    pid = in_child(fork, child)
    assert os.read(ready, 1) == b"x"
    store.close()  # the last one out tidies up the write-ahead log: the child must not be overlooked
    os.write(release, b"x")
    assert ended_well(pid)
    again = open_directly(tmp_path / "state")
    assert [row.request.body["text"] for row in again.list(Selection())] == ["before", "early", "late"]
    balanced(again)
    again.close()
    for descriptor in (ready, told, go, release):
        os.close(descriptor)


def test_lanes_stay_the_parents(store: SQLiteStore, fork: Fork) -> None:
    """The child is another owner: it does not get the parent's lanes, and its end does not free them."""
    claim = claimed(store)

    def child() -> None:
        assert store.claim(NOW) is None
        assert store.lane_status(LANE).owned
        store.put(entry("other lane", Lane("bob", "x")))
        assert claimed(store).lane == Lane("bob", "x")
        store.sweep(NOW)

    assert ended_well(in_child(fork, child))
    assert store.lane_status(LANE).owned
    other = Other(Path(store.directory), "say(store.lane_status(Lane('alice', 'general')).owned)")
    assert other.hear() == "True"
    other.end()
    store.finish(LANE, claim.rows[0].id, None, NOW)
    assert claimed(store).lane == Lane("bob", "x"), "the child is dead"
    balanced(store)


def test_grandchildren(store: SQLiteStore, fork: Fork) -> None:
    """Forks of forks."""

    def child() -> None:
        store.put(entry("child"))

        def grandchild() -> None:
            store.put(entry("grandchild"))

        assert ended_well(in_child(fork, grandchild))
        store.put(entry("child again"))

    assert ended_well(in_child(fork, child))
    store.put(entry("parent"))
    found = [row.request.body["text"] for row in store.list(Selection())]
    assert found == ["before", "child", "grandchild", "child again", "parent"]
    balanced(store)


def test_fork_while_threads_write(store: SQLiteStore) -> None:
    """Children forked from a busy parent send at once; the parent's threads notice nothing; every message is there."""
    stop = threading.Event()
    done: list[str] = []

    def busy(number: int) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            text = f"{number}-{n}"
            store.put(entry(text, Lane("alice", str(number))))
            store.stats()
            done.append(text)

    threads = [threading.Thread(target=busy, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    children = []
    for number in range(8):
        time.sleep(0.02)

        def child(number: int = number) -> None:
            started = time.monotonic()
            store.put(entry(f"child {number}", Lane("bob", "x")))
            assert time.monotonic() - started < 2.0

        children.append(in_child(os.fork, child))
    results = [ended_well(pid) for pid in children]
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert all(results)
    found = {row.request.body["text"] for row in store.list(Selection(limit=10**6))}
    assert found == {"before", *done, *(f"child {n}" for n in range(8))}
    balanced(store)


def test_blind_fork_in_the_middle_of_a_write(store: SQLiteStore) -> None:
    """Without hooks, a fork while another thread writes cannot be made good: the child says so and loses nothing."""
    inside, leave = threading.Event(), threading.Event()

    def slow(tx: object) -> None:
        inside.set()
        leave.wait(10)

    thread = threading.Thread(target=lambda: store._write(slow))
    thread.start()
    assert inside.wait(10)

    def child() -> None:
        with pytest.raises(StorageError, match="forked while") as caught:
            store.put(entry("child"))
        assert "lazy-apps" in caught.value.hint

    assert ended_well(in_child(blind, child))
    leave.set()
    thread.join(10)
    store.put(entry("parent"))
    assert store.stats().pending == 2
    balanced(store)


def test_blind_fork_and_the_parent_closed(tmp_path: Path) -> None:
    """Without hooks, a child that begins after its parent closed is refused where SQLite would be wrong, and loses
    nothing."""
    store = open_directly(tmp_path / "state")
    store.put(entry("before"))
    go, release = os.pipe()

    def child() -> None:
        os.read(go, 1)
        with pytest.raises(StorageError, match="closed the outbox since"):
            store.put(entry("child"))

    pid = in_child(blind, child)
    store.close()
    os.write(release, b"x")
    assert ended_well(pid)
    again = open_directly(tmp_path / "state")
    assert again.put(entry("after")).created
    assert again.stats().pending == 2
    again.close()
    os.close(go)
    os.close(release)


def test_fork_in_a_signal_handler(store: SQLiteStore) -> None:
    """A fork from within a commit of the same thread neither hangs nor harms the parent; the child is refused."""
    pids: list[int] = []

    def child() -> None:
        with pytest.raises(StorageError, match="forked while"):
            store.put(entry("child"))

    def handler(*_: object) -> None:
        pids.append(in_child(os.fork, child))

    def work(tx: object) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        store._write(work)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ended_well(pids[0])
    store.put(entry("parent"))
    assert store.stats().pending == 2


def test_a_shared_store(tmp_path: Path) -> None:
    """Clients of a child share their store too, and can be closed and opened there."""
    first = open_store(tmp_path / "state", clock=SystemClock())
    second = open_store(tmp_path / "state", clock=SystemClock())
    first.put(entry("before"))

    def child() -> None:
        first.put(entry("child"))
        first.close()
        second.put(entry("child"))
        second.close()
        third = open_store(tmp_path / "state", clock=SystemClock())
        third.put(entry("child"))
        third.close()

    assert ended_well(in_child(os.fork, child))
    assert first.stats().pending == 4
    first.close()
    second.close()


def test_a_child_that_only_ends(store: SQLiteStore, fork: Fork) -> None:
    """A child that never touches the outbox and ends normally (interpreter shutdown) leaves the parent's file alone."""
    code = (
        "import ctypes, sys\n"
        "store.put(entry('one'))\n"
        f"fork = os.fork if {fork is os.fork} else ctypes.PyDLL(None).fork\n"
        "if fork() == 0: sys.exit(0)\n"
        "os.wait(); store.put(entry('two')); say(store.stats().pending); balanced(store); store.close()\n"
    )
    other = Other(Path(store.directory), code)
    assert other.hear() == "3"
    other.end()
    assert store.put(entry()).created
    balanced(store)
