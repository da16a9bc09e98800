"""The realtime connections of one client: one per user, made when it is first asked for.

They share what a client has once: the threads of the handlers, those for tokens and backfills, the file of cursors, and
the typing signals. What they are given of the rest are plain callables. A user's connection stays until the client is
closed: its channels stay wanted.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic  # closing is limited in real time, whatever clock is injected
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from .auth import read_claims, read_payload
from .core.backoff import RECONNECTS
from .core.errors import ChatError, ConnectionFailedError, StatusError, TokenExpiredError
from .core.events import Event, MessageEvent, MessageFailed
from .core.exchange import Call
from .core.protocols.states import ConnectionState
from .core.tokens import Secret, Token

if TYPE_CHECKING:
    from .core.backend import Backend
    from .core.clock import Clock, Random
    from .core.realtime_events import MessageReceived
    from .core.settings import Settings
    from .offline.seen import Seen
    from .realtime.realtime import Realtime, Workshop
    from .realtime.typing_signals import TypingSignals
    from .resilience.circuits import Circuits
    from .resources.listening import Ending, EventStream

PATHS = {"centrifugo": "/connection/websocket", "json": "/ws"}
"""Where the realtime server is found if no setting says so: behind the same address as the chat server, as the contract
has it in production (11.1), and seed 004's path."""

ECHOES = 1000
"""Failed messages that are looked out for; of more, the oldest wait for their back-off."""

TYPING_WAITS = 3.0
"""Seconds that a typing signal may take over HTTP."""

log = logging.getLogger("chatsdk.realtime")


