"""Has done over HTTP what a channel's order wishes for, again and again until it is done or refused for good.

Used by the thread that reads. One page of a channel is under way at most, so what is read ahead is bounded.

A refusal for good is one only where the stream itself is heard. While it is not (`polling`), nothing is lost by it yet.
"""

from __future__ import annotations

from collections.abc import Callable

from ..core.backend import Backend
from ..core.clock import Clock, Random
from ..core.errors import ChatError
from ..core.ordering import Delivery, Fetch
from .backfill import Ask, History, Page, again_in, is_final
from .polling import Polling
from .stream_tokens import Errand, Later
from .subscription import Step, Subscription


class CatchingUp:
    """One connection's.

    touch      gives the list for a subscription's deliveries
    hand_over  hands them to the handlers, so that it is known whether they were taken
    located    called when it is known where a subscription stands, or that nobody can tell for now
    answers    called with each answer before it is taken
    polling    told what came of it
    """

    def __init__(
        self,
        user: str,
        backend: Backend,
        ask: Ask,
        *,
        errand: Errand,
        later: Later,
        touch: Callable[[Subscription], list[Delivery]],
        hand_over: Callable[[], object],
        located: Callable[[Subscription], object],
        answers: Callable[[Subscription], object],
        polling: Polling,
        clock: Clock,
        random: Random,
    ) -> None:
        self._user = user
        self._backend = backend
        self._history = History(backend, user, ask)
        self._errand = errand
        self._later = later
        self._touch = touch
        self._hand_over = hand_over
        self._told_where = located
        self._answers = answers
        self._polling = polling
        self._clock = clock
        self._random = random

    # ---- backfills

    def fetch(self, subscription: Subscription, wish: Fetch) -> None:
        """This, in place of what was to be fetched before."""
        subscription.fetch, subscription.fetch_failures = wish, 0
        self._fetch(subscription)

    def _fetch(self, subscription: Subscription) -> None:
        wish = subscription.fetch
        if wish is None or subscription.fetching:
            return
        subscription.fetching = self._errand(
            lambda: self._history.after(subscription.channel, wish.after),
            lambda page, now: self._page_came(subscription, wish, page, now),
            lambda error, now: self._page_failed(subscription, wish, error, now),
        )

    def _page_came(self, subscription: Subscription, wish: Fetch, page: Page, now: float) -> None:
        subscription.fetching = False
        if subscription.step is Step.DOWN:
            return
        if subscription.fetch is wish:
            subscription.fetch, subscription.fetch_failures = None, 0
            at, channel = self._clock.time(), subscription.channel
            events = [
                self._backend.event_of(message, user=self._user, channel=channel, at=at) for message in page.messages
            ]
            order = subscription.order
            self._answers(subscription)
            order.filled(wish.turn, events, page.more, page.newest, now, self._touch(subscription))
            self._hand_over()
            if page.more and order.filling and order.turn == wish.turn:
                subscription.fetch = Fetch(page.last, wish.turn)
        if subscription.fetch is None:
            self._polling.looked(subscription, bool(page.messages), now)
        self._fetch(subscription)

    def _page_failed(self, subscription: Subscription, wish: Fetch, error: BaseException, now: float) -> None:
        subscription.fetching = False
        if subscription.step is Step.DOWN:
            return
        if subscription.fetch is not wish:
            self._fetch(subscription)
        elif is_final(error) and self._polling.refused(subscription, error, now):
            subscription.fetch = None
            subscription.order.unasked(wish.turn, now, self._touch(subscription))
        elif is_final(error):
            subscription.fetch, subscription.checkable = None, False
            said = error.message if isinstance(error, ChatError) else type(error).__name__
            reason = f"the channel's history cannot be read: {said}"
            subscription.order.unfilled(wish.turn, reason, now, self._touch(subscription))
        else:
            self._later(self._again_at(subscription, error, now), lambda _: self._fetch(subscription))

    def _again_at(self, subscription: Subscription, error: BaseException, now: float) -> float:
        subscription.fetch_failures += 1
        until = now + again_in(error, subscription.fetch_failures, self._random())
        return self._polling.failed(subscription, error, until, now)

    # ---- where a channel stands

    def locate(self, subscription: Subscription) -> None:
        """Ask for its newest seq, now: whoever asked in vain before waits no longer for his next try."""
        if not subscription.locating or subscription.locate_at is not None:
            subscription.locate_at = None
            subscription.locating = self._errand(
                lambda: self._history.newest(subscription.channel),
                lambda newest, now: self._located(subscription, newest, now),
                lambda error, now: self._not_located(subscription, error, now),
            )

    def _located(self, subscription: Subscription, newest: int | None, now: float) -> None:
        subscription.locating = False
        if subscription.step is Step.DOWN:
            return
        subscription.order.located(newest, now, self._touch(subscription))
        if subscription.order.ordered:
            subscription.fetch_failures = 0
            self._answers(subscription)
            self._polling.looked(subscription, False, now)
        self._told_where(subscription)

    def _not_located(self, subscription: Subscription, error: BaseException, now: float) -> None:
        if is_final(error) and self._polling.refused(subscription, error, now):
            subscription.locating = False
        elif is_final(error):
            subscription.checkable = False
            self._located(subscription, None, now)
        elif subscription.step is Step.DOWN or subscription.order.seq is not None:
            self._located(subscription, None, now)
        else:
            until = subscription.locate_at = self._again_at(subscription, error, now)
            self._later(until, lambda _: self._relocate(subscription, until))
            self._told_where(subscription)  # what comes is heard all the same

    def _relocate(self, subscription: Subscription, until: float) -> None:
        if subscription.locate_at == until:
            self.locate(subscription)
