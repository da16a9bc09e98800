"""Which quiet channel is checked by seq, and when: a server may be minutes late with what it publishes, or never
publish it (contract, 15.9). One check after the other, not all at once. Decides only."""

from __future__ import annotations

from collections.abc import Iterable

from .subscription import Subscription

QUIET = 60.0
"""Seconds of silence after which a channel is checked (DESIGN 7)."""

PACE = 0.25
"""Seconds between two such checks."""


class Quiet:
    """One connection's. after: see `QUIET`; None: no channel is ever checked."""

    def __init__(self, after: float | None = QUIET) -> None:
        self._after = after
        self.due: float | None = None
        """When to call `next`."""

    def begin(self, carried: Iterable[Subscription], now: float) -> None:
        """The connection is open."""
        if self._after is not None:
            oldest = min((each.heard for each in carried if each.heard), default=now)
            self.due = max(oldest + self._after, now + PACE)

    def next(self, heard: Iterable[Subscription], now: float) -> Subscription | None:
        """The one to be checked now, if any is."""
        assert self._after is not None
        channels = list(heard)
        quiet = sorted((each for each in channels if each.heard + self._after <= now), key=lambda each: each.heard)
        if len(quiet) > 1:
            self.due = now + PACE
        else:
            since = min((each.heard for each in channels if each not in quiet), default=now)
            self.due = since + self._after
        return quiet[0] if quiet else None
