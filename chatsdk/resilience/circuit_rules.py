"""When a circuit opens, for how long, and what closes it: values, and the presets of the seeds."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.record import Record, record
from ..core.settings import CIRCUITS, Settings


@record(frozen=True, slots=True, kw_only=True)
class CircuitRules(Record):
    """Seconds, all of them.

    failures    failures within `window`, without a success between them, that open it
    window      how long a failure counts
    open_first  how long it is open at first; each failed probe doubles that
    open_max    how long it is open at most
    successes   successful probes that close it
    timeout     a call that took longer counts as a failure, whatever it returned; None: time does not matter
    """

    failures: int = 5
    window: float = 120.0
    open_first: float = 1.0
    open_max: float = 60.0
    successes: int = 2
    timeout: float | None = None

    @classmethod
    def of(cls, settings: Settings) -> CircuitRules:
        """What the settings say about the server's circuits."""
        return cls(
            failures=settings.circuit_failures,
            window=settings.circuit_window,
            open_first=settings.circuit_open_first,
            open_max=settings.circuit_open_max,
            successes=settings.circuit_successes,
        )


def _fixed(failures: int, seconds: float, *, successes: int = 2, timeout: float | None = None) -> CircuitRules:
    return CircuitRules(failures=failures, open_first=seconds, open_max=seconds, successes=successes, timeout=timeout)


WEBSOCKET = _fixed(3, 10.0, successes=1)
"""Seed 004. It is shown, and delays nothing: there the back-off is the circuit."""

PRESETS: Mapping[str, CircuitRules] = {
    **{
        name: CircuitRules(
            failures=int(preset["circuit_failures"]),
            open_first=preset["circuit_open_first"],
            open_max=preset["circuit_open_max"],
        )
        for name, preset in CIRCUITS.items()
    },
    "websocket": WEBSOCKET,
    # what backends call, with the time after which a call counts as failed (seed 003)
    "database": _fixed(3, 30.0, timeout=5.0),
    "external_api": _fixed(5, 30.0, timeout=15.0),
    "ai_call": _fixed(3, 60.0, timeout=45.0),
    "file": _fixed(5, 30.0, timeout=60.0),
}
"""By name: the settings' presets, the websocket's, and those for what a backend itself calls."""
