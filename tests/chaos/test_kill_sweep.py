"""kill -9 at every point where a client makes something durable or tells somebody, and at random ones.

    python -m pytest tests/chaos -k kill_sweep          every point of 3 rounds, and 100 random kills
    python -m pytest tests/chaos -k kill_sweep --full   every point of 30 rounds

The promise under test: what `send` returned for is delivered exactly once, in order, by whoever opens the outbox
next. The control acknowledges before the outbox has committed, and must be found out: a checker that can't fail proves
nothing.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from chatsdk.devserver.process import DevServer
from tests.chaos import strace
from tests.chaos.runs import Run, make_run
from tests.chaos.sweep import side_by_side
from tests.chaos.template import Template

KILLS = 100
FIRST_KEY_S = 20.0
LONGEST_S = 0.15
"""Seconds from the first acknowledged key to the latest kill."""

Point = strace.Point


def count(template: Template, run: Run, kind: str, rounds: int) -> dict[str, int]:
    """How many points a run without faults has, by system call."""
    trace = run.directory / "trace"
    child = template.fork(kind, rounds=rounds, **run.job)
    with strace.attached(child, *strace.count_into(trace)):
        template.go()
        assert template.end() == 0, template.errors.read_text()
    return dict(strace.counted(trace))


def killed(template: Template, run: Run, kind: str, rounds: int, point: Point) -> int:
    """Run it with a kill at this point; how it ended."""
    child = template.fork(kind, rounds=rounds, **run.job)
    with strace.attached(child, *strace.kill_at(*point)):
        template.go()
        return template.end()


def test_kill_sweep_of_every_write_sync_and_send(
    templates: list[Template], server: DevServer, tmp_path: Path, can_inject: None, full: bool
) -> None:
    """Wherever the one-shot client is killed, nothing acknowledged is lost, doubled or out of order."""
    rounds = 30 if full else 3
    began = time.monotonic()
    counts = count(templates[0], make_run(tmp_path, server, 0), "one_shot", rounds)
    assert set(counts) == set(strace.CALLS), "a kind of point that never comes up is not put to the test"
    points = [(call, n) for call, times in sorted(counts.items()) for n in range(1, times + 1)]
    runs = {point: make_run(tmp_path, server, number) for number, point in enumerate(points, 1)}
    ended: dict[Point, int] = {}
    accounted: dict[Point, int] = {}

    def one(template: Template, number: int) -> None:
        point = points[number]
        ended[point] = killed(template, runs[point], "one_shot", rounds, point)
        accounted[point] = runs[point].recover(template)["delivered"]

    side_by_side(templates, one, range(len(points)))
    for call, times in counts.items():  # the count was not short: there is no further point
        run = make_run(tmp_path, server, len(points) + 1 + strace.CALLS.index(call))
        assert killed(templates[0], run, "one_shot", rounds, (call, times + 1)) == 0, f"{call} {times + 1} exists"
    assert {point: code for point, code in ended.items() if code != -signal.SIGKILL} == {}, "not killed"
    log = server.log()["messages"]
    verdicts = {point: run.judge(log) for point, run in runs.items()}
    assert {point: verdict.violations for point, verdict in verdicts.items() if verdict.violations} == {}
    assert {point for point, verdict in verdicts.items() if verdict.delivered != accounted[point]} == set()
    unknown = sum(len(verdict.unknown) for verdict in verdicts.values())
    print(f"{len(points)} points {counts}, {unknown} unknown, {time.monotonic() - began:.1f} s")


def test_kill_sweep_finds_out_who_acknowledges_before_the_commit(
    templates: list[Template], server: DevServer, tmp_path: Path, can_inject: None
) -> None:
    """The control: a sender that notes "accepted" before `send` returned loses messages, and the checker says which."""
    counts = count(templates[0], make_run(tmp_path, server, 0), "boastful", 1)
    points = [("pwrite64", n) for n in range(1, counts["pwrite64"] + 1, 4)]
    runs = [make_run(tmp_path, server, number) for number, _ in enumerate(points, 1)]

    def one(template: Template, number: int) -> None:
        assert killed(template, runs[number], "boastful", 1, points[number]) == -signal.SIGKILL
        runs[number].recover(template)

    side_by_side(templates, one, range(len(points)))
    log = server.log()["messages"]
    found = [run.judge(log).violations for run in runs]
    assert any("lost" in violations for violations in found)
    assert all(violations.keys() <= {"lost"} for violations in found)


def test_kill_sweep_at_random_moments_of_a_threaded_client(
    templates: list[Template], server: DevServer, tmp_path: Path, full: bool
) -> None:
    """Many threads and channels, killed 100 times at random while replies get lost; each run starts on what the one
    before left behind."""
    kills = KILLS * 10 if full else KILLS
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"CHAOS_SEED={seed}")
    began = time.monotonic()
    runs = [make_run(tmp_path, server, number, channels=3) for number in range(len(templates))]
    server.faults("reply_lost", operation="send", probability=0.02, seed=seed)
    try:

        def series(template: Template, number: int) -> None:
            for kill in range(number, kills, len(templates)):
                assert kill_once(template, runs[number], kill, seed + kill) == -signal.SIGKILL

        side_by_side(templates, series, range(len(runs)))
    finally:
        server.clear_faults()
    waiting = [int(line) for run in runs for line in run.answer.read_text().split()]
    accounted = [run.recover(template) for run, template in zip(runs, templates, strict=True)]
    log = server.log()["messages"]
    verdicts = [run.judge(log) for run in runs]
    assert [verdict.violations for verdict in verdicts] == [{}] * len(runs), f"CHAOS_SEED={seed}"
    assert [verdict.delivered for verdict in verdicts] == [stats["delivered"] for stats in accounted]
    left = sum(1 for pending in waiting if pending)
    assert left >= kills / 10, "too few kills met messages that waited: nothing was put to the test"
    delivered, unknown = (
        sum(counts) for counts in zip(*((v.delivered, len(v.unknown)) for v in verdicts), strict=True)
    )
    print(f"{kills} kills, {left} with messages waiting, {delivered} delivered, {unknown} unknown, ", end="")
    print(f"{time.monotonic() - began:.1f} s")


def kill_once(template: Template, run: Run, number: int, seed: int) -> int:
    """Start the threaded client, wait for its first acknowledged key, and kill it a random while later."""
    before = _acknowledged(run)
    job = {"seed": seed, "run": number, "most": 1_000_000, "answer": str(run.answer), **run.job}
    child = template.fork("threaded", **job)
    template.go()
    ends = time.monotonic() + FIRST_KEY_S
    while _acknowledged(run) == before and time.monotonic() < ends:
        time.sleep(0.002)
    time.sleep(random.Random(seed).uniform(0, LONGEST_S))  # the experiment itself: when the kill comes
    os.kill(child, signal.SIGKILL)
    return template.end()


def _acknowledged(run: Run) -> int:
    return run.notes.read_bytes().count(b"accepted ") if run.notes.exists() else 0
