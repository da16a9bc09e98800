"""A long run: `python -m tests.chaos --messages 100000 --seed 7 --minutes 60`.

4 processes of 2 threads share one outbox and 8 channels until so many messages were accepted, or the time is up, while
processes and server are killed, stopped and hindered by a seeded schedule. Prints the schedule as it is carried out and
the verdict; exit code 0 if every promise held, 1 if not, 2 for a wrong call. With `--control` the client is a mutant,
and the exit code says whether the checker found it out.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from pathlib import Path

from chatsdk.devserver.process import DevServer
from tests.chaos.crowd import CONTROLS
from tests.chaos.history import read_notes
from tests.chaos.monkey import CHANNELS, Monkey, crew, whole_log
from tests.chaos.runs import make_run

SHOWN = 5
"""Violations of a kind that are printed."""


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--messages", type=int, default=2000, help="how many must be accepted (default 2000)")
    parser.add_argument("--minutes", type=float, default=60.0, help="the longest that messages are sent (default 60)")
    parser.add_argument("--seed", type=int, default=None, help="of the schedule (default: one by chance, printed)")
    parser.add_argument("--control", choices=sorted(filter(None, CONTROLS)), default="", help="send with this mutant")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chatsdk-chaos-")))
        server = stack.enter_context(DevServer(directory / "server.db"))
        templates = stack.enter_context(crew(directory, server))
        run = make_run(directory, server, 0, channels=CHANNELS)
        monkey = Monkey(run, templates, seed, given.control, say=lambda line: print(line, flush=True))
        began = time.monotonic()
        monkey.work(given.messages, given.minutes * 60, events=1)
        stats = run.recover(templates[0], seconds=600)
        verdict = run.judge(whole_log(server))
        refused = len(read_notes(run.notes).failed)
    print(f"seed {seed}: {stats}, delivered {verdict.delivered}, unknown {len(verdict.unknown)}, ", end="")
    print(f"refused {refused}, {time.monotonic() - began:.0f} s")
    for kind, found in verdict.violations.items():
        print(f"VIOLATION {kind}: {len(found)}, such as {found[:SHOWN]}")
    held = not verdict.violations and verdict.delivered == stats["delivered"]
    if given.control:
        print("the mutant was found out" if verdict.violations else "THE MUTANT WAS NOT FOUND OUT")
        return 0 if verdict.violations else 1
    if not held:
        print(f"the promise did not hold; try again with --seed {seed}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
