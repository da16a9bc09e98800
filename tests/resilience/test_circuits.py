"""Circuits: when they open, who may probe, and what closes them."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chatsdk.core.errors import CircuitOpenError
from chatsdk.core.events import CircuitStateChanged, Event
from chatsdk.core.settings import Settings
from chatsdk.resilience.circuit_rules import PRESETS, CircuitRules
from chatsdk.resilience.circuits import MAX_CIRCUITS, Circuit, Circuits, Counts
from tests.pipeline.kit import LIMIT, FakeClock

ROOT = Path(__file__).resolve().parents[2]


def fail() -> None:
    raise ConnectionError("down")


def work() -> str:
    return "done"


def attempt(circuit: Circuit, function: Callable[[], Any], **facts: Any) -> Any:
    """What a call gives: its result, or the exception."""
    try:
        return circuit.call(function, **facts)
    except Exception as error:
        return error


class Bench:
    """A circuit with a clock that is moved by hand, and what it told."""

    def __init__(self, **rules: Any) -> None:
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.circuit = Circuits(clock=self.clock, emit=self.events.append).define("x", CircuitRules(**rules))

    def fail(self, times: int = 1) -> None:
        for _ in range(times):
            assert isinstance(attempt(self.circuit, fail), ConnectionError)

    def open(self) -> None:
        self.fail(self.circuit.rules.failures)
        assert self.circuit.state == "open"

    @property
    def moves(self) -> list[tuple[str, str]]:
        return [(event.old, event.new) for event in self.events if isinstance(event, CircuitStateChanged)]


def test_opens_after_failures_within_the_window() -> None:
    """Five failures within the window open it; then calls fail at once, with the time of the next try."""
    bench = Bench()
    bench.fail(4)
    assert (bench.circuit.state, bench.circuit.counts.failures) == ("closed", 4)
    bench.fail()
    error = attempt(bench.circuit, work)
    assert isinstance(error, CircuitOpenError)
    assert (error.circuit, error.retry_after, error.retry_at) == ("x", 1.0, bench.clock.time() + 1.0)
    assert not error.retryable
    assert (bench.circuit.state, bench.circuit.retry_after) == ("open", 1.0)
    assert bench.circuit.counts == Counts(failures=0, successes=0, opened=1, rejected=1)
    assert bench.moves == [("closed", "open")]
    assert isinstance(bench.circuit.last_failure, ConnectionError)
    assert pickle.loads(pickle.dumps(error)).retry_after == 1.0


def test_failures_spread_over_more_than_the_window_do_not_open() -> None:
    """Old failures are forgotten."""
    bench = Bench(failures=3, window=120.0)
    for _ in range(6):
        bench.fail()
        bench.clock.now += 70
    assert bench.circuit.state == "closed"
    assert bench.circuit.counts.failures == 1


def test_a_success_clears_the_window() -> None:
    """A server that answers every fifth call is no outage."""
    bench = Bench()
    for _ in range(20):
        bench.fail(4)
        assert attempt(bench.circuit, work) == "done"
    assert bench.circuit.state == "closed"


def test_two_probes_close_it() -> None:
    """After its time one call probes; two good ones close it, and then a failure counts from the beginning."""
    bench = Bench()
    bench.open()
    bench.clock.now += 1.0
    assert bench.circuit.state == "half_open"
    assert attempt(bench.circuit, work) == "done"
    assert (bench.circuit.state, bench.circuit.counts.successes) == ("half_open", 1)
    assert attempt(bench.circuit, work) == "done"
    assert bench.circuit.state == "closed"
    bench.fail(4)
    assert bench.circuit.state == "closed"
    assert bench.moves == [("closed", "open"), ("open", "half_open"), ("half_open", "closed")]


def test_open_time_doubles_up_to_its_limit_and_starts_over() -> None:
    """1, 2, 4 ... 60 s while probes fail; after it closed, 1 s again: a short outage stays cheap."""
    bench = Bench()
    bench.open()
    seen = []
    for _ in range(8):
        seen.append(bench.circuit.retry_after)
        bench.clock.now += bench.circuit.retry_after
        bench.fail()
    assert seen == [1, 2, 4, 8, 16, 32, 60, 60]
    bench.clock.now += 60
    attempt(bench.circuit, work)
    attempt(bench.circuit, work)
    bench.open()
    assert bench.circuit.retry_after == 1.0


def test_one_probe_of_twenty_threads() -> None:
    """Whatever the rush, one call goes out; the others are refused at once, and told to wait: they must not spin."""
    bench = Bench()
    bench.open()
    bench.clock.now += 1.0
    gate, inside = threading.Event(), threading.Event()
    results: list[Any] = []

    def slow() -> str:
        inside.set()
        assert gate.wait(LIMIT)
        return "probe"

    probe = threading.Thread(target=lambda: results.append(attempt(bench.circuit, slow)))
    probe.start()
    assert inside.wait(LIMIT)
    refused = [attempt(bench.circuit, work) for _ in range(19)]
    assert all(isinstance(error, CircuitOpenError) and error.retry_after > 0 for error in refused)
    gate.set()
    probe.join()
    assert results == ["probe"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, ValueError])
def test_neutral_outcome_frees_the_probes_place(interruption: type[BaseException]) -> None:
    """A probe that was interrupted, or failed for reasons of its own, is no verdict: the next call probes."""
    bench = Bench()
    bench.open()
    bench.clock.now += 1.0

    def interrupted() -> None:
        raise interruption

    with pytest.raises(interruption):
        bench.circuit.call(interrupted, is_failure=lambda error: None)
    assert bench.circuit.state == "half_open"
    assert attempt(bench.circuit, work) == "done"


def test_judge_that_raises_does_not_hold_the_probes_place() -> None:
    """A mistake in `is_failure` surfaces, and the next call may probe."""
    bench = Bench()
    bench.open()
    bench.clock.now += 1.0
    assert isinstance(attempt(bench.circuit, fail, is_failure=lambda error: 1 / 0), ZeroDivisionError)
    assert attempt(bench.circuit, work) == "done"


def test_error_may_count_as_success() -> None:
    """A 404 proves that the server is there: it clears the window, and closes what was half open."""
    bench = Bench()
    bench.fail(4)
    attempt(bench.circuit, fail, is_failure=lambda error: False)
    assert bench.circuit.counts.failures == 0
    bench.open()
    bench.clock.now += 1.0
    for _ in range(2):
        attempt(bench.circuit, fail, is_failure=lambda error: False)
    assert bench.circuit.state == "closed"


@pytest.mark.parametrize("outcome", [work, fail])
def test_late_result_of_an_older_state_is_ignored(outcome: Callable[[], Any]) -> None:
    """A call from before the opening neither closes the circuit when it returns, nor opens it again when it fails."""
    bench = Bench()
    bench.fail()  # so that the library is loaded and the window counts
    gate, inside = threading.Event(), threading.Event()

    def slow() -> Any:
        inside.set()
        assert gate.wait(LIMIT)
        return outcome()

    late = threading.Thread(target=lambda: attempt(bench.circuit, slow))
    late.start()
    assert inside.wait(LIMIT)
    bench.fail(4)
    assert bench.circuit.state == "open"
    bench.clock.now += 1.0
    assert attempt(bench.circuit, work) == "done"  # half open now, one of two
    gate.set()
    late.join()
    assert (bench.circuit.state, bench.circuit.counts.successes) == ("half_open", 1)
    assert attempt(bench.circuit, work) == "done"
    assert bench.circuit.state == "closed"


def test_by_hand() -> None:
    """reset() closes and forgets; force_open() opens for a time, then probes decide."""
    bench = Bench()
    bench.circuit.reset()
    bench.circuit.force_open(5.0)
    assert isinstance(attempt(bench.circuit, work), CircuitOpenError)
    assert bench.circuit.retry_after == 5.0
    bench.circuit.reset()
    assert attempt(bench.circuit, work) == "done"
    assert bench.circuit.last_failure is None
    bench.circuit.force_open()
    assert bench.circuit.retry_after == 60.0
    bench.clock.now += 60
    assert attempt(bench.circuit, work) == "done"
    assert bench.moves == [("closed", "open"), ("open", "closed"), ("closed", "open"), ("open", "half_open")]


def test_the_next_call_is_the_probe() -> None:
    """probe_now() ends the time that it is open, and nothing else: a probe that fails opens it for longer, as ever."""
    bench = Bench()
    bench.circuit.probe_now()  # there is nothing to probe
    bench.fail(4)
    bench.circuit.probe_now()
    assert (bench.circuit.state, bench.circuit.counts.failures) == ("closed", 4)
    bench.fail()
    assert bench.circuit.retry_after == 1.0
    bench.circuit.probe_now()
    assert (bench.circuit.state, bench.circuit.retry_after) == ("half_open", 0.0)
    bench.fail()
    assert bench.circuit.retry_after == 2.0
    bench.circuit.probe_now()
    assert attempt(bench.circuit, work) == attempt(bench.circuit, work) == "done"
    assert bench.circuit.state == "closed"


def test_slow_call_counts_where_time_matters() -> None:
    """With a time-out in its rules a call that took longer is a failure, although it returned."""
    bench = Bench(failures=2, timeout=5.0)

    def slow() -> str:
        bench.clock.now += 6
        return "late"

    assert [attempt(bench.circuit, slow), attempt(bench.circuit, slow)] == ["late", "late"]
    assert bench.circuit.state == "open"


def test_listener_may_use_the_circuit() -> None:
    """Listeners are called outside of the lock."""
    circuits: Circuits
    seen: list[str] = []

    def listen(event: Event) -> None:
        seen.append(circuits["api"].state)
        if len(seen) == 1:
            circuits["api"].reset()

    circuits = Circuits(emit=listen)
    for _ in range(5):
        attempt(circuits["api"], fail)
    assert seen == ["open", "closed"]


def test_forms_that_would_go_past_the_rules_are_refused() -> None:
    """The library's `with`, decorator, generator and async forms raise TypeError."""
    bench = Bench()
    bench.fail()
    breaker = bench.circuit._breaker
    with pytest.raises(TypeError), breaker:
        pass
    for form in ("__call__", "decorate", "call_generator", "call_async", "call_async_generator"):
        with pytest.raises(TypeError):
            getattr(breaker, form)(work)


