"""What the outbox file looks like, and how a row of it becomes a `Row` and back.

The table of messages keeps the four columns and the status codes of `persistqueue.SQLiteAckQueue` (`_id data timestamp
status`, in this order), so that the stock class can read the file; ours come after them. The other tables are ours:

    lanes      one row for each (user, channel) that has pending rows or an owner, and for no other
    counters   one row: loss accounting, and the last id, written in the transactions that they count

Ids come from `counters`, not from AUTOINCREMENT, which is one more page to write for each message: an id names one
message for ever, also when the message is gone.

Changes to this page only add, so that the version before can work on the file; `VERSION` grows only when it could not.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..core.errors import InvalidMessage
from ..core.exchange import Request
from ..core.store import Entry, Row, State

VERSION = 1
"""`user_version` of the file."""

APPLICATION_ID = 0x4353444B
""""CSDK": says that a SQLite file is an outbox."""

FILE = "outbox.db"
QUEUE_NAME = "outbox"
TABLE = "`ack_queue_outbox`"  # what SQLiteAckQueue(name="outbox") calls its table
TABLES = frozenset({"ack_queue_outbox", "lanes", "counters"})

PENDING = 0
SENT = 5
DEAD = 9
"""Status codes of persistqueue: 0 and 1 are waiting, 5 is acked (delivered), 9 is failed (a dead letter)."""

UNREADABLE = "unreadable"
"""`Request.operation` of a row whose stored JSON cannot be read."""

CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS {table_name} (
  {key_column} INTEGER PRIMARY KEY,
  data BLOB NOT NULL, timestamp FLOAT NOT NULL, status INTEGER NOT NULL,
  key TEXT NOT NULL UNIQUE, user TEXT NOT NULL, channel TEXT NOT NULL,
  hash BLOB NOT NULL, version INTEGER NOT NULL DEFAULT 1, expires_at REAL NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, strikes INTEGER NOT NULL DEFAULT 0,
  uncertain INTEGER NOT NULL DEFAULT 0, settle TEXT NOT NULL DEFAULT '',
  misses INTEGER NOT NULL DEFAULT 0, settled_at REAL NOT NULL DEFAULT 0,
  reason TEXT NOT NULL DEFAULT '', error TEXT, result TEXT, finished_at REAL
)"""

CREATE_REST = (
    # An index entry ends with the row's id, so these give rows in the order of acceptance.
    f"CREATE INDEX pending ON {TABLE}(user, channel) WHERE status < 2",
    f"CREATE INDEX dead ON {TABLE}(status) WHERE status = 9",
    f"CREATE INDEX results ON {TABLE}(finished_at) WHERE status = 5",
    # not_before 0: due at once, in the order of `turn`; upto: the last row that was handed to the owner
    """CREATE TABLE lanes(
      user TEXT NOT NULL, channel TEXT NOT NULL, owner TEXT, not_before REAL NOT NULL DEFAULT 0,
      parked_at REAL NOT NULL DEFAULT 0, turn INTEGER NOT NULL, failures INTEGER NOT NULL DEFAULT 0,
      reason TEXT NOT NULL DEFAULT '', wakeable INTEGER NOT NULL DEFAULT 1, upto INTEGER NOT NULL DEFAULT 0,
      PRIMARY KEY(user, channel)) WITHOUT ROWID""",
    "CREATE INDEX lanes_ready ON lanes(turn) WHERE owner IS NULL AND not_before = 0",
    "CREATE INDEX lanes_parked ON lanes(not_before) WHERE owner IS NULL AND not_before > 0",
    "CREATE INDEX lanes_owned ON lanes(owner) WHERE owner IS NOT NULL",
    """CREATE TABLE counters(
      id INTEGER PRIMARY KEY CHECK(id = 1), accepted INTEGER NOT NULL, delivered INTEGER NOT NULL,
      dead INTEGER NOT NULL, pending INTEGER NOT NULL, discarded INTEGER NOT NULL, bytes INTEGER NOT NULL,
      last_id INTEGER NOT NULL)""",
    "INSERT INTO counters VALUES(1, 0, 0, 0, 0, 0, 0, 0)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)

COLUMNS = (
    "_id, data, timestamp, status, key, user, channel, expires_at, attempts, strikes, uncertain, settle, misses, "
    "settled_at, reason, error, result, finished_at"
)
"""What `decode` takes, in this order."""


def create(connection: sqlite3.Connection) -> None:
    """Make what belongs to a new file beside the table that persistqueue's way of opening made."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in CREATE_REST:
        connection.execute(statement)
    connection.execute("COMMIT")


# ---- a message, on its way in


@dataclass(slots=True, kw_only=True)
class Encoded:
    """An entry as it is stored. `request`: what a reader of the row will get; `hash`: of what the message is, so the
    same key with another hash is another message."""

    request: Request
    key: str
    data: bytes
    hash: bytes
    created_at: float
    expires_at: float


_WHAT = ("operation", "method", "path", "query", "body", "user", "channel")
"""What a message is; what else is stored (its name, the correlation id) may differ from process to process."""


def encode(entry: Entry) -> Encoded:
    """Raises InvalidMessage for what is not JSON or has no key."""
    request = entry.request
    if not request.key:
        raise InvalidMessage("a message without a key cannot be stored", hint="give the request a key")
    rest = request.to_json()
    what = to_json({name: rest.pop(name) for name in _WHAT}, sort_keys=True)
    return Encoded(
        request=request.replace(headers={}, deadline=None, attempt=1, fresh=False, single_try=False),
        key=request.key,
        data=b"%b,%b" % (what[:-1], to_json(rest)[1:]),  # two objects made one
        hash=hashlib.sha256(what).digest(),
        created_at=entry.created_at,
        expires_at=entry.created_at + entry.ttl,
    )


_compact = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_sorted = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
_escaped = json.JSONEncoder(allow_nan=False, separators=(",", ":"), sort_keys=True)


def to_json(value: Any, *, sort_keys: bool = False) -> bytes:
    """Compact JSON in UTF-8. Raises InvalidMessage."""
    try:
        text = (_sorted if sort_keys else _compact).encode(value)
        try:
            return text.encode()
        except UnicodeEncodeError:  # half a surrogate pair, which only an escape can carry
            return _escaped.encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMessage(f"the message is not JSON: {error}") from error


def optional_json(value: Mapping[str, Any] | None) -> str | None:
    """What the columns `error` and `result` hold."""
    return None if value is None else to_json(value).decode()


# ---- and on its way out


def decode(stored: tuple[Any, ...]) -> Row:
    """The `Row` of one row of `COLUMNS`. What cannot be read becomes a request named UNREADABLE; it is never sent."""
    (
        id_, data, created_at, status, key, user, channel, expires_at, attempts, strikes, uncertain, settle, misses,
        settled_at, reason, error, result, finished_at,
    ) = stored  # fmt: skip
    return Row(
        id=id_,
        request=_request(data, key, user, channel),
        state=State.QUEUED if status < 2 else State.SENT if status == SENT else State.DEAD,
        created_at=created_at,
        expires_at=expires_at,
        attempts=attempts,
        strikes=strikes,
        uncertain=bool(uncertain),
        settle=settle,
        misses=misses,
        settled_at=settled_at,
        reason=reason,
        error=_object(error),
        result=_object(result),
        finished_at=finished_at,
    )


def _request(data: Any, key: str, user: str, channel: str) -> Request:
    try:
        return Request.from_json(json.loads(data))
    except (ValueError, TypeError, RecursionError):
        return Request(operation=UNREADABLE, method="", path="", user=user, channel=channel, key=key)


def _object(text: str | None) -> Mapping[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
