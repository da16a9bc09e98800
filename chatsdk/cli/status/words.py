"""Facts of `chatsdk status` in words. Pure."""

from __future__ import annotations

from math import ceil
from typing import Any

from ...core.plain_text import plain

IDLE = 65.0
"""Seconds for which a message is due and not sent until it is said that nobody sends it: a process that does may leave
the server alone for a minute."""

NOW = 0.1
"""Seconds that are none."""

_REASONS = {
    "offline": "the server cannot be reached",
    "auth": "its user has no valid token",
    "rate_limited": "the server asked to wait (rate limit)",
    "circuit_open": "the circuit is open (server failed)",
    "behind_others": "others of its channel go first",
    "disk": "the outbox's disk cannot be used",
    "uncertain": "the last try got no usable answer",
    "plugin": "a plugin stops it",
}
"""Why a message waits, by `core.store.Reason`."""


def why(reason: str, sending: bool = False) -> str:
    """Why a message waits. reason: a `Reason`, "" if none was noted; one of a later version is shown as it is."""
    if sending:
        return "it is being sent"
    return _REASONS.get(reason, plain(reason)) or "nobody has tried to send it yet"


_BRIEFLY = {
    "offline": "not reached",
    "auth": "no token",
    "rate_limited": "rate limit",
    "circuit_open": "circuit open",
    "behind_others": "behind others",
    "disk": "disk",
    "uncertain": "no usable answer",
    "plugin": "plugin",
}


def briefly(reason: str) -> str:
    """The same in a word or two, for lists."""
    return _BRIEFLY.get(reason, plain(reason))


def duration(seconds: float) -> str:
    """ "4s", "2m 5s", "3h 20m", "5d 2h"; less than a second is "0s"."""
    whole = int(max(0.0, seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole // 60 % 60}m"
    return f"{whole // 86400}d {whole // 3600 % 24}h"


def until(seconds: float) -> str:
    """ "in 4s"; what is over, or nearly so, is "now"."""
    return f"in {duration(ceil(seconds))}" if seconds > NOW else "now"


def milliseconds(value: float | None) -> str:
    """ "0.4 ms", "120 ms", "unknown"."""
    if value is None:
        return "unknown"
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def share(value: float) -> str:
    """Of 1: "0 %", "0.5 %", "20 %"."""
    percent = value * 100
    return f"{percent:.1f} %" if 0 < percent < 1 else f"{percent:.0f} %"


def number(count: int, one: str, many: str = "") -> str:
    """ "1 call", "3 calls"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def next_try(outbox: dict[str, Any]) -> str:
    """When the next message may be tried, "" if none waits. One that is due and not sent has nobody who sends it."""
    seconds = outbox["next_in"]
    if seconds is None:
        return ""
    if outbox["sending"]:
        return "being sent now"
    due_for = outbox["due_for"] or 0.0
    if due_for > IDLE and seconds <= NOW:
        by_whom = "" if outbox["reason"] in ("auth", "plugin") else ", and nobody sends it: `chatsdk outbox run` does"
        return f"due for {duration(due_for)}{by_whom}"
    return f"next try {until(seconds)}"


def error(facts: dict[str, Any], now: float) -> str:
    """One kind of error: "messages.send: ServerError (server_error, 503), 12 times, last 3s ago: busy"."""
    details = ", ".join(str(each) for each in (facts["code"], facts["status"]) if each)
    named = f"{facts['error']} ({details})" if details else facts["error"]
    if facts["where"] == "here":
        how_often = f", {facts['count']} times" if facts["count"] > 1 else ""
        how_often += f", {'last ' if facts['count'] > 1 else ''}{duration(now - facts['last_at'])} ago"
    else:
        how_often = f", {number(facts['count'], 'message')}"
    message = f": {facts['message']}" if facts["message"] else ""
    return plain(f"{facts['operation']}: {named}{how_often}{message}")
