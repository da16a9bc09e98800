"""A long run: `python -m tests.chaos.listening --messages 100000 --minutes 30 --seed 7 --protocol json --kill-bot`.

A bot listens to 20 channels, to which 6 senders send so many messages, as fast as the server takes them, while the
connection, the publications, the server and (with `--kill-bot`) the bot suffer what a seeded forecast says. Prints what
is carried out and the verdict; exit code 0 if every promise held, 1 if not, 2 for a wrong call. With `--control` the
bot is a mutant, and the exit code says whether the checker found it out.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.listening.mutants import MUTANTS
from tests.chaos.listening.storm import PROTOCOLS, Storm, Terms, serving
from tests.chaos.listening.weather import forecast

SHOWN = 5
"""Violations of a kind that are printed."""

STALLS = 10
"""How often the handler of the first channel stops for `STALL_S` seconds, in a long run."""

STALL_S = 6.0


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.listening", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--messages", type=int, default=3000, help="how many are sent (default 3000)")
    parser.add_argument("--minutes", type=float, default=60.0, help="the longest that is sent (default 60)")
    parser.add_argument("--seed", type=int, default=None, help="of the forecast (default: one by chance, printed)")
    parser.add_argument("--protocol", choices=PROTOCOLS, default=PROTOCOLS[0])
    parser.add_argument("--kill-bot", action="store_true", help="kill the bot too, and start it again")
    parser.add_argument("--control", choices=sorted(filter(None, MUTANTS)), default="", help="listen with this mutant")
    parser.add_argument("--keep", type=Path, default=None, help="leave notes and state in this directory")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chatsdk-chaos-") as temporary:
        directory = given.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        terms = Terms(
            protocol=given.protocol,
            messages=given.messages,
            control=given.control,
            quiet_check=5.0 if given.messages > 10_000 else 1.0,
            stall_every=given.messages // 4 // STALLS if given.messages > 10_000 else 0,
            stall_s=STALL_S,
            patience=5.0 if given.control else 60.0,
        )
        coming = forecast(seed, given.messages, None if given.kill_bot else {"bot killed": 0})
        with serving(directory, given.protocol) as server:
            storm = Storm(directory, server, terms, seed, coming, say=lambda line: print(line, flush=True))
            began = time.monotonic()
            verdict = storm.work(given.minutes * 60)
        print(f"events: {dict(storm.carried_out)}")
        print(f"the bot at its end: { ({**storm.figures, 'subscriptions': None}) }")
        print(f"seed {seed}: {storm.sent} sent, {verdict}, {time.monotonic() - began:.0f} s")
        errors = storm.errors.splitlines()
        for line in errors[:20]:
            print(f"  the bot's log: {line}")
    for kind, found in verdict.violations.items():
        print(f"VIOLATION {kind}: {len(found)}, such as {found[:SHOWN]}")
    if given.control:
        print("the mutant was found out" if verdict.violations else "THE MUTANT WAS NOT FOUND OUT")
        return 0 if verdict.violations else 1
    if verdict.violations:
        print(f"the promise did not hold; try again with --seed {seed}")
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
