"""From samples to a level."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chatsdk.network.estimate import SPAN, WINDOW, Estimate
from chatsdk.network.quality import NetworkMetrics, Quality, Reason


class Link:
    """An estimate, and the time that passes."""

    def __init__(self, window: int = WINDOW) -> None:
        self.now = 1000.0
        self.estimate = Estimate(self.now, window=window)

    def answers(self, ms: float, count: int = 1, *, every: float = 1.0) -> Link:
        for _ in range(count):
            self.now += every
            self.estimate.answered(self.now, ms / 1000)
        return self

    def fails(self, count: int = 1, reason: str = "", *, every: float = 1.0) -> Link:
        for _ in range(count):
            self.now += every
            self.estimate.failed(self.now, reason)
        return self

    def mixed(self, ms: float, answered: Iterable[bool]) -> Link:
        for ok in answered:
            self.answers(ms) if ok else self.fails()
        return self

    @property
    def quality(self) -> Quality:
        return self.estimate.quality

    @property
    def reason(self) -> Reason:
        return self.estimate.reason

    @property
    def metrics(self) -> NetworkMetrics:
        return self.estimate.metrics(self.now)


@pytest.mark.parametrize(
    ("ms", "level", "reason"),
    [(25, "EXCELLENT", ""), (100, "GOOD", ""), (225, "FAIR", "slow"), (600, "POOR", "slow"), (2000, "POOR", "slow")],
)
def test_latency_makes_the_level(ms: float, level: str, reason: str) -> None:
    """Also two seconds: messages go through such a link, so it is not OFFLINE."""
    link = Link().answers(ms, 10)
    assert (link.quality, link.reason) == (level, reason)
    assert link.metrics.latency_ms == pytest.approx(ms)


def test_one_hiccup_is_none() -> None:
    """The median does not care."""
    link = Link().answers(25, 20).answers(5000, 5)
    assert link.quality is Quality.EXCELLENT


def test_the_first_answer_says_little() -> None:
    """It holds lookup, connecting and TLS; three are waited for."""
    link = Link().answers(2000, 2)
    assert link.quality is Quality.GOOD
    assert (link.metrics.at_best, link.metrics.at_worst) == (Quality.EXCELLENT, Quality.POOR)


def test_certainty_comes_with_samples() -> None:
    """The levels left open get fewer."""
    few, many = Link(window=1000).answers(25, 5), Link(window=1000).answers(25, 800, every=0.1)
    assert few.metrics.at_worst is Quality.POOR
    assert many.metrics.at_best is many.metrics.at_worst is Quality.EXCELLENT


def test_a_single_failure_is_no_share() -> None:
    """One of three lost says nothing yet; a second one does."""
    link = Link().answers(25, 3).fails()
    assert link.quality is not Quality.POOR
    link.answers(25, 1).fails()
    assert (link.quality, link.reason) == (Quality.POOR, "lossy")
    assert link.metrics.loss == pytest.approx(2 / 6)


def test_loss_is_the_share_of_the_window_and_is_forgotten() -> None:
    """A clean minute of traffic later the link is well again."""
    link = Link().mixed(25, [True, True, False, True, False, True] * 5)
    assert link.quality is Quality.POOR
    assert link.answers(25, WINDOW).quality is Quality.EXCELLENT
    assert link.metrics.loss == 0


def test_old_samples_are_forgotten_by_time() -> None:
    """After five minutes they say nothing; the level is kept, and everything is open."""
    link = Link().answers(600, 30)
    link.now += SPAN + 1
    assert link.quality is Quality.POOR
    assert link.metrics.samples == 0
    assert link.metrics.at_best is Quality.EXCELLENT
    assert link.answers(25, 5).quality is Quality.EXCELLENT


def test_a_link_on_the_limit_does_not_flicker() -> None:
    """Latencies just above and below 50 ms, in turns: at most one change."""
    link, seen = Link(), []
    for number in range(400):
        link.answers(48 if number % 2 else 52)
        seen.append(link.quality)
    assert sum(a is not b for a, b in pairwise(seen)) <= 1


def test_better_waits_for_three_answers() -> None:
    """After an outage the first answer is contact, not excellence."""
    link = Link().answers(25, 30).fails(3)
    assert link.quality is Quality.OFFLINE
    levels = [link.answers(25).quality for _ in range(3)]
    assert levels == [Quality.POOR, Quality.POOR, Quality.EXCELLENT]


def test_nobody_answers() -> None:
    """Two failures and no answer ever: OFFLINE."""
    link = Link().fails(2)
    assert (link.quality, link.reason) == (Quality.OFFLINE, "no_contact")
    assert not link.metrics.online
    assert link.metrics.contact_age is None


def test_a_clean_link_is_offline_soon_a_lossy_one_later() -> None:
    """The run of failures must be longer than the loss so far explains."""
    assert Link().answers(25, 40).fails(2).quality is Quality.OFFLINE
    lossy = Link().mixed(25, [True, False] * 20).answers(25)
    assert lossy.fails(5).quality is Quality.POOR
    assert lossy.fails(5).quality is Quality.OFFLINE


def test_what_fails_at_once_is_one_failure() -> None:
    """Eight calls of eight threads that break together are no outage; half a second later another one is."""
    link = Link().answers(25, 40).fails(8, every=0.001)
    assert link.quality is not Quality.OFFLINE
    assert link.fails(1, every=0.6).quality is Quality.OFFLINE


def test_an_outage_is_a_drop_and_not_loss() -> None:
    """When contact is back, its failures count as one."""
    link = Link().answers(25, 40).fails(15).answers(25, 4)
    assert link.quality is Quality.EXCELLENT
    assert link.metrics.loss < 0.03
    assert (link.metrics.drops, link.metrics.stability) == (1, 0.5)
    link.estimate.dropped(link.now)
    assert link.metrics.stability == pytest.approx(1 / 3)
    link.now += SPAN + 1
    assert link.metrics.stability == 1


def test_a_captive_portal_is_no_contact() -> None:
    """Web pages where answers belong, and nothing else."""
    link = Link().answers(25, 30).fails(2, "captive_portal")
    assert (link.quality, link.reason) == (Quality.OFFLINE, "captive_portal")
    assert link.metrics.loss == 0
    assert link.answers(25, 3).quality is Quality.EXCELLENT
    assert link.reason == ""


def test_a_filter_answers_in_between() -> None:
    """Good answers beside the web pages: not everything is blocked. It is named, and the level is the network's."""
    link = Link().answers(25, 30).fails(1, "captive_portal").answers(25, 5).fails(2, "captive_portal").answers(25)
    assert (link.quality, link.reason) == (Quality.EXCELLENT, "content_filter")
    link.now += SPAN
    assert link.answers(25).reason == ""


