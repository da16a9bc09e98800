"""What is seen of the demo."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from chatsdk.cli.demo.checker import Kill, judge
from chatsdk.cli.demo.display import Lines, Live, rows, show_verdict
from chatsdk.cli.demo.story import Snapshot
from tests.cli.demo.evidence import NAMES, evidence

SNAPSHOT = Snapshot(
    act=5,
    acts=7,
    title="the server is killed",
    elapsed=7.25,
    messages=400,
    accepted=231,
    stored=207,
    pending=24,
    attempts=260,
    server="killed",
    faults={"drop": 12, "503": 0},
)


def test_lines_are_one_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody watches, numbers that merely move are not printed."""
    with Lines() as display:
        display.say(1.25, "server: started")
        display.show(SNAPSHOT)
        display.say(2.5, "server: SIGKILL")
    assert capsys.readouterr().out == "[  1.2 s] server: started\n[  2.5 s] server: SIGKILL\n"


def test_the_live_view_shows_how_things_stand() -> None:
    """Act, counts, who runs and who does not, faults that were met, and the last events."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100, no_color=True)
    with Live(console) as display:
        for number in range(20):
            display.say(float(number), f"event {number}")
        display.show(SNAPSHOT)
    assert isinstance(console.file, io.StringIO)
    last = console.file.getvalue().rpartition("5/7 the server is killed")[2]
    for text in ("231/400", "207/400", "✕ server killed", "● sending process runs", "drop 12", "event 19", "7.2 s"):
        assert text in last
    assert "503" not in last
    assert "event 3\n" not in last


def test_the_table_has_every_figure() -> None:
    """All that the demo claims is in the table."""
    told = dict(rows(judge(evidence())))
    assert told["accepted (send returned)"] == told["delivered (in the server's log)"] == str(len(NAMES))
    assert (told["lost"], told["duplicated"], told["out of order"]) == ("0", "0", "0")
    assert told["attempts per message"] == "0.17"
    assert told["kills (SIGKILL)"] == "server with 3 waiting, sender with 3 waiting"
    assert "drop 2" in told["faults met"]
    assert told["outbox accounting"] == "accepted 12 = delivered 12 + dead 0 + pending 0 + discarded 0"


def test_the_last_words_are_honest(capsys: pytest.CaptureFixture[str]) -> None:
    """Success is claimed only for a verdict that is good; anything else says why it is not."""
    show_verdict(judge(evidence()))
    assert "exactly once" in capsys.readouterr().out
    show_verdict(judge(evidence([*NAMES, NAMES[0]])))
    said = capsys.readouterr().out
    assert "exactly once" not in said
    assert "FAILED: 1 delivered twice" in said
    show_verdict(judge(evidence(kills=[Kill("server", 2)])))
    said = capsys.readouterr().out
    assert "exactly once" not in said
    assert "PROVES NOTHING: the sender was not killed" in said
