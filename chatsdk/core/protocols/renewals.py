"""When the tokens of one connection are asked for anew: its own (target None) and those of its streams. Pure.

    granted, with ttl             ask once ttl - lead has passed
    asked, no answer              ask again after 30 s: whoever fetches tokens may have failed
    the server refused the token  ask at once for another; from the second refusal in a row on, 10 s after the last time
    the server could not tell     ask again after 10 s

So a token without end, a provider that gives the same bad one for ever and a server that refuses all of them each cost
one request now and then, never a loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .outputs import TokenWanted

LEAD_SHARE = 0.2
"""Of a token's life, how long before its end it is renewed: 180 s of the server's 900. The 128 streams that a
connection may carry need 128 s, at the 60 subscription tokens a minute that the server gives out."""

LEAD_LEAST = 10.0
"""Seconds; but never more than half of a token's life."""

ASK_AGAIN = 30.0
"""Seconds until an unanswered question is repeated."""

RETRY = 10.0
"""Seconds between two tries of which the first was refused."""

_LEAST_LIFE = 1.0
_LONGEST_LIFE = 10 * 365 * 86400.0


def expires(answer: Mapping[str, Any]) -> bool:
    """Whether an answer names an end of what it grants."""
    return answer.get("expires") is True or _life(answer) > 0


def _life(answer: Mapping[str, Any]) -> float:
    return read_seconds(answer.get("ttl"), _LONGEST_LIFE)


def read_seconds(value: Any, most: float) -> float:
    """A time out of whatever stands in its place: 0 for nonsense."""
    return float(value) if isinstance(value, (int, float)) and value is not True and 0 < value <= most else 0.0


class _Renewal:
    __slots__ = ("asked", "due", "refused", "under_way")

    def __init__(self) -> None:
        self.due: float | None = None
        self.asked = float("-inf")
        self.refused = False
        self.under_way = False


class Renewals:
    """The renewals of one connection. `next_due`: when to call `due`, at the latest."""

    __slots__ = ("_all", "next_due")

    def __init__(self) -> None:
        self._all: dict[str | None, _Renewal] = {}
        self.next_due: float | None = None

    def granted(self, target: str | None, answer: Mapping[str, Any], now: float) -> None:
        """The server took a token; `answer` says for how long."""
        renewal = self._all[target] = _Renewal()
        if expires(answer):
            ttl = _life(answer)
            renewal.due = now + max(ttl - min(max(LEAD_SHARE * ttl, LEAD_LEAST), ttl / 2), _LEAST_LIFE)
        self._plan()

    def begin(self, target: str | None) -> bool:
        """A token is about to be sent to the server; False if one is under way already."""
        renewal = self._all.setdefault(target, _Renewal())
        if renewal.under_way:
            return False
        renewal.under_way, renewal.due = True, None
        self._plan()
        return True

    def refused(self, target: str | None, now: float) -> list[TokenWanted]:
        """The server did not take the token, or whoever sends it could not."""
        renewal = self._all.setdefault(target, _Renewal())
        renewal.under_way = False
        if renewal.refused and now < renewal.asked + RETRY:
            renewal.due = renewal.asked + RETRY
            self._plan()
            return []
        renewal.refused = True
        return self._ask(target, renewal, now)

    def unclear(self, target: str | None, now: float) -> None:
        """Neither taken nor refused: later."""
        renewal = self._all.setdefault(target, _Renewal())
        renewal.under_way, renewal.due = False, now + RETRY
        self._plan()

    def forget(self, target: str | None) -> None:
        """Its stream ended."""
        if self._all.pop(target, None) is not None:
            self._plan()

    def due(self, now: float) -> list[TokenWanted]:
        """The tokens that are wanted by now."""
        if self.next_due is None or now < self.next_due:
            return []
        wanted: list[TokenWanted] = []
        for target, renewal in self._all.items():
            if renewal.due is not None and renewal.due <= now:
                wanted += self._ask(target, renewal, now)
        return wanted

    def _ask(self, target: str | None, renewal: _Renewal, now: float) -> list[TokenWanted]:
        renewal.asked, renewal.due = now, now + ASK_AGAIN
        self._plan()
        return [TokenWanted(target, renewal.refused)]

    def _plan(self) -> None:
        self.next_due = min((each.due for each in self._all.values() if each.due is not None), default=None)
