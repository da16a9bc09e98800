"""What it takes until another process does what this one left to it: by signal, and by looking once a second only.

A drainer, a process of its own, waits for work. This process has no worker: it puts a message and notes how long it
takes from the put's return until the request arrives at the server, which runs here, so that one clock tells both.
Then it waits for results that take a while, and notes how long it takes from the drainer's commit until the wait
returns. Puts come at random, further apart than signals are heard, so a look would come half a second later on the
average.

How often an idle process wakes is what the kernel counts: the voluntary switches of all its threads. Once it is alone,
once another process keeps sending with a worker of its own, once one without a worker keeps putting for another's user,
of whom the idle process has no token, so that it can do nothing about it.
"""

from __future__ import annotations

import contextlib
import json
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter
from typing import Any

from chatsdk import ChatClient, events
from chatsdk.outbox import wake
from chatsdk.outbox.outbox import SOON

from .report import Row, alternate, goal, measured, percentile
from .server import ANSWER, KEY

BENCH = "wake"
SIGNAL, LOOK = "inotify", "a look a second only"
PUTS = {SIGNAL: 25, LOOK: 5}
"""In each round; a look takes its time."""
SECONDS = 10.0
"""For which an idle process is watched."""
SETTLES = 2.5
"""Seconds until it is."""
CHEAP = 200
"""Puts, and calls of what may cost nothing, in each turn."""
SLOW = 2 * SOON
"""Seconds that the server takes where the result is waited for: longer than a wait needs to say that it lasts."""

_ROOT = Path(__file__).resolve().parents[2]
_CHANNEL = "11111111-1111-4111-8111-111111111111"


# ---- the other processes


def _deaf() -> Callable[[], Any]:
    raise ImportError("inotify is not to be used")


def _client(url: str, state: str, *, background: bool, user: str = "alice") -> ChatClient:
    return ChatClient(url, user=user, token="t", state_dir=state, discover=False, background=background)


def _until_told(stop: threading.Event) -> None:
    """Set `stop` when standard input ends."""

    def listen() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=listen, daemon=True).start()


def drain(url: str, state: str, hears: bool, user: str = "alice") -> None:
    """The drainer: `chatsdk outbox run` until standard input ends. Says when each delivery was committed."""
    if not hears:
        wake._import = _deaf
    stop = threading.Event()
    _until_told(stop)
    with _client(url, state, background=True, user=user) as chat:
        chat.on(events.MessageSent, lambda event: print(monotonic(), flush=True))
        print("ready", flush=True)
        chat._parts.outbox().run_forever(stop)


def keep_sending(url: str, state: str, background: bool) -> None:
    """A busy process, until standard input ends."""
    stop = threading.Event()
    _until_told(stop)
    with _client(url, state, background=background) as chat:
        print("ready", flush=True)
        while not stop.wait(0.005):
            chat.send(_CHANNEL, "hello", wait=5 if background else 0)


