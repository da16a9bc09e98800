"""What a log should say of failed calls: one line when an outage begins, one when it ends. Pure: decisions as text,
`now` is monotonic.

An outage is one, however many operations, threads and tries fail in it. It is kept by operation, because a server may
refuse to store messages and answer every question meanwhile:

1. It begins with the first call that got no usable answer (connection, time-out, 5xx, somebody else's answer).
2. An operation that failed is well when it answers. What never reached the server is well when anything does.
3. It is over when all are well. Nobody may ask for one of them ever again; so when another one has come back, those
   that failed more than `SETTLED` seconds ago are taken to be well, too, and in any case those that did not fail for
   `STALE` seconds.
4. One that begins within `QUIET` seconds after the end of another is said when those are over, if it is not: a server
   that fails every other call fills no log.

Other errors, a 403 or a plugin's, are one line a kind, and then one a minute with their number. What is an ordinary
answer (404), or said elsewhere already (tokens, circuits), is none.
"""

from __future__ import annotations

from collections import OrderedDict

from ..core import errors
from .failures import code_of, status_of

QUIET = 60.0
SETTLED = 5.0
STALE = 150.0
"""More than twice the longest pause between two tries of a lane (60 s): what is tried that rarely still fails."""

KINDS = 50
"""Other errors that are told apart; of more, the oldest is forgotten."""

NEW_KINDS = 10
"""Kinds that are said for the first time within `QUIET` seconds; a server may answer with a new status each time."""

PATIENT = 1000.0
"""Milliseconds: a caller that waits less says more about itself than about the server."""

_SAID_ELSEWHERE = (errors.CircuitOpenError, errors.TokenUnavailableError, errors.TokenExpiredError)
_OUTAGE = (errors.NotSentError, errors.OutcomeUnknownError, errors.ServerError)


class _Operation:
    """One that failed last. `unreached`: nothing of it reached the server."""

    __slots__ = ("failed_at", "unreached")

    def __init__(self, failed_at: float, unreached: bool) -> None:
        self.failed_at = failed_at
        self.unreached = unreached


class _Outage:
    """said: its beginning was; operations: all that failed in it, in order; failing: those that are not well yet;
    well_since: when the first of them came back, None: none, or something failed after that."""

    __slots__ = ("calls", "failing", "operations", "said", "since", "well_since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.said = False
        self.calls = 0
        self.operations: dict[str, None] = {}
        self.failing: dict[str, _Operation] = {}
        self.well_since: float | None = None


class _Repeated:
    """An error that is none of an outage. untold: how many there were since it was said."""

    __slots__ = ("said_at", "untold")

    def __init__(self, said_at: float) -> None:
        self.said_at = said_at
        self.untold = 0


class Outages:
    """Not thread-safe. Operations come from a bounded set."""

    __slots__ = ("_budget_at", "_fresh", "_kinds", "_outage", "_quiet_until", "_unsaid")

    def __init__(self) -> None:
        self._outage: _Outage | None = None
        self._quiet_until = float("-inf")
        self._unsaid = 0
        self._kinds: OrderedDict[tuple[str, str, int | None], _Repeated] = OrderedDict()
        self._fresh = 0
        self._budget_at = float("-inf")

    @property
    def on(self) -> bool:
        """There is an outage: `answered` wants to hear of good answers."""
        return self._outage is not None

    def failed(self, operation: str, error: BaseException, ms: float, now: float) -> str:
        """A call failed after `ms` milliseconds. Returns the line to say, "" for none."""
        if not isinstance(error, Exception):
            return ""
        if _is_outage(error, ms):
            return self._broken(operation, error, now)
        if isinstance(error, _SAID_ELSEWHERE):
            self._still(operation, now)
            return ""
        if isinstance(error, errors.StatusError):
            ended = self.answered(operation, now)
            if ended or isinstance(error, errors.NotFound):
                return ended
        if isinstance(error, errors.NotSentError) and not error.retryable:  # nothing was tried: closed, a wrong request
            return ""
        return self._repeated(operation, error, now)

    def answered(self, operation: str, now: float) -> str:
        """The server answered, and it was no 5xx. Returns the line to say, "" for none."""
        outage = self._outage
        if outage is None:
            return ""
        if outage.failing.pop(operation, None) is not None and outage.well_since is None:
            outage.well_since = now
        since = now - (STALE if outage.well_since is None else SETTLED)
        for name, known in list(outage.failing.items()):
            if known.unreached or known.failed_at < since:
                del outage.failing[name]
        if outage.failing:
            return ""
        self._outage = None
        if not outage.said:
            self._unsaid += 1
            return ""
        self._quiet_until = now + QUIET
        lasted = (now if outage.well_since is None else outage.well_since) - outage.since
        return f"the server answers again after {lasted:.1f} s, {_calls(outage)}"

    # ---- inside

    def _broken(self, operation: str, error: Exception, now: float) -> str:
        outage = self._outage
        if outage is None:
            outage = self._outage = _Outage(now)
        outage.calls += 1
        outage.operations[operation] = None
        outage.well_since = None
        unreached = isinstance(error, errors.NotSentError)
        outage.failing[operation] = _Operation(now, unreached)
        if outage.said or now < self._quiet_until:
            return ""
        outage.said = True
        unsaid, self._unsaid = self._unsaid, 0
        again = f"; {unsaid} short outages since the last line" if unsaid else ""
        return f"{operation} failed: {_named(error)}{again}; said once until the server answers again"

    def _still(self, operation: str, now: float) -> None:
        """Not even tried: if it failed before, it is not well now."""
        outage = self._outage
        known = None if outage is None else outage.failing.get(operation)
        if outage is not None and known is not None:
            known.failed_at = now
            outage.calls += 1

    def _repeated(self, operation: str, error: Exception, now: float) -> str:
        kind = operation, type(error).__name__, status_of(error)
        known = self._kinds.get(kind)
        if known is None:
            if now >= self._budget_at + QUIET:
                self._budget_at, self._fresh = now, 0
            if self._fresh >= NEW_KINDS:
                return ""
            self._fresh += 1
            self._kinds[kind] = _Repeated(now)
            if len(self._kinds) > KINDS:
                self._kinds.popitem(last=False)
            return f"{operation} failed: {_named(error)}; if it goes on, that is said once a minute"
        self._kinds.move_to_end(kind)
        known.untold += 1
        since = now - known.said_at
        if since < QUIET:
            return ""
        count, known.untold, known.said_at = known.untold, 0, now
        return f"{operation} failed {count} more times in {since:.0f} s: {_named(error)}"


def _is_outage(error: Exception, ms: float) -> bool:
    if isinstance(error, _SAID_ELSEWHERE) or not isinstance(error, _OUTAGE):
        return False
    if isinstance(error, TimeoutError) and ms < PATIENT:
        return False
    return error.retryable or not isinstance(error, errors.NotSentError)


def _named(error: Exception) -> str:
    facts = [str(fact) for fact in (code_of(error), status_of(error)) if fact]
    return f"{type(error).__name__} ({', '.join(facts)})" if facts else type(error).__name__


def _calls(outage: _Outage) -> str:
    names = list(outage.operations)
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    calls = f"{outage.calls} call{'' if outage.calls == 1 else 's'} failed"
    return f"{calls} ({len(names)} operation{'' if len(names) == 1 else 's'}: {shown})"
