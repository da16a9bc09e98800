"""What is printed, and what never is."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest

from chatsdk.cli import output


class Terminal(io.StringIO):
    """Standard output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_table_is_lines_with_tabs_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    """Pipes get one line an item, no heading, so that cut and awk work."""
    output.table(("ID", "TEXT"), [(1, "hello"), (2, None)])
    assert capsys.readouterr().out == "1\thello\n2\t\n"


def test_a_table_has_headings_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets headings, and text in square brackets stays text."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    output.table(("ID", "TEXT"), [(1, "[red]hello[/red]")])
    drawn = screen.getvalue()
    assert "ID" in drawn
    assert "[red]hello[/red]" in drawn
    assert "\x1b[3" not in drawn  # NO_COLOR: no colour


@pytest.mark.parametrize("nasty", ["\x1b[2J", "\r", "\x9b31m", "a\u202eb", "line\nline", "\x07"])
def test_foreign_text_commands_no_terminal(nasty: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in what others wrote are shown, not obeyed, and a cell stays on its line."""
    output.table(("TEXT",), [(nasty,)])
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1
    assert not any(letter in shown.rstrip("\n") for letter in nasty if not letter.isprintable())


def test_errors_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What quotes a token of the environment, or anything that looks like one, loses it."""
    monkeypatch.setenv("CHATSDK_TOKEN", "canary-of-the-environment")
    said = output.redact("canary-of-the-environment eyJhbGci.eyJzdWIi.sig-nature Bearer abc.def")
    assert said == "*** *** Bearer ***"


def test_a_poor_terminal_gets_escapes() -> None:
    """Where standard output takes ASCII only, text is escaped, and JSON is JSON still."""
    script = r"from chatsdk.cli import output as o; text = '\xfc\udc80'; o.line(text); o.as_json(text)"
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, env=environ)
    plain, as_json = ended.stdout.splitlines()
    assert plain == rb"\xfc\udc80"
    assert json.loads(as_json) == "\xfc\udc80"


def test_a_reader_that_left_is_no_error() -> None:
    """`chatsdk ... | head` must not turn a success into a traceback."""
    script = "from chatsdk.cli import output\nfor _ in range(100_000): output.line('x' * 100)\nprint('end')"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    _, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (0, b"")