class _Other:
    """One of those processes."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", f"{__package__}.wake", *map(str, arguments)]
        self._process = subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.pid = self._process.pid
        self.lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.put(line.strip())

    def __enter__(self) -> _Other:
        self._reader.start()
        if self.lines.get(timeout=30) != "ready":
            raise RuntimeError("the other process did not begin")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._reader.join(10)
            self._process.stdout.close()


# ---- the server, in this process


class _Server:
    """Notes when a request is there. `slow`: seconds until it answers."""

    def __init__(self) -> None:
        self.arrived: queue.SimpleQueue[float] = queue.SimpleQueue()
        self.slow = 0.0
        never = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.arrived.put(monotonic())
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                never.wait(outer.slow)
                answer = ANSWER.replace(KEY.encode(), body["clientMsgId"].encode())
                head = (
                    f"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
                )
                self.wfile.write(head.encode() + answer)

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> _Server:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def _state() -> Iterator[str]:
    path = tempfile.mkdtemp(prefix="bench-wake-")
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


# ---- what is measured


def latencies(hears: bool, puts: int) -> tuple[list[float], list[float]]:
    """Milliseconds from each put's return to the request's arrival, and from each commit to the end of the wait."""
    to_server, to_waiter = list[float](), list[float]()
    real = wake._import
    if not hears:
        wake._import = _deaf
    try:
        with _Server() as server, _state() as state, _Other("drain", server.url, state, int(hears)) as drainer:
            with _client(server.url, state, background=False) as chat:
                for number in range(2 * puts):
                    waits = number % 2 == 1
                    server.slow = SLOW if waits else 0.0
                    threading.Event().wait(random.uniform(2 * wake.PAUSE, 2 * wake.PAUSE + (0.1 if hears else 1.0)))
                    receipt = chat.send(_CHANNEL, "hello", wait=0)
                    put = monotonic()
                    if waits:
                        receipt.wait(30)
                        known = monotonic()
                    arrived = server.arrived.get(timeout=30)
                    committed = float(drainer.lines.get(timeout=30))
                    if waits:
                        to_waiter.append(1000 * max(0.0, known - committed))
                    else:
                        to_server.append(1000 * (arrived - put))
    finally:
        wake._import = real
    return to_server, to_waiter


def _wakes(pid: int) -> dict[str, int]:
    """How often each thread of a process went to sleep so far."""
    return {
        status.parent.name: int(line.split()[1])
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
        if line.startswith("voluntary_ctxt_switches")
    }


def wakes_a_second(seconds: float, *beside: object) -> float:
    """Of an idle drainer; `beside`: a process that keeps sending (with a worker of its own: True)."""
    with _Server() as server, _state() as state, contextlib.ExitStack() as stack:
        # somebody else's messages are not its business: it is the drainer of another user
        user = "bob" if beside else "alice"
        drainer = stack.enter_context(_Other("drain", server.url, state, 1, user))
        if beside:
            stack.enter_context(_Other("keep_sending", server.url, state, int(bool(beside[0]))))
        threading.Event().wait(min(SETTLES, seconds))
        before, began = _wakes(drainer.pid), monotonic()
        threading.Event().wait(seconds)
        after = _wakes(drainer.pid)  # a thread that ended meanwhile was idle for long
        return sum(count - before.get(thread, 0) for thread, count in after.items()) / (monotonic() - began)


def costs(rounds: int, calls: int) -> dict[str, list[float | None]]:
    """Microseconds of a put by a process without a worker, with a listener elsewhere and a signal to it, and without;
    of a signal by itself, and of the question whether somebody waits."""
    with _Server() as server, _state() as state, _Other("drain", server.url, state, 1, "bob"):
        threading.Event().wait(0.5)
        with _client(server.url, state, background=False) as chat:
            outbox = chat._parts.outbox()
            real, none = outbox._wake_file, wake.WakeFile(None)

            def puts(file: wake.WakeFile) -> Callable[[], float]:
                def run() -> float:
                    outbox._wake_file = file
                    return _each(calls // 4, lambda: chat.send(_CHANNEL, "hello", wait=0))

                return run

            found = alternate(
                rounds,
                {
                    "put, signal": puts(real),
                    "put, no signal": puts(none),
                    "signal alone": lambda: _each(calls, real.work),
                    "is anybody waiting": lambda: _each(calls, real.result),
                },
                least_of=3,
            )
            return {name: list(series) for name, series in found.items()}


def _each(calls: int, call: Callable[[], object]) -> float:
    began = perf_counter()
    for _ in range(calls):
        call()
    return 1e6 * (perf_counter() - began) / calls


def run(
    rounds: int = 9, *, puts: dict[str, int] | None = None, seconds: float = SECONDS, calls: int = CHEAP
) -> Iterator[Row]:
    """Measure; a minute and a half."""
    puts = puts or PUTS
    server: dict[str, list[float]] = {name: [] for name in puts}
    waiter: dict[str, list[float]] = {name: [] for name in puts}
    for _ in range(min(rounds, 4)):
        for name, count in puts.items():
            arrived, known = latencies(name == SIGNAL, count)
            server[name] += arrived
            waiter[name] += known
    for metric, found in (
        ("from a put to its arrival, sent by another process", server),
        ("from a result to the end of a wait elsewhere", waiter),
    ):
        yield from measured(BENCH, f"{metric}, p50", {name: [median(each)] for name, each in found.items()}, "ms")
        yield from measured(
            BENCH, f"{metric}, p99", {name: [percentile(each, 0.99)] for name, each in found.items()}, "ms"
        )
    idle = {
        "alone": [wakes_a_second(seconds)],
        "beside a busy process": [wakes_a_second(seconds, True)],
        "beside one that leaves its messages to others": [wakes_a_second(seconds, False)],
    }
    yield from measured(BENCH, "how often an idle drainer wakes", idle, "a second")
    spent = costs(rounds, calls)
    yield from measured(BENCH, "what a signal costs who gives it", spent, "us")
    yield goal(BENCH, "put to arrival, p99, ms", [percentile(server[SIGNAL], 0.99)], 200)
    yield goal(BENCH, "result to the end of the wait, p99, ms", [percentile(waiter[SIGNAL], 0.99)], 200)
    yield goal(BENCH, "wake-ups of an idle drainer a second", idle["alone"], 2)
    yield goal(BENCH, "wake-ups of an idle drainer a second, beside a busy process", idle["beside a busy process"], 2)


if __name__ == "__main__":
    if sys.argv[1] == "drain":
        drain(sys.argv[2], sys.argv[3], sys.argv[4] == "1", *sys.argv[5:])
    else:
        keep_sending(sys.argv[2], sys.argv[3], sys.argv[4] == "1")
