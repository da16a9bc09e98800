"""Many threads on one store: order, single ownership, and nothing lost or twice."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from chatsdk.core.store import Lane, Park, Selection
from tests.outbox.store_kit import NOW, balanced, entry, open_directly


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work(n)` in `count` threads; the first error is raised."""
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def test_ids_follow_each_threads_order(tmp_path: Path) -> None:
    """Eight threads put at the same time: each one's ids ascend, none is given twice, all rows are there."""
    store = open_directly(tmp_path / "state")
    ids: dict[int, list[int]] = defaultdict(list)

    def put(number: int) -> None:
        for n in range(100):
            ids[number].append(store.put(entry(f"{number}-{n}", Lane("alice", str(number % 3)))).row.id)

    in_threads(8, put)
    assert all(found == sorted(found) for found in ids.values())
    given = [id_ for found in ids.values() for id_ in found]
    assert len(set(given)) == 800
    assert {row.id for row in store.list(Selection(limit=1000))} == set(given)
    balanced(store)
    store.close()


def test_the_same_key_from_many_threads(tmp_path: Path) -> None:
    """One message that eight threads put at the same time is one row."""
    store = open_directly(tmp_path / "state")
    asked = [entry("one", key=f"key-{n}") for n in range(50)]
    created: list[bool] = []

    def put(_: int) -> None:
        for each in asked:
            created.append(store.put(each).created)

    in_threads(8, put)
    assert created.count(True) == 50
    assert store.stats().accepted == 50
    balanced(store)
    store.close()


def test_claims_are_exclusive(tmp_path: Path) -> None:
    """Threads that put, claim, finish, park and bury at the same time: each row goes out once and in its lane's order,
    and no lane is in two hands."""
    store = open_directly(tmp_path / "state")
    lanes = [Lane("alice", str(n)) for n in range(5)]
    sent: dict[Lane, list[int]] = {lane: [] for lane in lanes}
    hands: dict[Lane, threading.Lock] = {lane: threading.Lock() for lane in lanes}
    written = threading.Event()
    parked: list[int] = []

    def work(number: int) -> None:
        if number < 4:
            for n in range(100):
                store.put(entry(str(n), lanes[(number + n) % 5]))
            return
        while True:
            claim = store.claim(NOW, limit=1)
            if claim is None:
                if written.is_set() and store.stats().pending == 0:
                    return
                continue
            # the one before lets go just after its commit; two at a time would also show below, as rows sent twice
            assert hands[claim.lane].acquire(timeout=10), "two hands on a lane"
            rows = claim.rows
            while rows:
                id_ = rows[0].id
                if id_ % 11 == 0 and id_ not in parked:
                    parked.append(id_)
                    hands[claim.lane].release()
                    store.park(claim.lane, id_, Park(not_before=NOW - 1, reason="offline", failures=1, attempts=1))
                    break
                sent[claim.lane].append(id_)
                last = len(sent[claim.lane]) % 7 == 0
                if last:
                    hands[claim.lane].release()
                if id_ % 13 == 0:
                    rows = store.bury(claim.lane, id_, "rejected", None, NOW, more=0 if last else 1)
                else:
                    rows = store.finish(claim.lane, id_, {"id": str(id_)}, NOW, more=0 if last else 1)
                if not last and not rows:
                    hands[claim.lane].release()

    putters = threading.Thread(target=in_threads, args=(4, work))
    putters.start()
    claimers = threading.Thread(target=in_threads, args=(4, lambda number: work(number + 4)))
    claimers.start()
    putters.join(60)
    written.set()
    claimers.join(60)
    assert not claimers.is_alive()
    given = [id_ for found in sent.values() for id_ in found]
    assert len(given) == len(set(given)) == 400
    assert all(found == sorted(found) for found in sent.values())
    assert len(parked) > 20
    stats = store.stats()
    assert (stats.accepted, stats.delivered + stats.dead, stats.pending) == (400, 400, 0)
    assert stats.dead == sum(id_ % 13 == 0 for id_ in given)
    balanced(store)
    store.close()
