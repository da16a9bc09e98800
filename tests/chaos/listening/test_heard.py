"""The judge of what was heard: each rule accuses who broke it, and nobody else. And the forecast."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.listening.heard import Notebook, Notes, Sight, Verdict, judge
from tests.chaos.listening.weather import PER_100_000, forecast, only, strike

LOG = [
    {"channel": channel, "key": f"{channel}{seq}", "seq": seq, "text": f"text {seq}"}
    for channel in ("a", "b")
    for seq in (1, 2, 3)
]


def sight(name: str, run: int = 1, *, late: bool = False, **other: Any) -> Sight:
    """A message of the log, as a handler sees it."""
    channel, seq = name[0], int(name[1])
    return Sight(
        **{"run": run, "channel": channel, "id": name, "seq": seq, "late": late, "text": f"text {seq}", **other}
    )


def sights(names: str, run: int = 1) -> list[Sight]:
    return [sight(name, run) for name in names.split()]


def test_everything_once_and_in_order_is_right() -> None:
    """Channels may mix; each in its order is enough."""
    verdict = judge(sights("a1 b1 b2 a2 a3 b3"), LOG)
    assert verdict.violations == {}
    assert (verdict.heard, verdict.runs) == (6, 1)


@pytest.mark.parametrize(
    ("seen", "crime"),
    [
        (sights("a1 a2 a3 b1 b2"), "missing"),
        (sights("a1 a2 a2 a3 b1 b2 b3"), "repeated"),
        (sights("a1 a3 a2 b1 b2 b3"), "disordered"),
        ([*sights("a1 a2 a3 b1 b2 b3"), sight("a9")], "strangers"),
        ([*sights("a1 a2 a3 b1 b2"), sight("b3", seq=4)], "changed"),
        ([*sights("a1 a2 a3 b1 b2"), sight("b3", text="another")], "changed"),
        ([*sights("a1 a2 b1 b2 b3"), sight("a3", channel="b")], "strangers"),
    ],
)
def test_each_crime_is_found(seen: list[Sight], crime: str) -> None:
    """And called by its name."""
    assert crime in judge(seen, LOG).violations


def test_a_gap_is_a_crime() -> None:
    """Nothing is lost for good while the history has it."""
    assert judge(sights("a1 a2 a3 b1 b2 b3"), LOG, ["a after 2"]).violations == {"gaps": ("a after 2",)}


def test_one_that_is_flagged_late_may_be_late() -> None:
    """It is counted, and what follows goes on from the highest."""
    seen = [sight("a1"), sight("a3"), sight("a2", late=True), *sights("b1 b2 b3")]
    verdict = judge(seen, LOG)
    assert (verdict.violations, verdict.late) == ({}, (sight("a2", late=True),))


def test_a_killed_run_may_repeat_what_it_saw_last() -> None:
    """Of each channel the last one, also if a run between saw nothing of it; nothing else."""
    first = sights("a1 b1 a2")
    rest = sights("a3 b2 b3", run=2)
    assert judge([*first, *sights("a2 b1", run=2), *rest], LOG).violations == {}
    assert len(judge([*first, *sights("a2 b1", run=2), *rest], LOG).in_flight) == 2
    assert judge([*first, sight("a1", run=2), *rest], LOG).violations == {"repeated": (sight("a1", run=2),)}
    assert judge([*first, sight("b1", run=2), *sights("a2 b2 a3 b3", run=3)], LOG).violations == {}
    again = [*first, *sights("a2 b1 a3", run=2), *sights("a2 b2 b3", run=3)]
    assert judge(again, LOG).violations == {"repeated": (sight("a2", run=3),)}


def test_a_later_run_goes_on_behind_the_earlier_one() -> None:
    """What it sees for the first time is not older than what was seen before the kill."""
    verdict = judge([*sights("a1 a3 b1 b2 b3"), sight("a2", run=2)], LOG)
    assert verdict.violations == {"disordered": (sight("a2", run=2),)}


def test_notes_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Also in pieces, and what is not whole yet waits."""
    path = tmp_path / "notes"
    book, notes = Notebook(path), Notes(path)
    assert notes.read().run == 0
    book.begins(1)
    book.state("a", "subscribed")
    book.saw("a", "a1", 1, False, "text 1")
    assert notes.read().sights == [sight("a1")]
    assert notes.states == {"a": "subscribed"}
    book.begins(2)
    book.gap("a", "after 1: why")
    with path.open("a") as file:
        file.write("saw a a2 2 la")
    assert notes.read().sights == [sight("a1")]
    with path.open("a") as file:
        file.write("te text 2\n")
    assert notes.read().sights[1:] == [sight("a2", run=2, late=True)]
    assert (notes.states, notes.gaps, notes.ids) == ({}, ["a after 1: why"], {("a", "a1"), ("a", "a2")})


def test_every_crime_is_put_to_the_test() -> None:
    """The table above names them all."""
    marks = test_each_crime_is_found.pytestmark  # type: ignore[attr-defined]
    tried = {case[1] for mark in marks for case in mark.args[1]} | {"gaps"}
    assert tried == set(list(Verdict.__dataclass_fields__)[:6])


def test_the_forecast_follows_from_its_seed() -> None:
    """The same seed, the same storm, in the order of time; each kind as often as the table says, and at least once."""
    long = forecast(7, 100_000)
    assert long == forecast(7, 100_000) != forecast(8, 100_000)
    assert Counter(event.what for event in long) == PER_100_000
    assert [event.at for event in long] == sorted(event.at for event in long)
    assert 0 < long[0].at < long[-1].at < 100_000
    assert {event.what for event in forecast(7, 100)} == set(PER_100_000)
    assert not any(event.what == "cut" for event in forecast(7, 1000, {"cut": 0}))
    assert [event.what for event in forecast(7, 1000, only(bot_killed=2))] == ["bot killed"] * 2


def test_each_kind_is_known_to_who_carries_it_out() -> None:
    """Whatever is forecast, but for signals to processes, is a call of the server's switches."""
    calls: list[str] = []

    class Switches:
        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: calls.append(name)

    signals = dict.fromkeys(("server killed", "server stopped", "bot killed", "bot stopped"), 0)
    for event in forecast(7, 100, signals):
        calls.clear()
        strike(event, Switches(), lambda *_, **__: calls.append("faults"))  # type: ignore[arg-type]
        assert calls, event
