"""What becomes of a message: operations on the table of messages.

Each function runs inside a transaction, counts what it does, and raises before it changes anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import KeyReusedError, OutboxFullError
from ..core.record import Record, record
from ..core.store import Lane, LaneLostError, Park, Row, Selection, State
from . import lanes
from .group_commit import Source, Transaction
from .schema import COLUMNS, DEAD, PENDING, SENT, TABLE, Encoded, decode, optional_json

RESULTS_KEPT = 10_000
RESULTS_KEPT_SECONDS = 24 * 3600.0
"""How many results stay known, and how long."""

PURGE = 512
"""Results forgotten in one transaction at most."""

_INSERT = (
    f"INSERT INTO {TABLE}(_id, data, timestamp, status, key, user, channel, hash, expires_at) "
    f"VALUES(?, ?, ?, {PENDING}, ?, ?, ?, ?, ?) ON CONFLICT(key) DO NOTHING"
)
_IN_LANE = "_id = ? AND user = ? AND channel = ? AND status < 2"
_STATUS = {State.QUEUED: "status < 2", State.SENT: f"status = {SENT}", State.DEAD: f"status = {DEAD}"}


@record(frozen=True, slots=True)
class Room(Record):
    """How much the outbox may hold: pending rows, bytes of pending and dead rows."""

    max_pending: int
    max_bytes: int

    def check(self, tx: Transaction, more: int) -> None:
        """Raises OutboxFullError if a message of `more` bytes does not fit."""
        pending, held = tx.held()
        if pending >= self.max_pending:
            raise OutboxFullError(f"{pending} messages wait already (max_pending {self.max_pending})")
        if held + more > self.max_bytes:
            raise OutboxFullError(f"the outbox holds {held} bytes already (max_bytes {self.max_bytes})")


LaneFacts = tuple[str | None, float, int, str]


def put(tx: Transaction, new: Encoded, room: Room) -> tuple[Row, bool, LaneFacts | None]:
    """(row, created, facts of its lane)."""
    lane = Lane(new.request.user, new.request.channel)
    try:
        room.check(tx, len(new.data))
    except OutboxFullError:
        known = _known(tx, new)
        if known is None:
            raise
        return known, False, lanes.status(tx, lane)
    id_ = tx.next_id()
    inserted = tx.execute(
        _INSERT, (id_, new.data, new.created_at, new.key, lane.user, lane.channel, new.hash, new.expires_at)
    )
    if not inserted.rowcount:
        tx.counts.ids -= 1
        known = _known(tx, new)
        assert known is not None
        return known, False, lanes.status(tx, lane)
    tx.counts.accepted += 1
    tx.counts.pending += 1
    tx.counts.bytes += len(new.data)
    row = Row(
        id=id_,
        request=new.request,
        state=State.QUEUED,
        created_at=new.created_at,
        expires_at=new.expires_at,
    )
    return row, True, lanes.add(tx, lane)


def _known(tx: Transaction, new: Encoded) -> Row | None:
    found = tx.execute(f"SELECT {COLUMNS}, hash FROM {TABLE} WHERE key = ?", (new.key,)).fetchone()
    if found is None:
        return None
    if found[-1] != new.hash:
        raise KeyReusedError(f"key {new.key} names another message already")
    return decode(found[:-1])


def finish(
    tx: Transaction, me: str | None, lane: Lane, id_: int, result: str | None, now: float, attempts: int, more: int
) -> Sequence[Row]:
    """Delivered: the row becomes a result."""
    return _end(
        tx,
        me,
        lane,
        id_,
        f"status = {SENT}, reason = '', result = ?, finished_at = ?, attempts = attempts + ?",
        (result, now, attempts),
        more,
    )


def bury(
    tx: Transaction,
    me: str | None,
    lane: Lane,
    id_: int,
    reason: str,
    error: str | None,
    now: float,
    attempts: int,
    more: int,
) -> Sequence[Row]:
    """The row is a dead letter."""
    return _end(
        tx,
        me,
        lane,
        id_,
        f"status = {DEAD}, reason = ?, error = ?, finished_at = ?, attempts = attempts + ?",
        (reason, error, now, attempts),
        more,
    )


def _end(
    tx: Transaction, me: str | None, lane: Lane, id_: int, change: str, values: tuple[Any, ...], more: int
) -> Sequence[Row]:
    known = lanes.check_owner(tx, lane, me)
    changed = tx.execute(
        f"UPDATE {TABLE} SET settle = '', {change} WHERE {_IN_LANE} RETURNING status, length(data)",
        (*values, id_, *lane),
    ).fetchall()
    if not changed:
        raise LaneLostError(f"row {id_} does not wait in this lane")
    status, size = changed[0]
    tx.counts.pending -= 1
    if status == SENT:
        tx.counts.delivered += 1
        tx.counts.bytes -= size
    else:
        tx.counts.dead += 1
    return lanes.go_on(tx, lane, known, more)


def park(tx: Transaction, me: str | None, lane: Lane, id_: int | None, park: Park, now: float) -> None:
    """The lane waits, and its first row remembers why."""
    lanes.check_owner(tx, lane, me)
    if id_ is not None:
        changed = tx.execute(
            f"UPDATE {TABLE} SET attempts = attempts + ?, strikes = strikes + ?, misses = misses + ?, "
            "settled_at = coalesce(?, settled_at), uncertain = coalesce(?, uncertain), settle = coalesce(?, settle), "
            f"error = coalesce(?, error), reason = ? WHERE {_IN_LANE}",
            (
                park.attempts,
                park.strikes,
                park.misses,
                park.settled_at,
                None if park.uncertain is None else int(park.uncertain),
                park.settle,
                optional_json(park.error),
                park.reason,
                id_,
                *lane,
            ),
        ).rowcount
        if not changed:
            raise LaneLostError(f"row {id_} does not wait in this lane")
    lanes.park(tx, lane, park, now)


# ---- by hand


def retry(tx: Transaction, ids: Sequence[int], now: float, ttl: float) -> int:
    """Dead letters go to their lanes' ends: each gets a new, highest id and keeps its key."""
    kept = "data, timestamp, key, user, channel, hash, version, attempts, uncertain, error"
    count = 0
    for id_ in ids:
        found = tx.execute(f"DELETE FROM {TABLE} WHERE _id = ? AND status = {DEAD} RETURNING {kept}", (id_,)).fetchall()
        if not found:
            continue
        tx.execute(
            f"INSERT INTO {TABLE}(_id, {kept}, status, settle, expires_at) "
            f"VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, {PENDING}, 'send', ?)",
            (tx.next_id(), *found[0], now + ttl),
        )
        lanes.add(tx, Lane(found[0][3], found[0][4]))
        count += 1
    tx.counts.dead -= count
    tx.counts.pending += count
    return count


