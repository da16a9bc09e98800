"""Turns: what the worker does with a lane, in simulated time."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from chatsdk.core import errors
from chatsdk.core.events import MessageFailed, MessagePermanentFailure, MessageSent, RetryScheduled
from chatsdk.core.exchange import Request, Response
from chatsdk.core.store import LaneLostError, Park, State
from chatsdk.outbox.worker import BATCH, Turn
from chatsdk.testing.memory_store import MemoryStore
from tests.outbox.world import FakeServer, World, an_error


def always(outcome: Any) -> Any:
    """A fault of every send."""
    return lambda request: outcome if request.operation == "messages.send" else None


def test_a_turn_serves_one_lane_in_order() -> None:
    """A turn goes on with its lane while it goes well; another lane is another turn; then nothing waits."""
    world = World()
    rows = [world.put("a"), world.put("b"), world.put("a")]
    assert world.turn().lane == rows[0].lane
    assert [key for _, _, key in world.server.log] == [rows[0].key, rows[2].key]
    assert world.turn().lane == rows[1].lane
    assert world.turn() == Turn(None, None)
    world.judge()


def test_no_lane_starves() -> None:
    """A lane with many rows gives way after BATCH of them."""
    world = World()
    for _ in range(BATCH + 10):
        world.put("busy")
    world.server.latency = 0.001
    quiet = world.put("quiet")
    world.turn()
    assert len(world.server.log) == BATCH
    assert world.turn().lane == quiet.lane
    world.drain()
    world.judge()


def test_a_turn_ends_after_its_share_of_time() -> None:
    """A slow server does not let one lane keep its thread."""
    world = World()
    for _ in range(10):
        world.put("busy")
    world.server.latency = 0.4
    world.turn()
    assert len(world.server.log) == 4  # 1.2 s were gone when the fourth began


def test_the_request_is_one_bounded_try() -> None:
    """What is sent says: one try, its number, its deadline; and it is what was stored."""
    world = World(timeout=7.0)
    row = world.put()
    world.server.faults.append(always(errors.NotSentError()))
    world.turn()
    world.server.faults.clear()
    world.run(10)
    first, second = world.server.asked
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.single_try
    assert first.deadline == pytest.approx(1000.0 + 7.0)
    assert first.to_json() == row.request.to_json()


def test_a_failure_parks_only_its_lane() -> None:
    """The lane waits, longer each time; the others go on, and nothing is tried before its time."""
    world = World(breaker=False)
    bad, good = world.put("bad"), world.put("good")
    world.server.faults.append(lambda request: errors.NotSentError() if request.channel == "bad" else None)
    world.run(1.0)
    assert world.row(good).state is State.SENT
    assert world.row(bad).reason == "offline"
    assert 4 <= world.server.tries(bad.key) <= 6  # 0, 0.1, 0.3, 0.7 s, with jitter down to the half
    world.server.faults.clear()
    world.drain()
    world.judge()


def test_events_follow_the_commit() -> None:
    """One try failed: message:failed and retry:scheduled; delivered: message:sent; each with the row's facts."""
    world = World()
    row = world.put()
    seen: list[State] = []

    def note(event: Any) -> None:
        seen.append(world.row(row).state)
        world.events.append(event)

    world.worker = world.make_worker(world.store, emit=note)
    world.server.faults.append(always(an_error(503)))
    world.turn()
    world.server.faults.clear()
    world.drain()
    failed, retry, sent = world.events
    assert isinstance(failed, MessageFailed)
    assert (failed.id, failed.key, failed.user, failed.channel) == (row.id, row.key, "alice", "general")
    assert (failed.state, failed.attempts, failed.reason) == ("QUEUED", 1, "uncertain")
    assert failed.error is not None
    assert isinstance(retry, RetryScheduled)
    assert (retry.attempt, retry.key, retry.operation) == (1, row.key, "messages.send")
    assert 0.04 < retry.delay <= 0.1
    assert retry.correlation_id == row.request.correlation_id
    assert isinstance(sent, MessageSent)
    assert (sent.state, sent.attempts, sent.message.id) == ("SENT", 2, row.key)
    assert seen == [State.QUEUED, State.QUEUED, State.SENT]


