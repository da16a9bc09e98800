"""Features that fall back instead of failing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from chatsdk.core.errors import (
    BadRequest,
    CircuitOpenError,
    DeadlineExceeded,
    Forbidden,
    NotSentError,
    RateLimited,
    ServerError,
)
from chatsdk.core.events import CircuitStateChanged, Event
from chatsdk.core.network_events import DegradationChanged, FeatureStateChanged
from chatsdk.network.degradation import Feature, Level
from chatsdk.network.features import MAX_FEATURES, RECHECK, Features
from chatsdk.network.quality import Quality
from chatsdk.resilience.circuits import Circuits
from chatsdk.resilience.deadline import bounded
from chatsdk.resilience.emitter import Emitter
from chatsdk.resilience.metrics import Metrics
from chatsdk.testing.clock import FakeClock


class World:
    """Features with real circuits; the network is what the test says."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.emitter = Emitter(self.clock)
        self.events: list[Event] = []
        self.emitter.subscribe(Event, self.events.append)
        self.metrics = Metrics(self.clock)
        self.circuits = Circuits(clock=self.clock, emit=self.emitter.emit)
        self.quality = Quality.GOOD
        self.features = Features(
            self.circuits, lambda: self.quality, clock=self.clock, emit=self.emitter.emit, count=self.metrics.count
        )
        self.emitter.subscribe(CircuitStateChanged, lambda _: self.features.refresh())

    @property
    def fallbacks(self) -> float:
        return self.metrics.value("fallbacks_used_total")

    def told(self) -> list[tuple[Any, ...]]:
        """Events about features and levels, in short."""
        return [
            (event.feature, event.available, event.reason)
            if isinstance(event, FeatureStateChanged)
            else (event.old, event.level, event.effect)
            for event in self.events
            if isinstance(event, (FeatureStateChanged, DegradationChanged))
        ]


@pytest.fixture
def world() -> World:
    return World()


def fails(error: Exception) -> Callable[[], str]:
    def primary() -> str:
        raise error

    return primary


def test_the_primary_answers_while_all_is_well(world: World) -> None:
    """And the fallback is not called."""
    assert world.features.run("search", lambda: "found", fails(AssertionError())) == "found"
    assert world.fallbacks == 0


@pytest.mark.parametrize(
    "error",
    [
        NotSentError("no"), ServerError("no", status=503), RateLimited("no", status=429), ConnectionResetError(),
        TimeoutError(), CircuitOpenError(circuit="api", retry_after=1.0, retry_at=2.0),
    ],
)  # fmt: skip
def test_an_outage_falls_back(world: World, error: Exception) -> None:
    """And is counted by the seeds' name."""
    assert world.features.run("search", fails(error), lambda: "local") == "local"
    assert world.fallbacks == 1


@pytest.mark.parametrize(
    "error", [BadRequest("no", status=400), Forbidden("no", status=403), ValueError(), FileNotFoundError(), KeyError()]
)
def test_a_mistake_surfaces(world: World, error: Exception) -> None:
    """A fallback would hide it."""
    with pytest.raises(type(error)):
        world.features.run("search", fails(error), lambda: "local")
    assert world.fallbacks == 0


def test_a_caller_may_say_what_falls_back(world: World) -> None:
    """For libraries with errors of their own."""
    run = world.features.run
    assert (
        run("ai", fails(KeyError()), lambda: "local", is_failure=lambda error: isinstance(error, KeyError)) == "local"
    )


def test_without_a_fallback_the_error_is_the_primarys(world: World) -> None:
    """Also while the feature is off: it says best what is wrong."""
    for _ in range(5):
        with pytest.raises(ServerError):
            world.features.run("search", fails(ServerError("no", status=503)))
    with pytest.raises(CircuitOpenError):
        world.features.run("search", lambda: "never")
    world.quality = Quality.OFFLINE
    world.circuits.reset("search")
    assert world.features.run("search", lambda: "found") == "found"


def test_a_fallback_that_fails_raises_its_own(world: World) -> None:
    """With the primary's error as its context."""
    with pytest.raises(KeyError):
        world.features.run("search", fails(NotSentError("no")), fails(KeyError()))


