"""What is known about one user's token, and what follows from it. Pure: time and chance are arguments, nothing is
locked.

A caller's `Need` says how badly another token is wanted; `may_renew` whether asking for one is allowed now; `best` what
to serve if it is not. `install` and `fail` take in what a renewal brought.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from ..core.backoff import Backoff
from ..core.errors import TokenExpiredError, TokenUnavailableError
from ..core.tokens import Token
from .expiry import Phase, Schedule, ServerTime, schedule
from .renewal import Failed, Held, NothingNewer, token_id

RENEWAL = Backoff(tries=0, first=0.5, factor=2.0, cap=60.0, low=0.5, high=1.0)
"""Between renewals that failed. Slower than a lane's: a refused refresh counts to the rate limit (contract 15.41)."""

REFUSED_AGAIN = Backoff(tries=0, first=1.0, factor=2.0, cap=60.0, low=1.0, high=1.0)
"""Between renewals whose tokens are refused at once (60 s: seed 001's floor)."""

REMEMBERED = 16
"""Refused tokens that are recognised; more than one only where sources give tokens that are refused in turn."""


class Need(Enum):
    """How much a caller needs another token than the current one."""

    NONE = "none"
    SOON = "soon"
    EXPIRED = "expired"
    """By the hint."""
    REFUSED = "refused"
    """By the server."""
    MISSING = "missing"


_BY_PHASE = {Phase.GOOD: Need.NONE, Phase.DUE: Need.SOON, Phase.EXPIRED: Need.EXPIRED}


class TokenState:
    """The state of one user's token. `lost`: there is none and none to be had until somebody brings one."""

    def __init__(self, user: str, server_time: ServerTime, *, before: float) -> None:
        self.user = user
        self.current: Held | None = None
        self.lost = False
        self.not_before = 0.0  # no renewal before this monotonic time
        self.failures = 0
        self.failure: str | None = None  # what the last renewal failed of; None also if it found nothing newer
        self.schedule = Schedule(None, None, 0.0)
        self._server_time = server_time
        self._before = before
        self._since = 0.0  # when the current token came
        self._after_refusal = False  # and whether because the one before was refused
        self._refused_at: float | None = None  # when the server first refused it
        self._refused_at_once = 0  # how many in a row
        self._refused_ids: deque[str] = deque(maxlen=REMEMBERED)

    @property
    def refused_ids(self) -> frozenset[str]:
        """`token_id`s of the tokens that the server refused lately."""
        return frozenset(self._refused_ids)

    @property
    def in_trouble(self) -> bool:
        """True if somebody may be waiting for a token."""
        return self.lost or self.failure is not None or self._refused_at is not None

    def need(self, refused: str | None, now: float) -> Need:
        """What a caller needs whose token `refused` the server did not take (None: nothing was refused)."""
        if self.current is None or not self.current.token.access:
            return Need.MISSING
        if refused is not None and self._refused_at is None and refused == self.current.token.access.reveal():
            self._note_refusal(self.current, now)
        if self._refused_at is not None:
            return Need.REFUSED
        return _BY_PHASE[self.schedule.phase(self._server_time.now())]

    def _note_refusal(self, current: Held, now: float) -> None:
        self._refused_at = now
        self._refused_ids.append(token_id(current.token.access))
        soon = max(REFUSED_AGAIN.first, self._patience())
        at_once = current.just_made and self._after_refusal and now - self._since < soon
        self._refused_at_once = self._refused_at_once + 1 if at_once else 0
        if self.failure is None:
            self.not_before = now  # that there was nothing newer was found out before this was known

    def _patience(self) -> float:
        """Seconds that a new token, refused, must have been there before the next one is asked for."""
        return REFUSED_AGAIN.delay(self._refused_at_once, 0.0) if self._refused_at_once else 0.0

    def may_renew(self, need: Need, now: float) -> bool:
        """May the sources be asked now?"""
        if now < self.not_before:
            return False
        if need is Need.REFUSED:
            return now >= self._since + self._patience()
        return need is Need.MISSING or now >= self.schedule.floor

    def best(self, need: Need, refused: str | None) -> Token:
        """What to serve while nobody is to be asked. Raises TokenUnavailableError.

        After a failure, a caller whose token was refused gets the error: trying later helps. If there just is nothing
        newer, the same token: the server's word on it stands.
        """
        if self.current is not None and self.current.token.access:
            token = self.current.token
            if self.failure is None or need is Need.SOON:
                return token
            if refused != token.access.reveal() and self._may_be_good(need):
                return token
        raise TokenUnavailableError(
            f"no valid token for user {self.user!r} right now: {self.failure or 'no source has one'}"
        )

    def _may_be_good(self, need: Need) -> bool:
        if need is Need.EXPIRED:
            return not self._server_time.known  # only our own clock says so
        ends = self.schedule.expires_at  # a 401 may be the server's fault (contract 15.1)
        return ends is not None and self._server_time.now() < ends

    def install(self, held: Held, now: float, random: float) -> None:
        """There is another token."""
        self.current, self._since, self._after_refusal = held, now, self._refused_at is not None
        self.schedule = schedule(
            held.token,
            now=now,
            server_now=self._server_time.now(),
            before=self._before,
            random=random,
            just_made=held.just_made,
        )
        self._refused_at = None
        self.lost = False
        self.failures, self.failure, self.not_before = 0, None, 0.0

    def forgive(self) -> None:
        """Somebody brought a token: what was refused before counts no more."""
        self._refused_at_once = 0
        self._refused_ids.clear()

    def fail(self, outcome: Failed | NothingNewer, now: float, random: float) -> None:
        """A renewal brought nothing; sets `lost` where that is the end."""
        self.failures += 1
        delay = RENEWAL.delay(self.failures, random)
        if isinstance(outcome, Failed):
            self.failure = outcome.what
            self.not_before = now + max(delay, outcome.retry_after)
            return
        self.failure = None
        self.not_before = now + delay
        if self.current is None or not self.current.token.access:
            self.lost = True
        elif self._refused_at is not None:
            ended = self._server_time.known and self.schedule.phase(self._server_time.now()) is Phase.EXPIRED
            self.lost = self.lost or outcome.over or ended

    def expired_error(self) -> TokenExpiredError:
        """What a caller gets while it is lost."""
        if self.current is None:
            return TokenExpiredError(f"there is no token for user {self.user!r}", code="no_token")
        return TokenExpiredError(f"the session of user {self.user!r} is over")
