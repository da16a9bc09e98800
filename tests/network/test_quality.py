"""The levels, and what a few samples leave open."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.network.estimate import Estimate
from chatsdk.network.quality import (
    LEVELS,
    Quality,
    Reason,
    latency_rank,
    loss_rank,
    median_interval,
    share_interval,
)


def test_levels_have_signs_and_labels() -> None:
    """What a page and a terminal show."""
    assert " ".join(level.symbol for level in LEVELS) == "●●● ●●○ ●○○ ○○○ ✕"
    assert [level.label for level in LEVELS] == ["Excellent", "Good", "Fair", "Poor", "Offline"]
    assert [level.rank for level in LEVELS] == [0, 1, 2, 3, 4]
    assert Quality("POOR") is Quality.POOR


@pytest.mark.parametrize(
    ("ms", "rank"), [(0, 0), (49.9, 0), (50, 1), (149.9, 1), (150, 2), (299.9, 2), (300, 3), (9000, 3)]
)
def test_latency_bands(ms: float, rank: int) -> None:
    """A limit belongs to the worse level."""
    assert latency_rank(ms) == rank


@pytest.mark.parametrize(("share", "rank"), [(0, 0), (0.0099, 0), (0.01, 1), (0.02, 2), (0.049, 2), (0.05, 3), (1, 3)])
def test_loss_bands(share: float, rank: int) -> None:
    """The same with loss."""
    assert loss_rank(share) == rank


def test_every_reason_says_what_it_is() -> None:
    """A text for people, but for the reason that is none."""
    assert all(bool(reason.text) == bool(reason) for reason in Reason)
    assert {reason for reason in Reason if reason.intercepted} == {
        Reason.CAPTIVE_PORTAL,
        Reason.CONTENT_FILTER,
        Reason.REWRITING_PROXY,
    }


@given(of=st.integers(1, 5000), part=st.floats(0, 1))
def test_an_interval_holds_its_share(of: int, part: float) -> None:
    """Low, share and high are in order, and more samples make it narrower."""
    hits = round(of * part)
    low, high = share_interval(hits, of)
    assert 0 <= low <= hits / of <= high <= 1
    wider_low, wider_high = share_interval(0, 1)
    assert high - low <= wider_high - wider_low or hits not in (0, of)


def test_nothing_is_known_of_nothing() -> None:
    """No samples leave everything open."""
    assert share_interval(0, 0) == (0.0, 1.0)
    assert median_interval([]) == (0.0, float("inf"))
    assert median_interval([3.0]) == (0.0, float("inf"))


def test_loss_below_five_percent_needs_a_thousand_tries() -> None:
    """Thirty tries without a loss leave every level open, a thousand leave one."""
    assert loss_rank(share_interval(0, 30)[1]) == 3
    assert loss_rank(share_interval(0, 1000)[1]) == 0


@given(st.lists(st.floats(0, 1e4), min_size=1))
def test_a_median_lies_in_its_interval(values: list[float]) -> None:
    """Also of the smallest samples."""
    values.sort()
    low, high = median_interval(values)
    assert low <= values[len(values) // 2] <= high


def test_metrics_are_json() -> None:
    """Sign and label stand beside the level."""
    facts = json.loads(json.dumps(Estimate().metrics(0.0).to_dict()))
    assert facts["quality"] == "GOOD"
    assert facts["symbol"] == "●●○"
    assert facts["samples"] == 0
    assert facts["latency_ms"] is None
    assert (facts["at_best"], facts["at_worst"]) == ("EXCELLENT", "POOR")
