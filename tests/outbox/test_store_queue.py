"""What the store inherits from persistqueue: the stock class reads our file, and none of its verbs lies about it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from persistqueue import SQLiteAckQueue
from persistqueue.serializers import json as json_serializer

from chatsdk.core.store import Selection, State
from chatsdk.outbox import schema
from chatsdk.outbox.queue import OutboxQueue
from chatsdk.outbox.store import SQLiteStore
from tests.outbox.store_kit import LANE, NOW, balanced, claimed, entry, open_directly

REFUSED: dict[str, Callable[[Any], object]] = {
    "put": lambda queue: queue.put({"text": "x"}),
    "get": lambda queue: queue.get(block=False),
    "get_nowait": lambda queue: queue.get_nowait(),
    "ack": lambda queue: queue.ack(id=4),
    "ack_failed": lambda queue: queue.ack_failed(id=4),
    "nack": lambda queue: queue.nack(id=4),
    "update": lambda queue: queue.update({"text": "x"}, id=4),
    "task_done": lambda queue: queue.task_done(),
    "full": lambda queue: queue.full(),
    "resume_unack_tasks": lambda queue: queue.resume_unack_tasks(),
    "clear_acked_data": lambda queue: queue.clear_acked_data(max_delete=0, keep_latest=0, clear_ack_failed=True),
    "shrink_disk_usage": lambda queue: queue.shrink_disk_usage(),
}
TRUE: dict[str, Callable[[Any], bool]] = {
    "queue": lambda queue: (
        [(item["id"], item["data"]["body"]["text"], item["status"]) for item in queue.queue()]
        == [(1, "sent", 5), (2, "dead", 9), (3, "three", 0), (4, "four", 0)]
    ),
    "size": lambda queue: queue.size == 2,
    "qsize": lambda queue: queue.qsize() == 2,
    "active_size": lambda queue: queue.active_size() == 2,
    "empty": lambda queue: queue.empty() is False,
    "unack_count": lambda queue: queue.unack_count() == 0,
    "acked_count": lambda queue: queue.acked_count() == 1,
    "ready_count": lambda queue: queue.ready_count() == 0,
    "ack_failed_count": lambda queue: queue.ack_failed_count() == 1,
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    """An outbox with one result, one dead letter and two waiting rows."""
    made = open_directly(tmp_path / "state")
    for text in ("sent", "dead", "three", "four"):
        made.put(entry(text))
    claimed(made)
    made.finish(LANE, 1, {"id": "m1"}, NOW, more=1)
    made.bury(LANE, 2, "rejected", None, NOW)
    yield made
    balanced(made)
    made.close()


@pytest.fixture
def queue(store: SQLiteStore) -> Iterator[OutboxQueue]:
    """The library's side of that outbox."""
    made = OutboxQueue(store.directory)
    yield made
    made.close()


def test_every_inherited_verb_is_decided() -> None:
    """Each public verb that persistqueue has is either true on our table or refused; a new one is noticed here."""
    public = {name for name, _ in inspect.getmembers(SQLiteAckQueue) if not name.startswith("_")}
    assert public == {*REFUSED, *TRUE, "close"}


@pytest.mark.parametrize("verb", sorted(REFUSED))
def test_refused(store: SQLiteStore, queue: OutboxQueue, verb: str) -> None:
    """A verb that would break the accounting refuses by name and changes nothing."""
    before = store.list(Selection())
    with pytest.raises(TypeError, match=rf"SQLiteAckQueue\.{verb} "):
        REFUSED[verb](queue)
    assert store.list(Selection()) == before


@pytest.mark.parametrize("verb", sorted(TRUE))
def test_true(queue: OutboxQueue, verb: str) -> None:
    """A verb that is kept tells the truth of the table."""
    assert TRUE[verb](queue)


def test_numbers_are_the_tables(store: SQLiteStore, queue: OutboxQueue) -> None:
    """`len` and `total` follow what other users of the file do, whatever the instance was told."""
    assert (len(queue), queue.total) == (2, 2)
    queue.total = 99
    store.put(entry("five"))
    assert (len(queue), queue.total) == (3, 3)


def test_the_stock_class_reads_the_file(store: SQLiteStore) -> None:
    """`SQLiteAckQueue(auto_resume=False)` finds the rows, their states and their JSON."""
    stock = SQLiteAckQueue(
        store.directory,
        auto_resume=False,
        multithreading=True,
        name=schema.QUEUE_NAME,
        db_file_name=schema.FILE,
        serializer=json_serializer,
    )
    assert [(item["id"], item["data"]["body"]["text"]) for item in stock.queue()] == [
        (1, "sent"),
        (2, "dead"),
        (3, "three"),
        (4, "four"),
    ]
    assert [item["timestamp"] for item in stock.queue()] == [NOW] * 4
    assert stock.queue()[3]["data"] == store.list(Selection(ids=[4]))[0].request.to_json()
    assert (stock.size, stock.acked_count(), stock.ack_failed_count()) == (2, 1, 1)
    stock.close()
    assert len(store.list(Selection(states=[State.QUEUED]))) == 2


def test_a_forked_child_leaves_connections_alone(store: SQLiteStore) -> None:
    """Dropping an inherited queue in a forked child does not close the parent's connections."""
    queue = OutboxQueue(store.directory)
    child = os.fork()
    if child == 0:
        reader = queue.reader
        queue.__del__()
        try:
            reader.execute("SELECT 1")  # a closed connection would raise
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(queue) == 2
    queue.close()
