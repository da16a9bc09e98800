"""What it costs to ask a client how it is, with much waiting in its outbox.

The outbox is written by SQL, once a run: a million messages in ten thousand lanes, none of them due. Each client was
asked before (the first look at a file reads it from disk), has seen traffic, and is asked again and again; once as it
is, and once right after a message was accepted, when SQLite has to read its pages anew.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

from chatsdk import ChatClient

from .outbox import MILLION, entry, fill, open_store
from .report import Row, alternate, goal, measured

BENCH = "health"
LANES = 10_000
ASKED = 200
LIMIT = 1000.0
"""Microseconds: what is promised."""


@contextlib.contextmanager
def client(folder: Path) -> Iterator[ChatClient]:
    """One with this outbox, which it neither fills nor drains, and with a network that it has seen something of."""
    store = open_store(folder)
    try:
        with ChatClient("http://127.0.0.1:9", user="alice", store=store, background=False, discover=False) as chat:
            chat.outbox.stats()
            for _ in range(300):
                chat._parts.condition.network.sample(0.02)
            yield chat
    finally:
        store.close()


def asked(chat: ChatClient, count: int, before: Callable[[], object] = lambda: None) -> float:
    """Median microseconds of an answer; `before` each of them something happens."""
    taken = []
    for _ in range(count):
        before()
        began = time.perf_counter()
        chat.health()
        taken.append(time.perf_counter() - began)
    return median(taken) * 1e6


def run(rounds: int = 9, *, pending: int = MILLION, lanes: int = LANES, count: int = ASKED) -> Iterator[Row]:
    """Measure; about half a minute, most of it for making the million."""
    much, little = f"{pending:,} waiting in {lanes:,} lanes", "one waiting"
    with tempfile.TemporaryDirectory(prefix="bench-health-") as name, contextlib.ExitStack() as stack:
        far = time.time() + 86400
        clients = {}
        for subject, (rows, channels) in {much: (pending, lanes), little: (1, 1)}.items():
            folder = Path(name) / f"{rows}"
            fill(folder, rows, channels, not_before=far)
            clients[subject] = stack.enter_context(client(folder))
        series = alternate(rounds, {subject: partial(asked, chat, count) for subject, chat in clients.items()})
        yield from measured(BENCH, "health(), p50", series, "us")
        after = alternate(
            rounds,
            {
                subject: partial(asked, chat, max(1, count // 10), partial(_accept, chat))
                for subject, chat in clients.items()
            },
        )
        yield from measured(BENCH, "health() right after a message was accepted, p50", after, "us")
        yield goal(BENCH, f"health(), {much}, us", series[much], LIMIT)
        yield goal(BENCH, f"health() right after a message was accepted, {much}, us", after[much], LIMIT)


def _accept(chat: ChatClient) -> None:
    chat._parts.outbox().store.put(entry("channel-0"))
