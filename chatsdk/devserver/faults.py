"""The fault switches: which request goes wrong, and how. Pure: rules in, verdicts out; `delivery.py` carries them out.

Rules:
* Rules are asked in the order they were added. Latencies add up; of all other kinds the first that fires wins.
* A rule fires if the request fits (operation, user, channel, text_contains), its `times` are not used up, its `for_s`
  are not over, and its dice say so. Each rule has dice of its own, thrown once for every request that fits: the same
  seed and the same requests give the same faults.
* A fault either keeps the request from being processed, or processes it and spoils the answer. Each kind has its
  custom; `processed` (true or false) in a rule changes it for the kinds that answer something.
* The realtime side has kinds of its own, each asked at its moment: `upgrade` (a WebSocket handshake), `standing` (as
  long as the rule stands), `event` (an event of the API on its way to a stream), `publication` (one on its way to the
  clients). Those of the moment `now` act when they are added and are no rule afterwards.
* `every` n makes a rule strike each n-th time that it fits.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# kind -> (whether the request is processed by custom, whether a rule may change that, the kind's own arguments)
KINDS: dict[str, tuple[bool, bool, frozenset[str]]] = {
    "latency": (True, False, frozenset({"ms", "jitter_ms", "when"})),
    "drop": (False, False, frozenset()),
    "reset": (False, True, frozenset()),
    "stall": (False, True, frozenset({"hold_s"})),
    "reply_lost": (True, False, frozenset()),
    "truncated": (True, True, frozenset({"keep"})),
    "drip": (True, True, frozenset({"interval_s"})),
    "status": (False, True, frozenset({"status", "retry_after", "body", "headers"})),
    "html": (False, True, frozenset({"body"})),
    "garbage": (False, True, frozenset({"body"})),
    "huge": (False, True, frozenset({"size"})),
    "gzip_bomb": (False, True, frozenset({"size"})),
    "redirect": (False, True, frozenset({"location", "status"})),
    "unauthorized": (False, False, frozenset()),
    "expire_tokens": (False, False, frozenset()),
    "refuse": (False, False, frozenset()),
}
_DELAY = frozenset({"ms", "jitter_ms"})
# kind -> (moment, the kind's own arguments)
REALTIME_KINDS: dict[str, tuple[str, frozenset[str]]] = {
    "ws_refuse": ("upgrade", frozenset({"status", "retry_after", "body"})),
    "ws_silent": ("upgrade", frozenset()),
    "ws_slow": ("standing", frozenset({"bytes_per_s", "ms"})),
    "ws_no_pong": ("standing", frozenset()),
    "ws_cut": ("now", frozenset({"how", "code", "reason"})),
    "ws_half_open": ("now", frozenset()),
    "ws_garbage": ("now", frozenset({"text", "hex"})),
    "ws_oversized": ("now", frozenset({"size"})),
    "epoch_reset": ("now", frozenset({"tell", "channel"})),
    **{
        f"{where}_{what}": (moment, arguments)
        for where, moment in (("event", "event"), ("pub", "publication"))
        for what, arguments in (
            ("drop", frozenset[str]()),
            ("duplicate", frozenset({"copies"})),
            ("reorder", frozenset({"window"})),
            ("delay", _DELAY),
        )
    },
}
_DICE = frozenset({"kind", "probability", "seed", "times", "for_s", "every"})
_MATCHING = _DICE | {"operation", "user", "channel", "text_contains"}
_MATCHING_AT = {
    "upgrade": _DICE | {"operation", "user"},
    "standing": _DICE | {"user"},
    "now": frozenset({"kind", "user"}),
    "event": _DICE | {"operation", "channel", "text_contains"},
    "publication": _MATCHING,
}
_NUMBERS = frozenset(
    {"ms", "jitter_ms", "hold_s", "keep", "interval_s", "size", "status", "probability", "for_s", "bytes_per_s", "code"}
)
_NEEDED = (
    ("latency", "ms"),
    ("status", "status"),
    ("refuse", "for_s"),
    ("event_delay", "ms"),
    ("pub_delay", "ms"),
)
_COUNTS = {"window": 2, "copies": 1, "every": 1}
"""Whole numbers, and the least that each may be."""


class BadRule(ValueError):
    """A rule that cannot be meant so; the text says what is wrong with it."""


@dataclass(frozen=True)
class Facts:
    """What rules look at in a request. `issued` and `jti` are those of its token."""

    operation: str
    user: str | None = None
    channel: str | None = None
    text: str | None = None
    issued: int | None = None
    jti: str | None = None


@dataclass(frozen=True)
class Happening:
    """What rules look at on the realtime side. `operation`: websocket or ws for an upgrade, else the event's type;
    `channel`: the stream. `user` counts for upgrades; whom a publication is broken for is its sender's business."""

    moment: str
    operation: str
    channel: str = ""
    text: str | None = None
    user: str | None = None


