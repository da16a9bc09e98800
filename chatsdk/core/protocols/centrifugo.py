"""Centrifugo's JSON client protocol, as far as a connection needs it, without a socket or a clock.

Text frames carry messages, one a line. `{"id": n, "<command>": {...}}` goes out; the same, or `error` in its place,
answers it; `{"push": {...}}` comes unasked, and an empty object is the server's ping.

    the connection    | happens                             | then
    ------------------+-------------------------------------+--------------------------------------------------------
    NEW               | opened                              | CONNECTING: `connect` is sent
    CONNECTING        | its answer                          | OPEN: `Opened`, and what was wished for meanwhile is sent
                      | an error; no answer within 5 s      | OVER: `Close`
    OPEN              | silence; a command unanswered;      | OVER: `Close`
                      | a disconnect push                   |
    any               | closed                              | OVER

`centrifugo_streams` has the same table for a stream, and says how recovery is asked for. What a real server calls a bad
request, and answers by closing for good, is never sent: a command before `connect` is answered, a second `connect`, one
without an id or a channel, a pong that no ping asked for, an empty token.

Life is bytes: the server pings every `ping` seconds, and after that and a margin of silence it is gone. A server whose
pings are switched off has to be watched by other means.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any

from ..tokens import Secret
from .centrifugo_codes import Error, on_close, read_code, read_error, read_text
from .centrifugo_commands import REQUESTS, Commands, check_request, in_frames
from .centrifugo_read import MAX_OFFSET, Object, read_presence, read_publication
from .centrifugo_streams import About, Step, Streams, Wish
from .decode import MAX_FRAME, decode, pieces
from .outputs import (
    Close,
    Heartbeat,
    Joined,
    Left,
    Malformed,
    Opened,
    Output,
    Position,
    Published,
    Replied,
    Send,
    SubscribeFailed,
)
from .renewals import Renewals, expires, read_seconds

MARGIN = 10.0
"""Seconds past the server's ping interval; what the makers' own clients allow."""

COMMAND_TIMEOUT = 5.0
"""Seconds that an answer may take; what the makers' own clients allow."""

TIMED_OUT = 1
NOT_CONNECTED = 2
"""Codes of `Replied` that no server gave: those below 100 are the client's own."""

_MAX_PING = 3600.0

_named_tuple = tuple.__new__  # a named tuple's own __new__ does the same in twice the time


class _Phase(IntEnum):
    NEW = 0
    CONNECTING = 1
    OPEN = 2
    OVER = 3


