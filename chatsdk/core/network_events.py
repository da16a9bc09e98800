"""What becomes of the network, and of what the client can do over it.

They are found as `chatsdk.events.NetworkQualityChanged` and the like; the module is loaded when the first one is asked
for, or when the first one happens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .events import Event


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NetworkQualityChanged(Event):
    """The network is of another quality, or for another reason.

    quality, old  EXCELLENT, GOOD, FAIR, POOR or OFFLINE
    reason        why it is no better (`network.quality.Reason`), "" if there is nothing to say
    latency       milliseconds, the median of late; None: not known
    loss          share of the tries that nobody answered, 0 to 1
    """

    NAME: ClassVar[str] = "network:quality"

    quality: str
    old: str
    reason: str = ""
    latency: float | None = None
    loss: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class DegradationChanged(Event):
    """The client can do more, or less, than before.

    level, old  none, minor, moderate, severe or critical
    effect      what a page should show: "" (nothing), info, warning, error, full-screen
    reasons     what is not as it should be, such as "offline", "circuit api", "feature search"
    """

    NAME: ClassVar[str] = "degradation:level"

    level: str
    old: str
    effect: str = ""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class FeatureStateChanged(Event):
    """A feature is there again, or is not there. `reason`: why not."""

    NAME: ClassVar[str] = "feature:state"

    feature: str
    available: bool
    reason: str = ""
