"""What happens in the demo, in which order. Values only.

Each act sets fault rules, lets the sending process accept its share of the messages, and may kill somebody. Every kind
of fault strikes at least `SURE` times, because its first rule strikes whatever comes; the dice decide about the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CHANNELS = 4
"""How many channels, each with a sending thread of its own."""
SURE = 2
"""How often each fault strikes for certain."""
MIN_MESSAGES, MESSAGES, MAX_MESSAGES = 80, 400, 1000
DWELL = 1.5
"""Seconds that an act leaves its messages to be delivered through its trouble, if that takes so long."""
HARD_LIMIT = 60.0
"""Seconds after which the demo gives up, whatever the machine is busy with. Usually it takes a fifth of that."""

Rule = Mapping[str, Any]


@dataclass(frozen=True)
class Act:
    """One act. `share`: its part of all messages; `rules`: what is wrong meanwhile; `kill`: who dies ("server",
    "sender") once messages wait; `pace`: seconds between two messages of a channel."""

    title: str
    share: float
    rules: Sequence[Rule] = field(default_factory=tuple)
    kill: str = ""
    pace: float = 0.05


def sometimes(kind: str, probability: float, seed: int, **more: Any) -> Sequence[Rule]:
    """A fault that strikes `SURE` times for certain, then with this probability."""
    rule = {"kind": kind, "operation": "send", **more}
    return ({**rule, "times": SURE}, {**rule, "probability": probability, "seed": seed})


def slow(ms: int, jitter_ms: int, seed: int, when: str = "before") -> Rule:
    """Latency, before the message is stored or after."""
    return {"kind": "latency", "operation": "send", "ms": ms, "jitter_ms": jitter_ms, "when": when, "seed": seed}


def acts(seed: int) -> Sequence[Act]:
    """The story. The shares add up to 1."""
    return (
        Act("all is well", 0.10),
        Act(
            "connections drop, answers are slow",
            0.15,
            (slow(30, 30, seed), *sometimes("drop", 0.30, seed + 1)),
        ),
        Act(
            "the server answers 503, and 429 with Retry-After",
            0.15,
            (
                *sometimes("status", 0.25, seed + 2, status=503),
                {"kind": "status", "operation": "send", "status": 429, "retry_after": 1, "times": 3},
            ),
        ),
        Act(
            "replies are lost after the message was stored",
            0.15,
            (slow(10, 10, seed + 3), *sometimes("reply_lost", 0.40, seed + 4)),
        ),
        Act(
            "the server is killed while messages are under way",
            0.20,
            (slow(80, 40, seed + 5), slow(80, 40, seed + 6, "after")),
            kill="server",
        ),
        Act(
            "the sending process is killed while messages wait",
            0.15,
            (slow(80, 40, seed + 7), slow(80, 40, seed + 8, "after")),
            kill="sender",
        ),
        Act(
            "a bit of everything",
            0.10,
            (
                slow(10, 10, seed + 9),
                *sometimes("drop", 0.10, seed + 10),
                *sometimes("reply_lost", 0.10, seed + 11),
                {"kind": "status", "operation": "send", "status": 503, "probability": 0.10, "seed": seed + 12},
            ),
        ),
    )


EXPECTED_FAULTS = ("latency", "drop", "503", "429", "reply_lost")
"""What must have been met at least once, or the run proves nothing."""
EXPECTED_KILLS = ("server", "sender")
