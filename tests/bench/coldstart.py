"""What it costs to begin, and what a call costs that cannot be served: imports, a whole `chatsdk send`, an open
circuit, and `send(wait=False)` while the network does its worst.

Processes take turns with a bare interpreter and with a script that does nothing but `requests.post`, on the same
machine, in the same minute. Everything is delivered for real: the server counts.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from chatsdk import ChatClient, CircuitOpenError
from chatsdk.core.exchange import Call
from chatsdk.core.store import State

from .pipeline import request
from .report import Row, alternate, differences, goal, measured, percentile, ratios
from .server import Server

BENCH = "coldstart"
CHANNEL = "11111111-1111-4111-8111-111111111111"
PROCESSES = 5
"""Of each kind in a round; the least of their times is the round's figure."""

SENDS = 300
CHANNELS = 8
REJECTIONS = 1000
_TOKEN = "bench-token"

_BARE = """
import requests, sys
answer = requests.post(
    f"{sys.argv[1]}/api/channels/{sys.argv[2]}/messages",
    json={"text": "hello"},
    headers={"Authorization": "Bearer bench-token"},
    timeout=10,
)
answer.raise_for_status()
"""


def process_time(command: list[str], environ: Mapping[str, str], cpu: list[float] | None = None) -> float:
    """Milliseconds of a process from start to end. Appended to `cpu`: those in which it ran, which other processes
    lengthen less."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environ, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if cpu is not None:
        cpu.append((after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1000)
    return took * 1000


# ---- beginning


def imports(rounds: int, processes: int, environ: Mapping[str, str]) -> Iterator[Row]:
    """What the import alone costs."""

    codes = {"empty interpreter": "pass", "import chatsdk": "import chatsdk", "import requests": "import requests"}
    subjects = {name: partial(process_time, [sys.executable, "-c", code], environ) for name, code in codes.items()}
    series = alternate(rounds, subjects, least_of=processes)
    yield from measured(BENCH, "a process that only imports", series, "ms")
    extra = differences(series["import chatsdk"], series["empty interpreter"])
    yield goal(BENCH, "import chatsdk, over an empty interpreter, ms", extra, 40)


def one_shot(rounds: int, processes: int, environ: Mapping[str, str], base: Path) -> Iterator[Row]:
    """A whole `chatsdk send`, by the installed console script."""
    bare = base / "bare.py"
    bare.write_text(_BARE)
    script = Path(sys.executable).with_name("chatsdk")
    if not script.exists():
        raise SystemExit(f"{script} is missing: install chatsdk into this environment (pip install -e .)")
    with Server() as server:
        known = {**environ, "CHATSDK_URL": server.url, "CHATSDK_TOKEN": _TOKEN, "CHATSDK_USER": "alice"}
        send = [str(script), "send", CHANNEL, "hello"]
        fresh_name, used_name = "chatsdk send, new state directory", "chatsdk send, used one"
        cpu: dict[str, list[float]] = {"requests.post": [], fresh_name: [], used_name: []}
        runs = 0

        def post() -> float:
            return process_time([sys.executable, str(bare), server.url, CHANNEL], known, cpu["requests.post"])

        def fresh() -> float:
            nonlocal runs
            runs += 1
            return process_time(send, {**known, "CHATSDK_STATE_DIR": str(base / f"fresh-{runs}")}, cpu[fresh_name])

        def reused() -> float:
            return process_time(send, {**known, "CHATSDK_STATE_DIR": str(base / "reused")}, cpu[used_name])

        for warm in (post, fresh, reused):  # bytecode is compiled, files are in memory
            warm()
        for taken in cpu.values():
            taken.clear()
        before = server.answered()
        subjects = {"requests.post": post, fresh_name: fresh, used_name: reused}
        series = alternate(rounds, subjects, least_of=processes)
        delivered = server.answered() - before
        if delivered != 3 * rounds * processes:
            raise AssertionError(f"{3 * rounds * processes} messages were sent, {delivered} arrived")
    yield from measured(BENCH, "a process that sends one message", series, "ms")
    starts = range(0, rounds * processes, processes)
    least = {name: [min(taken[start : start + processes]) for start in starts] for name, taken in cpu.items()}
    yield from measured(BENCH, "CPU time of that process", least, "ms")
    for name in (fresh_name, used_name):
        yield goal(BENCH, f"{name} : script with requests.post", ratios(series[name], series["requests.post"]), 1.6)


# ---- what cannot be served


def rejection(rounds: int, count: int, base: Path) -> Iterator[Row]:
    """How long an open circuit takes to say no: all of the chain but the transport is passed."""
    with ChatClient("http://127.0.0.1:9", _TOKEN, user="alice", state_dir=str(base / "rejected")) as chat:
        call = Call(request(), lambda response: response.body)

        def measure() -> float:
            chat.circuits["api"].force_open(60)
            taken = []
            for _ in range(count):
                began = time.perf_counter()
                with contextlib.suppress(CircuitOpenError):
                    chat.call(call)
                    raise AssertionError("the circuit is open, and something was sent")
                taken.append(time.perf_counter() - began)
            return percentile(taken, 0.99) * 1000

        series = alternate(rounds, {"open circuit": measure})
    yield from measured(BENCH, "a call that is refused, p99", series, "ms")
    yield goal(BENCH, "an open circuit refuses, p99, ms", series["open circuit"], 1)


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """The URL of an address where nobody ever answers a SYN: a listener whose queue is full."""
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                caller.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def refused() -> Iterator[str]:
    """The URL of a port where nobody listens, and nobody else will."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{unused.getsockname()[1]}"


