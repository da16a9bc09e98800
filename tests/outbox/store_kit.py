"""What the tests of the store share: messages, stores, and other processes that use the same directory."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from chatsdk.core.exchange import Request
from chatsdk.core.identity import uuid7
from chatsdk.core.store import Claim, Entry, Lane
from chatsdk.outbox.store import SQLiteStore
from chatsdk.resilience.system_clock import SystemClock

ROOT = Path(__file__).resolve().parents[2]
NOW = 1_900_000_000.0
LANE = Lane("alice", "general")


def entry(
    text: str = "hello", lane: Lane = LANE, key: str | None = None, at: float = NOW, ttl: float = 86400.0
) -> Entry:
    """A message as `send` would store it."""
    key = key or uuid7(at, os.urandom(10))
    request = Request(
        operation="messages.send",
        method="POST",
        path=f"/api/channels/{lane.channel}/messages",
        body={"text": text, "clientMsgId": key},
        user=lane.user,
        channel=lane.channel,
        key=key,
        correlation_id=uuid7(at, os.urandom(10)),
    )
    return Entry(request=request, created_at=at, ttl=ttl)


def open_directly(directory: Path, **options: Any) -> SQLiteStore:
    """A store of this process."""
    return SQLiteStore(directory, clock=SystemClock(), **options)


def claimed(store: SQLiteStore, now: float = NOW, **options: Any) -> Claim:
    """A claim that must succeed."""
    claim = store.claim(now, **options)
    assert claim is not None, "no lane could be claimed"
    return claim


def balanced(store: SQLiteStore) -> None:
    """The accounting holds, and says what the table says (at one moment: other processes may be at work)."""
    connection = sqlite3.connect(store._database.path, isolation_level=None)
    try:
        connection.execute("BEGIN")
        accepted, delivered, dead, pending, discarded, size = connection.execute(
            "SELECT accepted, delivered, dead, pending, discarded, bytes FROM counters"
        ).fetchone()
        table = connection.execute(
            "SELECT count(*) FILTER (WHERE status < 2), count(*) FILTER (WHERE status = 9), "
            "coalesce(sum(length(data)) FILTER (WHERE status != 5), 0) FROM `ack_queue_outbox`"
        ).fetchone()
        orphans = connection.execute(
            "SELECT count(*) FROM `ack_queue_outbox` t WHERE status < 2 AND NOT EXISTS "
            "(SELECT 1 FROM lanes l WHERE l.user = t.user AND l.channel = t.channel)"
        ).fetchone()[0]
        empty = connection.execute(
            "SELECT count(*) FROM lanes l WHERE owner IS NULL AND NOT EXISTS "
            "(SELECT 1 FROM `ack_queue_outbox` t WHERE status < 2 AND l.user = t.user AND l.channel = t.channel)"
        ).fetchone()[0]
    finally:
        connection.close()
    assert accepted == delivered + dead + pending + discarded
    assert table == (pending, dead, size)
    assert orphans == 0, "rows of a lane that nobody would ever claim"
    assert empty == 0, "a lane without rows"


class Other:
    """Another process with a store of its own on the same directory: runs `code` line by line.

    Names in `code`: `store`, `entry`, `Lane`, `say` (prints a line that `hear` returns), `listen` (a line of ours).
    """

    def __init__(self, directory: Path, code: str, *, preamble: str = "", **options: Any) -> None:
        head = (
            "import os, sys, time, json\n"
            f"{preamble}\n"
            "from tests.outbox.store_kit import *\n"
            "from chatsdk.core.store import *\n"
            "def say(*words): print(*words, flush=True)\n"
            "def listen(): return sys.stdin.readline().strip()\n"
            f"store = open_directly({str(directory)!r}, **{options!r})\n"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", head + code],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.pid = self._process.pid
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())

    def hear(self, seconds: float = 20.0) -> str:
        """The next line that it said."""
        try:
            return self._lines.get(timeout=seconds)
        except queue.Empty:
            self._process.kill()
            assert self._process.stderr is not None
            raise AssertionError(f"the other process said nothing: {self._process.stderr.read()}") from None

    def tell(self, line: str = "") -> None:
        """Say a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> list[str]:
        """SIGKILL; returns the lines that were not heard yet."""
        self._process.kill()
        return self.end(check=False)

    def end(self, *, check: bool = True) -> list[str]:
        """Wait for its end; returns the lines that were not heard yet."""
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        errors = self._process.stderr.read()
        self._process.wait(60)
        self._reader.join(10)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
        assert not check or self._process.returncode == 0, errors
        left = []
        while not self._lines.empty():
            left.append(self._lines.get())
        return left
