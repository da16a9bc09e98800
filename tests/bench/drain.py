"""How fast a backlog goes out, beside the same requests from bare loops that keep nothing.

The backlog is put, message by message, into a real outbox; then processes open it, each a client as a user makes it,
and drain. Their peers post the same bodies in a loop, in threads of one process, each over a kept-alive connection of
its own, and read the answers. One server answers both. Everybody is measured alike: by the server's count of answers
between two moments in the middle of the work, so neither a start nor a tail is part of a figure. Of a large backlog
each turn drains a piece, and what is missing is put again before the next one.

What ours does beside: it claims lanes, keeps each lane's order, and fsyncs the fate of each message before the next one
of its lane goes out. After each turn the outbox's books are compared with the server's: each message once.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from chatsdk import ChatClient

from .outbox import a_second, entry, open_store
from .report import Row, alternate, goal, measured, ratios
from .server import Server

BENCH = "drain"
BACKLOG = 100_000
SMALL = 1_000
LANES = (1, 8, 64)
PROCESSES = (1, 2, 4)
PIECE = 1_200
"""Messages between the two moments of a turn."""

WARM = 150
"""Messages before that: connections are made, modules are loaded, every lane has an owner."""

ROUNDS = 3
"""At most, of the whole table; what the goals compare takes turns as often as was asked for."""

PAIR = 8
"""Lanes, and loops, that the goals compare."""

FILLERS = 64
"""Threads that put the backlog: so many puts share a commit."""

PATIENCE = 120.0
LOOK = 0.01
"""Seconds between two questions to the server how far it is."""

_OURS = "chatsdk"
_TOKEN = "bench-token"
_ROOT = Path(__file__).resolve().parents[2]


def _channel(number: int) -> str:
    return f"{number:08x}-1111-4111-8111-111111111111"


# ---- in the processes that are measured: `python -m tests.bench.drain SUBJECT URL STATE THREADS`


def drain(url: str, state: str, stop: threading.Event) -> None:
    """Deliver in the background, as `chatsdk outbox run` does, until told to stop."""
    with ChatClient(url, _TOKEN, user="alice", state_dir=state, discover=False, max_pending=10**7) as chat:
        outbox = chat._parts.outbox()
        outbox.run_forever(stop)
        outbox.close(30.0)  # tries under way end, nothing more is begun


def loop(post: Callable[[str, Any], Any], url: str, number: int, stop: threading.Event) -> None:
    """Post one message after the other."""
    channel = _channel(number)
    target = f"{url}/api/channels/{channel}/messages"
    while not stop.is_set():
        answer = post(target, entry(channel).request.body)
        if answer["ok"] is not True:
            raise AssertionError("the server refused a message")


@contextlib.contextmanager
def by_requests() -> Iterator[Callable[[str, Any], Any]]:
    """A keep-alive session."""
    import requests

    headers = {"Authorization": f"Bearer {_TOKEN}"}
    with requests.Session() as session:
        yield lambda url, body: session.post(url, json=body, headers=headers, timeout=10).json()


@contextlib.contextmanager
def by_urllib3() -> Iterator[Callable[[str, Any], Any]]:
    """A pool of one connection."""
    import urllib3

    with urllib3.PoolManager(maxsize=1, headers={"Authorization": f"Bearer {_TOKEN}"}) as pool:
        yield lambda url, body: pool.request("POST", url, json=body, timeout=10).json()


LOOPS = {"requests": by_requests, "urllib3": by_urllib3}


def loops(peer: str, url: str, threads: int, stop: threading.Event) -> None:
    """So many bare loops, in threads."""

    def run(number: int) -> None:
        with LOOPS[peer]() as post:
            loop(post, url, number, stop)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()


def work(subject: str, url: str, state: str, threads: int) -> None:
    """Go on until standard input ends."""
    stop = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait, daemon=True).start()
    if subject in LOOPS:
        loops(subject, url, threads, stop)
    else:
        drain(url, state, stop)


# ---- in the one that measures


@contextlib.contextmanager
def working(subject: str, url: str, state: Path, threads: int, processes: int) -> Iterator[Callable[[], bool]]:
    """So many processes at work (the function says: all of them); they end, in good order, with the block."""
    command = [sys.executable, "-m", f"{__package__}.drain", subject, url, str(state), str(threads)]
    running = [subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE) for _ in range(processes)]
    try:
        yield lambda: all(process.poll() is None for process in running)
        for process in running:
            process.communicate(timeout=PATIENCE)
        if any(process.returncode for process in running):
            raise AssertionError(f"a process of {subject} failed")
    finally:
        for process in running:
            process.kill()
            process.wait()


class Backlog:
    """An outbox in which `count` messages wait, in so many lanes, whenever a turn begins."""

    def __init__(self, server: Server, state: Path, count: int, lanes: int) -> None:
        self.state, self.count, self.lanes = state, count, lanes
        with ChatClient(server.url, _TOKEN, user="alice", state_dir=str(state), discover=False) as chat:
            self._folder = chat._parts.state_directory()

    def fill(self) -> None:
        """Put, message by message, what is missing."""
        with contextlib.closing(open_store(self._folder)) as store:
            missing = self.count - store.stats().pending
            each = -(-missing // FILLERS)

            def put(number: int) -> None:
                for n in range(number * each, min((number + 1) * each, missing)):
                    store.put(entry(_channel(n % self.lanes)))

            a_second(FILLERS, 1, put)

    def delivered(self) -> int:
        """By the outbox's books. Raises AssertionError if there are dead letters, or the books do not balance."""
        with contextlib.closing(open_store(self._folder)) as store:
            stats = store.stats()
        if stats.dead or stats.accepted != stats.delivered + stats.pending:
            raise AssertionError(f"the books are wrong: {stats}")
        return stats.delivered


