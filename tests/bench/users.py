"""What users cost: one client that speaks for 1, 100 and 1,000 users, under the same load.

Each subject is a process of its own, which sends MESSAGES messages to as many channels and reads as many times, from
eight threads, shared out between its users. Every other user's token was given, the others' come from a provider that
takes a moment. Meanwhile the most descriptors and threads are noted (the eight callers are not ours), in the end the
memory. Everything is delivered for real: the server counts.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from chatsdk import ChatClient
from chatsdk.core.exchange import Call, Request
from chatsdk.core.tokens import TokenRequest

from .report import Row, Series, differences, goal, measured
from .server import Server

BENCH = "users"
COUNTS = (1, 100, 1000)
MESSAGES = 1000
CALLERS = 8
ROUNDS = 3
"""At most: these figures hardly differ from one process to the next."""

_ROOT = Path(__file__).resolve().parents[2]


# ---- in the process that is measured


def _provide(wanted: TokenRequest) -> str:
    threading.Event().wait(0.002)
    return f"token-of-{wanted.user}"


def _channel(number: int) -> str:
    return f"{number:08x}-1111-4111-8111-111111111111"


def _read(user: str, number: int) -> Call[Any]:
    request = Request(
        operation="messages.list", method="GET", path=f"/api/channels/{_channel(number)}/messages", user=user
    )
    return Call(request, lambda response: response.body)


def _memory() -> float:
    """MB in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def load(url: str, state: str, users: int, messages: int) -> dict[str, float]:
    """Do it, and say what it took."""
    most = {"descriptors": 0, "threads": 0}
    with ChatClient(url, user="service", token_provider=_provide, state_dir=state, discover=False) as chat:

        def call(number: int) -> None:
            user = f"user-{number % users}"
            view = chat.as_user(user, token=f"token-of-{user}") if number % users % 2 else chat.as_user(user)
            view.send(_channel(number), "x" * 200, wait=0)
            view.call(_read(user, number), fresh=True)

        began = time.perf_counter()
        with ThreadPoolExecutor(CALLERS) as pool:
            calls = [pool.submit(call, number) for number in range(messages)]
            while chat.outbox.stats().delivered < messages:
                most["descriptors"] = max(most["descriptors"], len(os.listdir("/proc/self/fd")))
                threads = sum(not each.name.startswith("ThreadPool") for each in threading.enumerate())
                most["threads"] = max(most["threads"], threads)
                if time.perf_counter() - began > 120:
                    raise TimeoutError(f"of {messages} messages, {chat.outbox.stats()} in two minutes")
                threading.Event().wait(0.005)
            for each in calls:
                each.result()
        took = time.perf_counter() - began
        gc.collect()
        return {**most, "memory": _memory(), "rate": messages / took}


# ---- in the one that measures


def measure(users: int, messages: int) -> dict[str, float]:
    """The figures of one process."""
    state = tempfile.mkdtemp(prefix="bench-users-")
    try:
        with Server() as server:
            command = [sys.executable, "-m", f"{__package__}.users", server.url, state, str(users), str(messages)]
            done = subprocess.run(command, cwd=_ROOT, check=True, capture_output=True, text=True)
            arrived = server.answered()
            if arrived != 2 * messages:
                raise AssertionError(f"{messages} messages and as many reads were sent, {arrived} arrived")
        found: dict[str, Any] = json.loads(done.stdout)
        return found
    finally:
        shutil.rmtree(state, ignore_errors=True)


def run(rounds: int = 9, *, counts: tuple[int, ...] = COUNTS, messages: int = MESSAGES) -> Iterator[Row]:
    """Measure; about a minute."""
    names = {f"{users:,} user{'s' if users > 1 else ''}": users for users in counts}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(min(rounds, ROUNDS)):
        for name, users in names.items():
            found[name].append(measure(users, messages))

    @cache
    def series(name: str, what: str) -> Series:
        return [each[what] for each in found[name]]

    for what, metric, unit in (
        ("descriptors", "open descriptors, at most", "files"),
        ("threads", "threads, at most, without the callers", "threads"),
        ("memory", f"resident after {messages:,} messages and reads", "MB"),
        ("rate", "messages delivered, and reads, by eight threads", "per second"),
    ):
        yield from measured(BENCH, metric, {name: series(name, what) for name in names}, unit)
    one, most = min(names, key=names.__getitem__), max(names, key=names.__getitem__)
    yield goal(BENCH, f"descriptors, {most}", series(most, "descriptors"), 40)
    yield goal(BENCH, f"threads, {most}", series(most, "threads"), 16)
    yield goal(BENCH, f"memory, {most}, over {one}, MB", differences(series(most, "memory"), series(one, "memory")), 30)


if __name__ == "__main__":
    print(json.dumps(load(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