def test_five_failures_switch_a_feature_off_and_a_probe_switches_it_on(world: World) -> None:
    """While it is off the primary is left alone; then it comes back by itself. Level and feature are told."""
    calls = []

    def primary() -> str:
        calls.append(1)
        raise ServerError("no", status=500)

    for _ in range(20):
        assert world.features.run("search", primary, lambda: "local") == "local"
    assert len(calls) == 5
    assert not world.features.is_available("search")
    assert world.features.states()["search"] == "circuit search"
    assert world.features.level == "moderate"
    world.clock.advance(30)
    assert world.features.is_available("search")
    for _ in range(2):
        assert world.features.run("search", lambda: "found", lambda: "local") == "found"
    assert world.features.level == "none"
    assert world.told() == [
        ("search", False, "circuit search"),
        ("none", "moderate", "warning"),
        ("search", True, ""),
        ("moderate", "none", ""),
    ]


def test_a_probe_that_came_back_is_enough_for_the_level(world: World) -> None:
    """A server that is back and a client that asks little: the page does not go on showing an error."""
    for _ in range(5):
        world.circuits["api"].call(lambda: None)
        with pytest.raises(TimeoutError):
            world.circuits["api"].call(fails(TimeoutError()))
    for _ in range(4):
        with pytest.raises(TimeoutError):
            world.circuits["api"].call(fails(TimeoutError()))
    assert world.features.level == "severe"
    world.clock.advance(1)
    assert (world.circuits.state("api"), world.features.level) == ("half_open", "severe")
    world.circuits["api"].call(lambda: None)
    assert (world.circuits.state("api"), world.features.level) == ("half_open", "none")


def test_offline_falls_back_at_once_and_looks_again(world: World) -> None:
    """One call every ten seconds goes to the primary, or a client that only reads would never learn that the network
    is back. What fails meanwhile is not the feature's fault."""
    world.quality = Quality.OFFLINE
    calls = []

    def primary() -> str:
        calls.append(1)
        raise NotSentError("no network")

    for _ in range(12):
        for _ in range(10):
            assert world.features.run("search", primary, lambda: "local") == "local"
        assert not world.features.is_available("search")
        world.clock.advance(RECHECK)
        assert world.features.is_available("search")
    assert len(calls) == 12
    assert world.circuits.state("search") == "closed"
    world.quality = Quality.GOOD
    assert world.features.run("search", lambda: "found", primary) == "found"


def test_what_works_offline_is_tried_offline(world: World) -> None:
    """A feature that says so."""
    world.quality = Quality.OFFLINE
    assert world.features.is_available("messages")
    assert world.features.run("messages", lambda: "queued", lambda: "no") == "queued"


@pytest.mark.parametrize(("left", "took", "counts"), [(0.3, 0.3, 0), (1.5, 1.5, 1), (60, 0.3, 1)], ids=str)
def test_an_impatient_caller_switches_nothing_off(world: World, left: float, took: float, counts: int) -> None:
    """A deadline that left the primary less than a second says nothing of the feature; the fallback runs all the same,
    also where nothing is left."""

    def slow() -> str:
        world.clock.advance(took)
        raise DeadlineExceeded

    with bounded(left, world.clock):
        assert world.features.run("search", slow, lambda: "instead") == "instead"
    assert world.circuits.counts("search").failures == counts
    with bounded(0, world.clock):
        assert world.features.run("search", lambda: pytest.fail("called"), lambda: "instead") == "instead"
    assert world.circuits.counts("search").failures == counts


def test_somebody_says_that_a_feature_is_off(world: World) -> None:
    """And that it is there again."""
    world.features.report("messages", False, "the disk is full")
    assert not world.features.is_available("messages")
    assert world.features.run("messages", fails(AssertionError()), lambda: "kept") == "kept"
    assert (world.features.level, world.features.verdict().reasons) == ("critical", ("feature messages",))
    world.features.report("messages", True)
    world.features.report("messages", True)
    assert world.features.level == "none"
    assert world.told() == [
        ("messages", False, "the disk is full"),
        ("none", "critical", "full-screen"),
        ("messages", True, ""),
        ("critical", "none", ""),
    ]


