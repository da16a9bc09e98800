"""Several processes share one outbox while a monkey kills and stops them, kills the server and spoils its answers.

One thread drives it all: it carries out the schedule's events and what they leave to be undone (a stopped process goes
on, a server starts again). Each event is printed as it is carried out. Times are real, so two runs of one seed have the
same events in the same order, and interleave them with the messages as the machine has it.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chatsdk.devserver.process import DevServer
from tests.chaos.claims import Trace
from tests.chaos.runs import Run
from tests.chaos.schedule import WEIGHTS, Event, schedule
from tests.chaos.template import Template

PROCESSES = 4
CHANNELS = 8
LOOK_S = 0.1
"""Seconds between two looks at how many messages were accepted."""

FAULTS: dict[str, dict[str, Any]] = {
    "reply_lost": {"kind": "reply_lost", "probability": 0.3},
    "unavailable": {"kind": "status", "status": 503, "probability": 0.7},
    "drop": {"kind": "drop", "probability": 0.5},
    "slow": {"kind": "latency", "ms": 20, "jitter_ms": 80},
}


@contextlib.contextmanager
def crew(directory: Path, server: DevServer) -> Iterator[list[Template]]:
    """Templates, one for each process."""
    with contextlib.ExitStack() as stack:
        templates: list[Template] = []
        for number in range(PROCESSES):
            folder = directory / f"template-{number}"
            folder.mkdir()
            templates.append(stack.enter_context(Template(folder)))
        first = templates[0]
        first.learn(rounds=1, **Run(first.directory, server, (server.channel("alice"),)).job)
        for template in templates[1:]:
            template.learn_from(first)
        yield templates


@dataclass
class Monkey:
    """One run. `templates`: one for each process; `control`: which mutant sends; `kinds`: what may happen."""

    run: Run
    templates: list[Template]
    seed: int
    control: str = ""
    kinds: Sequence[str] = tuple(WEIGHTS)
    say: Callable[[str], None] = print
    carried_out: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._server: DevServer = self.run.server
        self._trace = Trace(self.run.claims, "monkey")
        self._runs = [0] * len(self.templates)
        self._children = [0] * len(self.templates)
        self._stopped: set[int] = set()
        self._undo: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._read = self.accepted = 0

    # ---- the whole of it

    def work(self, messages: int, seconds: float, *, events: int) -> None:
        """Go on until so many messages were accepted and so many events carried out, or the time is up. Afterwards the
        processes have ended in peace, and server and answers are as they should be."""
        began = time.monotonic()
        for process in range(len(self.templates)):
            self._start(process)
        coming = schedule(self.seed, len(self.templates), self.kinds)
        try:
            self._storm(coming, began, messages, began + seconds, events)
        finally:
            self._calm()
        self.say(f"{time.monotonic() - began:8.3f} s  calm after {dict(self.carried_out)}, {self.accepted} accepted")

    def _storm(self, coming: Iterator[Event], began: float, messages: int, ends: float, events: int) -> None:
        event = next(coming)
        due = time.monotonic() + event.after
        while time.monotonic() < ends and (self._count() < messages or self.carried_out.total() < events):
            now = time.monotonic()
            while self._undo and self._undo[0][0] <= now:
                heapq.heappop(self._undo)[2]()
            if now >= due:
                self.say(f"{now - began:8.3f} s  {event} ({self.accepted} accepted)")
                self._carry_out(event)
                self.carried_out[event.what] += 1
                event = next(coming)
                due = time.monotonic() + event.after
            following = min(due, self._undo[0][0] if self._undo else due)
            time.sleep(max(0.0, min(following - time.monotonic(), LOOK_S)))

    def _calm(self) -> None:
        (self.run.directory / "stop").touch()
        while self._undo:
            heapq.heappop(self._undo)[2]()
        self._server.clear_faults()
        running = [template for template, child in zip(self.templates, self._children, strict=True) if child]
        ended = [template.end() for template in running]
        assert ended == [0] * len(ended), [template.errors.read_text() for template in running]

    def _count(self) -> int:
        if self.run.notes.exists():
            with self.run.notes.open("rb") as notes:
                notes.seek(self._read)
                news = notes.read()
            self._read += len(news)
            self.accepted += news.count(b"accepted ")  # a note is one write, so none is read in two parts
        return self.accepted

    # ---- what happens

    def _carry_out(self, event: Event) -> None:
        if event.what == "kill":
            self._kill(event.process)
        elif event.what == "stop":
            self._stop(event.process, event.seconds)
        elif event.what == "server":
            if self._server.pid is not None:
                self._server.kill()
                self._later(event.seconds, self._revive)
        elif self._server.pid is not None:
            self._server.faults(operation="send", for_s=event.seconds, seed=event.seed, **FAULTS[event.what])

    def _start(self, process: int) -> None:
        run = self._runs[process]
        job = {
            **self.run.job,
            "claims": str(self.run.claims),
            "stop": str(self.run.directory / "stop"),
            "control": self.control,
            "process": process,
            "run": run,
            "owner": f"process {process} run {run}",
            "seed": f"{self.seed} {process} {run}",
        }
        self._children[process] = self.templates[process].fork("crowd", **job)
        self.templates[process].go()

    def _kill(self, process: int) -> None:
        self._trace.killed(f"process {process} run {self._runs[process]}")
        child, self._children[process] = self._children[process], 0
        os.kill(child, signal.SIGKILL)
        ended = self.templates[process].end()
        assert ended == -signal.SIGKILL, self.templates[process].errors.read_text()
        self._stopped.discard(child)
        self._runs[process] += 1
        self._start(process)

    def _stop(self, process: int, seconds: float) -> None:
        child = self._children[process]
        os.kill(child, signal.SIGSTOP)
        self._stopped.add(child)
        self._later(seconds, lambda: self._go_on(child))

    def _go_on(self, child: int) -> None:
        if child in self._stopped:
            self._stopped.discard(child)
            os.kill(child, signal.SIGCONT)

    def _revive(self) -> None:
        if self._server.pid is None:
            self._server.start()

    def _later(self, seconds: float, undo: Callable[[], None]) -> None:
        heapq.heappush(self._undo, (time.monotonic() + seconds, next(self._numbers), undo))


def whole_log(server: DevServer) -> list[dict[str, Any]]:
    """All messages that the server ever stored, in the order of their arrival."""
    messages: list[dict[str, Any]] = []
    while page := server.log(since=messages[-1]["position"] if messages else 0, attempts_since=2**53)["messages"]:
        messages += page
    return messages
