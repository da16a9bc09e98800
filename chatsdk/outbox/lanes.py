"""Who may send: operations on the table of lanes.

A lane stands in the table as long as it has pending rows or an owner; `put` adds it with its first pending row, the
finish of its last one removes it. So the next lane, the next time and the lanes of a dead owner are each one look into
an index, however many lanes are parked and however many rows wait.

    ready    no owner, not_before = 0: in the order of `turn`, a number that grows, so that no clock can starve a lane
    parked   no owner, not_before > 0: due in the order of not_before
    owned    its rows up to `upto` are in the owner's hands; `turn` is the claim's number, which the owner chose

Each function runs inside a transaction, and raises LaneLostError before it changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from typing import Any

from ..core.store import Claim, Lane, LaneLostError, LaneStatus, Park, Row
from .group_commit import Source, Transaction
from .schema import COLUMNS, DEAD, TABLE, UNREADABLE, decode, optional_json

_IS = "user = ? AND channel = ?"
NEXT_TURN = "(SELECT coalesce(max(turn), 0) + 1 FROM lanes WHERE owner IS NULL AND not_before = 0)"

_FEW = 8
"""So many users are compared by SQLite, one by one. More would have to be handed over as a table with each statement,
which costs 1 ms for a thousand; then lanes are taken from the index until one is meant, mostly the first."""


def _ready(users: str) -> str:
    return (
        "SELECT user, channel, failures FROM lanes INDEXED BY lanes_ready "
        f"WHERE owner IS NULL AND not_before = 0 AND {users} ORDER BY turn"
    )


def _parked(users: str, due: str = "AND not_before <= :now") -> str:
    return (
        "SELECT user, channel, failures, not_before FROM lanes INDEXED BY lanes_parked "
        f"WHERE owner IS NULL AND not_before > 0 {due} AND {users} ORDER BY not_before"
    )


class Who:
    """Whose lanes are meant; `users` None: anybody's. `sql` and its `arguments` leave out what SQLite can tell cheaply,
    `first` the rest."""

    def __init__(self, users: Collection[str] | None = None, skip: Collection[str] = ()) -> None:
        self._users = users
        self._skip = skip
        self.arguments: dict[str, str] = {}
        wanted = [self._among("user", users)] if users and len(users) <= _FEW else []
        refused = [f"NOT {self._among('skip', skip)}"] if 0 < len(skip) <= _FEW else []
        self.sql = " AND ".join(wanted + refused) or "1"

    def _among(self, name: str, users: Collection[str]) -> str:
        named = {f"{name}{n}": user for n, user in enumerate(users)}
        self.arguments.update(named)
        return f"({' OR '.join(f'user = :{each}' for each in named)})"

    def first(self, tx: Source, query: str, **more: object) -> tuple[Any, ...] | None:
        """The first row that `query` finds (its first column is the user) of those who are meant."""
        if self._users is not None and not self._users:
            return None
        with closing(tx.execute(query, {**self.arguments, **more})) as rows:
            return next((row for row in rows if self.includes(row[0])), None)

    def includes(self, user: str) -> bool:
        """True if this user's lanes are meant."""
        return (self._users is None or user in self._users) and user not in self._skip


# ---- taking and giving back


def claim(
    tx: Transaction, me: str, number: int, now: float, limit: int, lane: Lane | None, who: Who, parked_first: bool
) -> Claim | None:
    """Make a lane that is due mine."""
    while True:
        found = _this(tx, lane, now, who) if lane is not None else _next(tx, now, who, parked_first)
        if found is None:
            return None
        lane_found, failures = found
        rows = next_rows(tx, lane_found, max(limit, 1))
        if rows:
            tx.execute(
                f"UPDATE lanes SET owner = ?, not_before = 0, wakeable = 1, turn = ?, upto = ? WHERE {_IS}",
                (me, number, rows[-1].id, *lane_found),
            )
            return Claim(lane_found, rows, failures)
        tx.execute(f"DELETE FROM lanes WHERE {_IS}", lane_found)  # its rows were unreadable, and dead now


def _this(tx: Transaction, lane: Lane, now: float, who: Who) -> tuple[Lane, int] | None:
    if not who.includes(lane.user):
        return None
    found = tx.execute(
        f"SELECT failures FROM lanes WHERE {_IS} AND owner IS NULL AND not_before <= ?", (*lane, now)
    ).fetchone()
    return None if found is None else (lane, found[0])


def _next(tx: Transaction, now: float, who: Who, parked_first: bool) -> tuple[Lane, int] | None:
    queries = (_parked(who.sql), _ready(who.sql))
    for query in queries if parked_first else queries[::-1]:
        found = who.first(tx, query, now=now)
        if found is not None:
            return Lane(found[0], found[1]), found[2]
    return None


