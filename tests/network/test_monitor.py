"""The monitor: who is told, what runs while somebody watches, and what does no harm."""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from chatsdk.core.events import Event
from chatsdk.core.network_events import NetworkQualityChanged
from chatsdk.network.estimate import ANSWERS
from chatsdk.network.monitor import NetworkMonitor
from chatsdk.network.quality import NetworkMetrics, Quality
from chatsdk.testing.clock import FakeClock
from tests.waiting import eventually

SOON = 10.0


class Steps(FakeClock):
    """A clock that stands still; who waits on it waits for `step`. `waits`: how long each wanted to."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._stepped = threading.Condition()
        self._step = 0

    def wait(self, event: Any, timeout: float) -> bool:
        with self._stepped:
            self.waits.append(timeout)
            due = self.monotonic() + timeout
            self._stepped.notify_all()
            while not event.is_set() and self.monotonic() < due:
                self._stepped.wait(0.01)
        return bool(event.is_set())

    def after_fork(self) -> None:
        """In a child: whoever waited in the parent may have held the locks."""
        self._lock = threading.Lock()
        self._stepped = threading.Condition()

    def step(self, seconds: float) -> None:
        """Time passes."""
        with self._stepped:
            self.advance(seconds)
            self._stepped.notify_all()


def told_last(seen: list[Quality]) -> bool:
    return bool(seen) and seen[-1] is Quality.OFFLINE


def threads() -> list[str]:
    """The monitor's threads that run."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("chatsdk-network"))


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    """Fail a test that leaves a thread of a monitor behind."""
    yield
    eventually(lambda: threads() == [])


@pytest.fixture
def clock() -> Steps:
    return Steps()


def make(clock: Any, **facts: Any) -> NetworkMonitor:
    return NetworkMonitor(clock=clock, **{"watch_link": False, **facts})


def lose(monitor: NetworkMonitor, clock: Any, count: int = 2) -> None:
    """Nobody answers any more."""
    for _ in range(count):
        clock.advance(1)
        monitor.sample(None, False)


def answer(monitor: NetworkMonitor, clock: Any, seconds: float = 0.02, count: int = 20) -> None:
    """The server answers."""
    for _ in range(count):
        clock.advance(1)
        monitor.sample(seconds)


# ---- telling


def test_who_watches_is_told_at_once_and_at_each_change(clock: Steps) -> None:
    """Then no more."""
    monitor, seen = make(clock), []
    end = monitor.watch(lambda metrics: seen.append((metrics.quality, metrics.reason)))
    assert seen == [("GOOD", "")]
    answer(monitor, clock)
    eventually(lambda: len(seen) == 2)
    lose(monitor, clock)
    eventually(lambda: len(seen) == 3)
    end()
    end()
    answer(monitor, clock)
    eventually(lambda: threads() == [])
    assert seen == [("GOOD", ""), ("EXCELLENT", ""), ("OFFLINE", "no_contact")]
    assert not monitor.watched


def test_a_change_is_an_event(clock: Steps) -> None:
    """With old and new level, reason, latency and loss; without anybody who watches as well."""
    events: list[Event] = []
    monitor = make(clock, emit=events.append)
    answer(monitor, clock, 0.6)
    eventually(lambda: len(events) == 1)
    event = events[0]
    assert isinstance(event, NetworkQualityChanged)
    assert (event.quality, event.old, event.reason, event.loss) == ("POOR", "GOOD", "slow", 0.0)
    assert event.latency == pytest.approx(600)
    assert event.to_dict()["event"] == "network:quality"
    assert type(event.to_dict()["quality"]) is Quality  # a str to JSON


