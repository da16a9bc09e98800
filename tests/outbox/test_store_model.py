"""The store against a model of a few lines: whatever is done in whatever order, by two owners and with deaths between.

The second owner is a forked process, so that its death is what the kernel makes of it.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chatsdk.core.errors import KeyReusedError, OutboxFullError
from chatsdk.core.store import Lane, LaneLostError, Park, Selection, State
from chatsdk.outbox.store import SQLiteStore
from tests.outbox.store_kit import NOW, balanced, entry, open_directly

LANES = [Lane("alice", "a"), Lane("bob", "a")]
KEYS = [f"key-{n}" for n in range(8)]
MAX_PENDING = 6


@dataclass
class Message:
    """What the model knows of a row."""

    key: str
    lane: Lane
    text: str
    state: State = State.QUEUED
    attempts: int = 0
    uncertain: bool = False


@dataclass
class Hold:
    """What the model knows of a lane."""

    owner: str = ""  # "us" | "ghost" | "dead" | ""
    not_before: float = 0.0
    failures: int = 0
    wakeable: bool = True


@dataclass
class Model:
    """Rows by id, lanes with pending rows, and the counters."""

    rows: dict[int, Message] = field(default_factory=dict)
    lanes: dict[Lane, Hold] = field(default_factory=dict)
    accepted: int = 0
    delivered: int = 0
    discarded: int = 0

    def pending(self, lane: Lane | None = None) -> list[int]:
        """Ids that wait, in order."""
        return sorted(id_ for id_, row in self.rows.items() if row.state is State.QUEUED and lane in (None, row.lane))

    def tidy(self, lane: Lane) -> None:
        """A lane without rows is gone."""
        if not self.pending(lane):
            self.lanes.pop(lane, None)


class Ghost:
    """Another process with the same store: forked from this one, it does what it is told, and dies by kill -9."""

    def __init__(self, store: SQLiteStore) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid:
            theirs.close()
            return
        self._pipe.close()
        try:
            while True:
                verb, arguments, options = theirs.recv()
                try:
                    theirs.send((True, getattr(store, verb)(*arguments, **options)))
                except Exception as error:
                    theirs.send((False, error))
        finally:
            os._exit(0)

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self._pipe.send((verb, arguments, options))
            ok, answer = self._pipe.recv()
            if not ok:
                raise answer
            return answer

        return call

    def die(self) -> None:
        """End, as a process does that is killed."""
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        self._pipe.close()


class StoreMachine(RuleBasedStateMachine):
    """Random operations of two owners."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="store-model-")
        self.model = Model()
        self.now = NOW
        self.ghost: Ghost | None = None
        self.open()

    def open(self) -> None:
        self.store = open_directly(Path(self.directory), max_pending=MAX_PENDING)
        self.store._database.writer().execute("PRAGMA synchronous = OFF")  # no power is cut here

    def teardown(self) -> None:
        if hasattr(self, "store"):
            if self.ghost is not None:
                self.ghost.die()
            self.store.close()
            shutil.rmtree(self.directory)

    # ---- in

    @rule(lane=st.sampled_from(LANES), key=st.sampled_from(KEYS), text=st.sampled_from(["x", "y"]))
    def put(self, lane: Lane, key: str, text: str) -> None:
        known = next(((id_, row) for id_, row in self.model.rows.items() if row.key == key), None)
        asked = entry(text, lane, key, at=self.now)
        if known is not None:
            id_, row = known
            if (row.lane, row.text) != (lane, text):
                with pytest.raises(KeyReusedError):
                    self.store.put(asked)
                return
            put = self.store.put(asked)
            assert (put.row.id, put.created, put.row.state) == (id_, False, row.state)
            return
        if len(self.model.pending()) >= MAX_PENDING:
            with pytest.raises(OutboxFullError):
                self.store.put(asked)
            return
        put = self.store.put(asked)
        assert put.created
        assert put.row.id > max(self.model.rows, default=0)
        hold = self.model.lanes.setdefault(lane, Hold())
        assert put.lane.failures == hold.failures
        assert put.lane.owned == (hold.owner in ("us", "ghost"))
        self.model.rows[put.row.id] = Message(key, lane, text)
        self.model.accepted += 1

    # ---- out

    def _claimable(self, hold: Hold) -> bool:
        return hold.owner in ("", "dead") and hold.not_before <= self.now

    def _of(self, owner: str) -> Any:
        """The store, as this owner has it."""
        if owner == "us":
            return self.store
        if self.ghost is None:
            self.ghost = Ghost(self.store)
        return self.ghost

    @precondition(lambda self: self.model.lanes)
    @rule(
        owner=st.sampled_from(["us", "us", "ghost"]), lane=st.none() | st.sampled_from(LANES), limit=st.integers(1, 3)
    )
    def claim(self, owner: str, lane: Lane | None, limit: int) -> None:
        free = {each for each, hold in self.model.lanes.items() if self._claimable(hold) and lane in (None, each)}
        assert (self.store.next_due(self.now) == self.now) == any(map(self._claimable, self.model.lanes.values()))
        claim = self._of(owner).claim(self.now, limit=limit, lane=lane)
        if claim is None:
            assert not free
            return
        if self.model.lanes[claim.lane].owner == "dead":
            self.model.rows[claim.rows[0].id].uncertain = True
        assert claim.lane in free
        assert [row.id for row in claim.rows] == self.model.pending(claim.lane)[:limit]
        hold = self.model.lanes[claim.lane]
        assert claim.failures == hold.failures
        hold.owner, hold.not_before = owner, 0.0

    def _owned(self, owner: str) -> list[Lane]:
        return [lane for lane, hold in self.model.lanes.items() if hold.owner == owner]

    @precondition(lambda self: self._owned("us") or self._owned("ghost"))
    @rule(data=st.data(), more=st.integers(0, 2), delivered=st.booleans())
    def finish_or_bury(self, data: st.DataObject, more: int, delivered: bool) -> None:
        owner = data.draw(st.sampled_from([each for each in ("us", "ghost") if self._owned(each)]))
        lane = data.draw(st.sampled_from(self._owned(owner)))
        id_ = self.model.pending(lane)[0]
        row = self.model.rows[id_]

        store = self._of(owner)
        if delivered:
            found = store.finish(lane, id_, {"id": row.key}, self.now, more=more)
        else:
            found = store.bury(lane, id_, "rejected", {"code": "x"}, self.now, attempts=1, more=more)
        row.state = State.SENT if delivered else State.DEAD
        row.attempts += 1
        self.model.delivered += delivered
        hold = self.model.lanes[lane]
        hold.failures = 0
        following = self.model.pending(lane)[:more]
        assert [each.id for each in found] == following
        if not following:
            hold.owner = ""
        self.model.tidy(lane)

    @precondition(lambda self: self._owned("us") or self._owned("ghost"))
    @rule(data=st.data(), delay=st.sampled_from([0.0, 5.0, 60.0]), wakeable=st.booleans())
    def park(self, data: st.DataObject, delay: float, wakeable: bool) -> None:
        owner = data.draw(st.sampled_from([each for each in ("us", "ghost") if self._owned(each)]))
        lane = data.draw(st.sampled_from(self._owned(owner)))
        id_ = self.model.pending(lane)[0]
        park = Park(not_before=self.now + delay, reason="offline", wakeable=wakeable, failures=1, attempts=1)
        self._of(owner).park(lane, id_, park)
        hold = self.model.lanes[lane]
        hold.owner, hold.not_before, hold.wakeable, hold.failures = "", self.now + delay, wakeable, hold.failures + 1
        self.model.rows[id_].attempts += 1

    @precondition(lambda self: self._owned("us"))
    @rule(lane=st.sampled_from(LANES))
    def release(self, lane: Lane) -> None:
        self.store.release(lane)
        if lane in self._owned("us"):
            self.model.lanes[lane].owner = ""

    @precondition(lambda self: self.model.lanes)
    @rule(lane=st.sampled_from(LANES))
    def not_ours(self, lane: Lane) -> None:
        if lane in self._owned("us"):
            return
        rows = self.model.pending(lane)
        with pytest.raises(LaneLostError):
            self.store.finish(lane, rows[0] if rows else 1, None, self.now)

    # ---- by hand

    @precondition(lambda self: any(row.state is State.DEAD for row in self.model.rows.values()))
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        dying = [id_ for id_, row in self.model.rows.items() if row.state is State.DEAD]
        ids = data.draw(st.lists(st.sampled_from(dying), min_size=1, max_size=2, unique=True))
        ids += data.draw(st.lists(st.sampled_from(sorted(self.model.rows)), max_size=1))
        dead = sorted(id_ for id_ in set(ids) if id_ in self.model.rows and self.model.rows[id_].state is State.DEAD)
        assert self.store.retry(ids, self.now, 60.0) == len(dead)
        for id_ in dead:
            row = self.model.rows.pop(id_)
            row.state = State.QUEUED
            found = self.store.get(key=row.key)
            assert found is not None
            assert found.id > max(self.model.rows, default=0)
            assert found.settle == "send"
            self.model.rows[found.id] = row
            self.model.lanes.setdefault(row.lane, Hold())

    @precondition(lambda self: self.model.rows)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        ids = data.draw(st.lists(st.sampled_from(sorted(self.model.rows)), min_size=1, max_size=2, unique=True))
        count = self.store.discard(ids, self.now)
        self.free_the_dead()
        gone = 0
        for id_ in ids:
            row = self.model.rows.get(id_)
            if row is None or row.state is State.SENT:
                continue
            hold = self.model.lanes.get(row.lane, Hold())
            if self.store.get(id=id_) is not None:
                assert row.state is State.QUEUED, "a dead letter can always be given up"
                assert hold.owner in ("us", "ghost"), "it was in nobody's hands"
                continue
            if hold.owner in ("us", "ghost") and row.state is State.QUEUED:
                assert id_ != self.model.pending(row.lane)[0], "it was being sent"
            del self.model.rows[id_]
            gone += 1
            self.model.tidy(row.lane)
        assert count == gone
        self.model.discarded += gone

    # ---- time and death

    @rule(seconds=st.sampled_from([1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: any(hold.not_before for hold in self.model.lanes.values()))
    @rule(user=st.none() | st.sampled_from(["alice", "bob"]))
    def wake(self, user: str | None) -> None:
        woken = [
            hold
            for lane, hold in self.model.lanes.items()
            if not hold.owner and hold.not_before and hold.wakeable and user in (None, lane.user)
        ]
        assert self.store.wake(user=user) == len(woken)
        for hold in woken:
            hold.not_before = 0.0

    @precondition(lambda self: self.ghost is not None)
    @rule()
    def ghost_dies(self) -> None:
        assert self.ghost is not None
        self.ghost.die()
        self.ghost = None
        for lane in self._owned("ghost"):
            self.model.lanes[lane].owner = "dead"

    @precondition(lambda self: self._owned("dead"))
    @rule()
    def sweep(self) -> None:
        self.store.sweep(self.now)
        self.free_the_dead()

    def free_the_dead(self) -> None:
        for lane in self._owned("dead"):
            self.model.lanes[lane].owner = ""
            self.model.rows[self.model.pending(lane)[0]].uncertain = True

    @rule()
    def reopen(self) -> None:
        self.store.close()
        for lane in self._owned("us"):
            self.model.lanes[lane].owner = ""
            self.model.rows[self.model.pending(lane)[0]].uncertain = True
        self.open()

    # ---- always

    @invariant()
    def the_same(self) -> None:
        if not hasattr(self, "store"):
            return
        balanced(self.store)
        stats = self.store.stats()
        dead = sum(row.state is State.DEAD for row in self.model.rows.values())
        assert (stats.accepted, stats.delivered, stats.dead, stats.pending, stats.discarded) == (
            self.model.accepted,
            self.model.delivered,
            dead,
            len(self.model.pending()),
            self.model.discarded,
        )
        assert stats.lanes == len(self.model.lanes)
        found = {row.id: row for row in self.store.list(Selection())}
        waiting = [row for row in found.values() if row.state is State.QUEUED]
        assert stats.oldest == (waiting[0].created_at if waiting else None)
        assert set(found) == set(self.model.rows)
        for id_, row in self.model.rows.items():
            assert (found[id_].key, found[id_].lane, found[id_].state) == (row.key, row.lane, row.state)
            assert found[id_].attempts == row.attempts
            assert found[id_].uncertain >= row.uncertain


StoreMachine.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
TestStore = StoreMachine.TestCase
