"""The bench of users: that it runs, names its subjects and goals, and counts what arrived."""

from __future__ import annotations

from . import users
from .report import Goal, Measured


def test_users_are_measured_under_the_same_load() -> None:
    """A process for each number of users; descriptors, threads, memory and rate of each, and three promises."""
    rows = list(users.run(1, counts=(1, 5), messages=20))
    figures = [row for row in rows if isinstance(row, Measured)]
    goals = [row for row in rows if isinstance(row, Goal)]
    assert {row.subject for row in figures} == {"1 user", "5 users"}
    assert len(figures) == 4 * 2
    assert all(row.value is not None and row.value > 0 for row in figures)
    assert [row.goal for row in goals] == [40, 16, 30]
    assert all(row.met is not None for row in goals)