def test_one_that_raises_is_reported_once(clock: Steps, caplog: pytest.LogCaptureFixture) -> None:
    """It is still told, and so are the others."""
    monitor, seen, calls = make(clock), [], []

    def bad(metrics: NetworkMetrics) -> None:
        calls.append(metrics.quality)
        raise RuntimeError("listener")

    with caplog.at_level(logging.ERROR, logger="chatsdk.network"):
        ends = [monitor.watch(bad), monitor.watch(lambda metrics: seen.append(metrics.quality))]
        answer(monitor, clock)
        lose(monitor, clock)
        eventually(lambda: len(seen) == 3)
    assert calls == seen == ["GOOD", "EXCELLENT", "OFFLINE"]
    assert sum("observer" in record.message for record in caplog.records) == 1
    for end in ends:
        end()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_one_that_wants_to_leave_stays(clock: Steps, error: type[BaseException]) -> None:
    """In a thread of ours it would end only that, and nobody would hear of anything any more. In the caller's thread it
    is granted, and then it does not watch."""
    monitor, seen = make(clock), []

    def leaves(metrics: NetworkMetrics) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise error("a listener that wants to leave")

    ends = [monitor.watch(leaves), monitor.watch(lambda metrics: seen.append(metrics.quality))]
    answer(monitor, clock)
    lose(monitor, clock)
    answer(monitor, clock)
    eventually(lambda: seen == ["GOOD", "EXCELLENT", "OFFLINE", "POOR", "EXCELLENT"])
    for end in ends:
        end()

    def leaves_at_once(metrics: NetworkMetrics) -> None:
        raise error("at once")

    with pytest.raises(error):
        monitor.watch(leaves_at_once)
    assert not monitor.watched


def test_one_that_blocks_delays_no_sample(clock: Steps) -> None:
    """Calls go on, and what it missed is told when it is free again: the newest, in order."""
    monitor, free = make(clock), threading.Event()
    seen: list[Quality] = []

    def slow(metrics: NetworkMetrics) -> None:
        if seen:
            assert free.wait(SOON)
        seen.append(metrics.quality)

    end = monitor.watch(slow)
    began = time.monotonic()
    for _ in range(300):
        answer(monitor, clock, count=5)
        lose(monitor, clock, count=10)
    assert time.monotonic() - began < SOON / 2
    free.set()
    eventually(lambda: len(seen) > 50 and seen[-1] is Quality.OFFLINE and threads() == [])
    assert len(seen) <= 110
    end()


def test_an_observer_never_hears_old_news_last(clock: Steps) -> None:
    """What it is told at once and what happens meanwhile come from two threads."""
    for _ in range(30):
        monitor = make(clock)
        seen: list[Quality] = []
        answer(monitor, clock)

        def watch(monitor: NetworkMonitor = monitor, seen: list[Quality] = seen) -> None:
            monitor.watch(lambda metrics: seen.append(metrics.quality))

        watcher = threading.Thread(target=watch)
        watcher.start()
        lose(monitor, clock)
        watcher.join()
        eventually(partial(told_last, seen))
        eventually(lambda: threads() == [])
        assert seen[-1] is Quality.OFFLINE


def test_an_observer_may_do_anything(clock: Steps) -> None:
    """Read, sample, watch and end itself while it is told."""
    monitor = make(clock)
    ends: list[Callable[[], None]] = []
    seen: list[Quality] = []

    def curious(metrics: NetworkMetrics) -> None:
        seen.append(monitor.metrics().quality)
        monitor.sample(0.02)
        if len(seen) == 2:
            ends[0]()
            ends.append(monitor.watch(lambda _: None))

    ends.append(monitor.watch(curious))
    answer(monitor, clock)
    eventually(lambda: len(ends) == 2)
    lose(monitor, clock)
    eventually(lambda: threads() == [])
    assert len(seen) == 2
    ends[1]()


def test_without_threads_the_caller_tells(clock: Steps) -> None:
    """One-shot mode."""
    events: list[Event] = []
    monitor = make(clock, emit=events.append, probe=lambda: pytest.fail("a probe"), background=False, watch_link=True)
    end = monitor.watch(lambda _: None)
    lose(monitor, clock)
    assert len(events) == 1
    assert threads() == []
    end()


