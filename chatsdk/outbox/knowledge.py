"""What this process knows of users and lanes without asking the disk.

Users: who waits for a token, and who has lost the session; in memory only, because another process may hold a better
token. Lanes: how the last try of each went, so that `send` can say at once that waiting is of no use.

All methods are thread-safe and quick. User times are monotonic, lane times are Unix time, as in the store.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from ..core.record import Record, record
from ..core.store import Lane, LaneStatus

LANES_KEPT = 10_000
"""Lanes whose last failure is remembered; the oldest is forgotten first (`put` tells it again)."""


TICK = 0.001
"""Seconds that count as "now": monotonic and Unix time are added to each other, and a float of Unix time is coarse."""


@dataclass(slots=True)
class _Parked:
    until: float
    failures: int


@record(frozen=True, slots=True)
class _Lane(Record):
    status: LaneStatus
    wakeable: bool
    since: float  # monotonic: when the first of these failures in a row was heard of


class Users:
    """Users whose lanes are not tried now: parked (until a time) or paused (until `wake(user)`)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parked: dict[str, _Parked] = {}
        self._paused: set[str] = set()

    def park(self, user: str, until: float) -> None:
        """No try for this user before `until`."""
        with self._lock:
            known = self._parked.setdefault(user, _Parked(until, 0))
            known.until, known.failures = max(known.until, until), known.failures + 1

    def pause(self, user: str) -> None:
        """No try for this user until `wake(user)`."""
        with self._lock:
            self._paused.add(user)

    def succeeded(self, user: str) -> None:
        """A try of this user went through: its token is good."""
        if self._parked:
            with self._lock:
                self._parked.pop(user, None)

    def wake(self, user: str | None = None) -> None:
        """A user has a new token; without `user`: whoever is parked may try at once, but a lost session stays lost."""
        with self._lock:
            if user is None:
                self._parked.clear()
            else:
                self._parked.pop(user, None)
                self._paused.discard(user)

    def failures(self, user: str) -> int:
        """Refused or missing tokens in a row."""
        known = self._parked.get(user)
        return 0 if known is None else known.failures

    def waits(self, user: str, now: float) -> float:
        """Seconds until this user's lanes may be tried: 0 at once, infinite when paused."""
        if user in self._paused:
            return float("inf")
        known = self._parked.get(user)
        return 0.0 if known is None or known.until <= now + TICK else known.until - now

    def unavailable(self, now: float) -> Collection[str]:
        """Whose lanes not to claim."""
        if not self._parked and not self._paused:
            return ()
        with self._lock:
            return self._paused | {user for user, known in self._parked.items() if known.until > now + TICK}

    def next_due(self, now: float) -> float | None:
        """When the first parked user may be tried again, or None."""
        with self._lock:
            return min((known.until for known in self._parked.values() if known.until > now + TICK), default=None)


class Lanes:
    """How the last try of each lane went, as far as this process knows."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[Lane, _Lane] = OrderedDict()
        self._changes = 0

    @property
    def stamp(self) -> int:
        """Take it before reading the store; `learn` wants it back."""
        return self._changes

    def failed(self, lane: Lane, status: LaneStatus, wakeable: bool, now: float) -> None:
        """A try failed and the lane waits. `now`: monotonic."""
        with self._lock:
            self._changes += 1
            self._keep(lane, status, wakeable, now)

    def succeeded(self, lane: Lane) -> None:
        """A try went well."""
        if lane in self._known:
            with self._lock:
                self._changes += 1
                self._known.pop(lane, None)

    def learn(self, lane: Lane, status: LaneStatus, stamp: int, now: float) -> None:
        """The store said how a lane is, for all processes; ignored if this process learned something since `stamp`.
        `now`: monotonic."""
        if not status.failures and not status.not_before and lane not in self._known:
            return
        with self._lock:
            if stamp != self._changes:
                return
            if status.failures or status.not_before:
                self._keep(lane, status, True, now)
            else:
                self._known.pop(lane, None)

    def wake(self, *, user: str | None = None, lane: Lane | None = None) -> None:
        """Forget the waits that may be cut short."""
        with self._lock:
            self._changes += 1
            for known, what in list(self._known.items()):
                if what.wakeable and user in (None, known.user) and lane in (None, known):
                    del self._known[known]

    def status(self, lane: Lane) -> LaneStatus | None:
        """What is known, or None for nothing bad."""
        known = self._known.get(lane)
        return None if known is None else known.status

    def failing_for(self, lane: Lane, now: float) -> float:
        """Seconds for which every try of the lane failed, as far as this process heard of it; 0: the last one did not.
        `now`: monotonic."""
        known = self._known.get(lane)
        return now - known.since if known is not None and known.status.failures else 0.0

    def _keep(self, lane: Lane, status: LaneStatus, wakeable: bool, now: float) -> None:
        known = self._known.get(lane)
        since = known.since if known is not None and known.status.failures else now
        self._known[lane] = _Lane(status, wakeable, since)
        self._known.move_to_end(lane)
        if len(self._known) > LANES_KEPT:
            self._known.popitem(last=False)
