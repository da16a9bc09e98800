"""What goes wrong, and when: an endless list of events made from a seed. Pure: the same seed, the same list."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PAUSE_S = 0.25
"""Seconds between two events, on average."""

WEIGHTS = {"kill": 5, "stop": 4, "server": 1, "reply_lost": 3, "unavailable": 2, "drop": 2, "slow": 1}
"""How often each comes up, relative to the others."""

SECONDS = {"stop": (0.02, 0.8), "server": (0.0, 0.5), "reply_lost": (0.2, 1.0), "unavailable": (0.1, 0.5),
           "drop": (0.1, 0.5), "slow": (0.1, 0.5)}  # fmt: skip
"""How long each may last."""


@dataclass(frozen=True)
class Event:
    """`after`: seconds since the event before; `what`: a key of `WEIGHTS`; `process`: whom it meets, where it meets a
    process; `seconds`: how long it lasts; `seed`: of the server's dice."""

    after: float
    what: str
    process: int
    seconds: float
    seed: int

    def __str__(self) -> str:
        whom = f" process {self.process}" if self.what in ("kill", "stop") else ""
        lasting = f" for {self.seconds:.3f} s" if self.seconds else ""
        return f"{self.what}{whom}{lasting}"


def schedule(seed: int, processes: int, kinds: Sequence[str] = tuple(WEIGHTS)) -> Iterator[Event]:
    """The events, without end; only of these kinds."""
    dice = random.Random(seed)
    while True:
        what = dice.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
        after = dice.uniform(0, 2 * PAUSE_S)
        process = dice.randrange(processes)
        yield Event(after, what, process, dice.uniform(*SECONDS.get(what, (0, 0))), dice.randrange(2**32))
