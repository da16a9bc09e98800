"""Delivery when the ground moves: the clock is set back, and another process took our lanes though we live."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from chatsdk.core.errors import NotSentError, StorageError
from chatsdk.core.events import Event, MessageSent
from chatsdk.core.exchange import Request, Response
from chatsdk.core.store import Lane, State
from chatsdk.outbox.calls import Bound
from chatsdk.outbox.store import SQLiteStore
from chatsdk.testing.clock import FakeClock
from tests.outbox.world import World


def test_the_clock_is_set_back(tmp_path: Path) -> None:
    """What is parked waits for the next sweep at most, though it is not due for an hour."""
    clock = FakeClock()
    world = World(store=SQLiteStore(tmp_path / "state", clock=clock), sweep_interval=30.0)
    world.clock = world.server.clock = clock
    world.worker = world.make_worker(world.store)
    row = world.put()
    world.server.faults.append(lambda request: NotSentError("nobody there"))
    world.turn()
    assert world.row(row).state is State.QUEUED
    world.server.faults.clear()
    clock.set_time(clock.time() - 3600)
    due = world.worker.next_due(clock.time())
    assert due is not None
    assert due > clock.time() + 3000
    clock.advance(30)
    assert world.worker.next_due(clock.time()) == clock.time()
    world.run(1)
    assert world.row(row).state is State.SENT
    world.judge()
    world.store.close()


def test_nothing_waits_so_nothing_is_swept() -> None:
    """A client that is idle has no next turn, however long ago its last sweep was."""
    world = World(sweep_interval=30.0)
    world.put()
    world.turn()
    world.clock.advance(1000)
    assert world.worker.next_due(world.clock.time()) is None


def test_two_threads_never_have_one_lane() -> None:
    """Others took us for dead and gave the lane back while our try was out: the thread that claims it again leaves it
    alone until the first one is gone. Nothing is stuck, nothing comes twice."""
    world = World()
    rows = [world.put() for _ in range(3)]
    gates = {1: threading.Event(), 3: threading.Event()}
    begun = {number: threading.Event() for number in gates}
    answer, calls = world.server.answer, []

    def gated(request: Request) -> Response:
        calls.append(request)
        gate = gates.get(number := len(calls))
        if gate is not None:
            begun[number].set()
            assert gate.wait(10)
        return answer(request)

    world.server.answer = gated  # type: ignore[method-assign]
    first = threading.Thread(target=world.worker.turn, args=(world.clock.time(),))
    first.start()
    assert begun[1].wait(10)
    other = world.store.peer()
    world.store.die()
    assert other.claim(world.clock.time()) is not None
    other.release(rows[0].lane)
    world.store._join()
    second = threading.Thread(target=world.worker.turn, args=(world.clock.time(),))
    second.start()
    while second.is_alive() and not begun[3].is_set():  # the second: it went, or it wrongly sends
        second.join(0.01)
    gates[1].set()
    first.join(10)
    gates[3].set()
    second.join(10)
    world.run(5)
    assert world.states()[State.SENT] == 3
    world.judge()


def test_the_clock_is_set_back_while_it_is_noted_that_the_circuit_is_open() -> None:
    """Between what the circuit says and the commit lies a moment; an hour in it must not be an hour's wait."""
    world = World()
    world.circuits["api"].force_open(2.0)
    row = world.put()
    park = world.store.park

    def slow_park(*given: Any) -> None:
        park(*given)
        world.clock.set_time(world.clock.time() - 3600)

    world.store.park = slow_park
    world.turn()
    assert 0 < world.worker.held <= 2.0
    world.store.park = park
    world.clock.advance(2.0)
    assert world.worker.held == 0
    assert world.row(row).state is State.QUEUED


