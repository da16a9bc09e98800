"""What was accepted, compared with what the server's own log holds. Pure but for reading and writing the notes.

A sending process notes each message before `send` is called ("begun") and after it returned ("accepted", with its key)
or refused ("failed": it raised NotAcceptedError). Each note is one write to a file opened with O_APPEND, so threads and
processes do not mix, a SIGKILL leaves whole lines, and a note that stands before another was written before it. A
message is known by what its text says, never by its key: a client that sent one message under two keys would be found
out.

Rules of the judgement:
* lost: `send` returned, and the log does not have it.
* duplicated: the log has it again.
* out of order: it stands behind one of its (sender, channel) that was sent after it; first deliveries only. A later run
  sends after an earlier one.
* overtaken: it stands behind one of its channel whose `send` was called only after its own had returned, whichever
  thread or process called: they all speak for one user, so all share the channel's lane.
* refused: the log has it, but `send` said that it was not accepted.
* owned twice: two had one lane at a time (`claims`).
* renamed: it stands under another key than the one that `send` returned.
* strangers: nobody sent it.
* unknown: attempted, never acknowledged (the process was killed in between); it may be in the log or not. No violation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from tests.chaos.claims import Overlap, overlaps

_TEXT = re.compile(r"message ([0-9]+)\.([0-9]+)\.([0-9]+)")


class Name(NamedTuple):
    """Which message: its channel, who sent it, in which run of the sending process, and its number there."""

    channel: str
    sender: int
    run: int
    n: int

    @property
    def text(self) -> str:
        """The message's text."""
        return f"message {self.sender}.{self.run}.{self.n}"


def read_name(channel: str, text: str) -> Name | None:
    """The name of a message in the log; None if it is none of ours."""
    found = _TEXT.fullmatch(text)
    return None if found is None else Name(channel, int(found[1]), int(found[2]), int(found[3]))


@dataclass
class Notes:
    """What the sending processes wrote down. `begun`: `send` was called; `accepted`: it returned, with this key;
    `failed`: it was not accepted, and not sent again. `spans`: which note was the call's, which the return's."""

    begun: set[Name] = field(default_factory=set)
    accepted: dict[Name, str] = field(default_factory=dict)
    failed: set[Name] = field(default_factory=set)
    spans: dict[Name, tuple[int, int]] = field(default_factory=dict)


class Notebook:
    """The notes, for the process that writes them."""

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def begun(self, name: Name) -> None:
        """Before `send`."""
        self._write(f"begun {name.channel} {name.text}\n")

    def accepted(self, name: Name, key: str) -> None:
        """After `send` returned."""
        self._write(f"accepted {name.channel} {name.text} {key}\n")

    def failed(self, name: Name) -> None:
        """After `send` raised that it is not accepted."""
        self._write(f"failed {name.channel} {name.text}\n")

    def _write(self, line: str) -> None:
        data = line.encode()
        if os.write(self._file, data) != len(data):
            raise OSError("a note could not be written whole")


def read_notes(path: Path) -> Notes:
    """All notes; a file that is not there yet says nothing."""
    notes = Notes()
    calls: dict[Name, int] = {}
    for position, line in enumerate(path.read_text().splitlines() if path.exists() else ()):
        verb, channel, rest = line.split(" ", 2)
        text, _, key = rest.rpartition(" ") if verb == "accepted" else (rest, "", "")
        name = read_name(channel, text)
        assert name is not None, f"no note of ours: {line!r}"
        if verb == "accepted":
            notes.accepted[name] = key
            notes.spans[name] = calls[name], position
        elif verb == "failed":
            notes.failed.add(name)
        else:
            notes.begun.add(name)
            notes.failed.discard(name)
            calls[name] = position
    return notes


@dataclass(frozen=True)
class Verdict:
    """What the comparison came to; all but the last two are violations."""

    lost: tuple[Name, ...] = ()
    duplicated: tuple[Name, ...] = ()
    out_of_order: tuple[Name, ...] = ()
    overtaken: tuple[Name, ...] = ()
    refused: tuple[Name, ...] = ()
    owned_twice: tuple[Overlap, ...] = ()
    renamed: tuple[Name, ...] = ()
    strangers: tuple[str, ...] = ()
    unknown: tuple[Name, ...] = ()
    delivered: int = 0

    @property
    def violations(self) -> dict[str, tuple[Any, ...]]:
        """The kinds of violation that were found; empty if the promise held."""
        kinds = [each.name for each in fields(self) if each.name not in ("unknown", "delivered")]
        return {kind: getattr(self, kind) for kind in kinds if getattr(self, kind)}


def judge(notes: Notes, log: Iterable[Mapping[str, Any]], claims: Iterable[str] = ()) -> Verdict:
    """Compare. `log`: the server's stored messages in the order of their arrival (`channel`, `text`, `key`), of the
    channels that the notes are about. `claims`: the lines of a trace of claims, if there is one."""
    strangers: list[str] = []
    keys: dict[Name, str] = {}
    duplicated: list[Name] = []
    for message in log:
        name = read_name(str(message["channel"]), str(message["text"]))
        if name is None or name not in notes.begun:
            strangers.append(str(message["text"]))
        elif name in keys:
            duplicated.append(name)
        else:
            keys[name] = str(message["key"])
    return Verdict(
        lost=tuple(name for name in notes.accepted if name not in keys),
        duplicated=tuple(duplicated),
        out_of_order=tuple(_out_of_order(keys)),
        overtaken=tuple(_overtaken(keys, notes.spans)),
        refused=tuple(name for name in keys if name in notes.failed),
        owned_twice=tuple(overlaps(claims)),
        renamed=tuple(name for name, key in notes.accepted.items() if keys.get(name, key) != key),
        strangers=tuple(strangers),
        unknown=tuple(sorted(notes.begun - notes.accepted.keys() - notes.failed)),
        delivered=len(keys),
    )


def _out_of_order(arrivals: Iterable[Name]) -> Iterable[Name]:
    latest: dict[tuple[int, str], Name] = {}
    for name in arrivals:
        lane = name.sender, name.channel
        if name < latest.get(lane, name):
            yield name
        else:
            latest[lane] = name


def _overtaken(arrivals: Iterable[Name], spans: Mapping[Name, tuple[int, int]]) -> Iterable[Name]:
    """What stands behind a message that was sent only after it had been accepted."""
    latest_call: dict[str, int] = {}  # of all that arrived so far
    for name in arrivals:
        if name not in spans:
            continue  # killed while it was sent: it may take any place after its call
        called, returned = spans[name]
        latest = latest_call.get(name.channel, called)
        if returned < latest:
            yield name
        latest_call[name.channel] = max(latest, called)
