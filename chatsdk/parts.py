"""What all views of one client share, each part made when it is first needed.

Capabilities are handed from one part to another as plain callables: the auth middleware is given `authorize`, the
worker is given `send`, the token managers are given `refresh`. No part knows another part's class.

A fork waits until nothing here is half made: a module that another thread is importing would stay locked in the child
for ever. Then the child gets fresh locks and drops the parent's sockets unused; outbox and token managers look after
themselves. Where no hook runs (uWSGI forks without), `here` finds out by the process id, before anything is used.

At exit the main thread drains for at most `exit_timeout` and says where the rest lies. A child that inherited a client
and never used it leaves the outbox to its parent.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import random
from time import monotonic  # forks wait in real time, whatever clock is injected
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import config
from .condition import Condition
from .connections import Connections
from .core.errors import ChatError, NotSentError, OutcomeUnknownError, ServerError, SettingsError, StorageError
from .core.events import CircuitStateChanged, ClientClosed, MessageSent
from .core.exchange import Call, Request, Response
from .core.identity import uuid7
from .core.models import Message
from .core.store import Lane, Row, Selection, State
from .core.timeouts import Timeouts
from .core.tokens import Token
from .outbox import forks as _forks  # noqa: F401 - first: hooks before a fork run backwards, and ours come before the store's
from .resilience.budget import RetryBudget
from .resilience.circuits import Circuits
from .resilience.deadline import clamp, current, nothing_sent
from .resilience.emitter import Emitter, ends_the_program
from .resilience.import_lock import FORK_WAITS
from .resilience.metrics import Metrics
from .resilience.process_lock import ProcessLock
from .resilience.system_clock import SystemClock
from .resources.receipt import Receipt
from .resources.sending import Sender
from .users import Users

if TYPE_CHECKING:
    from .auth import SignedTokens
    from .core.backend import Backend
    from .core.clock import Clock
    from .core.events import Event
    from .core.settings import Settings
    from .core.store import OutboxStore
    from .network.features import Features
    from .network.health import Health
    from .network.monitor import NetworkMonitor
    from .offline.seen import Seen
    from .outbox.outbox import Outbox
    from .pipeline.registry import Registry
    from .pipeline.transport import Transport

T = TypeVar("T")

_afresh = ProcessLock()
logging.getLogger("chatsdk").addHandler(logging.NullHandler())  # silent until the application asks for our records


class Parts:
    """The parts of one client. Also what plugins get as `client` (`chatsdk.plugin.PluginClient`)."""

    def __init__(
        self,
        settings: Settings,
        *,
        provider: Callable[..., str | Token] | None = None,
        signed: SignedTokens | None = None,
        plugins: Sequence[Any] = (),
        store: OutboxStore | None = None,
        clock: Clock | None = None,
    ) -> None:
        settings.require("url")
        for text in settings.warnings:
            warnings.warn(f"chatsdk: {text}", RuntimeWarning, stacklevel=3)
        if settings.log:
            from .resilience.log_lines import show_records

            show_records(settings.log)
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self._timeouts = Timeouts(settings)
        self.random = random
        self.closing = threading.Event()
        self.metrics = Metrics(self.clock)
        self.metrics.gauge_from("pending_sync_items", self._pending)
        self.budget = RetryBudget(settings.retry_budget)
        self.emitter = Emitter(self.clock)
        self.circuits = Circuits(clock=self.clock, emit=self.emit, settings=settings)
        self._plugins = plugins
        self._given_store = store
        self._lock = threading.RLock()
        self._made: dict[str, Any] = {}
        self._closed = False
        self._pid = os.getpid()
        self._user_of_outbox = 0
        """The process that used the outbox through these parts, so it has to drain it."""
        self._held: list[Any] = []
        self.users = Users(
            settings,
            provider=provider,
            signed=signed,
            clock=self.clock,
            emit=self.emit,
            refresh=self._refresh,
            refresh_refused=lambda body: self.backend.refresh_refused(body),
            pairs=self._pairs,
            on_token=self._on_token,
            waiting=self._waiting,
        )
        self.connections = Connections(
            settings,
            clock=self.clock,
            random=self.random,
            circuits=self.circuits,
            emit=self.emit,
            backend=lambda: self.backend,
            call=self.call,
            token=lambda user, refused: self.users.manager(user).token(refused=refused),
            cursors=self._cursors,
            wake=self._wake_lanes,
            dropped=lambda: self.condition.network.dropped(),
            subscribe=self.emitter.subscribe,
            sample=lambda latency, ok=True: self.condition.network.sample(latency, ok),
            watched=lambda: self.condition.network.watched,
            offline=lambda: self.condition.network.quality == "OFFLINE",
            polls=lambda why: self.condition.features.report("realtime", not why, why),
            seen=lambda: self.seen,
        )
        self.condition = Condition(
            settings,
            clock=self.clock,
            metrics=self.metrics,
            circuits=self.circuits,
            once=self._once,
            backend=lambda: self.backend,
            transport=lambda: self.transport,
            emit=self.emit,
            subscribe=self.emitter.subscribe,
            restored=self._network_back,
            watching=self.connections.rouse,
        )
        if hasattr(os, "register_at_fork"):
            _call_weakly(self, "before_fork", lambda call: os.register_at_fork(before=call))
            _call_weakly(self, "after_fork_in_parent", lambda call: os.register_at_fork(after_in_parent=call))
            _call_weakly(self, "after_fork", lambda call: os.register_at_fork(after_in_child=call))

    # ---- parts that are made when they are first needed

    def here(self) -> Parts:
        """These parts, fit for this process: the one that made them, or a forked child of it."""
        if self._pid != os.getpid():
            self.after_fork()
        return self

    def _once(self, name: str, make: Callable[[], T]) -> T:
        self.here()
        made = self._made.get(name)
        if made is None:
            with self._lock:
                made = self._made.get(name)
                if made is None:
                    made = self._made[name] = make()
        return cast(T, made)

    @property
    def registry(self) -> Registry:
        """The plugins of this client."""
        return self._once("registry", self._make_registry)

    @property
    def backend(self) -> Backend:
        """The chat system that is spoken to."""
        return self._once("backend", self._make_backend)

    @property
    def transport(self) -> Transport:
        """The bare exchange with the server."""
        return self._once("transport", self._make_transport)

    @property
    def chain(self) -> Callable[[Request], Response]:
        """The whole pipeline, composed once."""
        return self._once("chain", lambda: self.condition.seen_chain(self.registry.chain(self.exchange)))

    @property
    def exchange(self) -> Callable[[Request], Response]:
        """One exchange with the server, which tells the network monitor how it went; not in one-shot mode, where nobody
        could make use of that."""
        return self._once("exchange", self.condition.seen_exchange)

    @property
    def seen(self) -> Seen:
        """The messages that this client has seen."""
        return self._once("seen", _make_seen)

    @property
    def sender(self) -> Sender:
        """What `send` runs through."""
        return self._once("sender", self._make_sender)

    def outbox(self) -> Outbox:
        """The outbox; the first call opens it. Raises SettingsError, StorageError."""
        outbox = self._once("outbox", self._make_outbox)
        if self._user_of_outbox != self._pid:
            self._user_of_outbox = self._pid
            if self._drains_at_exit:
                _at_exit_of_a_child(self)
        return outbox

    def _make_registry(self) -> Registry:
        from .pipeline.registry import Registry

        return Registry(self, self._plugins)

    def _make_backend(self) -> Backend:
        name = self.settings.backend
        if name == "chatsdk":
            from .core.chatsdk_backend import ChatSDKBackend

            return ChatSDKBackend()
        backend: Backend | None = self.registry.backend(self.settings)
        if backend is None:
            raise SettingsError(f"no plugin has a backend {name!r}", hint="`chatsdk plugins` lists what is installed")
        return backend

    def _make_transport(self) -> Transport:
        from .pipeline.transport import Transport

        return Transport.from_settings(self.settings, clock=self.clock, on_skew=self.users.observe_skew)

    def _sent(self, event: MessageSent) -> None:
        if event.message is not None:
            self.seen.add(event.user, [event.message], channel=event.channel, at=event.at)

    def health(self, user: str) -> Health:
        """How the client is, as far as it knows without asking anybody: see `ChatClient.health`."""
        outbox = None if self._closed else self._outbox_in_use()
        return self.condition.health(outbox, self.connections.find(user))

    def _outbox_in_use(self) -> Outbox | None:
        """The outbox, if this process has used it."""
        return self._made.get("outbox") if self._user_of_outbox == os.getpid() else None

    def _pending(self) -> float | None:
        outbox = self._outbox_in_use()
        return None if outbox is None else outbox.pending()

    def _make_sender(self) -> Sender:
        return Sender(
            self.settings,
            self.backend,
            self.clock,
            self.registry.accept,
            self.outbox,
            self.receipt,
            lambda why: self.condition.features.report("messages", not why, why, recheck=True),
        )

    def _make_outbox(self) -> Outbox:
        from .outbox.outbox import Outbox

        settings = self.settings
        outbox = Outbox(
            self._given_store or self._open_store(),
            self.send,
            self.backend,
            clock=self.clock,
            random=self.random,
            emit=self.emit,
            users=self.users.allowed,
            lost=self.users.lost,
            circuit_open=lambda: self.circuits["api"].retry_after,
            last_success=lambda: self.metrics.last_success,
            background=settings.background,
            workers=settings.workers,
            timeout=settings.timeout,
            ttl=settings.ttl,
            max_strikes=settings.max_strikes,
            sweep_interval=settings.sweep_interval,
        )
        self.emitter.subscribe(CircuitStateChanged, lambda event: _on_circuit(event, outbox))
        self.emitter.subscribe(MessageSent, self._sent)
        if self._drains_at_exit:
            _call_weakly(self, "at_exit", atexit.register)
        return outbox

    @property
    def _drains_at_exit(self) -> bool:
        return self.settings.background and self.settings.exit_timeout > 0

    def _open_store(self) -> OutboxStore:
        from .outbox.shared import open_store

        return open_store(
            self.state_directory(),
            clock=self.clock,
            lock_timeout=self.settings.lock_timeout,
            max_pending=self.settings.max_pending,
            max_bytes=self.settings.max_bytes,
            emit=self.emit,
        )

    def state_directory(self) -> Path:
        """Where this client's outbox lies, made and checked. Raises SettingsError, StorageError."""
        path = config.state_directory(self.settings)
        config.prepare_directory(path)
        return path

    # ---- what the parts ask of each other

    def send(self, request: Request) -> Response:
        """The pipeline, as the outbox calls it."""
        return self.chain(request)

    def call(self, call: Call[T], *, timeout: float | str | None = None, fresh: bool = False) -> T:
        """A direct call through the pipeline; see `ChatClient.call`."""
        seconds, connect = self._timeouts.usual[call.preset] if timeout is None else self._timeouts.asked(timeout)
        outer = current()
        if outer is not None:
            seconds = outer.clamp(seconds)
        if seconds <= 0:
            raise nothing_sent()
        request = call.request.replace(
            correlation_id=uuid7(self.clock.time(), os.urandom(10)),
            deadline=self.clock.monotonic() + seconds,
            connect_timeout=connect,
            fresh=fresh or call.request.fresh,
        )
        response = self.chain(request)
        try:
            return call.parse(response)
        except ChatError as error:
            error.request_id = error.request_id or request.correlation_id
            raise

    def emit(self, event: Event) -> None:
        """Tell the handlers of `chat.on` and the plugins. A handler that wants the program to end (SystemExit,
        KeyboardInterrupt) ends `run_forever`: of any thread but the main one it would end no more than that thread, and
        that may be one that delivers."""
        try:
            self.emitter.emit(event)
        except (SystemExit, KeyboardInterrupt) as error:
            if ends_the_program(error):
                raise
            self.connections.leave(error)
        finally:
            registry = self._made.get("registry")
            if registry is not None:
                registry.event(event)

    def authorize(self, request: Request, force: bool) -> Mapping[str, str]:
        """Headers that prove who `request.user` is."""
        return self.users.authorize(request, force)

    def receipt(self, row: Row, outbox: Outbox) -> Receipt:
        """A receipt for a row."""
        return Receipt(row, outbox, _read_message)

    def _refresh(self, user: str, secret: str, deadline: float) -> Token:
        """Straight through the transport, with a circuit of its own: a probe that meets a 401 must not wait for
        itself."""
        call = self.backend.refresh_token(user, secret, now=self.users.server_now())
        request = call.request.replace(correlation_id=uuid7(self.clock.time(), os.urandom(10)), deadline=deadline)
        return call.parse(self.circuits["auth"].call(self.transport, request, is_failure=_is_outage))

    def _pairs(self) -> Path | None:
        if self._given_store is not None and not self.settings.state_dir:
            return None  # somebody else's store, and nobody named a directory
        return self.state_directory() / "tokens"

    def _cursors(self) -> Path | None:
        pairs = self._pairs()
        return None if pairs is None else pairs.with_name("cursors")

    def _wake_lanes(self, user: str | None = None, channel: str | None = None) -> None:
        """What waits for its back-off need not wait any longer: everything, or one lane."""
        outbox: Outbox | None = self._made.get("outbox")
        if outbox is not None:
            with contextlib.suppress(StorageError):  # then it waits, which does no harm
                outbox.wake(lane=None if user is None or channel is None else Lane(user, channel))

    def _network_back(self) -> None:
        """There is contact again. A circuit that opened meanwhile may have been the network's fault."""
        for name in ("api", "auth"):
            self.circuits[name].probe_now()
        self._wake_lanes()
        self.connections.network_back()

    def _on_token(self, user: str) -> None:
        outbox: Outbox | None = self._made.get("outbox")
        if outbox is not None:
            outbox.wake(user=user)
        self.connections.on_token(user)

    def _waiting(self, user: str) -> bool:
        """A message of this user waits in the outbox, as far as that can be told."""
        outbox: Outbox | None = self._made.get("outbox")
        if outbox is None:
            return False  # nobody delivers here
        try:
            return bool(outbox.list(Selection(states=(State.QUEUED,), user=user, limit=1)))
        except StorageError:
            return True

    # ---- the end

    def close(self, timeout: float | None) -> None:
        """Send what waits and stop, within the limit. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        limit = clamp(self.settings.close_timeout if timeout is None else timeout)
        end = self.clock.monotonic() + limit
        outbox: Outbox | None = self._made.get("outbox")
        try:
            self.connections.close(limit / 2)  # first: handlers may still send, and what they sent goes out below
            if outbox is not None and self.settings.background:
                with contextlib.suppress(StorageError):  # the disk can't even say what is left; it stays there
                    outbox.flush(limit)
        finally:  # somebody pressed Ctrl-C, or a handler wants the program to end
            self._stop(outbox, end)

    def _stop(self, outbox: Outbox | None, end: float) -> None:
        """Everything that runs, until `end` (monotonic)."""
        self.closing.set()
        if outbox is not None:
            outbox.close(max(0.0, end - self.clock.monotonic()))
            if self._given_store is None:
                outbox.store.close()
        self.users.close(max(0.0, end - self.clock.monotonic()))
        network: NetworkMonitor | None = self._made.get("network")
        if network is not None:
            network.close(max(0.0, end - self.clock.monotonic()))
        transport: Transport | None = self._made.get("transport")
        if transport is not None:
            transport.close()
        self.emit(ClientClosed())

    def at_exit(self) -> None:
        """The interpreter ends and nobody called close()."""
        outbox: Outbox | None = self._made.get("outbox")
        if outbox is None or self._closed or self._user_of_outbox != os.getpid():
            return
        self._closed = True
        try:
            left = outbox.drain_at_exit(self.settings.exit_timeout).queued
        except StorageError as error:
            print(f"chatsdk: the outbox can't be read: {error}", file=sys.stderr)  # noqa: T201 - see below
            return
        if left:
            where = "" if self._given_store is not None else f" in {config.state_directory(self.settings)}"
            print(  # noqa: T201 - the last chance to say it; logging may be gone
                f"chatsdk: {left} message(s) are safe{where}; they go out with the next run, or `chatsdk outbox run`",
                file=sys.stderr,
            )

    # ---- forks

    def before_fork(self) -> None:
        """Wait until no other thread is making or importing something, and keep it so."""
        registry: Registry | None = self._made.get("registry")
        transport: Transport | None = self._made.get("transport")
        locks = [self._lock, *(part.making for part in (registry, transport) if part is not None)]
        locks.append(self.connections.making)
        ends = monotonic() + FORK_WAITS
        for lock in (*locks, *self.circuits.making):
            if lock.acquire(timeout=max(0.0, ends - monotonic())):
                self._held.append(lock)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        while self._held:
            self._held.pop().release()

    def after_fork(self) -> None:
        """In a forked child: fresh locks, and the parent's sockets are left alone. Once a child, whoever calls."""
        with _afresh:
            if self._pid == os.getpid():
                return
            self._lock = threading.RLock()
            self._held = []
            self.closing = threading.Event()
            self.emitter.after_fork()
            self.circuits.after_fork()
            self.metrics.after_fork()
            self.budget.after_fork()
            self.users.after_fork()
            self.connections.after_fork()
            for name in ("network", "features", "seen"):
                part: NetworkMonitor | Features | Seen | None = self._made.get(name)
                if part is not None:
                    part.after_fork()
            self._made.pop("chain", None)  # it may hold calls that the parent has in flight
            registry: Registry | None = self._made.get("registry")
            if registry is not None:
                registry.after_fork()
            transport: Transport | None = self._made.get("transport")
            if transport is not None:
                transport.abandon()
            self._pid = os.getpid()