def rate(
    server: Server, subject: str, state: Path, *, threads: int = 0, processes: int = 1, piece: int, warm: int
) -> float:
    """Messages a second."""
    began, before = time.monotonic(), server.answered()

    def reached(count: int) -> tuple[float, int]:
        while True:
            found = server.answered() - before
            now = time.monotonic()
            if found >= count:
                return now, found
            if now - began > PATIENCE or not at_work():
                raise TimeoutError(f"{found} of {count} messages of {subject} in {now - began:.0f} s")
            threading.Event().wait(LOOK)

    with working(subject, server.url, state, threads, processes) as at_work:
        first, start = reached(warm)
        last, end = reached(start + piece)
    return (end - start) / (last - first)


def drained(server: Server, backlog: Backlog, processes: int, piece: int, warm: int) -> float:
    """Messages a second of our processes. What was answered meanwhile must be what the outbox calls delivered."""
    backlog.fill()
    answered, delivered = server.answered(), backlog.delivered()
    found = rate(server, _OURS, backlog.state, processes=processes, piece=piece, warm=warm)
    answered, delivered = server.answered() - answered, backlog.delivered() - delivered
    if answered != delivered:
        raise AssertionError(f"{delivered} messages are delivered, and the server answered {answered}")
    return found


def run(
    rounds: int = 9,
    *,
    count: int = BACKLOG,
    small: int = SMALL,
    lanes: tuple[int, ...] = LANES,
    processes: tuple[int, ...] = PROCESSES,
    piece: int = PIECE,
    warm: int = WARM,
) -> Iterator[Row]:
    """Measure; about three minutes with nine rounds."""
    with Server() as server, tempfile.TemporaryDirectory(prefix="bench-drain-") as name:
        base = Path(name)
        full = {each: Backlog(server, base / f"full-{each}", count, each) for each in lanes}
        for each in lanes:
            subjects: dict[str, Callable[[], float] | None] = {}
            for many in processes:
                label = f"{_OURS}, {many} process{'es' if many > 1 else ''}"
                subjects[label] = partial(drained, server, full[each], many, piece, warm)
            for peer in LOOPS:
                label = f"{each} bare loop{'s' if each > 1 else ''} of {peer}"
                subjects[label] = partial(rate, server, peer, base, threads=each, piece=piece, warm=warm)
            found = alternate(min(rounds, ROUNDS), subjects)
            metric = f"out of {count:,} messages in {each} lane{'s' if each > 1 else ''}"
            yield from measured(BENCH, metric, found, "a second")

        little = Backlog(server, base / "small", small, PAIR)
        pair = Backlog(server, base / "pair", count, PAIR)  # as new as the little one: old results cost something, too
        part = min(piece, small - 2 * warm)
        of_full, of_small = f"{_OURS}, backlog of {count:,}", f"{_OURS}, backlog of {small:,}"
        loops_of = {peer: f"{PAIR} bare loops of {peer}" for peer in LOOPS}
        compared = alternate(
            rounds,
            {
                of_full: partial(drained, server, pair, 1, part, warm),
                of_small: partial(drained, server, little, 1, part, warm),
                loops_of["requests"]: partial(rate, server, "requests", base, threads=PAIR, piece=part, warm=warm),
            },
        )
        yield from measured(BENCH, f"{PAIR} lanes, one process", compared, "a second")
        yield goal(
            BENCH,
            f"drain, {PAIR} lanes : {loops_of['requests']}",
            ratios(compared[of_full], compared[loops_of["requests"]]),
            0.8,
            at_least=True,
        )
        yield goal(
            BENCH,
            f"cost of a message, backlog of {count:,} : of {small:,}",
            ratios(compared[of_small], compared[of_full]),
            1.1,
        )


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
