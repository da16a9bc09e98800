"""The judge of the scenarios finds what it is to find, and the table and its exit code say so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.history import Name, Notes
from tests.chaos.listening.heard import Sight
from tests.scenarios import __main__ as command
from tests.scenarios.outcome import Outcome, outcome, total
from tests.scenarios.overall import overall
from tests.scenarios.report import HEADINGS, Row, json_lines, table
from tests.scenarios.scenario import Found, Result, Scenario
from tests.scenarios.stage import NotHere, Played, Stage

NAMES = [Name("c", 0, 0, number) for number in range(4)]


def notes(accepted: Sequence[Name] = NAMES, failed: Sequence[Name] = ()) -> Notes:
    """What a sender noted; each call returned before the next one began."""
    begun = [*accepted, *failed]
    spans = {name: (2 * at, 2 * at + 1) for at, name in enumerate(accepted)}
    return Notes(set(begun), {name: f"k{name.n}" for name in accepted}, set(failed), spans)


def record(*numbers: int) -> list[dict[str, Any]]:
    """The server's record."""
    return [
        {"channel": "c", "text": NAMES[n].text, "key": f"k{n}", "seq": seq} for seq, n in enumerate(numbers, start=1)
    ]


def sights(*seqs: int) -> list[Sight]:
    """What a listener heard of `record(0, 1, 2, 3)`."""
    return [Sight(0, "c", f"k{seq - 1}", seq, False, NAMES[seq - 1].text) for seq in seqs]


def judged(log: list[dict[str, Any]], wanted: int = 4, **facts: Any) -> Outcome:
    given = {"notes": notes(), "took": [0.1, 0.3], "keys": True, **facts}
    return outcome(wanted, given.pop("notes"), log, given.pop("took"), **given)


def test_a_good_end_is_perfect() -> None:
    """All delivered, and heard, once, in order."""
    found = judged(record(0, 1, 2, 3), sights=sights(1, 2, 3, 4))
    assert found.perfect
    assert (found.share, found.hearable) == (1.0, 4)
    assert (found.typical, found.worst) == (0.2, 0.3)


