"""What can be said of a network: five levels, why it is no better, and the figures. Values only.

    level      | sign | median latency | tries lost
    -----------+------+----------------+-----------
    EXCELLENT  | ●●●  | < 50 ms        | < 1 %
    GOOD       | ●●○  | < 150 ms       | < 2 %
    FAIR       | ●○○  | < 300 ms       | < 5 %
    POOR       | ○○○  | slower         | more
    OFFLINE    | ✕    | no contact with the server

The worse of the two columns counts. The limits are those of seed 001. A link that answers in two seconds is POOR, not
OFFLINE: messages go through it.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import StrEnum
from math import sqrt

from ..core.record import Record, record

LATENCY_LIMITS = (50.0, 150.0, 300.0)
"""Milliseconds from which on a latency is GOOD, FAIR, POOR."""

LOSS_LIMITS = (0.01, 0.02, 0.05)
"""Shares of lost tries from which on a network is GOOD, FAIR, POOR."""

_Z = 1.96
"""Of the normal distribution, for 95 %."""


class Quality(StrEnum):
    """The levels, best first."""

    EXCELLENT = "EXCELLENT"
    GOOD = "GOOD"
    FAIR = "FAIR"
    POOR = "POOR"
    OFFLINE = "OFFLINE"

    @property
    def rank(self) -> int:
        """0 (EXCELLENT) to 4 (OFFLINE): greater is worse."""
        return _RANKS[self]

    @property
    def symbol(self) -> str:
        """●●● ●●○ ●○○ ○○○ ✕"""
        return _SYMBOLS[self]

    @property
    def label(self) -> str:
        """For people: "Excellent"."""
        return self.value.capitalize()


LEVELS = tuple(Quality)
_RANKS = {level: rank for rank, level in enumerate(LEVELS)}
_SYMBOLS = dict(zip(LEVELS, ("●●●", "●●○", "●○○", "○○○", "✕"), strict=True))


class Reason(StrEnum):
    """Why the network is no better. A closed set: labels of a metric may be made of it."""

    NONE = ""
    SLOW = "slow"
    LOSSY = "lossy"
    NO_NETWORK = "no_network"
    NO_CONTACT = "no_contact"
    CAPTIVE_PORTAL = "captive_portal"
    CONTENT_FILTER = "content_filter"
    REWRITING_PROXY = "rewriting_proxy"

    @property
    def text(self) -> str:
        """For people, with what to do."""
        return _TEXTS[self]

    @property
    def intercepted(self) -> bool:
        """Somebody in between answered in the server's place."""
        return self in _INTERCEPTED


_TEXTS = {
    Reason.NONE: "",
    Reason.SLOW: "the network is slow",
    Reason.LOSSY: "many requests get no answer",
    Reason.NO_NETWORK: "this machine has no network: switch it on, or plug it in",
    Reason.NO_CONTACT: "the server cannot be reached",
    Reason.CAPTIVE_PORTAL: "the network wants a sign-in: open a web page in a browser",
    Reason.CONTENT_FILTER: "a filter blocks some requests: ask who runs this network to let the server pass",
    Reason.REWRITING_PROXY: "answers are not the server's own: check the URL, and the proxy in between",
}
_INTERCEPTED = frozenset({Reason.CAPTIVE_PORTAL, Reason.CONTENT_FILTER, Reason.REWRITING_PROXY})


@record(frozen=True, slots=True, kw_only=True)
class NetworkMetrics(Record):
    """How the network is. Times are seconds, except where the name says otherwise.

    quality            the level
    at_best, at_worst  levels that the samples leave open. Few samples leave much open, and loss is known slowly: below
                       5 % the levels cannot be told apart by it before some 1,000 tries
    reason             why it is no better, "" if there is nothing to say
    online             there was contact of late (or nothing is known to the contrary)
    samples            tries and heartbeats that this is judged by; 0: `quality` is what was known last, or a guess
    latency_ms         median of the last answers, None: not known
    latency_p95_ms     95 % of them were quicker
    loss               share of tries without an answer, 0 to 1, `loss_low` to `loss_high` with 95 % certainty
    bandwidth          bytes a second of the last large bodies, None: there was none
    drops              how often contact was lost in the last five minutes
    stability          1 without drops, 1/2 with one, 1/3 with two, ...
    quality_age        how long it has been of this level
    contact_age        how long ago the server answered, None: never
    """

    quality: Quality
    at_best: Quality
    at_worst: Quality
    reason: Reason
    online: bool
    samples: int
    latency_ms: float | None
    latency_p95_ms: float | None
    loss: float
    loss_low: float
    loss_high: float
    bandwidth: float | None
    drops: int
    stability: float
    quality_age: float
    contact_age: float | None

    def to_dict(self) -> dict[str, object]:
        """JSON-able, with `symbol` and `label` beside the level."""
        facts: dict[str, object] = {name: getattr(self, name) for name in self.__slots__}
        return {**facts, "symbol": self.quality.symbol, "label": self.quality.label}


def latency_rank(ms: float) -> int:
    """0 to 3 (`Quality.rank`) by latency alone."""
    return bisect_right(LATENCY_LIMITS, ms)


def loss_rank(share: float) -> int:
    """0 to 3 by loss alone."""
    return bisect_right(LOSS_LIMITS, share)


def share_interval(hits: int, of: int) -> tuple[float, float]:
    """The shares that `hits` of `of` leave open with 95 % certainty (Wilson's interval)."""
    if of == 0:
        return 0.0, 1.0
    share, square = hits / of, _Z * _Z
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = _Z * sqrt(share * (1 - share) / of + square / (4 * of * of)) / (1 + square / of)
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    return low, 1.0 if hits == of else min(1.0, middle + half)


def median_interval(ordered: list[float]) -> tuple[float, float]:
    """The medians that a sorted sample leaves open with 95 % certainty: 0 to infinity, if it is small."""
    count = len(ordered)
    reach = _Z * sqrt(count) / 2
    low, high = int(count / 2 - reach) - 1, int(count / 2 + reach) + 1
    return (ordered[low] if low >= 0 else 0.0), (ordered[high] if high < count else float("inf"))
