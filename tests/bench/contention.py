"""What it costs to share an outbox: durable puts by 1, 4 and 16 processes, beside as many threads of one process.

All begin at the same moment and put for the same time. The library that the outbox stands on is measured with the same
threads in one process: its queue does not allow several. Afterwards the file must hold exactly what was put.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from persistqueue import SQLiteAckQueue
from persistqueue.serializers import json as json_serializer

from .outbox import CHANNELS, a_second, entry, open_store
from .report import Row, Series, goal, measured, percentile, ratios

BENCH = "contention"
SECONDS = 1.0
LEAD = 0.05
"""Seconds from the word to begin to the beginning: by then everybody has heard it."""

PATIENCE = 60.0

_OURS, _STOCK = "chatsdk outbox", "SQLiteAckQueue"
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who puts: so many processes of so many threads each."""

    side: str
    processes: int
    threads: int

    def __str__(self) -> str:
        processes = "process" if self.processes == 1 else "processes"
        threads = "thread" if self.threads == 1 else "threads"
        return f"{self.side}, {self.processes} {processes} x {self.threads} {threads}"


TOGETHER, APART, MANY = Crowd(_OURS, 1, 4), Crowd(_OURS, 4, 1), Crowd(_OURS, 16, 1)
"""What the goals compare."""

CROWDS = (
    Crowd(_OURS, 1, 1),
    TOGETHER,
    APART,
    Crowd(_OURS, 1, 16),
    Crowd(_OURS, 4, 4),
    MANY,
    Crowd(_STOCK, 1, 1),
    Crowd(_STOCK, 1, 4),
    Crowd(_STOCK, 1, 16),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What a crowd did: puts a second, and milliseconds of a put."""

    rate: float
    p50: float
    p99: float


# ---- in the processes that put: `python -m tests.bench.contention SIDE FOLDER THREADS SECONDS`


@contextlib.contextmanager
def opened(side: str, folder: Path) -> Iterator[Callable[[int], object]]:
    """How one message is put."""
    if side == _STOCK:
        queue = SQLiteAckQueue(str(folder), auto_resume=False, multithreading=True, serializer=json_serializer)
        with contextlib.closing(queue):
            yield lambda number: queue.put(entry(f"channel-{number}").request.to_json())
    else:
        with contextlib.closing(open_store(folder)) as store:
            yield lambda number: store.put(entry(f"channel-{number}"))


def put_for(put: Callable[[int], object], threads: int, began: float, seconds: float) -> tuple[int, list[float]]:
    """(puts that ended in time, seconds that each put took) of threads that put from `began` (monotonic) on."""
    end, in_time = began + seconds, [0] * threads
    taken: list[list[float]] = [[] for _ in range(threads)]

    def work(number: int) -> None:
        threading.Event().wait(max(0.0, began - time.monotonic()))
        while (before := time.monotonic()) < end:
            put((number + len(taken[number])) % CHANNELS)
            after = time.monotonic()
            taken[number].append(after - before)
            in_time[number] += after <= end

    a_second(threads, 1, work)
    return sum(in_time), [each for mine in taken for each in mine]


def work(side: str, folder: Path, threads: int, seconds: float) -> None:
    """Say when ready, begin when told, report."""
    with opened(side, folder) as put:
        put(0)  # so the file is open
        print("ready", flush=True)
        began = float(sys.stdin.readline())
        print(json.dumps(put_for(put, threads, began, seconds)), flush=True)


# ---- in the one that measures


def puts(crowd: Crowd, seconds: float, base: Path) -> Found:
    """Let a crowd put into a new file."""
    folder = base / "contended"
    command = [
        sys.executable,
        "-m",
        f"{__package__}.contention",
        crowd.side,
        str(folder),
        str(crowd.threads),
        str(seconds),
    ]
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        running = []
        for _ in range(crowd.processes):
            process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
            running.append(process)
        for process in running:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise AssertionError(f"a process of {crowd} did not get ready")
        began = time.monotonic() + LEAD
        for process in running:
            assert process.stdin is not None
            process.stdin.write(f"{began}\n")
            process.stdin.flush()
        count, taken = 0, []
        for process in running:
            counted, took = json.loads(process.communicate(timeout=PATIENCE)[0])
            count += counted
            taken += took
        stored = _stored(crowd.side, folder)
        if stored != len(taken) + crowd.processes:
            raise AssertionError(f"{crowd} put {len(taken) + crowd.processes} messages, {stored} are there")
    return Found(count / seconds, percentile(taken, 0.5) * 1e3, percentile(taken, 0.99) * 1e3)


def _stored(side: str, folder: Path) -> int:
    """Messages in the file."""
    name, file = ("outbox", "outbox.db") if side == _OURS else ("default", "data.db")
    with contextlib.closing(sqlite3.connect(folder / file)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM ack_queue_{name}").fetchone()[0])


def run(rounds: int = 9, *, seconds: float = SECONDS, crowds: tuple[Crowd, ...] = CROWDS) -> Iterator[Row]:
    """Measure; about two and a half minutes with nine rounds."""
    found: dict[Crowd, list[Found]] = {crowd: [] for crowd in crowds}
    with tempfile.TemporaryDirectory(prefix="bench-contention-") as name:
        for number in range(rounds):
            first = number % len(crowds)
            for crowd in crowds[first:] + crowds[:first]:
                found[crowd].append(puts(crowd, seconds, Path(name)))

    @cache
    def series(crowd: Crowd, what: str) -> Series:
        return [getattr(each, what) for each in found[crowd]]

    for what, metric, unit in (
        ("rate", "durable puts, all together", "a second"),
        ("p50", "a put, p50", "ms"),
        ("p99", "a put, p99", "ms"),
    ):
        yield from measured(BENCH, metric, {str(crowd): series(crowd, what) for crowd in crowds}, unit)
    yield goal(
        BENCH,
        "puts, 4 processes : 4 threads of one",
        ratios(series(APART, "rate"), series(TOGETHER, "rate")),
        0.7,
        at_least=True,
    )
    yield goal(BENCH, "put, p99, 16 processes, ms", series(MANY, "p99"), 50)


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
