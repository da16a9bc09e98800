"""A bucket of permits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chatsdk.realtime.pace import Pace


def test_a_burst_then_the_rate() -> None:
    """Three at once, then two a second."""
    pace = Pace(2.0, 3)
    assert [pace.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert pace.next(0.0) == 0.5
    assert not pace.take(0.49)
    assert pace.take(0.5)


def test_held_until() -> None:
    """None before the time that the server named."""
    pace = Pace(1.0, 5)
    pace.hold(7.0)
    assert pace.next(1.0) == 7.0
    assert not pace.take(6.9)
    assert pace.take(7.0)


@given(st.lists(st.floats(0, 5), max_size=80))
def test_never_more_than_the_limit(pauses: list[float]) -> None:
    """Whenever it is asked: at most the burst, and the rate since."""
    pace, now, taken = Pace(1.0, 10), 0.0, 0
    for pause in pauses:
        now += pause
        taken += pace.take(now)
        assert taken <= 10 + now + 1e-6
        assert pace.next(now) >= now
