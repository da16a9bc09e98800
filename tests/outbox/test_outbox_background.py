"""The facade with its threads, in real time, over both stores: parallel, bounded, and afresh after a fork."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import traceback
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from chatsdk.core import errors
from chatsdk.core.events import Event, MessagePermanentFailure, MessageQueued, MessageSent
from chatsdk.core.exchange import Request, Response
from chatsdk.core.store import OutboxStore, Row, State
from chatsdk.outbox.outbox import Outbox
from chatsdk.outbox.store import SQLiteStore
from chatsdk.resilience.system_clock import SystemClock
from chatsdk.testing.memory_store import MemoryStore
from tests.outbox.world import FakeBackend, a_request, an_error
from tests.waiting import eventually

SOON = 10.0


class Server:
    """Answers every send; `before` is called first and may wait or raise."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.log: list[tuple[str, str]] = []
        self.keys: set[str] = set()
        self.before: Callable[[Request], object] = lambda request: None

    def __call__(self, request: Request) -> Response:
        self.before(request)
        assert request.key is not None
        with self.lock:
            if request.key not in self.keys:
                self.keys.add(request.key)
                self.log.append((request.channel, request.key))
        return Response(status=201, body={"id": request.key})


def hanging(begun: threading.Event, release: threading.Event) -> Callable[[Request], object]:
    """A server that says when it was asked, and answers when it is told to."""

    def hang(request: Request) -> None:
        begun.set()
        release.wait(SOON)

    return hang


class Running:
    """An outbox with threads, its server and its events."""

    def __init__(self, store: OutboxStore, **options: Any) -> None:
        self.store = store
        self.server = Server()
        self.events: list[Event] = []
        backend: Any = FakeBackend()
        self.outbox = Outbox(
            store,
            lambda request: self.server(request),
            backend,
            clock=SystemClock(),
            random=random.random,
            emit=self.events.append,
            **options,
        )

    def accept(self, channel: str = "general", **request: Any) -> Row:
        """A message."""
        return self.outbox.accept(a_request(channel, **request), 3600.0).row

    def wait(self, row: Row) -> Row:
        """Until its fate is known."""
        found = self.outbox.wait(row.id, SOON)
        assert found is not None
        return found