def test_a_rewriting_proxy_is_named() -> None:
    """Answers that nobody can use, now and then and always."""
    link = Link().answers(25, 10).fails(1, "rewriting_proxy").answers(25)
    assert (link.quality, link.reason) == (Quality.EXCELLENT, "rewriting_proxy")
    assert Link().fails(2, "rewriting_proxy").reason == "rewriting_proxy"


def test_the_system_has_no_network() -> None:
    """OFFLINE at once, until somebody answers all the same."""
    link = Link().answers(25, 10)
    assert link.estimate.network_lost(link.now)
    assert (link.quality, link.reason) == (Quality.OFFLINE, "no_network")
    assert link.fails(5).reason == "no_network"
    link.answers(25)
    assert link.quality is Quality.POOR


def test_another_network_is_another_estimate() -> None:
    """From Wi-Fi to cellular: the old samples are forgotten, the level stays until there are new ones."""
    link = Link().answers(25, 30)
    link.estimate.network_changed(link.now)
    assert (link.quality, link.metrics.samples) == (Quality.EXCELLENT, 0)
    assert link.answers(400, 3).quality is Quality.POOR


def test_large_bodies_tell_of_the_bandwidth() -> None:
    """A megabyte in two seconds is no latency of two seconds."""
    link = Link().answers(100, 10)
    assert link.metrics.bandwidth is None
    link.estimate.answered(link.now, 2.1, 1_000_000)
    assert link.metrics.bandwidth == pytest.approx(500_000)
    assert link.metrics.latency_ms == pytest.approx(100)


