"""What an outbox store must be able to do, and the values that go in and out.

The SQLite store (`outbox.store`) is the embedded one; another may write its rows in the caller's own database
transaction, or serve many hosts.

Words. A *row* is one accepted message. A *lane* is (user, channel): rows of a lane go out one after the other, in the
order they were accepted. An *owner* is one process; it *claims* a lane, sends its rows, and *releases* it; only the
owner may finish, park or bury a row of the lane. Times are Unix seconds, because several processes read them.

Rules every store keeps:
1. `put` returns after the row is durable, or raises and nothing happened.
2. A lane has at most one living owner; a dead owner's lanes can be claimed at once.
3. accepted = delivered + dead + pending + discarded, at every commit.
4. Row n+1 of a lane is never handed out before row n was finished or buried.
5. No token is ever stored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from .exchange import Request
from .record import Record, record


class State(StrEnum):
    """Where a message is. The same three words in receipts, events, the command line and JSON."""

    QUEUED = "QUEUED"
    SENT = "SENT"
    DEAD = "DEAD"


class Reason(StrEnum):
    """Why a message is still QUEUED (first group) or DEAD (second group)."""

    OFFLINE = "offline"
    AUTH = "auth"
    RATE_LIMITED = "rate_limited"
    CIRCUIT_OPEN = "circuit_open"
    BEHIND_OTHERS = "behind_others"
    DISK = "disk"
    UNCERTAIN = "uncertain"
    PLUGIN = "plugin"

    REJECTED = "rejected"
    EXPIRED = "expired"
    POISON = "poison"


class Lane(NamedTuple):
    """Rows of one user in one channel go out in order."""

    user: str
    channel: str


@record(frozen=True, slots=True, kw_only=True)
class Entry(Record):
    """What `put` is given. `ttl` in seconds; `request.key` names the row."""

    request: Request
    created_at: float
    ttl: float


@record(frozen=True, slots=True, kw_only=True)
class Row(Record):
    """One accepted message, as stored.

    attempts    tries made (a try that an open circuit or a plugin stopped is none)
    strikes     answers of 500 while the server was well otherwise
    uncertain   some try may have reached the server; settle before it dies
    settle      "" | "send": look whether the server has it, else send it (a dead letter retried by hand)
                | a reason: look whether the server has it, else it dies of that reason
    misses      how often the server said, while settling, that it does not have it
    settled_at  when it last said so
    reason      why it waits or died (a `Reason` value), or ""
    error       last error as `ChatError.to_dict()` gives it, or None
    result      the stored message as the server answered it (JSON), once SENT
    """

    id: int
    request: Request
    state: State
    created_at: float
    expires_at: float
    attempts: int = 0
    strikes: int = 0
    uncertain: bool = False
    settle: str = ""
    misses: int = 0
    settled_at: float = 0.0
    reason: str = ""
    error: Mapping[str, Any] | None = None
    result: Mapping[str, Any] | None = None
    finished_at: float | None = None

    @property
    def key(self) -> str:
        """The idempotency key."""
        return self.request.key or ""

    @property
    def lane(self) -> Lane:
        """(user, channel)."""
        return Lane(self.request.user, self.request.channel)


@record(frozen=True, slots=True, kw_only=True)
class LaneStatus(Record):
    """What is known of a lane: when it may be tried next (0: at once), why, failures in a row, rows waiting before
    a given one, and whether a living process owns it."""

    not_before: float = 0.0
    reason: str = ""
    failures: int = 0
    owned: bool = False


@record(frozen=True, slots=True)
class Put(Record):
    """What `put` answers: the row, whether it is new (False: the same key and body were known), its lane's status."""

    row: Row
    created: bool
    lane: LaneStatus


@record(frozen=True, slots=True)
class Claim(Record):
    """A lane that now belongs to this process, its failures in a row so far, and its first rows, oldest first."""

    lane: Lane
    rows: Sequence[Row]
    failures: int = 0


@record(frozen=True, slots=True, kw_only=True)
class Park(Record):
    """A lane waits: nobody claims it before `not_before`. The fields say what changes in its first row.

    wakeable  "connected" may cut the wait short (never a Retry-After)
    failures  what is added to the lane's failures in a row
    attempts, strikes, misses: what is added to the row's; None in the others: unchanged
    """

    not_before: float
    reason: str
    wakeable: bool = True
    failures: int = 0
    attempts: int = 0
    strikes: int = 0
    misses: int = 0
    settled_at: float | None = None
    uncertain: bool | None = None
    settle: str | None = None
    error: Mapping[str, Any] | None = None


