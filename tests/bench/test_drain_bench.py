"""The benches of draining and contention: that they run, name their subjects and goals, and that nothing is lost or
sent twice (they compare books after each turn). What they find is hardly judged here: tests run on busy machines."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from . import contention, drain
from .contention import Crowd
from .report import Goal, Measured, table
from .server import Server


def test_a_backlog_is_drained_beside_bare_loops() -> None:
    """Each subject takes its turns; ours is not slower than a bare loop by an order of magnitude."""
    rows = list(drain.run(1, count=400, small=300, lanes=(1, 8), processes=(1, 2), piece=80, warm=40))
    figures = [row for row in rows if isinstance(row, Measured)]
    goals = [row for row in rows if isinstance(row, Goal)]
    assert {row.subject for row in figures} == {
        "chatsdk, 1 process", "chatsdk, 2 processes", "1 bare loop of requests", "1 bare loop of urllib3",
        "8 bare loops of requests", "8 bare loops of urllib3", "chatsdk, backlog of 400", "chatsdk, backlog of 300",
    }  # fmt: skip
    assert all(row.value is not None and row.value > 0 for row in figures)
    assert [(row.goal, row.at_least) for row in goals] == [(0.8, True), (1.1, False)]
    assert goals[0].ratio is not None
    assert goals[0].ratio > 0.1
    assert all(row.subject in table(rows) for row in figures)


def test_all_of_a_backlog_arrives_once(tmp_path: Path) -> None:
    """Two processes drain one outbox to its end: the server's count and the outbox's books agree."""
    with Server() as server:
        backlog = drain.Backlog(server, tmp_path, 200, 8)
        backlog.fill()
        with drain.working("chatsdk", server.url, tmp_path, 0, 2) as at_work:
            while server.answered() < 200:
                assert at_work()
                threading.Event().wait(0.05)
        assert server.answered() == backlog.delivered() == 200


def test_a_backlog_that_is_sent_twice_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: requests that the outbox knows nothing of are an error, not a figure."""
    real = drain.rate

    def with_a_stranger(server: Server, *arguments: Any, **options: Any) -> float:
        found = real(server, *arguments, **options)
        stop = threading.Event()

        def post(target: str, body: Any) -> Any:
            stop.set()
            with drain.by_urllib3() as once:
                return once(target, body)

        drain.loop(post, server.url, 1, stop)
        return found

    monkeypatch.setattr(drain, "rate", with_a_stranger)
    with Server() as server, pytest.raises(AssertionError, match="answered"):
        drain.drained(server, drain.Backlog(server, tmp_path, 60, 4), 1, piece=20, warm=20)


def test_contention_is_measured_beside_the_stock_queue() -> None:
    """Each crowd puts for the same time, and what it put is in the file."""
    crowds = (contention.TOGETHER, contention.APART, contention.MANY, Crowd("SQLiteAckQueue", 1, 4))
    rows = list(contention.run(1, seconds=0.2, crowds=crowds))
    figures = [row for row in rows if isinstance(row, Measured)]
    goals = [row for row in rows if isinstance(row, Goal)]
    assert {row.subject for row in figures} == {
        "chatsdk outbox, 1 process x 4 threads", "chatsdk outbox, 4 processes x 1 thread",
        "chatsdk outbox, 16 processes x 1 thread", "SQLiteAckQueue, 1 process x 4 threads",
    }  # fmt: skip
    assert len(figures) == 3 * len(crowds)
    assert all(row.value is not None and row.value > 0 for row in figures)
    assert [(row.goal, row.at_least) for row in goals] == [(0.7, True), (50, False)]
    assert goals[0].ratio is not None
    assert goals[0].ratio > 0.05
