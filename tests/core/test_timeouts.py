"""How long a call may take: presets, settings, what the call says; and what is no time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core.chatsdk_backend import ChatSDKBackend
from chatsdk.core.errors import InvalidArgument
from chatsdk.core.resolve import resolve
from chatsdk.core.timeouts import TIMEOUTS, Limits, Timeouts, seconds
from chatsdk.core.values import MAX_SECONDS

CHANNEL = "00000000-0000-7000-8000-000000000001"


@pytest.mark.parametrize(("preset", "total", "connect"), [("quick", 5, 3), ("standard", 10, 5), ("heavy", 30, 5)])
def test_where_nobody_says_anything_the_preset_counts(preset: str, total: float, connect: float) -> None:
    """Seed 003's numbers."""
    assert Timeouts(resolve({}, {})).usual[preset] == (total, connect)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"timeout": 7}, (7, 3)),
        ({"timeout": 10}, (10, 3)),
        ({"connect_timeout": 1}, (5, 1)),
        ({"timeouts": "standard"}, (10, 5)),
        ({"timeouts": "ai"}, (45, 5)),
        ({"timeouts": "ai", "timeout": 2}, (2, 5)),
    ],
    ids=str,
)
def test_what_is_set_counts_for_every_operation(given_: dict[str, Any], expected: tuple[float, float]) -> None:
    """Also where it is set to what is the default."""
    assert Timeouts(resolve(given_, {})).usual["quick"] == expected
    environ = {f"CHATSDK_{name.upper()}": str(value) for name, value in given_.items()}
    assert Timeouts(resolve({}, environ)).usual["quick"] == expected


def test_what_the_call_says_counts_first() -> None:
    """Seconds, or a preset with its time for connecting, unless that is set."""
    timeouts = Timeouts(resolve({"timeout": 7}, {}))
    assert timeouts.asked(2) == Limits(2.0, None)
    assert timeouts.asked("heavy") == (30, 5)
    assert Timeouts(resolve({"connect_timeout": 1}, {})).asked("heavy") == (30, 1)


@pytest.mark.parametrize(
    "wrong", [-1, -0.001, float("nan"), float("inf"), 2 * MAX_SECONDS, 10**400, True, "5", "", b"", None]
)
def test_what_is_no_time(wrong: Any) -> None:
    """Refused, with what is allowed."""
    with pytest.raises(InvalidArgument, match="a deadline must be seconds, 0 or more, or one of quick, standard"):
        seconds(wrong, "a deadline")
    with pytest.raises(InvalidArgument):
        Timeouts(resolve({}, {})).asked(wrong)


def test_a_preset_that_is_none() -> None:
    """A backend's mistake is named."""
    with pytest.raises(InvalidArgument, match="heavvy"):
        Timeouts(resolve({}, {})).usual["heavvy"]


@given(st.one_of(st.sampled_from(sorted(TIMEOUTS)), st.integers(0, 10**6), st.floats(0, 1e6)))
def test_times_are_what_they_say(time: Any) -> None:
    """A number is itself, a name its preset's total."""
    assert seconds(time, "x") == (TIMEOUTS[time]["timeout"] if isinstance(time, str) else time)


def test_each_operation_has_its_kind() -> None:
    """What people wait for while they look is quick, what searches is heavy, and the rest is standard."""
    backend = ChatSDKBackend()
    assert backend.health().preset == "quick"
    assert backend.typing("alice", CHANNEL, True).preset == "quick"
    assert backend.presence("alice", CHANNEL).preset == "quick"
    assert backend.set_presence("alice", True).preset == "quick"
    assert backend.search("alice", "words").preset == "standard"  # the stand-in need not wait longer
    assert backend.list_messages("alice", CHANNEL).preset == "standard"
    assert backend.me("alice").preset == "standard"
