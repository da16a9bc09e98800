"""Which channel is looked up over HTTP, and when, while the websocket cannot be had: in schools and companies that let
HTTP through and nothing else. What is found goes through the same `core.ordering` as any backfill, so a channel's
messages are the same, in the same order, each once, whichever way they come. Decides only; asks nobody. No clock.

    the websocket                            | the channels
    -----------------------------------------+--------------------------------------------------------------
    is wanted, and is not had for `interval` | each is looked up, from its position on
    took us                                  | those that it does not tell yet go on being looked up
    tells a channel again, and nothing that  | that one is not looked up any more; with the last one
    was missed is still to come              | polling has ended
    is lost again                            | after `interval`, as at first
    was given up, or ended by us             | nothing any more

Rules.
1. It counts as polling with the first answer: where HTTP does not work either there is an outage, and nothing to tell.
2. A channel is looked up every `interval` seconds, and more and more seldom while it brings nothing, up to SLOWEST
   times that. All of one connection together keep below what a server grants (contract, 3), at most AT_ONCE at a time.
3. What fails is tried again by who asks (`catching_up`), and until then nothing else is asked: a server that is away
   hears of AT_ONCE channels and their back-off, and one that says when to come again (Retry-After) is obeyed. Only a
   500 is taken for a matter of that channel alone.
4. A refusal for good is not believed for good: it may be that of something in between. Such a channel is looked up
   every REFUSED seconds.
5. While the network is known to be away one channel is looked up every RECHECK seconds: somebody has to find out that
   it is back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from ..core.clock import Random
from ..core.errors import StatusError
from .pace import Pace
from .subscription import Step, Subscription

INTERVAL = 3.0
"""Seconds between two looks at a channel in which something happens."""

SLOWEST = 5.0
"""How many times as long it takes at most where nothing happens: 15 s."""

SLOWER = 1.5
"""By how much it takes longer after each look that brought nothing."""

A_MINUTE, BURST = 120, 10
"""Looks of all channels together. The server grants 180 histories a minute; it counts them by channel, but another one,
or something in between, may not."""

AT_ONCE = 2
"""Looks under way: as many as there are threads for them."""

RECHECK = 10.0
"""The pace of the network's own probe."""

REFUSED = 60.0
"""The pace at which a quiet channel is checked."""

log = logging.getLogger("chatsdk.realtime")


class _Row:
    """A channel that is looked up. at: when next; wait: how long after the last time; asked: it is under way;
    answered, refused: it ever was."""

    __slots__ = ("answered", "asked", "at", "refused", "subscription", "wait")

    def __init__(self, subscription: Subscription, at: float, wait: float) -> None:
        self.subscription = subscription
        self.at = at
        self.wait = wait
        self.asked = False
        self.answered = False
        self.refused = False

    @property
    def wanted(self) -> bool:
        """Whether a look would find anything out."""
        subscription, order = self.subscription, self.subscription.order
        busy = self.asked or subscription.locating or order.filling or order.stopped
        return not (busy or subscription.step is Step.HEARD)


