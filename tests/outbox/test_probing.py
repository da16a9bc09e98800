"""After an outage was noticed, one lane at a time asks for the server."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core import errors
from chatsdk.core.events import CircuitStateChanged, Event
from chatsdk.core.exchange import Request, Response
from chatsdk.core.settings import Settings
from chatsdk.outbox.outbox import Outbox
from chatsdk.outbox.probing import LOOK, PATIENCE, Probing
from chatsdk.outbox.store import SQLiteStore
from chatsdk.resilience.circuits import Circuits
from chatsdk.resilience.system_clock import SystemClock
from tests.outbox.world import FakeBackend, a_request
from tests.waiting import eventually

LANES = 12


class World:
    """What it is told of the circuit and of lanes that are served."""

    opens = 0.0
    busy = False
    now = 0.0

    def probing(self) -> Probing:
        """One that looks at it."""
        return Probing(lambda: self.opens, lambda: self.busy, lambda: self.now)


def test_a_server_that_is_well_holds_nobody_back() -> None:
    """However many lanes are served."""
    world = World()
    probing = world.probing()
    world.busy = True
    assert probing.wait() == 0


def test_an_outage() -> None:
    """Each lane is refused once; then one at a time, and none while the circuit is open again; all when it closed."""
    world = World()
    probing = world.probing()
    world.opens, world.busy = 1.0, True
    assert probing.wait() == 0
    world.opens = 0.0
    assert probing.wait() == LOOK
    world.busy = False
    assert probing.wait() == 0
    world.opens = 2.0
    assert probing.wait() == 2.0
    world.opens, world.busy = 0.0, True
    assert probing.wait() == LOOK
    probing.over()
    assert probing.wait() == 0


def test_who_hangs_holds_nobody_up() -> None:
    """A lane that is served for longer than a try takes (by a handler that blocks) is not waited for."""
    world = World()
    probing = world.probing()
    world.opens, world.busy = 1.0, True
    probing.wait()
    world.opens = 0.0
    assert probing.wait() == LOOK
    world.now = PATIENCE - 0.1
    assert probing.wait() == LOOK
    world.now = PATIENCE
    assert probing.wait() == 0
    world.busy = False
    assert probing.wait() == 0
    world.busy = True
    assert probing.wait() == LOOK


def test_the_circuit_closes_while_somebody_asks() -> None:
    """What was seen of it a moment before does not outlast its end: nobody would say again that it is over."""
    world = World()
    ends: list[threading.Thread] = []

    def open_a_moment_ago() -> float:
        if not world.opens:
            return 0.0
        world.opens = 0.0
        ends.append(threading.Thread(target=probing.over))
        ends[0].start()
        ends[0].join(0.1)  # it goes on at once, or when this look is over
        return 1.0

    probing = Probing(open_a_moment_ago, lambda: world.busy, lambda: world.now)
    world.opens, world.busy = 1.0, True
    probing.wait()
    ends[0].join(10)
    assert probing.wait() == 0


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 60.0]), st.booleans(), st.booleans())))
def test_it_never_stops_delivery(steps: list[tuple[float, bool, bool]]) -> None:
    """Whatever happened: with the circuit not open and nobody at work, a lane may be claimed; and nobody is told to
    wait longer than the circuit is open, or a moment."""
    world = World()
    probing = world.probing()
    for opens, busy, over in steps:
        world.opens, world.busy = opens, busy
        assert probing.wait() <= max(opens, LOOK)
        if over:
            probing.over()
        world.opens, world.busy = 0.0, False
        assert probing.wait() == 0


def test_one_lane_a_probe_and_all_when_it_is_back(tmp_path: Path) -> None:
    """Real threads, store and circuit, twelve lanes: through an outage the circuit refuses hardly more calls than it
    makes probes; then all is delivered, once and in order."""
    assert refused_for_a_probe(tmp_path) <= 1.5


def test_the_control_has_all_lanes_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same without holding anybody back delivers as well, and is refused many times for each probe."""
    monkeypatch.setattr(Probing, "wait", lambda self: 0.0)
    assert refused_for_a_probe(tmp_path) > 2


def refused_for_a_probe(directory: Path) -> float:
    """An outage of ten probes and its end: how many calls the circuit refused for each of them."""
    clock, lock, away = SystemClock(), threading.Lock(), threading.Event()
    log: list[tuple[str, str]] = []
    away.set()

    def server(request: Request) -> Response:
        if away.is_set():
            never.wait(0.005)  # a try takes its time
            raise errors.NotSentError("refused")
        with lock:
            log.append((request.channel, str(request.key)))
        return Response(status=201, body={"id": request.key})

    def emit(event: Event) -> None:
        if isinstance(event, CircuitStateChanged) and event.new == "closed":
            outbox.wake()

    never = threading.Event()
    circuit = Circuits(clock=clock, emit=emit, settings=Settings(circuit_open_first=0.1, circuit_open_max=0.2))["api"]
    store = SQLiteStore(directory / "state", clock=clock)
    backend: Any = FakeBackend()
    outbox = Outbox(
        store,
        lambda request: circuit.call(server, request),
        backend,
        clock=clock,
        random=random.Random(1).random,
        emit=emit,
        circuit_open=lambda: circuit.retry_after,
    )
    rows = [outbox.accept(a_request(f"c{number % LANES}"), 3600.0).row for number in range(3 * LANES)]
    eventually(lambda: circuit.counts.opened >= 3)
    before = circuit.counts
    eventually(lambda: circuit.counts.opened >= before.opened + 10)
    after = circuit.counts
    away.clear()
    eventually(lambda: store.stats().delivered == len(rows))
    outbox.close(5.0)
    store.close()
    place = {row.key: row.id for row in rows}
    for channel in {row.lane.channel for row in rows}:
        order = [place[key] for where, key in log if where == channel]
        assert order == sorted(order)
    assert len(log) == len(rows)
    return (after.rejected - before.rejected) / (after.opened - before.opened)
