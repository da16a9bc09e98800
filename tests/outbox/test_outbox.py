"""The facade in the caller's thread, in simulated time: accepting, one-shot delivery, flushing, what is stuck."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from chatsdk.core import errors
from chatsdk.core.events import MessageQueued, MessageSent
from chatsdk.core.exchange import Request, Response
from chatsdk.core.store import Lane, LaneStatus, Reason, Row, Selection, State
from chatsdk.outbox.outbox import Outbox
from tests.outbox.world import World, a_request, an_error


class OneShot(World):
    """A world whose outbox delivers in the caller's thread only."""

    def __init__(self, **options: Any) -> None:
        super().__init__(breaker=options.pop("breaker", False))
        self.lost: set[str] = set()
        backend: Any = self.backend
        known: dict[str, Any] = {
            "clock": self.clock,
            "random": self.random.random,
            "emit": self.events.append,
            "lost": self.lost.__contains__,
            "circuit_open": lambda: self.circuits["api"].retry_after,
            "last_success": lambda: self.server.last_success,
            "background": False,
        }
        self.outbox = Outbox(self.store, lambda request: self.send(request), backend, **{**known, **options})

    def accept(self, channel: str = "general", *, user: str = "alice", ttl: float = 86400.0) -> Row:
        """A message through the facade."""
        row = self.outbox.accept(a_request(channel, user=user), ttl).row
        self.accepted.append(row)
        return row


REFUSED = errors.NotSentError("connection refused")


def test_accepting() -> None:
    """A message is durable, told once, and known by id and key; the same again is the same row."""
    world = OneShot()
    request = a_request()
    put = world.outbox.accept(request, 3600.0)
    again = world.outbox.accept(request, 3600.0)
    assert (put.created, again.created) == (True, False)
    assert put.row.id == again.row.id
    assert put.row.expires_at - put.row.created_at == 3600.0
    assert world.outbox.get(id=put.row.id) == world.outbox.get(key=put.row.key) == put.row
    (event,) = world.events
    assert isinstance(event, MessageQueued)
    assert (event.id, event.key, event.state) == (put.row.id, put.row.key, "QUEUED")
    with pytest.raises(errors.KeyReusedError):
        world.outbox.accept(a_request(text="other", key=put.row.key), 3600.0)
    assert world.outbox.stats().accepted == 1


def test_one_shot_delivery() -> None:
    """The caller's thread delivers its message, and what stands before it in its lane, but no other lane."""
    world = OneShot()
    first, other, mine = world.accept(), world.accept("other"), world.accept()
    row = world.outbox.deliver_inline(mine.id, 10.0)
    assert row is not None
    assert (row.state, row.attempts) == (State.SENT, 1)
    assert [key for _, _, key in world.server.log] == [first.key, mine.key]
    assert world.row(other).state is State.QUEUED
    assert isinstance(world.events[-1], MessageSent)
    assert not [each.name for each in threading.enumerate() if each.name.startswith("chatsdk-outbox")]


def test_one_shot_tries_again_within_its_time() -> None:
    """A short failure is waited for; the tries are the lane's, so nothing is multiplied."""
    world = OneShot()
    row = world.accept()
    down_until = world.clock.monotonic() + 2.0
    world.server.faults.append(lambda request: REFUSED if world.clock.monotonic() < down_until else None)
    found = world.outbox.deliver_inline(row.id, 10.0)
    assert found is not None
    assert found.state is State.SENT
    assert 4 <= found.attempts <= 7


def test_one_shot_returns_when_waiting_is_of_no_use() -> None:
    """A lane that must wait longer than the caller is QUEUED at once, with the reason."""
    world = OneShot()
    row = world.accept()
    world.server.faults.append(lambda request: an_error(429, retry_after=60))
    began = world.clock.monotonic()
    found = world.outbox.deliver_inline(row.id, 10.0)
    assert found is not None
    assert (found.state, found.reason) == (State.QUEUED, "rate_limited")
    assert world.clock.monotonic() - began < 0.1


def test_one_shot_is_bounded() -> None:
    """No try starts in the last tenth, and none is given more time than is left."""
    world = OneShot(timeout=10.0)
    row = world.accept()
    end = world.clock.monotonic() + 3.0

    def hangs(request: Request) -> Response:
        assert request.deadline is not None
        assert world.clock.monotonic() < end - 0.3
        assert request.deadline <= end
        world.clock.advance(min(1.0, request.deadline - world.clock.monotonic()))
        raise errors.DeadlineExceeded("no answer")

    world.send = hangs
    found = world.outbox.deliver_inline(row.id, 3.0)
    assert found is not None
    assert (found.state, found.uncertain) == (State.QUEUED, True)
    assert world.clock.monotonic() <= end
    assert world.outbox.deliver_inline(12345, 1.0) is None