def test_a_dead_letter_is_told_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A refusal buries the row, says so in one ERROR record and one event, and the lane goes on in the same turn."""
    world = World()
    bad, good = world.put(), world.put()
    world.server.faults.append(lambda request: an_error(413) if request.key == bad.key else None)
    with caplog.at_level(logging.ERROR):
        world.turn()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert bad.key in caplog.text
    assert "rejected" in caplog.text
    (event,) = world.heard(MessagePermanentFailure)
    assert (event.id, event.state, event.reason, event.attempts) == (bad.id, "DEAD", "rejected", 1)
    assert event.error.code == "too_large"
    assert world.row(good).state is State.SENT
    world.judge()


def test_a_listener_that_raises_stops_nothing() -> None:
    """Delivery goes on whatever a handler does."""
    world = World()
    world.put()
    world.put("other")

    def broken(event: Any) -> None:
        raise RuntimeError("handler")

    world.worker = world.make_worker(world.store, emit=broken)
    world.server.faults.append(lambda request: an_error(400) if request.channel == "other" else None)
    world.drain()
    assert world.stats.delivered == world.stats.dead == 1


# ---- tokens


def test_a_refused_token_stops_its_user_only() -> None:
    """401 parks all lanes of that user, with back-off; others go on; a new token wakes them at once."""
    world = World()
    one, two, other = world.put("a", user="bob"), world.put("b", user="bob"), world.put("a", user="alice")
    world.server.faults.append(lambda request: an_error(401) if request.user == "bob" else None)
    world.run(60)
    assert world.row(other).state is State.SENT
    assert (world.row(one).state, world.row(one).reason) == (State.QUEUED, "auth")
    assert (
        world.server.tries(one.key) + world.server.tries(two.key) < 14
    )  # one row of the user at a time, with back-off
    world.server.faults.clear()
    world.worker.wake(user="bob")
    world.turn()
    world.turn()
    assert world.row(one).state is world.row(two).state is State.SENT
    world.judge()


def test_a_good_try_makes_up_for_refused_tokens() -> None:
    """The user's back-off begins anew after a success."""
    world = World()
    world.put()
    world.server.faults.append(always(an_error(401)))
    world.run(30)
    assert world.worker.users.failures("alice") > 5
    world.server.faults.clear()
    world.drain()
    assert world.worker.users.failures("alice") == 0


def test_a_lost_session_pauses_its_user() -> None:
    """Nothing is tried for a lost session, whatever time passes and whoever connects, until that user's new token."""
    world = World()
    row = world.put(user="bob")
    world.server.faults.append(always(errors.TokenExpiredError("signed out")))
    world.turn()
    world.run(3600)
    world.worker.wake()
    world.run(3600)
    assert len(world.server.asked) == 1
    assert (world.row(row).attempts, world.row(row).reason) == (0, "auth")
    world.server.faults.clear()
    world.worker.wake(user="bob")
    world.drain()
    assert world.row(row).attempts == 1


def test_only_users_that_can_be_authorised_are_served() -> None:
    """Rows of users that this client has no token for are left to others."""
    world = World(users=lambda: {"alice"})
    mine, foreign = world.put(user="alice"), world.put(user="mallory")
    world.run(10)
    assert (world.row(mine).state, world.row(foreign).state) == (State.SENT, State.QUEUED)
    assert world.turn() == Turn(None, None)


# ---- the server's word


def test_retry_after_is_obeyed_even_when_woken() -> None:
    """Nothing is sent into the lane before the time, not even when "connected" wakes everything."""
    world = World()
    row = world.put()
    world.server.faults.append(always(an_error(429, retry_after=30)))
    world.turn()
    world.server.faults.clear()
    world.worker.wake()
    world.run(29.9)
    assert world.server.tries(row.key) == 1
    world.run(1)
    assert world.row(row).state is State.SENT


