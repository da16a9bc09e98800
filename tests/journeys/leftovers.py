"""What a client must not leave behind, and what it must have done."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator

from chatsdk import ChatClient, State
from chatsdk.resources.receipt import Receipt
from tests.waiting import eventually


def threads() -> Counter[str]:
    """Our threads, by kind."""
    names = [each.name.rstrip("0123456789") for each in threading.enumerate()]
    return Counter(name for name in names if name.startswith("chatsdk"))


def descriptors() -> set[tuple[str, str]]:
    """Open files and sockets: number, and what it is."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return found


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Fail if a thread or a descriptor is left of what happened inside."""
    before, opened = threads(), descriptors()
    yield
    eventually(lambda: threads() <= before, f"the end of {threads() - before}")
    gc.collect()
    left = descriptors() - opened
    eventually(lambda: not descriptors() - opened, f"closing of {left}")


def exactly_once(
    chat: ChatClient, receipts: list[Receipt], texts: Callable[[str], list[str]], seconds: float = 20.0
) -> None:
    """Each message was delivered, once, in the order of its channel, and the books say so."""
    assert [receipt.wait(seconds).state for receipt in receipts] == [State.SENT] * len(receipts)
    keys = [receipt.key for receipt in receipts]
    assert len(set(keys)) == len(keys)
    by_channel: dict[str, list[str]] = {}
    for receipt in receipts:
        row = chat._parts.outbox().get(id=receipt.id)
        assert row is not None
        by_channel.setdefault(row.request.channel, []).append(row.request.body["text"])
    for channel, sent in by_channel.items():
        assert texts(channel) == sent
    stats = chat.outbox.stats()
    assert (stats.accepted, stats.delivered, stats.dead, stats.pending) == (len(receipts), len(receipts), 0, 0)