def test_one_shot_waits_for_another_process() -> None:
    """While another process has the lane, the caller looks until the fate is known."""
    world = OneShot()
    row = world.accept()
    other = world.store.peer()
    claim = other.claim(world.clock.time())
    assert claim is not None
    done = world.clock.monotonic() + 1.0
    get: Callable[..., Row | None] = world.store.get

    def meanwhile(**which: Any) -> Row | None:
        if world.clock.monotonic() >= done and other.lane_status(row.lane).owned:
            other.finish(row.lane, row.id, {"id": row.key}, world.clock.time())
        return get(**which)

    world.store.get = meanwhile
    found = world.outbox.deliver_inline(row.id, 10.0)
    assert found is not None
    assert found.state is State.SENT
    assert world.clock.monotonic() - done < 1.0
    assert not world.server.asked


# ---- flushing


def test_flush_reports() -> None:
    """Everything that can go goes, all lanes; the report says what was sent, what died, and what is left and when."""
    world = OneShot()
    for _ in range(3):
        world.accept()
    world.accept("bad")
    world.clock.advance(100)
    limited = world.accept("limited")
    world.clock.advance(20)
    faults = {"bad": an_error(400), "limited": an_error(429, retry_after=600)}
    world.server.faults.append(lambda request: faults.get(request.channel))
    report = world.outbox.flush(10.0)
    assert (report.sent, report.dead, report.queued) == (3, 1, 1)
    assert report.oldest_age == pytest.approx(20, abs=1)
    assert report.next_attempt_at == pytest.approx(world.clock.time() + 600, abs=1)
    assert world.row(limited).reason == "rate_limited"
    world.check()


def test_flush_waits_for_what_comes_due_within_its_budget() -> None:
    """A parked lane is waited for if its time lies within the budget, and only then."""
    world = OneShot()
    world.accept()
    world.server.faults.append(lambda request: an_error(429, retry_after=5))
    assert world.outbox.flush(2.0).queued == 1
    began = world.clock.monotonic()
    world.server.faults.clear()
    assert world.outbox.flush(3.0).queued == 1
    assert world.clock.monotonic() - began < 0.5
    assert world.outbox.flush(10.0).sent == 1


def test_flush_keeps_its_budget() -> None:
    """However much waits and however slow the server is, the flush ends in time, and no try is cut short by that."""
    world = OneShot()
    for n in range(200):
        world.accept(f"c{n % 5}")
    world.server.latency = 0.4
    began = world.clock.monotonic()
    report = world.outbox.flush(20.0)
    assert world.clock.monotonic() - began <= 20.0
    assert report.sent == pytest.approx(49, abs=1)
    assert report.queued == 200 - report.sent
    assert not any(world.row(row).uncertain for row in world.accepted)


def test_flush_without_a_budget_sends_what_is_due_now() -> None:
    """None: until nothing can be sent now; parked lanes are not waited for."""
    world = OneShot()
    for n in range(300):
        world.accept(f"c{n % 3}")
    world.accept("limited")
    world.server.faults.append(lambda request: an_error(429, retry_after=9) if request.channel == "limited" else None)
    report = world.outbox.flush()
    assert (report.sent, report.queued) == (300, 1)
    assert world.outbox.flush().sent == 0


def test_flush_when_nothing_waits() -> None:
    """It returns at once."""
    world = OneShot()
    began = world.clock.monotonic()
    report = world.outbox.flush(60.0)
    assert (report.sent, report.queued, report.oldest_age, report.next_attempt_at) == (0, 0, None, None)
    assert world.clock.monotonic() == began


@pytest.mark.parametrize("budget", [None, 30.0])
def test_flush_ends_whatever_stands_in_the_way(budget: float | None) -> None:
    """A lost session, a foreign user, an open circuit, a lane in other hands, a broken disk: it never hangs."""
    world = OneShot(users=lambda: {"alice", "bob"}, breaker=True)
    world.accept(user="bob")
    world.outbox.pause("bob")
    world.accept(user="mallory")
    world.accept("theirs")
    taken = world.store.peer().claim(world.clock.time(), lane=Lane("alice", "theirs"))
    assert taken is not None
    world.accept("mine")
    world.circuits["api"].force_open(300)
    report = world.outbox.flush(budget)
    assert (report.sent, report.queued) == (0, 4)
    store = world.store
    claim = store.claim

    def broken(*_: Any, **__: Any) -> Any:
        raise errors.StorageError("disk")

    store.claim = store.next_due = broken
    assert world.outbox.flush(budget).queued == 4
    store.claim = claim
    assert world.outbox.flush(0.0).queued == 4


