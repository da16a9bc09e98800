"""The setting `log`: what is attached, when, and what one line shows of a record."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core.errors import NotSentError
from chatsdk.resilience.log_lines import LONGEST, line_of, show_records

SDK = logging.getLogger("chatsdk")
SECRET = "hush-" + str(4711)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Leave the loggers as they were."""
    handlers, level, propagate = SDK.handlers[:], SDK.level, SDK.propagate
    root, root_level = logging.root.handlers[:], logging.root.level
    yield
    SDK.handlers[:], SDK.propagate = handlers, propagate
    SDK.setLevel(level)
    logging.root.handlers[:] = root
    logging.root.setLevel(root_level)


def lines(captured: pytest.CaptureFixture[str]) -> list[str]:
    return captured.readouterr().err.splitlines()


def record(message: str = "text", level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    return SDK.makeRecord("chatsdk.x", level, __file__, 1, message, (), None, extra=extra)


def test_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Time, level, logger, correlation id, text; on standard error alone."""
    show_records("info")
    logging.getLogger("chatsdk.auth").warning("a %s", "text", extra={"correlation_id": "id-1", "secret": SECRET})
    logging.getLogger("chatsdk.auth").debug("not shown")
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    when, rest = line.split(" ", 1)
    assert rest == "WARNING chatsdk.auth id-1: a text"
    assert len(when) == len("2026-11-22T09:41:07.120Z")
    assert SECRET not in line


def test_one_handler_and_the_most_talkative_level(capsys: pytest.CaptureFixture[str]) -> None:
    """However many clients ask, in whatever order, a record is one line."""
    before = len(SDK.handlers)
    for level in ("warning", "debug", "error", "info"):
        show_records(level)
    assert len(SDK.handlers) == before + 1
    SDK.debug("once")
    assert [line.endswith(" -: once") for line in lines(capsys)] == [True]


def test_nobody_else_begins_to_talk(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the root logger nor another library's is touched."""
    show_records("debug")
    for name in ("urllib3.connectionpool", "requests", "asyncio", ""):
        logging.getLogger(name).debug("from elsewhere")
    assert logging.root.level == logging.WARNING
    assert lines(capsys) == []


def test_an_application_with_its_own_logging(capsys: pytest.CaptureFixture[str]) -> None:
    """It gets the records as ever; what it writes to the terminal is not written there by us as well."""
    show_records("info")
    kept = io.StringIO()
    logging.root.addHandler(logging.StreamHandler(kept))
    SDK.warning("to both")
    assert (kept.getvalue(), len(lines(capsys))) == ("to both\n", 1)
    mine = logging.StreamHandler(sys.stderr)
    mine.setLevel(logging.WARNING)
    mine.setFormatter(logging.Formatter("mine: %(message)s"))
    logging.root.addHandler(mine)
    SDK.warning("shown by it")
    SDK.info("left out by it")
    assert [line.rpartition(": ")[2] for line in lines(capsys)] == ["shown by it", "left out by it"]
    SDK.propagate = False
    SDK.warning("not handed on")
    assert [line.split()[1] for line in lines(capsys)] == ["WARNING"]


def test_a_level_that_the_application_set(capsys: pytest.CaptureFixture[str]) -> None:
    """It is lowered where somebody asks for more, and never raised."""
    SDK.setLevel(logging.DEBUG)
    show_records("error")
    assert SDK.level == logging.DEBUG
    SDK.debug("for the application only")
    assert lines(capsys) == []
    show_records("debug")
    SDK.debug("shown")
    assert len(lines(capsys)) == 1


@given(
    st.text(st.characters(exclude_categories=()), max_size=300),
    st.text(st.characters(exclude_categories=()), max_size=100),
)
def test_any_text_is_one_line(text: str, correlation: str) -> None:
    """Nobody's text begins another line, moves a cursor or turns the direction of writing."""
    line = line_of(record(text.replace("%", "%%"), correlation_id=correlation))
    assert len(line.splitlines()) == 1
    assert not set(line) & set("\x00\x07\x08\x0b\x1b\x7f\x85\x9b\u2028\u2029\u202e\u2066")


def test_long_texts_are_cut() -> None:
    """And end in a sign that says so."""
    line = line_of(record("x" * 100_000, correlation_id="y" * 10_000))
    assert len(line) < LONGEST + 200
    assert line.endswith("...")


def test_exceptions_are_shown_without_a_strangers_words() -> None:
    """Type and place are, and what our own errors say; a traceback would be many lines, a text might hold a token."""
    texts = []
    for error in (ValueError(SECRET), NotSentError("no connection")):
        try:
            raise error
        except Exception:
            made = SDK.makeRecord("chatsdk", logging.ERROR, __file__, 1, "it failed", (), sys.exc_info())
            texts.append(line_of(made))
    assert "it failed [ValueError at " in texts[0]
    assert "test_log_lines.py:" in texts[0]
    assert SECRET not in texts[0]
    assert texts[1].endswith(": no connection]")


def test_a_terminal_that_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who logs is not disturbed by it; text that a terminal cannot show is written as escapes."""
    show_records("info")
    monkeypatch.setattr(SDK, "propagate", False)  # pytest would keep the text, and cannot hand it on
    gone = io.StringIO()
    gone.close()
    for stream in (None, gone):
        monkeypatch.setattr(sys, "stderr", stream)
        SDK.warning("nobody sees it")
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
    SDK.warning("grüß \ud800")
    assert raw.getvalue().endswith(b": gr\\xfc\\xdf \\ud800\n")


def test_nothing_is_attached_at_import() -> None:
    """Whatever the environment says: an import is no wish to see anything."""
    code = (
        "import logging, chatsdk, chatsdk.client, chatsdk.resilience.log_lines;"
        "print([type(each).__name__ for each in logging.getLogger('chatsdk').handlers], logging.root.handlers)"
    )
    environ = {"CHATSDK_LOG": "debug", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("['NullHandler'] []\n", "")
