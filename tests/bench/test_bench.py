"""The benchmarks themselves: that each still runs, names all its subjects and goals, and speaks the two forms. What
they find is not judged here: tests run on busy machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from . import coldstart, outbox, pipeline
from .__main__ import NAMES, main
from .report import Goal, Measured, Row, alternate, json_lines, ratios, table

PEERS = {"httpx.Client.post", "stream-chat", "slack_sdk WebClient"}
"""Of the extra `bench`, which a run of the tests may lack."""


def _check(bench: str, rows: Sequence[Row], subjects: set[str], goals: int) -> None:
    found = [json.loads(line) for line in json_lines(rows).splitlines()]
    figures = [line for line in found if "subject" in line]
    promises = [line for line in found if "subject" not in line]
    assert {line["bench"] for line in found} == {bench}
    assert {line["subject"] for line in figures} == subjects
    assert len(promises) == goals
    for line in figures:
        assert set(line) == {"bench", "metric", "subject", "value", "unit"}
        assert _number(line["value"]) or line["subject"] in PEERS
    for line in promises:
        assert set(line) == {"bench", "metric", "ratio", "goal", "met"}
        assert _number(line["goal"])
        assert isinstance(line["met"], bool) or any(peer in line["metric"] for peer in PEERS)
    shown = table(rows)
    assert all(subject in shown for subject in subjects)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def test_the_pipeline_is_measured_beside_its_peers() -> None:
    """Each client makes its calls, or is said to be missing."""
    rows = list(pipeline.run(2, calls=3, chain_calls=20))
    _check("pipeline", rows, {*pipeline.SUBJECTS, pipeline.CHAIN, pipeline.OBSERVED, pipeline.UNOBSERVED}, 6)


def test_everybody_posts_250_bytes() -> None:
    """The body is as long as the figures say."""
    assert len(json.dumps(pipeline.body(), separators=(",", ":"))) == 250


def test_the_outbox_is_measured_beside_the_stock_queue() -> None:
    """Both sides do the same work, and what waits is counted."""
    rows = list(outbox.run(2, each=3, alone=5, pending=2000, puts=5, lanes=50))
    subjects = {"chatsdk outbox", "SQLiteAckQueue", "2,000 pending", "none pending"}
    _check("outbox", rows, {*subjects, "beside 50 parked lanes", "beside none"}, 7)


def test_a_cold_start_is_measured_beside_a_bare_script() -> None:
    """Whole processes run, and what they sent has arrived."""
    rows = list(coldstart.run(1, processes=1, rejections=10, sends=20))
    subjects = {
        "empty interpreter", "import chatsdk", "import requests", "requests.post", "chatsdk send, new state directory",
        "chatsdk send, used one", "open circuit", "black hole", "refused", "silent server", "drip server",
    }  # fmt: skip
    _check("coldstart", rows, subjects, 8)


def test_subjects_take_turns() -> None:
    """Each round begins with the next one, so that nobody always runs in another one's wake."""
    order: list[str] = []

    def subject(name: str) -> float:
        order.append(name)
        return float(len(order))

    series = alternate(3, {name: lambda name=name: subject(name) for name in "abc"} | {"missing": None})
    assert "".join(order) == "abcbcacab"
    assert series["a"] == [1.0, 6.0, 8.0]
    assert ratios(series["a"], series["missing"]) == [None, None, None]


def test_what_disturbs_a_turn_does_not_count() -> None:
    """Of several turns in a round the least figure is taken."""
    figures = iter([5.0, 3.0, 4.0, 9.0])
    assert alternate(2, {"a": lambda: next(figures)}, least_of=2) == {"a": [3.0, 4.0]}


def test_a_missing_peer_is_said_to_be_missing() -> None:
    """It is no failure, and no figure either."""
    missed = Goal("b", "g", None, None, None, 1.0)
    rows: list[Row] = [Measured("b", "m", "peer", None, None, None, "us"), missed]
    assert "not installed" in table(rows)
    assert [json.loads(line).get("met", "no goal") for line in json_lines(rows).splitlines()] == ["no goal", None]
    assert missed.met is None


@pytest.mark.parametrize(("ratio", "at_least", "met"), [(0.5, False, True), (2.0, False, False), (2.0, True, True)])
def test_a_goal_is_a_limit_or_a_least(ratio: float, at_least: bool, met: bool) -> None:
    """What must be small and what must be large are told apart."""
    assert Goal("b", "g", ratio, ratio, ratio, 1.0, at_least).met is met


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt name is an error that says so, before anything is measured."""
    with pytest.raises(SystemExit) as caught:
        main(["pipelin"])
    assert caught.value.code == 2
    assert "pipelin" in capsys.readouterr().err
    assert set(NAMES) >= {"pipeline", "outbox", "coldstart", "users"}
