"""An outbox store in memory, for tests and simulations: it keeps every rule of `chatsdk.core.store`, but on no disk.

    store = MemoryStore(clock)
    with ChatClient(url, store=store) as chat: ...

`peer()` is the same outbox as another process would see it, and `die()` is kill -9: nothing is released, and what that
process owned can be claimed at once, its first row marked uncertain.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count, islice
from typing import Any

from ..core.clock import Clock
from ..core.errors import InvalidMessage, KeyReusedError, OutboxFullError, StorageError
from ..core.exchange import Request
from ..core.store import (
    Claim,
    Entry,
    Lane,
    LaneLostError,
    LaneStatus,
    Park,
    Put,
    Row,
    Selection,
    State,
    Stats,
)
from .clock import FakeClock

RESULT_AGE = 24 * 3600.0
"""Seconds a result stays known."""

RESULTS_KEPT = 10_000
"""Results kept at most."""


@dataclass(slots=True)
class _Lane:
    """A lane. `rows`: ids of its pending rows in order; `owner`: 0 for nobody."""

    rows: deque[int] = field(default_factory=deque)
    owner: int = 0
    not_before: float = 0.0
    reason: str = ""
    failures: int = 0
    wakeable: bool = True


class _Shared:
    """What all processes see."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.ids = count(1)
        self.owners = count(1)
        self.alive: set[int] = set()
        self.rows: dict[int, Row] = {}
        self.sizes: dict[int, int] = {}
        self.keys: dict[str, int] = {}
        self.lanes: OrderedDict[Lane, _Lane] = OrderedDict()  # the lane that was claimed last stands last
        self.results: deque[int] = deque()
        self.accepted = self.delivered = self.dead = self.pending = self.discarded = 0
        self.bytes = 0