@pytest.mark.parametrize("seconds", [None, float("nan"), float("inf"), -1.0, 1e9])
def test_answers_without_a_usable_time_are_contact(seconds: float | None) -> None:
    """A ping of the server, or a clock gone mad."""
    link = Link()
    link.fails(5)
    link.estimate.answered(link.now, seconds)
    assert link.quality is Quality.POOR
    assert link.metrics.latency_ms is None


def test_a_clock_that_goes_back_is_taken_for_standing_still() -> None:
    """Nothing breaks, and nothing is forgotten."""
    link = Link().answers(25, 10)
    link.estimate.answered(5.0, 0.025)
    link.estimate.failed(-1e9)
    assert link.metrics.samples == 12
    assert link.estimate.metrics(0.0).contact_age == 0


class AnyLink(RuleBasedStateMachine):
    """Whatever comes in whatever order: the books are right, and OFFLINE means no contact."""

    @initialize(window=st.integers(1, 80))
    def begin(self, window: int) -> None:
        self.now = 50.0
        self.estimate = Estimate(self.now, window=window)
        self.contact = True

    @rule(ms=st.floats(0, 1e5), size=st.integers(0, 10**7), after=st.floats(0, 100))
    def answered(self, ms: float, size: int, after: float) -> None:
        self.now += after
        self.estimate.answered(self.now, ms / 1000, size)
        assert self.estimate.quality is not Quality.OFFLINE

    @rule(after=st.floats(-10, 100), reason=st.sampled_from(["", "captive_portal", "rewriting_proxy", "x" * 1000]))
    def failed(self, after: float, reason: str) -> None:
        self.now += after
        self.estimate.failed(self.now, reason)

    @rule(there=st.booleans())
    def system(self, there: bool) -> None:
        if there:
            self.estimate.network_changed(self.now)
        else:
            self.estimate.network_lost(self.now)
            assert self.estimate.quality is Quality.OFFLINE

    @rule(after=st.floats(0, 1000))
    def nothing(self, after: float) -> None:
        self.now += after

    @invariant()
    def books(self) -> None:
        if not hasattr(self, "estimate"):
            return
        metrics, estimate = self.estimate.metrics(self.now), self.estimate
        assert estimate._failed == sum(rank < 0 for _, rank in estimate._tries)
        assert sum(estimate._ranks) == len(estimate._answers)
        assert min(estimate._ranks) >= 0
        assert 0 <= metrics.loss_low <= metrics.loss <= metrics.loss_high <= 1
        assert metrics.at_best.rank <= metrics.quality.rank <= metrics.at_worst.rank
        assert metrics.online is (metrics.quality is not Quality.OFFLINE)
        assert bool(metrics.reason.text) == bool(metrics.reason)


TestAnyLink = AnyLink.TestCase
TestAnyLink.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


@given(st.lists(st.sampled_from([0.02, 0.1, 0.2, 0.9, None]), max_size=200))
@settings(max_examples=60, deadline=None)
def test_a_change_is_reported_exactly_when_there_is_one(samples: list[float | None]) -> None:
    """What `answered` and `failed` return is whether level or reason are others."""
    estimate = Estimate(0.0)
    for number, seconds in enumerate(samples):
        before = (estimate.quality, estimate.reason)
        changed = estimate.failed(number) if seconds is None else estimate.answered(number, seconds)
        assert changed == (before != (estimate.quality, estimate.reason))
        if changed:
            assert estimate.old is before[0]


def test_failures_of_one_moment_are_one_loss() -> None:
    """Thirty tries were out when the machine fell asleep: one thing happened, not thirty. Those that go on failing are
    counted, so that a network that is gone is known to be gone."""
    estimate = Estimate(0.0)
    for number in range(50):
        estimate.answered(float(number), 0.02)
    for number in range(30):
        estimate.failed(50.0 + number / 100)
    assert estimate.metrics(50.4).loss == pytest.approx(1 / 51)
    assert estimate.quality != "OFFLINE"
    estimate.answered(50.5, 0.02)
    assert estimate.metrics(50.5).drops == 0
    for number in range(30):
        estimate.failed(60.0 + number / 10)
    assert str(estimate.quality) == "OFFLINE"
    estimate.answered(64.0, 0.02)
    assert estimate.metrics(64.0).loss * estimate.metrics(64.0).samples <= 2
