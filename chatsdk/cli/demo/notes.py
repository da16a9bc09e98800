"""The sending process's own record: one line before each `send`, one after it returned.

Rules: each line is one write to a file opened with O_APPEND, so that threads do not mix and a SIGKILL leaves whole
lines (what the kernel was given survives the process). A message of which only the first line is there was cut off by a
kill: it may or may not have been accepted, and nothing was promised. The line after the return is the promise.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

_TEXT = re.compile(r"demo message ([0-9]+)\.([0-9]+)\.([0-9]+)")


class Name(NamedTuple):
    """Which message: run of the sending process (from 1), its channel and its number there (from 0)."""

    run: int
    channel: int
    n: int

    def text(self) -> str:
        """The message's text."""
        return f"demo message {self.run}.{self.channel}.{self.n}"


def read_text(text: str) -> Name | None:
    """The name in a message's text, or None if it is no message of the demo."""
    found = _TEXT.fullmatch(text)
    return None if found is None else Name(int(found[1]), int(found[2]), int(found[3]))


@dataclass
class Notes:
    """What the record says. `begun`: `send` was called; `accepted`: it returned, with this key."""

    begun: set[Name] = field(default_factory=set)
    accepted: dict[Name, str] = field(default_factory=dict)


class Notebook:
    """The record, for the process that writes it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def begun(self, name: Name) -> None:
        """Before `send`."""
        self._write(f"begun {name.text()}\n")

    def accepted(self, name: Name, key: str) -> None:
        """After `send` returned."""
        self._write(f"accepted {name.text()} {key}\n")

    def _write(self, line: str) -> None:
        data = line.encode()
        if os.write(self._file, data) != len(data):
            raise OSError("the record could not be written whole")

    def close(self) -> None:
        """Nothing more will be written."""
        os.close(self._file)


def read_notes(path: Path) -> Notes:
    """The whole record; a file that is not there yet says nothing."""
    notes = Notes()
    if not path.exists():
        return notes
    for line in path.read_text(encoding="utf-8").splitlines():
        verb, _, rest = line.partition(" ")
        text, _, key = rest.rpartition(" ") if verb == "accepted" else (rest, "", "")
        name = read_text(text)
        if name is None:
            continue
        if verb == "accepted":
            notes.accepted[name] = key
        else:
            notes.begun.add(name)
    return notes