def test_an_answer_about_another_message_is_no_delivery() -> None:
    """200 counts only with our key."""
    world = World()
    row = world.put()
    world.server.faults.append(always(Response(status=200, body={"id": "somebody else's"})))
    world.turn()
    found = world.row(row)
    assert (found.state, found.reason, found.uncertain, found.attempts) == (State.QUEUED, "uncertain", True, 1)


def test_an_open_circuit_holds_everything() -> None:
    """One lane that meets the open circuit spares all others the way; then a probe goes out, then the rest."""
    world = World()
    rows = [world.put(f"c{n}") for n in range(50)]
    world.circuits["api"].force_open(20)
    world.run(19)
    assert world.server.asked == []
    assert [world.row(row).attempts for row in rows] == [0] * 50
    assert sum(world.row(row).reason == "circuit_open" for row in rows) == 1
    world.run(10)
    assert world.states()[State.SENT] == 50


# ---- poison and settling


def strike(world: World, row: Any, times: int) -> None:
    """Let a row fail until it was tried so often."""
    while world.row(row).attempts < times and world.row(row).state is State.QUEUED:
        turn = world.turn()
        world.clock.advance(max(0.0, (turn.next_due or world.clock.time()) - world.clock.time()))


def test_poison_needs_a_server_that_is_well() -> None:
    """A 500 without other traffic is judged by a health check: not well, no strike; well, one each, and 20 kill."""
    world = World(breaker=False)
    row = world.put()
    ill = [True]
    world.server.faults.append(
        lambda request: an_error(500) if request.operation == "messages.send" or ill[0] else None
    )
    strike(world, row, 30)
    assert (world.row(row).strikes, world.row(row).state) == (0, State.QUEUED)
    ill[0] = False
    world.drain()
    found = world.row(row)
    assert (found.state, found.reason, found.strikes, found.attempts) == (State.DEAD, "poison", 20, 50)
    assert found.error is not None
    assert found.error["status"] == 500  # why it died, not that it was not found
    world.judge()


def test_other_traffic_makes_the_health_check_needless() -> None:
    """While other messages go through, nobody asks for /health."""
    world = World(breaker=False)
    bad = world.put("bad")
    world.server.faults.append(lambda request: an_error(500) if request.key == bad.key else None)
    world.run(120, puts=[(n * 0.04, lambda: world.put("good")) for n in range(3000)])
    asked = [request for request in world.server.asked if request.operation == "health"]
    assert world.row(bad).strikes >= 9
    assert len(asked) <= 1


def test_expired_and_never_arrived() -> None:
    """What is too old and cannot have arrived dies without a question; it is not sent."""
    world = World()
    row = world.put(ttl=60)
    world.server.faults.append(always(errors.NotSentError()))
    world.run(50)
    world.server.faults.clear()
    tries = world.server.tries(row.key)
    world.clock.advance(100)
    world.drain()
    assert (world.row(row).state, world.row(row).reason) == (State.DEAD, "expired")
    assert world.server.tries(row.key) == tries
    assert not world.server.log


@pytest.mark.parametrize("arrived", [True, False])
def test_expired_but_perhaps_arrived(arrived: bool) -> None:
    """An uncertain row is looked for: found, it is SENT; not found twice, a minute apart, it dies. It is not sent."""
    world = World()
    row = world.put(ttl=60)
    behind = world.put()
    if arrived:
        world.server.reply_lost = lambda request: request.key == row.key
    else:
        world.server.faults.append(lambda request: an_error(503) if request.key == row.key else None)
    world.turn()
    tries = world.server.tries(row.key)
    world.server.faults.clear()
    world.server.reply_lost = lambda request: False
    world.clock.advance(100)
    began = world.clock.time()
    world.drain()
    found = world.row(row)
    assert found.state is (State.SENT if arrived else State.DEAD)
    assert found.reason == ("" if arrived else "expired")
    assert world.server.tries(row.key) == tries
    assert (world.clock.time() - began >= 60) is not arrived
    assert world.row(behind).state is State.SENT
    world.judge()


