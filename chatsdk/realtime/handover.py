"""From the orders of the channels to the handlers: all deliveries of a read at once, and what becomes of those that a
full lane refuses. Used by the thread that reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..core.errors import ChatError
from ..core.ordering import Delivery, Wish
from ..core.realtime_events import RealtimeEvent, SubscriptionStateChanged
from .dispatch import Dispatch
from .subscription import SUBSCRIBED, ChannelLane, Subscription


class Handover:
    """One connection's.

    serve    called with each wish of a subscription's order
    settled  called with each subscription that was touched, once its deliveries are handed over
    """

    def __init__(
        self,
        user: str,
        dispatch: Dispatch[Delivery],
        serve: Callable[[Subscription, Wish], object],
        settled: Callable[[Subscription], object],
    ) -> None:
        self._user = user
        self._dispatch = dispatch
        self._serve = serve
        self._settled = settled
        self._touched: list[Subscription] = []

    def touch(self, subscription: Subscription) -> list[Delivery]:
        """Where its deliveries of this read go."""
        if not subscription.touched:
            subscription.touched = True
            subscription.before = subscription.order.mark()
            self._touched.append(subscription)
        return subscription.out

    def flush(self) -> None:
        """All deliveries of this read to the handlers, at once."""
        touched, self._touched = self._touched, []
        if not touched:
            return
        batch = []
        for each in touched:
            out, each.out, each.touched = each.out, [], False
            if out:
                batch.append((each.lane, out))
        for lane, refused in self._dispatch.put(batch) if batch else ():
            assert isinstance(lane, ChannelLane)
            out = next(put for mine, put in batch if mine is lane)
            lane.owner.order.refused(refused, lane.owner.mark_of(len(out) - len(refused), out))
            _keep(lane.owner, refused)
        for each in touched:
            order = each.order
            if order.wishes:
                wishes, order.wishes = order.wishes, []
                for wish in wishes:
                    self._serve(each, wish)
            self._settled(each)

    def resume(self, subscription: Subscription, now: float) -> None:
        """Its handlers, which fell behind, are through: what was refused comes again, or is told to be missing."""
        self._dispatch.resume(subscription.lane)
        out = self.touch(subscription)
        kept, subscription.kept = subscription.kept, []
        out += kept
        subscription.order.drained(now, out)

    def tell(self, subscription: Subscription, state: str) -> None:
        """It is in another state, and that is told in its place among its events."""
        if subscription.state == state:
            return
        subscription.state = state
        out = self.touch(subscription)
        out.append(self._told(subscription))

    def fail(self, subscription: Subscription, error: ChatError, state: str) -> None:
        """The same, at once, for one that never began."""
        subscription.error, subscription.state = error, state
        self._dispatch.put([(subscription.lane, [self._told(subscription)])])

    def _told(self, subscription: Subscription) -> Delivery:
        event = SubscriptionStateChanged(
            user=self._user, channel=subscription.channel, state=subscription.state, error=subscription.error
        )
        if subscription.state is SUBSCRIBED and subscription.channel:
            return (event, *subscription.order.mark())  # from here on nothing is missed, also after a crash
        return event, None, None, ""


def _keep(subscription: Subscription, refused: Sequence[Delivery]) -> None:
    """What nobody brings again: states (the last one) and gaps (as many as there are, which are few)."""
    for event, *_ in refused:
        if isinstance(event, SubscriptionStateChanged):
            subscription.kept = [each for each in subscription.kept if type(each[0]) is not type(event)]
        if not isinstance(event, RealtimeEvent):
            subscription.kept.append((event, None, None, ""))
