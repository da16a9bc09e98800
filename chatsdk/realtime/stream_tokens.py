"""The tokens that streams are subscribed with: fetched at the pace at which the server gives them out, and kept while
they are valid. Renewals come before new ones, because they keep what there is. Used by the thread that reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ..core.clock import Clock, Random
from ..core.errors import ChatError, RateLimited
from ..core.tokens import Secret
from .backfill import again_in, is_final
from .pace import Pace
from .subscription import Step, Subscription

A_MINUTE = 60
"""Subscription tokens that the server gives out, as many at once (contract, 3)."""

LIFE = 840.0
"""Seconds for which a subscription token is used again: the server's 900, less a minute."""

AT_ONCE = 2
"""Subscription tokens that are fetched at once."""


class Errand(Protocol):
    """Has `work` done elsewhere; what comes of it is told in the thread that reads. False: it will not be."""

    def __call__(
        self,
        work: Callable[[], Any],
        answered: Callable[[Any, float], object],
        failed: Callable[[BaseException, float], object],
        /,
    ) -> bool: ...


Later = Callable[[float, Callable[[float], object]], object]
"""Has a function called at a time, in the thread that reads."""


class StreamTokens:
    """One connection's.

    ask       fetches a subscription's token; may block, raises ChatError
    granted   (subscription, token, renewal or not) when it came
    refused   (subscription, error) when there will be none
    """

    def __init__(
        self,
        ask: Callable[[Subscription], Secret],
        *,
        errand: Errand,
        later: Later,
        granted: Callable[[Subscription, Secret, bool], object],
        refused: Callable[[Subscription, ChatError], object],
        clock: Clock,
        random: Random,
        a_minute: int = A_MINUTE,
        life: float = LIFE,
    ) -> None:
        self._ask = ask
        self._errand = errand
        self._later = later
        self._granted = granted
        self._refused = refused
        self._clock = clock
        self._random = random
        self._life = life
        self._pace = Pace(a_minute / 60.0, a_minute)
        self._waiting: deque[Subscription] = deque()
        self._under_way = 0

    def want(self, subscription: Subscription, *, renew: bool = False, refused: bool = False) -> None:
        """A new token is needed; `refused`: the server did not like the one there is."""
        if refused:
            subscription.token = None
        subscription.renewing = subscription.renewing or renew
        if not subscription.token_asked:
            subscription.token_asked = True
            self._waiting.appendleft(subscription) if renew else self._waiting.append(subscription)

    def next_due(self) -> float | None:
        """When to call `fetch`."""
        if not self._waiting or self._under_way >= AT_ONCE:
            return None
        return self._pace.next(self._clock.monotonic())

    def fetch(self, now: float) -> None:
        """Fetch what may be fetched now."""
        while self._waiting and self._under_way < AT_ONCE:
            if self._waiting[0].step is Step.DOWN:
                self._waiting.popleft().token_asked = False
            elif self._pace.take(now):
                self._fetch(self._waiting.popleft())
            else:
                return

    def _fetch(self, subscription: Subscription) -> None:
        if self._errand(
            lambda: self._ask(subscription),
            lambda token, now: self._came(subscription, token, now),
            lambda error, now: self._failed(subscription, error, now),
        ):
            self._under_way += 1
        else:
            subscription.token_asked = False

    def _came(self, subscription: Subscription, token: Secret, now: float) -> None:
        self._under_way -= 1
        subscription.token_asked, subscription.failures = False, 0
        subscription.token, subscription.token_until = token, now + self._life
        renewing, subscription.renewing = subscription.renewing, False
        self._granted(subscription, token, renewing)

    def _failed(self, subscription: Subscription, error: BaseException, now: float) -> None:
        self._under_way -= 1
        if is_final(error):
            subscription.token_asked = False
            self._refused(subscription, error if isinstance(error, ChatError) else ChatError(type(error).__name__))
            return
        subscription.failures += 1
        until = now + again_in(error, subscription.failures, self._random())
        if isinstance(error, RateLimited):
            self._pace.hold(until)
        self._later(until, lambda _: self._waiting.append(subscription))