def test_settling_waits_for_the_server() -> None:
    """As long as the server cannot say, the row stays QUEUED, for days if need be."""
    world = World()
    row = world.put(ttl=60)
    world.server.faults.append(lambda request: errors.DeadlineExceeded("late"))
    world.run(3 * 86400)
    found = world.row(row)
    assert (found.state, found.settle) == (State.QUEUED, "expired")
    assert found.reason in ("uncertain", "circuit_open")
    world.server.faults.clear()
    world.drain()
    assert world.row(row).state is State.DEAD
    world.judge()


def test_refused_but_perhaps_arrived() -> None:
    """A refusal of a row whose reply was lost before is no proof: the server has it, so it is SENT."""
    world = World()
    row = world.put()
    world.server.reply_lost = lambda request: True
    world.turn()
    world.server.reply_lost = lambda request: False
    world.server.faults.append(always(an_error(403)))
    world.drain()
    assert world.row(row).state is State.SENT
    world.judge()


def test_a_dead_letter_retried_by_hand() -> None:
    """It is looked for, then sent with its key, at its lane's end."""
    world = World()
    dead, first = world.put(), world.put()
    world.server.faults.append(lambda request: an_error(400) if request.key == dead.key else None)
    world.turn()
    assert world.row(dead).state is State.DEAD
    world.server.faults.clear()
    assert world.store.retry([dead.id], world.clock.time(), 3600.0) == 1
    world.drain()
    assert [key for _, _, key in world.server.log] == [first.key, dead.key]
    operations = [request.operation for request in world.server.asked[-2:]]
    assert operations == ["messages.get", "messages.send"]
    found = world.store.get(key=dead.key)
    assert (found.state, found.attempts) == (State.SENT, 2)


def test_a_dead_letter_that_had_arrived_is_not_sent_again() -> None:
    """It turns out to be there: SENT, and nothing goes out."""
    world = World()
    dead = world.put()
    world.server.faults.append(always(an_error(400)))
    world.turn()
    world.server.faults.clear()
    world.server.answer(dead.request)  # late, by another way
    world.store.retry([dead.id], world.clock.time(), 3600.0)
    world.drain()
    assert world.store.get(key=dead.key).state is State.SENT
    assert world.server.tries(dead.key) == 1


# ---- plugins and surprises


