"""From samples to a level: what is known of a network by its last tries and heartbeats. Pure: time is an argument.

Rules.
1. Latency is the median of the last answers, so that one hiccup is none; loss is the share of the last tries that got
   no answer. Both look at the last five minutes at most.
2. Nothing is guessed from little: three answers make a latency, and a single failure says nothing about a share. Until
   then the level stays what it was (GOOD at first), and `at_best`, `at_worst` say how little that is.
3. Hysteresis: a latency's level changes when 60 % of the answers agree, a share must fall to 80 % of a limit to be
   below it, and the level gets worse at once, but better only when three answers in a row say so.
4. OFFLINE means no contact: a run of failures that the loss so far does not explain (less likely than 0.3 %), lasting
   half a second (what fails in the same moment fails for the same reason), or a system without network. One answer ends
   it, and then all of those failures count as one: they were an outage (a drop), not loss. Failures of one moment,
   as of tries that were all out when a machine fell asleep, are one loss in any case.
5. What somebody in between answered is neither an answer nor a loss. All of it is a captive portal; in between good
   answers it is a filter.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

from .quality import (
    LATENCY_LIMITS,
    LEVELS,
    NetworkMetrics,
    Quality,
    Reason,
    latency_rank,
    loss_rank,
    median_interval,
    share_interval,
)

WINDOW = 60
"""Tries that loss is the share of."""

ANSWERS = 10
"""Answers that the latency is the median of."""

SPAN = 300.0
"""Seconds after which a sample is forgotten: those by which health is judged."""

LARGE = 16 * 2**10
"""Bytes from which on a body tells of the bandwidth, and no longer of the latency."""

TRANSFERS = 8
LEAST_ANSWERS = 3
LEAST_FAILURES = 2
DISAGREE = 0.4
"""Of the answers are of the level still: too many for another one."""

RELEASE = 0.8
CONFIRM = 3
UNEXPLAINED = 0.003
LASTING = 0.5
FILTERED = 5
"""Intercepted answers in a row that are a captive portal, where a filter was seen before; else LEAST_FAILURES are."""

_GOOD, _POOR, _OFFLINE = Quality.GOOD.rank, Quality.POOR.rank, Quality.OFFLINE.rank
_NO_REASON = Reason.NONE
_OF_SAMPLES = (Reason.SLOW, Reason.LOSSY)
_GIVEN = {str(reason): reason for reason in (Reason.CAPTIVE_PORTAL, Reason.CONTENT_FILTER, Reason.REWRITING_PROXY)}

_LOST, _HEARD = -1, 4
"""In place of a latency's rank: no answer; an answer of which the time is not known."""