@record(frozen=True, slots=True, kw_only=True)
class Stats(Record):
    """Loss accounting and what waits. accepted = delivered + dead + pending + discarded, always.

    `bytes`: stored size of pending and dead rows; `oldest`: created_at of the oldest pending row;
    `next_attempt_at`: when the next lane may be tried (Unix time; None: nothing pending).
    """

    accepted: int = 0
    delivered: int = 0
    dead: int = 0
    pending: int = 0
    discarded: int = 0
    bytes: int = 0
    lanes: int = 0
    oldest: float | None = None
    next_attempt_at: float | None = None


@record(frozen=True, slots=True, kw_only=True)
class Selection(Record):
    """Which rows `list` and `discard` mean. Empty fields mean all."""

    states: Collection[State] = field(default_factory=tuple)
    ids: Collection[int] = field(default_factory=tuple)
    keys: Collection[str] = field(default_factory=tuple)
    user: str | None = None
    channel: str | None = None
    after: int = 0
    limit: int = 1000


class OutboxStore(Protocol):
    """The outbox's store. All methods are thread-safe and raise `StorageError` when the disk will not have it."""

    def put(self, entry: Entry) -> Put:
        """Make one message durable. A known key with the same body gives the row as it is now.

        Raises KeyReusedError, OutboxFullError, StorageError: then nothing happened."""
        ...

    def claim(
        self,
        now: float,
        *,
        limit: int = 25,
        lane: Lane | None = None,
        users: Collection[str] | None = None,
        skip_users: Collection[str] = (),
    ) -> Claim | None:
        """Take a lane that has pending rows, is due (`not_before <= now`) and has no living owner (nor another claim of
        this process); the given one, or the next in turn (round robin, so that no lane starves). `users`: only theirs
        (None: anybody's), without `skip_users`. None if there is none."""
        ...

    def finish(
        self, lane: Lane, row: int, result: Mapping[str, Any] | None, now: float, *, attempts: int = 1, more: int = 0
    ) -> Sequence[Row]:
        """The row was delivered: it becomes a result (known for 24 h, bounded), in the same transaction the lane's
        failures are cleared and up to `more` next rows are returned. Without `more`, or with no row left, the lane is
        released. Raises LaneLostError if this process does not own the lane."""
        ...

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
        """The row is a dead letter; otherwise as `finish`."""
        ...

    def park(self, lane: Lane, row: int | None, park: Park) -> None:
        """Record what `park` says and release the lane until `not_before`."""
        ...

    def release(self, lane: Lane) -> None:
        """Give the lane back as it is."""
        ...

    def wake(self, *, user: str | None = None, lane: Lane | None = None) -> int:
        """Let parked lanes (of a user, one lane, or all) be tried at once, but for those parked by Retry-After.
        Returns how many."""
        ...

    def get(self, *, id: int | None = None, key: str | None = None) -> Row | None:
        """One row in any state, or None."""
        ...

    def list(self, selection: Selection) -> Sequence[Row]:
        """Rows by id, ascending."""
        ...

    def lane_status(self, lane: Lane) -> LaneStatus:
        """What is known of a lane."""
        ...

    def retry(self, ids: Collection[int], now: float, ttl: float) -> int:
        """Dead letters go to their lanes' ends, with their keys, a new time to live, and settle="send". Returns how
        many."""
        ...

    def discard(self, ids: Collection[int], now: float) -> int:
        """Dead letters and waiting rows (but not one that is being sent) are given up; they count as discarded.
        Returns how many."""
        ...

    def next_due(
        self, now: float, *, users: Collection[str] | None = None, skip_users: Collection[str] = ()
    ) -> float | None:
        """When the next lane that no living process owns may be tried: `now` if at once, None if nothing is pending."""
        ...

    def sweep(self, now: float) -> None:
        """Forget results older than 24 h or beyond the newest 10,000, remove traces of dead owners."""
        ...

    def stats(self) -> Stats:
        """Loss accounting."""
        ...

    def close(self) -> None:
        """Release lanes and files. Idempotent."""
        ...


class LaneLostError(Exception):
    """This process no longer owns the lane: somebody else decides about its rows now. Never shown to users."""
