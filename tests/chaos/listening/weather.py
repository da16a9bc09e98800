"""What goes wrong while a bot listens, and when: a list made from a seed. Pure: the same seed, the same list.

When is counted in messages, not in seconds, so that a slow machine gets the same storm.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chatsdk.devserver.realtime.switches import RealtimeSwitches

PER_100_000: Mapping[str, int] = {
    # the connection
    "cut": 200,
    "half open": 5,
    "garbage": 20,
    "no frame": 10,
    "oversized": 3,
    "slow": 10,
    "refused": 10,
    "silent": 5,
    "blocked": 15,
    "no pong": 5,
    "server killed": 20,
    "server stopped": 10,
    "bot killed": 20,
    "bot stopped": 10,
    # publications, on their way to the clients: the history has them
    "lost": 30,
    "twice": 30,
    "shuffled": 30,
    "late": 30,
    # before their stream has them: only the messages' seq shows it
    "never published": 30,
    "published twice": 30,
    "published shuffled": 30,
    "published late": 30,
    # positions, and what they are made good with
    "new epoch": 15,
    "new epoch, unsaid": 8,
    "history fails": 15,
    "history is slow": 10,
}
"""How often each comes up; at least once in any storm."""

SECONDS: Mapping[str, tuple[float, float]] = {
    "half open": (0.0, 0.0),
    "slow": (0.3, 1.0),
    "refused": (0.2, 1.0),
    "silent": (0.2, 0.6),
    "blocked": (0.5, 2.5),
    "no pong": (0.5, 2.5),
    "server killed": (0.0, 0.6),
    "server stopped": (0.1, 2.0),
    "bot killed": (0.0, 0.4),
    "bot stopped": (0.1, 3.0),
    "history fails": (0.3, 1.5),
    "history is slow": (0.3, 1.0),
}
"""How long each may last; those of publications: 0.2 to 1.2 s."""

_PUBLICATIONS_S = 0.2, 1.2

_FIRST, _LAST = 0.01, 0.97
"""When the first and the last may come, as shares of all messages."""


@dataclass(frozen=True)
class Event:
    """`at`: after so many messages; `what`: a key of `PER_100_000`; `seconds`: how long it lasts; `seed`: of the
    server's dice."""

    at: int
    what: str
    seconds: float
    seed: int

    def __str__(self) -> str:
        return f"{self.what} for {self.seconds:.2f} s" if self.seconds else self.what


def forecast(seed: int, messages: int, often: Mapping[str, int] | None = None) -> list[Event]:
    """The events of a storm of so many messages, in order. `often`: how often each kind comes up, for those that shall
    not be as the table says."""
    dice = random.Random(seed)
    given = often or {}
    events = []
    for what, rate in PER_100_000.items():
        for _ in range(given.get(what, max(1, round(rate * messages / 100_000)))):
            at = int(messages * dice.uniform(_FIRST, _LAST))
            lasting = SECONDS.get(what, _PUBLICATIONS_S if what in _ON_PUBLICATIONS else (0.0, 0.0))
            events.append(Event(at, what, round(dice.uniform(*lasting), 3), dice.randrange(2**31)))
    return sorted(events, key=lambda event: event.at)


def only(**often: int) -> dict[str, int]:
    """So often, and nothing else."""
    return {**dict.fromkeys(PER_100_000, 0), **{what.replace("_", " "): count for what, count in often.items()}}


def strike(event: Event, on: RealtimeSwitches, faults: Any) -> None:
    """Have a server do it. `faults`: its `DevServer.faults`. Who is killed or stopped is somebody else's business."""
    dice, rule = random.Random(event.seed), {"for_s": event.seconds, "seed": event.seed}
    match event.what:
        case "cut":
            on.cut(**dice.choice(_CUTS))
        case "half open":
            on.half_open()
        case "garbage":
            on.garbage(dice.choice(_GARBAGE))
        case "no frame":
            on.garbage(dice.choice(_NO_FRAMES))
        case "oversized":
            on.oversized(17 * 2**20)
        case "slow":
            on.slow(dice.uniform(5_000, 50_000), **rule)
        case "refused":
            on.refuse(dice.choice((429, 500, 502, 503)), **rule)
            on.cut()
        case "silent":
            on.silent(**rule)
            on.cut()
        case "blocked":  # long enough to be polled
            on.refuse(dice.choice((400, 403, 426)), **rule)
            on.cut()
        case "no pong":
            on.no_pong(**rule)
        case "new epoch":
            on.epoch_reset()
        case "new epoch, unsaid":
            on.epoch_reset(tell=False)
        case "history fails":
            faults("status", operation="list_messages", status=dice.choice((500, 502, 503, 504)), **rule)
        case "history is slow":
            faults("latency", operation="list_messages", ms=dice.uniform(50, 400), **rule)
        case what:
            _ON_PUBLICATIONS[what](on, dice, {**rule, "probability": dice.uniform(0.1, 0.6)})


_CUTS: tuple[dict[str, Any], ...] = (
    {},
    {"how": "fin"},
    {"code": 1012, "reason": "restart"},
    {"code": 1001},
    {"code": 3001, "reason": "shutdown"},
    {"code": 4000},
)

_GARBAGE = (
    '{"garbage":',
    "",
    "[]",
    "null",
    '"\\ud800"',
    '{"push":{"pub":{}}}',
    '{"type":"message"}',
    "\x00",
    "{}" * 50,
)

_NO_FRAMES = (
    b"\xff" * 40,  # reserved bits and a reserved opcode
    b"HTTP/1.1 502 Bad Gateway\r\n\r\n",
    b"\x81\x7f\x00\x00\x01\x00\x00\x00\x00\x00{",  # a text frame of 1 TiB
    b"\xc1\x05hello",  # a compressed one
    b"\x81\x04\xff\xfe\xfd\xfc",  # text that is not UTF-8
    b"\x81\x85\x01\x02\x03\x04hello",  # masked, as no server does
    b"\x80\x02{}",  # the end of a message that never began
)


def _late(dice: random.Random) -> dict[str, float]:
    return {"ms": dice.uniform(50, 900), "jitter_ms": dice.uniform(0, 400)}


_ON_PUBLICATIONS: Mapping[str, Any] = {
    "lost": lambda on, dice, rule: on.drop(**rule),
    "twice": lambda on, dice, rule: on.duplicate(dice.randint(1, 3), **rule),
    "shuffled": lambda on, dice, rule: on.reorder(dice.randint(2, 8), **rule),
    "late": lambda on, dice, rule: on.delay(**_late(dice), **rule),
    "never published": lambda on, dice, rule: on.drop(queue=True, **rule),
    "published twice": lambda on, dice, rule: on.duplicate(dice.randint(1, 3), queue=True, **rule),
    "published shuffled": lambda on, dice, rule: on.reorder(dice.randint(2, 8), queue=True, **rule),
    "published late": lambda on, dice, rule: on.delay(**_late(dice), queue=True, **rule),
}
