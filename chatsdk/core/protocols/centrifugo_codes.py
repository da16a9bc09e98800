"""What Centrifugo's codes ask for, as tables. First match wins; what is in no row falls to the row at the end.

Where the numbers come from: the codes that a real server was seen to send (3000 to 5000, 100 to 109), and for the rest
the ranges of its client protocol: below 100 and "temporary" means later, 3500-3999 and 4500-4999 mean stay away.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .outputs import Close, SubscribeFailed, Unsubscribed

ALREADY_SUBSCRIBED = 105
MAX_TEXT = 200
"""Characters of a reason or message that are passed on."""


class Rule(NamedTuple):
    """For the codes `first` to `last`: again or not, and with a fresh token or the one that there is."""

    first: int
    last: int
    again: bool
    fresh_token: bool = False


CLOSES = (
    Rule(3005, 3005, again=True, fresh_token=True),  # connection expired
    Rule(3014, 3014, again=True, fresh_token=True),  # state invalidated
    Rule(3500, 3999, again=False),  # 3500 invalid token, 3501 bad request, 3503 force disconnect, ...
    Rule(4500, 4999, again=False),  # the operator's own
)
"""Codes of a close frame or a disconnect push. Others (1006, 3001 shutdown, 3008 slow, 3012 no pong, 4001): come
back."""

ERRORS = (
    Rule(0, 99, again=True),
    Rule(100, 100, again=True),  # internal
    Rule(109, 109, again=True, fresh_token=True),  # token expired
    Rule(111, 111, again=True),  # too many requests
)
"""Codes of an error in a reply. Others (102 unknown channel, 103 permission denied, 106 limit exceeded): for good,
unless the error says that it is temporary."""

UNSUBSCRIBES = (
    Rule(2501, 2501, again=True, fresh_token=True),  # subscription expired
    Rule(2500, 1 << 62, again=True),
)
"""Codes of an unsubscribe push. Others (2000 by the server): stay out; an old token would let us in again."""


def _rule(rules: tuple[Rule, ...], code: int, otherwise: bool) -> Rule:
    for rule in rules:
        if rule.first <= code <= rule.last:
            return rule
    return Rule(code, code, otherwise)


def on_close(code: int, reason: str) -> Close:
    """The connection was closed, or is about to be."""
    rule = _rule(CLOSES, code, True)
    return Close(code, reason, rule.again, rule.fresh_token)


class Error(NamedTuple):
    """An error of a reply."""

    code: int
    message: str
    again: bool
    fresh_token: bool

    def close(self) -> Close:
        """As the end of the connection."""
        return Close(self.code, self.message, self.again, self.fresh_token)

    def refusal(self, stream: str) -> SubscribeFailed:
        """As the refusal of a stream."""
        return SubscribeFailed(stream, self.code, self.message, self.again, self.fresh_token)


def read_error(value: Any) -> Error | None:
    """A reply's `error`, None if it makes no sense."""
    if not isinstance(value, dict):
        return None
    code = read_code(value.get("code"))
    rule = _rule(ERRORS, code, value.get("temporary") is True)
    return Error(code, read_text(value.get("message")), rule.again, rule.fresh_token)


def on_unsubscribe(stream: str, value: dict[str, Any]) -> Unsubscribed:
    """The server ended a subscription."""
    code = read_code(value.get("code"))
    rule = _rule(UNSUBSCRIBES, code, False)
    return Unsubscribed(stream, code, read_text(value.get("reason")), rule.again, rule.fresh_token)


def read_code(value: Any) -> int:
    """A code out of whatever stands in its place: 0 for nonsense."""
    return value if value.__class__ is int and 0 <= value < 1 << 31 else 0


def read_text(value: Any) -> str:
    """A text for people out of whatever stands in its place, cut."""
    return value[:MAX_TEXT] if isinstance(value, str) else ""
