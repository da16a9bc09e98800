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

from ..core.plain_text import plain as plain
from ..core.settings import TABLE

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
    line(json.dumps(value, ensure_ascii=encoding(sys.stdout) != "utf-8", default=str))


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
        drawn.add_row(*(Text(encodable(cell)) for cell in row))
    Console().print(drawn)


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


def encoding(stream: TextIO) -> str:
    """What its letters become, in small letters: "utf-8"."""
    return (stream.encoding or "utf-8").lower()


def encodable(text: str, stream: TextIO | None = None) -> str:
    """The text as a stream (standard output) can take it: letters that it cannot are shown as \\u escapes."""
    name = encoding(sys.stdout if stream is None else stream)
    return text.encode(name, "backslashreplace").decode(name)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(encodable(text, stream))
        stream.flush()
    except BrokenPipeError:
        # whatever else is written, also by the interpreter at its end, goes nowhere
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        if stream is sys.stdout:
            _gone.set()
