"""One refresh for all processes of a state directory, and kill -9 at every point of it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chatsdk.devserver.process import DevServer
from tests.chaos import strace
from tests.chaos.runs import Run, make_run
from tests.chaos.sweep import side_by_side
from tests.chaos.template import Template

CALLS = (*strace.CALLS, "mkdir", "openat", "lchown", "fchown", "fcntl", "connect", "recvfrom", "rename", "close")
"""Every call by which a refresh changes the disk or talks to the server, and those around them."""


def expired(server: DevServer, run: Run) -> dict[str, Any]:
    """A job for a user whose token expired a little while ago, in a session that goes on."""
    session = server.session("alice", ttl=-10)
    return {**run.job, "token": session["token"], "refresh": session["refreshToken"], "answer": str(run.answer)}


def refresh_together(templates: list[Template], server: DevServer, run: Run, **options: bool) -> tuple[list[str], int]:
    """What each of two processes came to that meet one expired token at a time, and how many refreshes it took."""
    job = {**expired(server, run), **options}
    rule = server.faults("latency", operation="refresh", ms=300)  # long enough for the other one to come too
    answers = [run.directory / f"answer-{n}" for n in range(len(templates))]
    try:
        for template, answer in zip(templates, answers, strict=True):
            template.fork("lists_channels", **{**job, "answer": str(answer)})
        for template in templates:
            template.go()
        assert [template.end() for template in templates] == [0] * len(templates)
        refreshes = {each["id"]: each["seen"] for each in server.fault_rules()}[rule]
    finally:
        server.clear_faults(rule)
    return [answer.read_text() for answer in answers], refreshes


@pytest.mark.parametrize("background", [False, True], ids=["one-shot", "with threads"])
def test_two_processes_with_an_expired_token_refresh_once(
    templates: list[Template], server: DevServer, tmp_path: Path, background: bool
) -> None:
    """One refreshes, and both go on with its pair."""
    run = make_run(tmp_path, server, 0)
    assert refresh_together(templates, server, run, background=background) == (["ok", "ok"], 1)


def test_two_processes_without_the_lock_would_refresh_twice(
    templates: list[Template], server: DevServer, tmp_path: Path
) -> None:
    """The control: they do meet, and it is the lock that keeps them apart; the second use of the token is refused."""
    answers, refreshes = refresh_together(templates, server, make_run(tmp_path, server, 0), lockless=True)
    assert refreshes == 2
    assert any(answer.startswith("TokenExpiredError ") for answer in answers)


def test_a_kill_at_any_point_of_a_refresh_leaves_a_working_client_or_one_that_says_what_is_lost(
    templates: list[Template], server: DevServer, tmp_path: Path, can_inject: None
) -> None:
    """The next run sends at once; but for a kill between the server's rotation and the pair's rename, which ends a
    single-use session: then it says so (an event, an error in the log, the receipt's reason), keeps the message, and
    sends it with the operator's next token."""
    began = time.monotonic()
    first = make_run(tmp_path, server, 0)
    trace = tmp_path / "trace"
    child = templates[0].fork("lists_channels", **expired(server, first))
    with strace.attached(child, *strace.count_into(trace, CALLS)):
        templates[0].go()
        assert templates[0].end() == 0, templates[0].errors.read_text()
    counts = strace.counted(trace)
    assert {"write", "fsync", "sendto", "recvfrom", "rename"} <= counts.keys(), "it did not refresh"
    points = [(call, n) for call, times in sorted(counts.items()) for n in range(1, times + 1)]
    runs = {point: make_run(tmp_path, server, number) for number, point in enumerate(points, 1)}
    jobs = {point: expired(server, run) for point, run in runs.items()}
    ended: dict[strace.Point, int] = {}
    kept: dict[strace.Point, bool] = {}
    told: dict[strace.Point, dict[str, Any]] = {}

    def one(template: Template, number: int) -> None:
        point = points[number]
        child = template.fork("lists_channels", **jobs[point])
        with strace.attached(child, *strace.kill_at(*point)):
            template.go()
            ended[point] = template.end()
        kept[point] = any(runs[point].directory.glob("state/**/tokens/*.json"))
        fresh = server.mint("alice")
        assert template.run("sends_one", **{**jobs[point], "fresh": fresh}) == 0, template.errors.read_text()
        told[point] = json.loads(runs[point].answer.read_text())

    side_by_side(templates, one, range(len(points)))
    # an answer may come in more pieces one time than another, and a connection be closed earlier
    missed = {point for point, code in ended.items() if code != -signal.SIGKILL}
    assert all(call in ("recvfrom", "close") and n > 1 for call, n in missed), missed
    lost = {point for point, answer in told.items() if answer["first"][0] != "SENT"}
    assert {point: told[point] for point in lost if told[point]["first"] != ["QUEUED", "auth"]} == {}
    assert {point: told[point] for point in lost if told[point]["told"] != ["TokenExpired"]} == {}
    assert {point: told[point] for point in lost if len(told[point]["logged"]) != 1} == {}
    assert {point: answer for point, answer in told.items() if answer["last"] != "SENT"} == {}
    # where the pair was on disk, and where the server was not asked yet, nothing is lost
    assert not lost & {point for point, is_kept in kept.items() if is_kept}
    assert not lost & {("sendto", 1), ("connect", 1), ("fcntl", 1), ("mkdir", 1)}
    assert {("recvfrom", 1), ("write", 1), ("fsync", 1)} <= lost, "the dangerous points were not hit"
    assert ("sendto", 2) in kept, "no point after the refresh"
    log = server.log()["messages"]
    assert {point: found for point, run in runs.items() if (found := run.judge(log).violations)} == {}
    print(f"{len(points)} points, {len(lost)} end the session and say so, {time.monotonic() - began:.1f} s")


def test_kills_at_random_of_two_that_refresh_at_a_time_never_hold_up_the_next(
    templates: list[Template], server: DevServer, tmp_path: Path
) -> None:
    """One of two is killed somewhere in its refresh: the other one ends in a moment, with an answer or the news that
    the session is over; the lock of the dead is no lock."""
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(2**32))
    print(f"CHAOS_SEED={seed}")
    dice = random.Random(seed)
    for number in range(8):
        run = make_run(tmp_path, server, number)
        job = expired(server, run)
        children = [template.fork("lists_channels", **job) for template in templates]
        for template in templates:
            template.go()
        time.sleep(dice.uniform(0, 0.03))  # the experiment itself: when the kill comes
        with ThreadPoolExecutor(1) as pool:
            ends = pool.submit(templates[1].end)
            with contextlib.suppress(ProcessLookupError):  # it was quicker
                os.kill(children[0], signal.SIGKILL)
            assert templates[0].end() in (0, -signal.SIGKILL)
            assert ends.result(timeout=5) == 0, templates[1].errors.read_text()
        said = run.answer.read_text()
        assert said == "ok" or said.startswith("TokenExpiredError "), (said, f"CHAOS_SEED={seed}")