def discard(tx: Transaction, ids: Sequence[int]) -> int:
    """Dead letters, and waiting rows that are in nobody's hands, are given up."""
    count = 0
    for id_ in ids:
        found = tx.execute(f"SELECT user, channel, status, length(data) FROM {TABLE} WHERE _id = ?", (id_,)).fetchone()
        if found is None or found[2] == SENT:
            continue
        user, channel, status, size = found
        if status != DEAD and _in_hand(tx, id_, user, channel):
            continue
        tx.execute(f"DELETE FROM {TABLE} WHERE _id = ?", (id_,))
        count += 1
        tx.counts.bytes -= size
        if status == DEAD:
            tx.counts.dead -= 1
        else:
            tx.counts.pending -= 1
            lanes.remove_if_empty(tx, Lane(user, channel))
    tx.counts.discarded += count
    return count


def _in_hand(tx: Transaction, id_: int, user: str, channel: str) -> bool:
    query = "SELECT 1 FROM lanes WHERE user = ? AND channel = ? AND owner IS NOT NULL AND upto >= ?"
    return tx.execute(query, (user, channel, id_)).fetchone() is not None


def purge(tx: Transaction, now: float, keep: int = RESULTS_KEPT) -> int:
    """Forget results that are too old or too many, a bounded number of them. Returns how many."""
    old = f"SELECT _id FROM {TABLE} WHERE status = {SENT} AND finished_at < ? ORDER BY finished_at LIMIT {PURGE}"
    many = f"SELECT _id FROM {TABLE} WHERE status = {SENT} ORDER BY finished_at DESC LIMIT {PURGE} OFFSET ?"
    count = tx.execute(f"DELETE FROM {TABLE} WHERE _id IN ({old})", (now - RESULTS_KEPT_SECONDS,)).rowcount
    return count or tx.execute(f"DELETE FROM {TABLE} WHERE _id IN ({many})", (keep,)).rowcount


# ---- reading


def get(tx: Source, id_: int | None, key: str | None) -> Row | None:
    """One row in any state."""
    column, value = ("_id", id_) if id_ is not None else ("key", key)
    found = tx.execute(f"SELECT {COLUMNS} FROM {TABLE} WHERE {column} = ?", (value,)).fetchone()
    return None if found is None else decode(found)


def select(tx: Source, selection: Selection) -> Sequence[Row]:
    """Rows by id, ascending."""
    wanted: list[str] = ["_id > ?"]
    values: list[Any] = [selection.after]
    if selection.states:
        wanted.append(f"({' OR '.join(sorted(_STATUS[State(state)] for state in set(selection.states)))})")
    for column, some in (("_id", selection.ids), ("key", selection.keys)):
        if some:
            wanted.append(f"{column} IN (SELECT value FROM json_each(?))")
            values.append(json.dumps(list(some)))
    for column, one in (("user", selection.user), ("channel", selection.channel)):
        if one is not None:
            wanted.append(f"{column} = ?")
            values.append(one)
    query = f"SELECT {COLUMNS} FROM {TABLE} WHERE {' AND '.join(wanted)} ORDER BY _id LIMIT ?"
    return [decode(each) for each in tx.execute(query, (*values, selection.limit)).fetchall()]


def counters(tx: Source) -> Mapping[str, int]:
    """accepted, delivered, dead, pending, discarded, bytes."""
    names = ("accepted", "delivered", "dead", "pending", "discarded", "bytes")
    return dict(zip(names, tx.execute(f"SELECT {', '.join(names)} FROM counters").fetchone(), strict=True))


def free_inside(tx: Source) -> int:
    """Bytes of the file that hold nothing any more: SQLite keeps them for what comes, and never gives them back."""
    pages, size = tx.execute("SELECT * FROM pragma_freelist_count, pragma_page_size").fetchone()
    return int(pages * size)
