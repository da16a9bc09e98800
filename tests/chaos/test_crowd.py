"""4 processes x 2 threads share one outbox while they are killed and stopped at random, and the server with them.

python -m tests.chaos --messages 100000 --minutes 60        the long run
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatsdk.devserver.process import DevServer
from tests.chaos.crowd import CONTROLS
from tests.chaos.history import Verdict, read_notes
from tests.chaos.monkey import CHANNELS, PROCESSES, Monkey, crew, whole_log
from tests.chaos.runs import make_run
from tests.chaos.schedule import schedule
from tests.chaos.template import ROOT, Template

MESSAGES = 2000
EVENTS = 20
"""So many things go wrong at least."""

MOST_S = 60.0
"""Seconds after which the storm ends in any case."""


@pytest.fixture(scope="module")
def durable_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServer]:
    """A server that remembers what it had accepted when it was killed."""
    with DevServer(tmp_path_factory.mktemp("server") / "server.db") as server:
        yield server


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory, durable_server: DevServer) -> Iterator[list[Template]]:
    """A template for each process."""
    with crew(tmp_path_factory.mktemp("crew"), durable_server) as templates:
        yield templates


@pytest.fixture
def seed() -> int:
    """Of the schedule; printed, and taken from CHAOS_SEED if that is set."""
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"CHAOS_SEED={seed}")
    return seed


def test_a_crowd_of_dying_processes_delivers_each_message_once_and_in_order(
    four: list[Template], durable_server: DevServer, tmp_path: Path, seed: int
) -> None:
    """Whatever is killed, stopped or cut off: accepted is delivered once and in order, refused is not there, and no
    lane ever had two owners."""
    run = make_run(tmp_path, durable_server, 0, channels=CHANNELS)
    monkey = Monkey(run, four, seed)
    monkey.work(MESSAGES, MOST_S, events=EVENTS)
    stats = run.recover(four[0])
    verdict = run.judge(whole_log(durable_server))
    assert verdict.violations == {}, f"CHAOS_SEED={seed}"
    assert verdict.delivered == stats["delivered"] >= monkey.accepted
    assert monkey.accepted >= MESSAGES, "the machine is too slow for this test"
    assert monkey.carried_out["kill"] > 0
    holds = [owner for verb, owner, *_ in map(json.loads, run.claims.read_text().splitlines()) if verb == "holds"]
    assert len(holds) >= verdict.delivered / 2, "the trace has holes"
    assert len(set(holds)) > PROCESSES, "lanes did not pass from one to another"
    refused = len(read_notes(run.notes).failed)
    print(f"{stats}, {refused} refused, {len(verdict.unknown)} unknown, {len(holds)} holds by {len(set(holds))}")


@pytest.mark.parametrize(
    ("control", "kinds", "events", "crime"),
    [
        ("early_acknowledgement", ("kill",), 8, "lost"),
        ("fresh_keys", ("reply_lost",), 3, "duplicated"),
        ("no_order", ("slow",), 1, "overtaken"),
        ("no_owners", ("slow",), 1, "owned_twice"),
    ],
)
def test_each_mutant_is_found_out(
    four: list[Template],
    durable_server: DevServer,
    tmp_path: Path,
    seed: int,
    control: str,
    kinds: tuple[str, ...],
    events: int,
    crime: str,
) -> None:
    """A checker that cannot fail proves nothing: a client that breaks one rule is accused of that."""
    run = make_run(tmp_path, durable_server, 0, channels=CHANNELS)
    messages = 40 if control == "no_owners" else 100  # everybody works for nothing there, and slowly
    Monkey(run, four, seed, control, kinds).work(messages, MOST_S, events=events)
    run.recover(four[0])
    verdict = run.judge(whole_log(durable_server))
    assert crime in verdict.violations, f"CHAOS_SEED={seed}"
    assert not (control != "no_owners" and verdict.owned_twice), "an innocent was blamed"


def test_every_mutant_is_put_to_the_test() -> None:
    """The table above names them all."""
    marks = test_each_mutant_is_found_out.pytestmark  # type: ignore[attr-defined]
    tried = {case[0] for mark in marks for case in mark.args[1]}
    assert tried == {control for control in CONTROLS if control}
    assert {case[3] for mark in marks for case in mark.args[1]} <= Verdict.__dataclass_fields__.keys()


def test_the_long_run_is_a_command_of_its_own() -> None:
    """It prints its seed, the events and the accounts, and its exit code is the verdict."""
    command = [sys.executable, "-m", "tests.chaos", "--messages", "30", "--minutes", "1", "--seed", "5"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0] == "seed 5"
    assert str(next(schedule(5, PROCESSES))) in lines[1]
    assert "'pending': 0" in lines[-1]
