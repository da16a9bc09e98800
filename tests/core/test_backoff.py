"""How long to wait: the seeds' numbers, and the bounds they promise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core import backoff
from chatsdk.core.backoff import Backoff

ALMOST_ONE = 1 - 2**-53

# preset, failures, shortest, longest
DELAYS: list[tuple[Backoff, int, float, float]] = [
    (backoff.DEFAULT, 1, 0.1, 0.15),
    (backoff.DEFAULT, 2, 0.2, 0.3),
    (backoff.DEFAULT, 4, 0.8, 1.2),
    (backoff.DEFAULT, 8, 10.0, 15.0),
    (backoff.STANDARD, 1, 0.4, 0.6),
    (backoff.STANDARD, 2, 0.8, 1.2),
    (backoff.STANDARD, 9, 24.0, 36.0),
    (backoff.PATIENT, 1, 1.0, 2.0),
    (backoff.PATIENT, 3, 4.0, 5.0),
    (backoff.PATIENT, 9, 30.0, 31.0),
    (backoff.LANE, 1, 0.05, 0.1),
    (backoff.LANE, 100, 30.0, 60.0),
    (backoff.LANE, 10**9, 30.0, 60.0),
]


@pytest.mark.parametrize(("preset", "failures", "shortest", "longest"), DELAYS)
def test_the_seeds_delays(preset: Backoff, failures: int, shortest: float, longest: float) -> None:
    """The delay after the n-th failure lies between these, and both ends are reached."""
    assert preset.delay(failures, 0.0) == pytest.approx(shortest)
    assert preset.delay(failures, ALMOST_ONE) == pytest.approx(longest)


def test_the_seeds_tries() -> None:
    """As many tries as the seeds say."""
    assert [preset.tries for preset in (backoff.DEFAULT, backoff.STANDARD, backoff.PATIENT)] == [5, 3, 5]
    assert (backoff.PATIENT_5XX_TRIES, backoff.UNKEYED_TRIES) == (3, 3)
    assert backoff.DEFAULT.with_tries(9).tries == 9
    assert set(backoff.PRESETS) == {"default", "standard", "patient"}


BACKOFFS = st.builds(
    Backoff,
    tries=st.just(3),
    first=st.floats(0, 10),
    factor=st.floats(1, 10),
    cap=st.floats(0, 1000),
    low=st.floats(0, 1),
    high=st.floats(1, 2),
    extra=st.floats(0, 5),
)


@given(each=BACKOFFS, failures=st.integers(-5, 10**6), random=st.floats(0, ALMOST_ONE))
def test_every_delay_is_within_its_bounds(each: Backoff, failures: int, random: float) -> None:
    """Between base times low and base times high plus extra, and never more than the cap allows."""
    base = min(each.cap, each.first * each.factor ** min(max(failures, 1) - 1, 64))
    delay = each.delay(failures, random)
    assert base * each.low * (1 - 1e-9) <= delay <= (base * each.high + each.extra) * (1 + 1e-9)
    assert delay <= (each.cap * each.high + each.extra) * (1 + 1e-9)


@given(each=BACKOFFS, failures=st.integers(1, 200), random=st.floats(0, ALMOST_ONE))
def test_delays_never_shrink(each: Backoff, failures: int, random: float) -> None:
    """With the same luck, one more failure never means a shorter wait."""
    assert each.delay(failures + 1, random) >= each.delay(failures, random) * (1 - 1e-9)
