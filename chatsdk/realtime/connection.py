"""A realtime connection that keeps itself alive: one thread that connects, reads, and connects again.

    connect()             CLOSED or FAILED -> CONNECTING; the reader thread is started
    reader thread         token, dial, handshake, session; lost: DISCONNECTED, back-off, RECONNECTING, and again
    disconnect(), close() -> CLOSED at once; the reader thread says goodbye and ends

Rules.
1. There is never more than one reader thread; none before `connect`, none once CLOSED or FAILED. Only it touches the
   socket and the protocol object; other threads post functions to it (`post`).
2. What one `connect` began is a run (`Waiter`). Once it is stopped it moves no state any more, and each wait of it ends
   at once, whatever stage it is in; the next run may begin while the thread still takes leave.
3. The states move along the table in `core.protocols.states`; observers and events are told in that order, by whoever
   moved it, with no lock held. That is mostly the reader thread, and the listener is always called by it: none of them
   may block.
4. What may block (the token, a URL or headers that are made up) runs elsewhere: `errand`, or a thread of its own.
5. A forked child is CLOSED until it is used; it closes its copy of the socket and tells the server nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from random import random as system_random
from time import monotonic  # closing is bounded in real time, whatever clock is injected

from ..core.backoff import RECONNECTS, Backoff
from ..core.clock import Clock, Random
from ..core.errors import ChatError, ConnectionFailedError
from ..core.events import Event
from ..core.protocols.outputs import Output, RealtimeProtocol
from ..core.protocols.states import ConnectionState
from ..core.tokens import Secret
from ..resilience.circuits import CLOSED, Circuit
from ..resilience.process_lock import ProcessLock
from ..resilience.system_clock import SystemClock
from .attempt import Attempt, Headers, Lost
from .dial import Dialer, DialSettings
from .pulse import Pulse
from .reconnect import Losses, Reconnect
from .session import Listener, Mail, Meanwhile, Posted, Runner
from .standing import DOWN, Standing
from .status import ConnectionMetrics, shown_url
from .waiting import Start, Stopped, Waiter, Waker
from .wire import drop

OPEN_TIMEOUT = 10.0
"""Seconds from the connected socket until the server has taken us: handshake, and the protocol's own connect."""

TRANSIENT = 100
"""Fire-and-forget frames that wait for a connection (seed 004); the oldest is dropped."""

log = logging.getLogger("chatsdk.realtime")

_S = ConnectionState


def _tell_nobody(_: Event) -> None:
    """For connections that nobody listens to."""