def next_rows(tx: Transaction, lane: Lane, limit: int) -> Sequence[Row]:
    """The first pending rows of a lane. What cannot be read would stop the lane for ever: it becomes a dead letter."""
    while True:
        stored = tx.execute(
            f"SELECT {COLUMNS} FROM {TABLE} WHERE {_IS} AND status < 2 ORDER BY _id LIMIT ?", (*lane, limit)
        ).fetchall()
        rows = [decode(each) for each in stored]
        unreadable = [row.id for row in rows if row.request.operation == UNREADABLE]
        if not unreadable:
            return rows
        error = optional_json({"type": "StorageError", "code": "unreadable", "message": "the stored row is damaged"})
        for id_ in unreadable:
            tx.execute(
                f"UPDATE {TABLE} SET status = {DEAD}, reason = 'poison', error = ?, finished_at = timestamp "
                "WHERE _id = ?",
                (error, id_),
            )
        tx.counts.pending -= len(unreadable)
        tx.counts.dead += len(unreadable)


def check_owner(tx: Transaction, lane: Lane, me: str | None) -> tuple[int, str, int]:
    """(failures, reason, upto) of a lane that is mine. Raises LaneLostError if it is not."""
    found = tx.execute(f"SELECT owner, failures, reason, upto FROM lanes WHERE {_IS}", lane).fetchone()
    if found is None or me is None or found[0] != me:
        raise LaneLostError(f"lane {lane.channel} is not owned by this process")
    return found[1], found[2], found[3]


def go_on(tx: Transaction, lane: Lane, known: tuple[int, str, int], more: int) -> Sequence[Row]:
    """After a row was finished: the next rows (up to `more`), or the lane is given back."""
    rows = next_rows(tx, lane, more or 1)
    if not rows:
        tx.execute(f"DELETE FROM lanes WHERE {_IS}", lane)
        return ()
    if not more:
        give_back(tx, lane, failures=0)
        return ()
    if known != (0, "", rows[-1].id):
        tx.execute(f"UPDATE lanes SET failures = 0, reason = '', upto = ? WHERE {_IS}", (rows[-1].id, *lane))
    return rows


def give_back(tx: Transaction, lane: Lane, *, failures: int | None = None) -> None:
    """A lane of mine is ready for anybody, at the end of the queue; without pending rows it is gone.
    `failures` None: it stays as it is."""
    if not has_rows(tx, lane):
        tx.execute(f"DELETE FROM lanes WHERE {_IS}", lane)
        return
    forget = "" if failures is None else ", failures = 0, reason = ''"
    tx.execute(f"UPDATE lanes SET owner = NULL, not_before = 0, turn = {NEXT_TURN}, upto = 0{forget} WHERE {_IS}", lane)


def give_back_claim(tx: Transaction, me: str, lane: Lane, number: int) -> None:
    """Give a lane back if it is still the claim of this number."""
    query = f"SELECT 1 FROM lanes WHERE {_IS} AND owner = ? AND turn = ?"
    if tx.execute(query, (*lane, me, number)).fetchone() is not None:
        give_back(tx, lane)


def park(tx: Transaction, lane: Lane, park: Park, now: float) -> None:
    """A lane of mine waits until `park.not_before`."""
    if not has_rows(tx, lane):
        tx.execute(f"DELETE FROM lanes WHERE {_IS}", lane)
        return
    tx.execute(
        "UPDATE lanes SET owner = NULL, not_before = ?, parked_at = ?, failures = failures + ?, reason = ?, "
        f"wakeable = ?, upto = 0 WHERE {_IS}",
        (max(park.not_before, 1e-9), now, park.failures, park.reason, park.wakeable, *lane),
    )


def has_rows(tx: Transaction, lane: Lane) -> bool:
    """The lane has pending rows."""
    query = f"SELECT 1 FROM {TABLE} WHERE {_IS} AND status < 2 LIMIT 1"
    return tx.execute(query, lane).fetchone() is not None


def add(tx: Transaction, lane: Lane) -> tuple[str | None, float, int, str]:
    """A row was put into the lane: it stands in the table. Returns (owner, not_before, failures, reason)."""
    found = tx.execute(f"SELECT owner, not_before, failures, reason FROM lanes WHERE {_IS}", lane).fetchone()
    if found is not None:
        return found  # type: ignore[no-any-return]
    tx.execute(f"INSERT INTO lanes(user, channel, turn) VALUES(?, ?, {NEXT_TURN})", lane)
    return None, 0.0, 0, ""