def test_contact_that_is_back_wakes_what_waits(clock: Steps) -> None:
    """After OFFLINE, and when the system has a network again."""
    woken: list[int] = []
    monitor = make(clock, restored=lambda: woken.append(1))
    lose(monitor, clock)
    answer(monitor, clock, count=1)
    eventually(lambda: len(woken) == 1)
    monitor.network(False)
    assert monitor.quality is Quality.OFFLINE
    monitor.network(True)
    eventually(lambda: len(woken) == 2)


def test_one_that_blocks_holds_up_nothing_that_waits_for_the_network(clock: Steps) -> None:
    """Messages go out again, whoever is still looking at the outage."""
    woken, looking, free = threading.Event(), threading.Event(), threading.Event()
    monitor = make(clock, restored=woken.set)

    def slow(metrics: NetworkMetrics) -> None:
        if metrics.quality is Quality.OFFLINE:
            looking.set()
            free.wait(SOON)

    end = monitor.watch(slow)
    lose(monitor, clock)
    assert looking.wait(SOON)
    answer(monitor, clock)
    assert woken.wait(SOON)
    free.set()
    end()


def test_what_is_told_may_raise(clock: Steps, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever emits or wakes: it is logged, and the next change is told."""
    told: list[Event] = []

    def emit(event: Event) -> None:
        told.append(event)
        raise RuntimeError("emit")

    def wake() -> None:
        raise RuntimeError("wake")

    monitor = make(clock, emit=emit, restored=wake)
    lose(monitor, clock)
    answer(monitor, clock)
    eventually(lambda: len(told) == 3 and threads() == [])
    assert [event.to_dict()["quality"] for event in told] == ["OFFLINE", "POOR", "EXCELLENT"]
    assert len(caplog.records) == 4


# ---- probing


class Probes:
    """A probe that says how often it was asked, and brings a sample as a real one does."""

    def __init__(self, answers: bool = True) -> None:
        self.count = 0
        self.answers = answers
        self.monitor: NetworkMonitor | None = None

    def __call__(self) -> None:
        self.count += 1
        if self.answers and self.monitor is not None:
            self.monitor.sample(0.02)


def asked_and_waits(probes: Probes, clock: Steps, times: int) -> bool:
    """It was asked so often, and waits for the next time."""
    return probes.count == times and len(clock.waits) == times


@pytest.fixture
def probes(clock: Steps) -> Probes:
    made = Probes()
    made.monitor = make(clock, probe=made)
    return made


def test_nobody_listens_nothing_is_probed(clock: Steps, probes: Probes) -> None:
    """No request and no thread, however long."""
    assert probes.monitor is not None
    for _ in range(100):
        clock.step(10)
    answer(probes.monitor, clock)
    eventually(lambda: threads() == [])
    assert probes.count == 0


def test_an_idle_client_probes_every_ten_seconds_while_somebody_listens(clock: Steps, probes: Probes) -> None:
    """At once, then every ten seconds, and no more when the last one has gone."""
    monitor = probes.monitor
    assert monitor is not None
    ends = [monitor.watch(lambda _: None) for _ in range(3)]
    for number in range(1, 6):
        eventually(partial(asked_and_waits, probes, clock, number))
        clock.step(9.9)
        assert probes.count == number
        clock.step(0.1)
    eventually(lambda: probes.count == 6)
    assert threads() == ["chatsdk-network-probe"]
    for end in ends:
        end()
    eventually(lambda: threads() == [])
    clock.step(100)
    assert probes.count == 6


def test_traffic_is_the_probe(clock: Steps, probes: Probes) -> None:
    """A client that talks asks nothing beside."""
    monitor = probes.monitor
    assert monitor is not None
    monitor.sample(0.02)
    end = monitor.watch(lambda _: None)
    for _ in range(20):
        eventually(lambda: clock.waits)
        clock.waits.clear()
        clock.step(9)
        monitor.sample(0.02)
        clock.step(1)
    assert probes.count == 0
    end()


def test_a_probe_that_brings_nothing_is_not_repeated_at_once(clock: Steps, caplog: pytest.LogCaptureFixture) -> None:
    """A circuit that is open, a health URL that is missing: the pace is the same, and it is said once."""
    asked: list[float] = []
    probes = Probes()

    def broken() -> None:
        probes.count += 1
        asked.append(clock.monotonic())
        raise ConnectionError("nobody there")

    monitor = make(clock, probe=broken)
    with caplog.at_level(logging.DEBUG, logger="chatsdk.network"):
        end = monitor.watch(lambda _: None)
        for number in range(1, 5):
            eventually(partial(asked_and_waits, probes, clock, number))
            clock.step(10)
        eventually(lambda: len(asked) == 5)
    assert [round(b - a, 3) for a, b in pairwise(asked)] == [10.0] * 4
    assert len(caplog.records) == 1
    end()


def test_a_slow_probe_delays_nobody_but_itself(clock: Steps) -> None:
    """Samples, changes and the end of watching go on while it hangs."""
    began, free, seen = threading.Event(), threading.Event(), []

    def slow() -> None:
        began.set()
        free.wait(SOON)

    monitor = make(clock, probe=slow)
    end = monitor.watch(lambda metrics: seen.append(metrics.quality))
    assert began.wait(SOON)
    answer(monitor, clock)
    eventually(lambda: seen == ["GOOD", "EXCELLENT"])
    end()
    began_closing = time.monotonic()
    monitor.close(0.05)
    assert time.monotonic() - began_closing < SOON / 2
    free.set()


def test_watching_again_begins_no_second_thread(clock: Steps, probes: Probes) -> None:
    """However often somebody comes and goes, and no probe more than one in ten seconds."""
    assert probes.monitor is not None
    for _ in range(50):
        probes.monitor.watch(lambda _: None)()
    end = probes.monitor.watch(lambda _: None)
    eventually(lambda: threads() == ["chatsdk-network-probe"])
    eventually(lambda: probes.count == 1)
    end()
    eventually(lambda: threads() == [])
    assert probes.count == 1


def test_a_network_that_is_there_again_is_asked_at_once(clock: Steps, probes: Probes) -> None:
    """Not after the rest of ten seconds."""
    monitor = probes.monitor
    assert monitor is not None
    end = monitor.watch(lambda _: None)
    eventually(lambda: probes.count == 1 and clock.waits)
    monitor.network(False)
    monitor.network(True)
    eventually(lambda: probes.count == 2)
    eventually(lambda: monitor.quality is not Quality.OFFLINE)
    end()


def lose_probes(monitor: NetworkMonitor, clock: Steps, reason: str = "", count: int = 5) -> None:
    """Probes find nobody, or somebody else."""
    for _ in range(count):
        clock.advance(10)
        monitor.probed(None, False, 0, reason)


@pytest.mark.parametrize("reason", ["", "captive_portal", "rewriting_proxy"])
def test_probes_that_were_never_answered_say_nothing_where_calls_are(clock: Steps, reason: str) -> None:
    """A health URL that is missing, slow or a page: not a sample, so an idle client goes by what its calls found."""
    monitor = make(clock)
    answer(monitor, clock)
    before = monitor.metrics().samples
    lose_probes(monitor, clock, reason)
    assert (monitor.quality, monitor.metrics().samples) == ("EXCELLENT", before)


@pytest.mark.parametrize(("reason", "named"), [("", "no_contact"), ("captive_portal", "captive_portal")])
def test_probes_count_where_nothing_says_otherwise(clock: Steps, reason: str, named: str) -> None:
    """Nobody was ever heard; or probes were answered before; or the network is another one since."""
    unheard = make(clock)
    lose_probes(unheard, clock, reason)
    assert (unheard.quality, unheard.reason) == ("OFFLINE", named)
    answered = make(clock)
    answer(answered, clock)
    clock.advance(10)
    answered.probed(0.02)
    lose_probes(answered, clock, reason)
    assert (answered.quality, answered.reason) == ("OFFLINE", named)
    moved = make(clock)
    answer(moved, clock)
    clock.advance(1)
    moved.network(True)
    lose_probes(moved, clock, reason)
    assert (moved.quality, moved.reason) == ("OFFLINE", named)
    eventually(lambda: threads() == [])


def test_a_probe_without_a_connection_always_counts(clock: Steps) -> None:
    """Whatever is wrong with the URL, somebody would have listened."""
    monitor = make(clock)
    answer(monitor, clock)
    lose_probes(monitor, clock, "unreachable")
    assert (monitor.quality, monitor.reason) == ("OFFLINE", "no_contact")
    eventually(lambda: threads() == [])


def test_probes_are_trusted_until_calls_say_otherwise_and_again_when_answered(clock: Steps) -> None:
    """Answered, then pages while calls are answered: pages are no news. Answered again: pages are a portal's."""
    monitor = make(clock)
    answer(monitor, clock)
    monitor.probed(0.02)
    lose_probes(monitor, clock, "captive_portal", 1)
    answer(monitor, clock, count=2)
    lose_probes(monitor, clock, "captive_portal")
    assert monitor.quality is not Quality.OFFLINE
    monitor.probed(0.02)
    lose_probes(monitor, clock, "captive_portal", 10)
    assert (monitor.quality, monitor.reason) == ("OFFLINE", "captive_portal")
    eventually(lambda: threads() == [])


def test_closed_is_quiet(clock: Steps, probes: Probes) -> None:
    """No thread, no probe; samples still do no harm. Idempotent."""
    monitor = probes.monitor
    assert monitor is not None
    monitor.watch(lambda _: None)
    monitor.close(SOON)
    monitor.close(SOON)
    assert threads() == []
    monitor.watch(lambda _: None)
    assert threads() == []
    answer(monitor, clock)


def test_the_wall_clock_may_jump(clock: Steps) -> None:
    """An hour forward and back: nothing is measured by it."""
    monitor = make(clock)
    answer(monitor, clock)
    before = monitor.metrics()
    for jump in (3600, -7200):
        clock.set_time(clock.time() + jump)
        assert monitor.metrics() == before


# ---- threads and processes


def test_many_threads_sample_at_once() -> None:
    """The books are right afterwards."""
    monitor = NetworkMonitor(watch_link=False)

    def work(number: int) -> None:
        for turn in range(2000):
            monitor.sample(0.02 * number, turn % 9 != number)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    metrics, estimate = monitor.metrics(), monitor._estimate
    assert metrics.samples == 60
    assert estimate._failed == sum(rank < 0 for _, rank in estimate._tries)
    assert sum(estimate._ranks) == len(estimate._answers) == ANSWERS


@pytest.mark.parametrize("hook", [True, False])
def test_a_forked_child_goes_on(clock: Steps, probes: Probes, hook: bool) -> None:
    """With the parent's lock held, its threads gone, and (as with uWSGI) no hook called: samples, telling and probes
    work in the child, and the parent's go on."""
    monitor, seen = probes.monitor, []
    assert monitor is not None
    end = monitor.watch(lambda metrics: seen.append(metrics.quality))
    eventually(lambda: probes.count == 1 and clock.waits)
    if hook:
        monitor._lock.acquire()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            clock.after_fork()
            if hook:
                monitor.after_fork()
            seen.clear()
            answer(monitor, clock)
            lose(monitor, clock, count=5)
            eventually(lambda: seen and seen[-1] is Quality.OFFLINE)
            clock.waits.clear()
            clock.advance(20)
            finish = monitor.watch(lambda _: None)
            eventually(lambda: probes.count == 2)
            finish()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if hook:
        monitor._lock.release()
    ended = os.waitpid(child, 0)[1]
    assert os.waitstatus_to_exitcode(ended) == 0
    answer(monitor, clock)
    eventually(lambda: seen == ["GOOD", "EXCELLENT"])
    end()


def test_a_sample_costs_little() -> None:
    """A few microseconds, on a busy machine too."""
    sample, best = NetworkMonitor(watch_link=False).sample, 1.0
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(500):
            sample(0.02, True, 300)
        best = min(best, (time.perf_counter() - began) / 500)
    assert best < 8e-6
