"""The checker catches what it is there for, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.history import Name, Notebook, Notes, Verdict, judge, read_notes

A, B = "channel-a", "channel-b"


def sent(*names: Name) -> Notes:
    """Notes of messages that were all accepted, each under a key made of its name."""
    return Notes(begun=set(names), accepted={name: key(name) for name in names})


def key(name: Name) -> str:
    """The key of a message in these tests."""
    return f"{name.channel}-{name.text}".replace(" ", "-")


def log(*names: Name) -> list[dict[str, str]]:
    """The server's log of these messages, in this order."""
    return [{"channel": name.channel, "text": name.text, "key": key(name)} for name in names]


ONE, TWO, THREE = Name(A, 0, 0, 0), Name(A, 0, 0, 1), Name(A, 0, 1, 0)
ELSEWHERE, OTHERS = Name(B, 0, 0, 9), Name(A, 1, 0, 9)


def test_a_good_history_has_no_violations() -> None:
    """Everything accepted is there once; other senders and channels may come in between."""
    names = (ONE, ELSEWHERE, TWO, OTHERS, THREE)
    verdict = judge(sent(ONE, TWO, THREE, ELSEWHERE, OTHERS), log(*names))
    assert verdict.violations == {}
    assert verdict.delivered == len(names)


@pytest.mark.parametrize(
    ("found", "kind", "names"),
    [
        ((ONE, THREE), "lost", (TWO,)),
        ((ONE, TWO, THREE, ONE), "duplicated", (ONE,)),
        ((TWO, ONE, THREE), "out_of_order", (ONE,)),
        ((THREE, ONE, TWO), "out_of_order", (ONE, TWO)),  # a later run sends after an earlier one
    ],
)
def test_each_violation_is_caught_by_its_name(found: tuple[Name, ...], kind: str, names: tuple[Name, ...]) -> None:
    """Lost, duplicated and out of order are told apart, and each message is named."""
    assert judge(sent(ONE, TWO, THREE), log(*found)).violations == {kind: names}


def test_a_message_under_another_key_is_caught() -> None:
    """What `send` returned must be what the server knows it by; twice under two keys is a duplicate all the same."""
    moved = [{"channel": A, "text": ONE.text, "key": "another"}]
    assert judge(sent(ONE), moved).violations == {"renamed": (ONE,)}
    assert judge(sent(ONE), [*log(ONE), *moved]).violations == {"duplicated": (ONE,)}


def test_a_message_that_nobody_sent_is_caught() -> None:
    """Also where it looks like one of ours, and where it stands in another channel."""
    assert judge(sent(ONE), log(ONE, TWO)).violations == {"strangers": (TWO.text,)}
    assert judge(sent(ONE), [{"channel": A, "text": "hello", "key": "k"}, *log(ONE)]).violations == {
        "strangers": ("hello",)
    }
    assert "strangers" in judge(sent(ONE), [{"channel": B, "text": ONE.text, "key": key(ONE)}]).violations


@pytest.mark.parametrize("arrived", [(ONE,), (ONE, TWO)])
def test_what_was_not_acknowledged_is_unknown_and_no_violation(arrived: tuple[Name, ...]) -> None:
    """A process killed inside `send` promised nothing: the message may be there or not, but not twice."""
    notes = sent(ONE)
    notes.begun.add(TWO)
    verdict = judge(notes, log(*arrived))
    assert (verdict.violations, verdict.unknown) == ({}, (TWO,))
    assert judge(notes, log(ONE, TWO, TWO)).violations == {"duplicated": (TWO,)}


def test_notes_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Two writers to one file, and no file at all."""
    path = tmp_path / "notes"
    assert judge(read_notes(path), []) == Verdict()
    first, second = Notebook(path), Notebook(path)
    first.begun(ONE)
    second.begun(TWO)
    first.accepted(ONE, key(ONE))
    notes = read_notes(path)
    assert notes.begun == {ONE, TWO}
    assert notes.accepted == {ONE: key(ONE)}


def test_who_was_sent_after_another_had_returned_stands_behind_it(tmp_path: Path) -> None:
    """Across senders: they speak for one user. Who was sent while the other one was, may stand on either side."""
    book = Notebook(tmp_path / "notes")
    book.begun(ONE)
    book.begun(TWO)
    book.accepted(ONE, key(ONE))
    book.accepted(TWO, key(TWO))
    book.begun(OTHERS)
    book.accepted(OTHERS, key(OTHERS))
    book.begun(ELSEWHERE)
    book.accepted(ELSEWHERE, key(ELSEWHERE))
    notes = read_notes(tmp_path / "notes")
    assert judge(notes, log(ELSEWHERE, ONE, TWO, OTHERS)).violations == {}
    assert judge(notes, log(ONE, OTHERS, TWO, ELSEWHERE)).violations == {"overtaken": (TWO,)}


def test_what_was_refused_must_not_be_there(tmp_path: Path) -> None:
    """`send` raised that it is not accepted: then nothing happened, unless it was sent again."""
    book = Notebook(tmp_path / "notes")
    for name in (ONE, TWO):
        book.begun(name)
        book.failed(name)
    book.begun(TWO)
    book.accepted(TWO, key(TWO))
    notes = read_notes(tmp_path / "notes")
    assert notes.failed == {ONE}
    assert judge(notes, log(TWO)) == Verdict(delivered=1)
    assert judge(notes, log(ONE, TWO)).violations == {"refused": (ONE,)}


def test_a_lane_owned_twice_is_a_violation() -> None:
    """The trace of claims counts as the log does."""
    claims = ['["holds", "a", 1, "alice", "c"]', '["holds", "b", 1, "alice", "c"]']
    assert judge(Notes(), [], claims).violations.keys() == {"owned_twice"}
    assert judge(Notes(), [], claims[:1]).violations == {}
