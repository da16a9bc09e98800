"""What became of the messages of a scenario, by the server's own record. Pure.

Wanted are all that the workload names, whether their sender came to send them or not: one that hung in a call for so
long that the scenario was over has not delivered the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from statistics import median
from typing import Any

from tests.chaos.history import Notes, judge
from tests.chaos.listening import heard
from tests.chaos.listening.heard import Sight


@dataclass(frozen=True, slots=True)
class Outcome:
    """Counts of messages.

    wanted      that the workload names
    delivered   that the server's record has
    lost        whose call returned, and that the record does not have
    twice       that the record has again
    disordered  that stand behind one of their channel that was sent after them
    errors      calls that raised
    again       whose caller would have to call again: not delivered, or not known to be
    dead        that ended as dead letters
    hearable, missed, repeated, jumbled  that a listener was to hear; never heard, heard again, or out of order
    took        seconds of each call that returned
    """

    wanted: int = 0
    delivered: int = 0
    lost: int = 0
    twice: int = 0
    disordered: int = 0
    errors: int = 0
    again: int = 0
    dead: int = 0
    hearable: int = 0
    missed: int = 0
    repeated: int = 0
    jumbled: int = 0
    took: Sequence[float] = field(default=(), repr=False)

    @property
    def perfect(self) -> bool:
        """All delivered, once and in order, heard so as well, and no caller was bothered."""
        wrong = self.lost, self.twice, self.disordered, self.errors, self.again, self.dead
        return self.delivered == self.wanted > 0 and not any((*wrong, self.missed, self.repeated, self.jumbled))

    @property
    def share(self) -> float:
        """Of the wanted, how many were delivered."""
        return self.delivered / self.wanted

    @property
    def typical(self) -> float:
        """Seconds of a call: the median; infinite if none returned."""
        return median(self.took) if self.took else float("inf")

    @property
    def worst(self) -> float:
        """Seconds of the longest call that returned."""
        return max(self.took, default=float("inf"))

    def facts(self) -> dict[str, Any]:
        """The counts, by name."""
        counts = asdict(self)
        del counts["took"]
        return counts


def total(outcomes: Iterable[Outcome]) -> Outcome:
    """All of them in one."""
    each = list(outcomes)
    names = [one.name for one in fields(Outcome) if one.name != "took"]
    return Outcome(
        **{name: sum(getattr(one, name) for one in each) for name in names},
        took=[seconds for one in each for seconds in one.took],
    )


def outcome(
    wanted: int,
    notes: Notes,
    log: Sequence[Mapping[str, Any]],
    took: Sequence[float],
    *,
    keys: bool,
    dead: int = 0,
    sights: Sequence[Sight] | None = None,
    gaps: Sequence[str] = (),
) -> Outcome:
    """Compare. `log`: the record of the workload's channels; `keys`: the sender knows under which key each message
    stands there; `sights`: what a listener heard, None: nobody listened."""
    verdict = judge(notes, log)
    wrong = set(verdict.lost) | notes.failed | (set(verdict.renamed) if keys else set())
    assert not verdict.strangers, verdict.strangers
    found = heard.judge(sights, log, gaps) if sights is not None else None
    return Outcome(
        wanted=wanted,
        delivered=verdict.delivered,
        lost=len(verdict.lost),
        twice=len(verdict.duplicated),
        disordered=len(set(verdict.out_of_order) | set(verdict.overtaken)),
        errors=len(notes.failed),
        again=len(wrong) + wanted - len(notes.begun),
        dead=dead,
        hearable=len(log) if found else 0,
        missed=len(found.missing) + len(found.gaps) if found else 0,
        repeated=len(found.repeated) if found else 0,
        jumbled=len(found.disordered) + len(found.strangers) + len(found.changed) if found else 0,
        took=tuple(took),
    )
