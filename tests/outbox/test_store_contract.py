"""The store keeps the promises of `core.store.OutboxStore`, verb by verb."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chatsdk.core.errors import InvalidMessage, KeyReusedError, OutboxFullError, SettingsError, StorageError
from chatsdk.core.store import Entry, Lane, LaneLostError, LaneStatus, OutboxStore, Park, Selection, State, Stats
from chatsdk.outbox import rows
from chatsdk.outbox.store import SQLiteStore
from tests.outbox.store_kit import LANE, NOW, balanced, claimed, entry, open_directly

OTHER = Lane("bob", "general")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    """A new outbox whose accounting is checked at the end."""
    made = open_directly(tmp_path / "state")
    yield made
    balanced(made)
    made.close()


def fill(store: SQLiteStore, *texts: str, lane: Lane = LANE) -> list[int]:
    """Put messages into a lane; returns their ids."""
    return [store.put(entry(text, lane)).row.id for text in texts]


def texts(found: object) -> list[str]:
    """The texts of some rows."""
    return [row.request.body["text"] for row in found]  # type: ignore[attr-defined]


def test_protocol(store: SQLiteStore) -> None:
    """The store is an OutboxStore (checked by mypy) and has all its verbs."""
    checked: OutboxStore = store
    for verb in (name for name in vars(OutboxStore) if not name.startswith("_")):
        assert callable(getattr(checked, verb)), verb


# ---- put


def test_put_returns_the_row(store: SQLiteStore) -> None:
    """What `put` returns is what the table holds."""
    put = store.put(entry("one"))
    assert put.created
    assert put.lane == LaneStatus()
    assert store.get(id=put.row.id) == put.row
    assert store.get(key=put.row.key) == put.row
    assert put.row.state is State.QUEUED
    assert put.row.expires_at == NOW + 86400.0


def test_put_stores_no_secret_and_no_deadline(tmp_path: Path) -> None:
    """Headers, deadline and attempt of the caller's request are not stored."""
    store = open_directly(tmp_path / "state")
    asked = entry()
    secret = asked.request.replace(headers={"Authorization": "Bearer canary-4711"}, deadline=5.0, attempt=3)
    put = store.put(replace(asked, request=secret))
    assert put.row.request.headers == {}
    assert store.get(id=put.row.id) == put.row
    assert put.row.request == asked.request
    store.close()
    for file in (tmp_path / "state").iterdir():
        if file.is_file():
            assert b"canary-4711" not in file.read_bytes(), file


def test_ids_ascend_and_are_never_used_again(store: SQLiteStore) -> None:
    """An id names one message for ever, also when the newest was discarded."""
    first, second = fill(store, "one", "two")
    assert second > first
    assert store.discard([second], NOW) == 1
    (third,) = fill(store, "three")
    assert third > second


def test_same_key_same_body_is_the_same_message(store: SQLiteStore) -> None:
    """Whoever puts a known key again gets the row as it is, though the correlation id is another."""
    first = store.put(entry("one"))
    again = Entry(request=first.row.request.replace(correlation_id="another"), created_at=NOW + 5, ttl=1.0)
    for state in (State.QUEUED, State.SENT):
        put = store.put(again)
        assert not put.created
        assert (put.row.id, put.row.state, put.row.created_at) == (first.row.id, state, NOW)
        if state is State.QUEUED:
            claim = claimed(store)
            store.finish(LANE, claim.rows[0].id, {"id": "m1"}, NOW)
    assert store.stats().accepted == 1


def test_same_key_other_body_is_refused(store: SQLiteStore) -> None:
    """A key names one message: another text, channel or user under it is an error, and nothing happens."""
    key = store.put(entry("one")).row.key
    for wrong in (entry("two", key=key), entry("one", OTHER, key=key), entry("one", Lane("alice", "x"), key=key)):
        with pytest.raises(KeyReusedError):
            store.put(wrong)
    assert (store.stats().accepted, store.stats().pending) == (1, 1)


@pytest.mark.parametrize("body", [{"text": float("nan")}, {"text": object()}, {"text": {1, 2}}])
def test_what_is_not_json_is_refused(store: SQLiteStore, body: object) -> None:
    """A body that is not JSON is refused before anything is stored."""
    asked = entry()
    with pytest.raises(InvalidMessage):
        store.put(replace(asked, request=asked.request.replace(body=body)))
    with pytest.raises(InvalidMessage):
        store.put(replace(asked, request=asked.request.replace(key=None)))
    assert store.stats() == Stats()