class MemoryStore:
    """A `chatsdk.core.store.OutboxStore`. Times are those of `clock` (a FakeClock if none is given).

    max_pending, max_bytes: how many messages may wait, and how large what waits or is dead may be; then `put` raises
    OutboxFullError.
    """

    def __init__(self, clock: Clock | None = None, *, max_pending: int = 1_000_000, max_bytes: int = 1 << 40) -> None:
        self.clock: Clock = FakeClock() if clock is None else clock
        self._max_pending = max_pending
        self._max_bytes = max_bytes
        self._all = _Shared()
        self._join()

    def _join(self) -> None:
        self._me = next(self._all.owners)
        self._all.alive.add(self._me)

    def peer(self) -> MemoryStore:
        """The same outbox, as another process sees it."""
        other = object.__new__(MemoryStore)
        other.clock, other._all = self.clock, self._all
        other._max_pending, other._max_bytes = self._max_pending, self._max_bytes
        other._join()
        return other

    def die(self) -> None:
        """This process is killed: what it owns stays marked as its own, and whoever comes next may take it."""
        self._all.alive.discard(self._me)

    # ---- in

    def put(self, entry: Entry) -> Put:
        """See `OutboxStore.put`."""
        if not entry.request.key:
            raise InvalidMessage("a message without a key cannot be stored")
        stored = json.dumps(entry.request.to_json())
        with self._open():
            known = self._row(key=entry.request.key or "")
            if known is not None:
                if _same(known.request, entry.request):
                    return Put(known, False, self.lane_status(known.lane))
                raise KeyReusedError(f"key {entry.request.key} names another message")
            if self._all.pending >= self._max_pending or self._all.bytes + len(stored) > self._max_bytes:
                raise OutboxFullError("the outbox is full")
            row = Row(
                id=next(self._all.ids),
                request=Request.from_json(json.loads(stored)),
                state=State.QUEUED,
                created_at=entry.created_at,
                expires_at=entry.created_at + entry.ttl,
            )
            self._all.rows[row.id] = row
            self._all.sizes[row.id] = len(stored)
            self._all.keys[row.key] = row.id
            self._all.lanes.setdefault(row.lane, _Lane()).rows.append(row.id)
            self._all.accepted += 1
            self._all.pending += 1
            self._all.bytes += len(stored)
            return Put(row, True, self.lane_status(row.lane))

    # ---- out

    def claim(
        self,
        now: float,
        *,
        limit: int = 25,
        lane: Lane | None = None,
        users: Collection[str] | None = None,
        skip_users: Collection[str] = (),
    ) -> Claim | None:
        """See `OutboxStore.claim`."""
        with self._open():
            for name, state in self._open_lanes(users, skip_users):
                if state.not_before <= now and lane in (None, name):
                    break
            else:
                return None
            if state.owner:  # its owner died, perhaps in the middle of a try
                self._change(state.rows[0], uncertain=True)
            state.owner, state.not_before, state.wakeable = self._me, 0.0, True
            self._all.lanes.move_to_end(name)
            return Claim(name, self._first_rows(state, limit), state.failures)

    def finish(
        self,
        lane: Lane,
        row: int,
        result: Mapping[str, Any] | None,
        now: float,
        *,
        attempts: int = 1,
        more: int = 0,
    ) -> Sequence[Row]:
        """See `OutboxStore.finish`."""
        with self._open():
            state = self._owned(lane, row)
            kept = json.loads(json.dumps(result))
            self._change(row, state=State.SENT, result=kept, reason="", settle="", finished_at=now, attempts=attempts)
            self._all.pending -= 1
            self._all.delivered += 1
            self._all.bytes -= self._all.sizes[row]
            self._all.results.append(row)
            return self._next(state, more)

    def bury(
        self,
        lane: Lane,
        row: int,
        reason: str,
        error: Mapping[str, Any] | None,
        now: float,
        *,
        attempts: int = 0,
        more: int = 0,
    ) -> Sequence[Row]:
        """See `OutboxStore.bury`."""
        with self._open():
            state = self._owned(lane, row)
            self._all.pending -= 1
            self._all.dead += 1
            changes: dict[str, Any] = {} if error is None else {"error": error}
            self._change(row, state=State.DEAD, reason=reason, settle="", finished_at=now, attempts=attempts, **changes)
            return self._next(state, more)

    def park(self, lane: Lane, row: int | None, park: Park) -> None:
        """See `OutboxStore.park`."""
        with self._open():
            state = self._owned(lane, row)
            state.owner = 0
            state.not_before, state.reason, state.wakeable = park.not_before, park.reason, park.wakeable
            state.failures += park.failures
            self._drop_if_empty(lane)
            if row is None:
                return
            changes: dict[str, Any] = {
                name: getattr(park, name)
                for name in ("settled_at", "uncertain", "settle", "error")
                if getattr(park, name) is not None
            }
            self._change(
                row, reason=park.reason, attempts=park.attempts, strikes=park.strikes, misses=park.misses, **changes
            )

    def release(self, lane: Lane) -> None:
        """See `OutboxStore.release`."""
        with self._open():
            state = self._all.lanes.get(lane)
            if state is not None and state.owner == self._me:
                state.owner = 0
                self._drop_if_empty(lane)

    def wake(self, *, user: str | None = None, lane: Lane | None = None) -> int:
        """See `OutboxStore.wake`."""
        with self._open():
            woken = 0
            for name, state in self._all.lanes.items():
                if (
                    not state.owner
                    and state.wakeable
                    and state.not_before
                    and user in (None, name.user)
                    and lane in (None, name)
                ):
                    state.not_before = 0.0
                    woken += 1
            return woken

    # ---- what is known

    def get(self, *, id: int | None = None, key: str | None = None) -> Row | None:
        """See `OutboxStore.get`."""
        with self._open():
            return self._row(key=key) if id is None else self._all.rows.get(id)

    def list(self, selection: Selection) -> Sequence[Row]:
        """See `OutboxStore.list`."""
        with self._open():
            fits = (row for row in self._all.rows.values() if row.id > selection.after and _fits(row, selection))
            return sorted(fits, key=lambda row: row.id)[: selection.limit]

    def lane_status(self, lane: Lane) -> LaneStatus:
        """See `OutboxStore.lane_status`."""
        with self._open():
            state = self._all.lanes.get(lane) or _Lane()
            return LaneStatus(
                not_before=state.not_before,
                reason=state.reason,
                failures=state.failures,
                owned=state.owner in self._all.alive,
            )

    def next_due(
        self, now: float, *, users: Collection[str] | None = None, skip_users: Collection[str] = ()
    ) -> float | None:
        """See `OutboxStore.next_due`."""
        with self._open():
            lanes = self._open_lanes(users, skip_users)
            return min((max(now, state.not_before) for _, state in lanes), default=None)

    def stats(self) -> Stats:
        """See `OutboxStore.stats`."""
        with self._open():
            waiting = [state for state in self._all.lanes.values() if state.rows]
            first = min((state.rows[0] for state in waiting), default=None)
            return Stats(
                accepted=self._all.accepted,
                delivered=self._all.delivered,
                dead=self._all.dead,
                pending=self._all.pending,
                discarded=self._all.discarded,
                bytes=self._all.bytes,
                lanes=len(waiting),
                oldest=None if first is None else self._all.rows[first].created_at,
                next_attempt_at=min((state.not_before or self.clock.time() for state in waiting), default=None),
            )

    # ---- by hand

    def retry(self, ids: Collection[int], now: float, ttl: float) -> int:
        """See `OutboxStore.retry`."""
        with self._open():
            dead = [id for id in sorted(set(ids)) if id in self._all.rows and self._all.rows[id].state is State.DEAD]
            for old in dead:
                row, size = self._all.rows.pop(old), self._all.sizes.pop(old)
                again = Row(
                    id=next(self._all.ids),
                    request=row.request,
                    state=State.QUEUED,
                    created_at=row.created_at,
                    expires_at=now + ttl,
                    attempts=row.attempts,
                    uncertain=row.uncertain,
                    settle="send",
                    error=row.error,
                )
                self._all.rows[again.id], self._all.sizes[again.id] = again, size
                self._all.keys[again.key] = again.id
                self._all.lanes.setdefault(again.lane, _Lane()).rows.append(again.id)
            self._all.dead -= len(dead)
            self._all.pending += len(dead)
            return len(dead)

    def discard(self, ids: Collection[int], now: float) -> int:
        """See `OutboxStore.discard`."""
        with self._open():
            gone = [id for id in sorted(set(ids)) if id in self._all.rows and self._may_discard(self._all.rows[id])]
            for id in gone:
                row = self._all.rows[id]
                if row.state is State.QUEUED:
                    self._all.lanes[row.lane].rows.remove(id)
                    self._drop_if_empty(row.lane)
                    self._all.pending -= 1
                else:
                    self._all.dead -= 1
                self._all.discarded += 1
                self._all.bytes -= self._all.sizes[id]
                self._forget(id)
            return len(gone)

    def sweep(self, now: float) -> None:
        """See `OutboxStore.sweep`."""
        with self._open():
            results = self._all.results
            while results and (
                len(results) > RESULTS_KEPT or (self._all.rows[results[0]].finished_at or 0.0) < now - RESULT_AGE
            ):
                self._forget(results.popleft())

    def close(self) -> None:
        """See `OutboxStore.close`. A closed store refuses everything with StorageError."""
        with self._all.lock:
            for state in self._all.lanes.values():
                if state.owner == self._me:
                    state.owner = 0
            self._all.alive.discard(self._me)

    # ---- inside, with the lock held

    @contextmanager
    def _open(self) -> Iterator[None]:
        with self._all.lock:
            if self._me not in self._all.alive:
                raise StorageError("the outbox is closed")
            yield

    def _row(self, key: str | None) -> Row | None:
        id = self._all.keys.get(key or "")
        return None if id is None else self._all.rows[id]

    def _open_lanes(self, users: Collection[str] | None, skip: Collection[str]) -> Iterator[tuple[Lane, _Lane]]:
        """Lanes with rows and without a living owner, of these users; whose turn it is comes first."""
        for lane, state in self._all.lanes.items():
            if not state.rows or state.owner in self._all.alive:
                continue
            if (users is None or lane.user in users) and lane.user not in skip:
                yield lane, state

    def _owned(self, lane: Lane, row: int | None) -> _Lane:
        state = self._all.lanes.get(lane)
        if state is None or state.owner != self._me or (row is not None and list(islice(state.rows, 1)) != [row]):
            raise LaneLostError(f"{lane} is not ours")
        return state

    def _next(self, state: _Lane, more: int) -> Sequence[Row]:
        """The lane's first row has met its fate: what comes next, or the lane is free."""
        state.rows.popleft()
        state.failures, state.not_before, state.reason, state.wakeable = 0, 0.0, "", True
        rows = self._first_rows(state, more)
        if not rows:
            state.owner = 0
        return rows

    def _drop_if_empty(self, lane: Lane) -> None:
        """A lane without rows and owner has no past."""
        state = self._all.lanes.get(lane)
        if state is not None and not state.rows and state.owner not in self._all.alive:
            del self._all.lanes[lane]

    def _first_rows(self, state: _Lane, limit: int) -> Sequence[Row]:
        return [self._all.rows[id] for id in islice(state.rows, limit)]

    def _change(self, id: int, *, attempts: int = 0, strikes: int = 0, misses: int = 0, **changes: Any) -> None:
        row = self._all.rows[id]
        self._all.rows[id] = replace(
            row,
            attempts=row.attempts + attempts,
            strikes=row.strikes + strikes,
            misses=row.misses + misses,
            **changes,
        )

    def _may_discard(self, row: Row) -> bool:
        if row.state is State.QUEUED:
            lane = self._all.lanes[row.lane]
            return not (lane.owner in self._all.alive and lane.rows[0] == row.id)  # it may be on its way
        return row.state is State.DEAD

    def _forget(self, id: int) -> None:
        row = self._all.rows.pop(id)
        del self._all.keys[row.key]
        del self._all.sizes[id]


def _same(known: Request, new: Request) -> bool:
    """True if both say the same to the server; the correlation id is another one with every call."""
    return bool(known.to_json() == json.loads(json.dumps(new.replace(correlation_id=known.correlation_id).to_json())))


def _fits(row: Row, selection: Selection) -> bool:
    return (
        (not selection.states or row.state in selection.states)
        and (not selection.ids or row.id in selection.ids)
        and (not selection.keys or row.key in selection.keys)
        and selection.user in (None, row.request.user)
        and selection.channel in (None, row.request.channel)
    )
