"""What happens to a message: every decision about a row of the outbox, as pure functions.

Theory. A row is tried until the server has it, or dies. It may die of three things: it is older than its time to live
(expired), the server refuses it for good (rejected), or the server falls over it again and again while it is well
otherwise (poison). A row of which some try *may* have arrived is *uncertain*, and never dies on a guess: first the
server is asked whether it has the message (it is *settled*). "No" must be said twice, a minute apart, because a request
whose socket was closed early may be stored late (seen on the real server).

Rules.
1. Nothing is both delivered and dead: `Bury` for a row that is uncertain comes only out of `settled`.
2. An outage kills nothing: no answer, 429, 401 and every 5xx but a 500 leave a row alive for its whole time to live. A
   500 is a strike only if the server was well otherwise (`Facts.server_well`).
3. Our own faults kill nothing either: a plugin that raises parks the lane, uses up no attempt, and never buries.
4. What concerns more than a lane says so: `ParkUser` and `PauseUser` (tokens), `ParkAll` (the circuit).

A decision is a value; `worker` carries it out, as one operation of the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..core.backoff import LANE
from ..core.errors import (
    CaptivePortalError,
    ChatError,
    CircuitOpenError,
    NotSentError,
    OutcomeUnknownError,
    StatusError,
    StorageError,
    TokenExpiredError,
    TokenUnavailableError,
)
from ..core.models import Message
from ..core.record import Record, record
from ..core.store import Park, Reason, Row

MAX_STRIKES = 20
"""Answers of 500, from a server that is well otherwise, until a message counts as poison."""

SETTLE_GAP = 60.0
"""Seconds between the two answers that the server does not have a message (server contract, 15.3: stored late)."""

DEFINITE_NO = frozenset({400, 403, 404, 410})
"""Answers to "have you got it?" that mean no."""

API_CIRCUIT = "api"
"""The circuit that every message passes; another one that is open concerns the lane only."""

SEND = "send"
"""`Row.settle` of a dead letter that was retried by hand: look whether the server has it, else send it."""


# ---- what goes in


@record(frozen=True, slots=True)
class Delivered(Record):
    """The server has the message; this is what it answered."""

    message: Message


Outcome = Delivered | Exception
"""How a try, or a question to the server, ended. Anything but a `ChatError` is a fault of ours or of a plugin."""


@record(frozen=True, slots=True, kw_only=True)
class Facts(Record):
    """What a decision needs beside the row and the outcome.

    now            Unix time
    random         in [0, 1), for the jitter
    failures       of this lane in a row, before this try
    user_failures  answers of 401 or missing tokens of this user in a row, before this try
    server_well    another request to this server succeeded since the row's last try
    max_strikes    see MAX_STRIKES
    """

    now: float
    random: float
    failures: int = 0
    user_failures: int = 0
    server_well: bool = False
    max_strikes: int = MAX_STRIKES

    @property
    def backoff(self) -> float:
        """Seconds that the lane waits after one more failure."""
        return LANE.delay(self.failures + 1, self.random)


# ---- what comes out


@record(frozen=True, slots=True)
class Try(Record):
    """Send it."""


@record(frozen=True, slots=True)
class Settle(Record):
    """Ask the server whether it has it; `reason`: what it dies of if not, or SEND."""

    reason: str


@record(frozen=True, slots=True)
class Finish(Record):
    """Delivered. `attempts`: tries to add."""

    message: Message
    attempts: int = 1


@record(frozen=True, slots=True)
class Bury(Record):
    """A dead letter."""

    reason: Reason
    error: Mapping[str, Any] | None = None
    attempts: int = 0


@record(frozen=True, slots=True)
class ParkUser(Record):
    """The lane waits as `park` says; all lanes of its user wait `delay` seconds, in this process."""

    park: Park
    delay: float


@record(frozen=True, slots=True)
class PauseUser(Record):
    """The user's session is lost: its lanes wait, in this process, until somebody brings a new token."""

    park: Park


@record(frozen=True, slots=True)
class ParkAll(Record):
    """The circuit is open: no lane is tried for `delay` seconds, in this process."""

    park: Park
    delay: float