@pytest.mark.parametrize(
    ("wrong", "counts"),
    [
        (judged(record(0, 1, 2)), {"delivered": 3, "lost": 1, "again": 1}),
        (judged(record(0, 1, 2, 3, 1)), {"twice": 1}),
        (judged(record(0, 2, 1, 3)), {"disordered": 1}),
        (judged(record(0, 1, 2), notes=notes(NAMES[:3], NAMES[3:])), {"delivered": 3, "errors": 1, "again": 1}),
        (judged(record(0, 1, 2, 3), notes=notes(NAMES[:3], NAMES[3:])), {"errors": 1, "again": 1}),
        (judged(record(0, 1, 2), notes=notes(NAMES[:3])), {"delivered": 3, "again": 1}),
        (judged([*record(0, 1, 2), {**record(3)[0], "key": "other"}]), {"again": 1}),
        (judged(record(0, 1, 2, 3), dead=1), {"dead": 1}),
        (judged(record(0, 1, 2, 3), sights=sights(1, 2, 4)), {"missed": 1}),
        (judged(record(0, 1, 2, 3), sights=sights(1, 2, 2, 3, 4)), {"repeated": 1}),
        (judged(record(0, 1, 2, 3), sights=sights(1, 3, 2, 4)), {"jumbled": 1}),
        (judged(record(0, 1, 2, 3), sights=sights(1, 2, 3, 4), gaps=["c"]), {"missed": 1}),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_whatever_is_wrong_is_seen(wrong: Outcome, counts: dict[str, int]) -> None:
    """One thing that is wrong is counted as what it is, and nothing is perfect any more."""
    good = {**judged(record(0, 1, 2, 3)).facts(), "hearable": wrong.hearable}
    assert wrong.facts() == {**good, **counts}
    assert not wrong.perfect


def test_a_script_does_not_know_its_keys() -> None:
    """Other keys in the record than those that it noted are no fault of a sender that has none."""
    assert judged([{**each, "key": "x" + each["key"]} for each in record(0, 1, 2, 3)], keys=False).again == 0


def test_nothing_wanted_is_not_perfect() -> None:
    """A scenario that sent nothing proves nothing."""
    assert not Outcome().perfect


GOOD = Outcome(wanted=100, delivered=100, hearable=100)
BAD = Outcome(wanted=100, delivered=50, errors=40, again=50, hearable=50, missed=20)


def test_the_metrics_over_all() -> None:
    """They are met by the sums, where the control's are not."""
    result = Result(Row("a", "", "", "", True), GOOD, BAD)
    assert [row.ok for row in overall([result, result])] == [True] * 5
    assert [row.ok for row in overall([replace(result, ours=BAD)])] == [False, False, False, True, False]
    same = replace(result, control=GOOD)
    assert [row.ok for row in overall([same])] == [False, False, False, True, False]
    assert list(overall([Result(Row("a", "", "", "", None))])) == []
    assert total([GOOD, BAD]).wanted == 200


def a_scenario(name: str = "s", ours: Outcome = GOOD, *, met: bool = True, differs: bool = True) -> Scenario:
    found = Found(Played(ours, BAD, 0.0, ()), "good", "bad", met=met, differs=differs, figures={"x": 1})
    return Scenario(name, "all", lambda stage: found)


def test_a_row_holds_only_if_everything_does(stage: Stage) -> None:
    """The target, the delivery, and the difference; a flaw is named."""
    assert a_scenario().run(stage).row.ok is True
    assert a_scenario(met=False).run(stage).row.ok is False
    assert a_scenario(differs=False).run(stage).row.ok is False
    row = a_scenario(ours=replace(GOOD, twice=2)).run(stage).row
    assert (row.ok, row.ours) == (False, "good; 100 of 100 delivered, 2 twice")


def test_what_cannot_be_played_says_why(stage: Stage) -> None:
    """It is neither met nor missed."""

    def refuse(stage: Stage) -> Found:
        raise NotHere("no kernel")

    result = Scenario("s", "all", refuse).run(stage)
    assert (result.row.verdict, result.row.ours, result.ours) == ("skipped", "not played: no kernel", None)


def test_the_table() -> None:
    """A line for each row below the headings, in columns; a line of JSON for programs."""
    rows = [Row("a", "t", "o", "c", True), Row("longer", "t", "o", "c", False, {"n": 1})]
    lines = table(rows).splitlines()
    assert [line.split("  ")[0] for line in lines] == [HEADINGS[0], "a", "longer"]
    assert [line.rstrip().endswith(end) for line, end in zip(lines, ("verdict", "met", "MISSED"), strict=True)]
    assert lines[1].index("met") == lines[2].index("MISSED")
    assert [json.loads(line)["verdict"] for line in json_lines(rows).splitlines()] == ["met", "MISSED"]


def test_the_table_in_a_narrow_terminal() -> None:
    """A block for each row, and no line is longer than the terminal is wide; a wide one gets the columns."""
    rows = [Row("a", "t", "o " * 50, "c", True), Row("longer", "t", "o", "c", False)]
    lines = table(rows, 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines if not line.startswith(" ")] == [["met", "a"], ["MISSED", "longer"]]
    assert [line.split()[0] for line in lines].count("without") == 2
    assert table(rows, 200) == table(rows)


@pytest.fixture
def stage() -> Stage:
    """For scenarios that need none."""
    return Stage.__new__(Stage)


@pytest.mark.parametrize(("met", "code"), [(True, 0), (False, 1)])
def test_the_command(met: bool, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 as soon as one row is missed; `--only` chooses; the seed is said."""
    monkeypatch.setattr(command, "SCENARIOS", (a_scenario("one"), a_scenario("two", met=met), a_scenario("three")))
    assert command.main(["--short", "--seed", "7", "--only", "TW", "--json"]) == code
    shown = capsys.readouterr()
    assert json.loads(shown.out.splitlines()[0])["scenario"] == "two"
    assert '"one"' not in shown.out
    assert "seed 7" in shown.err
    assert command.main(["--only", "two"]) == code
    assert capsys.readouterr().out.startswith("scenario ")


def test_a_scenario_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong call is 2, and says what there is."""
    with pytest.raises(SystemExit) as end:
        command.main(["--only", "nonsense"])
    assert end.value.code == 2
    assert "captive portal" in capsys.readouterr().err
