"""The plain JSON protocol of seed 004, without a socket or a clock: one object with a `type` in each text frame.

    we send                                              the server
    {"type": "ping"} at once, and after 30 s of silence  {"type": "pong"} within 10 s; any other bytes are life as well
    {"type": "pong"}                                     to its {"type": "ping"}
    {"type": "subscribe", "conversation_id": C}          {"type": "subscribed", "conversation_id": C}, or an error
    {"type": "unsubscribe", "conversation_id": C}        perhaps {"type": "unsubscribed", ...}
    {"type": "typing", "conversation_id": C,             tells the others
     "user_id": U}, with "typing": false at the end

    a stream          | happens                             | then
    ------------------+-------------------------------------+--------------------------------------------------------
    -                 | subscribe                           | ASKED
    - (in the URL)    | opened                              | ASKED, and nothing is sent
    ASKED             | `subscribed`; a frame of it; 2 s    | HEARD: `Subscribed`
                      | `error`                             | -: `SubscribeFailed`
    HEARD             | `unsubscribed`, `error`             | -: `Unsubscribed`
    ASKED, HEARD      | unsubscribe                         | -

The connection is open with the first bytes of the server, whatever they say: a middlebox that lets the handshake
through and swallows all that follows would otherwise look like a server that has nothing to say. A server that knows no
`ping` answers the ping frame that goes with the first one.

A stream is a conversation's id. A server may know no conversation but the URL's and answer nothing to `subscribe`: what
it doesn't refuse within 2 s counts as subscribed. There are no offsets, so nothing is ever recovered: `Subscribed` says
so, and what was missed has to be fetched elsewhere.

Whatever is none of the above is a publication, with the object as it came. One without `conversation_id` belongs to the
connection's only stream, or, where `own` names one, to that unless it is a message or typing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from json import dumps
from typing import Any, NamedTuple

from ..tokens import Secret
from .decode import MAX_FRAME, decode, pieces
from .outputs import (
    Close,
    Heartbeat,
    Malformed,
    Opened,
    Output,
    Ping,
    Position,
    Published,
    Send,
    Subscribed,
    SubscribeFailed,
    Unsubscribed,
)

INTERVAL = 30.0
"""Seconds of silence after which the server is asked for life (seed 004)."""

TIMEOUT = 10.0
"""Seconds that it may take to show some (seed 004)."""

UNANSWERED = 2.0
"""Seconds after which a subscription that nobody answered counts."""

ERRORS: Mapping[str, int] = {"NOT_FOUND": 102, "FORBIDDEN": 103, "LIMIT": 106, "BAD_REQUEST": 107}
"""Codes of an `error` frame, and the numbers that Centrifugo has for the same."""

_FRESH_TOKEN = 4401

_named_tuple = tuple.__new__  # a named tuple's own __new__ does the same in twice the time


class _Row(NamedTuple):
    first: int
    last: int
    again: bool
    fresh_token: bool


CLOSES = (
    _Row(1008, 1008, False, False),  # taken off by the server
    _Row(_FRESH_TOKEN, _FRESH_TOKEN, True, True),
    _Row(4403, 4403, False, False),  # forbidden
    _Row(3500, 3999, False, False),
    _Row(4500, 4999, False, False),
)
"""Close codes. Others (1001 going away, 1006 none, 1011, 1013 too slow): come back."""

_PING = '{"type":"ping"}'
_PONG = '{"type":"pong"}'
_MAX_TEXT = 200


class _Phase(IntEnum):
    NEW = 0
    ASKED = 1  # for the first sign of life
    OPEN = 2
    OVER = 3


_ALIVE = frozenset({_Phase.ASKED, _Phase.OPEN})


class _Step(IntEnum):
    ASKED = 0
    HEARD = 1


class _Stream:
    __slots__ = ("asked", "by_server", "deadline", "step")

    def __init__(self, deadline: float, *, asked: bool = False, by_server: bool = False) -> None:
        self.step = _Step.ASKED
        self.deadline = deadline
        self.asked = asked
        self.by_server = by_server


class PlainJson:
    """One connection. `streams`: the conversations that its URL names; `own`: the stream of what is for the user alone;
    `interval`, `timeout`, `unanswered`: seconds; `max_frame`: bytes."""

    subprotocols: Sequence[str] = ()

    def __init__(
        self,
        streams: Sequence[str] = (),
        *,
        own: str | None = None,
        interval: float = INTERVAL,
        timeout: float = TIMEOUT,
        unanswered: float = UNANSWERED,
        max_frame: int = MAX_FRAME,
    ) -> None:
        self._named = tuple(dict.fromkeys(name for name in streams if name))
        self._own = own
        self._interval = interval
        self._timeout = timeout
        self._unanswered = unanswered
        self._max_frame = max_frame
        self._phase = _Phase.NEW
        self._streams: dict[str, _Stream] = {}
        self._deadlines: dict[str, float] = {}  # of those ASKED; all may take equally long, so the first is due first
        self._left: dict[str, list[float]] = {}  # until when an answer to each `unsubscribe` of ours may come
        self._held: dict[str, bool] = {}
        self._heard = 0.0
        self._pinged: float | None = None  # and nothing was heard since
        self._asked = 0.0  # when, for the latency
        self._answered = True

    # ---- the connection

    def opened(self, token: Secret | None, now: float) -> list[Output]:
        """The handshake's header carried the token; what is left to know is whether frames come through."""
        if self._phase is not _Phase.NEW:
            return []
        self._phase, self._heard = _Phase.ASKED, now
        return [self._ping_now(now), Ping()]

    def _begin(self, now: float) -> list[Output]:
        """They do."""
        self._phase = _Phase.OPEN
        for name in self._named:
            self._await(name, _Stream(now + self._unanswered, by_server=True))
        outputs: list[Output] = [Opened("", "", self._named)]
        held, self._held = self._held, {}
        for name, asked in held.items():
            if name not in self._streams:
                outputs += self._ask(name, asked, now)
        return outputs

    def heard(self, now: float) -> None:
        """Bytes of some other kind came."""
        self._heard, self._pinged = now, None

    def closed(self, code: int, reason: str) -> Close:
        """The server closed: come back or not."""
        self._end()
        for row in CLOSES:
            if row.first <= code <= row.last:
                return Close(code, reason, row.again, row.fresh_token)
        return Close(code, reason)

    def next_due(self) -> float | None:
        """When to call `due`, at the latest."""
        if self._phase not in _ALIVE:
            return None
        if self._comes_through:
            return self._heard
        soonest = self._heard + self._interval if self._pinged is None else self._pinged + self._timeout
        for deadline in self._deadlines.values():
            return min(soonest, deadline)
        return soonest

    def due(self, now: float) -> list[Output]:
        """Subscriptions that nobody answered, and heartbeats. Whatever has come by `now` must have been given to
        `receive` before."""
        outputs: list[Output] = []
        if self._phase not in _ALIVE:
            return outputs
        if self._comes_through:
            outputs += self._begin(now)
        for name in [name for name, deadline in self._deadlines.items() if deadline <= now]:
            outputs.append(self._hear(name))
        if self._pinged is not None:
            if now >= self._pinged + self._timeout:
                self._end()
                outputs += (Heartbeat(None, ok=False), Close(0, "no pong from the server"))
        elif now >= self._heard + self._interval:
            outputs.append(self._ping_now(now))
        return outputs

    @property
    def _comes_through(self) -> bool:
        """Bytes came that were no frame of the protocol, and the connection is not open yet."""
        return self._phase is _Phase.ASKED and self._pinged is None

    def _ping_now(self, now: float) -> Output:
        self._pinged = self._asked = now
        self._answered = False
        return Send(_PING)

    def _end(self) -> None:
        self._phase = _Phase.OVER
        self._streams.clear()
        self._deadlines.clear()
        self._left.clear()

    # ---- wishes

    def subscribe(self, stream: str, token: Secret | None, position: Position | None, now: float) -> list[Output]:
        """Ask for a conversation; before the connection is open, as soon as it is."""
        if not stream:
            return [SubscribeFailed(stream, 0, "a stream has a name")]
        asked = position is not None
        if self._phase is not _Phase.OPEN:
            if self._phase is not _Phase.OVER:
                self._held[stream] = asked
            return []
        known = self._streams.get(stream)
        if known is None:
            return self._ask(stream, asked, now)
        known.asked = asked
        if known.step is _Step.HEARD:
            return [Subscribed(stream, asked=asked, by_server=known.by_server)]
        return []

    def unsubscribe(self, stream: str, now: float) -> list[Output]:
        """Stop hearing a conversation."""
        self._held.pop(stream, None)
        self._deadlines.pop(stream, None)
        if self._streams.pop(stream, None) is None:
            return []
        self._left.setdefault(stream, []).append(now + self._unanswered)
        return [_send("unsubscribe", stream)]

    def renew(self, stream: str | None, token: Secret, now: float) -> list[Output]:
        """Nothing: only a handshake carries a token."""
        return []

    def typing(self, stream: str, user: str, typing: bool, now: float) -> list[Output] | None:
        """A frame that says so."""
        if self._phase is not _Phase.OPEN or not stream:
            return []
        return [
            _send("typing", stream, user_id=user) if typing else _send("typing", stream, user_id=user, typing=False)
        ]

    def request(self, method: str, params: Mapping[str, Any], now: float) -> tuple[int, list[Output]]:
        """Raises ValueError: there are no requests."""
        raise ValueError(f"the plain protocol has no {method!r}")

    def _ask(self, name: str, asked: bool, now: float) -> list[Output]:
        self._await(name, _Stream(now + self._unanswered, asked=asked))
        return [_send("subscribe", name)]

    def _await(self, name: str, stream: _Stream) -> None:
        self._streams[name] = stream
        self._deadlines[name] = stream.deadline

    def _hear(self, name: str) -> Output:
        stream = self._streams[name]
        stream.step = _Step.HEARD
        self._deadlines.pop(name, None)
        return Subscribed(name, asked=stream.asked, by_server=stream.by_server)

    # ---- what the server says

    def receive(self, frame: bytes | str, now: float) -> list[Output]:
        """The outputs of a frame. Never raises."""
        values, wrong = decode(frame, self._max_frame, lines=False)
        return self._take(values, wrong, now)

    def receive_all(self, frames: Sequence[str], now: float) -> list[Output]:
        """The same for the frames of one read, which is quicker than each by itself."""
        outputs: list[Output] = []
        for piece in pieces(frames):
            values, wrong = decode("\n".join(piece), self._max_frame, lines=True)
            if wrong is None and len(values) == len(piece):
                outputs += self._take(values, None, now)
            else:
                for frame in piece:
                    outputs += self.receive(frame, now)
        return outputs

    def _take(self, values: list[Any], wrong: Malformed | None, now: float) -> list[Output]:
        self._heard, self._pinged = now, None
        outputs: list[Output] = []
        if self._phase is not _Phase.OPEN:
            if self._phase is not _Phase.ASKED:
                return outputs
            outputs += self._begin(now)
        streams, add = self._streams, outputs.append
        for value in values:
            try:
                kind = value["type"]
                name = value["conversation_id"]
                if kind not in _CONTROLS and streams[name].step is _Step.HEARD:
                    add(_named_tuple(Published, (name, value, None, None, None)))
                    continue
            except (KeyError, TypeError):
                pass
            complaint = self._frame(value, outputs)
            if complaint and wrong is None:
                wrong = Malformed(complaint)
        if wrong is not None:
            add(wrong)
        return outputs

    def _frame(self, value: Any, outputs: list[Output]) -> str:
        """One frame; what is wrong with it, or nothing."""
        if not isinstance(value, dict):
            return "a frame that is no object"
        kind, name = value.get("type"), value.get("conversation_id")
        control = _CONTROLS.get(kind) if isinstance(kind, str) else None
        if control is not None:
            return control(self, name if isinstance(name, str) else "", value, outputs)
        if name is None:
            name = self._without_name(kind)
        if not isinstance(name, str) or not name:
            return "a frame of no known conversation"
        if name in self._deadlines and not self._is_leaving(name):
            outputs.append(self._hear(name))
        outputs.append(Published(name, value))
        return ""

    def _without_name(self, kind: Any) -> str | None:
        only = next(iter(self._streams)) if len(self._streams) == 1 else None
        if self._own is None or (only is not None and isinstance(kind, str) and kind.startswith(("message", "typing"))):
            return only
        return self._own

    def _ping(self, name: str, value: dict[str, Any], outputs: list[Output]) -> str:
        outputs.append(Send(_PONG))
        return ""

    def _pong(self, name: str, value: dict[str, Any], outputs: list[Output]) -> str:
        if not self._answered:
            self._answered = True
            outputs.append(Heartbeat(max(0.0, self._heard - self._asked)))
        return ""

    def _is_leaving(self, name: str) -> bool:
        """An `unsubscribe` of ours is under way: what comes is about the subscription before it."""
        left = self._left.get(name)
        if left is None:
            return False
        while left and left[0] <= self._heard:  # no answer: a server may give none
            del left[0]
        if not left:
            del self._left[name]
        return bool(left)

    def _subscribed(self, name: str, value: dict[str, Any], outputs: list[Output]) -> str:
        if name in self._deadlines and not self._is_leaving(name):
            outputs.append(self._hear(name))
        return ""

    def _unsubscribed(self, name: str, value: dict[str, Any], outputs: list[Output]) -> str:
        code, reason = value.get("code"), value.get("reason")
        if code is None and self._is_leaving(name):
            del self._left[name][0]
        elif name in self._streams and name not in self._deadlines:  # else it is about one that we left
            del self._streams[name]
            code = code if type(code) is int else 0
            outputs.append(Unsubscribed(name, code, _text(reason), again=code >= 2500, fresh_token=code == 2501))
        return ""

    def _error(self, name: str, value: dict[str, Any], outputs: list[Output]) -> str:
        code, message = value.get("code"), _text(value.get("message"))
        number = ERRORS.get(code, 0) if isinstance(code, str) else code if type(code) is int else 0
        if name in self._deadlines:
            del self._deadlines[name], self._streams[name]
            outputs.append(SubscribeFailed(name, number, message))
        elif name in self._streams and number in (102, 103):
            del self._streams[name]
            outputs.append(Unsubscribed(name, number, message))
        else:
            return f"the server took a frame for an error ({number})"
        return ""


def _send(kind: str, stream: str, **more: Any) -> Send:
    return Send(dumps({"type": kind, "conversation_id": stream, **more}, separators=(",", ":")))


def _text(value: Any) -> str:
    return value[:_MAX_TEXT] if isinstance(value, str) else ""


_CONTROLS: Mapping[str, Callable[[PlainJson, str, dict[str, Any], list[Output]], str]] = {
    "ping": PlainJson._ping,
    "pong": PlainJson._pong,
    "subscribed": PlainJson._subscribed,
    "unsubscribed": PlainJson._unsubscribed,
    "error": PlainJson._error,
}
