"""The age of the oldest waiting message: right whatever happens to the rows before it, and quick with any backlog."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatsdk.core.store import Lane, Selection, State
from chatsdk.outbox import oldest
from chatsdk.outbox.store import SQLiteStore
from tests.outbox.store_kit import NOW, claimed, entry, open_directly

LANES = [Lane("alice", f"channel-{number}") for number in range(4)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    made = open_directly(tmp_path / "state")
    yield made
    made.close()


def first_waiting(store: SQLiteStore) -> float | None:
    """The long way to the same answer."""
    rows = store.list(Selection(states=(State.QUEUED,), limit=1))
    return rows[0].created_at if rows else None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["put", "finish", "finish", "bury", "retry", "discard", "ask"]), st.integers(0, 3)),
        min_size=8,
        max_size=40,
    ),
    st.integers(1, 3),
)
def test_it_is_the_lowest_id_that_waits(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], passed_over: int
) -> None:
    """Rows come, are delivered, die, are retried and given up, in any lane; asked now and then, and at the end."""
    steps = [*(("put", lane) for lane in (0, 1, 2, 3, 0, 1, 2, 3)), *steps]
    directory = tmp_path_factory.mktemp("oldest")
    store = open_directly(directory / "state")
    before, oldest.PASSED_OVER = oldest.PASSED_OVER, passed_over
    try:
        for number, (what, lane) in enumerate((*steps, ("ask", 0))):
            at = NOW + number
            if what == "put":
                store.put(entry(str(number), LANES[lane], at=at))
            elif what in ("finish", "bury"):
                claim = store.claim(at, lane=LANES[lane], limit=1)
                if claim is not None and what == "finish":
                    store.finish(claim.lane, claim.rows[0].id, None, at)
                elif claim is not None:
                    store.bury(claim.lane, claim.rows[0].id, "rejected", None, at)
            elif what == "ask":
                assert store.stats().oldest == first_waiting(store)
            else:
                state = State.DEAD if what == "retry" else State.QUEUED
                ids = [row.id for row in store.list(Selection(states=(state,), limit=lane + 1))]
                changed = store.retry(ids, at, 60.0) if what == "retry" else store.discard(ids, at)
                assert changed == len(ids)
    finally:
        oldest.PASSED_OVER = before
        store.close()
        shutil.rmtree(directory)


def test_another_file_is_looked_at_from_the_start(store: SQLiteStore) -> None:
    """Somebody removed the directory: ids begin anew in the new file, below those that are known."""
    for number in range(3):
        store.put(entry(str(number), LANES[number], at=NOW + number))
    claim = claimed(store, lane=LANES[0])
    store.finish(claim.lane, claim.rows[0].id, None, NOW)
    assert store.stats().oldest == NOW + 1
    for name in os.listdir(store.directory):
        if name.startswith("outbox.db"):
            (Path(store.directory) / name).unlink()
    for number in range(3):
        store.put(entry("new", at=NOW + 50 + number))
    assert store.stats().oldest == NOW + 50


def test_a_backlog_that_was_sent_while_nobody_asked(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """More lies between than a look passes over: the lanes say it."""
    monkeypatch.setattr(oldest, "PASSED_OVER", 5)
    for number in range(30):
        store.put(entry(str(number), LANES[number % 3], at=NOW + number))
    assert store.stats().oldest == NOW
    for lane in LANES[:2]:
        claim = claimed(store, lane=lane, limit=10)
        for row in claim.rows:
            store.finish(lane, row.id, None, NOW, more=1)
    assert store.stats().oldest == NOW + 2
    claim = claimed(store, lane=LANES[2], limit=10)
    for row in claim.rows[:9]:
        store.finish(LANES[2], row.id, None, NOW, more=1)
    assert store.stats().oldest == NOW + 29
    store.finish(LANES[2], claim.rows[9].id, None, NOW)
    assert store.stats().oldest is None


def test_another_process_delivers(store: SQLiteStore, tmp_path: Path) -> None:
    """What is known is of the file, not of who changed it."""
    for number in range(4):
        store.put(entry(str(number), LANES[0], at=NOW + number))
    assert store.stats().oldest == NOW
    pid = os.fork()
    if not pid:
        try:
            claim = claimed(store, lane=LANES[0])
            store.finish(claim.lane, claim.rows[0].id, None, NOW, more=1)
            store.finish(claim.lane, claim.rows[0].id + 1, None, NOW)
            os._exit(0 if store.stats().oldest == NOW + 2 else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.stats().oldest == NOW + 2


def test_ten_thousand_lanes_cost_what_one_costs(tmp_path: Path) -> None:
    """With ten thousand lanes waiting an answer takes a fraction of a millisecond (here: five times the promise, and
    the quickest quarter, because a busy machine is not what is measured)."""
    from tests.bench.outbox import fill, open_store

    fill(tmp_path / "many", 20_000, 10_000, not_before=NOW * 2)
    store = open_store(tmp_path / "many")
    try:
        assert store.stats().lanes == 10_000
        took = []
        for _ in range(100):
            began = perf_counter()
            store.stats()
            took.append(perf_counter() - began)
    finally:
        store.close()
    print(f"stats() with 10,000 lanes: median {median(took) * 1e6:.0f} us")
    assert sorted(took)[25] < 0.005
