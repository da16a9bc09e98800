"""A bot hears each message of 20 channels once and in order, whatever happens to the connection, to what is published,
to the server, and to the bot itself.

python -m tests.chaos.listening --messages 100000       the long run
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.chaos.listening.heard import Verdict
from tests.chaos.listening.mutants import MUTANTS
from tests.chaos.listening.storm import LAST_WORDS, ROOT, Storm, Terms, serving
from tests.chaos.listening.weather import forecast, only

MOST_S = 60.0
"""Seconds after which the storm ends in any case."""

SHORT = {"silent": 0, "half open": 0, "bot killed": 0}
"""A server that says nothing is found out only after many seconds: that is for the long run, and for
`tests/scenarios`."""


@pytest.fixture
def seed() -> int:
    """Of the forecast; printed, and taken from CHAOS_SEED if that is set."""
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"CHAOS_SEED={seed}")
    return seed


def blow(directory: Path, terms: Terms, seed: int, often: Mapping[str, int]) -> tuple[Storm, Verdict]:
    """A storm, and what it came to."""
    with serving(directory, terms.protocol) as server:
        storm = Storm(directory, server, terms, seed, forecast(seed, terms.messages, often))
        verdict = storm.work(MOST_S)
    print(f"CHAOS_SEED={seed}: {verdict}, {dict(storm.carried_out)}")
    return storm, verdict


@pytest.mark.parametrize(
    ("protocol", "messages"), [("centrifugo", 3000), ("centrifugo-without-recovery", 1500), ("json", 1500)]
)
def test_a_bot_in_a_storm_hears_each_message_once_and_in_order(
    protocol: str, messages: int, tmp_path: Path, seed: int
) -> None:
    """What its handlers saw is the server's log: complete, in order per channel, nothing twice; and hardly anything is
    late."""
    storm, verdict = blow(tmp_path, Terms(protocol=protocol, messages=messages), seed, SHORT)
    assert verdict.violations == {}, f"CHAOS_SEED={seed}"
    assert verdict.heard == messages + LAST_WORDS, "the machine is too slow for this test"
    assert len(verdict.late) <= messages / 100
    assert storm.figures["reconnects"] >= 1, "nothing happened"


def test_a_bot_that_is_killed_skips_nothing(tmp_path: Path, seed: int) -> None:
    """Every message reaches a handler; only what a killed run saw last of a channel may come again."""
    storm, verdict = blow(tmp_path, Terms(messages=2000), seed, {**SHORT, "bot killed": 5})
    assert verdict.violations == {}, f"CHAOS_SEED={seed}"
    assert verdict.heard == 2000 + LAST_WORDS, "the machine is too slow for this test"
    assert storm.carried_out["bot killed"] == 5
    assert verdict.runs >= 2, "all were killed before they began"


@pytest.mark.parametrize("protocol", ["centrifugo", "centrifugo-without-recovery", "json"])
def test_a_bot_whose_websocket_is_blocked_again_and_again(protocol: str, tmp_path: Path, seed: int) -> None:
    """What is polled and what is told: each once and in order, across every switch."""
    storm, verdict = blow(tmp_path, Terms(protocol=protocol, messages=1500), seed, only(blocked=4, cut=2))
    assert verdict.violations == {}, f"CHAOS_SEED={seed}"
    assert verdict.heard == 1500 + LAST_WORDS, "the machine is too slow for this test"
    assert storm.figures["polls"] >= 1, "nothing was polled"


@pytest.mark.parametrize("protocol", ["centrifugo", "json"])
def test_a_bot_that_leaves_channels_and_comes_back_misses_nothing(protocol: str, tmp_path: Path, seed: int) -> None:
    """It goes on where its handlers stopped, also where one of them is still at work."""
    terms = Terms(protocol=protocol, messages=800, slow=0.1, fidget_s=0.03)
    _, verdict = blow(tmp_path, terms, seed, only(cut=2))
    assert verdict.violations == {}, f"CHAOS_SEED={seed}"
    assert verdict.heard == 800 + LAST_WORDS, "the machine is too slow for this test"


@pytest.mark.parametrize(
    ("control", "often", "crime"),
    [
        ("no_recovery", only(cut=3), "missing"),
        ("no_recovery", only(blocked=3), "missing"),
        ("no_dedup", only(blocked=3), "repeated"),
        ("no_dedup", only(published_twice=3), "repeated"),
        ("no_order", only(published_shuffled=3), "disordered"),
        ("no_quiet_check", only(), "missing"),
        ("early_cursor", only(bot_killed=4), "missing"),
        ("no_cursor", only(bot_killed=1), "missing"),
    ],
)
def test_each_mutant_is_found_out(
    control: str, often: Mapping[str, int], crime: str, tmp_path: Path, seed: int
) -> None:
    """A checker that cannot fail proves nothing: a client that breaks one rule is accused of that."""
    terms = Terms(messages=600, control=control, slow=0.4 if control == "early_cursor" else 0.01, patience=2.5)
    _, verdict = blow(tmp_path, terms, seed, often)
    assert crime in verdict.violations, f"CHAOS_SEED={seed}"
    assert not verdict.strangers, "something was invented"
    assert not verdict.changed, "something was forged"


def test_every_mutant_is_put_to_the_test() -> None:
    """The table above names them all."""
    marks = test_each_mutant_is_found_out.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for mark in marks for case in mark.args[1]} == {control for control in MUTANTS if control}


def test_the_long_run_is_a_command_of_its_own() -> None:
    """It prints its seed, the events and the accounts, and its exit code is the verdict."""
    command = [sys.executable, "-m", "tests.chaos.listening", "--messages", "300", "--seed", "5", "--kill-bot"]
    ended = subprocess.run([*command, "--control", "no_cursor"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[0] == "seed 5"
    assert str(forecast(5, 300)[0]) in lines[1]
    assert any(line.startswith("seed 5: 300 sent, ") for line in lines)
    assert lines[-1] == "the mutant was found out"