@pytest.mark.parametrize("text", ["", "ünïcode 🎉", "\x00\x01\n", "\ud800 half a pair", "x" * 100_000])
def test_text_comes_back_as_it_was(store: SQLiteStore, text: str) -> None:
    """Every text that Python can hold survives."""
    put = store.put(entry(text))
    found = store.get(id=put.row.id)
    assert found is not None
    assert found.request.body["text"] == text
    assert not store.put(Entry(request=found.request, created_at=NOW, ttl=1.0)).created


def test_max_pending(tmp_path: Path) -> None:
    """A full outbox refuses new messages, knows old ones, and takes new ones again when it drained."""
    store = open_directly(tmp_path / "state", max_pending=2)
    first = store.put(entry("one"))
    store.put(entry("two"))
    with pytest.raises(OutboxFullError, match="max_pending 2"):
        store.put(entry("three"))
    assert not store.put(Entry(request=first.row.request, created_at=NOW, ttl=1.0)).created
    claimed(store)
    store.finish(LANE, first.row.id, None, NOW)
    assert store.put(entry("three")).created
    balanced(store)
    store.close()


def test_max_bytes(tmp_path: Path) -> None:
    """Waiting and dead messages together may take so many bytes."""
    store = open_directly(tmp_path / "state", max_bytes=3000)
    first = store.put(entry("x" * 1500))
    with pytest.raises(OutboxFullError, match="max_bytes 3000"):
        store.put(entry("x" * 1500))
    claimed(store)
    store.bury(LANE, first.row.id, "rejected", None, NOW)
    with pytest.raises(OutboxFullError):
        store.put(entry("x" * 1500))
    assert store.discard([first.row.id], NOW) == 1
    assert store.put(entry("x" * 1500)).created
    store.close()


# ---- claim, finish, bury


def test_a_lane_goes_out_in_order(store: SQLiteStore) -> None:
    """claim and finish hand out a lane's rows in the order of acceptance, and the lane is free at the end."""
    ids = fill(store, "one", "two", "three")
    claim = claimed(store, limit=1)
    assert (claim.lane, texts(claim.rows), claim.failures) == (LANE, ["one"], 0)
    assert store.lane_status(LANE).owned
    assert store.put(entry("four")).lane.owned
    following = store.finish(LANE, ids[0], {"id": "m1"}, NOW, more=1)
    assert texts(following) == ["two"]
    assert texts(store.finish(LANE, ids[1], None, NOW, more=5)) == ["three", "four"]
    assert store.finish(LANE, ids[2], None, NOW, more=0) == ()
    assert not store.lane_status(LANE).owned
    assert texts(claimed(store).rows) == ["four"]


def test_finish_keeps_the_result(store: SQLiteStore) -> None:
    """A delivered row is found by id and key, with the server's answer and the number of tries."""
    (id_,) = fill(store, "one")
    claim = claimed(store)
    assert store.finish(LANE, id_, {"id": "m1", "seq": 7}, NOW + 1, attempts=1) == ()
    row = store.get(key=claim.rows[0].key)
    assert row is not None
    assert (row.state, row.result, row.attempts, row.finished_at) == (State.SENT, {"id": "m1", "seq": 7}, 1, NOW + 1)
    assert store.stats() == Stats(accepted=1, delivered=1)


def test_bury_keeps_the_reason(store: SQLiteStore) -> None:
    """A dead letter says why it died, and the lane goes on."""
    ids = fill(store, "one", "two")
    claimed(store)
    following = store.bury(LANE, ids[0], "rejected", {"code": "too_large"}, NOW + 1, attempts=1, more=1)
    assert texts(following) == ["two"]
    row = store.get(id=ids[0])
    assert row is not None
    assert (row.state, row.reason, row.error, row.attempts) == (State.DEAD, "rejected", {"code": "too_large"}, 1)
    assert store.stats().dead == 1


def test_a_lane_has_one_owner(store: SQLiteStore) -> None:
    """A claimed lane is not given to another thread of the same process either."""
    fill(store, "one")
    claimed(store)
    assert store.claim(NOW) is None
    assert store.claim(NOW, lane=LANE) is None
    assert store.next_due(NOW) is None
    store.release(LANE)
    assert texts(claimed(store, lane=LANE).rows) == ["one"]


