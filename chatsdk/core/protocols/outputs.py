"""The seam between a realtime protocol and the thread that drives it.

A protocol object is told what happened (`opened`, `receive`, `due`, a user's wish) and answers with a list of outputs:
what is to be sent, what a server said, what is needed. It never raises out of `receive`: a frame that makes no sense is
an output as well (`Malformed`). Positions and tokens are handed in; it keeps no history.

A stream is a channel by the realtime server's name ("chat:<app>:<channel id>"). Times are monotonic seconds.
Outputs are named tuples where a read may bring thousands of them: nothing is cheaper to make.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from ..tokens import Secret


class Position(NamedTuple):
    """Where in a stream one stands: everything up to `offset` of `epoch` is known."""

    offset: int
    epoch: str


# ---- for the connection itself


class Send(NamedTuple):
    """Send this text frame."""

    text: str


class Ping(NamedTuple):
    """Send a ping frame: whatever speaks WebSocket answers it (RFC 6455, 5.5.2), whichever protocol it speaks."""


class Close(NamedTuple):
    """End the connection: `reconnect` or stay away. `code` is the server's (or 0: found out here, such as a missed
    heartbeat); `fresh_token`: the old one is of no use."""

    code: int
    reason: str
    reconnect: bool = True
    fresh_token: bool = False


class Opened(NamedTuple):
    """The server takes us: from now on the connection counts as connected. `streams`: those that the server
    subscribed by itself."""

    client: str
    version: str = ""
    streams: Sequence[str] = ()


class TokenWanted(NamedTuple):
    """The connection's token (stream None) or a stream's runs out: answer with `renew`. `refused`: the last one was
    no good, so not that one again."""

    stream: str | None
    refused: bool = False


class Heartbeat(NamedTuple):
    """What a heartbeat says of the network: `latency`, seconds until the answer to a ping of ours, None: not known
    (the server pinged). `ok` False: what was due did not come."""

    latency: float | None
    ok: bool = True


# ---- for the subscriptions


class Published(NamedTuple):
    """A publication. `offset` None: the stream has no history. `data` is whatever JSON the publisher gave."""

    stream: str
    data: Any
    offset: int | None = None
    epoch: str | None = None
    info: Mapping[str, Any] | None = None


class Subscribed(NamedTuple):
    """We hear a stream now. `recovered`: everything since the position that was given comes as `Published`, right
    after this; else what was missed must be fetched elsewhere. `position`: where the stream stands once those are
    taken, and from where on publications come; None where the server does not say. `asked`: a position was given."""

    stream: str
    recovered: bool = False
    position: Position | None = None
    asked: bool = False
    by_server: bool = False


class SubscribeFailed(NamedTuple):
    """The server refused. `again`: later (`fresh_token`: with another token), else for good."""

    stream: str
    code: int
    message: str
    again: bool = False
    fresh_token: bool = False


class Unsubscribed(NamedTuple):
    """The stream ended. `again`: subscribe again (`fresh_token`: its token ran out), else stay out."""

    stream: str
    code: int
    reason: str
    again: bool = False
    fresh_token: bool = False


class Joined(NamedTuple):
    """Somebody came to the stream."""

    stream: str
    user: str
    client: str
    info: Mapping[str, Any]


class Left(NamedTuple):
    """Somebody left the stream."""

    stream: str
    user: str
    client: str
    info: Mapping[str, Any]


class Replied(NamedTuple):
    """The answer to a `request`: `result`, or an error's code and message."""

    id: int
    result: Any
    code: int = 0
    message: str = ""


class Malformed(NamedTuple):
    """A frame, or a part of one, that makes no sense. It was passed over; `reason` quotes nothing of it but its
    size and what was wrong."""

    reason: str


Output: TypeAlias = (
    Send
    | Ping
    | Close
    | Opened
    | TokenWanted
    | Heartbeat
    | Published
    | Subscribed
    | SubscribeFailed
    | Unsubscribed
    | Joined
    | Left
    | Replied
    | Malformed
)


class RealtimeProtocol(Protocol):
    """One connection's protocol. A new object for each socket."""

    subprotocols: Sequence[str]
    """What is asked for in the handshake."""

    def opened(self, token: Secret | None, now: float) -> list[Output]:
        """The socket is open and the handshake done."""
        ...

    def receive(self, frame: bytes | str, now: float) -> list[Output]:
        """A text frame came. Never raises."""
        ...

    def receive_all(self, frames: Sequence[str], now: float) -> list[Output]:
        """The text frames of one read, in order: the same as `receive` for each, only quicker. Never raises."""
        ...

    def heard(self, now: float) -> None:
        """Bytes of some other kind came (a ping frame, a part of a message): the peer lives."""
        ...

    def due(self, now: float) -> list[Output]:
        """The time of `next_due` has come."""
        ...

    def next_due(self) -> float | None:
        """When to call `due`, at the latest."""
        ...

    def closed(self, code: int, reason: str) -> Close:
        """The server closed with this code (1006: without one): come back or not."""
        ...

    def subscribe(self, stream: str, token: Secret | None, position: Position | None, now: float) -> list[Output]:
        """Ask for a stream; `position`: what is already known of it."""
        ...

    def unsubscribe(self, stream: str, now: float) -> list[Output]:
        """Stop hearing a stream."""
        ...

    def renew(self, stream: str | None, token: Secret, now: float) -> list[Output]:
        """The answer to `TokenWanted`."""
        ...

    def typing(self, stream: str, user: str, typing: bool, now: float) -> list[Output] | None:
        """A typing signal as a frame; None: it has to go over HTTP."""
        ...

    def request(self, method: str, params: Mapping[str, Any], now: float) -> tuple[int, list[Output]]:
        """Another call ("publish", "history", "presence", "presence_stats", "rpc"); answered by `Replied` with this
        id. Raises ValueError for a method that the protocol does not have."""
        ...
