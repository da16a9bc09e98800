"""What a benchmark finds, as values, and how they are shown.

A `Measured` is a figure of one subject; a `Goal` is a promise and whether it holds. Machines differ and a shared one
wanders by a factor of three within a minute, so subjects take turns (`alternate`), and what is compared is the ratio of
neighbours in time: the median of the rounds' ratios, never a ratio of two medians from different minutes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Series = Sequence[float | None]
"""A figure for each round; None where the subject is not installed."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a subject: median, smallest and greatest of the rounds. All None: it is not installed."""

    bench: str
    metric: str
    subject: str
    value: float | None
    low: float | None
    high: float | None
    unit: str

    def facts(self) -> dict[str, object]:
        """The line of `--json`."""
        return {
            "bench": self.bench,
            "metric": self.metric,
            "subject": self.subject,
            "value": _rounded(self.value),
            "unit": self.unit,
        }

    def __str__(self) -> str:
        if self.value is None or self.low is None or self.high is None:
            return f"    {self.subject:44} not installed"
        return f"    {self.subject:44} {self.value:10.2f} {self.unit:10} [{self.low:.2f} - {self.high:.2f}]"


@dataclass(frozen=True, slots=True)
class Goal:
    """A promise. `ratio` is what was found (the figure itself, where the promise is none of a ratio: the metric names
    its unit), `goal` what it must not exceed, or must reach (`at_least`)."""

    bench: str
    metric: str
    ratio: float | None
    low: float | None
    high: float | None
    goal: float
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether it holds; None: nobody to compare with."""
        if self.ratio is None:
            return None
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal

    def facts(self) -> dict[str, object]:
        """The line of `--json`."""
        return {
            "bench": self.bench,
            "metric": self.metric,
            "ratio": _rounded(self.ratio),
            "goal": self.goal,
            "met": self.met,
        }

    def __str__(self) -> str:
        wanted = f"{'>=' if self.at_least else '<='} {self.goal:g}"
        if self.ratio is None or self.low is None or self.high is None:
            return f"    {self.metric:66} nobody to compare with"
        verdict = "met" if self.met else "MISSED"
        return f"    {self.metric:66} {self.ratio:8.2f} {wanted:8} {verdict:7} [{self.low:.2f} - {self.high:.2f}]"


Row = Measured | Goal


def alternate(
    rounds: int, subjects: Mapping[str, Callable[[], float] | None], *, least_of: int = 1
) -> dict[str, Series]:
    """One figure of each subject a round, in turns, and each turn begins with the next one. None as a subject: it is
    not installed. `least_of`: turns in a round, of which the smallest figure counts: what else runs on the machine
    only ever adds to a time."""
    found: dict[str, list[float | None]] = {name: [] for name in subjects}
    names = list(subjects)
    for number in range(rounds):
        taken: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(least_of):
            first = (number * least_of + turn) % len(names)
            for name in names[first:] + names[:first]:
                measure = subjects[name]
                if measure is not None:
                    taken[name].append(measure())
        for name in names:
            found[name].append(min(taken[name], default=None))
    return dict(found)


def measured(bench: str, metric: str, series: Mapping[str, Series], unit: str) -> list[Measured]:
    """A line for each subject."""
    return [Measured(bench, metric, name, *_spread(values), unit) for name, values in series.items()]


def goal(bench: str, metric: str, values: Series, limit: float, *, at_least: bool = False) -> Goal:
    """The promise that the median of `values` keeps within `limit`."""
    return Goal(bench, metric, *_spread(values), limit, at_least)


def ratios(ours: Series, theirs: Series) -> Series:
    """Round by round."""
    return [None if a is None or b is None else a / b for a, b in zip(ours, theirs, strict=True)]


def differences(ours: Series, theirs: Series) -> Series:
    """Round by round."""
    return [None if a is None or b is None else a - b for a, b in zip(ours, theirs, strict=True)]


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def table(rows: Iterable[Row]) -> str:
    """For people."""
    lines, heading = [], ""
    for row in rows:
        now = f"{row.bench}: {row.metric}" if isinstance(row, Measured) else f"{row.bench}: goals"
        if now != heading:
            lines += ["", now]
            heading = now
        lines.append(str(row))
    return "\n".join(lines)


def json_lines(rows: Iterable[Row]) -> str:
    """For programs."""
    return "\n".join(json.dumps(row.facts(), ensure_ascii=False) for row in rows)


def _spread(values: Series) -> tuple[float | None, float | None, float | None]:
    there = [value for value in values if value is not None]
    return (median(there), min(there), max(there)) if there else (None, None, None)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
