"""One of several processes that share an outbox and send as fast as they can; and its mutants, which the checker must
find out.

Each message is sent once: what `send` refused is given up, and must not be found at the server.
"""

from __future__ import annotations

import os
import random
import threading
import uuid
from collections.abc import Callable
from typing import Any

from chatsdk import ChatClient, NotAcceptedError
from tests.chaos.claims import Trace, TracedStore
from tests.chaos.history import Name, Notebook
from tests.chaos.one_user import client

THREADS = 2
LOCK_TIMEOUT_S = 0.4
"""Shorter than some processes are stopped, so that some sends are refused."""

LOOK_EVERY = 25
MOST_PENDING = 1000
"""Every so many messages a thread looks how many wait, and sends no more than these ahead of the server."""


WRITE_BEHIND_S = 0.02
"""Seconds by which the mutant that acknowledges too early is late: a commit is too quick to be hit by every kill."""


def crowd(job: dict[str, Any]) -> None:
    """Threads send to all channels until there is a file `stop`. `control`: which mutant to be, or ""."""
    control = job["control"]
    CONTROLS[control]()
    _trace_claims(Trace(job["claims"], job["owner"]))
    notes = Notebook(job["notes"])
    dice = random.Random(job["seed"])
    with client(job, background=True, lock_timeout=LOCK_TIMEOUT_S, plugins=_plugins(control)) as chat:
        threads = [
            threading.Thread(target=_send, args=(chat, notes, job, job["process"] * THREADS + n, dice.random()))
            for n in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _send(chat: ChatClient, notes: Notebook, job: dict[str, Any], sender: int, seed: float) -> None:
    dice = random.Random(seed)
    n = 0
    while not os.path.exists(job["stop"]):
        name = Name(dice.choice(job["channels"]), sender, job["run"], n)
        n += 1
        wait = dice.choice((0, 0, 0, 0.05))
        key = str(uuid.uuid4())
        notes.begun(name)
        if job["control"] == "early_acknowledgement":
            notes.accepted(name, key)
            threading.Event().wait(WRITE_BEHIND_S)
        try:
            receipt = chat.send(name.channel, name.text, key=key, wait=wait)
            if n % LOOK_EVERY == 0:
                while chat.outbox.stats().pending > MOST_PENDING and not os.path.exists(job["stop"]):
                    receipt.wait(0.1)
        except NotAcceptedError:
            notes.failed(name)
            continue
        if job["control"] != "early_acknowledgement":
            notes.accepted(name, receipt.key)


def _trace_claims(trace: Trace) -> None:
    """Have this process's clients write down whose the lanes are. The process is one that does nothing else."""
    from chatsdk.parts import Parts

    open_store = Parts._open_store

    def traced(parts: Parts) -> Any:
        return TracedStore(open_store(parts), trace)

    setattr(Parts, "_open_store", traced)  # noqa: B010 - mypy: a method


# ---- the mutants


def _plugins(control: str) -> list[Any]:
    if control != "fresh_keys":
        return []
    from chatsdk.cli.demo.fresh_keys import FreshKeys

    return [FreshKeys()]


def _no_order() -> None:
    """Of the rows that wait in a lane, any may be the next."""
    from chatsdk.outbox import lanes

    next_rows = lanes.next_rows

    def shuffled(tx: Any, lane: Any, limit: int) -> Any:
        rows = list(next_rows(tx, lane, max(limit, 10)))
        random.shuffle(rows)
        return rows[:limit]

    setattr(lanes, "next_rows", shuffled)  # noqa: B010 - mypy: a function of another shape


def _no_owners() -> None:
    """Everybody else is taken for dead."""
    from chatsdk.outbox.owners import Owners

    def only_me(owners: Owners, owner: str) -> bool:
        return owner == owners.me

    setattr(Owners, "is_alive", only_me)  # noqa: B010 - mypy: a method


def _itself() -> None:
    """The client as it is."""


CONTROLS: dict[str, Callable[[], None]] = {
    "": _itself,
    "early_acknowledgement": _itself,
    "fresh_keys": _itself,
    "no_order": _no_order,
    "no_owners": _no_owners,
}
