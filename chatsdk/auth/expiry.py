"""When a token ends, as far as one can tell from here. Pure, but for `ServerTime`, which reads the clock it is given.

Everything in here is a hint. Only the server's 401 says that a token is bad, and only its 2xx says that one is good:
`exp` may be missing, junk, or measured by a clock that is not ours. A hint may start a refresh early; it never condemns
a token.

* `exp`, `iat` and the user are read without checking the signature: we are not the one who has to believe the token.
* Time is the server's: our wall clock plus the skew learned from the `Date` headers. Between two observations it runs
  by the monotonic clock or the wall clock, whichever is ahead: after a suspend the monotonic one is late, and a wall
  clock that was set back must not keep a dead token alive. Being ahead costs one early refresh.
* A token is refreshed `before` seconds (5 minutes) ahead of its end, plus up to 10 % of that by chance, so that a
  thousand clients that were started together do not refresh together. Tokens that live less than twice as long are
  refreshed `max(60 s, 10 %)` ahead, and none before half its life is over.
* The floor: a token that was just made is not refreshed again on a hint for 60 s (or half its life), whatever it says
  of itself. So a wrong clock costs a refresh a minute, not a loop.
"""

from __future__ import annotations

import base64
import json
import math
from enum import Enum
from typing import Any

from ..core.clock import Clock
from ..core.record import Record, record
from ..core.tokens import Token

REFRESH_BEFORE = 300.0
"""Seconds ahead of its end at which a token is refreshed (seeds 000 and 001)."""

SHORT_BEFORE = 60.0
"""The same for short tokens, and the floor between two refreshes that a hint causes (seed 001: 60 s)."""

JITTER = 0.1
"""Up to so much of the time ahead is added by chance."""

MAX_TOKEN = 64 * 1024
"""Characters; the claims of anything longer are not looked at."""


@record(frozen=True, slots=True)
class Claims(Record):
    """What a token says of itself: Unix times and the user, each None where it says nothing of use."""

    expires_at: float | None = None
    issued_at: float | None = None
    user: str | None = None


def read_claims(token: str) -> Claims:
    """The claims of a JWT that we go by, unverified; all None if it is no JWT. Never raises."""
    claims = read_payload(token)
    return Claims(number(claims.get("exp")), number(claims.get("iat")), _user(claims))


def read_payload(token: str) -> dict[str, Any]:
    """All that a JWT says, unverified; {} if it is no JWT. Never raises."""
    parts = token.split(".", 3)
    if len(parts) != 3 or len(token) > MAX_TOKEN:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):  # broken base64, UTF-8 or JSON, numbers of 5000 digits, thousands of brackets
        return {}
    return claims if isinstance(claims, dict) else {}


def number(value: Any) -> float | None:
    """A finite number as a float; None for everything else, also for text and True."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond every float
        return None


def _user(claims: dict[str, Any]) -> str | None:
    user, subject, app = claims.get("user_id"), claims.get("sub"), claims.get("app_id")
    if isinstance(user, str) and user:
        return user
    if not isinstance(subject, str) or not subject:
        return None
    # contract 4.1: sub is "<app>:<user>"
    return (subject.removeprefix(f"{app}:") if isinstance(app, str) else subject) or None


class Phase(Enum):
    """What the hint says about a token right now."""

    GOOD = "good"
    DUE = "due"
    """Time to refresh; still served."""
    EXPIRED = "expired"


@record(frozen=True, slots=True)
class Schedule(Record):
    """When a token is due and ends (server time, None if unknown), and the monotonic time before which no hint may
    cause a refresh."""

    refresh_at: float | None
    expires_at: float | None
    floor: float

    def phase(self, server_now: float) -> Phase:
        """Good, due or expired at this server time."""
        if self.expires_at is not None and server_now >= self.expires_at:  # contract 15.42: exp = now is expired
            return Phase.EXPIRED
        if self.refresh_at is not None and server_now >= self.refresh_at:
            return Phase.DUE
        return Phase.GOOD


def schedule(token: Token, *, now: float, server_now: float, before: float, random: float, just_made: bool) -> Schedule:
    """The schedule of a token that came at `now` (monotonic) and `server_now` (server time).

    `random`: a number in [0, 1). `just_made`: it was made for us, rather than kept or configured some time ago.
    """
    claims = read_claims(token.access.reveal())
    expires_at = claims.expires_at if claims.expires_at is not None else number(token.expires_at)
    if expires_at is None:
        return Schedule(None, None, now)
    begin = server_now if claims.issued_at is None else claims.issued_at
    life = max(expires_at - begin, 0.0)
    ahead = before if life >= 2 * before else max(SHORT_BEFORE, 0.1 * life)
    ahead = min(ahead * (1 + JITTER * random), life / 2)
    floor = now + max(min(SHORT_BEFORE, life / 2), 1.0) if just_made else now
    return Schedule(expires_at - ahead, expires_at, floor)


class ServerTime:
    """What the server's clock shows. One per server is enough; `known` turns True with the first observation."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.known = False
        self._anchor = (clock.monotonic(), clock.time(), 0.0)  # replaced as a whole, so no lock is needed

    def observe(self, skew: float) -> None:
        """Server time minus ours, in seconds, as an answer's Date header has it just now."""
        if math.isfinite(skew):
            self._anchor = (self._clock.monotonic(), self._clock.time() + skew, skew)
            self.known = True

    def now(self) -> float:
        """Unix time by the server's clock."""
        monotonic, server, skew = self._anchor
        return max(server + self._clock.monotonic() - monotonic, self._clock.time() + skew)
