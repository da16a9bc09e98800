"""What `chat.health()` says while things go wrong and well again; asking it changes nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from chatsdk import ChatClient, ChatError
from chatsdk.devserver.process import DevServer
from chatsdk.resilience.system_clock import SystemClock
from chatsdk.testing.memory_store import MemoryStore
from tests.waiting import eventually

LIMIT = 15.0


until = partial(eventually, seconds=LIMIT)


def test_asking_opens_nothing(connect: Callable[..., ChatClient], state_dir: Path) -> None:
    """A client that did nothing is healthy, as far as it knows; it makes no file, no thread and no call to find out."""
    chat = connect()
    threads = threading.active_count()
    health = chat.health()
    assert (health.status, health.reasons, health.calls) == ("healthy", (), 0)
    assert (health.pending, health.dead, health.connection, health.quality) == (None, None, "CLOSED", "unknown")
    assert health.degradation == "none"
    assert not state_dir.exists()
    assert threading.active_count() == threads
    assert not {"outbox", "transport", "registry"} & chat._parts._made.keys()
    json.dumps(health.to_dict())


def test_an_outage_from_beginning_to_end(
    connect: Callable[..., ChatClient], server: DevServer, channel: str, texts: Callable[[str], list[str]]
) -> None:
    """Healthy, then critical with the circuit's name and what waits, then well again when all is delivered; the gauges
    tell the same."""
    chat = connect()
    assert chat.send(channel, "before").delivered
    well = chat.health()
    assert (well.status, well.pending, well.dead, well.oldest_age) == ("healthy", 0, 0, None)
    assert well.calls >= 1
    assert well.quality != "unknown"
    server.kill()
    for number in range(3):
        chat.send(channel, f"during {number}", wait=0)
    until(lambda: chat.health().status == "critical")
    ill = chat.health()
    assert ill.reasons[0] == "circuit api is open"
    assert (ill.open_circuits, ill.pending, ill.degradation) == (("api",), 3, "severe")
    assert ill.oldest_age is not None
    assert 0 <= ill.oldest_age < LIMIT
    metrics = chat._parts.metrics
    assert (metrics.value("pending_sync_items"), metrics.value("open_circuits")) == (3, 1)
    server.start()
    until(lambda: chat.health().pending == 0)
    until(lambda: metrics.value("open_circuits") == 0)
    well = chat.health()
    assert (well.open_circuits, well.oldest_age) == ((), None)
    assert well.degradation in ("none", "minor")  # of late many tries were lost: POOR, perhaps
    assert metrics.value("pending_sync_items") == 0
    assert texts(channel) == ["before", "during 0", "during 1", "during 2"]


def test_failing_calls_are_forgotten_after_five_minutes(
    connect: Callable[..., ChatClient], server: DevServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten failed calls are degraded; five minutes later they are no news."""
    chat = connect()
    for _ in range(10):
        with pytest.raises(ChatError):
            chat.channels.get("00000000-0000-4000-8000-000000000000", fresh=True)
    degraded = chat.health()
    assert (degraded.status, degraded.errors) == ("degraded", 10)
    metrics = chat._parts.metrics
    now = chat._parts.clock.monotonic()

    class Later:
        def monotonic(self) -> float:
            return now + 320.0

    monkeypatch.setattr(metrics, "_clock", Later())
    assert (chat.health().status, chat.health().errors) == ("healthy", 0)


def test_a_bad_disk_is_a_reason(connect: Callable[..., ChatClient], state_dir: Path, channel: str) -> None:
    """An outbox that can't be read is said, not raised."""
    chat = connect(lock_timeout=0.2)
    assert chat.send(channel, "hello").delivered
    (file,) = state_dir.glob("*/*/*.db")
    for each in file.parent.glob(f"{file.name}*"):
        each.unlink()
    file.mkdir()
    try:
        health = chat.health()
        assert health.status == "unhealthy"
        assert health.outbox_error
        assert health.reasons[0].startswith("the outbox can't be read: ")
        assert (health.pending, health.oldest_age) == (None, None)
        assert chat._parts.metrics.value("pending_sync_items") == 0
    finally:
        shutil.rmtree(file)


def test_it_is_quick_while_an_outbox_is_in_use(connect: Callable[..., ChatClient], channel: str, nowhere: str) -> None:
    """Under a millisecond, with a thousand messages waiting in a hundred channels: the quickest tenth of many tries,
    because a busy machine is not what is measured."""
    chat = connect(nowhere, background=False, user="alice", send_wait=0)
    for number in range(1000):
        chat.send(f"{number % 100:08x}-0000-4000-8000-000000000000", "hello", wait=0)
    for _ in range(300):
        chat._parts.condition.network.sample(0.02)
    chat.health()
    took = []
    for _ in range(200):
        began = perf_counter()
        health: Any = chat.health()
        took.append(perf_counter() - began)
    assert health.pending == 1000
    print(f"health(): median {sorted(took)[100] * 1e6:.0f} us, quickest tenth {sorted(took)[20] * 1e6:.0f} us")
    assert sorted(took)[20] < 0.001


def test_a_view_and_a_closed_client(connect: Callable[..., ChatClient], channel: str) -> None:
    """A user's view is as well as its client; after close nothing is known of the outbox, and nothing raises."""
    chat = connect()
    assert chat.send(channel, "hello").delivered
    assert chat.as_user("bob").health().pending == 0
    chat.close()
    closed = chat.health()
    assert (closed.pending, closed.outbox_error) == (None, "")


def test_somebody_elses_store_that_fails(connect: Callable[..., ChatClient]) -> None:
    """A store that raises what no store should does not make health raise."""

    class Broken(MemoryStore):
        broken = True

        def stats(self) -> Any:
            if self.broken:
                raise sqlite3.OperationalError("disk I/O error")
            return super().stats()

    store = Broken(SystemClock())
    chat = connect(store=store)
    chat._parts.outbox()
    assert chat.health().status == "unhealthy"
    assert chat._parts.metrics.value("pending_sync_items") == 0
    store.broken = False  # so that it can be closed
