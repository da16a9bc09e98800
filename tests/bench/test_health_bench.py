"""The bench of `chat.health()`: that it runs, and names its subjects and its promises."""

from __future__ import annotations

from . import health
from .report import Goal, Measured


def test_health_is_measured_with_much_and_little_waiting() -> None:
    """The figures belong to outboxes that are as full as they say. A busy machine is given ten times the promise."""
    rows = list(health.run(2, pending=2000, lanes=1000, count=20))
    figures = [row for row in rows if isinstance(row, Measured)]
    goals = [row for row in rows if isinstance(row, Goal)]
    assert [row.subject for row in figures] == ["2,000 waiting in 1,000 lanes", "one waiting"] * 2
    assert [row.goal for row in goals] == [health.LIMIT] * 2
    assert all(row.ratio is not None and 0 < row.ratio < 10 * health.LIMIT for row in goals)
