"""How much is usable: the levels, as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.network.degradation import BUILT_IN, Feature, Level, judge
from chatsdk.network.quality import LEVELS, Quality


@pytest.mark.parametrize(
    ("quality", "circuits", "reported", "level", "effect"),
    [
        ("EXCELLENT", (), {}, "none", ""),
        ("FAIR", (), {}, "none", ""),
        ("POOR", (), {}, "minor", "info"),
        ("GOOD", ("websocket",), {}, "minor", "info"),
        ("GOOD", ("presence",), {}, "minor", "info"),
        ("GOOD", ("mine",), {}, "minor", "info"),
        ("GOOD", ("search",), {}, "moderate", "warning"),
        ("GOOD", (), {"uploads": "quota"}, "moderate", "warning"),
        ("POOR", ("api",), {}, "severe", "error"),
        ("OFFLINE", (), {}, "severe", "error"),
        ("OFFLINE", ("api", "search"), {"presence": ""}, "severe", "error"),
        ("EXCELLENT", (), {"messages": "the disk is full"}, "critical", "full-screen"),
    ],
)
def test_levels(quality: str, circuits: tuple[str, ...], reported: dict[str, str], level: str, effect: str) -> None:
    """What is off, and what a page shows of it."""
    verdict = judge(Quality(quality), circuits, BUILT_IN, reported)
    assert (verdict.level, verdict.level.effect) == (level, effect)
    assert bool(verdict.reasons) == (verdict.level is not Level.NONE)


def test_reasons_name_what_is_off() -> None:
    """In words that hold no more than names."""
    verdict = judge(Quality.POOR, {"api", "search"}, BUILT_IN, {"presence": "hidden"})
    assert verdict.reasons == ("network poor", "circuit api", "circuit search", "feature search", "feature presence")
    assert verdict.off == {"search": "circuit search", "presence": "hidden"}


def test_offline_is_one_reason_for_all() -> None:
    """Features that work offline stay."""
    verdict = judge(Quality.OFFLINE, (), BUILT_IN, {})
    assert verdict.reasons == ("offline",)
    assert set(verdict.off) == {"search", "presence", "realtime"}


@given(
    st.sampled_from(LEVELS),
    st.sets(st.sampled_from(["api", "websocket", "search", "x"])),
    st.dictionaries(st.sampled_from(["search", "presence", "messages"]), st.text()),
    st.sampled_from(["api", "search", "y"]),
)
def test_more_trouble_is_never_less(
    quality: Quality, circuits: set[str], reported: dict[str, str], another: str
) -> None:
    """Another open circuit, or a worse network, never makes the level better."""
    features = (*BUILT_IN, Feature(name="y", circuit="y", impact=Level.SEVERE))
    before = judge(quality, circuits, features, reported).level
    assert judge(quality, circuits | {another}, features, reported).level.rank >= before.rank
    worse = LEVELS[min(4, quality.rank + 1)]
    assert judge(worse, circuits, features, reported).level.rank >= before.rank
