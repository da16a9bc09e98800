"""The bench of wake-ups: that it runs, and that a signal is what makes the difference."""

from __future__ import annotations

import sys

import pytest

from . import wake
from .report import Goal, Measured


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify, /proc")
def test_wake_ups_are_measured() -> None:
    """Both ways to learn of something, an idle process, and the price; four promises. The signal is the quicker way."""
    rows = list(wake.run(1, puts={wake.SIGNAL: 4, wake.LOOK: 2}, seconds=0.5, calls=8))
    figures = {(row.metric, row.subject): row.value for row in rows if isinstance(row, Measured)}
    goals = [row for row in rows if isinstance(row, Goal)]
    assert len(figures) == 4 * 2 + 3 + 4
    assert all(value is not None and value >= 0 for value in figures.values())
    median = "from a put to its arrival, sent by another process, p50"
    signal, look = figures[median, wake.SIGNAL], figures[median, wake.LOOK]
    assert signal is not None
    assert look is not None
    assert signal < look
    assert [row.goal for row in goals] == [200, 200, 2, 2]
    assert all(row.met is not None for row in goals)
