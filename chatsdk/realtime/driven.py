"""A protocol object that drives the subscriptions as well: its next due time is the sooner of both, and what is due is
what both say. So the thread that reads waits for one time only, and the connection knows nothing of channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.protocols.outputs import Close, Output, Position, RealtimeProtocol
from ..core.tokens import Secret
from .subscriptions import Subscriptions


class Driven:
    """`RealtimeProtocol`, once more."""

    def __init__(self, protocol: RealtimeProtocol, subscriptions: Subscriptions) -> None:
        self._protocol = protocol
        self._subscriptions = subscriptions
        self.subprotocols: Sequence[str] = protocol.subprotocols
        self.receive = protocol.receive  # as it is: these two are called for everything that comes
        self.receive_all = protocol.receive_all
        self.heard = protocol.heard

    def next_due(self) -> float | None:
        """The sooner of both."""
        ours, theirs = self._subscriptions.next_due(), self._protocol.next_due()
        return min(ours, theirs) if ours is not None and theirs is not None else ours if theirs is None else theirs

    def due(self, now: float) -> list[Output]:
        """What both have to say."""
        theirs = self._protocol.next_due()
        outputs = list(self._protocol.due(now)) if theirs is not None and theirs <= now else []
        return outputs + self._subscriptions.work(self._protocol, now)

    def opened(self, token: Secret | None, now: float) -> list[Output]:
        """See `RealtimeProtocol`, as for all below."""
        return self._protocol.opened(token, now)

    def closed(self, code: int, reason: str) -> Close:
        """The server closed."""
        return self._protocol.closed(code, reason)

    def subscribe(self, stream: str, token: Secret | None, position: Position | None, now: float) -> list[Output]:
        """Ask for a stream."""
        return self._protocol.subscribe(stream, token, position, now)

    def unsubscribe(self, stream: str, now: float) -> list[Output]:
        """Stop hearing a stream."""
        return self._protocol.unsubscribe(stream, now)

    def renew(self, stream: str | None, token: Secret, now: float) -> list[Output]:
        """A fresh token."""
        return self._protocol.renew(stream, token, now)

    def typing(self, stream: str, user: str, typing: bool, now: float) -> list[Output] | None:
        """A typing signal."""
        return self._protocol.typing(stream, user, typing, now)

    def request(self, method: str, params: Mapping[str, Any], now: float) -> tuple[int, list[Output]]:
        """Another call."""
        return self._protocol.request(method, params, now)
