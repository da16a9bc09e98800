"""The client: puts the parts together, and has no logic of its own.

`ChatClient` is a cheap view of one user over `Parts`, which all views share: settings, pipeline, outbox, worker and one
token manager per user. Nothing is opened, started or imported before it is needed: a client that only enqueues never
loads an HTTP library, and one that is made and dropped leaves no trace.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .config import load_settings
from .core import timeouts
from .core.errors import InvalidArgument
from .core.models import Channel
from .core.tokens import Token
from .parts import Parts
from .resilience.deadline import bounded, clamp
from .resources.channels import Channels, PresenceResource, Typing, Users
from .resources.connection import ConnectionResource
from .resources.messages import Messages
from .resources.outbox import OutboxResource
from .resources.receipt import Receipt
from .users import check_user

if TYPE_CHECKING:
    from .auth import SignedTokens, TokenManager
    from .core.backend import Backend
    from .core.clock import Clock
    from .core.events import Event
    from .core.exchange import Call
    from .core.models import Attachment
    from .core.realtime_events import ChangesMissed, Gap, RealtimeEvent
    from .core.settings import Settings
    from .core.store import OutboxStore
    from .core.timeouts import Preset
    from .core.tokens import Secret, TokenRequest
    from .network.features import Features
    from .network.health import Health
    from .network.monitor import NetworkMonitor
    from .realtime.realtime import Realtime
    from .resilience.circuits import Circuits
    from .resilience.deadline import Deadline
    from .resilience.failures import Failure
    from .resources.listening import EventStream
    from .resources.sending import Sender

T = TypeVar("T")
E = TypeVar("E", bound="Event")
Handler = Callable[[E], object]

_warned_of_loop = threading.Event()


class ChatClient:
    """A blocking, thread-safe chat client.

    Every setting can be given as an argument; else it comes from `CHATSDK_*`, the TOML file, or its default (the README
    lists them; `chatsdk config` shows values and where they came from). Making a client opens and starts nothing.

    token_provider  called with a TokenRequest, returns a token (str or Token)
    signed_tokens   a backend that signs its users' tokens itself
    plugins         plugin modules or objects beside those found by entry points; `discover=False`: only these
    store           another place for the outbox (`chatsdk.core.store.OutboxStore`)

    Raises SettingsError for settings that make no sense.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | Secret | None = None,
        *,
        user: str | None = None,
        profile: str | None = None,
        config: str | None = None,
        token_provider: Callable[[TokenRequest], str | Token] | None = None,
        signed_tokens: SignedTokens | None = None,
        plugins: Sequence[Any] = (),
        store: OutboxStore | None = None,
        clock: Clock | None = None,
        **settings: Any,
    ) -> None:
        given = {"url": url, "token": token, "user": user, "profile": profile, **settings}
        self._shared = Parts(
            load_settings({name: value for name, value in given.items() if value is not None}, config=config),
            provider=token_provider,
            signed=signed_tokens,
            plugins=plugins,
            store=store,
            clock=clock,
        )
        self._is_view = False
        self._manager: TokenManager | None = None
        self._build(None)

    def _build(self, user: str | None) -> None:
        self._user = user
        self.messages = Messages(self)
        self.channels = Channels(self)
        self.presence = PresenceResource(self)
        self.users = Users(self)
        self.typing = Typing(self)
        self.connection = ConnectionResource(lambda: self._realtime)
        self.outbox = OutboxResource(self._parts.outbox, self._parts.receipt, user if self._is_view else None)

    # ---- users

    @property
    def user(self) -> str:
        """On whose behalf this client (or view) speaks."""
        return self._parts.users.default if self._user is None else self._user

    def as_user(self, user: str, token: str | Token | None = None) -> ChatClient:
        """A cheap view of this client that speaks for `user`: it shares connections, outbox and worker. Without `token`
        the user's tokens come from the client's provider or signer.

        `token` is the user's from now on, for every view of this user. The same one as before changes nothing, so this
        can be called in each web request. It lives in memory, as long as the view does or a message of the user waits.

        Raises InvalidArgument (user: 1 to 255 characters, no control characters), TokenUnavailableError for a token
        that is none."""
        user, parts = check_user(user), self._parts
        view = object.__new__(ChatClient)
        view._shared = parts
        view._is_view = True
        # holding it is what keeps it, where users are many: see `users`
        view._manager = parts.users.find(user) if token is None else parts.users.replace(user, token, again=False)
        view._build(user)
        return view

    def connect_user(
        self, user: str, token: str | None = None, *, ws_token: str | None = None, refresh_token: str | None = None
    ) -> ChatClient:
        """Speak for `user` from now on, with this session. Returns this client. The messages of a user whose session
        was lost go out again. Raises as `as_user` does."""
        user = check_user(user)
        self._manager = self._parts.users.replace(user, Token(token or "", ws_token, refresh_token))
        self._build(user)
        return self

    # ---- the main job

    def send(
        self,
        channel: str | Channel,
        text: str,
        *,
        attachments: Sequence[Attachment] = (),
        reply_to: str | None = None,
        parent_id: str | None = None,
        key: str | None = None,
        ttl: float | None = None,
        wait: float | None = None,
    ) -> Receipt:
        """Send a message; the same as `chat.messages.send`, which says it all."""
        return self.messages.send(
            channel,
            text,
            attachments=attachments,
            reply_to=reply_to,
            parent_id=parent_id,
            key=key,
            ttl=ttl,
            wait=wait,
        )

    def call(self, call: Call[T], *, timeout: float | Preset | None = None, fresh: bool = False) -> T:
        """Make a direct call, built by the backend, through the whole pipeline.

        timeout: seconds for everything: waiting, refresh, retries; or "quick" (5 s), "standard" (10 s), "heavy" (30 s),
        "ai" (45 s). None: the setting `timeout`, and where nobody set it, what fits the operation. fresh: past the
        cache.
        Raises NotSentError, OutcomeUnknownError, StatusError, TokenExpiredError, PluginError, InvalidArgument.
        """
        warn_on_event_loop()
        return self._parts.call(call, timeout=timeout, fresh=fresh)

    def deadline(self, seconds: float | Preset) -> AbstractContextManager[Deadline]:
        """Bound everything inside: `with chat.deadline(2.0): ...`. `seconds` from when it is entered, or the total of a
        preset: "quick" (5 s), "standard" (10 s), "heavy" (30 s), "ai" (45 s). What it gives says how much is left
        (`remaining()`). Of nested ones the earliest counts.

        Inside, a call ends in time with its retries and waits (ConnectTimeoutError, if nothing was sent, or
        DeadlineExceeded), and one that finds nothing left raises at once, with the code "deadline", and sends nothing.
        `send` accepts as ever, and then waits for no longer than is left; so do `Receipt.wait`, `outbox.flush`,
        `connect` and `close`. Loops over `events` and `run_forever` end when it is over. The servers are told how much
        is left. Code of yours is not cut off: a handler, a fallback, a token provider.

        It holds for all clients, in this context: `asyncio.to_thread` takes it along, a thread that is started inside
        does not have it, and what the client does in threads of its own goes on. A generator should not yield inside.

        Raises InvalidArgument."""
        return bounded(timeouts.seconds(seconds, "a deadline"), self._parts.clock)

    # ---- events

    @overload
    def on(self, event: type[E], handler: Handler[E]) -> Callable[[], None]: ...
    @overload
    def on(self, event: type[E]) -> Callable[[Handler[E]], Handler[E]]: ...
    @overload
    def on(self, event: str, handler: Handler[Any]) -> Callable[[], None]: ...
    @overload
    def on(self, event: str) -> Callable[[Handler[Any]], Handler[Any]]: ...
    def on(self, event: Any, handler: Any = None) -> Any:
        """Call `handler` with every event of a class (or its seed name, "message:sent"); returns a function that ends
        that. Without `handler` it is a decorator. Handlers run in the thread where it happened: one that raises is
        logged; one that takes long holds up the messages of that channel, and of no other; one that sends to that
        channel does not wait for delivery. SystemExit and KeyboardInterrupt end `run_forever`, or are raised where the
        handler was called in the main thread."""
        if handler is not None:
            if not callable(handler):
                raise InvalidArgument(f"a handler must be callable, not {type(handler).__name__}")
            return self._parts.emitter.subscribe(event, handler)

        def decorate(function: Handler[Any]) -> Handler[Any]:
            self._parts.emitter.subscribe(event, function)
            return function

        return decorate

    # ---- realtime

    def subscribe(
        self, channels: str | Channel | Iterable[str | Channel], *, since: int | None = None, keep: bool = True
    ) -> None:
        """Hear what happens in these channels, from now on. Connects if need be, and returns at once; what comes goes
        to the handlers of `on` and the loops of `events`: each message once, in the order of its channel.

        Where this client (by its state directory and user) heard a channel before, it goes on where its handlers
        stopped. `since`: begin after that seq instead; 0: with the first message. `keep=False`: neither go by the
        stored place nor store one.

        How it goes is told by `SubscriptionStateChanged`; a channel that cannot be heard is "failed", with an error.
        Raises InvalidArgument for what is no channel, SettingsError, ConnectionFailedError once the client is closed.
        """
        names = self._channel_ids(channels)
        if since is not None and since < 0:
            raise InvalidArgument("since must be a message's seq, or 0")
        realtime = self._realtime
        realtime.subscribe(names, since, keep=keep)
        realtime.connect()

    def unsubscribe(self, channels: str | Channel | Iterable[str | Channel]) -> None:
        """Hear these channels no more. What waits for a handler is dropped; its place is kept, so that a later
        `subscribe` brings it."""
        self._realtime.unsubscribe(self._channel_ids(channels))

    def connect(self, wait: float | None = None) -> bool:
        """Connect this user's realtime connection, and keep it connected; `subscribe` does that too. Returns at once,
        or after at most `wait` seconds; whether it is connected. Raises SettingsError, ConnectionFailedError."""
        warn_on_event_loop()
        return self._realtime.connect(None if wait is None else clamp(wait))

    def disconnect(self, timeout: float | None = None) -> bool:
        """End it, within `timeout` seconds (None: the setting `close_timeout`), until `connect` or `subscribe`.
        Channels stay wanted. True if its thread has ended."""
        return self._realtime.disconnect(clamp(self.settings.close_timeout if timeout is None else timeout))

    @overload
    def events(self, event: type[E], *, timeout: float | None = None) -> EventStream[E]: ...
    @overload
    def events(self, *, timeout: float | None = None) -> EventStream[RealtimeEvent | Gap | ChangesMissed]: ...
    def events(self, event: Any = None, *, timeout: float | None = None) -> EventStream[Any]:
        """A loop over events of a class (without one: over everything that comes by realtime, and what is missing of
        it): `for event in chat.events(): ...`. It hears from now on, ends after `timeout` seconds without an event
        (None: never), with a `deadline` around it, and when the client is closed. An event counts as handled when the
        loop comes for the next one."""
        from .core.realtime_events import ChangesMissed, Gap, RealtimeEvent

        classes = (RealtimeEvent, Gap, ChangesMissed) if event is None else (event,)
        emitter, user = self._parts.emitter, self.user if self._is_view else None

        def subscribe(bring: Callable[[Event], None]) -> Callable[[], None]:
            def mine(event: Event) -> None:
                if user is None or getattr(event, "user", user) == user:
                    bring(event)

            ends = [emitter.subscribe(each, mine) for each in classes]

            def unsubscribe() -> None:
                for end in ends:
                    end()

            return unsubscribe

        stream: EventStream[Any] = self._parts.connections.stream(subscribe, timeout)
        return stream

    def run_forever(self) -> None:
        """Stay connected and let the handlers work, until SIGINT or SIGTERM (where this is the main thread), `close`,
        `disconnect`, the end of a `deadline` around it, or a handler that raises SystemExit or KeyboardInterrupt, which
        then goes on from here.

        Raises ConnectionFailedError if the connection is given up: after the last try where `reconnect` has a limit,
        or because the server said to stay away."""
        from .resources.listening import PoliteSignals, end_with

        with self._parts.connections.ending() as ending, PoliteSignals(ending.end):
            if ending.over:
                return  # closed
            realtime = self._realtime
            realtime.connect()
            unwatch = realtime.watch(lambda state: end_with(realtime, state, ending))
            try:
                ending.wait(clamp(None))
            finally:
                unwatch()

    # ---- the rest

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._parts.settings

    @property
    def circuits(self) -> Circuits:
        """The circuits by name ("api", "auth"): state, counts, reset, call."""
        return self._parts.circuits

    @property
    def network(self) -> NetworkMonitor:
        """How the network is: `quality` (EXCELLENT, GOOD, FAIR, POOR or OFFLINE), `latency`, `reason`, `metrics()`, and
        `watch(observer)`, which is called at once and at each change. Known by the client's own traffic; only while
        somebody watches an idle client asks the server every 10 s."""
        return self._parts.condition.network

    @property
    def features(self) -> Features:
        """What works at the moment, and what stands in for what does not: `run(name, primary, fallback)`,
        `is_available(name)`, `level`."""
        return self._parts.condition.features

    def health(self) -> Health:
        """How this client is: `status` (healthy, degraded, unhealthy or critical, by the calls of the last five minutes
        and the circuits), `reasons`, `open_circuits`, the outbox (`pending`, `dead`, `oldest_age`), `connection`,
        `quality`, `degradation`; `to_dict()` for a health endpoint.

        It asks and opens nothing: what this client has not used yet is None or "unknown". An outbox that can't be read
        is a reason, not an error."""
        return self._parts.health(self.user)

    def errors(self) -> Sequence[Failure]:
        """The last errors of all calls of this client (every view's, and the outbox's), by operation, class, code and
        status, the last kind first: each with `count`, `first_at`, `last_at` (Unix time), the last one's
        `correlation_id` and `message`. At most 50 kinds; `to_dict()` each."""
        return self._parts.metrics.errors()

    def invalidate(self, pattern: str = "*") -> int:
        """Forget cached reads whose operation fits `pattern` ("channels.*"). Returns how many."""
        return int(self._parts.registry.middleware("dedup").invalidate(pattern))

    def plugins(self) -> Sequence[Mapping[str, Any]]:
        """Every plugin: name, distribution, version, hooks, and why it is disabled if it is."""
        return self._parts.registry.describe()

    def close(self, timeout: float | None = None) -> None:
        """Send what waits and stop, within `timeout` seconds (None: the setting `close_timeout`); what is left stays in
        the outbox. Idempotent. A user's view closes nothing."""
        if not self._is_view:
            self._parts.close(timeout)

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ChatClient {self._parts.settings.url}>"

    # ---- for the resources

    @property
    def _parts(self) -> Parts:
        return self._shared.here()

    @property
    def _backend(self) -> Backend:
        return self._parts.backend

    @property
    def _sender(self) -> Sender:
        warn_on_event_loop()
        return self._parts.sender

    @property
    def _realtime(self) -> Realtime:
        return self._parts.connections.get(self.user)

    def _channel_ids(self, channels: str | Channel | Iterable[str | Channel]) -> list[str]:
        if isinstance(channels, (str, Channel)):
            channels = [channels]
        return [self._channel_id(channel) for channel in channels]

    def _channel_id(self, channel: str | Channel) -> str:
        if isinstance(channel, Channel):
            return channel.id
        try:
            return self._parts.settings.channels.get(channel, channel)
        except TypeError:  # something unhashable: the backend says what is wrong with it
            return channel


def warn_on_event_loop() -> None:
    """A blocking call on a running event loop stops every task of it: say so, once."""
    # another thread may be in the middle of importing asyncio: then nobody runs a loop yet
    running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    if running_loop is None or _warned_of_loop.is_set():
        return
    if running_loop() is not None:
        import warnings

        _warned_of_loop.set()
        warnings.warn(
            "chatsdk blocks: on an event loop call it as `await asyncio.to_thread(chat.send, ...)`",
            RuntimeWarning,
            stacklevel=_callers_level(),
        )


def _callers_level() -> int:
    """How many frames up the first one stands that is not ours: what a warning points at."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        level, frame = level + 1, frame.f_back
    return level