def test_only_the_owner_decides(store: SQLiteStore) -> None:
    """Finish, bury and park of a lane that is not ours, or of a row that does not wait in it, change nothing."""
    ids = fill(store, "one", "two")
    before = store.list(Selection())
    for attempt in (
        lambda: store.finish(LANE, ids[0], None, NOW),
        lambda: store.bury(LANE, ids[0], "rejected", None, NOW),
        lambda: store.park(LANE, ids[0], Park(not_before=NOW + 1, reason="offline")),
    ):
        with pytest.raises(LaneLostError):
            attempt()
    claimed(store)
    for wrong in (
        lambda: store.finish(LANE, 999, None, NOW),
        lambda: store.finish(OTHER, ids[0], None, NOW),
        lambda: store.park(LANE, 999, Park(not_before=NOW + 1, reason="offline")),
    ):
        with pytest.raises(LaneLostError):
            wrong()
    assert store.list(Selection()) == before
    store.finish(LANE, ids[0], None, NOW, more=1)
    with pytest.raises(LaneLostError):
        store.finish(LANE, ids[0], None, NOW, more=1)
    assert store.stats().delivered == 1


def test_claims_go_round(store: SQLiteStore) -> None:
    """Lanes take turns, and a busy one does not starve the others."""
    channels = [Lane("alice", name) for name in ("a", "b", "c")]
    for lane in channels:
        fill(store, *"123", lane=lane)
    seen = []
    for _ in range(9):
        claim = claimed(store, limit=1)
        seen.append(claim.lane.channel)
        store.finish(claim.lane, claim.rows[0].id, None, NOW)
    assert sorted(seen[:3]) == sorted(seen[3:6]) == sorted(seen[6:]) == ["a", "b", "c"]


def test_parked_lanes_and_fresh_ones_take_turns(store: SQLiteStore) -> None:
    """Neither a crowd of lanes whose time has come nor a stream of fresh ones starves the other."""
    for name in ("p1", "p2", "p3", "p4"):
        fill(store, "x", lane=Lane("alice", name))
        claim = claimed(store)
        store.park(claim.lane, claim.rows[0].id, Park(not_before=NOW + 1, reason="offline", failures=1))
    for name in ("f1", "f2", "f3", "f4"):
        fill(store, "x", lane=Lane("alice", name))
    order = [claimed(store, NOW + 2).lane.channel[0] for _ in range(8)]
    assert order in (["p", "f"] * 4, ["f", "p"] * 4)


def test_claims_by_user(store: SQLiteStore) -> None:
    """A process claims lanes of the users it can speak for, and leaves out those without a token."""
    fill(store, "a", lane=LANE)
    fill(store, "b", lane=OTHER)
    assert store.claim(NOW, users=["carol"]) is None
    assert store.claim(NOW, users=()) is None
    assert store.claim(NOW, lane=LANE, users=["bob"]) is None
    assert store.claim(NOW, skip_users=["alice", "bob"]) is None
    assert store.next_due(NOW, users=["carol"]) is None
    assert store.next_due(NOW, skip_users=["alice", "bob"]) is None
    assert store.next_due(NOW, users=["bob", "carol"]) == NOW
    assert claimed(store, users=["bob", "carol"]).lane == OTHER
    assert claimed(store, skip_users=["bob"]).lane == LANE


def test_an_unreadable_row_dies_alone(store: SQLiteStore) -> None:
    """A row whose stored JSON is damaged becomes a dead letter that can be seen; its lane goes on."""
    ids = fill(store, "one", "two", "three")
    store._database.writer().execute("UPDATE `ack_queue_outbox` SET data = X'FF7B' WHERE _id < ?", (ids[2],))
    store._database.writer().execute("UPDATE counters SET bytes = (SELECT sum(length(data)) FROM `ack_queue_outbox`)")
    assert texts(claimed(store).rows) == ["three"]
    dead = store.list(Selection(states=[State.DEAD]))
    assert [(row.id, row.reason) for row in dead] == [(ids[0], "poison"), (ids[1], "poison")]
    assert dead[0].lane == LANE


# ---- park, release, wake