def enqueueing(url: str, base: Path, sends: int) -> float:
    """Milliseconds of `send(wait=False)`, p99, by a new client whose background threads are at work."""
    state = base / f"sends-{uuid.uuid4().hex}"
    taken = []
    chat = ChatClient(url, _TOKEN, user="alice", state_dir=str(state))
    try:
        for number in range(sends):
            channel = f"{number % CHANNELS:08x}-1111-4111-8111-111111111111"
            began = time.perf_counter()
            receipt = chat.send(channel, "x" * 200, wait=False)
            taken.append(time.perf_counter() - began)
            if receipt.state is not State.QUEUED:
                raise AssertionError(f"nobody can have delivered it, and it is {receipt.state}")
        accepted = chat.outbox.stats().accepted
        if accepted != sends:
            raise AssertionError(f"{sends} messages were sent, {accepted} were accepted")
    finally:
        chat.close(0)
        shutil.rmtree(state, ignore_errors=True)
    return percentile(taken, 0.99) * 1000


def bad_networks(rounds: int, sends: int, base: Path) -> Iterator[Row]:
    """`send(wait=False)` must not notice what the network does."""
    with Server() as server, black_hole() as hole, refused() as nobody:
        urls = {
            "black hole": hole,
            "refused": nobody,
            "silent server": f"{server.url}/silent",
            "drip server": f"{server.url}/drip",
        }
        series = alternate(rounds, {name: partial(enqueueing, url, base, sends) for name, url in urls.items()})
    yield from measured(BENCH, "send(wait=False), p99", series, "ms")
    for name, values in series.items():
        yield goal(BENCH, f"send(wait=False), p99, {name}, ms", values, 50)


def run(
    rounds: int = 9, *, processes: int = PROCESSES, rejections: int = REJECTIONS, sends: int = SENDS
) -> Iterator[Row]:
    """Measure; a minute and a half with nine rounds."""
    base = Path(tempfile.mkdtemp(prefix="bench-coldstart-"))
    # Python's own switches as well: one that keeps bytecode from being written would have the compiler measured
    strange = ("CHATSDK_", "XDG_", "PYTHON")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    environ["HOME"] = str(base)
    try:
        yield from imports(rounds, processes, environ)
        yield from one_shot(rounds, processes, environ, base)
        yield from rejection(rounds, rejections, base)
        yield from bad_networks(rounds, sends, base)
    finally:
        shutil.rmtree(base, ignore_errors=True)
