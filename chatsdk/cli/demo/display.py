"""What is seen of the demo: a live view on a terminal, one line an event anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import output
from .checker import Verdict
from .story import KILLED, LEFT, RUNS, Snapshot

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

MARKS = {RUNS: "●", KILLED: "✕", LEFT: "○"}
COLOURS = {RUNS: "green", KILLED: "red", LEFT: "dim"}
KEPT = 6
"""Events that the live view shows."""


class Lines:
    """For pipes and files: what happened, one line each."""

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *exc: object) -> None:
        return

    def say(self, elapsed: float, text: str) -> None:
        """One line."""
        output.line(f"[{elapsed:5.1f} s] {text}")

    def show(self, snapshot: Snapshot) -> None:
        """Nothing: numbers that move are for terminals."""


class Live:
    """For terminals: the numbers as they move, and the last events. `console`: a rich Console."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live as RichLive

        self._events: list[str] = []
        self._snapshot = Snapshot()
        self._live = RichLive(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Live:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def say(self, elapsed: float, text: str) -> None:
        """An event joins the list."""
        self._events = [*self._events, f"{elapsed:5.1f} s  {text}"][-KEPT:]
        self.show(self._snapshot)

    def show(self, snapshot: Snapshot) -> None:
        """Draw how things stand."""
        self._snapshot = snapshot
        self._live.update(self._draw(snapshot), refresh=True)

    def _draw(self, now: Snapshot) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        bars = Table.grid(padding=(0, 1))
        for name, count in (("accepted", now.accepted), ("delivered", now.stored)):
            bars.add_row(
                name, ProgressBar(total=max(1, now.messages), completed=count, width=40), f"{count}/{now.messages}"
            )
        people = Text()
        for name, state in (("server", now.server), ("sending process", now.sender)):
            people.append(MARKS[state], style=COLOURS[state])
            people.append(f" {name} {state}   ")
        faults = ", ".join(f"{kind} {count}" for kind, count in now.faults.items() if count) or "none yet"
        facts = Text(f"waiting in the outbox {now.pending}   tries {now.attempts}   faults met: {faults}")
        title = f"{now.act}/{now.acts} {now.title}" if now.act else "starting"
        events = Text("\n".join(self._events), style="dim")
        return Panel(
            Group(bars, people, facts, Text(), events), title=title, subtitle=f"{now.elapsed:.1f} s", width=100
        )


def show_verdict(verdict: Verdict) -> None:
    """The table at the end, on a terminal and elsewhere, and one sentence on what it means."""
    width = max(len(name) for name, _ in rows(verdict))
    output.line()
    for name, value in rows(verdict):
        output.line(f"{name:<{width}}  {value}")
    output.line()
    if verdict.good:
        output.line("Every accepted message was delivered exactly once, and in order.")
    for failure in verdict.failures:
        output.line(f"FAILED: {failure}")
    for gap in verdict.gaps:
        output.line(f"PROVES NOTHING: {gap}")


def rows(verdict: Verdict) -> Sequence[tuple[str, str]]:
    """The verdict as a table of two columns."""
    faults = ", ".join(f"{kind} {count}" for kind, count in verdict.faults.items() if count)
    kills = ", ".join(f"{kill.who} with {kill.pending} waiting" for kill in verdict.kills)
    box = verdict.outbox
    ends = " + ".join(f"{name} {box[name]}" for name in ("delivered", "dead", "pending", "discarded"))
    return (
        ("begun (send was called)", str(verdict.begun)),
        ("accepted (send returned)", str(verdict.accepted)),
        ("sent (the outbox says so)", str(box["delivered"])),
        ("delivered (in the server's log)", str(verdict.delivered)),
        ("lost", str(verdict.lost)),
        ("duplicated", str(verdict.duplicated)),
        ("out of order", str(verdict.out_of_order)),
        ("attempts", str(verdict.attempts)),
        ("attempts per message", f"{verdict.attempts_per_message:.2f}"),
        ("faults met", faults),
        ("replies lost after storing", str(verdict.lost_replies)),
        ("kills (SIGKILL)", kills),
        ("outbox accounting", f"accepted {box['accepted']} = {ends}"),
    )
