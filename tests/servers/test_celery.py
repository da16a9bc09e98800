"""A Celery worker with a pool of two forked children: they send at once, share nothing, and close their client."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatsdk.devserver.process import DevServer
from tests.servers.proc import share_nothing
from tests.servers.running import running

ROWS = 5  # as in tasks.py, which is for Celery to import
TASKS = 6
AT_ONCE_S = 1.0

pytest.importorskip("celery", reason="there is no Celery here: `pip install celery`")

COMMAND = [sys.executable, "-m", "celery", "-A", "tests.servers.tasks", "worker", "--pool", "prefork"]
COMMAND += ["--concurrency", "2", "--without-gossip", "--without-mingle", "--without-heartbeat", "-O", "fair"]

ENQUEUE = """
import sys
from tests.servers.tasks import post
for text in sys.argv[3:]:
    post.delay(sys.argv[1], text, float(sys.argv[2]))
"""


def enqueue(environment: dict[str, str], channel: str, wait: float, *texts: str) -> None:
    """Put tasks into the broker's folder."""
    command = [sys.executable, "-c", ENQUEUE, channel, str(wait), *texts]
    subprocess.run(command, env=environment, check=True, timeout=30)


def notes(place: Path) -> list[dict[str, Any]]:
    """What the tasks that have run say."""
    return [json.loads(note.read_text()) for note in place.glob("*.json")]


def test_a_prefork_worker(
    server: DevServer, place: Path, environment: dict[str, str], channel: str, texts: Callable[..., list[str]]
) -> None:
    """Children of the pool send within a second with the client that was started before they were forked; what they
    have accepted when they are told to end is delivered first."""
    asked = server.channel("alice", "bob")
    known = {**environment, "CHAT_PLACE": str(place)}
    waited = [f"task {n}" for n in range(TASKS)]
    enqueue(known, asked, 10, *waited)
    with running(COMMAND, {**known, "CHAT_START": "1"}, place) as program:
        program.until(lambda: len(notes(place)) == TASKS, "end of the tasks")
        assert {note["state"] for note in notes(place)} == {"SENT"}
        assert max(note["took"] for note in notes(place)) < AT_ONCE_S
        children = {note["pid"] for note in notes(place)}
        assert len(children) == 2
        assert os.getpid() not in children
        share_nothing([program.pid, *children], server.port)
        program.until(lambda: len(texts(channel)) > ROWS, "delivery of what was accepted while loading")
        left = [f"left {n}" for n in range(3)]
        server.faults("latency", operation="send", ms=200)
        enqueue(known, asked, 0, *left)
        program.until(lambda: len(notes(place)) == TASKS + len(left), "end of the later tasks")
        code, _ = program.end(signal.SIGTERM)
        assert code == 0, program.errors.read_text()
        assert sorted(texts(asked)) == sorted([*waited, *left])
    assert texts(channel) == ["loaded first", *(f"loaded {n}" for n in range(ROWS))]