def test_drain_at_exit() -> None:
    """At exit the caller's thread delivers for a while; 0 seconds only count what is left."""
    world = OneShot()
    for _ in range(4):
        world.accept()
    assert world.outbox.drain_at_exit(0).queued == 4
    assert world.outbox.drain_at_exit(2.0).queued == 0


# ---- stuck, and why


class Background(OneShot):
    """An outbox in background mode whose threads are never started: the test is the thread."""

    def __init__(self, **options: Any) -> None:
        super().__init__(background=True, workers=0, **options)

    def turn_all(self) -> None:
        """What the threads would do."""
        while self.outbox._here.serve():
            pass


def test_a_fresh_lane_is_not_stuck() -> None:
    """Nothing bad is known: `send` waits."""
    world = Background()
    row = world.accept()
    assert world.outbox.stuck(row.lane, wait=10.0, status=LaneStatus()) is None


def test_a_short_failure_may_be_an_accident() -> None:
    """A lane whose tries all failed for two seconds is stuck, whatever its wait; a success clears that."""
    world = Background()
    row = world.accept()
    world.server.faults.append(lambda request: REFUSED)
    world.turn_all()
    assert world.outbox.stuck(row.lane, wait=10.0) is None
    for _ in range(3):
        world.clock.advance(0.5)
        world.turn_all()
        assert world.outbox.stuck(row.lane, wait=10.0) is None
    world.clock.advance(0.6)
    assert world.outbox.stuck(row.lane, wait=10.0) is Reason.OFFLINE
    assert world.outbox.reason(world.row(row)) is Reason.OFFLINE
    assert world.outbox.stuck(Lane("alice", "other"), wait=10.0) is None
    world.server.faults.clear()
    world.outbox.wake()
    assert world.outbox.stuck(row.lane, wait=10.0) is None
    world.turn_all()
    assert world.outbox.stuck(row.lane, wait=10.0) is None
    assert world.row(row).state is State.SENT


def test_stuck_beyond_the_wait() -> None:
    """A lane, a circuit or a user that must wait longer than the caller: each says its reason."""
    world = Background()
    row = world.accept()
    world.server.faults.append(lambda request: an_error(429, retry_after=30))
    world.turn_all()
    assert world.outbox.stuck(row.lane, wait=10.0) is Reason.RATE_LIMITED
    assert world.outbox.stuck(row.lane, wait=40.0) is None
    fresh = Lane("alice", "fresh")
    world.circuits["api"].force_open(20)
    assert world.outbox.stuck(fresh, wait=10.0) is Reason.CIRCUIT_OPEN
    assert world.outbox.stuck(fresh, wait=30.0) is None
    world.outbox.pause("alice")
    assert world.outbox.stuck(fresh, wait=1e9) is Reason.AUTH
    world.outbox.resume("alice")
    world.lost.add("alice")
    assert world.outbox.stuck(fresh, wait=30.0) is Reason.AUTH


def test_stuck_by_what_the_store_said() -> None:
    """What another process did to the lane is known from `accept`; and forgotten when the store says it is well."""
    world = Background()
    status = LaneStatus(not_before=world.clock.time() + 50, reason="offline", failures=7)
    lane = Lane("alice", "general")
    assert world.outbox.stuck(lane, wait=10.0, status=status) is Reason.OFFLINE
    other = world.store.peer()
    row = world.accept()
    world.outbox._here.worker.lanes.failed(row.lane, status, True, world.clock.monotonic())
    assert world.outbox.stuck(lane, wait=10.0) is Reason.OFFLINE
    claim = other.claim(world.clock.time())
    assert claim is not None
    world.accept()  # says how the lane is by now
    assert world.outbox.stuck(lane, wait=10.0) is None


def test_stuck_in_one_shot_mode() -> None:
    """There the caller tries by itself: only a wait beyond its own counts."""
    world = OneShot()
    row = world.accept()
    world.server.faults.append(lambda request: REFUSED)
    world.outbox.deliver_inline(row.id, 3.0)
    assert world.outbox.stuck(row.lane, wait=10.0) is None
    assert world.outbox.stuck(row.lane, wait=0.1) is Reason.OFFLINE


