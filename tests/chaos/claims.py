"""The trace of claims: which process (and thread of it) had which lane, and whether two ever had one at a time.

A recorded hold is never longer than the real one, so that nobody innocent is blamed: "holds" is written after the store
said that the lane is ours, "leaves" before the store is told to give it away, and "killed" by the killer before it
kills; what the victim still writes after that does not count. The file is opened with O_APPEND: of two notes the one
that stands first was written first. So two holds that overlap in the file overlapped in truth.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from chatsdk.core.store import Claim, Lane, Park, Row


class Overlap(NamedTuple):
    """A lane that two had at a time."""

    lane: tuple[str, str]
    first: str
    second: str


def overlaps(lines: Iterable[str]) -> Iterable[Overlap]:
    """Each time that somebody got a lane that somebody else had not left yet."""
    holders: dict[tuple[str, str], tuple[str, int]] = {}
    dead: set[str] = set()
    for line in lines:
        verb, owner, thread, user, channel = json.loads(line)
        lane = user, channel
        if verb == "killed":
            dead.add(owner)
        if verb in ("killed", "closed"):
            holders = {lane: holder for lane, holder in holders.items() if holder[0] != owner}
        elif owner in dead:
            continue
        elif verb == "leaves":
            if lane in holders and holders[lane][0] == owner:  # any thread of it may give a lane back
                del holders[lane]
        else:
            before = holders.get(lane)
            if before is not None and before != (owner, thread):
                yield Overlap(lane, f"{before[0]} thread {before[1]}", f"{owner} thread {thread}")
            holders[lane] = owner, thread


class Trace:
    """The trace, for one process that writes it. `owner`: its name, which no other process ever has."""

    def __init__(self, path: str | Path, owner: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._owner = owner
        self._mutex = threading.Lock()
        self._closed = False
        self._left: dict[Lane, int] = {}

    def leaves(self, lane: Lane) -> int:
        """The lane may be given away from now on. Returns a number for `holds`."""
        with self._mutex:
            self._write("leaves", lane)
            self._left[lane] = self._left.get(lane, 0) + 1
            return self._left[lane]

    def holds(self, lane: Lane, since: int | None = None) -> None:
        """The lane is ours, unless another thread has left it after the `leaves` that gave the number `since`."""
        with self._mutex:
            if not self._closed and since in (None, self._left.get(lane)):
                self._write("holds", lane)

    def closed(self) -> None:
        """All lanes may be given away, and none is taken any more."""
        with self._mutex:
            self._closed = True
            self._write("closed")

    def killed(self, owner: str) -> None:
        """Somebody is about to be killed."""
        self._write("killed", owner=owner)

    def _write(self, verb: str, lane: Lane | None = None, *, owner: str | None = None) -> None:
        note = [verb, owner or self._owner, threading.get_ident(), *(lane or ("", ""))]
        data = json.dumps(note).encode() + b"\n"
        if os.write(self._file, data) != len(data):
            raise OSError("a note could not be written whole")


class TracedStore:
    """An outbox store that writes down whose the lanes are."""

    def __init__(self, store: Any, trace: Trace) -> None:
        self._store = store
        self._trace = trace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def claim(self, now: float, **which: Any) -> Claim | None:
        claim: Claim | None = self._store.claim(now, **which)
        if claim is not None:
            self._trace.holds(claim.lane)
        return claim

    def finish(self, lane: Lane, *row: Any, **facts: Any) -> Sequence[Row]:
        return self._end("finish", lane, *row, **facts)

    def bury(self, lane: Lane, *row: Any, **facts: Any) -> Sequence[Row]:
        return self._end("bury", lane, *row, **facts)

    def _end(self, verb: str, lane: Lane, *row: Any, **facts: Any) -> Sequence[Row]:
        left = self._trace.leaves(lane)
        rows: Sequence[Row] = getattr(self._store, verb)(lane, *row, **facts)
        if rows:
            self._trace.holds(lane, left)
        return rows

    def park(self, lane: Lane, row: int | None, park: Park) -> None:
        self._trace.leaves(lane)
        self._store.park(lane, row, park)

    def release(self, lane: Lane) -> None:
        self._trace.leaves(lane)
        self._store.release(lane)

    def close(self) -> None:
        self._trace.closed()
        self._store.close()
