"""Fault rules, without a wire: what fits, how often, and that the same seed gives the same faults."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.devserver.faults import KINDS, BadRule, Facts, FaultBook, check_rule

SEND = Facts(operation="send", user="alice", channel="c1", text="hello world")


def struck(book: FaultBook, facts: Facts = SEND, now: float = 0.0) -> str | None:
    fault = book.judge(facts, now).fault
    return None if fault is None else fault.kind


def book_of(*rules: dict[str, Any]) -> FaultBook:
    book = FaultBook()
    for rule in rules:
        book.add(rule, 0.0, 1000.0)
    return book


@pytest.mark.parametrize(
    ("matching", "fits"),
    [
        ({}, True),
        ({"operation": "send"}, True),
        ({"operation": ["refresh", "send"]}, True),
        ({"operation": "refresh"}, False),
        ({"user": "alice"}, True),
        ({"user": "bob"}, False),
        ({"channel": "c1"}, True),
        ({"channel": "c2"}, False),
        ({"text_contains": "lo wo"}, True),
        ({"text_contains": "bye"}, False),
        ({"operation": "send", "user": "alice", "channel": "c2"}, False),
    ],
)
def test_rule_strikes_what_fits(matching: dict[str, Any], fits: bool) -> None:
    """A rule strikes the requests that fit all of its conditions, and no other."""
    assert struck(book_of({"kind": "drop", **matching})) == ("drop" if fits else None)


def test_rule_is_used_up() -> None:
    """`times` strikes and no more; the rule says so."""
    book = book_of({"kind": "drop", "times": 2})
    assert [struck(book) for _ in range(3)] == ["drop", "drop", None]
    assert book.rules[0].describe(0.0)["active"] is False
    assert book.struck["drop"] == 2


def test_rule_ends() -> None:
    """`for_s` seconds after it was added a rule is over."""
    book = book_of({"kind": "drop", "for_s": 5})
    assert struck(book, now=4.9) == "drop"
    assert struck(book, now=5.0) is None


def test_latencies_add_up_and_first_fault_wins() -> None:
    """Every latency counts, before or after processing; of other kinds only the first is carried out and counted."""
    book = book_of(
        {"kind": "latency", "ms": 100},
        {"kind": "latency", "ms": 200, "when": "after"},
        {"kind": "latency", "ms": 50},
        {"kind": "reply_lost"},
        {"kind": "drop"},
    )
    verdict = book.judge(SEND, 0.0)
    assert verdict.before == pytest.approx(0.15)
    assert verdict.after == pytest.approx(0.2)
    assert verdict.fault is not None
    assert verdict.fault.kind == "reply_lost"
    assert [rule.fired for rule in book.rules] == [1, 1, 1, 1, 0]


@given(st.integers(), st.floats(0.05, 0.95))
def test_same_seed_same_faults(seed: int, probability: float) -> None:
    """Two books with the same rules judge the same requests alike, whatever other rules throw."""
    rule = {"kind": "drop", "probability": probability, "seed": seed}
    alone, beside = book_of(rule), book_of({"kind": "latency", "ms": 1, "jitter_ms": 1, "probability": 0.5}, rule)
    first = [struck(alone) for _ in range(50)]
    assert [struck(beside) for _ in range(50)] == first


def test_probability_is_kept() -> None:
    """About so many of many strike."""
    book = book_of({"kind": "drop", "probability": 0.3, "seed": 7})
    assert 240 < sum(struck(book) is not None for _ in range(1000)) < 360


def test_expired_tokens_are_those_from_before() -> None:
    """Tokens from before the rule are expired, later ones are good, also if made within the same second."""
    book = book_of({"kind": "expire_tokens"})
    book.minted("late", 1000)
    assert struck(book, Facts("me", issued=1000, jti="early")) == "expire_tokens"
    assert struck(book, Facts("me", issued=1000, jti="late")) is None
    assert struck(book, Facts("me", issued=1001, jti="later")) is None
    assert struck(book, Facts("connect")) is None


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"kind": "unheard-of"},
        {"kind": "drop", "ms": 5},
        {"kind": "latency"},
        {"kind": "latency", "ms": -1},
        {"kind": "latency", "ms": True},
        {"kind": "status"},
        {"kind": "drop", "probability": "half"},
        {"kind": "drop", "times": 1.5},
        {"kind": "drop", "operation": 7},
        {"kind": "refuse"},
        {"kind": "refuse", "for_s": 1, "user": "alice"},
        {"kind": "reply_lost", "processed": False},
    ],
)
def test_senseless_rule_is_refused(rule: dict[str, Any]) -> None:
    """A rule with an unknown or missing argument is an error, not a rule that never fits."""
    with pytest.raises(BadRule):
        check_rule(rule)


def test_every_kind_has_its_custom() -> None:
    """Only the kinds that break a true answer are processed by custom."""
    assert {kind for kind, (processed, _, _) in KINDS.items() if processed} == {
        "latency",
        "reply_lost",
        "truncated",
        "drip",
    }


def test_rules_are_removed() -> None:
    """One by its id, or all at once; what has struck stays counted."""
    book = book_of({"kind": "drop"}, {"kind": "reset"})
    assert book.remove(1) == 1
    assert struck(book) == "reset"
    assert book.remove() == 1
    assert struck(book) is None
    assert book.struck == {"reset": 1}