@dataclass(frozen=True)
class Fault:
    """What is to go wrong with one request."""

    kind: str
    arguments: Mapping[str, Any]
    processed: bool


@dataclass(frozen=True)
class Verdict:
    """The judgement on one request: seconds to wait before and after it is processed, and at most one fault."""

    before: float = 0.0
    after: float = 0.0
    fault: Fault | None = None


HARMLESS = Verdict()


@dataclass
class Rule:
    """One switch, with its dice and its count."""

    id: int
    spec: Mapping[str, Any]
    created: float
    cutoff: int
    dice: random.Random
    seen: int = 0
    fired: int = 0

    @property
    def moment(self) -> str:
        """When it is asked; "request" for all kinds that are not of the realtime side."""
        return REALTIME_KINDS.get(self.spec["kind"], ("request",))[0]

    def strikes(self) -> bool:
        """Counts something that fits, and throws the dice for it."""
        self.seen += 1
        hit = self.dice.random() < float(self.spec.get("probability", 1.0))
        return hit and self.seen % int(self.spec.get("every", 1)) == 0

    def delay_s(self) -> float:
        """A delay by the dice, in seconds."""
        milliseconds: float = self.spec["ms"] + self.dice.uniform(-1, 1) * self.spec.get("jitter_ms", 0)
        return max(0.0, milliseconds) / 1000

    def active(self, now: float) -> bool:
        if self.moment == "now":
            return False
        times, for_s = self.spec.get("times"), self.spec.get("for_s")
        return (times is None or self.fired < times) and (for_s is None or now < self.created + for_s)

    def describe(self, now: float) -> dict[str, Any]:
        return {"id": self.id, **self.spec, "seen": self.seen, "fired": self.fired, "active": self.active(now)}


@dataclass
class FaultBook:
    """All rules of a server, and how often each kind has struck (also by rules that are gone)."""

    rules: list[Rule] = field(default_factory=list)
    struck: Counter[str] = field(default_factory=Counter)
    last_id: int = 0
    # Tokens made within the very second of a cutoff, but after it: `iat` cannot tell them from the expired ones.
    _minted_late: set[str] = field(default_factory=set)
    _cutoff: int = -1

    def add(self, spec: Mapping[str, Any], now: float, wall: float) -> Rule:
        """Adds a rule; `now` is monotonic time, `wall` the server's Unix time. Raises `BadRule`."""
        checked = check_rule(spec)
        self.last_id += 1
        rule = Rule(self.last_id, checked, now, int(wall), random.Random(checked.get("seed", 0)))
        if rule.moment != "now":
            self.rules.append(rule)
        if checked["kind"] == "expire_tokens":
            self._cutoff = int(wall)
            self._minted_late.clear()
        return rule

    def remove(self, rule_id: int | None = None) -> int:
        """Removes one rule, or all of them; returns how many."""
        kept = [] if rule_id is None else [rule for rule in self.rules if rule.id != rule_id]
        removed = len(self.rules) - len(kept)
        self.rules = kept
        return removed

    def minted(self, jti: str, issued: int) -> None:
        """A token was made: one that is as old as the last cutoff, to the second, is remembered as good."""
        if issued == self._cutoff:
            self._minted_late.add(jti)

    def judge(self, facts: Facts, now: float) -> Verdict:
        """What happens to this request. Throws the dice of every rule it fits."""
        before = after = 0.0
        chosen: Rule | None = None
        for rule in self.rules:
            if rule.moment != "request" or not rule.active(now) or not self._fits(rule, facts):
                continue
            if not rule.strikes():
                continue
            if rule.spec["kind"] == "latency":
                delay = rule.delay_s()
                if rule.spec.get("when") == "after":
                    after += delay
                else:
                    before += delay
                self._strike(rule)
            elif chosen is None:
                chosen = rule
        if chosen is None:
            return Verdict(before, after)
        self._strike(chosen)
        kind = chosen.spec["kind"]
        return Verdict(before, after, Fault(kind, chosen.spec, chosen.spec.get("processed", KINDS[kind][0])))

    def judge_happening(self, happening: Happening, now: float) -> Rule | None:
        """The rule that strikes here, if one does. Throws the dice of every rule that fits; the first to hit wins."""
        chosen: Rule | None = None
        for rule in self.rules:
            if _concerns(rule, happening, now) and rule.strikes() and chosen is None:
                chosen = rule
        if chosen is not None:
            self._strike(chosen)
        return chosen

    def concerns(self, happening: Happening, now: float) -> bool:
        """Whether any rule fits. Throws no dice."""
        return any(_concerns(rule, happening, now) for rule in self.rules)

    def standing(self, kind: str, user: str, now: float) -> Mapping[str, Any] | None:
        """The arguments of a standing rule of this kind for a user's connection, if one strikes now."""
        for rule in self.rules:
            fits = rule.spec["kind"] == kind and rule.active(now) and rule.spec.get("user", user) == user
            if fits and rule.strikes():
                self._strike(rule)
                return rule.spec
        return None

    def struck_now(self, rule: Rule, times: int) -> None:
        """Counts what a rule of the moment `now` has done."""
        rule.fired = times
        self.struck[rule.spec["kind"]] += times

    def _strike(self, rule: Rule) -> None:
        rule.fired += 1
        self.struck[rule.spec["kind"]] += 1

    def _fits(self, rule: Rule, facts: Facts) -> bool:
        spec = rule.spec
        if spec["kind"] == "refuse":
            return False
        if "*" not in spec["operation"] and facts.operation not in spec["operation"]:
            return False
        if spec["kind"] == "expire_tokens" and (
            facts.issued is None or facts.issued > rule.cutoff or facts.jti in self._minted_late
        ):
            return False
        if "text_contains" in spec and (facts.text is None or spec["text_contains"] not in facts.text):
            return False
        return all(spec.get(name, mine) == mine for name, mine in (("user", facts.user), ("channel", facts.channel)))


