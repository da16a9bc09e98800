"""What a command prints, and how.

Results go to standard output, everything else to standard error. On a terminal a list is a table (rich, loaded then
and only then); anywhere else it is one line an item, with tabs between the fields and no heading, for cut and awk. Text
that came from elsewhere is shown without its control characters: nobody's message moves our cursor. A reader that went
away does not change what the command did, and so not its exit code.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from ..core.settings import TABLE

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_gone = threading.Event()
_TOKENS = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*|(?<=[Bb]earer )\S+")


def line(text: str = "") -> None:
    """One line of the result."""
    _write(sys.stdout, text + "\n")


def note(text: str) -> None:
    """One line to standard error."""
    _write(sys.stderr, f"chatsdk: {text}\n")


def hint(text: str) -> None:
    """What to do, under a note."""
    _write(sys.stderr, f"  {text}\n")


def as_json(value: Any) -> None:
    """One JSON value on one line."""
    line(json.dumps(value, ensure_ascii=_encoding(sys.stdout) != "utf-8", default=str))


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A list of things."""
    cells = [["" if cell is None else plain(str(cell)) for cell in row] for row in rows]
    if not is_terminal(sys.stdout):
        for row in cells:
            line("\t".join(row))
        return
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError:
        for row in [list(headings), *cells]:
            line("  ".join(row))
        return
    drawn = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)


def plain(text: str) -> str:
    """The text with its control characters shown as \\x1b, so that it stays on its line and commands no terminal."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def redact(text: str) -> str:
    """The text without tokens: those in the environment, and whatever looks like one. For errors nobody foresaw, which
    may quote anything."""
    for row in TABLE:
        given = os.environ.get(row.environ, "").strip() if row.secret else ""
        if given:
            text = text.replace(given, "***")
    return _TOKENS.sub("***", text)


def is_terminal(stream: TextIO) -> bool:
    """Whether somebody looks at it who can do more with it than read lines."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def reader_is_gone() -> bool:
    """Nobody reads the result any more (`| head`): a command that would go on for ever ends."""
    return _gone.is_set()


def _encoding(stream: TextIO) -> str:
    return (stream.encoding or "utf-8").lower()


def _write(stream: TextIO, text: str) -> None:
    try:
        encoding = _encoding(stream)
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        # whatever else is written, also by the interpreter at its end, goes nowhere
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        if stream is sys.stdout:
            _gone.set()