class Connection:
    """Thread-safe.

    url               of the server (ws or wss), or a function that gives it and may block
    protocol          makes a protocol object, for each socket a new one
    listener          gets what a server said: a list of outputs a read, and the time (monotonic). See `session`.
    ws_token          `(force) -> Secret | None`, may block; force: the last one was refused. Its TokenExpiredError or
                      SettingsError ends the connection as FAILED, any other error is a failed try.
    headers           `(token) -> headers` of the handshake, may block
    errand            has a function run in another thread (False: it will not); else each gets a thread of its own
    meanwhile         what the reader thread has to do while the server has not taken us
    pulse             told of heartbeats
    dial              how to get there
    reconnect         the stages of back-off (`core.backoff.RECONNECTS`)
    circuit           shown, never delays
    emit              told of `Connected`, `Disconnected`, `ConnectionStateChanged`
    user              whom these are about
    max_message_bytes longest message that is taken
    open_timeout, close_timeout   seconds: until the server has taken us; that `close` takes at most
    """

    def __init__(
        self,
        url: str | Callable[[], str],
        protocol: Callable[[], RealtimeProtocol],
        listener: Listener,
        *,
        ws_token: Callable[[bool], Secret | None] | None = None,
        headers: Callable[[Secret | None], Headers] | None = None,
        errand: Start | None = None,
        meanwhile: Meanwhile | None = None,
        pulse: Pulse | None = None,
        dial: DialSettings | None = None,
        reconnect: Sequence[Backoff] = RECONNECTS["forever"],
        circuit: Circuit | None = None,
        emit: Callable[[Event], object] = _tell_nobody,
        user: str = "",
        max_message_bytes: int = 16 * 2**20,
        open_timeout: float = OPEN_TIMEOUT,
        close_timeout: float = 5.0,
        transient: int = TRANSIENT,
        clock: Clock | None = None,
        random: Random = system_random,
    ) -> None:
        self._clock = clock or SystemClock()
        self._random = random
        self._reconnect = Reconnect(reconnect)
        self._circuit = circuit
        self._close_timeout = close_timeout
        self._meanwhile = meanwhile
        self._mail = Mail(transient)
        self._runner = Runner(self._mail, listener)
        self._attempts = Attempt(
            url=url,
            protocol=protocol,
            ws_token=ws_token,
            headers=headers,
            errand=errand,
            dialer=Dialer(dial or DialSettings(), self._clock),
            runner=self._runner,
            post=self.post,
            pulse=pulse or Pulse(),
            clock=self._clock,
            max_message_bytes=max_message_bytes,
            open_timeout=open_timeout,
        )
        self._standing = Standing(self._clock, emit, user, self._reconnect.limit)
        self._changing = ProcessLock()
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        """As it is in a process that did not use it yet."""
        self._pid = os.getpid()
        self._run: Waiter | None = None
        self._pursued: Waiter | None = None
        self._thread: threading.Thread | None = None
        self._ended: threading.Thread | None = None
        self._waker: Waker | None = None

    # ---- by hand

    def connect(self, wait: float | None = None) -> bool:
        """Connect, and stay connected. Returns at once, or after at most `wait` seconds; whether it is connected.

        While a next try is waited for it is made now. Raises ConnectionFailedError: it was given up meanwhile, or
        this was closed for good.
        """
        self._here()
        with self._standing.lock:
            if self._closed:
                raise ConnectionFailedError("the connection is closed for good", code="closed", hint="make a new one")
            if self._standing.state is _S.DISCONNECTED:
                self.retry_now()
            elif self._standing.state in DOWN:
                self._start()
        self._standing.drain()
        return self.wait_connected(wait) if wait else self._standing.state is _S.CONNECTED

    def disconnect(self, timeout: float | None = None) -> bool:
        """End the connection, until `connect`. It is CLOSED at once; then waits at most `timeout` seconds (None:
        `close_timeout`) for the reader thread to let go of it. True if it has. Called from that thread (by an observer
        or the listener) it does not wait."""
        self._here()
        limit = self._close_timeout if timeout is None else timeout
        until = monotonic() + limit
        with self._standing.lock:
            thread, run = self._thread, self._run
            self._mail.clear()
            self._standing.closed()
            if run is not None:
                run.leave_within = limit
                run.stop()
        self._standing.drain()
        if run is None or thread is None or thread is threading.current_thread():
            return thread is None

        def let_go() -> bool:
            # it ended, or works for what another thread began meanwhile
            return self._thread is not thread or (self._run is not run and self._pursued is self._run)

        with self._standing.lock:
            gone = self._standing.changed.wait_for(let_go, limit)
            ended = self._thread is not thread
        if ended:
            thread.join(max(0.0, until - monotonic()))
        return gone

    def close(self, timeout: float | None = None) -> bool:
        """`disconnect`, for good. Idempotent."""
        self._here()
        with self._standing.lock:
            self._closed = True
        return self.disconnect(timeout)

    def retry_now(self) -> None:
        """The network is back: if a next try is waited for, make it now."""
        self._here()
        with self._standing.lock:
            if self._run is not None:
                self._run.hurry()

    def post(self, function: Posted) -> bool:
        """Have the reader thread call `function(protocol, now)`, soon and in the order of posting; `protocol` is None
        while the server has not taken us. What it returns is done like what the protocol's `receive` returns. False:
        there is no reader thread (CLOSED, FAILED), and it is not called; nor is it if that comes to be before."""
        self._here()
        with self._standing.lock:
            if self._waker is None or self._standing.state in DOWN:
                return False
            self._mail.lasting.append(function)
            self._waker.wake()
            return True

    def post_transient(self, function: Callable[[RealtimeProtocol, float], Sequence[Output] | None]) -> None:
        """The same, when we are connected: now or later. Of those that wait, the newest 100 are kept."""
        self._here()
        with self._standing.lock:
            self._mail.post_passing(function)  # type: ignore[arg-type]  # these are called with a protocol only
            if self._waker is not None and self._standing.state is _S.CONNECTED:
                self._waker.wake()

    def watch(self, observer: Callable[[ConnectionState], object]) -> Callable[[], None]:
        """Call `observer` with the state: now, and whenever it changes. Returns a function that ends that."""
        self._here()
        return self._standing.watch(observer)

    # ---- looking

    @property
    def state(self) -> ConnectionState:
        """Where it stands."""
        self._here()
        return self._standing.state

    @property
    def error(self) -> ChatError | None:
        """Why the last try failed or the connection was lost; None while it is connected, or was never lost."""
        self._here()
        return self._standing.error

    @property
    def reconnect_in(self) -> float | None:
        """Seconds until the next try, None: none is waited for."""
        self._here()
        return self._standing.reconnect_in

    @property
    def status_text(self) -> str:
        """A line for people: "Connected (45s)", "Reconnecting in 3s (attempt 2/10)"."""
        self._here()
        return self._standing.text()

    def metrics(self) -> ConnectionMetrics:
        """The figures."""
        self._here()
        with self._standing.lock:
            return ConnectionMetrics(
                state=self._standing.state,
                connected=self._standing.state is _S.CONNECTED,
                reconnects=self._standing.reconnects,
                queued_messages=len(self._mail.passing),
                dropped_messages=self._mail.dropped,
                connection_duration_ms=int(self._standing.connected_for * 1000),
                url=shown_url(self._attempts.url),
            )

    def wait_connected(self, timeout: float | None = None) -> bool:
        """Wait until it is connected, at most `timeout` seconds (None: without end, unless it is CLOSED); whether it
        is. Raises ConnectionFailedError once it is FAILED. On the reader thread it does not wait."""
        return self._wait_for(_S.CONNECTED, timeout)

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Wait until it is CLOSED, at most `timeout` seconds; whether it is. Raises ConnectionFailedError once it is
        FAILED: nothing will come any more. On the reader thread it does not wait."""
        return self._wait_for(_S.CLOSED, timeout)

    def _wait_for(self, state: ConnectionState, timeout: float | None) -> bool:
        self._here()
        on_reader = threading.current_thread() is self._thread
        return self._standing.wait_for(state, 0.0 if on_reader else timeout)

    # ---- forks

    def after_fork(self) -> None:
        """In a forked child: let go of the parent's socket, and be CLOSED. Also found out by pid, whatever is used."""
        self._here()

    def _here(self) -> None:
        if self._pid == os.getpid():
            return
        with self._changing:
            if self._pid == os.getpid():
                return
            run, waker = self._run, self._waker
            if run is not None and run.held is not None:
                drop(run.held)
            if waker is not None:
                waker.abandon()
            self._mail.clear()
            self._standing.after_fork()
            self._attempts.after_fork()
            self._begin()

    # ---- the reader thread

    def _start(self) -> None:
        """With the lock held: begin a run."""
        if self._waker is None:
            self._waker = Waker()
        self._run = Waiter(self._clock, self._waker, self._between)
        self._standing.connecting()
        if self._thread is not None:
            self._waker.wake()  # it still takes leave, and goes on with this run
            return
        if self._ended is not None:
            self._ended.join()  # its last step is behind it
        thread = threading.Thread(target=self._main, name="chatsdk-realtime", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the interpreter ends, or the system has no thread left
            self._run.stopped = True
            self._waker.close()
            self._waker = None
            self._standing.failed(Lost(ConnectionFailedError(f"no thread could be started: {error}", code="thread")))
        else:
            self._thread = thread

    def _main(self) -> None:
        while True:
            with self._standing.lock:
                run, waker = self._run, self._waker
                self._pursued = run
                if run is None or waker is None or run.stopped:
                    return self._end_thread()
                self._standing.changed.notify_all()
            try:
                self._pursue(run, waker)
            except Stopped:
                log.debug("the realtime connection was ended")
            except Exception as error:  # a mistake of ours: as loud as can be, and never a thread that is silently gone
                log.exception("the realtime connection failed")
                with contextlib.suppress(Stopped):
                    self._fail(run, Lost(ConnectionFailedError(f"internal: {type(error).__name__}", code="internal")))
            self._attempts.forget()
            if self._meanwhile is not None:
                self._runner.over(self._meanwhile)

    def _end_thread(self) -> None:
        """With the lock held."""
        self._ended, self._thread, self._pursued = self._thread, None, None
        self._mail.clear()
        if self._waker is not None:
            self._waker.close()
            self._waker = None
        self._standing.changed.notify_all()

    def _pursue(self, run: Waiter, waker: Waker) -> None:
        """Connect again and again, until there is no next try. Raises Stopped."""
        losses, waited, fresh_token = Losses(), 0.0, False
        while True:
            lost = self._attempts.make(run, waker, fresh_token, lambda: self._opened(run))
            fresh_token = lost.fresh_token
            if lost.lived is None:
                failures = losses.failed()
                self._count(lost.error)
            else:
                failures = losses.lost(self._clock.monotonic(), lost.lived, waited, cut=lost.cut)
            delay = self._reconnect.delay(failures, self._random(), lost.asked) if lost.reconnect else None
            if delay is None:
                return self._fail(run, lost)
            waited = delay
            self._report(lost, failures, delay)
            until = self._clock.monotonic() + delay
            with self._standing.lock:
                run.check()
                run.announce_pause()  # who sees the new state may hurry at once
                self._standing.disconnected(lost, failures, until)
            self._standing.drain()
            run.pause(until)
            with self._standing.lock:
                run.check()
                self._standing.reconnecting()
            self._standing.drain()

    def _opened(self, run: Waiter) -> None:
        self._count(None)
        with self._standing.lock:
            run.check()
            if self._standing.connections and self._standing.error is not None:
                log.info("realtime is connected again")
            self._standing.connected()
        self._standing.drain()

    def _fail(self, run: Waiter, lost: Lost) -> None:
        with self._standing.lock:
            run.check()
            run.stopped = True
            log.error("the realtime connection was given up: %s", lost.error)
            self._standing.failed(lost)
        self._standing.drain()

    def _between(self, now: float) -> float | None:
        """While there is no session: what was posted, and what is due."""
        outputs = self._runner.lasting(None, now)
        if outputs:
            self._runner.listen(outputs, now)
        return None if self._meanwhile is None else self._runner.meanwhile(self._meanwhile, now)

    def _count(self, error: ChatError | None) -> None:
        """Show it in the circuit; it is never asked whether to try."""
        circuit = self._circuit
        if circuit is None:
            return None
        if error is None and circuit.state != CLOSED:
            return circuit.reset()

        def outcome() -> None:
            if error is not None:
                raise error

        try:
            circuit.call(outcome)
        except ChatError:  # the one that was counted, or that the circuit is open
            return None

    @staticmethod
    def _report(lost: Lost, failures: int, delay: float) -> None:
        """One line an outage."""
        level = logging.WARNING if failures == 1 else logging.DEBUG
        log.log(level, "realtime is not connected: %s; trying again in %.1f s", lost.error.message, delay)
