"""A scenario of the seeds, and what came out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.scenarios.outcome import Outcome
from tests.scenarios.report import Row
from tests.scenarios.stage import NotHere, Played, Stage


@dataclass(frozen=True)
class Result:
    """The line of the table, and what became of the messages of both crowds; None: it could not be played here."""

    row: Row
    ours: Outcome | None = None
    control: Outcome | None = None


@dataclass(frozen=True)
class Found:
    """What a scenario found. `ours`, `control`: the figure, in words; `met`: it is within the seeds' target; `differs`:
    the control's is not, or is clearly worse. `figures`: numbers for whoever looks closer."""

    played: Played
    ours: str
    control: str
    met: bool
    differs: bool
    figures: dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """`target`: what the seeds ask for. That all is delivered exactly once and in order, and that no caller sees an
    error, is asked for in each."""

    name: str
    target: str
    play: Callable[[Stage], Found]

    def run(self, stage: Stage) -> Result:
        """Play it."""
        try:
            found = self.play(stage)
        except NotHere as reason:
            return Result(Row(self.name, self.target, f"not played: {reason}", "", None))
        ours, control = found.played.ours, found.played.control
        row = Row(
            self.name,
            self.target,
            found.ours if ours.perfect else f"{found.ours}; {_flaws(ours)}",
            found.control,
            found.met and ours.perfect and found.differs,
            {
                "met": found.met,
                "perfect": ours.perfect,
                "differs": found.differs,
                **found.figures,
                "ours": ours.facts(),
                "without": control.facts(),
            },
        )
        return Result(row, ours, control)


def arrived(outcome: Outcome) -> str:
    """How many of the messages arrived."""
    return "all arrive" if outcome.delivered == outcome.wanted else f"{outcome.share:.0%} arrive"


def seconds(value: float) -> str:
    """For people."""
    return f"{value * 1000:.2g} ms" if value < 0.1 else f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def _flaws(outcome: Outcome) -> str:
    facts = {name: count for name, count in outcome.facts().items() if name not in ("wanted", "delivered", "hearable")}
    said = [f"{count} {name}" for name, count in facts.items() if count]
    return ", ".join([f"{outcome.delivered} of {outcome.wanted} delivered", *said])