@pytest.mark.parametrize("error", [errors.PluginError(plugin="moderation"), RuntimeError("a mistake"), MemoryError()])
def test_a_plugin_never_kills(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """It parks the lane, costs no attempt, is one ERROR record however long it lasts; repaired, everything goes out."""
    world = World()
    row = world.put(ttl=86400 * 7)
    world.server.faults.append(always(error))
    with caplog.at_level(logging.ERROR):
        world.run(3600)
    found = world.row(row)
    assert (found.state, found.reason, found.attempts, found.uncertain) == (State.QUEUED, "plugin", 0, True)
    assert len(caplog.records) == 1
    assert "moderation" in caplog.text or type(error).__name__ in caplog.text
    assert "a mistake" not in caplog.text
    assert world.heard(MessageFailed)[0].reason == "plugin"
    world.server.faults.clear()
    world.drain()
    world.judge()


def test_ctrl_c_leaves_the_lane_uncertain() -> None:
    """A try that the user broke off may have arrived: the lane is free again, its first row marked."""
    world = World()
    row = world.put()

    def interrupted(request: Request) -> Response:
        FakeServer.__call__(world.server, request)
        raise KeyboardInterrupt

    world.send = interrupted
    with pytest.raises(KeyboardInterrupt):
        world.turn()
    found = world.row(row)
    assert (found.state, found.uncertain) == (State.QUEUED, True)
    assert not world.store.lane_status(row.lane).owned
    world.send = world.server
    world.drain()
    world.judge()


class Failing(MemoryStore):
    """A store whose disk is full for the verbs named in `broken`."""

    broken: tuple[str, ...] = ()

    def __getattribute__(self, name: str) -> Any:
        if name in object.__getattribute__(self, "broken"):
            raise errors.StorageError(f"disk full: {name}")
        return super().__getattribute__(name)


@pytest.mark.parametrize("verb", ["finish", "park", "bury", "claim", "next_due", "release", "sweep"])
def test_a_full_disk_loses_nothing_and_repeats_nothing(verb: str) -> None:
    """Whatever the disk will not take is kept and done later; a message whose fate is known is not sent again."""
    world = World()
    store = Failing(world.clock)
    world.store, world.worker = store, world.make_worker(store)
    rows = [world.put() for _ in range(3)]
    answers = {"bury": an_error(400), "park": an_error(503)}
    if verb in answers:
        world.server.faults.append(lambda request: answers[verb] if request.key == rows[0].key else None)
    store.broken = (verb,)
    world.run(30)
    assert world.server.tries(rows[0].key) == (0 if verb in ("claim",) else 1)
    world.server.faults.clear()
    store.broken = ()
    world.drain()
    world.judge()
    assert world.stats.dead == (1 if verb == "bury" else 0)
    assert world.server.tries(rows[0].key) == (2 if verb == "park" else 1)
    assert world.server.tries(rows[1].key) == 1


def test_a_lane_taken_away_is_dropped() -> None:
    """If another process has the lane, the verdict is not ours to write; it sends the row again, with the same key."""
    world = World()
    row = world.put()
    other = world.store.peer()
    answer = world.server.answer

    def stolen(request: Request) -> Response:
        response = answer(request)
        world.store.die()
        claim = other.claim(world.clock.time())
        assert claim is not None
        assert claim.rows[0].uncertain
        world.store._join()
        return response

    world.server.answer = stolen  # type: ignore[method-assign]
    world.turn()
    assert world.row(row).state is State.QUEUED
    assert not world.heard(MessageSent)
    world.server.answer = answer  # type: ignore[method-assign]
    other.park(row.lane, row.id, Park(not_before=0.0, reason="offline"))
    world.drain()
    world.judge()


def test_after_a_kill_the_first_row_is_uncertain() -> None:
    """The row that was out when its process died is settled before it may die of a refusal."""
    world = World()
    row = world.put()
    claim = world.store.claim(world.clock.time())
    assert claim is not None
    world.server.answer(row.request)  # it arrived, and then the process was killed
    next_one = world.store.peer()
    world.store.die()
    world.store, world.worker = next_one, world.make_worker(next_one)
    world.server.faults.append(always(an_error(403)))
    world.drain()
    assert world.row(row).state is State.SENT


def test_abandoned_tries_are_marked_and_their_lanes_free() -> None:
    """close() in the middle of a try: the row may have arrived, the lane is free; the late outcome is not written."""
    world = World()
    row = world.put()

    def closing(request: Request) -> Response:
        world.worker.stop()
        world.worker.abandon()
        return world.server.answer(request)

    world.send = closing
    world.turn()
    found = world.row(row)
    assert (found.state, found.uncertain, found.reason) == (State.QUEUED, True, "uncertain")
    assert not world.store.lane_status(row.lane).owned
    assert world.turn() == Turn(None, world.clock.time())
    world.worker, world.send = world.make_worker(world.store), world.server
    world.drain()
    world.judge()


def test_lane_lost_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Losing a lane is nobody's fault and nothing to read about."""
    world = World()
    world.put()

    def lost(*_: Any, **__: Any) -> Any:
        raise LaneLostError

    world.store.finish = lost
    with caplog.at_level(logging.INFO):
        world.turn()
    assert not caplog.records


def test_results_are_swept(caplog: pytest.LogCaptureFixture) -> None:
    """Once in `sweep_interval` what is too old is forgotten."""
    world = World(sweep_interval=30.0)
    row = world.put()
    world.drain()
    world.clock.advance(86400 + 60)
    world.turn()
    assert world.store.get(id=row.id) is None
    world.check()