class Polling:
    """One connection's. Used by the thread that reads.

    interval  see above; 0: never
    offline   whether the network is known to be away
    changed   told when polling begins (True) and when it has ended
    """

    def __init__(
        self,
        interval: float,
        *,
        random: Random,
        offline: Callable[[], bool],
        changed: Callable[[bool], object],
    ) -> None:
        self._interval = interval
        self._random = random
        self._offline = offline
        self._changed = changed
        self._pace = Pace(A_MINUTE / 60, BURST)
        self._rows: dict[Subscription, _Row] = {}
        self._away_since: float | None = None
        self._begun = False
        self._asked_at = float("-inf")
        self.told = False
        """It polls, and that was told."""
        self.polls = 0
        """How often a channel was looked up."""

    # ---- the websocket

    def away(self, now: float) -> None:
        """It is not had."""
        if self._away_since is None:
            self._away_since = now

    def here(self) -> None:
        """It has taken us."""
        self._away_since = None
        self._begun = bool(self._rows)

    def over(self) -> None:
        """It is not wanted any more."""
        self._away_since, self._begun = None, False
        self._rows.clear()
        self._tell()

    # ---- the channels

    @property
    def begins(self) -> float | None:
        """When to `begin`; None: not in sight."""
        if self._begun or self._away_since is None or not self._interval:
            return None
        return self._away_since + self._interval

    def begin(self, subscriptions: Iterable[Subscription], now: float) -> None:
        """Look these up from now on, and all that are added later."""
        self._begun = True
        for subscription in subscriptions:
            self.add(subscription, now)

    def add(self, subscription: Subscription, at: float) -> None:
        """Look this one up too, from then on, if any are."""
        if self._begun and subscription not in self._rows and subscription.channel and subscription.order.ordered:
            self._rows[subscription] = _Row(subscription, at, self._interval)

    def lost(self, subscriptions: Iterable[Subscription], now: float) -> None:
        """The websocket was lost. Where some are still looked up, so are these, when that would begin."""
        self.away(now)
        for subscription in subscriptions:
            self.add(subscription, now + self._interval)

    def drop(self, subscription: Subscription) -> None:
        """This one is told again, or is of no interest any more."""
        if self._rows and self._rows.pop(subscription, None) is not None:
            if not self._rows and self._away_since is None:
                self._begun = False
            self._tell()

    def hurry(self, subscription: Subscription, now: float) -> None:
        """There is something to be had in this one."""
        row = self._rows.get(subscription)
        if row is not None:
            row.at, row.wait = now, self._interval

    def covers(self, subscription: Subscription) -> bool:
        """It is looked up, with success."""
        row = self._rows.get(subscription)
        return row is not None and row.answered

    def __bool__(self) -> bool:
        """Whether any channel is looked up."""
        return bool(self._rows)

    # ---- looking

    def next_due(self, now: float) -> float | None:
        """When to call `due`; None: not before something else happened."""
        soonest = min((row.at for row in self._rows.values() if row.wanted), default=None)
        if soonest is None or self._asked >= AT_ONCE:
            return None
        soonest = max(soonest, self._pace.next(now))
        if self._offline():
            return None if self._asked else max(soonest, self._asked_at + RECHECK)
        return soonest

    def due(self, now: float) -> list[Subscription]:
        """Those to be looked up now."""
        found = []
        for row in sorted((row for row in self._rows.values() if row.at <= now), key=lambda row: row.at):
            due = self.next_due(now)
            if due is None or due > now:
                break
            if row.wanted and self._pace.take(now):
                row.asked, self._asked_at = True, now
                self.polls += 1
                found.append(row.subscription)
        return found

    def answers(self, subscription: Subscription) -> bool:
        """An answer has come; whether it is the first one for this channel. One that catches up on a channel that is
        heard is none: what is over by now was an outage, of HTTP as well."""
        row = self._rows.get(subscription)
        if row is None or row.answered or subscription.step is Step.HEARD:
            return False
        row.answered = True
        self._tell()
        return True

    def looked(self, subscription: Subscription, news: bool, now: float) -> None:
        """All of the answer was taken. news: it brought something."""
        row = self._rows.get(subscription)
        if row is not None:
            row.asked = False
            row.wait = self._interval if news else min(row.wait * SLOWER, self._interval * SLOWEST)
            row.at = now + row.wait * (0.9 + 0.2 * self._random())

    def failed(self, subscription: Subscription, error: BaseException, until: float, now: float) -> float:
        """It should be tried again then; when it will be."""
        row = self._rows.get(subscription)
        if row is None:
            return until
        if isinstance(error, StatusError) and error.status == 500:
            row.asked = False
            return until
        if self._offline():
            until = max(until, now + RECHECK)
        self._pace.hold(until)
        return until

    def refused(self, subscription: Subscription, error: BaseException, now: float) -> bool:
        """The answer was a no for good. False: it is not looked up, and that counts."""
        if subscription.step is Step.HEARD:
            return False
        row = self._rows.get(subscription)
        if row is not None:
            if not row.refused:
                log.warning("channel %s cannot be polled: %s", subscription.channel, error)
            row.asked, row.refused, row.at = False, True, now + REFUSED
        return True

    @property
    def _asked(self) -> int:
        return sum(row.asked for row in self._rows.values())

    def _tell(self) -> None:
        polls = any(row.answered for row in self._rows.values())
        if polls != self.told:
            self.told = polls
            self._changed(polls)