def test_a_handler_wants_to_leave_when_the_message_is_delivered() -> None:
    """In the caller's thread, right after the commit: the lane is given back, and the rest goes out."""
    wishes = [KeyboardInterrupt()]

    def emit(event: Event) -> None:
        if isinstance(event, MessageSent) and wishes:
            raise wishes.pop()

    world = World(emit=emit)
    rows = [world.put() for _ in range(3)]
    with pytest.raises(KeyboardInterrupt):
        world.turn()
    assert world.row(rows[0]).state is State.SENT
    world.drain()
    assert world.states()[State.SENT] == 3
    world.judge()


class Elsewhere:
    """A turn in another thread, which stands still while its try is out."""

    def __init__(self, world: World, worker: Any) -> None:
        self.answer, self.begun, self.goes_on = world.server.answer, threading.Event(), threading.Event()
        self.thread = threading.Thread(target=worker.turn, args=(world.clock.time(),))
        world.server.answer = self.gated  # type: ignore[method-assign]

    def gated(self, request: Request) -> Response:
        """In place of the server's answer."""
        if threading.current_thread() is self.thread:
            self.begun.set()
            assert self.goes_on.wait(10)
        return self.answer(request)

    def begin(self) -> None:
        """Until its try is out."""
        self.thread.start()
        assert self.begun.wait(10)

    def end(self) -> None:
        """Until the turn is over."""
        self.goes_on.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


def test_a_lane_that_was_given_back_is_another_threads_at_once() -> None:
    """A turn that ran out of time gives its lane back, and another thread has it before the first one is gone: nothing
    of what that one clears away is the other's. The lane would be owned by us, and served by nobody, for ever."""
    world = World()
    rows = [world.put() for _ in range(3)]
    other, release = Elsewhere(world, world.worker), world.store.release

    def released(lane: Lane) -> None:
        world.store.release = release
        release(lane)
        other.begin()

    world.store.release = released
    world.worker.serve(world.clock.time(), bound=Bound(start_by=world.clock.monotonic() + 0.01))
    other.end()
    world.run(60.0)
    assert world.states()[State.SENT] == 3
    assert [world.server.tries(row.key) for row in rows] == [1, 1, 1]
    world.judge()


def test_a_client_that_closes_gives_back_no_lane_of_another_one() -> None:
    """Two clients of one process are one owner. The first one's handler blocks, after the last row of a lane; the
    second one serves that lane when the first is closed: nobody else may claim it."""
    blocks, goes_on = threading.Event(), threading.Event()

    def emit(event: Event) -> None:
        if isinstance(event, MessageSent) and not blocks.is_set():
            blocks.set()
            assert goes_on.wait(10)

    world = World(emit=emit)
    world.put()
    handling = threading.Thread(target=world.worker.turn, args=(world.clock.time(),))
    handling.start()
    assert blocks.wait(10)
    world.put()
    second = world.make_worker(world.store)
    other = Elsewhere(world, second)
    other.begin()
    world.worker.stop()
    world.worker.abandon()
    stolen = world.store.peer().claim(world.clock.time())
    other.end()
    goes_on.set()
    handling.join(10)
    assert stolen is None
    assert world.states()[State.SENT] == 2
    world.judge()


def test_the_disk_fails_when_the_commit_was_written(tmp_path: Path) -> None:
    """The row met its fate, though the store said that it failed ("unsynced"): what is owed for it finds that out, and
    the lane goes on."""
    clock = FakeClock()
    world = World(store=SQLiteStore(tmp_path / "state", clock=clock))
    world.clock = world.server.clock = clock
    world.worker = world.make_worker(world.store)
    rows = [world.put() for _ in range(3)]
    finish, database = world.store.finish, world.store._database
    sync = database.sync

    def failing() -> None:
        database.sync = sync
        raise StorageError("the disk failed", code="unsynced")

    def unsynced_finish(*given: Any, **named: Any) -> Any:
        world.store.finish, database.sync = finish, failing
        return finish(*given, **named)

    world.store.finish = unsynced_finish
    world.run(60.0)
    assert world.states()[State.SENT] == 3
    assert [world.server.tries(row.key) for row in rows] == [1, 1, 1]
    world.judge()
    world.store.close()
