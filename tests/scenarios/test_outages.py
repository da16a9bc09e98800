"""Outages, in simulated time (one in real time): what becomes of every message when the server, the network or the
token fails for a while.

Each story is told 100 times over, with other random numbers. After each, and on the way at every step of the worker:
accepted = delivered + dead + pending + discarded; nothing is there twice; nothing is both delivered and dead; the
order of every lane holds; no message dies that the server would have taken.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from chatsdk.core import errors
from chatsdk.core.exchange import Request, Response
from chatsdk.core.store import Row, State
from chatsdk.outbox.outbox import Outbox
from chatsdk.outbox.store import SQLiteStore
from chatsdk.resilience.circuits import Circuits
from chatsdk.resilience.system_clock import SystemClock
from tests.outbox.world import FakeBackend, World, a_request, an_error, through_the_breaker

HOUR = 3600.0
CHANNELS = [f"c{n}" for n in range(8)]
SEEDS = range(10)
"""Ten stories of ten kinds: 100 runs."""

RECOVERY = 60.0 + 60.0 * 0.02
"""Seconds until all channels are served after an outage: the longest wait of a lane or of the circuit, and some air."""


class Story(World):
    """Messages come in eight channels at random; the first try and the delivery of each are noted."""

    def __init__(self, seed: int, **options: Any) -> None:
        super().__init__(seed=seed, **options)
        self.accepted_at: dict[str, float] = {}
        self.arrived_at: dict[str, float] = {}
        answer = self.server.answer

        def noting(request: Request) -> Any:
            response = answer(request)
            if request.operation == "messages.send" and request.key is not None:
                self.arrived_at.setdefault(request.key, self.clock.monotonic())
            return response

        self.server.answer = noting  # type: ignore[method-assign]

    def put(self, channel: str = "general", text: str = "hello", *, user: str = "alice", ttl: float = 86400.0) -> Row:
        row = super().put(channel, text, user=user, ttl=ttl)
        self.accepted_at[row.key] = self.clock.monotonic()
        return row

    def traffic(self, seconds: float, every: float, **options: Any) -> list[tuple[float, Callable[[], object]]]:
        """A message `every` so many seconds on average, in any channel."""
        at = 0.0
        puts: list[tuple[float, Callable[[], object]]] = []
        while (at := at + self.random.expovariate(1 / every)) < seconds:
            channel = self.random.choice(CHANNELS)
            puts.append((at, partial(self.put, channel, **options)))
        return puts

    def between(self, begin: float, end: float) -> Callable[[], bool]:
        """Is it now between two times, counted from here?"""
        start = self.clock.monotonic()
        return lambda: start + begin <= self.clock.monotonic() < start + end

    def tell(self, seconds: float, every: float = 30.0, **options: Any) -> None:
        """Let it happen, then let everything come to its end."""
        self.run(seconds, puts=self.traffic(seconds, every, **options))
        self.drain()
        self.judge()

    def delays(self, since: float = 0.0) -> list[float]:
        """How long each message took, or, if it was accepted before `since`, how long after that it arrived."""
        return [at - max(self.accepted_at[key], since) for key, at in self.arrived_at.items()]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "error",
    [an_error(503), an_error(502), an_error(500), errors.NotSentError("refused"), errors.DeadlineExceeded("silence")],
    ids=lambda error: f"{type(error).__name__}{getattr(error, 'status', '')}",
)
def test_an_hour_of_outage_kills_nothing(seed: int, error: Exception) -> None:
    """Down for an hour, in whatever way: all is delivered, every channel within about a minute of the recovery."""
    story = Story(seed)
    down = story.between(100, 100 + HOUR)
    story.server.faults.append(lambda request: error if down() else None)
    began = story.clock.monotonic()
    story.tell(100 + HOUR + 600)
    assert story.states()[State.DEAD] == 0
    assert len(story.accepted) > 80
    assert max(story.delays(since=began + 100 + HOUR)) < RECOVERY
    asked = [request for request in story.server.asked if request.operation == "messages.send"]
    assert len(asked) < 3 * len(story.accepted) + HOUR  # one probe a minute, not a storm


@pytest.mark.parametrize("seed", SEEDS)
def test_one_poison_message_stops_its_own_channel_only(seed: int) -> None:
    """A message that always gets a 500 becomes a dead letter, alone; nobody else is delayed or dies."""
    story = Story(seed)
    poison = story.put("c0", "poison")
    story.server.faults.append(lambda request: an_error(500) if request.key == poison.key else None)
    behind = story.put("c0", "behind it")
    story.tell(2000, every=2.0)
    assert story.row(poison).reason == "poison"
    assert story.row(poison).strikes == 20
    assert story.states()[State.DEAD] == 1
    assert story.row(behind).state is State.SENT
    of_channel = {row.key: row.request.channel for row in story.accepted}
    others = [at - story.accepted_at[key] for key, at in story.arrived_at.items() if of_channel[key] != "c0"]
    assert max(others) < 2.0


@pytest.mark.parametrize("seed", SEEDS)
def test_lost_replies_at_the_end_of_a_life(seed: int) -> None:
    """Messages arrive, their replies are lost until their time to live is over: each ends SENT or dead, never both."""
    story = Story(seed)
    lossy = story.between(0, 600)
    story.server.reply_lost = lambda request: lossy() and story.random.random() < 0.7
    story.server.faults.append(
        lambda request: errors.NotSentError() if lossy() and story.random.random() < 0.3 else None
    )
    story.tell(600, every=5.0, ttl=30.0)
    states = story.states()
    assert states[State.SENT] + states[State.DEAD] == len(story.accepted)
    assert states[State.SENT] == len(story.server.messages)
    assert not any(row.reason == "poison" for row in map(story.row, story.accepted))


@pytest.mark.parametrize("seed", SEEDS)
def test_good_tokens_refused_for_a_while(seed: int) -> None:
    """Ten seconds of 401 to good tokens (a busy database): nothing dies, and it is over within half a minute."""
    story = Story(seed)
    refused = story.between(20, 30)
    story.server.faults.append(lambda request: an_error(401) if refused() else None)
    began = story.clock.monotonic()
    story.tell(120, every=1.0)
    assert story.states()[State.DEAD] == 0
    assert max(story.delays(since=began + 30)) < 15.0


@pytest.mark.parametrize("seed", SEEDS)
def test_one_answer_in_five_fails(seed: int) -> None:
    """20 % of 503 for half an hour: the circuit makes no outage of it; most go out at once, all within seconds."""
    story = Story(seed)
    story.server.faults.append(lambda request: an_error(503) if story.random.random() < 0.2 else None)
    story.tell(1800, every=1.0)
    assert story.states()[State.DEAD] == 0
    delays = sorted(story.delays())
    assert delays[len(delays) // 2] < 0.2
    assert delays[int(len(delays) * 0.99)] < 10.0
    assert story.circuits["api"].counts.opened <= 3


@pytest.mark.parametrize("seed", SEEDS)
def test_a_storm_of_retry_after(seed: int) -> None:
    """The server limits each channel and says how long to wait: it is never asked too early, and all goes out."""
    story = Story(seed)
    free_at: dict[str, float] = {}
    early: list[str] = []

    def limited(request: Request) -> Exception | None:
        now = story.clock.monotonic()
        if now < free_at.get(request.channel, 0.0) - 1e-3:
            early.append(request.channel)
        if story.random.random() < 0.5:
            return None
        seconds = story.random.choice([1, 2, 30, 120])
        free_at[request.channel] = now + seconds
        return an_error(story.random.choice([429, 503]), retry_after=seconds)

    story.server.faults.append(limited)
    story.tell(1800, every=10.0)
    assert not early
    assert story.states()[State.DEAD] == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_at_once(seed: int) -> None:
    """Refusals, lost replies, every status, plugins, tokens, killed processes, short lives: the books always hold."""
    story = Story(seed)
    chance = story.random
    wrong: list[Callable[[], Exception]] = [
        lambda: errors.NotSentError("refused"),
        lambda: errors.DeadlineExceeded("late"),
        lambda: errors.CaptivePortalError("html"),
        lambda: errors.PluginError(plugin="p"),
        lambda: errors.TokenUnavailableError("source"),
        lambda: RuntimeError("a mistake"),
        *(lambda status=status: an_error(status) for status in (400, 401, 403, 404, 408, 429, 500, 502, 503, 504)),
        lambda: an_error(429, retry_after=chance.choice([0, 1, 60])),
    ]
    story.server.faults.append(lambda request: chance.choice(wrong)() if chance.random() < 0.4 else None)
    story.server.reply_lost = lambda request: chance.random() < 0.1

    def kill() -> None:
        following = story.store.peer()
        story.store.die()
        story.store, story.worker = following, story.make_worker(following)

    kills: list[tuple[float, Callable[[], object]]] = [(at, kill) for at in range(100, 1800, 100)]
    puts = [
        (at, lambda: story.put(chance.choice(CHANNELS), user=chance.choice("ab"), ttl=chance.choice([5, 60, 86400])))
        for at in sorted(chance.uniform(0, 1800) for _ in range(300))
    ]
    story.run(1800, puts=puts + kills)
    story.server.faults.clear()
    story.server.reply_lost = lambda request: False
    story.drain()
    story.judge()
    assert {row.reason for row in map(story.row, story.accepted) if row.state is State.DEAD} <= {
        "rejected",
        "expired",
        "poison",
    }


def test_an_outage_in_real_time(tmp_path: Path) -> None:
    """The real store, threads and circuit: down for two seconds in the middle of the traffic; all arrives, once and in
    order, soon after; and while it was down, accepting was as quick as ever."""
    clock = SystemClock()
    store = SQLiteStore(tmp_path / "state", clock=clock)
    circuits = Circuits(clock=clock)
    chance = random.Random(3)
    lock = threading.Lock()
    log: list[tuple[str, str]] = []
    known: set[str | None] = set()
    began = monotonic()

    def is_down() -> bool:
        return 0.7 <= monotonic() - began < 2.7

    def server(request: Request) -> Response:
        if is_down():
            raise chance.choice([errors.NotSentError("refused"), an_error(503)])
        with lock:
            if request.key not in known:
                known.add(request.key)
                log.append((request.channel, str(request.key)))
        if chance.random() < 0.1:
            raise errors.OutcomeUnknownError("the reply was lost")
        return Response(status=201, body={"id": request.key})

    backend: Any = FakeBackend()
    outbox = Outbox(
        store,
        through_the_breaker(server, circuits),
        backend,
        clock=clock,
        random=random.random,
        emit=lambda event: None,
        circuit_open=lambda: circuits["api"].retry_after,
    )
    accepted: list[Row] = []
    took: list[float] = []
    tick = threading.Event()
    while monotonic() - began < 3.5:
        asked = monotonic()
        put = outbox.accept(a_request(f"c{len(accepted) % 4}"), 3600.0)
        outbox.stuck(put.row.lane, wait=10.0, status=put.lane)
        if is_down():
            took.append(monotonic() - asked)
        accepted.append(put.row)
        tick.wait(0.02)
    report = outbox.flush(20.0)
    recovered = monotonic() - began - 2.7
    outbox.close(5.0)
    stats = store.stats()
    store.close()
    assert (report.queued, report.dead) == (0, 0)
    assert stats.accepted == stats.delivered == len(accepted) == len(log)
    assert len(accepted) > 50
    place = {row.key: row.id for row in accepted}
    for channel in {row.request.channel for row in accepted}:
        order = [place[key] for where, key in log if where == channel]
        assert order == sorted(order)
    assert sorted(took)[len(took) // 2] < 0.05
    assert recovered < 12.0
