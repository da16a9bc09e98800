"""A process that holds a lock is stopped (SIGSTOP, a paused container): the others go on, or are told in time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chatsdk import ChatClient, NotSentError, State, StorageError
from chatsdk.devserver.process import DevServer
from tests.chaos.history import Name, Notebook
from tests.chaos.one_user import client
from tests.chaos.runs import make_run
from tests.chaos.template import Template
from tests.waiting import eventually

LOCK_TIMEOUT_S = 1.0
THREADS = 3


def is_stopped(pid: int) -> bool:
    """Every thread of the process stands still."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@contextmanager
def standing_still(template: Template, job: str, **facts: Any) -> Iterator[None]:
    """A process that does this job until it stops itself; afterwards it goes on, and ends well."""
    child = template.fork(job, **facts)
    template.go()
    try:
        eventually(lambda: is_stopped(child), seconds=20.0)
        yield
    finally:
        os.kill(child, signal.SIGCONT)
        ended = template.end()
    assert ended == 0, template.errors.read_text()


def send(chat: ChatClient, notes: Notebook, name: Name) -> float:
    """Seconds that `send` took to say that it is not accepted."""
    began = time.monotonic()
    notes.begun(name)
    with pytest.raises(StorageError) as caught:
        chat.send(name.channel, name.text, wait=0)
    took = time.monotonic() - began
    assert caught.value.code == "locked"
    notes.failed(name)
    return took


@pytest.mark.parametrize("opened", [True, False], ids=["outbox is open", "outbox is not open yet"])
def test_a_stopped_holder_of_the_lock_costs_others_the_lock_timeout_and_nothing_is_lost(
    templates: list[Template], server: DevServer, tmp_path: Path, opened: bool
) -> None:
    """Each thread's `send` ends in StorageError within lock_timeout + 0.5 s; when the holder goes on, what it was about
    to accept is delivered, what was refused is not, and sending works again."""
    run = make_run(tmp_path, server, 0)
    notes = Notebook(run.notes)
    with client(run.job, background=True, lock_timeout=LOCK_TIMEOUT_S) as chat:
        if opened:
            chat.outbox.stats()
        names = [Name(run.channels[n % 2], 1 + n, 0, 0) for n in range(THREADS)]
        with standing_still(templates[0], "stands_still", **run.job), ThreadPoolExecutor(THREADS) as pool:
            took = list(pool.map(lambda name: send(chat, notes, name), names))
        assert max(took) <= LOCK_TIMEOUT_S + 0.5
        assert min(took) >= LOCK_TIMEOUT_S / 2, "it was not the lock that was waited for"
        for name in (name._replace(run=1) for name in names):
            notes.begun(name)
            notes.accepted(name, chat.send(name.channel, name.text, wait=0).key)
    run.recover(templates[0])
    verdict = run.judge(server.log()["messages"])
    assert (verdict.violations, verdict.unknown) == ({}, ())
    assert verdict.delivered == len(run.channels) + THREADS


def test_a_holder_killed_in_its_commit_frees_the_lock_at_once(
    templates: list[Template], server: DevServer, tmp_path: Path
) -> None:
    """The kernel gives the lock back: the next `send` is accepted, and what was not committed never happened."""
    run = make_run(tmp_path, server, 0)
    notes = Notebook(run.notes)
    child = templates[0].fork("stands_still", **run.job)
    templates[0].go()
    eventually(lambda: is_stopped(child), seconds=20.0)
    os.kill(child, signal.SIGKILL)
    assert templates[0].end() == -signal.SIGKILL
    with client(run.job, background=False, lock_timeout=LOCK_TIMEOUT_S) as chat:
        name = Name(run.channels[0], 1, 0, 0)
        notes.begun(name)
        notes.accepted(name, chat.send(name.channel, name.text).key)
    run.recover(templates[0])
    verdict = run.judge(server.log()["messages"])
    assert verdict.violations == {}
    assert verdict.unknown == (Name(run.channels[0], 0, 0, 0),)
    assert verdict.delivered == 1


def test_the_lane_of_a_stopped_process_waits_and_no_other_does(
    templates: list[Template], server: DevServer, tmp_path: Path
) -> None:
    """It lives, so nobody takes its lane: its message may be on the wire. What is sent behind it is accepted and waits,
    other lanes are served at once; when it goes on, both are delivered in their order."""
    run = make_run(tmp_path, server, 0)
    notes = Notebook(run.notes)
    behind, beside = (Name(channel, 1, 0, n) for n, channel in enumerate(run.channels))
    with client(run.job, background=True) as chat, standing_still(templates[0], "stands_in_its_lane", **run.job):
        for name, state in ((behind, State.QUEUED), (beside, State.SENT)):
            notes.begun(name)
            receipt = chat.send(name.channel, name.text, wait=0.3 if state is State.QUEUED else 10)
            notes.accepted(name, receipt.key)
            assert receipt.state is state
    run.recover(templates[0])
    verdict = run.judge(server.log()["messages"])
    assert (verdict.violations, verdict.unknown, verdict.delivered) == ({}, (), 3)
    log = [message["text"] for message in server.log()["messages"] if message["channel"] == run.channels[0]]
    assert log == [Name(run.channels[0], 0, 0, 0).text, behind.text]


def test_a_process_stopped_in_its_refresh_costs_others_their_time_out_and_not_the_session(
    templates: list[Template], server: DevServer, tmp_path: Path
) -> None:
    """It has the new pair, and nobody else may spend the old one: the others are told in time that nothing
    was sent; when it goes on, they use its pair."""
    run = make_run(tmp_path, server, 0)
    session = server.session("alice", ttl=-10)
    job = {**run.job, "token": session["token"], "refresh": session["refreshToken"]}
    rule = server.faults("latency", operation="refresh", ms=0)
    with client(job, background=False, refresh_token=job["refresh"], timeout=0.5) as chat:
        with standing_still(templates[0], "stands_in_its_refresh", **job):
            began = time.monotonic()
            with pytest.raises(NotSentError):
                list(chat.channels.list())
            assert time.monotonic() - began <= 0.5 + 0.5
        eventually(lambda: works(chat), seconds=20.0)  # after the back-off of the renewal that failed
    assert {each["id"]: each["seen"] for each in server.fault_rules()}[rule] == 1
    server.clear_faults(rule)


def works(chat: ChatClient) -> bool:
    """A read is answered."""
    try:
        list(chat.channels.list())
        return True
    except NotSentError:
        return False
