"""Realtime for one user: the parts of this package, put together.

    connection -> driven protocol -> subscriptions -> dispatch (handlers) -> cursors
                                          |
                                       errands (tokens, backfills)

What several users of one client share (handler threads, errands, the cursor file) is a `Workshop`. Nothing of the rest
of the client is known here: tokens, HTTP calls and events go through plain callables.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from random import random as system_random
from typing import Any, Literal, TypeAlias

from ..core.backend import Backend
from ..core.backoff import RECONNECTS, Backoff
from ..core.clock import Clock, Random
from ..core.errors import ChatError
from ..core.events import Event
from ..core.exchange import Call
from ..core.ordering import Delivery
from ..core.protocols.centrifugo import Centrifugo
from ..core.protocols.outputs import Output, RealtimeProtocol
from ..core.protocols.plain_json import PlainJson
from ..core.protocols.states import ConnectionState
from ..core.realtime_events import MessageReceived, PollingChanged
from ..core.tokens import Secret
from ..resilience.circuits import Circuit
from ..resilience.process_lock import ProcessLock
from ..resilience.system_clock import SystemClock
from .attempt import Headers
from .connection import Connection
from .cursors import Cursors
from .dial import DialSettings
from .dispatch import Dispatch, Lane
from .driven import Driven
from .errands import Errands
from .pulse import Pulse
from .status import ConnectionMetrics, with_polling
from .subscription import ChannelLane
from .subscriptions import Subscriptions

Kind: TypeAlias = Literal["centrifugo", "json"]
"""The protocol: Centrifugo's, or plain JSON frames."""

HEARTBEAT, HEARTBEAT_TIMEOUT = 30.0, 10.0
"""Seed 004: a ping every 30 s, a pong within 10 s."""

OWN_STREAM = "user"
"""What a plain connection's frames of no conversation are filed under: they are for the user alone."""

log = logging.getLogger("chatsdk.realtime")


class Workshop:
    """What the realtime connections of one client share.

    emit          told of every event, in a handler thread
    cursor_path   the file of cursors; None: in memory
    on_message    called with each `MessageReceived` just before `emit` is, also with those of the user's own: who sent
                  one from here learns that it arrived. It should look at `message_id` first: the rest costs
    leaving       see `Dispatch`
    """

    def __init__(
        self,
        emit: Callable[[Event], object],
        cursor_path: str | os.PathLike[str] | None = None,
        *,
        on_message: Callable[[MessageReceived], object] | None = None,
        leaving: Callable[[BaseException], object] | None = None,
        **dispatch: Any,
    ) -> None:
        self.cursors = Cursors(cursor_path)
        self.errands = Errands()
        if leaving is not None:
            dispatch["leaving"] = leaving
        self.dispatch: Dispatch[Delivery] = Dispatch(
            _handler(emit, on_message), done=_keeper(self.cursors), drained=_tell_owner, **dispatch
        )

    def close(self, timeout: float) -> bool:
        """Begin with no further event or errand, and wait at most `timeout` seconds for those that run; True if none
        does any more."""
        clock = SystemClock()
        end = clock.monotonic() + timeout
        done = self.dispatch.close(timeout)
        done = self.errands.close(max(0.0, end - clock.monotonic())) and done
        self.cursors.close()
        return done


def _handler(
    emit: Callable[[Event], object], on_message: Callable[[MessageReceived], object] | None
) -> Callable[[Delivery], object]:
    def handle(delivery: Delivery) -> None:
        event = delivery[0]
        if on_message is not None and isinstance(event, MessageReceived):
            on_message(event)
        emit(event)

    return handle


def _keeper(cursors: Cursors) -> Callable[[Lane[Delivery], Delivery], object]:
    keep = cursors.set

    def done(lane: Lane[Delivery], delivery: Delivery) -> None:
        _, seq, offset, epoch = delivery
        if lane.key and (seq is not None or offset is not None):
            keep(lane.key, seq, offset, epoch or None)

    return done


