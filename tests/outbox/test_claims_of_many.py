"""Claims for a few users and for thousands: the same lanes in the same order, and no table of users for SQLite."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatsdk.core.store import Lane, Park
from chatsdk.outbox.lanes import Who
from chatsdk.outbox.store import SQLiteStore
from tests.outbox.store_kit import NOW, claimed, entry, open_directly

LANES = [Lane(f"user-{number}", "general") for number in range(30)]
THOUSANDS = frozenset(f"other-{number}" for number in range(5000))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    """Thirty users with a message each, the last ten of them parked until NOW + 1, + 2, ..."""
    store = open_directly(tmp_path / "state")
    for lane in LANES:
        store.put(entry(lane=lane))
    for number, lane in enumerate(LANES[20:]):
        row = claimed(store, lane=lane).rows[0]
        store.park(lane, row.id, Park(not_before=NOW + 1 + number, reason="offline"))
    yield store
    store.close()


def drained(store: SQLiteStore, now: float, **who: object) -> list[Lane]:
    """All lanes that can be claimed, in the order in which they are."""
    found = []
    while (claim := store.claim(now, limit=1, **who)) is not None:  # type: ignore[arg-type]
        found.append(claim.lane)
    for lane in found:
        store.release(lane)
    return found


@pytest.mark.parametrize("crowd", [frozenset(), THOUSANDS], ids=["few", "thousands"])
def test_only_those_users_are_claimed(store: SQLiteStore, crowd: frozenset[str]) -> None:
    """Among five users, and among those five and 5,000 more, exactly those five's lanes are found; and all others
    where they are left out."""
    chance = random.Random(7)
    for _ in range(10):
        some = chance.sample(LANES, 5)
        users = frozenset(lane.user for lane in some) | crowd
        ready = {lane for lane in LANES[:20] if lane.user in users}
        assert set(drained(store, NOW, users=users)) == ready
        assert set(drained(store, NOW, skip_users=users)) == set(LANES[:20]) - ready
        assert set(drained(store, NOW, users=users, skip_users=[some[0].user])) == ready - {some[0]}


@pytest.mark.parametrize("crowd", [frozenset(), THOUSANDS], ids=["few", "thousands"])
def test_next_time_of_those_users(store: SQLiteStore, crowd: frozenset[str]) -> None:
    """It is the first of theirs, not of somebody else's; and None where they have nothing."""
    assert store.next_due(NOW, users=crowd | {LANES[3].user}) == NOW
    assert store.next_due(NOW, users=crowd | {LANES[27].user, LANES[25].user}) == NOW + 6
    assert store.next_due(NOW, users=crowd) is None
    others = frozenset(lane.user for lane in LANES) - {LANES[27].user}
    assert store.next_due(NOW, skip_users=crowd | others) == NOW + 8
    assert store.claim(NOW + 7, users=crowd | {LANES[27].user}) is None
    assert claimed(store, NOW + 8.5, users=crowd | {LANES[27].user}).lane == LANES[27]


def test_order_of_lanes_with_thousands_of_users(store: SQLiteStore) -> None:
    """Lanes come in the order of their turns, as they do for a few."""
    users = THOUSANDS | {lane.user for lane in LANES}
    assert drained(store, NOW, users=users) == LANES[:20]


def test_thousands_of_users_cost_a_look_nothing(store: SQLiteStore) -> None:
    """Ten thousand users are handed over in no statement: a look is as quick as for one."""
    users = frozenset(f"other-{number}" for number in range(10_000)) | {LANES[0].user}
    assert Who(users, THOUSANDS).arguments == {}
    store.next_due(NOW, users=users)
    taken = []
    for _ in range(50):
        began = time.perf_counter()
        assert store.next_due(NOW, users=users, skip_users=THOUSANDS) == NOW
        taken.append(time.perf_counter() - began)
    assert min(taken) < 0.001
