"""How long a call may take: in all, and for making one connection within that. Pure.

Four presets have names (seed 003). Each operation has the one that fits it (`Call.preset`), so a health check gives up
after 5 s and a search after 30. What counts, the first that was said:

    total     `timeout=` of the call, seconds or a preset > the setting `timeout` or `timeouts` > the operation's preset
    connect   the setting `connect_timeout` or `timeouts` > the preset's

A `deadline` around the call ends it earlier, never later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from .errors import InvalidArgument
from .values import MAX_SECONDS

if TYPE_CHECKING:
    from .settings import Settings

Preset: TypeAlias = Literal["quick", "standard", "heavy", "ai"]
"""quick: health, typing, presence; standard: most calls; heavy: downloads, bulk; ai: language models."""

TIMEOUTS: Mapping[str, Mapping[str, float]] = {
    "quick": {"connect_timeout": 3.0, "timeout": 5.0},
    "standard": {"connect_timeout": 5.0, "timeout": 10.0},
    "heavy": {"connect_timeout": 5.0, "timeout": 30.0},
    "ai": {"connect_timeout": 5.0, "timeout": 45.0},
}
"""Presets of time-outs (seed 003), in seconds."""


class Limits(NamedTuple):
    """Seconds for a call in all, and for one connection (None: what the settings say)."""

    total: float
    connect: float | None


class _Usual(dict[str, Limits]):
    def __missing__(self, preset: str) -> Limits:
        raise _no_time("an operation's preset", preset)


class Timeouts:
    """What applies under these settings. `usual`: an operation's limits by its preset; raises InvalidArgument for a
    name that is none."""

    def __init__(self, settings: Settings) -> None:
        total = settings.timeout if settings.is_given("timeout") else None
        connect = settings.connect_timeout if settings.is_given("connect_timeout") else None
        self._asked = {name: _limits(preset, None, connect) for name, preset in TIMEOUTS.items()}
        self.usual = _Usual({name: _limits(preset, total, connect) for name, preset in TIMEOUTS.items()})

    def asked(self, timeout: float | str) -> Limits:
        """Those of a call for which somebody named a time-out. Raises InvalidArgument."""
        if isinstance(timeout, str) and timeout in self._asked:
            return self._asked[timeout]
        return Limits(seconds(timeout, "timeout"), None)


def seconds(given: float | str, what: str) -> float:
    """The seconds that a caller named, as a number of 0 or more or as a preset. Raises InvalidArgument."""
    if isinstance(given, str) and given in TIMEOUTS:
        return TIMEOUTS[given]["timeout"]
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 <= given <= MAX_SECONDS:
        raise _no_time(what, given)
    return float(given)


def _limits(preset: Mapping[str, float], total: float | None, connect: float | None) -> Limits:
    return Limits(
        preset["timeout"] if total is None else total, preset["connect_timeout"] if connect is None else connect
    )


def _no_time(what: str, given: object) -> InvalidArgument:
    shown = repr(given)
    return InvalidArgument(
        f"{what} must be seconds, 0 or more, or one of {', '.join(TIMEOUTS)}: {shown[:60]}", code="invalid_timeout"
    )