class Centrifugo:
    """One connection. `margin`, `command_timeout`: seconds; `max_frame`: bytes."""

    subprotocols: Sequence[str] = ("centrifuge-json",)

    def __init__(
        self, *, margin: float = MARGIN, command_timeout: float = COMMAND_TIMEOUT, max_frame: int = MAX_FRAME
    ) -> None:
        self._margin = margin
        self._max_frame = max_frame
        self._phase = _Phase.NEW
        self._commands: Commands[About] = Commands(command_timeout)
        self._renewals = Renewals()
        self._streams = Streams(self._commands, self._renewals)
        self._held: dict[str, Wish] = {}
        self._heard = 0.0
        self._silence: float | None = None
        self._pong = False

    # ---- the connection

    def opened(self, token: Secret | None, now: float) -> list[Output]:
        """Send `connect`. Without a token a server closes for good, so another one is asked for instead."""
        if self._phase is not _Phase.NEW:
            return []
        self._heard = now
        if not token:
            return [self._over(Close(0, "there is no token", fresh_token=True))]
        try:
            text = self._commands.make("connect", {"token": token.reveal()}, None, now)
        except ValueError:
            return [self._over(Close(0, "the token is too long", reconnect=False))]
        self._phase = _Phase.CONNECTING
        return [Send(text)]

    def heard(self, now: float) -> None:
        """Bytes of some other kind came."""
        self._heard = now

    def closed(self, code: int, reason: str) -> Close:
        """The server closed: come back or not. Requests under way get no answer any more."""
        return self._over(on_close(code, reason))

    def next_due(self) -> float | None:
        """When to call `due`, at the latest."""
        if self._phase is _Phase.OVER:
            return None
        soonest = self._commands.next_due()
        if self._silence is not None and (soonest is None or self._heard + self._silence < soonest):
            soonest = self._heard + self._silence
        renewal = self._renewals.next_due
        if renewal is not None and (soonest is None or renewal < soonest):
            return renewal
        return soonest

    def due(self, now: float) -> list[Output]:
        """Commands that took too long, a silent server, tokens that run out. Whatever has come by `now` must have been
        given to `receive` before."""
        if self._phase is _Phase.OVER:
            return []
        outputs: list[Output] = []
        while (late := self._commands.overdue(now)) is not None:
            number, asked = late
            if asked.method in REQUESTS:
                outputs.append(Replied(number, None, TIMED_OUT, "no answer in time"))
            elif asked.method not in ("refresh", "sub_refresh"):
                return [*outputs, self._over(Close(0, f"no answer to {asked.method}"))]
            elif asked.about is None or self._streams.is_heard(asked.about):
                self._renewals.unclear(_name(asked.about), now)
        if self._silence is not None and now >= self._heard + self._silence:
            return [*outputs, Heartbeat(None, ok=False), self._over(Close(0, "no ping from the server"))]
        outputs += self._renewals.due(now)
        return outputs

    def _over(self, close: Close) -> Close:
        self._phase = _Phase.OVER
        self._streams.known.clear()
        return close

    # ---- wishes

    def subscribe(self, stream: str, token: Secret | None, position: Position | None, now: float) -> list[Output]:
        """Ask for a stream; before the connection is open, as soon as it is."""
        if not stream:
            return [SubscribeFailed(stream, 0, "a stream has a name")]
        wish = Wish(token, position)
        if self._phase is _Phase.OPEN:
            return self._streams.subscribe(stream, wish, now)
        if self._phase is not _Phase.OVER:
            self._held[stream] = wish
        return []

    def unsubscribe(self, stream: str, now: float) -> list[Output]:
        """Stop hearing a stream. Nothing tells that it is done; publications under way may still come."""
        self._held.pop(stream, None)
        return self._streams.unsubscribe(stream, now)

    def renew(self, stream: str | None, token: Secret, now: float) -> list[Output]:
        """Give the server a fresh token, for the connection or for a stream that is heard."""
        about = None if stream is None else self._streams.known.get(stream)
        if self._phase is not _Phase.OPEN:
            return []
        if stream is not None and (about is None or about.by_server or about.step is not Step.HEARD):
            return []
        if not token:
            return [*self._renewals.refused(stream, now)]
        if not self._renewals.begin(stream):
            return []
        method, params = "refresh", {"token": token.reveal()}
        if stream is not None:
            method, params = "sub_refresh", {"channel": stream, **params}
        try:
            return [Send(self._commands.make(method, params, about, now))]
        except ValueError:
            return [*self._renewals.refused(stream, now)]

    def typing(self, stream: str, user: str, typing: bool, now: float) -> list[Output] | None:
        """Nothing: a client may not publish on the ChatSDK server's streams, so it goes over HTTP."""
        return None

    def request(self, method: str, params: Mapping[str, Any], now: float) -> tuple[int, list[Output]]:
        """Another call, see `centrifugo_commands.REQUESTS`. Raises ValueError for what the server would close the
        connection for."""
        check_request(method, params)
        text = self._commands.make(method, params, None, now)
        number = self._commands.last_id
        if self._phase is _Phase.OPEN:
            return number, [Send(text)]
        self._commands.done(number)
        return number, [Replied(number, None, NOT_CONNECTED, "not connected")]

    # ---- what the server says

    def receive(self, frame: bytes | str, now: float) -> list[Output]:
        """The outputs of a frame, in its order; at most one `Malformed`, at the end. Never raises."""
        self._heard = now
        outputs: list[Output] = []
        messages, wrong = decode(frame, self._max_frame, lines=True)
        streams, add = self._streams.known, outputs.append
        for message in messages:
            # The usual publication first, and with as few steps as it can be told by; all else is looked at below.
            try:
                push = message["push"]
                pub = push["pub"]
                stream = push["channel"]
                if stream in streams and len(pub) == 2:
                    offset = pub["offset"]
                    if offset.__class__ is int and 0 < offset <= MAX_OFFSET:
                        add(_named_tuple(Published, (stream, pub["data"], offset, None, None)))
                        continue
            except (KeyError, TypeError):
                pass
            if self._phase is _Phase.OVER:
                break
            complaint = self._message(message, now, outputs)
            if complaint and wrong is None:
                wrong = Malformed(complaint)
        if wrong is not None:
            add(wrong)
        return outputs

    def receive_all(self, frames: Sequence[str], now: float) -> list[Output]:
        """The same for the frames of one read, which is quicker than each by itself."""
        outputs: list[Output] = []
        for piece in pieces(frames):
            together = "\n".join(piece)
            for text in (together,) if len(together) <= self._max_frame else piece:
                outputs += self.receive(text, now)
        return outputs

    def _message(self, message: Any, now: float, outputs: list[Output]) -> str:
        """One message; what is wrong with it, or nothing."""
        if not isinstance(message, dict):
            return "a message that is no object"
        if not message:
            if self._phase is _Phase.OPEN:
                outputs.append(Heartbeat(None))
                if self._pong:
                    outputs.append(Send("{}"))
            return ""
        if "push" in message:
            return self._push(message["push"], now, outputs)
        number = message.get("id")
        asked = self._commands.under_way(number)
        if number is None or asked is None:
            return "an answer to nothing that was asked"
        error = read_error(message["error"]) if "error" in message else None
        result = message.get(asked.method)
        if not isinstance(result, dict):
            if error is None:
                return f"an answer to {asked.method} that is none"  # it stays under way, until its time is over
            result = {}
        self._commands.done(number)
        if asked.method in REQUESTS:
            outputs.append(
                Replied(number, result) if error is None else Replied(number, None, error.code, error.message)
            )
            return ""
        if asked.about is not None and self._streams.known.get(asked.about.name) is not asked.about:
            return ""  # of a subscription that is no more
        if error is not None:
            _REFUSALS[asked.method](self, asked.about, error, now, outputs)
            return ""
        return _ANSWERS[asked.method](self, asked.about, result, now, outputs)

    def _push(self, push: Any, now: float, outputs: list[Output]) -> str:
        if not isinstance(push, dict):
            return "a push that is no object"
        for kind, read in _PUSHES.items():
            value = push.get(kind)
            if isinstance(value, dict):
                name = push.get("channel", "")
                if not isinstance(name, str) or (not name and kind not in _WITHOUT_CHANNEL):
                    return f"a push {kind} without a channel"
                if self._phase is not _Phase.OPEN and kind != "disconnect":
                    return f"a push {kind} before the connection is open"
                return read(self, name, value, now, outputs)
        return "a push of no known kind"

    # ---- answers

    def _connected(self, about: About, result: Object, now: float, outputs: list[Output]) -> str:
        self._phase = _Phase.OPEN
        self._renewals.granted(None, result, now)
        self._pong = result.get("pong") is True
        ping = read_seconds(result.get("ping"), _MAX_PING)
        if ping:
            self._silence = ping + self._margin
        subs = result.get("subs")
        own = {name: sub for name, sub in subs.items() if name and isinstance(sub, dict)} if type(subs) is dict else {}
        outputs.append(Opened(read_text(result.get("client")), read_text(result.get("version")), tuple(own)))
        wrong = ""
        for name, sub in own.items():
            wrong = self._subscribed_by_server(name, sub, now, outputs) or wrong
        held, self._held = self._held, {}
        texts: list[str] = []
        for name, wish in held.items():
            for output in self._streams.subscribe(name, wish, now):
                if isinstance(output, Send):
                    texts.append(output.text)
                else:
                    outputs.append(output)
        outputs += in_frames(texts)
        return wrong

    def _subscribed(self, about: About, result: Object, now: float, outputs: list[Output]) -> str:
        assert about is not None
        subscribed, wrong = self._streams.subscribed(about, result, now)
        outputs += subscribed
        return wrong

    def _left(self, about: About, result: Object, now: float, outputs: list[Output]) -> str:
        assert about is not None
        outputs += self._streams.left(about, now)
        return ""

    def _renewed(self, about: About, result: Object, now: float, outputs: list[Output]) -> str:
        if about is None:
            self._renewals.granted(None, result, now)
        elif about.step is Step.HEARD:
            if expires(result):
                self._renewals.granted(about.name, result, now)
            else:  # so the server answers an expired token, without an error
                outputs += self._renewals.refused(about.name, now)
        return ""

    # ---- refusals

    def _not_connected(self, about: About, error: Error, now: float, outputs: list[Output]) -> None:
        outputs.append(self._over(error.close()))

    def _not_subscribed(self, about: About, error: Error, now: float, outputs: list[Output]) -> None:
        assert about is not None
        outputs += self._streams.refused(about, error, now)

    def _not_left(self, about: About, error: Error, now: float, outputs: list[Output]) -> None:
        outputs.append(self._over(Close(error.code, error.message)))  # nobody knows what is subscribed: begin anew

    def _not_renewed(self, about: About, error: Error, now: float, outputs: list[Output]) -> None:
        if about is not None and about.step is not Step.HEARD:
            return
        if error.again and not error.fresh_token:
            self._renewals.unclear(_name(about), now)
        else:
            outputs += self._renewals.refused(_name(about), now)

    # ---- pushes

    def _published(self, name: str, pub: Object, now: float, outputs: list[Output]) -> str:
        published = read_publication(name, pub)
        if published is None:
            return "a publication whose offset makes no sense"
        outputs.append(published)
        return ""

    def _joined(self, name: str, value: Object, now: float, outputs: list[Output]) -> str:
        return self._presence(Joined, name, value, outputs)

    def _gone(self, name: str, value: Object, now: float, outputs: list[Output]) -> str:
        return self._presence(Left, name, value, outputs)

    def _presence(self, kind: type[Joined] | type[Left], name: str, value: Object, outputs: list[Output]) -> str:
        presence = read_presence(kind, name, value)
        if presence is None:
            return "somebody came or left without saying who"
        outputs.append(presence)
        return ""

    def _unsubscribed(self, name: str, value: Object, now: float, outputs: list[Output]) -> str:
        outputs += self._streams.ended(name, value)
        return ""

    def _subscribed_by_server(self, name: str, value: Object, now: float, outputs: list[Output]) -> str:
        subscribed, wrong = self._streams.begun(name, value)
        outputs += subscribed
        return wrong

    def _disconnected(self, name: str, value: Object, now: float, outputs: list[Output]) -> str:
        outputs.append(self.closed(read_code(value.get("code")), read_text(value.get("reason"))))
        return ""

    def _refreshed(self, name: str, value: Object, now: float, outputs: list[Output]) -> str:
        self._renewals.granted(None, value, now)
        return ""