def test_every_public_name_of_the_library_is_true_here() -> None:
    """What a circuit inherits tells the truth about our rules: a new name of the library must be looked at."""
    import circuitbreaker

    bench = Bench()
    bench.open()
    breaker = bench.circuit._breaker
    assert isinstance(breaker, circuitbreaker.CircuitBreaker)
    assert (breaker.closed, breaker.opened, breaker.name, breaker.fallback_function) == (False, True, "x", None)
    assert breaker.failure_count == 0
    assert str(breaker) == "x"
    assert breaker.open_until.timestamp() > 0
    assert isinstance(breaker.last_failure, ConnectionError)
    known = {
        *("FAILURE_THRESHOLD", "RECOVERY_TIMEOUT", "EXPECTED_EXCEPTION", "FALLBACK_FUNCTION", "is_failure", "decorate"),
        *("call", "call_generator", "call_async", "call_async_generator", "reset", "state", "open_until"),
        *("open_remaining", "failure_count", "closed", "opened", "name", "last_failure", "fallback_function"),
    }
    inherited = {name for name in dir(circuitbreaker.CircuitBreaker) if not name.startswith("_")}
    assert inherited - known == set()
    assert circuitbreaker.CircuitBreakerMonitor.circuit_breakers == {}  # it would keep every circuit alive