def test_park_holds_a_lane(store: SQLiteStore) -> None:
    """Nobody gets a parked lane before its time; its first row remembers what happened, the next ones do not."""
    ids = fill(store, "one", "two")
    claimed(store)
    park = Park(
        not_before=NOW + 10,
        reason="offline",
        failures=1,
        attempts=1,
        strikes=1,
        misses=1,
        settled_at=NOW,
        uncertain=True,
        settle="expired",
        error={"code": "not_sent"},
    )
    store.park(LANE, ids[0], park)
    assert store.claim(NOW + 9.9) is None
    assert store.claim(NOW + 9.9, lane=LANE) is None
    assert store.next_due(NOW) == NOW + 10
    assert store.lane_status(LANE) == LaneStatus(not_before=NOW + 10, reason="offline", failures=1)
    assert store.put(entry("three")).lane == store.lane_status(LANE)
    row, behind = store.get(id=ids[0]), store.get(id=ids[1])
    assert row is not None
    assert behind is not None
    assert (row.attempts, row.strikes, row.misses, row.settled_at, row.uncertain) == (1, 1, 1, NOW, True)
    assert (row.settle, row.error, row.reason, row.state) == ("expired", {"code": "not_sent"}, "offline", State.QUEUED)
    assert (behind.attempts, behind.reason) == (0, "")
    claim = claimed(store, NOW + 10)
    assert (claim.failures, texts(claim.rows)) == (1, ["one", "two", "three"])


def test_park_adds_and_leaves_the_rest(store: SQLiteStore) -> None:
    """Numbers are added, None leaves what was; a delivery clears the lane's failures."""
    (id_, _) = fill(store, "one", "two")
    claimed(store)
    store.park(LANE, id_, Park(not_before=NOW, reason="offline", failures=1, attempts=1, error={"code": "x"}))
    claimed(store)
    store.park(LANE, id_, Park(not_before=NOW, reason="auth", attempts=2))
    row = store.get(id=id_)
    assert row is not None
    assert (row.attempts, row.error, row.reason) == (3, {"code": "x"}, "auth")
    assert store.lane_status(LANE).failures == 1
    assert claimed(store).failures == 1
    store.finish(LANE, id_, None, NOW)
    assert store.lane_status(LANE) == LaneStatus()


def test_park_without_a_row(store: SQLiteStore) -> None:
    """A lane can be parked without saying anything of a row."""
    (id_,) = fill(store, "one")
    claimed(store)
    store.park(LANE, None, Park(not_before=NOW + 5, reason="circuit_open"))
    row = store.get(id=id_)
    assert row is not None
    assert (row.attempts, row.reason) == (0, "")
    assert store.next_due(NOW) == NOW + 5


def test_release_is_harmless(store: SQLiteStore) -> None:
    """Releasing a lane that is not ours, or is not there, does nothing."""
    fill(store, "one")
    store.release(OTHER)
    store.release(LANE)
    assert texts(claimed(store).rows) == ["one"]


def test_wake(store: SQLiteStore) -> None:
    """Parked lanes can be woken: all, a user's, or one; but not those that Retry-After parked."""
    for lane, wakeable in ((LANE, True), (OTHER, True), (Lane("bob", "slow"), False)):
        (id_,) = fill(store, "one", lane=lane)
        claimed(store)
        store.park(lane, id_, Park(not_before=NOW + 60, reason="offline", wakeable=wakeable))
    assert store.wake(user="carol") == 0
    assert store.wake(lane=LANE) == 1
    assert store.claim(NOW, lane=OTHER) is None
    assert claimed(store).lane == LANE
    assert store.wake(user="bob") == 1
    assert claimed(store).lane == OTHER
    assert store.wake() == 0
    assert store.next_due(NOW) == NOW + 60


# ---- retry, discard


def test_retry_goes_to_the_end(store: SQLiteStore) -> None:
    """A dead letter that is retried goes to its lane's end with its key, a new time to live, and is settled first."""
    ids = fill(store, "one", "two")
    claimed(store)
    store.park(LANE, ids[0], Park(not_before=NOW, reason="uncertain", uncertain=True, attempts=2, strikes=3, misses=1))
    claimed(store)
    store.bury(LANE, ids[0], "poison", {"code": "server_error"}, NOW, attempts=1)
    dead = store.get(id=ids[0])
    assert dead is not None
    assert store.retry([ids[0], ids[1], 999], NOW + 100, 50.0) == 1
    assert store.get(id=ids[0]) is None
    row = store.get(key=dead.key)
    assert row is not None
    assert row.id > ids[1]
    assert (row.state, row.settle, row.uncertain, row.attempts) == (State.QUEUED, "send", True, 3)
    assert (row.strikes, row.misses, row.reason, row.finished_at) == (0, 0, "", None)
    assert (row.created_at, row.expires_at) == (NOW, NOW + 150)
    assert texts(claimed(store, NOW + 100).rows) == ["two", "one"]
    assert store.stats().pending == 2


