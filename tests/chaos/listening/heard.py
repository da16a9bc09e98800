"""What a bot's handlers saw, compared with what the server's own log holds. Pure but for reading and writing the notes.

The bot writes a line when it starts, and one in each handler: one write to a file opened with O_APPEND, so threads do
not mix, and a SIGKILL leaves whole lines. A run is what lies between two starts.

Rules of the judgement:
* missing: the log has it, and no handler saw it.
* repeated: a handler saw it again: in the same run, or in a later one although it was done with. In flight, and no
  violation, is what a killed run saw last of its channel: nobody knows whether its handler came to its end.
* disordered: it came behind a later one of its channel, and was not flagged late.
* strangers: the log does not have it, in that channel, under that id.
* changed: it has another seq or text there.
* gaps: a handler was told that something is missing for good, though the server's history has everything.
* late: came behind later ones, and was flagged so. No violation, but there should be few.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple


class Sight(NamedTuple):
    """A message that a handler saw."""

    run: int
    channel: str
    id: str
    seq: int
    late: bool
    text: str


class Notebook:
    """The notes, for the process that listens."""

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def begins(self, run: int) -> None:
        """A run begins; later ones have higher numbers."""
        self._write(f"run {run}\n")

    def saw(self, channel: str, id: str, seq: int | None, late: bool, text: str) -> None:
        """In the handler."""
        self._write(f"saw {channel} {id} {-1 if seq is None else seq} {'late' if late else 'due'} {text}\n")

    def gap(self, channel: str, reason: str) -> None:
        """In the handler of gaps."""
        self._write(f"gap {channel} {reason}\n")

    def state(self, channel: str, state: str) -> None:
        """In the handler of subscriptions' states."""
        self._write(f"state {channel} {state}\n")

    def _write(self, line: str) -> None:
        data = line.encode()
        if os.write(self._file, data) != len(data):
            raise OSError("a note could not be written whole")


class Notes:
    """All notes so far; `read` goes on where it stopped. `saw` in order, `gaps` as told, `states` of the newest run."""

    def __init__(self, path: Path) -> None:
        self._path, self._place, self._rest = path, 0, b""
        self.run = 0
        self.sights: list[Sight] = []
        self.ids: set[tuple[str, str]] = set()
        self.gaps: list[str] = []
        self.states: dict[str, str] = {}

    def read(self) -> Notes:
        """Read what was added."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._place)
                data = file.read()
            self._place += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._take(line.decode())
        return self

    def _take(self, line: str) -> None:
        verb, _, rest = line.partition(" ")
        if verb == "run":
            self.run = int(rest)
            self.states.clear()
        elif verb == "gap":
            self.gaps.append(rest)
        elif verb == "state":
            channel, state = rest.split(" ")
            self.states[channel] = state
        else:
            channel, id, seq, late, text = rest.split(" ", 4)
            self.sights.append(Sight(self.run, channel, id, int(seq), late == "late", text))
            self.ids.add((channel, id))


@dataclass(frozen=True)
class Verdict:
    """What the comparison came to; all but the last four are violations."""

    missing: tuple[str, ...] = ()
    repeated: tuple[Sight, ...] = ()
    disordered: tuple[Sight, ...] = ()
    strangers: tuple[Sight, ...] = ()
    changed: tuple[Sight, ...] = ()
    gaps: tuple[str, ...] = ()
    late: tuple[Sight, ...] = ()
    in_flight: tuple[Sight, ...] = ()
    heard: int = 0
    runs: int = 0

    @property
    def violations(self) -> dict[str, tuple[Any, ...]]:
        """The kinds of violation that were found; empty if the promise held."""
        kinds = [each.name for each in fields(self)][:6]
        return {kind: getattr(self, kind) for kind in kinds if getattr(self, kind)}

    def __str__(self) -> str:
        return f"{self.heard} heard in {self.runs} runs, {len(self.late)} late, {len(self.in_flight)} in flight again"


def judge(sights: Iterable[Sight], log: Iterable[Mapping[str, Any]], gaps: Iterable[str] = ()) -> Verdict:
    """Compare. `log`: the server's stored messages (`channel`, `key`, `seq`, `text`) of the channels that the bot
    heard, all of them sent after it began to hear them."""
    stored = {(str(each["channel"]), str(each["key"])): each for each in log}
    found: dict[str, list[Sight]] = {kind: [] for kind in ("repeated", "disordered", "strangers", "changed", "late")}
    in_flight: list[Sight] = []
    last: dict[str, Sight] = {}  # what was seen last of each channel
    highest: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()
    runs: set[int] = set()
    for sight in sights:
        name = sight.channel, sight.id
        runs.add(sight.run)
        before = last.get(sight.channel)
        last[sight.channel] = sight
        message = stored.get(name)
        if message is None:
            found["strangers"].append(sight)
        elif (message["seq"], message["text"]) != (sight.seq, sight.text):
            found["changed"].append(sight)
        if name in seen:
            interrupted = before is not None and before.run < sight.run and before.id == sight.id
            (in_flight if interrupted else found["repeated"]).append(sight)
            continue
        seen.add(name)
        if sight.late:
            found["late"].append(sight)
        elif sight.seq <= highest.get(sight.channel, -1):
            found["disordered"].append(sight)
        highest[sight.channel] = max(highest.get(sight.channel, -1), sight.seq)
    return Verdict(
        **{kind: tuple(these) for kind, these in found.items()},
        missing=tuple(
            f"{channel} {each['seq']} {each['text']}"
            for (channel, id), each in stored.items()
            if (channel, id) not in seen
        ),
        gaps=tuple(gaps),
        in_flight=tuple(in_flight),
        heard=len(seen),
        runs=len(runs),
    )
