"""Several processes on one state directory: nothing lost, nothing twice, one owner a lane, and death is noticed."""

from __future__ import annotations

import contextlib
import os
import random
import time
from pathlib import Path

import pytest

from chatsdk.core.errors import StorageError
from chatsdk.core.store import Lane, LaneLostError, Park, Selection
from tests.outbox.store_kit import LANE, NOW, Other, balanced, claimed, entry, open_directly
from tests.waiting import eventually

PUT_AND_CLAIM = """
mine = int(sys.argv[1]) if len(sys.argv) > 1 else os.getpid()
say("ready"); listen()
lanes = [Lane("alice", str(n)) for n in range(6)]
for n in range({puts}):
    store.put(entry(f"{{mine}}-{{n}}", lanes[n % 6]))
    claim = store.claim(NOW, limit=1)
    if claim is not None:
        rows = claim.rows
        for _ in range(3):
            if not rows: break
            print("sent", claim.lane.channel, rows[0].id, flush=True)
            rows = store.finish(claim.lane, rows[0].id, {{"id": str(rows[0].id)}}, NOW, more=1)
        if rows: store.release(claim.lane)
while True:
    claim = store.claim(NOW, limit=1)
    if claim is None:
        if store.stats().pending == 0: break
        time.sleep(0.01); continue
    rows = claim.rows
    while rows:
        print("sent", claim.lane.channel, rows[0].id, flush=True)
        rows = store.finish(claim.lane, rows[0].id, {{"id": str(rows[0].id)}}, NOW, more=1)
balanced(store)
store.close()
"""


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_an_outbox(tmp_path: Path, count: int) -> None:
    """Processes that open, put and claim at the same time deliver each message once, in each lane's order."""
    others = [Other(tmp_path / "state", PUT_AND_CLAIM.format(puts=60), lock_timeout=20.0) for _ in range(count)]
    for other in others:
        assert other.hear() == "ready"
    for other in others:
        other.tell()
    lines = [line.split() for other in others for line in other.end() if line.startswith("sent")]
    sent = [int(id_) for _, _, id_ in lines]
    assert sorted(sent) == list(range(1, 60 * count + 1))
    store = open_directly(tmp_path / "state")
    stats = store.stats()
    assert (stats.accepted, stats.delivered, stats.pending) == (60 * count, 60 * count, 0)
    finished = sorted(store.list(Selection(limit=1000)), key=lambda row: row.id)
    assert [row.id for row in finished] == sorted(sent)
    balanced(store)
    store.close()


def test_two_processes_open_a_new_directory(tmp_path: Path) -> None:
    """Whoever comes first makes the file, and everybody finds it."""
    for number in range(4):
        directory = tmp_path / str(number)
        code = "say(store.put(entry()).row.id); listen()\n"
        wait = f"while time.time() < {time.time() + 0.5}: pass\n"  # both at the same moment
        others = [Other(directory, code, preamble=wait) for _ in range(2)]
        assert sorted(int(other.hear()) for other in others) == [1, 2]
        for other in others:
            other.tell()
            other.end()


def test_one_owner(tmp_path: Path) -> None:
    """A lane that another process owns is not handed out, and that process alone decides about its rows."""
    store = open_directly(tmp_path / "state")
    id_ = store.put(entry()).row.id
    other = Other(
        tmp_path / "state",
        "claim = store.claim(NOW); say(claim.lane.channel); listen()\n"
        "store.finish(claim.lane, claim.rows[0].id, None, NOW); say('done'); listen()\n",
    )
    assert other.hear() == "general"
    assert store.claim(NOW) is None
    assert store.claim(NOW, lane=LANE) is None
    assert store.next_due(NOW) is None
    assert store.lane_status(LANE).owned
    with pytest.raises(LaneLostError):
        store.finish(LANE, id_, None, NOW)
    with pytest.raises(LaneLostError):
        store.park(LANE, id_, Park(not_before=NOW, reason="offline"))
    store.release(LANE)
    assert store.discard([id_], NOW) == 0
    assert store.claim(NOW) is None
    other.tell()
    assert other.hear() == "done"
    assert store.stats().delivered == 1
    other.tell()
    other.end()
    store.close()


def test_a_dead_owner(tmp_path: Path) -> None:
    """When an owner is killed its lanes can be claimed at once; its first row may have arrived, and says so."""
    store = open_directly(tmp_path / "state")
    ids = [store.put(entry(text)).row.id for text in ("one", "two")]
    other = Other(tmp_path / "state", "claim = store.claim(NOW, limit=2); say(len(claim.rows)); listen()")
    assert other.hear() == "2"
    assert store.lane_status(LANE).owned
    other.kill()
    assert not store.lane_status(LANE).owned
    assert store.next_due(NOW) == NOW
    claim = claimed(store)
    assert [(row.id, row.uncertain) for row in claim.rows] == [(ids[0], True), (ids[1], False)]
    assert len(os.listdir(tmp_path / "state" / "owners")) == 2
    store.sweep(NOW)
    assert len(os.listdir(tmp_path / "state" / "owners")) == 1
    balanced(store)
    store.close()


def test_rows_of_a_dead_owner_can_be_discarded(tmp_path: Path) -> None:
    """What a dead process had in its hands is in nobody's."""
    store = open_directly(tmp_path / "state")
    id_ = store.put(entry()).row.id
    other = Other(tmp_path / "state", "store.claim(NOW); say('claimed'); listen()")
    assert other.hear() == "claimed"
    assert store.discard([id_], NOW) == 0
    other.kill()
    assert store.discard([id_], NOW) == 1
    balanced(store)
    store.close()


