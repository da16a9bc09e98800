"""Delivery when the ground moves: the clock is set back, and another process took our lanes though we live."""

from __future__ import annotations

import threading
from pathlib import Path

from chatsdk.core.errors import NotSentError
from chatsdk.core.exchange import Request, Response
from chatsdk.core.store import State
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
