"""Random stories of a channel: whatever is lost, repeated, disordered, cut or late, everything that the server has is
delivered exactly once, in order but for what is flagged late; and every mark on the way is true."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chatsdk.core import ordering
from chatsdk.core.ordering import Order
from tests.core.ordering_model import Listener, Server, play

BOUND = 20


class Stories(RuleBasedStateMachine):
    """The rules of `ordering_model`, in any sequence."""

    @initialize(recovery=st.booleans(), blocked=st.booleans(), sent=st.integers(0, 3))
    def begin(self, recovery: bool, blocked: bool, sent: int) -> None:
        self.server = Server(recovery=recovery)
        for _ in range(sent):
            self.server.send()
        self.listener = Listener(self.server, Order("bot", "c", bound=BOUND, window=300))
        if blocked:
            self.listener.poll()
        else:
            self.listener.join()

    @rule(kinds=st.lists(st.sampled_from(["new", "new", "reply", "typing"]), min_size=1, max_size=8))
    def send(self, kinds: list[str]) -> None:
        for kind in kinds:
            self.server.send(kind)

    @precondition(lambda self: self.server.listed)
    @rule(which=st.integers(0, 1000))
    def delete(self, which: int) -> None:
        listed = sorted(self.server.listed)
        self.server.delete(listed[which % len(listed)])

    @rule(order=st.lists(st.integers(0, 5), min_size=1, max_size=8))
    def publish(self, order: list[int]) -> None:
        for at in order:
            if self.server.outbox:
                self.listener.publish(at)

    @rule(count=st.integers(1, 10))
    def receive(self, count: int) -> None:
        self.listener.receive(count)

    @precondition(lambda self: self.listener.wire)
    @rule(at=st.integers(0, 50))
    def drop(self, at: int) -> None:
        del self.listener.wire[at % len(self.listener.wire)]

    @precondition(lambda self: self.listener.wire)
    @rule(at=st.integers(0, 50), to=st.integers(0, 50))
    def repeat(self, at: int, to: int) -> None:
        wire = self.listener.wire
        wire.insert(to % (len(wire) + 1), wire[at % len(wire)])

    @precondition(lambda self: len(self.listener.wire) > 1)
    @rule(random=st.randoms(use_true_random=False))
    def disorder(self, random: Random) -> None:
        random.shuffle(self.listener.wire)

    @rule()
    def cut(self) -> None:
        self.listener.cut()

    @precondition(lambda self: not self.listener.connected)
    @rule(reset=st.booleans())
    def join(self, reset: bool) -> None:
        if reset:
            self.server.reset()
        self.listener.join()

    @precondition(lambda self: not self.listener.connected)
    @rule()
    def poll(self) -> None:
        self.listener.poll()

    @precondition(lambda self: not self.listener.connected and self.listener.questions)
    @rule()
    def forbid(self) -> None:
        self.listener.forbid()

    @precondition(lambda self: self.listener.questions)
    @rule()
    def answer(self) -> None:
        self.listener.answer()

    @rule(seconds=st.sampled_from([0.1, 0.31, 2.0]))
    def pass_time(self, seconds: float) -> None:
        self.listener.pass_time(seconds)

    @rule(room=st.integers(0, 3))
    def fall_behind(self, room: int) -> None:
        self.listener.refusing = room

    @rule()
    def drain(self) -> None:
        self.listener.drain()

    @invariant()
    def bounded(self) -> None:
        """Memory stays within the bounds, whatever comes."""
        if hasattr(self, "listener"):
            assert self.listener.waiting() <= 2 * BOUND + ordering.ORPHANS
            assert not self.listener.wrong

    def teardown(self) -> None:
        if hasattr(self, "listener"):
            self.listener.calm_down()
            assert self.listener.verdict() == []
            assert self.listener.order.calm


TestStories = Stories.TestCase
TestStories.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.mark.parametrize("recovery", [True, False])
def test_long_stories(recovery: bool) -> None:
    """A hundred stories of 400 steps, with and without recovery at the server."""
    for seed in range(100):
        listener = Listener(Server(recovery=recovery), Order("bot", "c", bound=50))
        assert play(listener, Random(seed), 400) == [], f"seed {seed}"


def test_a_gap_is_told_where_backfills_are_refused() -> None:
    """Where nothing can be fetched, messages are missing, and each time that is said."""
    server = Server(recovery=False)
    listener = Listener(server, Order("bot", "c"))
    listener.join()
    server.send()
    listener.publish(0)
    listener.receive(1)
    listener.cut()
    server.send()
    listener.publish(0)
    listener.join()
    listener.answer(fail=True)
    assert listener.gaps == 1
    assert listener.delivered == [("new", 1)]


class NoIds(Order):
    """A mutant that knows no repetition."""

    __slots__ = ()

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.ids = _Forgetful(1)


class _Forgetful(ordering.Ids):
    __slots__ = ()

    def add(self, name: str) -> None:
        """Forget it."""


class NoHold(Order):
    """A mutant that waits for nothing."""

    __slots__ = ()

    def _keep(self, seq: int, event: object, now: float) -> None:
        self.seq = seq - 1
        out: list[ordering.Delivery] = []
        self._next(event, seq, out)  # type: ignore[arg-type]
        self.wishes.append(out)  # type: ignore[arg-type]


class NoBackfill(Order):
    """A mutant that never asks for what it missed."""

    __slots__ = ()

    def _ask(self, now: float) -> None:
        self._owing = False
        if self._held:
            self._fill_top = max(self._held)
            self._end_of_fill(0, now, [])


class BoldMark(Order):
    """A mutant that stores the newest offset, whatever still waits."""

    __slots__ = ()

    def _settle(self, out: list[ordering.Delivery], begun: int) -> None:
        super()._settle(out, begun)
        if len(out) > begun:
            event, seq, _, _ = out[-1]
            out[-1] = (event, seq, self.top, self.epoch)


@pytest.mark.parametrize("mutant", [NoIds, NoHold, NoBackfill, BoldMark])
def test_the_stories_catch_a_mutant(mutant: type[Order]) -> None:
    """The check can fail: an order without one of its rules is found out."""
    for seed in range(100):
        listener = Listener(Server(recovery=seed % 2 == 0), mutant("bot", "c", bound=50))
        try:
            if play(listener, Random(seed), 400):
                return
        except AssertionError:
            return
    pytest.fail("nobody noticed")