Waiting = Park | ParkUser | PauseUser | ParkAll
Decision = Finish | Bury | Waiting


# ---- before a try


def before(row: Row, now: float) -> Try | Settle | Bury:
    """What to do with the first row of a lane at `now` (Unix time)."""
    if row.settle and row.settle != SEND:
        return Settle(row.settle)
    if not row.request.path:
        # what the disk holds cannot be read any more; without this it would stop its lane for ever
        return Settle(Reason.POISON.value) if row.uncertain else Bury(Reason.POISON, _stored(ValueError()))
    if now >= row.expires_at:
        # a dead letter that was retried may have arrived in its first life
        may_be_there = row.uncertain or row.settle == SEND
        return Settle(Reason.EXPIRED.value) if may_be_there else Bury(Reason.EXPIRED, row.error)
    return Settle(SEND) if row.settle == SEND else Try()


# ---- after a try


def verdict(row: Row, outcome: Outcome, facts: Facts) -> Decision:
    """What one try of `row` means for it."""
    if isinstance(outcome, Delivered):
        return Finish(outcome.message)
    if _is_refusal(outcome):
        error = _stored(outcome)
        if not row.uncertain:
            return Bury(Reason.REJECTED, error, attempts=1)
        return _settle_first(Reason.REJECTED, error, facts.now)
    decision = _waiting(outcome, facts)
    if getattr(outcome, "status", 0) == 500 and facts.server_well:
        if row.strikes + 1 >= facts.max_strikes:
            return replace(_settle_first(Reason.POISON, _stored(outcome), facts.now), strikes=1)
        if isinstance(decision, Park):
            decision = replace(decision, strikes=1)
    return _changed(decision, settle="") if row.settle else decision


def _is_refusal(outcome: Exception) -> bool:
    """True for an answer that will be the same for ever: this message, as it is, is not wanted."""
    return isinstance(outcome, StatusError) and 400 <= outcome.status < 500 and outcome.status not in _BY_STATUS


def _settle_first(reason: Reason, error: Mapping[str, Any] | None, now: float) -> Park:
    """It would die now; ask the server first, and at once."""
    return Park(
        not_before=now,
        reason=Reason.UNCERTAIN.value,
        attempts=1,
        uncertain=True,
        settle=reason.value,
        error=error,
    )


# ---- after the question whether the server has it


@record(frozen=True, slots=True)
class Send(Record):
    """The server does not have it: send it."""


def settled(row: Row, reason: str, outcome: Outcome, facts: Facts) -> Decision | Send:
    """What the answer to "have you got it?" means for a row that would die of `reason` (or be sent: SEND)."""
    if isinstance(outcome, Delivered):
        return Finish(outcome.message, attempts=0)
    if not (isinstance(outcome, StatusError) and outcome.status in DEFINITE_NO):
        return _ask_again(reason, outcome, facts)
    if reason == SEND:
        return Send()
    waited = facts.now - row.settled_at
    if row.misses and waited >= SETTLE_GAP:
        return Bury(Reason(reason), row.error)
    early = row.misses > 0 and waited >= 0  # somebody woke the lane; a clock that went back starts the minute anew
    return Park(
        not_before=(row.settled_at if early else facts.now) + SETTLE_GAP,
        reason=Reason.UNCERTAIN.value,
        wakeable=False,  # sooner would be too soon
        misses=0 if row.misses else 1,
        settled_at=None if early else facts.now,
        settle=reason,
    )


def _ask_again(reason: str, outcome: Exception, facts: Facts) -> Waiting:
    """The server could not say: the row stays QUEUED until it can. That was no try, and the row keeps its error."""
    decision = _waiting(outcome, facts)
    park = decision if isinstance(decision, Park) else decision.park
    why = Reason.UNCERTAIN.value if park.reason == Reason.OFFLINE.value and reason != SEND else park.reason
    return _changed(decision, reason=why, attempts=0, uncertain=None, error=None, settle=reason)


# ---- how long to wait, and why: the table


