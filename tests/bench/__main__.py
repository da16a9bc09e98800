"""`python -m tests.bench [NAME...] [--json] [--rounds N]`: what chatsdk costs, beside what people use otherwise.

NAME is pipeline, outbox, coldstart, users, drain, contention, wake, receive, reconnect, idle, quality or health;
without one all are run, in about half an hour. Peers that are not installed (`pip install -e ".[bench]"`) are said to
be missing. Exit code 1: some goal was missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from .report import Goal, Row, json_lines, table

NAMES = (
    "pipeline", "outbox", "coldstart", "users", "drain", "contention", "wake", "receive", "reconnect", "idle",
    "quality", "health",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for and show it as it comes."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure chatsdk beside its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all, if none is named")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--rounds", type=int, default=9, help="how often subjects take turns (default 9)")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.names if name not in NAMES]
    if unknown or chosen.rounds < 1:
        parser.error(f"there is no {', '.join(unknown)}" if unknown else "--rounds must be 1 or more")
    missed = 0
    for name in chosen.names or NAMES:
        rows: list[Row] = list(import_module(f"tests.bench.{name}").run(chosen.rounds))
        print(json_lines(rows) if chosen.json else table(rows), flush=True)
        missed += sum(isinstance(row, Goal) and row.met is False for row in rows)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