def test_registry_of_circuits() -> None:
    """api and auth go by the settings, others by the preset of their name; names are bounded."""
    circuits = Circuits(settings=Settings(circuit_failures=2, circuit_open_first=3.0))
    assert circuits.names() == ["api", "auth", "websocket"]
    assert circuits["api"].rules == CircuitRules(failures=2, open_first=3.0)
    assert circuits["websocket"].rules == PRESETS["websocket"]
    assert circuits["database"].rules.timeout == 5.0
    assert circuits["anything"].rules == PRESETS["standard"]
    assert circuits["anything"] is circuits["anything"]
    assert list(circuits) == circuits.names()
    for _ in range(2):
        attempt(circuits["api"], fail)
    assert circuits.open_names() == ["api"]
    assert (circuits.state("api"), circuits.counts("api").opened) == ("open", 1)
    circuits.reset("api")
    assert circuits.call("api", work) == "done"
    for number in range(MAX_CIRCUITS - len(circuits.names())):
        assert circuits[f"user-{number}"].state == "closed"
    with pytest.raises(ValueError, match=str(MAX_CIRCUITS)):
        circuits["one too many"]


def test_presets_are_the_seeds() -> None:
    """The numbers of the seeds' tables."""
    facts = {name: (rules.failures, rules.open_first, rules.open_max) for name, rules in PRESETS.items()}
    assert facts == {
        "default": (5, 1, 60),
        "standard": (5, 30, 30),
        "ai": (3, 60, 60),
        "critical": (3, 15, 15),
        "websocket": (3, 10, 10),
        "database": (3, 30, 30),
        "external_api": (5, 30, 30),
        "ai_call": (3, 60, 60),
        "file": (5, 30, 30),
    }
    assert PRESETS["websocket"].successes == 1
    times = {name: rules.timeout for name, rules in PRESETS.items() if rules.timeout}
    assert times == {"database": 5, "external_api": 15, "ai_call": 45, "file": 60}


