"""The demo's plan."""

from __future__ import annotations

from chatsdk.cli.demo.plan import EXPECTED_FAULTS, EXPECTED_KILLS, acts
from chatsdk.devserver.faults import check_rule


def test_the_plan_meets_all_that_is_expected() -> None:
    """Every kind of trouble that the verdict asks for is planned, and the server knows every rule."""
    rules = [check_rule(rule) for act in acts(1) for rule in act.rules]
    kinds = {str(rule.get("status", rule["kind"])) for rule in rules}
    assert set(EXPECTED_FAULTS) <= kinds
    assert {act.kill for act in acts(1)} >= set(EXPECTED_KILLS)


def test_the_shares_are_the_whole() -> None:
    """All messages are sent in some act."""
    assert abs(sum(act.share for act in acts(1)) - 1) < 1e-9


def test_the_seed_decides_about_the_dice() -> None:
    """The same seed gives the same rules, another one others."""
    assert acts(1) == acts(1)
    assert acts(1) != acts(2)
