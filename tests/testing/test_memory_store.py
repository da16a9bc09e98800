"""The store in memory keeps the rules of the real one: both go through the same steps and must say the same."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chatsdk.core import errors
from chatsdk.core.identity import uuid7
from chatsdk.core.store import Entry, Lane, LaneLostError, OutboxStore, Park, Reason, Row, Selection, State
from chatsdk.outbox.store import SQLiteStore
from chatsdk.testing.clock import FakeClock
from chatsdk.testing.memory_store import MemoryStore
from tests.outbox.world import a_request

LANES = [Lane("alice", "a"), Lane("alice", "b"), Lane("bob", "a")]


def entry(lane: Lane, text: str, clock: FakeClock, key: str) -> Entry:
    """A message."""
    return Entry(request=a_request(lane.channel, text, user=lane.user, key=key), created_at=clock.time(), ttl=3600.0)


def same(row: Row | None) -> Row | None:
    """A row without what the two may write differently: numbers of SQLite, and fields that mean nothing any more."""
    if row is None or row.state is State.QUEUED:
        return row
    return replace(row, settle="", misses=0, settled_at=0.0, strikes=0, uncertain=False, error=None)


class Both:
    """Two stores, one clock; every step is done to both, and both must answer alike."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.clock = FakeClock()
        self.random = random.Random(seed)
        self.stores: tuple[OutboxStore, ...] = (
            MemoryStore(self.clock, max_pending=12),
            SQLiteStore(directory, clock=self.clock, max_pending=12),
        )
        self.keys: list[str] = []
        self.ids: list[int] = []

    def do(self, verb: str, *arguments: Any, **options: Any) -> Any:
        """The answers, compared; an error is an answer."""
        answers = []
        for store in self.stores:
            try:
                answers.append(getattr(store, verb)(*arguments, **options))
            except (errors.NotAcceptedError, LaneLostError) as error:
                answers.append(type(error))
        first, second = answers
        if verb == "put" and not isinstance(first, type):
            assert (first.row, first.created) == (second.row, second.created)
        elif verb in ("finish", "bury") and not isinstance(first, type):
            assert list(first) == list(second)
        else:
            assert first == second, (verb, arguments, options)
        return first

    def step(self) -> None:
        """One thing at random, and a look at everything."""
        chance, now, lane = self.random, self.clock.time(), self.random.choice(LANES)
        verb = chance.choice(["put", "put", "claim", "claim", "finish", "park", "bury", "other"])
        if verb == "put":
            key = chance.choice(self.keys) if self.keys and chance.random() < 0.2 else uuid7(now, chance.randbytes(10))
            answer = self.do("put", entry(lane, chance.choice("xy"), self.clock, key))
            if not isinstance(answer, type):
                self.keys.append(key)
                self.ids.append(answer.row.id)
        elif verb == "claim":
            users = chance.choice([None, ["alice"], ["bob"]])
            self.do("claim", now, limit=1, lane=lane, users=users, skip_users=chance.choice([(), ["bob"]]))
        elif verb in ("finish", "bury"):
            what = ({"id": "m"},) if verb == "finish" else (Reason.REJECTED.value, {"code": "no"})
            self.do(verb, lane, self.first(lane), *what, now, more=chance.choice([0, 1]))
        elif verb == "park":
            self.do("park", lane, chance.choice([self.first(lane), None]), self.some_park())
        else:
            self.other(lane)
        self.compare()
        self.clock.advance(chance.choice([0.0, 1.0, 20.0, 300.0]))

    def other(self, lane: Lane) -> None:
        """What is done by hand or now and then."""
        some = self.random.sample(self.ids, min(3, len(self.ids)))
        now = self.clock.time()
        options = {
            "release": (lane,),
            "retry": (some, now, 3600.0),
            "discard": (some, now),
            "sweep": (now,),
        }
        verb = self.random.choice([*options, "wake"])
        if verb == "wake":
            self.do("wake", user=self.random.choice([None, "alice"]), lane=None)
        else:
            self.do(verb, *options[verb])
            self.ids = [row.id for row in self.stores[0].list(Selection())]

    def first(self, lane: Lane) -> int:
        """The first waiting row of a lane."""
        rows = self.stores[0].list(Selection(states=(State.QUEUED,), user=lane.user, channel=lane.channel, limit=1))
        return rows[0].id if rows else 1

    def some_park(self) -> Park:
        """Any wait."""
        chance = self.random
        return Park(
            not_before=self.clock.time() + chance.choice([0.5, 30.0, 400.0]),
            reason=chance.choice(["offline", "uncertain"]),
            wakeable=chance.random() < 0.7,
            failures=chance.choice([0, 1]),
            attempts=chance.choice([0, 1]),
            strikes=chance.choice([0, 1]),
            misses=chance.choice([0, 1]),
            settled_at=chance.choice([None, self.clock.time()]),
            uncertain=chance.choice([None, True]),
            settle=chance.choice([None, "", "expired"]),
            error=chance.choice([None, {"code": "e", "message": "m"}]),
        )

    def compare(self) -> None:
        """All that can be seen."""
        first, second = self.stores
        assert list(map(same, first.list(Selection()))) == list(map(same, second.list(Selection())))
        mine, real = first.stats(), second.stats()
        assert mine.accepted == mine.delivered + mine.dead + mine.pending + mine.discarded
        assert replace(mine, bytes=0, next_attempt_at=None) == replace(real, bytes=0, next_attempt_at=None)
        assert bool(mine.bytes) == bool(real.bytes)
        now = self.clock.time()
        assert first.next_due(now) == second.next_due(now)
        assert first.next_due(now, users=["bob"]) == second.next_due(now, users=["bob"])
        for lane in LANES:
            if any(row.lane == lane for row in first.list(Selection(states=(State.QUEUED,)))):
                assert due(first, lane, now) == due(second, lane, now), lane


