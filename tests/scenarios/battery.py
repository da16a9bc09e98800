"""The battery saver: what a client costs that has nothing to do, or cannot do it, against one of the seeds' prose.

Five processes, all measured in the same minute: a bot that listens to a quiet channel, and a client with 100 pending
messages in ten channels behind a dead end, where every connection is reset after 20 ms, as by a router without an
uplink; of both what `naive` makes of them; and a client that does nothing but watch the network's quality. (A bot that
does so asks less often: its heartbeats tell, too.) What is counted of each:

    requests   by the record of the server that each client has for itself; those to the dead end by its own
    wake-ups   voluntary context switches of all threads, those that ended as well (getrusage). Involuntary ones are
               other processes' doing
    CPU        seconds of all threads, user and system

A short run tells the same minute `faster`: the control's intervals and ours are divided alike (heartbeat, quiet check,
sweep, circuits). What ours has no setting for (the outbox looks once a second for what others put), it does as often as
ever, so less often a told minute: for the offline client's wake-ups the long run counts.

What these figures do not say: each further channel costs ours one request and some six wake-ups a minute (that is the
check that nothing was missed; `quiet_check = 0` ends it), and the control nothing. And where the system refuses a
connection at once, without a network to wait for, a hundred tries of the control are one wake-up.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from chatsdk.devserver.process import DevServer

from .report import Row

if TYPE_CHECKING:
    from types import TracebackType

MINUTE = 60.0
"""Told seconds of a run."""

PENDING = 100
CHANNELS = 10
"""Of the offline client."""

ROUND_TRIP_S = 0.02
SAVED = 0.2
"""What the seeds ask for, of each figure (000: battery usage)."""

PROBE_S = 10.0
"""Seconds between two probes, at least (seeds 000 and 001); no setting, so never told faster."""

SETTLE_S = 6.0
"""Seconds before the first look: threads that helped at the start have ended then."""

TIMEOUT_S = 60.0
_ROOT = Path(__file__).resolve().parents[2]


# ---- in the process that is measured


def _bot(*, url: str, token: str, ws_url: str, channels: list[str], faster: float, state: str) -> Any:
    from chatsdk import ChatClient, events

    chat = ChatClient(
        url, token, ws_url=ws_url, realtime="json", state_dir=state, discover=False,
        heartbeat=30.0 / faster, heartbeat_timeout=10.0 / faster, quiet_check=60.0 / faster,
        sweep_interval=30.0 / faster,
    )  # fmt: skip
    chat.on(events.MessageReceived, _ignore)
    chat.on(events.ConnectionStateChanged, _ignore)
    chat.subscribe(channels)
    if not chat.connect(wait=TIMEOUT_S):
        raise TimeoutError("the bot did not connect")
    chat.users.me()  # what the first call imports and makes stays
    return chat


def _watcher(*, url: str, token: str, state: str, **_: Any) -> Any:
    from chatsdk import ChatClient

    chat = ChatClient(url, token, state_dir=state, discover=False)
    chat.network.watch(_ignore)
    return chat


def _naive_bot(*, url: str, token: str, ws_url: str, channels: list[str], faster: float, state: str) -> Any:
    from .naive import NaiveBot

    bot = NaiveBot(url, ws_url, token, faster, _ignore)
    bot.listen(channels)
    bot.ask()
    return bot


def _queue(*, url: str, token: str, channels: list[str], faster: float, state: str) -> Any:
    from chatsdk import ChatClient

    chat = ChatClient(
        url, token, user="alice", state_dir=state, discover=False, exit_timeout=0, close_timeout=0.5,
        circuit_window=120.0 / faster, circuit_open_first=1.0 / faster, circuit_open_max=60.0 / faster,
        sweep_interval=30.0 / faster,
    )  # fmt: skip
    for number in range(PENDING):
        chat.send(channels[number % len(channels)], f"message {number}", wait=0)
    return chat


def _naive_queue(*, url: str, token: str, channels: list[str], faster: float, state: str) -> Any:
    from .naive import NaiveQueue

    queue = NaiveQueue(url, token, faster)
    for number in range(PENDING):
        where = f"/api/channels/{channels[number % len(channels)]}/messages"
        queue.pending.append((where, {"text": f"message {number}"}))
    queue.ask()
    return queue


ROLES: dict[str, Callable[..., Any]] = {
    "bot": _bot,
    "naive bot": _naive_bot,
    "watcher": _watcher,
    "queue": _queue,
    "naive queue": _naive_queue,
}


def _ignore(_: object) -> None:
    """A listener."""


def be(role: str, given: str) -> None:
    """Be that client; for each line on standard input the books on standard output, until it ends."""
    client = ROLES[role](**json.loads(given))
    print("ready", flush=True)
    for _ in sys.stdin:
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps({"wake-ups": used.ru_nvcsw, "cpu": used.ru_utime + used.ru_stime}), flush=True)
    client.close()


# ---- in the one that measures


@dataclass(frozen=True, slots=True)
class Cost:
    """What a client cost in the minute. `probes`: requests to `/health`, by the server's record."""

    requests: float
    wakeups: float
    cpu: float
    probes: int = 0