class Connections:
    """By user. `token(user, refused)`: the user's token, another one than `refused`; `call(call, timeout=)`: a call
    over HTTP; `cursors`: the file of cursors, None: in memory; `wake(user=None, channel=None)`: the outbox's lanes need
    not wait for their back-off any longer; `dropped`: a connection broke; `subscribe`: to the client's events."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        random: Random,
        circuits: Circuits,
        emit: Callable[[Event], None],
        backend: Callable[[], Backend],
        call: Callable[..., Any],
        token: Callable[[str, Token | None], Token],
        cursors: Callable[[], Path | None],
        wake: Callable[..., object],
        dropped: Callable[[], object],
        subscribe: Callable[..., object],
        sample: Callable[..., object],
        watched: Callable[[], bool],
        offline: Callable[[], bool],
        polls: Callable[[str], object],
        seen: Callable[[], Seen],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._random = random
        self._circuits = circuits
        self._emit = emit
        self._backend = backend
        self._call = call
        self._token = token
        self._cursors = cursors
        self._wake = wake
        self._dropped = dropped
        self._subscribe = subscribe
        self._sample = sample
        self._watched = watched
        self._offline = offline
        self._polls = polls
        self._seen = seen
        self._polling: dict[str, str] = {}
        self._polling_told = ""
        self._polling_telling = False
        self._polling_lock = threading.Lock()
        self._lock = threading.RLock()
        self._workshop: Workshop | None = None
        self._typing: TypingSignals | None = None
        self._by_user: dict[str, Realtime] = {}
        self._streams: weakref.WeakSet[EventStream[Any]] = weakref.WeakSet()
        self._endings: set[Ending] = set()
        self._closed = False

    # ---- by user

    def get(self, user: str) -> Realtime:
        """The user's connection; it is not connected yet. Raises SettingsError."""
        with self._lock:
            made = self._by_user.get(user)
            if made is None:
                made = self._by_user[user] = self._make(user)
                if self._closed:
                    made.close(0.0)
            return made

    def find(self, user: str) -> Realtime | None:
        """The same, if it was asked for before."""
        return self._by_user.get(user)

    def rouse(self) -> None:
        """Somebody watches the network from now on: who reads and has nothing to do looks what that means to him."""
        for connection in list(self._by_user.values()):
            connection.connection.post(lambda *_: None)

    def network_back(self) -> None:
        """The server is in contact again over HTTP, or the system has a network: who waits to connect again need not.
        But where a server refused us it was not the network, and it may have asked us to wait."""
        for made in list(self._by_user.values()):
            if not isinstance(made.connection.error, StatusError):
                made.connection.retry_now()

    def on_token(self, user: str) -> None:
        """The user has a token again: a connection that was given up for want of one is made anew."""
        known = self._by_user.get(user)
        if known is not None and isinstance(known.connection.error, (TokenExpiredError, ConnectionFailedError)):
            with contextlib.suppress(ConnectionFailedError):  # closed meanwhile
                if known.connection.state is ConnectionState.FAILED:
                    known.connect()

    def _make(self, user: str) -> Realtime:
        from .realtime.dial import DialSettings
        from .realtime.pulse import Pulse
        from .realtime.realtime import Realtime

        settings = self._settings
        plain = settings.realtime == "json"
        tokens = _Tokens(user, self._token, lambda: self._call(self._backend().me(user), fresh=True), self._clock.time)
        url = settings.ws_url or url_beside(settings.url, settings.realtime)
        return Realtime(
            user,
            url,
            self._backend(),
            self._shared(),
            ask=self._ask,
            kind="json" if plain else "centrifugo",
            ws_token=tokens.get,
            # a plain server knows channels, not streams of an app
            claims=_no_claims if plain else lambda token: read_payload(token.reveal()),
            headers=_bearer if plain else None,
            on_connected=lambda: self._errand(self._wake),
            on_polling=lambda reason: self._polled(user, reason),
            pulse=Pulse(self._sample, self._watched, same=_address(url) == _address(settings.url)),
            offline=self._offline,
            emit=self._emit,
            dial=DialSettings.of(settings),
            reconnect=RECONNECTS[settings.reconnect],
            circuit=self._circuits["websocket"],
            max_message_bytes=settings.max_response_bytes,
            close_timeout=settings.close_timeout,
            clock=self._clock,
            random=self._random,
            heartbeat=settings.heartbeat,
            heartbeat_timeout=settings.heartbeat_timeout,
            quiet=settings.quiet_check or None,
            poll=settings.poll_interval,
            tokens_a_minute=settings.subscription_rate,
        )

    def _ask(self, call: Call[Any]) -> Any:
        return self._call(call)

    def _shared(self) -> Workshop:
        from .core.realtime_events import ChannelDeleted, Disconnected, MemberLeft, MessageDeleted, MessageUpdated
        from .realtime.realtime import Workshop

        if self._workshop is None:
            seen = self._seen()
            echoes = Echoes(lambda user, channel: self._errand(lambda: self._wake(user, channel)), seen.heard)
            self._subscribe(MessageUpdated, seen.changed)
            self._subscribe(MessageDeleted, lambda event: seen.deleted(event.user, event.message_id or ""))
            self._subscribe(ChannelDeleted, lambda event: seen.left(event.user, event.channel))
            self._subscribe(
                MemberLeft, lambda event: seen.left(event.user, event.channel) if event.by == event.user else None
            )
            self._subscribe(MessageEvent, echoes.told)
            self._subscribe(Disconnected, lambda event: self._dropped() if event.reconnecting else None)
            self._workshop = Workshop(
                self._emit,
                self._cursors(),
                on_message=echoes.heard,
                leaving=self.leave,
                workers=self._settings.handlers,
            )
        return self._workshop

    def _polled(self, user: str, reason: str) -> None:
        """Realtime is not what it should be while any user's messages are polled. Called by each user's reader thread.
        One of them tells, with no lock held, for those that come meanwhile as well: or the last word might not be the
        last one told."""
        with self._polling_lock:
            if reason:
                self._polling[user] = reason
            else:
                self._polling.pop(user, None)
            if self._polling_telling:
                return
            self._polling_telling = True
        while (why := self._polling_news()) is not None:
            self._polls(why)

    def _polling_news(self) -> str | None:
        """What is to be told, None: nothing any more."""
        with self._polling_lock:
            why = next(iter(self._polling.values()), "")
            if why == self._polling_told:
                self._polling_telling = False
                return None
            self._polling_told = why
            return why

    def _errand(self, work: Callable[[], object]) -> None:
        """In another thread: the one that reads does not wait for a disk."""
        if self._workshop is not None:
            self._workshop.errands.run(work, _nothing, _log_error)

    # ---- typing

    def typing(self) -> TypingSignals:
        """The typing signals of all users."""
        from .realtime.typing_signals import TypingSignals

        with self._lock:
            if self._typing is None:
                self._typing = TypingSignals(self._send_typing, self._clock)
                if self._closed:
                    self._typing.close(0.0)
            return self._typing

    def _send_typing(self, user: str, channel: str, typing: bool) -> None:
        if self._settings.realtime == "json":
            self.get(user).typing(channel, typing)
        else:
            self._call(self._backend().typing(user, channel, typing), timeout=TYPING_WAITS)

    # ---- who stays with them

    def stream(self, subscribe: Callable[[Callable[[Event], None]], Callable[[], None]], timeout: float | None) -> Any:
        """A loop over events, which ends when the client is closed."""
        from .resources.listening import EventStream

        stream: EventStream[Any] = EventStream(subscribe, timeout)
        with self._lock:
            self._streams.add(stream)
            if self._closed:
                stream.close()
        return stream

    @contextlib.contextmanager
    def ending(self) -> Iterator[Ending]:
        """What `run_forever` waits for: it ends when the client is closed, or a handler wants the program to end."""
        from .resources.listening import Ending

        ending = Ending()
        with self._lock:
            self._endings.add(ending)
            if self._closed:
                ending.end()
        try:
            yield ending
        finally:
            with self._lock:
                self._endings.discard(ending)

    def leave(self, error: BaseException) -> None:
        """A handler raised SystemExit or KeyboardInterrupt: whoever runs forever goes on with that."""
        with self._lock:
            for ending in self._endings:
                ending.end(error)
            if not self._endings:
                log.error("a handler raised %s, and nothing runs forever that it could end", type(error).__name__)

    # ---- the end, and forks

    def close(self, timeout: float) -> None:
        """Hear nothing more, and wait at most `timeout` seconds for handlers that run. Idempotent."""
        end = monotonic() + timeout
        with self._lock:
            self._closed = True
            streams, endings = list(self._streams), list(self._endings)
            connections, workshop, typing = list(self._by_user.values()), self._workshop, self._typing
        for stream in streams:
            stream.close()
        for connection in connections:
            connection.close(max(0.0, end - monotonic()))
        if typing is not None:
            typing.close(max(0.0, min(1.0, end - monotonic())))
        if workshop is not None:
            workshop.close(max(0.0, end - monotonic()))
        for ending in endings:
            ending.end()

    @property
    def making(self) -> Any:
        """Held while something is imported or made: a fork waits for it."""
        return self._lock

    def after_fork(self) -> None:
        """In a forked child: fresh locks; connections find out by themselves."""
        self._lock = threading.RLock()
        self._polling_lock = threading.Lock()
        self._polling_telling = False
        self._endings = set()
        for stream in list(self._streams):
            stream.after_fork()


