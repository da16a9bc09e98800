"""`python -m tests.scenarios [--short] [--only NAME] [--seed N] [--json]`: the seeds' resilience suite, as a table.

Each scenario plays the same messages twice at once, with chatsdk and by a bare script, over the same bad network; the
server's own record says what became of them. About six minutes; `--short` under two. Exit code 1: a
target was missed, or the script did as well. `--only`: scenarios whose name has that in it; may be repeated.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.scenarios import saving
from tests.scenarios.catalogue import SCENARIOS
from tests.scenarios.overall import overall
from tests.scenarios.report import Row, json_lines, table
from tests.scenarios.scenario import Scenario
from tests.scenarios.stage import Stage, serving

SAVING = "saving"
"""By this name `--only` knows the rows about requests, wake-ups and CPU, which are no scenarios of sending."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios", description="The seeds' resilience suite.")
    parser.add_argument("--short", action="store_true", help="all of it scaled down")
    parser.add_argument("--only", action="append", metavar="NAME", help="what has that in its name; may be repeated")
    parser.add_argument("--seed", type=int, default=None, help="of all dice (default: one by chance, printed)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    chosen = [each for each in SCENARIOS if _wanted(each.name, given.only)]
    saves = _wanted(SAVING, given.only)
    if not chosen and not saves:
        parser.error(f"there is no such scenario; there are {', '.join([each.name for each in SCENARIOS])}, {SAVING}")
    for name in list(os.environ):  # neither the developer's settings nor a proxy are part of it
        if name.startswith("CHATSDK_") or name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
            del os.environ[name]
    began, rows = time.monotonic(), []
    print(f"seed {seed}", file=sys.stderr, flush=True)
    for row in _rows(chosen, saves, short=given.short, seed=seed):
        rows.append(row)
        print(f"{time.monotonic() - began:6.1f} s  {row.name}: {row.verdict}", file=sys.stderr, flush=True)
        if given.json:
            print(json_lines([row]), flush=True)
    if not given.json:
        print(table(rows, shutil.get_terminal_size().columns if sys.stdout.isatty() else None))
    if given.short:
        print("--short: outages and rides were shorter, and fewer packets lost, than the names say", file=sys.stderr)
    return 1 if any(row.ok is False for row in rows) else 0


def _wanted(name: str, only: Sequence[str] | None) -> bool:
    return only is None or any(part.lower() in name.lower() for part in only)


def _rows(chosen: Sequence[Scenario], saves: bool, *, short: bool, seed: int) -> Iterator[Row]:
    if chosen:
        results = []
        with tempfile.TemporaryDirectory(prefix="chatsdk-scenarios-") as directory, serving(Path(directory)) as server:
            stage = Stage(server, Path(directory), short=short, seed=seed)
            for scenario in chosen:
                results.append(scenario.run(stage))
                yield results[-1].row
        yield from overall(results)
    if saves:
        yield from saving.rows(short=short, seed=seed)


if __name__ == "__main__":
    sys.exit(main())
