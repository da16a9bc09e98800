"""What a scenario finds, as values, and how they are shown.

A `Row` is a line of the table: what the seeds ask for, what ours came to, and what the same workload came to by a
control that has nothing of ours. A row holds only if the target is met and the control shows a difference: a scenario
in which a bare script does as well proves nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any

HEADINGS = ("scenario", "the seeds' target", "ours", "without", "verdict")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table. `name`: the scenario. `target`, `ours`, `control`: a few words with their figures and units.
    `ok`: the target is met and the control's figure differs; None: it could not be run here, and `ours` says why.
    `figures`: the numbers behind the words, for `--json`."""

    name: str
    target: str
    ours: str
    control: str
    ok: bool | None
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The last column."""
        return "skipped" if self.ok is None else "met" if self.ok else "MISSED"

    def facts(self) -> dict[str, Any]:
        """The line of `--json`."""
        return {
            "scenario": self.name,
            "target": self.target,
            "ours": self.ours,
            "without": self.control,
            "verdict": self.verdict,
            "figures": dict(self.figures),
        }


def table(rows: Sequence[Row], width: int | None = None) -> str:
    """For people: columns as wide as what stands in them; a block for each row where the lines would be longer than
    `width`."""
    lines = [HEADINGS, *((row.name, row.target, row.ours, row.control, row.verdict) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    shown = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    if width is None or max(map(len, shown)) <= width:
        return "\n".join(shown)
    return "\n".join(_block(row, max(40, width)) for row in rows)


def _block(row: Row, width: int) -> str:
    lines = [f"{row.verdict:<9}{row.name}"]
    for label, text in (("target", row.target), ("ours", row.ours), ("without", row.control)):
        lines += wrap(text, width, initial_indent=f"{'':9}{label:<9}", subsequent_indent=" " * 18)
    return "\n".join(lines)


def json_lines(rows: Iterable[Row]) -> str:
    """For programs: an object a line."""
    return "\n".join(json.dumps(row.facts(), ensure_ascii=False) for row in rows)