def _on_circuit(event: CircuitStateChanged, outbox: Outbox) -> None:
    """The server is back: what was parked while it was away need not wait for the end of its back-off."""
    if event.circuit == "api" and event.new == "closed":
        outbox.wake()


def _make_seen() -> Seen:
    from .offline.seen import Seen

    return Seen()


def _read_message(row: Row) -> Message | None:
    return Message.from_dict(row.result) if row.result else None


def _is_outage(error: Exception) -> bool | None:
    """What counts against the circuit "auth": nothing but silence and 5xx. A refused refresh is an answer."""
    return isinstance(error, (NotSentError, OutcomeUnknownError, ServerError))


def _call_weakly(owner: Any, name: str, register: Callable[[Callable[[], None]], object]) -> None:
    """Register a method where nothing can be unregistered, without keeping its owner alive."""
    method = weakref.WeakMethod(getattr(owner, name))

    def call() -> None:
        bound = method()
        if bound is not None:
            bound()

    register(call)


def _at_exit_of_a_child(parts: Parts) -> None:
    """A child of multiprocessing ends without `atexit`, but with finalizers of its own."""
    process, util = (sys.modules.get(f"multiprocessing.{name}") for name in ("process", "util"))
    if process is not None and util is not None and process.parent_process() is not None:
        _call_weakly(parts, "at_exit", lambda call: util.Finalize(None, call, exitpriority=1))
