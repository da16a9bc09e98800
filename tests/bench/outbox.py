"""What the outbox's durability costs, against the library it stands on, and what a million waiting messages change.

Both sides fsync each message: persistqueue's queue does so as it comes (WAL, synchronous FULL). Its `ack` keeps no
result, ours does. The million is written by SQL in one transaction, once a run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median

from persistqueue import SQLiteAckQueue
from persistqueue.serializers import json as json_serializer

from chatsdk.core.exchange import Request
from chatsdk.core.identity import uuid7
from chatsdk.core.store import Entry
from chatsdk.outbox import schema
from chatsdk.outbox.store import SQLiteStore
from chatsdk.resilience.system_clock import SystemClock

from .report import Row, Series, alternate, differences, goal, measured, ratios

BENCH = "outbox"
THREADS = 8
EACH = 150
"""Messages of each of eight threads in a round."""

ALONE = 400
"""Messages of a thread that is alone."""

MILLION = 1_000_000
INTERLEAVED = 300
CHANNELS = 100
PARKED = 2000

_TEXT = "x" * 200
_OURS, _STOCK = "chatsdk outbox", "SQLiteAckQueue"
_ROOT = Path(__file__).resolve().parents[2]


def entry(channel: str = "general") -> Entry:
    """A message with a body of 250 bytes and a new key."""
    now = time.time()
    key = uuid7(now, os.urandom(10))
    request = Request(
        operation="messages.send",
        method="POST",
        path=f"/api/channels/{channel}/messages",
        body={"text": _TEXT, "clientMsgId": key},
        user="alice",
        channel=channel,
        key=key,
        correlation_id=key,
    )
    return Entry(request=request, created_at=now, ttl=86400.0)


# ---- both sides


@contextlib.contextmanager
def our_store(folder: Path) -> Iterator[SQLiteStore]:
    """A new outbox."""
    store = SQLiteStore(folder, clock=SystemClock())
    try:
        yield store
    finally:
        store.close()
        shutil.rmtree(folder)


@contextlib.contextmanager
def stock_queue(folder: Path) -> Iterator[SQLiteAckQueue]:
    """The library's queue, as durable as it comes."""
    queue = SQLiteAckQueue(str(folder), auto_resume=False, multithreading=True, serializer=json_serializer)
    try:
        yield queue
    finally:
        queue.close()
        shutil.rmtree(folder)


def a_second(threads: int, each: int, work: Callable[[int], object]) -> float:
    """How many of `threads * each` operations a second; `work(number)` is one thread's share."""
    failed: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failed.append(error)

    running = [threading.Thread(target=guarded, args=(number,)) for number in range(threads)]
    began = time.perf_counter()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    took = time.perf_counter() - began
    if failed:
        raise failed[0]
    return threads * each / took


def our_puts(folder: Path, threads: int, each: int) -> float:
    """Messages accepted a second."""

    def work(number: int) -> None:
        for _ in range(each):
            _put(store, number)

    with our_store(folder) as store:
        return a_second(threads, each, work)


def stock_puts(folder: Path, threads: int, each: int) -> float:
    """Messages put a second."""

    def work(number: int) -> None:
        for _ in range(each):
            _stock_put(queue, number)

    with stock_queue(folder) as queue:
        return a_second(threads, each, work)


def alone_puts(rounds: int, count: int, base: Path) -> dict[str, Series]:
    """Messages a second of one thread, by the median put: an fsync that takes a hundred times as long as its neighbours
    says nothing of either side. The sides take turns every few puts, not every put: the file system would make each of
    them wait for what the other one wrote."""
    found = []
    for _ in range(rounds):
        with our_store(base / "ours") as store, stock_queue(base / "stock") as queue:
            actions = {_OURS: partial(_put, store), _STOCK: partial(_stock_put, queue)}
            found.append(interleaved(actions, count, turn=25))
    return {name: [1e6 / each[name] for each in found] for name in (_OURS, _STOCK)}


def _put(store: SQLiteStore, number: int) -> None:
    store.put(entry(f"channel-{number % CHANNELS}"))


def _stock_put(queue: SQLiteAckQueue, number: int) -> None:
    queue.put(entry(f"channel-{number % CHANNELS}").request.to_json())


