"""What a connected client costs that has nothing to do, and what a hundred reconnects leave behind.

The client is a process of its own, which the system's books are read of: how often its threads were woken (voluntary
context switches), the CPU time they had, its threads, descriptors and resident memory. It hears one channel of a
development server that pings as Centrifugo does; heartbeats and everything else are as they come.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from chatsdk.devserver.process import DevServer

from .report import Row, goal, measured

BENCH = "idle"
SECONDS = 30.0
RECONNECTS = 100
WARM = 10
"""Reconnects before the first look: what is imported and made at the first one stays."""

SETTLE = 12.0
"""Seconds after which helper threads that have nothing to do have ended."""

TIMEOUT = 60.0
PROTOCOLS = {"centrifugo": "Centrifugo", "json": "plain frames"}

_ROOT = Path(__file__).resolve().parents[2]


# ---- in the process that is measured


def listen(protocol: str, url: str, ws_url: str, token: str, ws_token: str, channel: str, state: str) -> None:
    """Listen until standard input ends; a line on standard output each time that the channel is subscribed."""
    from chatsdk import ChatClient, events

    with ChatClient(
        url, token, user="alice", ws_token=ws_token, ws_url=ws_url, realtime=protocol, reconnect="fast",
        state_dir=state, discover=False,
    ) as chat:  # fmt: skip

        @chat.on(events.SubscriptionStateChanged)
        def tell(event: events.SubscriptionStateChanged) -> None:
            if event.channel == channel and event.state == "subscribed":
                os.write(1, b"subscribed\n")

        chat.subscribe(channel)
        os.read(0, 1)


# ---- in the one that measures


class Look(NamedTuple):
    """What the system knows of a process."""

    switches: int
    cpu: float
    threads: int
    descriptors: int
    memory: float


def look(pid: int) -> Look:
    """Now: voluntary context switches, seconds of CPU, threads, descriptors, MB."""
    switches, cpu, tasks = 0, 0, list(Path(f"/proc/{pid}/task").iterdir())
    for task in tasks:
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                switches += int(line.split()[1])
        cpu += int((task / "schedstat").read_text().split()[0])
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Look(switches, cpu / 1e9, len(tasks), descriptors, pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


class Client:
    """The process that listens."""

    def __init__(self, server: DevServer, protocol: str) -> None:
        self._server = server
        self._state = tempfile.mkdtemp(prefix="bench-idle-")
        ws_url = server.ws_url if protocol == "centrifugo" else server.plain_url
        tokens = server.tokens["alice"], server.ws_tokens["alice"]
        arguments = [protocol, server.url, ws_url, *tokens, server.channel_id, self._state]
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.idle", *arguments],
            cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.pid = self._process.pid

    def __enter__(self) -> Client:
        self.subscribed()
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        shutil.rmtree(self._state, ignore_errors=True)

    def subscribed(self) -> None:
        """Wait until it says so."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], TIMEOUT)[0] or not os.read(
            self._process.stdout.fileno(), 99
        ):
            raise TimeoutError("the client did not subscribe")

    def cut(self, times: int) -> None:
        """Cut its connection, and wait until it is back, so often."""
        for _ in range(times):
            if self._server.realtime.cut("alice") != 1:
                raise AssertionError("nobody is connected")
            self.subscribed()

    def settled(self, patience: float) -> Look:
        """Once its threads have not changed for so many seconds."""
        now, since = look(self.pid), time.monotonic()
        until = since + TIMEOUT
        while time.monotonic() < min(until, since + patience):
            threading.Event().wait(0.2)
            before, now = now, look(self.pid)
            if now.threads != before.threads:
                since = time.monotonic()
        return now


def rest(client: Client, seconds: float) -> dict[str, float]:
    """Wake-ups a second, and percent of a CPU."""
    before, began = look(client.pid), time.monotonic()
    threading.Event().wait(seconds)
    after, took = look(client.pid), time.monotonic() - began
    return {
        "wake-ups": (after.switches - before.switches) / took,
        "CPU": (after.cpu - before.cpu) / took * 100,
    }


def run(
    rounds: int = 9,
    *,
    seconds: float = SECONDS,
    reconnects: int = RECONNECTS,
    warm: int = WARM,
    settle: float = SETTLE,
) -> Iterator[Row]:
    """Measure, once whatever the rounds; about four minutes."""
    found: dict[str, dict[str, float]] = {}
    left: dict[str, tuple[Look, Look]] = {}
    for protocol, title in PROTOCOLS.items():
        with DevServer() as server, Client(server, protocol) as client:
            client.settled(settle)
            found[title] = rest(client, seconds)
            client.cut(warm)
            before = client.settled(settle)
            client.cut(reconnects)
            left[title] = before, client.settled(settle)
    for what, unit in (("wake-ups", "a second"), ("CPU", "%")):
        yield from measured(
            BENCH, f"{what}, connected, nothing to do", {name: [each[what]] for name, each in found.items()}, unit
        )
    for title, (_, after) in left.items():
        metric = f"after {reconnects} reconnects, {title}"
        yield from measured(BENCH, metric, {"threads": [float(after.threads)]}, "")
        yield from measured(BENCH, metric, {"descriptors": [float(after.descriptors)]}, "")
        yield from measured(BENCH, metric, {"resident": [after.memory]}, "MB")
    for title, figures in found.items():
        yield goal(BENCH, f"wake-ups a second, {title}", [figures["wake-ups"]], 2.0)
        yield goal(BENCH, f"percent of a CPU, {title}", [figures["CPU"]], 0.2)
    for title, (before, after) in left.items():
        yield goal(BENCH, f"threads more after {reconnects} reconnects, {title}", [after.threads - before.threads], 0)
        more = after.descriptors - before.descriptors
        yield goal(BENCH, f"descriptors more after {reconnects} reconnects, {title}", [more], 0)
        yield goal(BENCH, f"MB more after {reconnects} reconnects, {title}", [after.memory - before.memory], 1.0)


if __name__ == "__main__":
    listen(*sys.argv[1:])
