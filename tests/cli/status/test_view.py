"""What is drawn of a status, from fixed facts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatsdk.cli.status import words
from chatsdk.cli.status.facts import signature
from chatsdk.cli.status.view import ASCII, UNICODE, Terminal, change, columns, fitted, fold, listing, signs_of
from chatsdk.core.store import Reason
from tests.cli.status.sights import HOSTILE, OUTAGE, UNKNOWN, WELL

SIZES = [(80, 24), (120, 40)]
ALL = {"unknown": UNKNOWN, "well": WELL, "outage": OUTAGE, "hostile": HOSTILE}


def ascii_only(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def terminal(width: int, height: int, *, poor: bool = False) -> Terminal:
    return Terminal(width, height, ASCII if poor else UNICODE, columns, ascii_only if poor else str)


def picture(facts: dict[str, Any], on: Terminal) -> list[str]:
    return [line.label + line.text for line in fitted(facts, on)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("poor", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_lines_fit(name: str, size: tuple[int, int], poor: bool) -> None:
    """No line is longer than the terminal, none breaks or commands it, and there are not more than it has."""
    lines = picture(ALL[name], terminal(*size, poor=poor))
    assert len(lines) <= size[1]
    for line in lines:
        assert columns(line) <= size[0], line
        assert not any(ord(letter) < 32 or letter == "\u202e" for letter in line)
        assert not poor or line.isascii()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(ALL)), st.integers(1, 200), st.integers(1, 60), st.booleans())
def test_lines_fit_any_terminal(name: str, width: int, height: int, poor: bool) -> None:
    """Whatever the size is."""
    lines = picture(ALL[name], terminal(width, height, poor=poor))
    assert 1 <= len(lines) <= height
    assert all(columns(line) <= width for line in lines)


def test_an_outage_at_80x24() -> None:
    """Every block is there, the worst three of a list, and what was left out is said."""
    shown = "\n".join(picture(OUTAGE, terminal(80, 24)))
    for text in (
        "this client  critical: circuit api is open; 120 of 130 calls failed in the last\n" + " " * 13 + "5 minutes;",
        "connection   Reconnecting in 3s (attempt 16), down for 21s, 2 reconnects",
        "no connection to chat.example: Connection refused",
        "network      ✕ Offline for 2m 10s: the network wants a sign-in: open a web page\n             in a browser",
        "latency 3.2 ms (95 %: 7.0 ms), 33 % of 12 tries lost, heard 2s ago",
        "outbox       22 queued, 1 dead (8 lanes)",
        "the oldest waits for 1m 20s: the circuit is open (server failed)",
        "next try in 5s",
        "lanes        3 waiting, failed 9 times, next try in 5s (not reached): 00000000-…",
        "… and 5 more",
        "circuits     api is open, tries again in 12s (opened 2 times)",
        "websocket is half open, tries again now (opened 1 time)",
        "features     severe degradation: offline, circuit api, circuit websocket",
        "off: search (offline), presence (offline), realtime (offline)",
        "errors       here: operation0: ServerError (server_error, 503), 12 times, last…",
        "waiting: messages.send: ServerError (server_error, 503), 12 messag…",
        "dead: messages.send: Forbidden (forbidden, 403), 1 message: the",
    ):
        assert text in shown, shown


def test_an_outage_at_120x40() -> None:
    """A large terminal shows all of it, and nothing is cut."""
    shown = "\n".join(picture(OUTAGE, terminal(120, 40)))
    assert "…" not in shown
    assert shown.count(" waiting, failed ") == 8
    assert shown.count("(server_error, 503)") == 7
    assert "dead: messages.send: Forbidden (forbidden, 403), 1 message" in shown


def test_unknown_is_said_as_unknown() -> None:
    """Not as zero, and not as good."""
    shown = "\n".join(listing(UNKNOWN))
    assert "network      unknown (not tried)" in shown
    assert "0 ms" not in shown
    assert "●" not in shown
    few = "\n".join(listing({**WELL, "network": {**WELL["network"], "samples": 1}}))
    assert "Excellent so far" in few
    tried = {**UNKNOWN, "network": {**UNKNOWN["network"], "samples": 1, "loss": 1.0}}
    assert "unknown (1 try, no answer yet)" in "\n".join(listing(tried))


def test_an_outbox_that_cannot_be_read_is_said_as_that() -> None:
    """Nobody claims that nothing waits."""
    closed = {**WELL, "outbox": {**dict.fromkeys(WELL["outbox"]), "error": "the disk is gone"}}
    assert "outbox       cannot be read: the disk is gone" in listing(closed)
    assert "queued" not in "\n".join(listing(closed))


def test_what_nobody_sends_is_said() -> None:
    """A message that has been due for longer than any pause, and no process has its lane; unless a token is what it
    waits for."""
    waiting = {**OUTAGE["outbox"], "next_in": 0.0, "due_for": 90.0}
    shown = "\n".join(listing({**OUTAGE, "outbox": waiting}))
    assert "due for 1m 30s, and nobody sends it: `chatsdk outbox run` does" in shown
    assert "nobody sends it" not in "\n".join(listing({**OUTAGE, "outbox": {**waiting, "reason": "auth"}}))
    assert "being sent now" in "\n".join(listing({**OUTAGE, "outbox": {**waiting, "sending": True}}))


def test_every_reason_has_words() -> None:
    """A reason why a message waits is told in plain words; one of a later version as it is."""
    for reason in Reason:
        if reason not in (Reason.REJECTED, Reason.EXPIRED, Reason.POISON):  # of dead letters
            assert " " in words.why(reason)
            assert "_" not in words.briefly(reason)
    assert words.why("sunspots") == words.briefly("sunspots") == "sunspots"
    assert words.why("") == "nobody has tried to send it yet"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0s"), (59.9, "59s"), (65, "1m 5s"), (3700, "1h 1m"), (180_000, "2d 2h"), (-5, "0s")]
)
def test_durations(seconds: float, said: str) -> None:
    """In two units at most, and never negative: clocks jump."""
    assert words.duration(seconds) == said


def test_a_poor_terminal_gets_ascii_signs() -> None:
    """What it is comes from the encoding of standard output."""
    assert signs_of("utf-8") is signs_of("UTF8") is UNICODE
    assert signs_of("iso-8859-1") is signs_of("ascii") is ASCII
    assert "network      *** Excellent for 2m 10s" in "\n".join(listing(WELL, ASCII))
    assert any(line.endswith("...") for line in picture(OUTAGE, terminal(80, 24, poor=True)))


@pytest.mark.parametrize("name", ALL)
def test_a_change_is_one_line(name: str) -> None:
    """With the time in front and every block in it."""
    line = change(ALL[name])
    assert len(line.splitlines()) == 1
    assert line[2] == line[5] == ":"
    blocks = ("outbox", "connection", "network", "circuits", "this client", "errors")
    assert all(f"{block} " in line for block in blocks)


@settings(deadline=None)
@given(st.text(max_size=200), st.integers(1, 100), st.integers(1, 4))
def test_folding_keeps_the_text(text: str, width: int, most: int) -> None:
    """Nothing is lost but blanks, unless a sign says so at the end."""
    on = Terminal(width, 24)
    lines = fold(text, width, most, on)
    assert len(lines) <= most
    assert all(len(line) <= width for line in lines)
    if not (lines[-1].endswith("…") or width == 1):
        assert "".join("".join(lines).split()) == "".join(text.split())


def test_time_alone_is_no_change() -> None:
    """Ages, latencies, countdowns and tries move all the time; that is not worth a line."""
    later = copy.deepcopy(OUTAGE)
    later["at"] += 60
    later["connection"] |= {"state": "RECONNECTING", "text": "Reconnecting...", "since": 81.0, "reconnect_in": None}
    later["network"] |= {"latency_ms": 5.0, "samples": 18, "contact_age": 62.0, "quality_age": 190.0}
    later["outbox"] |= {"oldest_age": 140.0, "next_in": 0.0}
    later["lanes"][0] |= {"failures": 12, "next_in": 9.0}
    later["errors"][0] |= {"count": 18, "last_at": OUTAGE["at"] + 59}
    assert signature(later) == signature(OUTAGE)


@pytest.mark.parametrize(
    ("part", "facts"),
    [
        ("connection", {"state": "CONNECTED", "connected": True}),
        ("network", {"quality": "POOR"}),
        ("network", {"reason": "slow"}),
        ("outbox", {"queued": 21}),
        ("outbox", {"reason": "auth"}),
        ("outbox", {"error": "gone"}),
        ("circuits", {"api": {"state": "closed", "retry_in": None, "opened": 2}}),
        ("features", {"level": "none"}),
        ("health", {"status": "healthy"}),
    ],
)
def test_what_is_a_change(part: str, facts: dict[str, Any]) -> None:
    """Whatever somebody would want to be told of."""
    assert signature({**OUTAGE, part: {**OUTAGE[part], **facts}}) != signature(OUTAGE)
    assert signature({**OUTAGE, "errors": OUTAGE["errors"][1:]}) != signature(OUTAGE)