class Record:
    """What a development server was asked: all requests, and those to `/health`."""

    def __init__(self, server: DevServer) -> None:
        self._server = server
        # rules that do nothing but count
        self._rules = [server.faults("latency", ms=0), server.faults("latency", ms=0, operation="health")]

    def asked(self) -> tuple[int, int]:
        """So far."""
        seen = {rule["id"]: rule["seen"] for rule in self._server.fault_rules()}
        requests, probes = (seen[rule] for rule in self._rules)
        return requests, probes


class DeadEnd:
    """A port where every connection is reset after a round trip, and counted."""

    def __init__(self) -> None:
        self._count = 0
        self._sock = socket.create_server(("127.0.0.1", 0), backlog=PENDING)
        self.url = f"http://127.0.0.1:{self._sock.getsockname()[1]}"
        self._thread = threading.Thread(target=self._refuse, daemon=True)

    def __enter__(self) -> DeadEnd:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._sock.close()

    def asked(self) -> tuple[int, int]:
        """Connections so far; none of them is known to be a probe."""
        return self._count, 0

    def _refuse(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            self._count += 1
            Event().wait(ROUND_TRIP_S)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()


class Client:
    """A process that is a client. `asked`: by the other side's record."""

    def __init__(self, role: str, asked: Callable[[], tuple[int, int]], **given: Any) -> None:
        self._asked = asked
        self._state = tempfile.mkdtemp(prefix="battery-")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CHATSDK_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.scenarios.battery", role, json.dumps({**given, "state": self._state})],
            cwd=_ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        shutil.rmtree(self._state, ignore_errors=True)

    def ready(self) -> None:
        """Wait until it is one."""
        if self._line() != "ready\n":
            raise AssertionError("the client did not start")

    def look(self) -> Cost:
        """What it cost so far."""
        assert self._process.stdin is not None
        self._process.stdin.write("look\n")
        books = json.loads(self._line())
        requests, probes = self._asked()
        return Cost(requests, books["wake-ups"], books["cpu"], probes)

    def _line(self) -> str:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], TIMEOUT_S)[0]:
            raise TimeoutError("the client said nothing")
        return self._process.stdout.readline()


def measure(faster: float = 1.0, minutes: int = 1) -> tuple[dict[str, Cost], float]:
    """What each client cost in so many told minutes, and how many seconds that took."""
    with ExitStack() as stack:
        clients: dict[str, Client] = {}
        for role in ROLES:
            if not role.endswith("queue"):
                server = stack.enter_context(DevServer())
                given = {
                    "url": server.url,
                    "ws_url": server.plain_url,
                    "token": server.mint("alice"),
                    "channels": [server.channel("alice")],
                }
                asked = Record(server).asked
            else:
                end = stack.enter_context(DeadEnd())
                channels = [f"00000000-0000-7000-8000-{number:012}" for number in range(CHANNELS)]
                given, asked = {"url": end.url, "token": "none", "channels": channels}, end.asked
            clients[role] = stack.enter_context(Client(role, asked, faster=faster, **given))
        for client in clients.values():
            client.ready()
        Event().wait(SETTLE_S)
        began = time.monotonic()
        before = {role: client.look() for role, client in clients.items()}
        Event().wait(MINUTE * minutes / faster)
        after = {role: client.look() for role, client in clients.items()}
        took = time.monotonic() - began
    return {role: _between(before[role], after[role]) for role in ROLES}, took


def _between(before: Cost, after: Cost) -> Cost:
    return Cost(
        after.requests - before.requests,
        after.wakeups - before.wakeups,
        after.cpu - before.cpu,
        after.probes - before.probes,
    )


def rows(faster: float = 1.0, minutes: int = 1) -> Iterator[Row]:
    """Measure, and what came out: a line for each figure of each client, and one for the probes."""
    costs, took = measure(faster, minutes)
    for title, role in (("idle bot", "bot"), ("offline, 100 pending", "queue")):
        ours, control = costs[role], costs[f"naive {role}"]
        for what, unit, mine, theirs in (
            ("requests", "", ours.requests, control.requests),
            ("wake-ups", "", ours.wakeups, control.wakeups),
            ("CPU", " ms", ours.cpu * 1000, control.cpu * 1000),
        ):
            yield Row(
                f"battery saver, {title}: {what}",
                f"-{SAVED:.0%}",
                f"{mine / theirs - 1:+.0%} ({mine / minutes:.0f}{unit} a minute)",
                f"{theirs / minutes:.0f}{unit} a minute",
                mine <= theirs * (1 - SAVED),
                {"ours": mine / minutes, "without": theirs / minutes, "ratio": mine / theirs},
            )
    watched, alone = costs["watcher"].probes, costs["bot"].probes
    yield Row(
        "idle client: asks how the server is",
        "watched: once in 10 s at most, else never",
        f"watched: {watched}, else {alone} in {took:.0f} s",
        f"{costs['naive bot'].probes / minutes:.0f} in a told minute",
        0 < watched <= 1 + took / PROBE_S and alone == 0 and costs["naive bot"].probes > 0,
        {"watched": watched, "unwatched": alone, "seconds": took},
    )


if __name__ == "__main__":
    be(*sys.argv[1:])