def interleaved(actions: Mapping[str, Callable[[int], object]], count: int, turn: int = 1) -> dict[str, float]:
    """Median microseconds of each action, taking turns after every `turn` calls."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for start in range(0, count, turn):
        for name, action in actions.items():
            for number in range(start, min(start + turn, count)):
                began = time.perf_counter()
                action(number)
                taken[name].append(time.perf_counter() - began)
    return {name: median(values) * 1e6 for name, values in taken.items()}


def our_drain(folder: Path, threads: int, each: int) -> float:
    """Messages claimed and finished a second, one at a time, with a result, a lane for each thread."""
    result = {"id": "0" * 36, "text": _TEXT, "channelId": "general"}

    def fill(number: int) -> None:
        for _ in range(each):
            _put(store, number)

    def drain(_: int) -> None:
        claim = store.claim(time.time(), limit=1)
        if claim is None:
            raise AssertionError("there is a lane for each thread, and one got none")
        rows = claim.rows
        while rows:
            rows = store.finish(claim.lane, rows[0].id, result, time.time(), more=1)

    with our_store(folder) as store:
        a_second(threads, each, fill)
        rate = a_second(threads, each, drain)
        if store.stats().delivered != threads * each:
            raise AssertionError("not all were delivered")
        return rate


def stock_drain(folder: Path, threads: int, each: int) -> float:
    """Messages got and acknowledged a second; no result is kept."""

    def fill(number: int) -> None:
        for _ in range(each):
            _stock_put(queue, number)

    def drain(_: int) -> None:
        for _n in range(each):
            queue.ack(id=queue.get(block=False, raw=True)["pqid"])

    with stock_queue(folder) as queue:
        a_second(threads, each, fill)
        return a_second(threads, each, drain)


def throughput(rounds: int, each: int, alone: int, base: Path) -> Iterator[Row]:
    """Operations a second, both sides in turns."""
    ours, stock = base / "ours", base / "stock"
    puts = alternate(
        rounds, {_OURS: lambda: our_puts(ours, THREADS, each), _STOCK: lambda: stock_puts(stock, THREADS, each)}
    )
    single = alone_puts(rounds, alone, base)
    drains = alternate(
        rounds, {_OURS: lambda: our_drain(ours, THREADS, each), _STOCK: lambda: stock_drain(stock, THREADS, each)}
    )
    for metric, series in (
        (f"durable puts, {THREADS} threads", puts),
        ("durable puts, 1 thread", single),
        (f"claim and finish (get and ack), {THREADS} threads", drains),
    ):
        yield from measured(BENCH, metric, series, "a second")
    for metric, series, least in (
        (f"durable puts, {THREADS} threads : SQLiteAckQueue", puts, 1.8),
        ("durable puts, 1 thread : SQLiteAckQueue", single, 0.85),
        (f"claim and finish, {THREADS} threads : get and ack of SQLiteAckQueue", drains, 3.0),
    ):
        yield goal(BENCH, metric, ratios(series[_OURS], series[_STOCK]), least, at_least=True)


# ---- a million rows


def fill(folder: Path, count: int, channels: int, *, not_before: float = 0.0) -> None:
    """A new outbox in which `count` rows wait, in so many lanes, as `put` would have left them."""
    SQLiteStore(folder, clock=SystemClock()).close()
    sample = schema.encode(entry("@channel@"))
    connection = sqlite3.connect(folder / schema.FILE, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN IMMEDIATE")
        facts = {
            "count": count,
            "channels": channels,
            "data": sample.data.decode(),
            "key": sample.key,
            "hash": sample.hash,
            "created": sample.created_at,
            "expires": sample.expires_at,
            "not_before": not_before,
        }
        connection.execute(
            f"""WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count),
            named AS (SELECT n, 'channel-' || (n % :channels) AS channel,
                      printf('%08x-0000-7000-8000-%012x', n >> 8, n) AS key FROM numbers)
            INSERT INTO {schema.TABLE}(_id, data, timestamp, status, key, user, channel, hash, expires_at)
            SELECT n, CAST(replace(replace(:data, :key, key), '@channel@', channel) AS BLOB),
                   :created, 0, key, 'alice', channel, :hash, :expires FROM named""",
            facts,
        )
        connection.execute(
            f"""INSERT INTO lanes(user, channel, turn, not_before)
            SELECT user, channel, min(_id), :not_before FROM {schema.TABLE} GROUP BY user, channel""",
            {"not_before": not_before},
        )
        connection.execute(
            f"""UPDATE counters SET accepted = :count, pending = :count, last_id = :count,
            bytes = (SELECT sum(length(data)) FROM {schema.TABLE})""",
            {"count": count},
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def open_store(folder: Path) -> SQLiteStore:
    """An outbox without limits that a million would meet."""
    return SQLiteStore(folder, clock=SystemClock(), max_pending=10**7, max_bytes=1 << 40)


_WORK = """
import re, sys, time
from pathlib import Path
from tests.bench.outbox import entry, open_store
began = time.perf_counter()
store = open_store(sys.argv[1])
opened = time.perf_counter() - began
store.stats()
for number in range(100):
    store.put(entry(f"channel-{number}"))