def _tell_owner(lane: Lane[Delivery]) -> None:
    assert isinstance(lane, ChannelLane)
    lane.drained(lane.owner)


class Realtime:
    """One user's connection and channels. Thread-safe; nothing is opened before `connect`.

    backend, ask    the chat system, and how its calls are done over HTTP (may block, raises ChatError)
    workshop        what is shared
    kind            the protocol
    ws_token        see `Connection`
    claims          reads what a connection's token says
    heartbeat, heartbeat_timeout   seconds: of silence until the plain protocol asks (Centrifugo's server asks, as often
                    as it says); that an answer, or the server's next question, may be late
    on_connected    called in the reader thread each time the server has taken us; must not block
    on_polling      called there with why there is no websocket when polling begins, and with "" when it has ended
    pulse           told of heartbeats
    The rest is handed on: to `Connection` (url, headers, dial, reconnect, circuit, emit, max_message_bytes,
    open_timeout, close_timeout), and to `Subscriptions` (all others).
    """

    def __init__(
        self,
        user: str,
        url: str | Callable[[], str],
        backend: Backend,
        workshop: Workshop,
        *,
        ask: Callable[[Call[Any]], Any],
        kind: Kind = "centrifugo",
        ws_token: Callable[[bool], Secret | None] | None = None,
        claims: Callable[[Secret], Mapping[str, Any]] = lambda _: {},
        headers: Callable[[Secret | None], Headers] | None = None,
        heartbeat: float = HEARTBEAT,
        heartbeat_timeout: float = HEARTBEAT_TIMEOUT,
        on_connected: Callable[[], object] | None = None,
        on_polling: Callable[[str], object] = lambda _: None,
        pulse: Pulse | None = None,
        emit: Callable[[Event], object] = lambda _: None,
        dial: DialSettings | None = None,
        reconnect: Sequence[Backoff] = RECONNECTS["forever"],
        circuit: Circuit | None = None,
        max_message_bytes: int = 16 * 2**20,
        open_timeout: float = 10.0,
        close_timeout: float = 5.0,
        clock: Clock | None = None,
        random: Random = system_random,
        **subscriptions: Any,
    ) -> None:
        self._user = user
        self._backend = backend
        self._ask = ask
        self._workshop = workshop
        self._kind = kind
        self._ws_token = ws_token
        self._read_claims = claims
        self._claims: Mapping[str, Any] = {}
        self._clock = clock or SystemClock()
        self._random = random
        self._heartbeat = heartbeat, heartbeat_timeout
        self._options = subscriptions
        self._emit = emit
        self._on_polling = on_polling
        self._changing = ProcessLock()
        self._begin()
        self.connection = Connection(
            url,
            self._protocol,
            self._take,
            ws_token=None if ws_token is None else self._token,
            headers=headers,
            errand=self._errand,
            meanwhile=self,
            pulse=pulse,
            dial=dial,
            reconnect=reconnect,
            circuit=circuit,
            emit=emit,
            user=user,
            max_message_bytes=max_message_bytes,
            open_timeout=open_timeout,
            close_timeout=close_timeout,
            clock=self._clock,
            random=random,
        )
        if on_connected is not None:
            connected = on_connected
            self.connection.watch(lambda state: connected() if state is ConnectionState.CONNECTED else None)

    def _begin(self) -> None:
        """As it is in a process that did not use it yet."""
        self._pid = os.getpid()
        centrifugo = self._kind == "centrifugo"
        self._subscriptions = Subscriptions(
            self._user,
            self._backend,
            post=lambda function: self.connection.post(function),
            ask=self._ask,
            dispatch=self._workshop.dispatch,
            errands=self._workshop.errands,
            cursors=self._workshop.cursors,
            claims=lambda: self._claims,
            stream_tokens=centrifugo,
            own_stream=None if centrifugo else OWN_STREAM,
            polls=self._polls,
            clock=self._clock,
            random=self._random,
            **self._options,
        )

    @property
    def subscriptions(self) -> Subscriptions:
        """The channels. A forked child has none: its parent hears them."""
        if self._pid != os.getpid():
            with self._changing:
                if self._pid != os.getpid():
                    polling = self._subscriptions.polling.told
                    self._begin()
                    if polling:  # the parent does
                        self._on_polling("")
        return self._subscriptions

    # ---- what people ask for

    def connect(self, wait: float | None = None) -> bool:
        """See `Connection.connect`."""
        return self.connection.connect(wait)

    def disconnect(self, timeout: float | None = None) -> bool:
        """See `Connection.disconnect`. The channels stay wanted, for the next `connect`."""
        return self.connection.disconnect(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """See `Connection.close`. The workshop is closed by who made it."""
        return self.connection.close(timeout)

    def subscribe(self, channels: str | Iterable[str], since: int | None = None, *, keep: bool = True) -> None:
        """See `Subscriptions.subscribe`."""
        self.subscriptions.subscribe(channels, since, keep=keep)

    def unsubscribe(self, channels: str | Iterable[str]) -> None:
        """See `Subscriptions.unsubscribe`."""
        self.subscriptions.unsubscribe(channels)

    def typing(self, channel: str, typing: bool) -> None:
        """Tell the others: by a frame where the protocol has one for it (it waits for the connection, with the newest
        100), else over HTTP, which may block and raises ChatError."""
        if self._kind == "centrifugo":
            self._ask(self._backend.typing(self._user, channel, typing))
            return
        stream = self._backend.stream(channel, self._claims)
        self.connection.post_transient(lambda protocol, now: protocol.typing(stream, self._user, typing, now))

    def watch(self, observer: Callable[[ConnectionState], object]) -> Callable[[], None]:
        """See `Connection.watch`."""
        return self.connection.watch(observer)

    def metrics(self) -> ConnectionMetrics:
        """See `Connection.metrics`, and how polling fares."""
        polling = self.subscriptions.polling
        return replace(self.connection.metrics(), polling=polling.told, polls=polling.polls)

    @property
    def polling(self) -> bool:
        """Messages are fetched over HTTP, because the websocket cannot be had."""
        return self.subscriptions.polling.told

    @property
    def status_text(self) -> str:
        """A line for people: "Connected (45s)", "Reconnecting in 3s (attempt 2/10), messages are polled"."""
        return with_polling(self.connection.status_text, self.polling)

    def states(self) -> dict[str, str]:
        """The state of each channel: waiting, subscribed, failed, ended."""
        return self.subscriptions.states()

    def error(self, channel: str) -> ChatError | None:
        """Why a channel failed."""
        return self.subscriptions.error(channel)

    # ---- for the connection

    def _protocol(self) -> RealtimeProtocol:
        interval, timeout = self._heartbeat
        if self._kind == "centrifugo":
            return Driven(Centrifugo(margin=timeout), self.subscriptions)
        return Driven(PlainJson(own=OWN_STREAM, interval=interval, timeout=timeout), self.subscriptions)

    def _take(self, outputs: list[Output], now: float) -> None:
        self.subscriptions.take(outputs, now)

    def work_without(self, now: float) -> float | None:
        """See `session.Meanwhile`, as for the next one."""
        return self.subscriptions.work_without(now)

    def over(self) -> None:
        """The connection was ended."""
        self.subscriptions.over()

    def _polls(self, polling: bool) -> None:
        error, reason = self.connection.error, ""
        if polling:
            reason = "the websocket does not answer" if error is None else error.message
            log.warning("the websocket cannot be had (%s): messages are polled over HTTP", reason)
        else:
            log.info("messages are not polled any more")
        self._on_polling(reason)
        self._emit(PollingChanged(user=self._user, polling=polling, reason=reason))

    def _token(self, force: bool) -> Secret | None:
        assert self._ws_token is not None
        token = self._ws_token(force)
        self._claims = {} if token is None else self._read_claims(token)
        return token

    def _errand(self, function: Callable[[], None]) -> bool:
        return self._workshop.errands.run(function, lambda _: None, lambda _: None, quick=True)