def test_a_stopped_owner_keeps_its_lanes(tmp_path: Path) -> None:
    """SIGSTOP is not death: nobody takes the lanes of a paused process, which goes on when it is continued."""
    store = open_directly(tmp_path / "state")
    store.put(entry())
    other = Other(
        tmp_path / "state",
        "claim = store.claim(NOW); say('claimed'); listen()\n"
        "store.finish(claim.lane, claim.rows[0].id, None, NOW); say('done'); listen()\n",
    )
    assert other.hear() == "claimed"
    other.stop()
    store.sweep(NOW)
    assert store.claim(NOW) is None
    other.go_on()
    other.tell()
    assert other.hear() == "done"
    assert store.stats().delivered == 1
    other.tell()
    other.end()
    store.close()


def test_a_stopped_writer(tmp_path: Path) -> None:
    """A process stopped in the middle of a commit costs others lock_timeout and an honest error; reading goes on
    meanwhile, and a new client can open the outbox."""
    store = open_directly(tmp_path / "state", lock_timeout=0.5)
    store.put(entry("before"))
    other = Other(
        tmp_path / "state",
        "def work(tx):\n    say('inside'); time.sleep(0.3)\nstore._write(work); say('written'); listen()\n",
    )
    assert other.hear() == "inside"
    other.stop()
    started = time.monotonic()
    with pytest.raises(StorageError, match="another process holds"):
        store.put(entry("refused"))
    assert 0.5 <= time.monotonic() - started < 0.5 + 0.5
    assert [row.request.body["text"] for row in store.list(Selection())] == ["before"]
    reader = Other(tmp_path / "state", "say(store.stats().pending)", lock_timeout=0.5)
    assert reader.hear() == "1"
    reader.end()
    other.go_on()
    assert other.hear() == "written", "its own commit was only late"

    def put() -> bool:
        with contextlib.suppress(StorageError):
            return store.put(entry("after")).created
        return False

    eventually(put)
    assert [row.request.body["text"] for row in store.list(Selection())] == ["before", "after"]
    other.tell()
    other.end()
    store.close()


PUT_FOR_EVER = """
import threading
def put(n):
    for m in range(10**6):
        row = store.put(entry(f"{n}-{m} " + "x" * 200, Lane("alice", str(n)))).row
        line = f"{row.id} {row.key}\\n"
        os.write(1, line.encode())
for n in range(3): threading.Thread(target=put, args=(n,), daemon=True).start()
put(3)
"""


def kills(directory: Path, rounds: int, code: str) -> set[tuple[int, str]]:
    """Kill a process that puts for ever, several times. Returns (id, key) of what it was told is accepted."""
    rng = random.Random(11)
    acknowledged: set[tuple[int, str]] = set()
    for _ in range(rounds):
        other = Other(directory, code)
        first = other.hear()
        time.sleep(rng.uniform(0.0, 0.08))
        for line in (first, *other.kill()):
            id_, _, key = line.partition(" ")
            if len(key) == 36:  # the last line may be cut off
                acknowledged.add((int(id_), key))
    return acknowledged


def test_kill_9(tmp_path: Path) -> None:
    """Whenever a process is killed: each message whose `put` returned is there, and the accounting is exact."""
    acknowledged = kills(tmp_path / "state", 8, PUT_FOR_EVER)
    assert len(acknowledged) > 100
    store = open_directly(tmp_path / "state")
    there = {(row.id, row.key) for row in store.list(Selection(limit=10**6))}
    assert acknowledged <= there
    assert store._database.writer().execute("PRAGMA integrity_check").fetchone() == ("ok",)
    balanced(store)
    store.close()


def test_kill_9_control(tmp_path: Path) -> None:
    """The test above can fail: a store that answers before its commit loses messages under the same treatment."""
    too_early = PUT_FOR_EVER.replace(
        "import threading\n",
        "import threading\n"
        "pending = []\n"
        "real = store.put\n"
        "class Lazy:\n"
        "    ids = __import__('itertools').count(1)\n"
        "    def put(self, e):\n"
        "        pending.append(e)\n"
        "        if len(pending) >= 50:\n"
        "            some, pending[:] = pending[:], []\n"
        "            for each in some: real(each)\n"
        "        row = type('Row', (), {'id': next(self.ids), 'key': e.request.key})\n"
        "        return type('Put', (), {'row': row})\n"
        "store = Lazy()\n",
    )
    acknowledged = {key for _, key in kills(tmp_path / "state", 4, too_early)}
    store = open_directly(tmp_path / "state")
    there = {row.key for row in store.list(Selection(limit=10**6))}
    assert acknowledged - there
    store.close()


def test_killed_while_delivering(tmp_path: Path) -> None:
    """Processes that are killed while they deliver lose nothing: each row is finished once, or waits."""
    store = open_directly(tmp_path / "state")
    for n in range(300):
        store.put(entry(str(n), Lane("alice", str(n % 7))))
    code = (
        "say('go')\n"
        "while (claim := store.claim(NOW, limit=1)) is not None:\n"
        "    rows = claim.rows\n"
        "    while rows:\n"
        "        rows = store.finish(claim.lane, rows[0].id, {'id': str(rows[0].id)}, NOW, more=1)\n"
    )
    rng = random.Random(3)
    for _ in range(5):
        other = Other(tmp_path / "state", code)
        other.hear()
        time.sleep(rng.uniform(0.0, 0.03))
        other.kill()
        balanced(store)
    left = store.stats().pending
    while claim := store.claim(NOW, limit=1000):
        ids = [row.id for row in claim.rows]
        assert ids == sorted(ids)
        for id_ in ids:
            store.finish(claim.lane, id_, None, NOW, more=1 if id_ != ids[-1] else 0)
            left -= 1
    assert left == 0
    assert store.stats().delivered == 300
    balanced(store)
    store.close()
