"""The trace of claims accuses who had a lane that was not free, and nobody else; and the schedule is its seed's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from chatsdk.core.store import Claim, Lane, LaneLostError, Park
from tests.chaos.claims import Trace, TracedStore, overlaps
from tests.chaos.schedule import WEIGHTS, schedule

LANE, OTHER = Lane("alice", "a channel\nwith a newline"), Lane("bob", "another")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the trace is."""
    return tmp_path / "claims"


def found(path: Path) -> list[tuple[str, str]]:
    """Who was found to have had a lane together."""
    pairs = [(overlap.first, overlap.second) for overlap in overlaps(path.read_text().splitlines())]
    return [(first.split(" thread")[0], second.split(" thread")[0]) for first, second in pairs]


def test_one_after_the_other_is_no_overlap(path: Path) -> None:
    """Left, closed, or killed before the next one got it; and two lanes are two lanes."""
    a, b, c, monkey = (Trace(path, owner) for owner in ("a", "b", "c", "monkey"))
    a.holds(LANE)
    b.holds(OTHER)
    a.leaves(LANE)
    b.holds(LANE)
    monkey.killed("b")
    c.holds(LANE)
    c.holds(OTHER)
    c.closed()
    a.holds(LANE)
    assert found(path) == []


def test_a_lane_that_was_not_left_is_an_overlap(path: Path) -> None:
    """Also where somebody else left it, or only another lane of the holder's."""
    a, b = Trace(path, "a"), Trace(path, "b")
    a.holds(LANE)
    b.leaves(LANE)
    a.leaves(OTHER)
    b.holds(LANE)
    assert found(path) == [("a", "b")]


def test_two_threads_of_a_process_are_two(path: Path) -> None:
    """A lane is one thread's at a time; but any thread of its process may give it back."""
    a = Trace(path, "a")
    lines: list[str] = []

    def elsewhere(what: Callable[[], object]) -> None:
        thread = threading.Thread(target=what)
        thread.start()
        thread.join()
        lines[:] = path.read_text().splitlines()

    a.holds(LANE)
    elsewhere(lambda: a.leaves(LANE))
    a.holds(LANE)
    assert list(overlaps(lines)) == []
    hold = threading.Thread(target=lambda: a.holds(LANE))
    lines[:] = [line.replace(str(threading.get_ident()), "1") for line in path.read_text().splitlines()]
    hold.start()
    hold.join()
    lines.append(path.read_text().splitlines()[-1])
    assert len(list(overlaps(lines))) == 1


def test_what_a_process_writes_after_the_word_that_it_is_killed_does_not_count(path: Path) -> None:
    """It may still write while the killer's hand moves; its lane is free all the same."""
    a, b, monkey = Trace(path, "a"), Trace(path, "b"), Trace(path, "monkey")
    monkey.killed("a")
    a.holds(LANE)
    b.holds(LANE)
    assert found(path) == []


class Store:
    """A store that gives one lane, and looks what stands in the trace at each verb."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seen: list[int] = []
        self.after: Any = ()

    def claim(self, now: float) -> Claim:
        self._look()
        return Claim(LANE, ())

    def finish(self, lane: Lane, row: int, result: None, now: float, *, more: int = 0) -> Any:
        self._look()
        if callable(self.after):
            return self.after()
        return self.after

    def park(self, lane: Lane, row: int | None, park: Park) -> None:
        self._look()

    def close(self) -> None:
        self._look()

    def _look(self) -> None:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.seen.append(len(lines))


def test_a_hold_is_recorded_shorter_than_it_is(path: Path) -> None:
    """Written after the store gave the lane, and ended before the store is asked to take it back."""
    store = Store(path)
    traced = TracedStore(store, Trace(path, "a"))
    traced.claim(0.0)
    store.after = ("a row",)
    traced.finish(LANE, 1, None, 0.0, more=1)
    traced.park(LANE, None, Park(not_before=0.0, reason=""))
    traced.close()
    verbs = [line.split('"')[1] for line in path.read_text().splitlines()]
    assert verbs == ["holds", "leaves", "holds", "leaves", "closed"]
    assert store.seen == [0, 2, 4, 5], "lines that stood there when the store was asked"


def test_a_lane_given_back_by_another_thread_meanwhile_is_not_recorded_as_held(path: Path) -> None:
    """`close` gave the lane away before `finish` could say that it is still ours; nor is a failed verb a hold."""
    store = Store(path)
    traced = TracedStore(store, Trace(path, "a"))
    traced.claim(0.0)

    def given_away() -> Any:
        traced.park(LANE, None, Park(not_before=0.0, reason=""))
        return ("a row",)

    store.after = given_away
    traced.finish(LANE, 1, None, 0.0, more=1)

    def lost() -> Any:
        raise LaneLostError

    store.after = lost
    with pytest.raises(LaneLostError):
        traced.finish(LANE, 1, None, 0.0, more=1)
    Trace(path, "b").holds(LANE)
    assert found(path) == []


def test_a_schedule_is_its_seeds() -> None:
    """The same seed, the same events; another seed, others; everything comes up, and only what was asked for."""
    first, again, other = (list(islice(schedule(seed, 4), 300)) for seed in (1, 1, 2))
    assert first == again != other
    assert {event.what for event in first} == set(WEIGHTS)
    assert {event.process for event in first} == set(range(4))
    assert {event.what for event in islice(schedule(1, 4, ("kill",)), 50)} == {"kill"}