def test_library_is_loaded_at_the_first_failure_only() -> None:
    """A process whose calls succeed does not pay for asyncio."""
    code = (
        "import sys, json; from chatsdk.resilience.circuits import Circuits; c = Circuits()['api']\n"
        "c.call(len, 'x'); c.state, c.counts, c.retry_after, c.reset(); before = 'circuitbreaker' in sys.modules\n"
        "try: c.call(int, 'x')\n"
        "except ValueError: pass\n"
        "print(json.dumps([before, 'circuitbreaker' in sys.modules]))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == [False, True]


def test_open_circuit_answers_quickly() -> None:
    """A refused call takes less than a millisecond (seeds: 10 ms)."""
    bench = Bench()
    bench.open()
    began = time.perf_counter()
    for _ in range(100):
        attempt(bench.circuit, work)
    assert (time.perf_counter() - began) / 100 < 0.001


def test_forked_child_can_use_circuits() -> None:
    """Locks that the parent's threads held are replaced, and a probe that runs in the parent is not waited for."""
    bench = Bench()
    bench.open()
    bench.clock.now += 1.0
    circuits = Circuits(clock=bench.clock)
    circuits._circuits["x"] = bench.circuit
    breaker = bench.circuit._breaker
    breaker._enter()  # the parent's probe
    breaker._lock.acquire()
    circuits._lock.acquire()
    circuits.after_fork()
    assert circuits.call("x", work) == "done"
    assert circuits["new"].state == "closed"


class CircuitModel(RuleBasedStateMachine):
    """The same calls on a circuit and on a model of the rules, written the slow and obvious way."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench(failures=3, window=10.0, open_first=1.0, open_max=4.0, successes=2)
        self.failed_at: list[float] = []
        self.opened: float | None = None
        self.open_for = 0.0
        self.next_open = 1.0
        self.good = 0

    def half_open(self) -> bool:
        return self.opened is not None and self.bench.clock.now >= self.opened + self.open_for

    def open_it(self) -> None:
        self.opened, self.open_for, self.good, self.failed_at = self.bench.clock.now, self.next_open, 0, []
        self.next_open = min(4.0, self.next_open * 2)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.bench.clock.now += seconds

    @precondition(lambda self: self.opened is None or self.half_open())
    @rule()
    def call_succeeds(self) -> None:
        assert attempt(self.bench.circuit, work) == "done"
        if self.opened is None:
            self.failed_at = []
        else:
            self.good += 1
            if self.good == 2:
                self.opened, self.next_open, self.good = None, 1.0, 0

    @precondition(lambda self: self.opened is None or self.half_open())
    @rule()
    def call_fails(self) -> None:
        self.bench.fail()
        if self.opened is not None:
            self.open_it()
            return
        self.failed_at = [*self.failed_at, self.bench.clock.now]
        if len([at for at in self.failed_at[-3:] if at >= self.bench.clock.now - 10]) == 3:
            self.open_it()

    @precondition(lambda self: self.opened is None or self.half_open())
    @rule()
    def call_is_neutral(self) -> None:
        attempt(self.bench.circuit, fail, is_failure=lambda error: None)

    @precondition(lambda self: self.opened is not None and not self.half_open())
    @rule()
    def call_is_refused(self) -> None:
        assert isinstance(attempt(self.bench.circuit, work), CircuitOpenError)

    @rule()
    def reset(self) -> None:
        self.bench.circuit.reset()
        self.failed_at, self.opened, self.next_open, self.good = [], None, 1.0, 0

    @invariant()
    def states_agree(self) -> None:
        expected = "closed" if self.opened is None else "half_open" if self.half_open() else "open"
        assert self.bench.circuit.state == expected


TestCircuitModel = CircuitModel.TestCase
TestCircuitModel.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