def test_the_network_changes_the_level(world: World) -> None:
    """When `refresh` is called; twice the same is told once."""
    for quality in (Quality.POOR, Quality.POOR, Quality.OFFLINE, Quality.EXCELLENT):
        world.quality = quality
        world.features.refresh()
        world.features.refresh()
    levels = [facts for facts in world.told() if facts[0] in tuple(Level)]
    assert levels == [("none", "minor", "info"), ("minor", "severe", "error"), ("severe", "none", "")]


def test_the_decorator(world: World) -> None:
    """The same arguments for both, and the name of the primary."""

    @world.features.with_fallback("search", lambda query, limit=5: [f"local {query}"] * limit)
    def search(query: str, limit: int = 5) -> list[str]:
        """Search."""
        if query == "down":
            raise NotSentError("no")
        return [query] * limit

    assert search("a", limit=2) == ["a", "a"]
    assert search("down", limit=1) == ["local down"]
    assert (search.__name__, search.__doc__) == ("search", "Search.")


def test_features_of_ones_own(world: World) -> None:
    """Declared with their impact, or just used: then a moderate one with a circuit of its name."""
    world.features.add(Feature(name="tips", circuit="ai_call", impact=Level.MINOR))
    for _ in range(3):  # the preset ai_call opens after three
        world.features.run("tips", fails(TimeoutError()), lambda: "")
    assert world.features.level == "minor"
    for _ in range(5):
        world.features.run("maps", fails(TimeoutError()), lambda: "")
    assert world.features.level == "moderate"
    assert world.features.is_available("never heard of")


def test_names_are_bounded(world: World) -> None:
    """A name per message is a mistake that is said, not memory that is lost."""
    for number in range(MAX_FEATURES - len(world.features.states())):
        world.features.report(f"feature {number}", True)
    with pytest.raises(ValueError, match="more than"):
        world.features.run("one more", lambda: None)


def test_a_listener_may_use_features(world: World) -> None:
    """From inside of an event: what that changes is told after it, in order."""

    def react(event: FeatureStateChanged) -> None:
        if event.feature == "search" and not event.available:
            world.features.report("presence", False, "hidden with it")

    world.emitter.subscribe(FeatureStateChanged, react)
    world.features.report("search", False, "broken")
    assert world.told() == [
        ("search", False, "broken"),
        ("none", "moderate", "warning"),
        ("presence", False, "hidden with it"),
    ]


def test_many_threads(world: World) -> None:
    """Reports and runs at once: the last thing told is how it is."""

    def work(number: int) -> None:
        for turn in range(100):
            world.features.report("presence", (turn + number) % 2 == 0)
            world.features.run("search", lambda: 1, lambda: 2)

    workers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    told = [event for event in world.events if isinstance(event, FeatureStateChanged)]
    assert told[-1].available is world.features.is_available("presence")
    for before, after in pairwise(told):
        assert before.available is not after.available


def test_what_only_another_try_can_tell(world: World) -> None:
    """Who reports a feature off may ask for one call to go through now and then; it stays off until somebody says that
    it is there again."""
    world.features.report("messages", False, "the disk is full", recheck=True)
    calls = []

    def primary() -> str:
        calls.append(1)
        raise NotSentError("still full")

    for _ in range(3):
        for _ in range(10):
            assert world.features.run("messages", primary, lambda: "kept") == "kept"
        assert not world.features.is_available("messages")
        world.clock.advance(RECHECK)
    assert len(calls) == 2
    assert world.features.is_available("messages")
    assert world.features.states()["messages"] == "the disk is full"
    world.features.report("messages", True)
    assert world.features.run("messages", lambda: "sent", lambda: "kept") == "sent"
    world.features.report("messages", False, "somebody pulled the plug")
    world.clock.advance(RECHECK * 2)
    assert not world.features.is_available("messages")


def test_the_first_probe_that_comes_back_is_told(world: World) -> None:
    """It moves no circuit yet, and who asks little will not close it soon; a page should not show the error until
    then."""
    for _ in range(5):
        world.features.run("search", fails(ServerError("no", status=503)), lambda: "local")
    assert world.features.ailing
    world.clock.advance(30)
    assert world.features.run("search", lambda: "found", lambda: "local") == "found"
    assert world.circuits.state("search") == "half_open"
    assert world.told()[-2:] == [("search", True, ""), ("moderate", "none", "")]
    assert not world.features.ailing
