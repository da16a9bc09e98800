"""A deadline: one moment for a whole piece of work, handed down instead of a time-out for each of its steps."""

from __future__ import annotations

from ..core.clock import Clock
from ..core.record import Record, record


@record(frozen=True, slots=True)
class Deadline(Record):
    """`at`: monotonic time in seconds at which the caller stops waiting, or None for never."""

    at: float | None
    clock: Clock

    @classmethod
    def after(cls, seconds: float | None, clock: Clock) -> Deadline:
        """The deadline `seconds` from now; None: never."""
        return cls(None if seconds is None else clock.monotonic() + seconds, clock)

    def remaining(self) -> float:
        """Seconds that are left: 0 when none are, infinity without a deadline."""
        if self.at is None:
            return float("inf")
        return max(0.0, self.at - self.clock.monotonic())

    @property
    def expired(self) -> bool:
        """True when nothing is left."""
        return self.remaining() <= 0

    def clamp(self, seconds: float) -> float:
        """`seconds`, or what is left if that is less."""
        return min(seconds, self.remaining())