def due(store: OutboxStore, lane: Lane, now: float) -> tuple[object, ...]:
    """How a lane that has rows stands; a time that is over is the same as none."""
    status = store.lane_status(lane)
    return max(status.not_before, now) if not status.owned else None, status.reason, status.failures, status.owned


@pytest.mark.parametrize("seed", range(15))
def test_it_behaves_like_the_real_one(seed: int, tmp_path: Path) -> None:
    """A hundred steps at random, with both stores side by side."""
    both = Both(tmp_path / "state", seed)
    for _ in range(100):
        both.step()
    for store in both.stores:
        store.close()


def test_a_dead_owner_leaves_its_lane_and_a_doubt() -> None:
    """What a killed process owned can be claimed at once; its first row may have arrived."""
    store = MemoryStore()
    put = store.put(entry(LANES[0], "x", FakeClock(), "k1"))
    other = store.peer()
    assert store.claim(2e9) is not None
    assert other.claim(2e9) is None
    assert other.lane_status(LANES[0]).owned
    store.die()
    assert not other.lane_status(LANES[0]).owned
    claim = other.claim(2e9)
    assert claim is not None
    assert claim.rows[0].uncertain
    assert claim.rows[0].id == put.row.id
    with pytest.raises(errors.StorageError):
        store.get(id=1)


def test_claims_go_round() -> None:
    """No lane is served twice before all others were served once."""
    clock = FakeClock()
    store = MemoryStore(clock)
    for n in range(9):
        store.put(entry(LANES[n % 3], "x", clock, f"k{n}"))
    seen = []
    for _ in range(6):
        claim = store.claim(clock.time(), limit=1)
        assert claim is not None
        seen.append(claim.lane)
        store.finish(claim.lane, claim.rows[0].id, None, clock.time())
    assert seen == LANES * 2


def test_limits() -> None:
    """Full is full: nothing is accepted, what is known is still known, and room that was made can be used."""
    clock = FakeClock()
    store = MemoryStore(clock, max_pending=1)
    put = store.put(entry(LANES[0], "x", clock, "k1"))
    with pytest.raises(errors.OutboxFullError):
        store.put(entry(LANES[0], "y", clock, "k2"))
    assert not store.put(entry(LANES[0], "x", clock, "k1")).created
    assert store.discard([put.row.id], clock.time()) == 1
    assert store.put(entry(LANES[0], "y", clock, "k2")).created
    with pytest.raises(errors.OutboxFullError):
        MemoryStore(clock, max_bytes=10).put(entry(LANES[0], "x", clock, "k1"))


def test_results_are_forgotten() -> None:
    """A result is known for a day; then its key names a new message."""
    clock = FakeClock()
    store = MemoryStore(clock)
    store.put(entry(LANES[0], "x", clock, "k1"))
    store.claim(clock.time())
    store.finish(LANES[0], 1, {"id": "m"}, clock.time())
    clock.advance(86400 - 1)
    store.sweep(clock.time())
    assert store.get(key="k1") is not None
    clock.advance(2)
    store.sweep(clock.time())
    assert store.get(key="k1") is None
    assert store.put(entry(LANES[0], "x", clock, "k1")).created
    assert store.stats().accepted == 2