@pytest.fixture(params=["memory", "sqlite"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    """An outbox over each store; afterwards no thread of it is left."""
    store: Any = MemoryStore(SystemClock())
    if request.param == "sqlite":
        store = SQLiteStore(tmp_path / "state", clock=SystemClock())
    running = Running(store)
    yield running
    running.outbox.close(SOON)
    store.close()
    assert not [each for each in threading.enumerate() if each.name.startswith("chatsdk-outbox-")]


def test_a_message_is_sent_and_its_waiter_told(running: Running) -> None:
    """Accepted, delivered, told in this order; the caller that waits has the result at once."""
    assert not [each for each in threading.enumerate() if each.name.startswith("chatsdk-outbox-")]
    began = monotonic()
    for _ in range(20):
        row = running.wait(running.accept())
        assert (row.state, row.attempts) == (State.SENT, 1)
        assert row.result is not None
        assert row.result["id"] == row.key
    assert monotonic() - began < 4.0  # a poll anywhere would make it 5 s
    assert [type(each) for each in running.events] == [MessageQueued, MessageSent] * 20
    assert running.outbox.get(id=row.id) == running.store.get(id=row.id)
    stored = running.store.get(id=row.id)
    assert stored is not None
    assert (stored.state, stored.attempts, stored.result) == (row.state, row.attempts, row.result)


def test_eight_lanes_overlap(running: Running) -> None:
    """Eight slow lanes take the time of one."""
    together = threading.Barrier(8)
    running.server.before = lambda request: together.wait(SOON)
    rows = [running.accept(f"c{n}") for n in range(8)]
    assert {running.wait(row).state for row in rows} == {State.SENT}


def test_a_backlog_is_sent_in_parallel(running: Running) -> None:
    """What lay here before the first thread is served by as many threads as may be."""
    background, running.outbox.background = running.outbox.background, False
    rows = [running.accept(f"c{n}") for n in range(8)]
    running.outbox.background = background
    together = threading.Barrier(8)
    running.server.before = lambda request: together.wait(SOON)
    running.outbox.start()
    assert {running.wait(row).state for row in rows} == {State.SENT}


def test_a_slow_lane_delays_no_other(running: Running) -> None:
    """While one lane hangs, another is served as quickly as ever."""
    release = threading.Event()
    running.server.before = lambda request: request.channel == "slow" and release.wait(SOON)
    slow = running.accept("slow")
    began = monotonic()
    for n in range(10):
        assert running.wait(running.accept(f"quick{n}")).state is State.SENT
    assert monotonic() - began < 3.0
    assert running.outbox.get(id=slow.id) == slow
    release.set()
    assert running.wait(slow).state is State.SENT


def test_order_holds_under_load(running: Running) -> None:
    """Eight threads put into four lanes, some tries fail: everything arrives once, in the order of its lane."""
    chance = random.Random(7)
    lock = threading.Lock()

    def sometimes(request: Request) -> None:
        with lock:
            number = chance.random()
        if number < 0.1:
            raise errors.NotSentError("refused")
        if number < 0.2:
            raise an_error(503)

    running.server.before = sometimes
    accepted: list[Row] = []

    def put() -> None:
        for n in range(12):
            row = running.accept(f"c{n % 4}")
            with lock:
                accepted.append(row)

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    end = monotonic() + 30
    while running.outbox.stats().pending and monotonic() < end:
        running.outbox.flush(1.0)
    assert running.outbox.stats().delivered == 96
    place = {row.key: row.id for row in accepted}
    for channel in {row.request.channel for row in accepted}:
        order = [place[key] for where, key in running.server.log if where == channel]
        assert order == sorted(order)
    assert len(running.server.log) == 96


def test_a_parked_lane_goes_out_when_its_time_comes(running: Running) -> None:
    """Nobody wakes it: the threads do, on time."""
    tries: list[float] = []
    tick = threading.Event()

    def several(request: Request) -> None:
        tick.wait(0.05)  # meanwhile another thread has gone to watch, and knows nothing of this lane's wait
        tries.append(monotonic())
        if len(tries) < 4:
            raise an_error(429, retry_after=0.2)

    running.server.before = several
    assert running.wait(running.accept()).attempts == 4
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    assert min(gaps) >= 0.2
    assert min(gaps) < 0.6  # and not when the threads next look by themselves


def test_waking(running: Running) -> None:
    """A lane that would wait for long goes out at once when something says that the server is back."""
    back = threading.Event()

    def down(request: Request) -> None:
        if not back.is_set():
            raise errors.NotSentError("refused")

    running.server.before = down
    row = running.accept()
    eventually(lambda: (running.outbox.get(id=row.id) or row).attempts >= 4)  # by now it waits for about a second
    back.set()
    began = monotonic()
    assert running.outbox.wake() >= 0
    assert running.wait(row).state is State.SENT
    assert monotonic() - began < 0.5


def test_send_gives_up_waiting_when_the_lane_is_stuck(running: Running) -> None:
    """A second or two of nothing but failures ends a wait that asked for it; so long an accident is waited for."""

    def down(request: Request) -> None:
        raise errors.NotSentError("refused")

    running.server.before = down
    row = running.accept()
    began = monotonic()
    found = running.outbox.wait(row.id, 10.0, until_stuck=True)
    assert found is not None
    assert found.state is State.QUEUED
    assert 0.7 <= monotonic() - began < 5.0  # five failures, or two seconds


def test_dead_letters_are_told_to_who_waits(running: Running) -> None:
    """A refusal ends the wait, with its reason."""

    def refuse(request: Request) -> None:
        raise an_error(403)

    running.server.before = refuse
    row = running.wait(running.accept())
    assert (row.state, row.reason) == (State.DEAD, "rejected")
    eventually(lambda: isinstance(running.events[-1], MessagePermanentFailure))


def test_what_another_process_put_is_sent(running: Running) -> None:
    """Nobody tells the threads; they look for themselves."""
    running.wait(running.accept())
    other = Running(running.store)
    other.outbox.background = False
    row = other.accept("theirs")
    assert running.wait(row).state is State.SENT


def test_look_is_at_once(running: Running) -> None:
    """Told of a foreign put, the threads do not wait for their next look."""
    running.wait(running.accept())
    other = Running(running.store)
    other.outbox.background = False
    began = monotonic()
    for n in range(5):
        row = other.accept(f"theirs{n}")
        running.outbox.look()
        assert running.wait(row).state is State.SENT
    assert monotonic() - began < 2.0


def test_close_is_bounded_while_a_try_hangs(running: Running) -> None:
    """close() returns in its time; the row in the middle is uncertain, its lane free for the next client."""
    release, begun = threading.Event(), threading.Event()
    running.server.before = hanging(begun, release)
    row = running.accept()
    assert begun.wait(SOON)
    began = monotonic()
    assert not running.outbox.close(0.3)
    assert 0.25 < monotonic() - began < 1.0
    found = running.store.get(id=row.id)
    assert found is not None
    assert (found.state, found.uncertain) == (State.QUEUED, True)
    assert not running.store.lane_status(row.lane).owned
    began = monotonic()
    running.outbox.close(0.2)
    assert monotonic() - began < 1.0
    following = Running(running.store)
    assert following.wait(row_again(following, row)).state is State.SENT
    following.outbox.close(SOON)
    release.set()  # the old try's outcome comes, and is nobody's any more
    eventually(lambda: not running.outbox._here.threads.alive)
    assert running.store.stats().delivered == 1


def row_again(running: Running, row: Row) -> Row:
    """The same row, by another client, which starts to deliver."""
    running.outbox.start()
    return row


def test_close_lets_a_try_end(running: Running) -> None:
    """What ends within the time is written down as it ended."""
    release, begun = threading.Event(), threading.Event()
    running.server.before = hanging(begun, release)
    row, behind = running.accept(), running.accept()
    assert begun.wait(SOON)
    threading.Timer(0.1, release.set).start()
    assert running.outbox.close(SOON)
    found, left = running.store.get(id=row.id), running.store.get(id=behind.id)
    assert found is not None
    assert left is not None
    assert (found.state, left.state, left.attempts) == (State.SENT, State.QUEUED, 0)


def test_closing_ends_every_wait(running: Running) -> None:
    """Who waits for a message that cannot go out is told when the client closes."""

    def down(request: Request) -> None:
        raise errors.NotSentError("refused")

    running.server.before = down
    row = running.accept()
    found: list[Row | None] = []
    waiting = threading.Thread(target=lambda: found.append(running.outbox.wait(row.id, None)))
    waiting.start()
    eventually(lambda: running.outbox._here.waiters._by_row)
    running.outbox.close(SOON)
    waiting.join(SOON)
    assert found[0] is not None
    assert found[0].state is State.QUEUED


def test_run_forever(running: Running) -> None:
    """The long-lived drainer delivers what others put until it is told to stop."""
    running.outbox.background = False
    stop = threading.Event()
    row = running.accept()
    drainer = threading.Thread(target=running.outbox.run_forever, args=(stop,))
    drainer.start()
    assert running.wait(row).state is State.SENT
    stop.set()
    drainer.join(SOON)
    assert not drainer.is_alive()


def test_flush_uses_the_threads(running: Running) -> None:
    """A flush in background mode has the lanes served in parallel, and counts what the threads sent."""
    background, running.outbox.background = running.outbox.background, False
    for n in range(4):
        running.accept(f"c{n}")
    running.outbox.background = background
    together = threading.Barrier(4)
    running.server.before = lambda request: together.wait(SOON)
    report = running.outbox.flush(SOON)
    assert (report.sent, report.queued) == (4, 0)


def test_flush_waits_for_a_try_under_way(running: Running) -> None:
    """A message that a thread is sending just now is waited for, within the budget."""
    release, begun = threading.Event(), threading.Event()
    running.server.before = hanging(begun, release)
    running.accept()
    assert begun.wait(SOON)
    began = monotonic()
    assert running.outbox.flush(0.3).queued == 1
    assert monotonic() - began < 1.0
    threading.Timer(0.1, release.set).start()
    assert running.outbox.flush(SOON).sent == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork_the_child_begins_afresh(tmp_path: Path) -> None:
    """With threads at work in the parent, the child accepts and delivers by threads of its own; the parent goes on; no
    row is lost or sent twice."""
    store = SQLiteStore(tmp_path / "state", clock=SystemClock())
    running = Running(store, poll=60.0)  # neither finds by chance what the other put
    read, write = os.pipe()

    def told(request: Request) -> None:
        os.write(write, f"{os.getpid()} {request.channel}\n".encode())

        if request.channel == "held":
            hold.wait(SOON)

    hold = threading.Event()
    running.server.before = told
    running.wait(running.accept("before"))
    held = running.accept("held")
    threads, worker = running.outbox._here.threads, running.outbox._here.worker
    asleep: Any = threads._to_watcher
    # one at work on "held", one asleep as watcher, and no third that may still be looking
    eventually(lambda: worker.busy and asleep._waiters and threads._spare + 2 == threads.alive)
    pid = os.fork()
    if pid == 0:
        code = 1
        with contextlib.suppress(BaseException):
            try:
                row = running.accept("child")
                found = running.outbox.wait(row.id, SOON)
                code = 0 if found is not None and found.state is State.SENT else 2
                running.outbox.close(1.0)
            except BaseException:
                traceback.print_exc()
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    hold.set()
    assert os.waitstatus_to_exitcode(status) == 0
    assert running.wait(held).state is State.SENT
    assert running.wait(running.accept("after")).state is State.SENT
    running.outbox.close(SOON)
    assert store.stats().delivered == 4
    store.close()
    os.close(write)
    with os.fdopen(read) as lines:
        sends = sorted(line.split()[::-1] for line in lines)
    me = str(os.getpid())
    assert sends == [["after", me], ["before", me], ["child", str(pid)], ["held", me]]