def test_results_and_waiting_rows_cannot_be_retried(store: SQLiteStore) -> None:
    """Only dead letters can."""
    (sent, waiting) = fill(store, "one", "two")
    claimed(store)
    store.finish(LANE, sent, None, NOW)
    before = store.list(Selection())
    assert store.retry([sent, waiting], NOW, 60.0) == 0
    assert store.list(Selection()) == before


def test_retry_of_many_keeps_their_order(store: SQLiteStore) -> None:
    """Any number can be retried at once, and they keep their order."""
    ids = fill(store, *map(str, range(450)))
    claimed(store)
    for number, id_ in enumerate(ids, 1):
        store.bury(LANE, id_, "expired", None, NOW, more=int(number < len(ids)))
    assert store.retry(list(reversed(ids)), NOW, 60.0) == 450
    assert texts(claimed(store, limit=1000).rows) == [str(n) for n in range(450)]


def test_discard(store: SQLiteStore) -> None:
    """Dead letters and waiting rows can be given up, results and what is being sent cannot."""
    sent, dead, sending, waiting = fill(store, "one", "two", "three", "four")
    claimed(store, limit=1)
    store.finish(LANE, sent, None, NOW, more=1)
    store.bury(LANE, dead, "rejected", None, NOW, more=1)
    assert store.discard([sent, dead, sending, waiting, 999], NOW) == 2
    stats = store.stats()
    assert (stats.accepted, stats.delivered, stats.discarded, stats.pending, stats.dead) == (4, 1, 2, 1, 0)
    assert store.finish(LANE, sending, None, NOW, more=1) == ()
    assert store.stats().lanes == 0


def test_discard_of_a_parked_lane(store: SQLiteStore) -> None:
    """A lane whose last row is given up is gone; a new row finds a fresh one."""
    (id_,) = fill(store, "one")
    claimed(store)
    store.park(LANE, id_, Park(not_before=NOW + 60, reason="offline", failures=3))
    assert store.discard([id_], NOW) == 1
    assert store.next_due(NOW) is None
    assert store.put(entry("two")).lane == LaneStatus()
    assert claimed(store).failures == 0


# ---- looking


def test_list(store: SQLiteStore) -> None:
    """Rows are selected by state, id, key, user and channel, and paged by id."""
    ids = fill(store, "one", "two", "three", "four")
    other = fill(store, "five", lane=OTHER)
    claimed(store, lane=LANE)
    store.finish(LANE, ids[0], None, NOW, more=1)
    store.bury(LANE, ids[1], "rejected", None, NOW, more=1)

    def found(selection: Selection) -> list[int]:
        return [row.id for row in store.list(selection)]

    assert found(Selection()) == ids + other
    assert found(Selection(states=[State.QUEUED])) == ids[2:] + other
    assert found(Selection(states=[State.SENT])) == ids[:1]
    assert found(Selection(states=[State.DEAD])) == ids[1:2]
    assert found(Selection(states=[State.DEAD, State.SENT])) == ids[:2]
    assert found(Selection(ids=[ids[3], ids[0], 999])) == [ids[0], ids[3]]
    row = store.get(id=ids[2])
    assert row is not None
    assert found(Selection(keys=[row.key, "nobody"])) == ids[2:3]
    assert found(Selection(user="bob")) == other
    assert found(Selection(channel="general", states=[State.QUEUED])) == ids[2:] + other
    assert found(Selection(limit=2)) == ids[:2]
    assert found(Selection(limit=2, after=ids[1])) == ids[2:]
    assert store.get(id=999) is None
    assert store.get(key="nobody") is None


def test_every_query_has_its_index(store: SQLiteStore) -> None:
    """No query of a claim, of a lane's rows or of dead letters walks through the table."""
    connection = store._database.writer()

    def plan(query: str) -> str:
        return " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", ["x"] * query.count("?")))

    table = "`ack_queue_outbox`"
    for query, index in {
        f"SELECT * FROM {table} WHERE user = ? AND channel = ? AND status < 2 ORDER BY _id LIMIT 1": "INDEX pending",
        f"SELECT * FROM {table} WHERE status = 9 AND _id > ? ORDER BY _id LIMIT 1": "INDEX dead",
        f"SELECT _id FROM {table} WHERE status = 5 AND finished_at < ? ORDER BY finished_at LIMIT 9": "INDEX results",
        f"SELECT _id FROM {table} WHERE key = ?": "sqlite_autoindex",
        "SELECT 1 FROM lanes WHERE owner = 'x'": "INDEX lanes_owned",
        "SELECT min(owner) FROM lanes WHERE owner > ? AND owner IS NOT NULL": "INDEX lanes_owned",
        "SELECT max(turn) FROM lanes WHERE owner IS NULL AND not_before = 0": "INDEX lanes_ready",
    }.items():
        found = plan(query)
        assert index in found, (query, found)
        assert "SCAN" not in found, (query, found)
        assert "TEMP B-TREE" not in found, (query, found)