class Echoes:
    """Messages of ours that failed so far, by key. A send whose answer was lost may have arrived all the same: then the
    server tells it to all who listen, and its lane need not wait for the back-off to learn that. `then` is given every
    message that was heard."""

    def __init__(
        self,
        arrived: Callable[[str, str], object],
        then: Callable[[MessageReceived], object] = lambda _: None,
    ) -> None:
        self._arrived = arrived
        self._then = then
        self._failed: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def told(self, event: MessageEvent) -> None:
        """Something happened to a message of the outbox."""
        if isinstance(event, MessageFailed):
            self._failed[event.key] = event.user, event.channel
            if len(self._failed) > ECHOES:
                with contextlib.suppress(KeyError):
                    self._failed.popitem(last=False)
        elif self._failed:
            self._failed.pop(event.key, None)

    def heard(self, event: MessageReceived) -> None:
        """The server told a message. Its id is the key that it was sent with (contract, 7)."""
        if self._failed and event.message_id is not None:
            lane = self._failed.pop(event.message_id, None)
            if lane is not None:
                self._arrived(*lane)
        self._then(event)


class _Tokens:
    """The tokens of one user's connection. token(user, refused): see `Connections`; ask: has the chat server look at
    the access token; now: Unix time."""

    def __init__(
        self,
        user: str,
        token: Callable[[str, Token | None], Token],
        ask: Callable[[], object],
        now: Callable[[], float],
    ) -> None:
        self._user = user
        self._token = token
        self._ask = ask
        self._now = now
        self._last: Token | None = None

    def get(self, force: bool) -> Secret:
        """The websocket's token; where there is none, the access token. `force`: the last one was refused.

        Raises TokenExpiredError if it has ended and nobody has another one, and what the token manager raises."""
        refused = self._last if force else None
        if refused is not None:
            try:
                self._ask()  # most often both have ended: then this renews them, or finds out that the session is over
            except TokenExpiredError:
                raise
            except ChatError as error:
                log.debug("the chat server could not be asked about the token: %s", error)
        self._last = self._token(self._user, refused)
        token = self._last.ws or self._last.access
        if refused is not None and token == (refused.ws or refused.access):
            ends = read_claims(token.reveal()).expires_at
            if ends is not None and ends <= self._now():
                raise TokenExpiredError(
                    f"the realtime token of user {self._user!r} has expired, and there is no other one",
                    hint="give one by connect_user, ws_token (CHATSDK_WS_TOKEN) or a token provider; with a refresh"
                    " token the client renews it by itself",
                )
        return token


def _nothing(_: object) -> None:
    """It went well."""


def _log_error(error: BaseException) -> None:
    log.debug("the outbox could not be woken: %s", error)


def _no_claims(_: Secret) -> Mapping[str, Any]:
    return {}


def _bearer(token: Secret | None) -> Mapping[str, str | Secret]:
    return {} if token is None else {"Authorization": Secret(f"Bearer {token.reveal()}")}


def _address(url: str) -> tuple[str | None, int]:
    """(host, port) that a server is asked at."""
    parts = urlsplit(url)
    return parts.hostname, parts.port or (443 if parts.scheme in ("https", "wss") else 80)


def url_beside(url: str, protocol: str) -> str:
    """Where the realtime server is, if it is where the chat server is."""
    parts = urlsplit(url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + PATHS[protocol], "", ""))
