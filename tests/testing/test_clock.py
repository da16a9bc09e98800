"""The clock that is moved by hand."""

from __future__ import annotations

import threading

import pytest

from chatsdk.core.clock import Clock
from chatsdk.testing.clock import FakeClock


def test_it_stands_still_until_it_is_moved() -> None:
    """Both times move together, and only when told to."""
    clock = FakeClock(time=100.0, monotonic=5.0)
    checked: Clock = clock
    assert (checked.time(), checked.monotonic()) == (100.0, 5.0)
    clock.advance(2.5)
    assert (clock.time(), clock.monotonic()) == (102.5, 7.5)
    clock.set_time(50.0)
    assert (clock.time(), clock.monotonic()) == (50.0, 7.5)
    with pytest.raises(ValueError):
        clock.advance(-1)


def test_waiting_moves_it() -> None:
    """A wait takes no time here and all its time there, unless the event is set."""
    clock = FakeClock(monotonic=0.0)
    event = threading.Event()
    assert not clock.wait(event, 60.0)
    assert clock.monotonic() == 60.0
    event.set()
    assert clock.wait(event, 60.0)
    assert clock.monotonic() == 60.0
