"""What is not done: the rows of the table about requests, wake-ups and CPU that are saved. About a minute and a half,
`short` half a minute."""

from __future__ import annotations

from collections.abc import Iterator

from . import asking, battery
from .report import Row

FASTER = 8.0
MINUTES = 2
"""A short run tells two minutes of the battery saver in fifteen seconds: of one, a single wake-up is some per cent."""

FEW_SCREENS = 4
"""In a short run."""


def rows(*, short: bool = False, seed: int = 1) -> Iterator[Row]:
    """Measure, line by line."""
    yield from battery.rows(FASTER, MINUTES) if short else battery.rows()
    yield asking.row(FEW_SCREENS if short else asking.SCREENS, seed)