for number in range(100):
    claim = store.claim(time.time(), limit=25)
    store.finish(claim.lane, claim.rows[0].id, {}, time.time())
# not getrusage: its figure begins with what the parent had
most = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(opened * 1000, int(most[1]) / 1024)
store.close()
"""


def in_new_process(folder: Path) -> tuple[float, float]:
    """(milliseconds to open, MiB of memory at most after some work) of a process that opens `folder`."""
    answer = subprocess.run(
        [sys.executable, "-c", _WORK, str(folder)], cwd=_ROOT, check=True, capture_output=True, text=True
    )
    opened, memory = answer.stdout.split()
    return float(opened), float(memory)


def million(rounds: int, count: int, puts: int, base: Path) -> Iterator[Row]:
    """What a million waiting rows change."""
    full, empty = f"{count:,} pending", "none pending"
    folders = {full: base / "full", empty: base / "empty"}
    fill(folders[full], count, CHANNELS)
    with contextlib.ExitStack() as stack:
        actions = {}
        for name, folder in folders.items():
            store = open_store(folder)
            stack.callback(store.close)
            actions[name] = partial(_put, store)
        interleaved(actions, puts)  # pages that the first puts read
        found = [interleaved(actions, puts) for _ in range(rounds)]
    latency: dict[str, Series] = {name: [each[name] for each in found] for name in folders}
    yield from measured(BENCH, "put, p50", latency, "us")
    yield goal(BENCH, f"put, p50, {full} : {empty}", ratios(latency[full], latency[empty]), 1.2)
    opened: dict[str, list[float]] = {name: [] for name in folders}
    memory: dict[str, list[float]] = {name: [] for name in folders}
    for _ in range(rounds):
        for name, folder in folders.items():
            milliseconds, mebibytes = in_new_process(folder)
            opened[name].append(milliseconds)
            memory[name].append(mebibytes)
    yield from measured(BENCH, "opening", opened, "ms")
    yield from measured(BENCH, "memory of a process after some work", memory, "MB")
    yield goal(BENCH, f"opening, {full}, ms", opened[full], 200)
    yield goal(BENCH, f"memory, {full}, above none pending, MB", differences(memory[full], memory[empty]), 40)


# ---- lanes that wait


def claim_time(folder: Path, count: int) -> float:
    """Median microseconds of a claim that finds the one lane that is due."""
    taken = []
    store = open_store(folder)
    try:
        for number in range(count):
            store.put(entry(f"due-{number}"))
            began = time.perf_counter()
            claim = store.claim(time.time())
            taken.append(time.perf_counter() - began)
            if claim is None or claim.lane.channel != f"due-{number}":
                raise AssertionError("the lane that is due was not found")
            store.finish(claim.lane, claim.rows[0].id, None, time.time())
        return median(taken) * 1e6
    finally:
        store.close()


def parked(rounds: int, count: int, claims: int, base: Path) -> Iterator[Row]:
    """What lanes that may not be tried cost those that may."""
    beside, free = f"beside {count:,} parked lanes", "beside none"
    fill(base / "parked", count, count, not_before=time.time() + 86400)
    fill(base / "free", 1, 1, not_before=time.time() + 86400)
    series = alternate(
        rounds,
        {beside: lambda: claim_time(base / "parked", claims), free: lambda: claim_time(base / "free", claims)},
    )
    yield from measured(BENCH, "claim of a lane that is due", series, "us")
    yield goal(BENCH, f"claim, {beside} : {free}", ratios(series[beside], series[free]), 2.0)


def run(
    rounds: int = 9,
    *,
    each: int = EACH,
    alone: int = ALONE,
    pending: int = MILLION,
    puts: int = INTERLEAVED,
    lanes: int = PARKED,
) -> Iterator[Row]:
    """Measure; about a minute and a half with nine rounds."""
    with tempfile.TemporaryDirectory(prefix="bench-outbox-") as name:
        base = Path(name)
        yield from throughput(rounds, each, alone, base)
        yield from million(rounds, pending, puts, base)
        yield from parked(rounds, lanes, min(puts, 100), base)
