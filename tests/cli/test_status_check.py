"""`chatsdk status --check`: for monitors. Its answer is the exit code."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chatsdk.devserver.process import DevServer
from tests.cli.conftest import Shell

ALONE: dict[str, str | None] = {"CHATSDK_TOKEN": None, "CHATSDK_USER": None, "CHATSDK_URL": "http://127.0.0.1:9"}
"""No token, and a port where nobody listens."""


@pytest.fixture
def alone(chatsdk: Shell) -> Shell:
    """The command line of somebody who has neither token nor network."""
    chatsdk.environ = {name: value for name, value in {**chatsdk.environ, **ALONE}.items() if value is not None}
    return chatsdk


@pytest.fixture
def grow_old(tmp_path: Path) -> Callable[[float], None]:
    """Lets what waits have been accepted so many seconds ago."""

    def change(seconds: float) -> None:
        (file,) = tmp_path.glob("state/*/*/*.db")
        with sqlite3.connect(file) as connection:
            (table,) = [
                name
                for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                if "timestamp" in [column[1] for column in connection.execute(f"PRAGMA table_info({name})")]
            ]
            connection.execute(f"UPDATE {table} SET timestamp = ?", (time.time() - seconds,))
        connection.close()

    return change


def test_nothing_there_is_well_and_stays_so(alone: Shell, tmp_path: Path) -> None:
    """An outbox that nobody used is empty; a monitor that looks makes none: it might belong to the wrong user."""
    checked = alone("status", "--check")
    assert (checked.code, checked.out, checked.err) == (0, "ok: 0 queued, 0 dead\n", "")
    assert not (tmp_path / "state").exists()


def test_what_waits_too_long_fails(alone: Shell, grow_old: Callable[[float], None]) -> None:
    """Young messages are well, old ones are not; the limit is --max-age, else ten minutes. One line says why."""
    assert alone("send", "general", "hello", "--no-wait", "--queued-ok", CHATSDK_USER="alice").code == 0
    young = alone("status", "--check", "--json")
    assert (young.code, young.json["ok"], young.json["queued"], young.json["dead"]) == (0, True, 1, 0)
    assert 0 <= young.json["oldest_age"] < 60
    assert (young.json["max_age"], young.json["max_dead"]) == (600.0, 0)
    grow_old(700)
    old = alone("status", "--check")
    assert old.code == 1
    assert old.out.startswith("FAILED: the oldest message waits for 70")
    assert old.out.endswith("s, 0 dead\n")
    assert old.out.count("\n") == 1
    assert alone.here("status", "--check", "--max-age", "15m").code == 0
    assert alone.here("status", "--check", "--max-age", "30").code == 1
    assert alone.here("status", "--check", "--json").json["ok"] is False
    assert alone.here("outbox", "list", "--json").json["messages"][0]["state"] == "QUEUED"  # it only looked


def test_dead_letters_fail(chatsdk: Shell, server: DevServer) -> None:
    """None are allowed, unless --max-dead says how many."""
    assert chatsdk("send", server.channel("carol"), "let me in").code == 65
    failed = chatsdk("status", "--check", CHATSDK_TOKEN=None, CHATSDK_USER=None)
    assert (failed.code, failed.out) == (1, "FAILED: too many dead letters (allowed: 0); 0 queued, 1 dead\n")
    assert chatsdk.here("status", "--check", "--max-dead", "1").code == 0


def test_an_unreadable_outbox_is_no_good_news(alone: Shell, tmp_path: Path) -> None:
    """Where the way to it cannot be gone, here because a file stands there, it is neither empty nor well."""
    (tmp_path / "state").write_text("no directory")
    checked = alone("status", "--check")
    assert checked.code == 1
    assert checked.out.startswith("FAILED: the outbox can't be read: ")


def test_a_broken_outbox_is_said_in_one_line(alone: Shell, tmp_path: Path) -> None:
    """What stands where the file should be, and is none, is a reason to look: 1, and no traceback."""
    assert alone("send", "general", "hello", "--no-wait", "--queued-ok", CHATSDK_USER="alice").code == 0
    (file,) = tmp_path.glob("state/*/*/*.db")
    for each in file.parent.glob(f"{file.name}*"):
        each.unlink()
    file.mkdir()
    broken = alone("status", "--check")
    assert broken.code == 1
    assert broken.out.startswith("FAILED: the outbox can't be read: ")
    assert broken.out.count("\n") == 1
    assert alone("status", "--check", "--json").json["ok"] is False


def test_settings_that_make_no_sense_are_no_answer(alone: Shell) -> None:
    """Which outbox is meant is not known: 78, as everywhere, and a monitor sees that it is not 0."""
    assert alone("status", "--check", CHATSDK_URL="ftp://nowhere").code == 78


@pytest.mark.parametrize(
    "words",
    [
        ("--check", "--watch"),
        ("--max-age", "5m"),
        ("--max-dead", "3"),
        ("--check", "--max-age", "soon"),
        ("--check", "--max-dead", "-1"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(alone: Shell, words: tuple[str, ...]) -> None:
    """A monitor that forgets --check must not look well by accident."""
    assert alone.here("status", *words).code == 2
