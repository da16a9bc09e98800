"""The bench of the network's quality: that it runs, names its links and goals, and that the accuracy holds."""

from __future__ import annotations

from . import quality
from .report import Goal, Measured


def test_accuracy_is_measured_and_holds() -> None:
    """What is simulated has a seed, so unlike a time it is the same on every machine: it is judged here."""
    rows = list(quality.run(2, seeds=40, samples=50))
    figures = [row for row in rows if isinstance(row, Measured)]
    goals = [row for row in rows if isinstance(row, Goal)]
    links = [row for row in figures if "ms," in row.subject]
    assert len({row.subject for row in links}) == len(links) == 16
    assert len(figures) == 16 + 4 + 3
    assert all(row.value is not None and row.value > 0 for row in figures)
    assert [row.goal for row in goals] == [95, 95, 95, 3]
    assert [row.met for row in goals[:3]] == [True, True, True]
