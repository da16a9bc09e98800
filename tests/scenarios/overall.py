"""The seeds' success metrics, over all scenarios that were played. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.scenarios.outcome import total
from tests.scenarios.report import Row
from tests.scenarios.scenario import Result

DELIVERY = 0.999
MANUAL_RETRIES = 0.01
VISIBLE_ERRORS = 0.01


def overall(results: Iterable[Result]) -> Iterator[Row]:
    """Delivery, manual retries, errors that callers saw, and what listeners missed, or heard again or out of order."""
    played = [each for each in results if each.ours and each.control]
    if not played:
        return
    ours = total(each.ours for each in played if each.ours)
    control = total(each.control for each in played if each.control)
    for name, target, mine, others, met in (
        (
            "delivered",
            f">= {DELIVERY:.1%}",
            _of(ours.delivered, ours.wanted),
            _of(control.delivered, control.wanted),
            ours.delivered >= DELIVERY * ours.wanted and control.delivered < DELIVERY * control.wanted,
        ),
        (
            "sent again by hand",
            f"< {MANUAL_RETRIES:.0%}",
            _of(ours.again, ours.wanted),
            _of(control.again, control.wanted),
            ours.again < MANUAL_RETRIES * ours.wanted and control.again > MANUAL_RETRIES * control.wanted,
        ),
        (
            "errors that a caller saw",
            f"< {VISIBLE_ERRORS:.0%}",
            _of(ours.errors, ours.wanted),
            _of(control.errors, control.wanted),
            ours.errors < VISIBLE_ERRORS * ours.wanted and control.errors > VISIBLE_ERRORS * control.wanted,
        ),
        (
            "twice, out of order",
            "none",
            f"{ours.twice}, {ours.disordered} of {ours.delivered:,}",
            f"{control.twice}, {control.disordered} of {control.delivered:,}",
            ours.twice == ours.disordered == 0,
        ),
        (
            "not heard; heard again, out of order",
            "none",
            f"{ours.missed}; {ours.repeated}, {ours.jumbled} of {ours.hearable:,}",
            f"{control.missed}; {control.repeated}, {control.jumbled} of {control.hearable:,}",
            ours.missed == ours.repeated == ours.jumbled == 0 and (control.missed > 0 or not control.hearable),
        ),
    ):
        yield Row(f"all: {name}", target, mine, others, met)


def _of(count: int, whole: int) -> str:
    part = 100 * count / whole
    return f"{part:.0f} % of {whole:,}" if count in (0, whole) else f"{part:.2f} % of {whole:,}"
