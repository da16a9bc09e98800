"""One channel's subscription: what is known of it. `subscriptions` moves it, in the thread that reads."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from ..core.errors import BadRequest, ChatError, Forbidden, NotFound
from ..core.ordering import Delivery, Fetch, Mark, Order
from ..core.realtime_events import RealtimeEvent
from ..core.tokens import Secret
from .dispatch import Lane

WAITING, SUBSCRIBED, FAILED, ENDED = "waiting", "subscribed", "failed", "ended"
"""The states that people see (`SubscriptionStateChanged`)."""


class Step(IntEnum):
    """Where it stands with the server, on this connection.

    IDLE    to be asked for as soon as there is a token
    TOKEN   its token is being fetched, or waits for its turn
    ASKED   the server was asked
    HEARD   publications come
    DOWN    failed or ended: nothing more is done
    HELD    not begun: it waits until handlers are done with what an earlier subscription of the channel brought
    """

    IDLE = 0
    TOKEN = 1
    ASKED = 2
    HEARD = 3
    DOWN = 4
    HELD = 5


class ChannelLane(Lane[Delivery]):
    """A channel's queue, which knows whose it is, and whom to tell when its handlers are through."""

    __slots__ = ("drained", "owner")

    def __init__(self, key: str, owner: Subscription, drained: Callable[[Subscription], object]) -> None:
        super().__init__(key)
        self.owner = owner
        self.drained = drained


class Subscription:
    """A channel ("" for the user's own stream) and all that goes with it. Only `state` and `error` may be read by other
    threads."""

    __slots__ = (
        "before",
        "channel",
        "checkable",
        "error",
        "events",
        "failures",
        "fetch",
        "fetch_failures",
        "fetching",
        "heard",
        "kept",
        "lane",
        "locate_at",
        "locating",
        "order",
        "out",
        "renewing",
        "state",
        "step",
        "stream",
        "token",
        "token_asked",
        "token_until",
        "touched",
    )

    def __init__(self, channel: str, key: str, order: Order, drained: Callable[[Subscription], object]) -> None:
        self.channel = channel
        self.order = order
        self.lane = ChannelLane(key, self, drained)
        self.stream = ""
        self.state = WAITING
        self.error: ChatError | None = None
        self.step = Step.IDLE
        self.failures = 0  # of its token or of the server's, in a row
        self.heard = 0.0
        self.token: Secret | None = None
        self.token_until = 0.0
        self.token_asked = False
        self.renewing = False
        self.locating = False
        self.locate_at: float | None = None  # when that is tried again; None: it is under way, if it is
        self.fetch: Fetch | None = None
        self.fetching = False
        self.fetch_failures = 0
        self.checkable = True  # its history may be read
        # of the read under way
        self.events: list[RealtimeEvent] = []
        self.out: list[Delivery] = []
        self.before: Mark = (None, None, "")
        self.touched = False
        self.kept: list[Delivery] = []  # what its lane refused and nobody else can bring again

    def mark_of(self, accepted: int, out: list[Delivery]) -> Mark:
        """Where the order stands if only so many of `out` were taken."""
        for event, seq, offset, epoch in reversed(out[:accepted]):
            if isinstance(event, RealtimeEvent):
                return seq, offset, epoch
        return self.before


def too_many(limit: int) -> ChatError:
    """The error of a channel beyond what a connection may carry."""
    return ChatError(
        f"a connection carries {limit} channels at most",
        code="channel_limit",
        hint="unsubscribe from others, use a second client for the rest, or have the operator raise the realtime"
        " server's client_channel_limit (and pass the same number here)",
    )


def refusal(code: int, message: str, limit: int) -> ChatError:
    """What a server's refusal of a stream means."""
    text = message or f"the realtime server refused the channel ({code})"
    if code == 106:
        return too_many(limit)
    if code in (103, 403):
        return Forbidden(text, status=403)
    if code in (102, 404):
        return NotFound(text, status=404)
    return BadRequest(text, status=400, code="refused", hint="see the realtime server's log for the reason")
