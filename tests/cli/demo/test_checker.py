"""The demo's checker: it must find what is wrong, and must not be satisfied by a run that met nothing."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from chatsdk.cli.demo.checker import Kill, judge, out_of_order
from chatsdk.cli.demo.notes import Name, Notes
from chatsdk.cli.demo.plan import EXPECTED_FAULTS
from tests.cli.demo.evidence import NAMES, evidence


def test_a_good_run_is_good() -> None:
    """All there once, in order, and every trouble met."""
    verdict = judge(evidence())
    assert verdict.good
    assert (verdict.accepted, verdict.delivered, verdict.lost, verdict.duplicated, verdict.out_of_order) == (
        12, 12, 0, 0, 0,
    )  # fmt: skip
    assert verdict.attempts_per_message == 2 / 12


def test_a_lost_message_is_found() -> None:
    """Accepted and not in the log."""
    verdict = judge(evidence(NAMES[:-1]))
    assert (verdict.good, verdict.lost) == (False, 1)


def test_a_duplicate_is_found_though_its_key_is_another() -> None:
    """The text names the message, not the key."""
    verdict = judge(evidence([*NAMES, NAMES[3]]))
    assert (verdict.good, verdict.duplicated, verdict.out_of_order) == (False, 1, 0)


def test_what_was_cut_off_by_a_kill_may_be_there_or_not() -> None:
    """`send` did not return: nothing was promised."""
    notes = Notes(begun=set(NAMES), accepted=dict.fromkeys(NAMES[:-1], "key"))
    assert judge(evidence(notes=notes)).good
    assert judge(evidence(NAMES[:-1], notes=notes)).good


def test_a_message_that_nobody_sent_is_found() -> None:
    """Neither a foreign text nor a number that was never begun is overlooked."""
    assert judge(evidence([*NAMES, Name(9, 9, 9)])).strangers == 1
    assert judge(evidence(messages=[*evidence().messages, {"text": "hello", "key": "k"}])).strangers == 1


def test_leftovers_and_wrong_accounts_are_found() -> None:
    """The outbox must be empty, without dead letters, and its sum must be right."""
    good = dict(evidence().outbox)
    for change in ({"pending": 1, "delivered": 11}, {"dead": 1, "delivered": 11}, {"accepted": 13}):
        assert judge(evidence(outbox={**good, **change})).failures


def test_a_run_that_met_nothing_proves_nothing() -> None:
    """Each kind of fault, a reply lost after storing, and both kills with messages waiting are required."""
    for kind in EXPECTED_FAULTS:
        faults = {**evidence().faults, kind: 0}
        assert judge(evidence(faults=faults)).gaps == (f"the fault {kind} never struck",)
    assert judge(evidence(attempts=[])).gaps == ("no reply was lost after its message was stored",)
    assert judge(evidence(kills=[Kill("server", 0), Kill("sender", 3)])).gaps == (
        "the server was not killed while messages waited",
    )
    assert not judge(evidence(kills=[Kill("server", 1)])).good


def test_order_is_that_of_each_channel_alone() -> None:
    """Channels may interleave in any way; within one, a later run comes after an earlier one."""
    assert out_of_order([Name(1, 0, 0), Name(1, 1, 0), Name(1, 0, 1), Name(2, 1, 0), Name(2, 0, 0)]) == 0
    assert out_of_order([Name(1, 0, 1), Name(1, 0, 0)]) == 1
    assert out_of_order([Name(2, 0, 0), Name(1, 0, 7)]) == 1


@given(st.permutations(NAMES))
def test_no_disorder_escapes(arrivals: list[Name]) -> None:
    """The count is zero exactly if each channel's messages are sorted."""
    sorted_everywhere = all(
        earlier < later
        for channel in (0, 1)
        for earlier, later in itertools.pairwise(name for name in arrivals if name.channel == channel)
    )
    assert (out_of_order(arrivals) == 0) == sorted_everywhere
