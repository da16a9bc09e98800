"""How much of the client is usable: levels, from features, circuits and the quality of the network. Pure.

    level    | when                                                        | effect on a page
    ---------+-------------------------------------------------------------+--------------------
    none     | everything works                                            | "" (nothing)
    minor    | slower: POOR quality, a small feature or any circuit is off | info banner
    moderate | a feature is off                                            | warning banner
    severe   | only what is here already: OFFLINE, or circuit "api"        | error banner
    critical | what everything else needs is off                           | full-screen error

The levels are those of seed 003. The worst that holds counts. A circuit that is half open is off until a probe
succeeded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum

from ..core.record import Record, record
from .quality import Quality

API = "api"
"""The circuit of the server itself."""


class Level(StrEnum):
    """How much is not usable, least first."""

    NONE = "none"
    MINOR = "minor"
    MODERATE = "moderate"
    SEVERE = "severe"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 (none) to 4 (critical)."""
        return _RANKS[self]

    @property
    def effect(self) -> str:
        """What a page should show: "" (nothing), info, warning, error, full-screen."""
        return _EFFECTS[self]


_RANKS = {level: rank for rank, level in enumerate(Level)}
_EFFECTS = dict(zip(Level, ("", "info", "warning", "error", "full-screen"), strict=True))


@record(frozen=True, slots=True, kw_only=True)
class Feature(Record):
    """Something that can fail while the rest works.

    name     as in `features.run(name, ...)`
    circuit  what protects it, None: nothing does
    offline  it works without a network as well
    impact   the level that its absence means
    """

    name: str
    circuit: str | None = None
    offline: bool = False
    impact: Level = Level.MODERATE


BUILT_IN: tuple[Feature, ...] = (
    Feature(name="messages", offline=True, impact=Level.CRITICAL),  # the outbox takes them, whatever the network does
    Feature(name="search", circuit="search"),
    Feature(name="presence", circuit="presence", impact=Level.MINOR),
    Feature(name="realtime", circuit="websocket", impact=Level.MINOR),  # without it the server is polled
    Feature(name="uploads", circuit="uploads", offline=True),  # they queue
)
"""The client's own."""


@record(frozen=True, slots=True)
class Verdict(Record):
    """A level, why it is that, and the features that are off, with the reason of each."""

    level: Level
    reasons: tuple[str, ...]
    off: Mapping[str, str]


def judge(
    quality: Quality, open_circuits: Collection[str], features: Collection[Feature], reported: Mapping[str, str]
) -> Verdict:
    """The level of now. open_circuits: those that are off; reported: features that somebody said are off, and why."""
    level, reasons, off = Level.NONE, [], {}
    if quality is Quality.OFFLINE:
        level = Level.SEVERE
        reasons.append("offline")
    elif quality is Quality.POOR:
        level = Level.MINOR
        reasons.append("network poor")
    for circuit in sorted(open_circuits):
        level = max(level, Level.SEVERE if circuit == API else Level.MINOR, key=_RANKS.__getitem__)
        reasons.append(f"circuit {circuit}")
    for feature in features:
        why = _why_off(feature, quality, open_circuits, reported)
        if not why:
            continue
        off[feature.name] = why
        if why != "offline":  # else one reason says it for all
            level = max(level, feature.impact, key=_RANKS.__getitem__)
            reasons.append(f"feature {feature.name}")
    return Verdict(level, tuple(reasons), off)


def _why_off(feature: Feature, quality: Quality, open_circuits: Collection[str], reported: Mapping[str, str]) -> str:
    if feature.name in reported:
        return reported[feature.name] or "reported"
    if quality is Quality.OFFLINE and not feature.offline:
        return "offline"
    return f"circuit {feature.circuit}" if feature.circuit in open_circuits else ""