def remove_if_empty(tx: Transaction, lane: Lane) -> None:
    """Rows of a lane that nobody may own were given up."""
    if not has_rows(tx, lane):
        tx.execute(f"DELETE FROM lanes WHERE {_IS} AND owner IS NULL", lane)


# ---- owners


def owners(tx: Source, me: str | None) -> Sequence[str]:
    """The owners of lanes, without me."""
    found: list[str] = []
    query = "SELECT min(owner) FROM lanes WHERE owner > ? AND owner IS NOT NULL"
    owner = tx.execute(query, ("",)).fetchone()[0]
    while owner is not None:
        if owner != me:
            found.append(owner)
        owner = tx.execute(query, (owner,)).fetchone()[0]
    return found


def take_from_the_dead(tx: Transaction, me: str | None, is_alive: Callable[[str], bool]) -> int:
    """Free the lanes of owners that are dead. Returns how many."""
    return sum(free(tx, owner) for owner in owners(tx, me) if not is_alive(owner))


def free(tx: Transaction, owner: str) -> int:
    """Free all lanes of an owner that does not send any more. Its last tries may have reached the server."""
    lanes = tx.execute("SELECT user, channel FROM lanes WHERE owner = ?", (owner,)).fetchall()
    for lane in lanes:
        tx.execute(
            f"UPDATE {TABLE} SET uncertain = 1 WHERE _id = (SELECT min(_id) FROM {TABLE} WHERE {_IS} AND status < 2)",
            lane,
        )
        give_back(tx, Lane(*lane))
    return len(lanes)


# ---- time


def wake(tx: Transaction, user: str | None, lane: Lane | None) -> int:
    """What is parked may be tried at once, but for what Retry-After parked."""
    which, arguments = _which(user, lane)
    return tx.execute(
        f"UPDATE lanes SET not_before = 0, turn = {NEXT_TURN} "
        f"WHERE owner IS NULL AND not_before > 0 AND wakeable = 1 AND {which}",
        arguments,
    ).rowcount


def any_to_wake(tx: Source, user: str | None, lane: Lane | None) -> bool:
    """`wake` would find something."""
    which, arguments = _which(user, lane)
    query = f"SELECT 1 FROM lanes WHERE owner IS NULL AND not_before > 0 AND wakeable = 1 AND {which} LIMIT 1"
    return tx.execute(query, arguments).fetchone() is not None


def _which(user: str | None, lane: Lane | None) -> tuple[str, tuple[str, ...]]:
    if lane is not None:
        return _IS, tuple(lane)
    return ("1", ()) if user is None else ("user = ?", (user,))


def next_due(tx: Source, now: float, who: Who, is_dead: Callable[[], bool]) -> float | None:
    """When the next lane without a living owner may be tried. `is_dead`: some owner of such a lane is dead."""
    if who.first(tx, _ready(who.sql)) is not None:
        return now
    parked = who.first(tx, _parked(who.sql, due=""))
    if parked is not None and parked[3] <= now:
        return now
    if is_dead():
        return now
    return None if parked is None else parked[3]


def owned_by(tx: Source, owner: str, who: Who) -> bool:
    """The owner has a lane of these users."""
    return who.first(tx, f"SELECT user FROM lanes WHERE owner = :owner AND {who.sql}", owner=owner) is not None


def clock_went_back(tx: Transaction, now: float) -> int:
    """Lanes that were parked in the future: the clock was set back, and they would wait for the difference."""
    return tx.execute(
        f"UPDATE lanes SET not_before = 0, turn = {NEXT_TURN} WHERE owner IS NULL AND not_before > 0 AND parked_at > ?",
        (now + 1,),
    ).rowcount


def count(tx: Source) -> int:
    """How many lanes there are. SQLite counts entries of pages, not rows."""
    return int(tx.execute("SELECT count(*) FROM lanes").fetchone()[0])


def status(tx: Source, lane: Lane) -> tuple[str | None, float, int, str] | None:
    """(owner, not_before, failures, reason), or None for a lane without rows."""
    query = f"SELECT owner, not_before, failures, reason FROM lanes WHERE {_IS}"
    return tx.execute(query, lane).fetchone()  # type: ignore[no-any-return]


_IDLE = LaneStatus()


def as_status(found: tuple[str | None, float, int, str] | None, is_alive: Callable[[str], bool]) -> LaneStatus:
    """What is said of a lane."""
    if found is None:
        return _IDLE
    owner, not_before, failures, reason = found
    if owner is None and not (not_before or failures or reason):
        return _IDLE
    return LaneStatus(
        not_before=not_before, reason=reason, failures=failures, owned=owner is not None and is_alive(owner)
    )