def test_a_broken_disk_is_a_reason() -> None:
    """The store failed the last time: waiting is of no use."""
    world = Background()
    row = world.accept()

    def broken(*_: Any, **__: Any) -> Any:
        raise errors.StorageError("full")

    claim, world.store.claim = world.store.claim, broken
    world.turn_all()
    assert world.outbox.stuck(row.lane, wait=10.0) is Reason.DISK
    world.store.claim = claim
    world.clock.advance(1)
    world.turn_all()
    assert world.outbox.stuck(row.lane, wait=10.0) is None


def test_reasons_of_rows() -> None:
    """Each row says why it is where it is: dead, delivered, behind another one, without a session."""
    world = Background()
    first, second = world.accept(), world.accept()
    assert world.outbox.reason(first) is None
    assert world.outbox.reason(second) is Reason.BEHIND_OTHERS
    world.outbox.pause("alice")
    assert world.outbox.reason(second) is Reason.AUTH
    world.outbox.resume("alice")
    world.server.faults.append(lambda request: an_error(400) if request.key == first.key else None)
    world.turn_all()
    assert world.outbox.reason(world.row(first)) is Reason.REJECTED
    assert world.outbox.reason(world.row(second)) is None


# ---- waiting


def test_waiting_ends_early_only_where_asked() -> None:
    """`until_stuck` gives up when waiting is of no use; without it, waiting lasts as long as it was asked to."""
    world = Background()
    row = world.accept()
    world.server.faults.append(lambda request: an_error(429, retry_after=30))
    world.turn_all()
    began = world.clock.monotonic()
    found = world.outbox.wait(row.id, 10.0, until_stuck=True)
    assert found is not None
    assert found.reason == "rate_limited"
    assert world.clock.monotonic() == began
    world.outbox.wait(row.id, 10.0)
    assert world.clock.monotonic() == pytest.approx(began + 10.0)


def test_waiting_for_another_process() -> None:
    """A fate that another process wrote is seen within a second, by key as well as by id."""
    world = Background()
    row = world.accept()
    other = world.store.peer()
    assert other.claim(world.clock.time()) is not None
    get: Callable[..., Row | None] = world.store.get
    done = world.clock.monotonic() + 3.0

    def meanwhile(**which: Any) -> Row | None:
        if world.clock.monotonic() >= done and other.lane_status(row.lane).owned:
            other.finish(row.lane, row.id, {"id": row.key}, world.clock.time())
        return get(**which)

    world.store.get = meanwhile
    found = world.outbox.wait(row.key, None)
    assert found is not None
    assert found.state is State.SENT
    assert world.clock.monotonic() - done <= 1.0
    assert world.outbox.wait(row.id, 0) == found
    assert world.outbox.wait("no such key", 10.0) is None
    assert world.outbox.wait(99, 10.0) is None


def test_waiting_for_a_discarded_message_ends() -> None:
    """What somebody gave up is not waited for any longer."""
    world = Background()
    row = world.accept()
    world.outbox.discard([row.id])
    assert world.outbox.wait(row.id, None) is None


def test_waiting_survives_a_broken_disk() -> None:
    """The message was accepted: no storage error may say otherwise."""
    world = Background()
    row = world.accept()
    get: Callable[..., Row | None] = world.store.get
    calls = iter(range(100))

    def flaky(**which: Any) -> Row | None:
        if next(calls):
            raise errors.StorageError("locked")
        return get(**which)

    world.store.get = flaky
    assert world.outbox.wait(row.id, 5.0) == row


# ---- by hand


def test_by_hand() -> None:
    """List, retry, discard: dead letters go out again or are given up, and the books say so."""
    world = OneShot()
    rows = [world.accept(), world.accept("b"), world.accept("c")]
    world.server.faults.append(lambda request: an_error(400))
    assert world.outbox.flush().dead == 3
    dead = world.outbox.list(Selection(states=(State.DEAD,)))
    assert [row.key for row in dead] == [row.key for row in rows]
    assert world.outbox.discard([dead[0].id]) == 1
    assert world.outbox.retry([dead[1].id, dead[0].id]) == 1
    world.server.faults.clear()
    assert world.outbox.flush().sent == 1
    stats = world.outbox.stats()
    assert (stats.accepted, stats.delivered, stats.dead, stats.discarded, stats.pending) == (3, 1, 1, 1, 0)


def test_after_close() -> None:
    """Nothing is accepted, nothing is tried, waiting ends at once, and closing again is fine."""
    world = OneShot()
    row = world.accept()
    assert world.outbox.close(1.0)
    assert world.outbox.close(1.0)
    with pytest.raises(errors.NotAcceptedError, match="closed"):
        world.accept()
    assert world.outbox.deliver_inline(row.id, 5.0) == row
    assert world.outbox.flush(5.0).queued == 1
    assert world.outbox.wait(row.id, None) == row
    assert not world.server.asked