class Estimate:
    """Not thread-safe; `now` is monotonic, and one that goes back is taken for the latest.

    window: tries that loss is the share of. More tell finer levels apart, and forget an old loss later.
    """

    __slots__ = (
        "_answers", "_better", "_calm", "_changed_at", "_drops", "_failed", "_filter", "_filtered_at", "_heard_at",
        "_intercepted", "_latency", "_level", "_loss", "_network", "_now", "_old", "_ranks", "_run", "_run_at",
        "_run_lost", "_run_reason", "_transfers", "_tries", "_window", "reason",
    )  # fmt: skip

    def __init__(self, now: float = 0.0, *, window: int = WINDOW) -> None:
        self._window = window
        self._now = now
        self._level = self._old = self._latency = _GOOD
        self._loss = 0
        self._changed_at = now
        self._heard_at: float | None = None
        self._network = True
        self._drops: deque[float] = deque(maxlen=1000)
        self._filter = _NO_REASON
        self._filtered_at = now
        self.reason = _NO_REASON
        """Why the level is no better."""
        self.forget()

    def forget(self) -> None:
        """The samples are of no more use; the level stays until others come."""
        self._tries: deque[tuple[float, int]] = deque()  # (when, rank of the latency, _LOST or _HEARD)
        self._failed = 0
        self._answers: deque[tuple[float, float, int]] = deque()  # (when, ms, rank)
        self._ranks = [0, 0, 0, 0]
        self._transfers: deque[tuple[float, int, float]] = deque(maxlen=TRANSFERS)  # (when, bytes, seconds)
        self._run = self._run_lost = 0
        self._run_at = self._now
        self._run_reason = _NO_REASON
        self._intercepted = 0
        self._better = 0
        self._calm = False

    @property
    def quality(self) -> Quality:
        """The level."""
        return LEVELS[self._level]

    @property
    def old(self) -> Quality:
        """The level before the last change; the same, if only the reason changed."""
        return LEVELS[self._old]

    @property
    def heard_at(self) -> float | None:
        """When the server answered last."""
        return self._heard_at

    # ---- what happens; each returns whether level or reason changed

    def answered(self, now: float, seconds: float | None = None, size: int = 0) -> bool:
        """The server answered after `seconds` (None: that is not known), with `size` bytes."""
        if now < self._now:
            now = self._now
        self._now = self._heard_at = now
        tries = self._tries
        if self._run or self._intercepted or not self._network:
            self._contact()
        if seconds is None or not 0.0 <= seconds < 86400.0:
            rank = _HEARD
        elif size >= LARGE:
            rank = _HEARD
            self._transferred(now, seconds, size)
        else:
            ms = seconds * 1000.0
            rank = bisect_right(LATENCY_LIMITS, ms)
            answers, ranks = self._answers, self._ranks
            answers.append((now, ms, rank))
            ranks[rank] += 1
            if len(answers) > ANSWERS:
                ranks[answers.popleft()[2]] -= 1
        tries.append((now, rank))
        if len(tries) > self._window and tries.popleft()[1] < 0:
            self._failed -= 1
        if tries[0][0] < now - SPAN:
            self._expire(now)
        # most samples find everything well, and too few latencies of another level to change anything
        if self._calm and self._ranks[self._latency] > DISAGREE * len(self._answers):
            return False
        return self._judge(now, True)

    def failed(self, now: float, reason: str = "") -> bool:
        """A try got no answer of the server. `reason`: captive_portal, content_filter or rewriting_proxy, if somebody
        else gave one."""
        if now < self._now:
            now = self._now
        self._now = now
        self._calm = False
        given = _GIVEN.get(reason)
        if self._run == 0 and self._intercepted == 0:
            self._run_at = now
        if given is None:
            self._run += 1
            tries = self._tries
            if not (tries and tries[-1][1] == _LOST and now - tries[-1][0] < LASTING):
                self._run_lost += 1
                self._failed += 1
                tries.append((now, _LOST))
                if len(tries) > self._window and tries.popleft()[1] < 0:
                    self._failed -= 1
        else:
            self._intercepted += 1
            self._run_reason = given
        self._expire(now)
        return self._judge(now, False)

    def dropped(self, now: float) -> bool:
        """A connection that was open broke."""
        self._now = max(self._now, now)
        self._drops.append(self._now)
        return False

    def network_lost(self, now: float) -> bool:
        """The system has no network."""
        self._now = max(self._now, now)
        self._network = self._calm = False
        return self._set(_OFFLINE, Reason.NO_NETWORK)

    def network_changed(self, now: float) -> bool:
        """The system has a network (again, or another one): what was measured was another one's."""
        self._now = max(self._now, now)
        self._network = True
        self.forget()
        return self._set(self._level, Reason.NO_CONTACT if self._level == _OFFLINE else self.reason)

    # ---- reading

    def metrics(self, now: float) -> NetworkMetrics:
        """The figures."""
        now = self._now = max(self._now, now)
        self._expire(now)
        count = len(self._tries)
        low, high = share_interval(self._failed, count)
        ordered = sorted(ms for _, ms, _ in self._answers)
        quickest, slowest = median_interval(ordered)
        level = self._level
        if level == _OFFLINE:
            best = worst = _OFFLINE
        else:
            best = min(level, max(latency_rank(quickest), loss_rank(low)))
            worst = max(level, max(latency_rank(slowest), loss_rank(high)))
        seconds = sum(took for _, _, took in self._transfers)
        return NetworkMetrics(
            quality=LEVELS[level],
            at_best=LEVELS[best],
            at_worst=LEVELS[worst],
            reason=self.reason,
            online=level != _OFFLINE,
            samples=count + self._intercepted,
            latency_ms=_median(ordered),
            latency_p95_ms=ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))] if ordered else None,
            loss=self._failed / count if count else 0.0,
            loss_low=low,
            loss_high=high,
            bandwidth=sum(size for _, size, _ in self._transfers) / seconds if seconds > 0 else None,
            drops=len(self._drops),
            stability=1 / (1 + len(self._drops)),
            quality_age=now - self._changed_at,
            contact_age=None if self._heard_at is None else now - self._heard_at,
        )

    @property
    def latency(self) -> float | None:
        """Milliseconds, the median of the last answers; None: not known."""
        return _median(sorted(ms for _, ms, _ in self._answers))

    # ---- judging

    def _contact(self) -> None:
        """The first answer after failures."""
        self._network, self._calm = True, False
        if self._intercepted and self._level != _OFFLINE:  # else it was a portal, and has let us through
            self._filter = (
                Reason.REWRITING_PROXY if self._run_reason is Reason.REWRITING_PROXY else Reason.CONTENT_FILTER
            )
            self._filtered_at = self._now
        if self._level == _OFFLINE:
            tries = self._tries
            while len(tries) > 1 and tries[-1][1] == tries[-2][1] == _LOST:
                tries.pop()
                self._failed -= 1
        self._run = self._run_lost = self._intercepted = 0

    def _judge(self, now: float, answer: bool) -> bool:
        if not self._network:
            return False  # nothing that fails is news
        if not answer and self._lost_contact(now):
            reason = self._run_reason if self._intercepted else Reason.NO_CONTACT
            if reason is Reason.CONTENT_FILTER:
                reason = Reason.CAPTIVE_PORTAL  # nothing else comes through
            return self._set(_OFFLINE, reason)
        level, target = self._level, max(self._latency_level(), self._loss_level())
        if level == _OFFLINE:
            if not answer:
                return False
            level, self._better = _POOR, 0
        if target > level:
            level, self._better = target, 0
        elif target == level or not answer:
            self._better = 0
        else:
            self._better += 1
            if self._better >= CONFIRM:
                level, self._better = target, 0
        changed = self._set(level, self._why(now, level))
        self._calm = not self._failed and level == target == self._latency and self._filter is _NO_REASON
        return changed

    def _lost_contact(self, now: float) -> bool:
        if now - self._run_at < LASTING:
            return False
        if self._failed == len(self._tries) and self._run + self._intercepted >= LEAST_FAILURES:
            return True  # nothing is known of this network but failures
        if self._intercepted >= (FILTERED if self._filter is not _NO_REASON else LEAST_FAILURES):
            return True
        run = min(self._run_lost, self._failed)
        before = (self._failed - run + 1) / (len(self._tries) - run + 2)
        return bool(self._run >= LEAST_FAILURES and before**self._run < UNEXPLAINED)

    def _latency_level(self) -> int:
        count, ranks, level = len(self._answers), self._ranks, self._latency
        if count >= LEAST_ANSWERS and ranks[level] <= DISAGREE * count:
            better, most = sum(ranks[:level]), (1 - DISAGREE) * count
            if better >= most or count - better - ranks[level] >= most:
                half, level = ranks[0], 0
                while half * 2 < count:
                    level += 1
                    half += ranks[level]
                self._latency = level
        return level

    def _loss_level(self) -> int:
        if self._failed < LEAST_FAILURES:
            self._loss = 0
        else:
            share = self._failed / len(self._tries)
            self._loss = max(loss_rank(share), min(loss_rank(share / RELEASE), self._loss))
        return self._loss

    def _why(self, now: float, level: int) -> Reason:
        if self._filter is not _NO_REASON:
            if now - self._filtered_at < SPAN:
                return self._filter
            self._filter = _NO_REASON
        if level <= _GOOD:
            return _NO_REASON
        if max(self._loss, self._latency) <= _GOOD:  # it will be better after another answer or two
            return self.reason if self.reason in _OF_SAMPLES else _NO_REASON
        return Reason.LOSSY if self._loss > self._latency else Reason.SLOW

    def _set(self, level: int, reason: Reason) -> bool:
        if level == self._level and reason is self.reason:
            return False
        self._old = self._level
        if level != self._level:
            self._changed_at = self._now
            if level == _OFFLINE:
                self._drops.append(self._now)
        self._level, self.reason = level, reason
        return True

    # ---- keeping

    def _transferred(self, now: float, seconds: float, size: int) -> None:
        # what is over the latency was the body's; never less than a tenth, or a fast link would be of any bandwidth
        self._transfers.append((now, size, max(seconds - (self.latency or 0.0) / 1000.0, seconds / 10, 1e-6)))

    def _expire(self, now: float) -> None:
        first = now - SPAN
        tries, answers = self._tries, self._answers
        while tries and tries[0][0] < first:
            if tries.popleft()[1] < 0:
                self._failed -= 1
        while answers and answers[0][0] < first:
            self._ranks[answers.popleft()[2]] -= 1
        while self._drops and self._drops[0] < first:
            self._drops.popleft()
        while self._transfers and self._transfers[0][0] < first:
            self._transfers.popleft()


def _median(ordered: list[float]) -> float | None:
    if not ordered:
        return None
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