@record(frozen=True, slots=True, kw_only=True)
class _Treatment(Record):
    reason: Reason
    attempts: int = 1
    failures: int = 1
    uncertain: bool | None = None
    wakeable: bool = True


_OFFLINE = _Treatment(reason=Reason.OFFLINE)
_UNCERTAIN = _Treatment(reason=Reason.UNCERTAIN, uncertain=True)
_NO_TOKEN = _Treatment(reason=Reason.AUTH, attempts=0, failures=0)
# a plugin may have raised on the way back, when the server had the message already
_OUR_FAULT = _Treatment(reason=Reason.PLUGIN, attempts=0, uncertain=True)

_BY_TYPE: tuple[tuple[type[Exception], _Treatment], ...] = (  # the first that fits
    (CircuitOpenError, _Treatment(reason=Reason.CIRCUIT_OPEN, attempts=0, failures=0)),
    (TokenUnavailableError, _NO_TOKEN),
    (TokenExpiredError, _NO_TOKEN),
    (NotSentError, _OFFLINE),
    (CaptivePortalError, _Treatment(reason=Reason.OFFLINE, uncertain=True)),
    (OutcomeUnknownError, _UNCERTAIN),
    (StorageError, _Treatment(reason=Reason.DISK, attempts=0, uncertain=True)),
)

_BY_STATUS: dict[int, _Treatment] = {
    401: _Treatment(reason=Reason.AUTH, failures=0),
    407: _OFFLINE,  # a proxy of ours said so, not the server
    408: _UNCERTAIN,
    429: _Treatment(reason=Reason.RATE_LIMITED, wakeable=False),
}


def _treatment(outcome: Exception) -> _Treatment:
    if isinstance(outcome, StatusError):
        # what is left here: 5xx, redirects that nobody followed, and answers to a question that make no sense
        return _BY_STATUS.get(outcome.status, _UNCERTAIN)
    for kind, treatment in _BY_TYPE:
        if isinstance(outcome, kind):
            return treatment
    return _OUR_FAULT


def is_our_fault(outcome: Exception) -> bool:
    """True if neither the network nor the server is to blame, but a plugin or the SDK itself."""
    return not _is_refusal(outcome) and _treatment(outcome) is _OUR_FAULT


def _waiting(outcome: Exception, facts: Facts) -> Waiting:
    how = _treatment(outcome)
    park = Park(
        not_before=facts.now + facts.backoff,
        reason=how.reason.value,
        wakeable=how.wakeable,
        failures=how.failures,
        attempts=how.attempts,
        uncertain=how.uncertain,
        error=_stored(outcome),
    )
    if isinstance(outcome, TokenExpiredError):
        return PauseUser(replace(park, not_before=facts.now))
    if how.reason is Reason.AUTH:
        # another process may hold a better token: the lane itself is due at once
        delay = LANE.delay(facts.user_failures + 1, facts.random)
        return ParkUser(replace(park, not_before=facts.now), delay)
    soonest = facts.now + LANE.delay(1, facts.random)  # a server that says "0 seconds" must not be hammered
    if isinstance(outcome, CircuitOpenError):
        # by its seconds where it says them: the clock may have been set since it was raised
        opens = facts.now + outcome.retry_after if outcome.retry_after else outcome.retry_at
        park = replace(park, not_before=max(opens, soonest))
        return ParkAll(park, park.not_before - facts.now) if outcome.circuit == API_CIRCUIT else park
    asked = outcome.retry_after if isinstance(outcome, StatusError) else None
    if asked:
        reason = Reason.RATE_LIMITED.value
        return replace(park, not_before=max(facts.now + asked, soonest), reason=reason, wakeable=False)
    return park


def _changed(decision: Waiting, **changes: Any) -> Waiting:
    if isinstance(decision, Park):
        return replace(decision, **changes)
    return replace(decision, park=replace(decision.park, **changes))


def _stored(error: Exception) -> Mapping[str, Any]:
    """What the row keeps of an error. The text of a foreign exception is not kept: it may hold anything."""
    if isinstance(error, ChatError):
        return error.to_dict()
    return {"type": type(error).__name__, "code": "unexpected", "message": type(error).__name__, "hint": ""}
