"""The fault switches: which request goes wrong, and how. Pure: rules in, verdicts out; `delivery.py` carries them out.

Rules:
* Rules are asked in the order they were added. Latencies add up; of all other kinds the first that fires wins.
* A rule fires if the request fits (operation, user, channel, text_contains), its `times` are not used up, its `for_s`
  are not over, and its dice say so. Each rule has dice of its own, thrown once for every request that fits: the same
  seed and the same requests give the same faults.
* A fault either keeps the request from being processed, or processes it and spoils the answer. Each kind has its
  custom; `processed` (true or false) in a rule changes it for the kinds that answer something.
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
_MATCHING = frozenset(
    {"kind", "operation", "user", "channel", "text_contains", "probability", "seed", "times", "for_s"}
)
_NUMBERS = frozenset({"ms", "jitter_ms", "hold_s", "keep", "interval_s", "size", "status", "probability", "for_s"})


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

    def active(self, now: float) -> bool:
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
            if not rule.active(now) or not self._fits(rule, facts):
                continue
            rule.seen += 1
            if rule.dice.random() >= rule.spec.get("probability", 1.0):
                continue
            if rule.spec["kind"] == "latency":
                delay = max(0.0, rule.spec["ms"] + rule.dice.uniform(-1, 1) * rule.spec.get("jitter_ms", 0)) / 1000
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
    if kind not in KINDS:
        raise BadRule(f"kind must be one of {', '.join(KINDS)}")
    _, may_choose, arguments = KINDS[kind]
    allowed = _MATCHING | arguments | (frozenset({"processed"}) if may_choose else frozenset())
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
    for name, missing in (("latency", "ms"), ("status", "status"), ("refuse", "for_s")):
        if kind == name and missing not in checked:
            raise BadRule(f"{name} needs {missing}")
    if kind == "refuse" and set(checked) - {"kind", "for_s"}:
        raise BadRule("refuse closes the door to everybody: it takes for_s and nothing else")
    operations = checked.get("operation", "*")
    checked["operation"] = [operations] if isinstance(operations, str) else _names(operations)
    return checked


def _names(value: Any) -> list[str]:
    if not isinstance(value, Iterable) or not all(isinstance(name, str) for name in value):
        raise BadRule("operation must be a name or a list of names")
    return list(value)
