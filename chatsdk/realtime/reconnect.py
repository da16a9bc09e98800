"""When to try again, as values; see the table of presets in `core.backoff`.

A try that fails waits longer than the one before. A connection that was open starts that anew only if it lived for a
while: longer than it was waited for, and than STEADY. So a server that takes everybody and drops them again is left
alone more and more, while one that is lost now and then is back at once.

Until that has gone on for a minute it may be a bad network as well, and what is lost is met by a quick try, however
short it lived: quickest where the connection was cut without a word, which networks do and servers seldom.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..core.backoff import RECONNECTS, Backoff
from ..core.record import Record, record

STEADY = 0.25
"""Seconds that a connection must live to count as a success: at most four of them in a second, then."""

FLAPPING = 60.0
"""Seconds of nothing but short connections until they count like failed tries."""

CUT, CLOSED = 2, 3
"""As which failure in a row such a loss counts until then, at most: 200 and 400 ms by the preset `fast`."""

LONGEST_ASKED = 60.0
"""Seconds that a server can ask us to wait (Retry-After)."""


@record(frozen=True, slots=True)
class Reconnect(Record):
    """`stages` are gone through one after the other; one with 0 tries has no end."""

    stages: Sequence[Backoff] = RECONNECTS["forever"]

    @property
    def limit(self) -> int | None:
        """How many tries there are after the first one, None: no end."""
        return None if any(not stage.tries for stage in self.stages) else sum(stage.tries for stage in self.stages)

    def delay(self, failures: int, random: float, asked: float | None = None) -> float | None:
        """Seconds until the next try after the `failures`-th failure in a row (from 1); None: there is none. `asked`:
        what the server asked us to wait, at least."""
        left = failures
        for stage in self.stages:
            if not stage.tries or left <= stage.tries:
                return max(stage.delay(left, random), min(asked or 0.0, LONGEST_ASKED))
            left -= stage.tries
        return None


class Losses:
    """Counts failures in a row."""

    def __init__(self) -> None:
        self.failures = 0
        self._flapping_since: float | None = None

    def failed(self) -> int:
        """A try failed."""
        self.failures += 1
        return self.failures

    def lost(self, now: float, lived: float, waited: float, *, cut: bool) -> int:
        """An open connection was lost that had lived `lived` seconds after a wait of `waited`; cut: without a word."""
        if lived >= max(STEADY, waited):
            self.failures, self._flapping_since = 1, None
            return 1
        if self._flapping_since is None:
            self._flapping_since = now
        self.failures += 1
        if now - self._flapping_since < FLAPPING:
            self.failures = min(self.failures, CUT if cut else CLOSED)
        return self.failures