def _name(about: About) -> str | None:
    return None if about is None else about.name


_Answer = Callable[[Centrifugo, About, Object, float, list[Output]], str]
_Refusal = Callable[[Centrifugo, About, Error, float, list[Output]], None]
_Push = Callable[[Centrifugo, str, Object, float, list[Output]], str]

_ANSWERS: Mapping[str, _Answer] = {
    "connect": Centrifugo._connected,
    "subscribe": Centrifugo._subscribed,
    "unsubscribe": Centrifugo._left,
    "refresh": Centrifugo._renewed,
    "sub_refresh": Centrifugo._renewed,
}
_REFUSALS: Mapping[str, _Refusal] = {
    "connect": Centrifugo._not_connected,
    "subscribe": Centrifugo._not_subscribed,
    "unsubscribe": Centrifugo._not_left,
    "refresh": Centrifugo._not_renewed,
    "sub_refresh": Centrifugo._not_renewed,
}
_PUSHES: Mapping[str, _Push] = {
    "pub": Centrifugo._published,
    "join": Centrifugo._joined,
    "leave": Centrifugo._gone,
    "unsubscribe": Centrifugo._unsubscribed,
    "subscribe": Centrifugo._subscribed_by_server,
    "refresh": Centrifugo._refreshed,
    "disconnect": Centrifugo._disconnected,
}
_WITHOUT_CHANNEL = frozenset({"refresh", "disconnect"})