def check_rule(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A rule as it is kept: `operation` a list, every argument known and of its type. Raises `BadRule`."""
    kind = spec.get("kind")
    if kind in REALTIME_KINDS:
        moment, arguments = REALTIME_KINDS[kind]
        allowed = _MATCHING_AT[moment] | arguments
    elif kind in KINDS:
        _, may_choose, arguments = KINDS[kind]
        allowed = _MATCHING | arguments | (frozenset({"processed"}) if may_choose else frozenset())
    else:
        raise BadRule(f"kind must be one of {', '.join((*KINDS, *REALTIME_KINDS))}")
    if unknown := sorted(set(spec) - allowed):
        raise BadRule(f"{kind} does not know {', '.join(unknown)}")
    checked = {name: value for name, value in spec.items() if value is not None}
    for name in _NUMBERS & set(checked):
        value = checked[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise BadRule(f"{name} must be a number of at least 0")
    for name in ("times", "seed"):
        if not isinstance(checked.get(name, 0), int):
            raise BadRule(f"{name} must be a whole number")
    for name, least in _COUNTS.items():
        count = checked.get(name, least)
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise BadRule(f"{name} must be a whole number of at least {least}")
    if "hex" in checked and not _is_hex(checked["hex"]):
        raise BadRule("hex must be bytes written as hexadecimal digits")
    for name, missing in _NEEDED:
        if kind == name and missing not in checked:
            raise BadRule(f"{name} needs {missing}")
    if kind == "refuse" and set(checked) - {"kind", "for_s"}:
        raise BadRule("refuse closes the door to everybody: it takes for_s and nothing else")
    operations = checked.get("operation", "*")
    checked["operation"] = [operations] if isinstance(operations, str) else _names(operations)
    return checked


def _is_hex(value: Any) -> bool:
    try:
        bytes.fromhex(value)
    except (TypeError, ValueError):
        return False
    return True


def _concerns(rule: Rule, happening: Happening, now: float) -> bool:
    spec = rule.spec
    if rule.moment != happening.moment or not rule.active(now):
        return False
    if "*" not in spec["operation"] and happening.operation not in spec["operation"]:
        return False
    if "text_contains" in spec and (happening.text is None or spec["text_contains"] not in happening.text):
        return False
    if happening.moment == "upgrade" and spec.get("user", happening.user) != happening.user:
        return False
    channel = spec.get("channel")
    return channel is None or happening.channel == channel or happening.channel.endswith(f":{channel}")


def _names(value: Any) -> list[str]:
    if not isinstance(value, Iterable) or not all(isinstance(name, str) for name in value):
        raise BadRule("operation must be a name or a list of names")
    return list(value)