def test_stats(store: SQLiteStore) -> None:
    """Loss accounting, and what waits."""
    assert store.stats() == Stats()
    one = store.put(entry("one", at=NOW - 100))
    fill(store, "two", lane=OTHER)
    size = sum(len(json.dumps(row.request.to_json(), separators=(",", ":"))) for row in store.list(Selection()))
    claimed(store, lane=LANE)
    store.park(LANE, one.row.id, Park(not_before=NOW + 7, reason="offline"))
    claimed(store, lane=OTHER)
    store.park(OTHER, None, Park(not_before=NOW + 9, reason="offline"))
    assert store.stats() == Stats(accepted=2, pending=2, bytes=size, lanes=2, oldest=NOW - 100, next_attempt_at=NOW + 7)


# ---- sweep


def test_sweep_forgets_old_results(store: SQLiteStore) -> None:
    """Results are known for 24 hours; the accounting does not forget."""
    ids = fill(store, "one", "two")
    claimed(store)
    store.finish(LANE, ids[0], None, NOW, more=1)
    store.finish(LANE, ids[1], None, NOW + 7200)
    store.sweep(NOW + rows.RESULTS_KEPT_SECONDS + 3600)
    assert [row.id for row in store.list(Selection())] == ids[1:]
    assert store.stats() == Stats(accepted=2, delivered=2)


def test_results_are_bounded(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest 10,000 results are kept (here: 20), also by a process that never sweeps."""
    monkeypatch.setattr(rows, "RESULTS_KEPT", 20)
    monkeypatch.setattr("chatsdk.outbox.store.PURGE_EVERY", 8)
    ids = fill(store, *map(str, range(100)))
    claimed(store, limit=1)
    for number, id_ in enumerate(ids, 1):
        store.finish(LANE, id_, {"n": number}, NOW + number, more=int(number < 100))
    assert len(store.list(Selection())) <= 20 + 8
    store.sweep(NOW + 100)
    assert [row.id for row in store.list(Selection())] == ids[-20:]


def test_a_clock_that_was_set_back(store: SQLiteStore) -> None:
    """A lane that was parked while the clock was ahead does not wait for the difference."""
    (id_,) = fill(store, "one")
    claimed(store)
    real = store._clock

    class Ahead:
        monotonic, wait = staticmethod(real.monotonic), staticmethod(real.wait)

        @staticmethod
        def time() -> float:
            return real.time() + 7200

    store._clock = Ahead()
    store.park(LANE, id_, Park(not_before=real.time() + 7210, reason="offline"))
    store.sweep(NOW)
    assert store.lane_status(LANE).not_before > 0, "right by the clock of the time"
    store._clock = real
    store.sweep(NOW)
    assert store.lane_status(LANE).not_before == 0


# ---- the end


def test_close(tmp_path: Path) -> None:
    """close() gives lanes back, is idempotent, leaves nothing behind, and the closed store says so."""
    store = open_directly(tmp_path / "state")
    fill(store, "one")
    claimed(store)
    store.close()
    store.close()
    with pytest.raises(StorageError, match="closed"):
        store.put(entry())
    with pytest.raises(StorageError, match="closed"):
        store.stats()
    assert os.listdir(tmp_path / "state" / "owners") == []
    assert sorted(os.listdir(tmp_path / "state")) == ["outbox.db", "owners", "reserve", "write.lock"]
    again = open_directly(tmp_path / "state")
    claim = claimed(again)
    assert texts(claim.rows) == ["one"]
    assert claim.rows[0].uncertain, "it was in somebody's hands"
    balanced(again)
    again.close()


def test_one_store_a_process(tmp_path: Path) -> None:
    """A second store on the same directory would take the first one's locks away: refused."""
    store = open_directly(tmp_path / "state")
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    for path in (tmp_path / "state", tmp_path / "link" / "state"):
        with pytest.raises(SettingsError, match="open in this process already"):
            open_directly(path)
    store.close()
    open_directly(tmp_path / "state").close()
