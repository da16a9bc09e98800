"""One open socket, from the handshake to its end: the loop that feeds a protocol object and does what it says.

A turn of the loop: what is due, what other threads posted, then a wait for the socket, the next due time or a word from
outside; then one read, and one batch to the listener. Only the reader thread is in here, so nothing is locked.

`Send`, `Ping`, `Close`, heartbeats and the wish for the connection's own token are dealt with here; everything else
goes to the listener.
After an `Opened`, the last that it hears is one `Close`, whoever caused that.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from ..core.clock import Clock
from ..core.protocols.outputs import Close, Heartbeat, Opened, Output, Ping, RealtimeProtocol, Send, TokenWanted
from ..core.tokens import Secret
from .frames import ABNORMAL, Ended, Frames
from .pulse import Pulse
from .waiting import FOREVER, LEAST_WAIT, Waiter, Waker

MAX_UNSENT = 2**20
"""Bytes unsent from which on posted functions wait, because most of them send."""

SEND_TIMEOUT = 10.0
"""Seconds without the peer taking anything of what is to be sent; then it is gone."""

LEAVE_TIMEOUT = 0.5
"""Seconds that a peer has to answer our close frame."""

RECOVER_IN = 1.0
"""Seconds until what raised is called again."""

_OURS = frozenset((Send, Ping, Close, Opened, TokenWanted, Heartbeat))

log = logging.getLogger("chatsdk.realtime")

Posted: TypeAlias = "Callable[[RealtimeProtocol | None, float], Sequence[Output] | None]"
"""A function for the reader thread: called with the protocol object (None while the connection is not open) and the
time; what it returns is done like what `receive` returns."""

Listener: TypeAlias = "Callable[[list[Output], float], object]"


class Meanwhile(Protocol):
    """What the reader thread has to do besides, while the server has not taken us."""

    def work_without(self, now: float) -> float | None:
        """Do what is due; when to be called again at the latest."""
        ...

    def over(self) -> None:
        """The connection was ended or given up: there will be nothing to do until the next one."""
        ...


class Mail:
    """What other threads posted. `lasting`: run as soon as possible; `passing`: only while the connection is open, of
    no use after a while, so the newest `most` are kept."""

    def __init__(self, most: int) -> None:
        self.lasting: deque[Posted] = deque()
        self.passing: deque[Posted] = deque()
        self._most = most
        self.dropped = 0

    def post_passing(self, function: Posted) -> None:
        """Add one; the oldest goes if there are too many. With the connection's lock held."""
        self.passing.append(function)
        if len(self.passing) > self._most:
            self.passing.popleft()
            self.dropped += 1

    def clear(self) -> None:
        """Nobody will run it."""
        self.lasting.clear()
        self.passing.clear()


class Runner:
    """Runs posted functions and the listener; one that raises is reported, and the connection goes on."""

    def __init__(self, mail: Mail, listener: Listener) -> None:
        self._mail = mail
        self._listener = listener
        self._blamed = False

    def lasting(self, protocol: RealtimeProtocol | None, now: float) -> list[Output]:
        """Run what is there now, not what that posts."""
        return self._run(self._mail.lasting, protocol, now)

    def passing(self, protocol: RealtimeProtocol, now: float) -> list[Output]:
        """The same, for what needs an open connection."""
        return self._run(self._mail.passing, protocol, now)

    def listen(self, outputs: list[Output], now: float) -> None:
        """Tell the listener."""
        try:
            self._listener(outputs, now)
        except Exception as error:
            self._blame("the listener of the connection raised; it is still told, but not reported again", error)

    def meanwhile(self, what: Meanwhile, now: float) -> float | None:
        """What is to be done without a connection; when again."""
        try:
            return what.work_without(now)
        except Exception as error:
            self._blame("what is done without a connection raised; it goes on, but is not reported again", error)
            return now + RECOVER_IN

    def over(self, what: Meanwhile) -> None:
        """The connection was ended."""
        try:
            what.over()
        except Exception as error:
            self._blame("what follows the end of a connection raised", error)

    def _blame(self, text: str, error: Exception) -> None:
        if not self._blamed:
            self._blamed = True
            log.error("%s", text, exc_info=error)

    @staticmethod
    def _run(functions: deque[Posted], protocol: RealtimeProtocol | None, now: float) -> list[Output]:
        outputs: list[Output] = []
        for _ in range(len(functions)):
            try:
                function = functions.popleft()
            except IndexError:  # the oldest was dropped meanwhile
                break
            try:
                outputs += function(protocol, now) or ()
            except Exception:
                log.exception("a function that was posted to the connection raised")
        return outputs


class Session:
    """`run` it, once. `opened_at`: when the server took us (monotonic), None: not yet."""

    def __init__(
        self,
        frames: Frames,
        protocol: RealtimeProtocol,
        *,
        runner: Runner,
        waiter: Waiter,
        clock: Clock,
        pulse: Pulse,
        opened: Callable[[], object],
        renew: Callable[[RealtimeProtocol, bool], object],
    ) -> None:
        self._frames = frames
        self._wire = frames.wire
        self._protocol = protocol
        self._runner = runner
        self._waiter = waiter
        self._clock = clock
        self._pulse = pulse
        self._opened = opened
        self._renew = renew
        self._end: Close | None = None
        self._took_at: float | None = None
        self.opened_at: float | None = None

    def run(self, token: Secret | None, open_until: float) -> Close:
        """Until the connection ends; it must be open by `open_until`. Raises Stopped."""
        now = self._clock.monotonic()
        self._obey(self._protocol.opened(token, now), now)
        self._receive(self._frames.cut(), now)  # what came together with the handshake's answer
        while self._end is None:
            self._turn(open_until)
        self._tell_end(self._end)
        return self._end

    def leave(self, waker: Waker, timeout: float) -> None:
        """We were stopped: say so, and give the peer a moment to answer; what it still sends is passed over."""
        self._tell_end(Close(0, "ended by us", reconnect=False))
        until = self._clock.monotonic() + min(LEAVE_TIMEOUT, timeout)
        self._frames.close()
        while self._frames.ended is None and (left := until - self._clock.monotonic()) > 0:
            readable, writable = waker.wait(self._wire.sock, self._wire.wants_to_write, left)
            if writable:
                self._flush()
            if readable:
                self._frames.texts()

    @property
    def cut(self) -> bool:
        """The connection broke: nobody said why."""
        ended = self._frames.ended
        return ended is not None and ended.code == ABNORMAL

    # ---- a turn

    def _turn(self, open_until: float) -> None:
        is_open = self.opened_at is not None  # who opens by what is due has something else to say first
        due = self._protocol.next_due()
        now = self._clock.monotonic()  # after it: what is due "now" is due
        if due is not None and due <= now:
            self._obey(self._protocol.due(now), now)
            due = self._protocol.next_due()
            due = None if due is None else max(due, now + LEAST_WAIT)
        if self._wire.unsent < MAX_UNSENT:
            self._obey(self._runner.lasting(self._protocol if is_open else None, now), now)
            if is_open:
                self._obey(self._runner.passing(self._protocol, now), now)
                due = self._feel(now, due)
        until = self._limits(now, open_until, now + FOREVER if due is None else due)
        if self._end is None and self._frames.ended is None:
            self._wait(until)
        if self._frames.ended is not None and self._end is None:
            self._end = self._closed(self._frames.ended)

    def _feel(self, now: float, due: float | None) -> float | None:
        """Ping, if that is due; the sooner of `due` and the next time for it."""
        ping = self._pulse.due(now)
        if ping is not None:
            self._frames.ping(ping)
        next = self._pulse.next_due()
        return due if next is None else next if due is None else min(due, next)

    def _wait(self, until: float) -> None:
        readable, writable = self._waiter.wait(self._wire.sock, self._wire.wants_to_write, until)
        if writable:
            self._flush()
        if readable:
            texts = self._frames.texts()
            now = self._clock.monotonic()
            if self._frames.came:
                self._protocol.heard(now)
            while self._frames.pongs:
                self._pulse.pong(self._frames.pongs.popleft(), now)
            self._receive(texts, now)

    def _receive(self, texts: list[str], now: float) -> None:
        if texts:
            self._obey(self._protocol.receive_all(texts, now), now)

    def _limits(self, now: float, open_until: float, until: float) -> float:
        """What must have happened by when, besides what the protocol waits for."""
        if self.opened_at is None:
            if now >= open_until:
                self._end = self._end or Close(0, "the server did not take us in time")
            until = min(until, open_until)
        if not self._wire.unsent:
            self._took_at = None
        elif self._took_at is None:
            self._took_at = now
        elif now >= self._took_at + SEND_TIMEOUT:
            self._end = self._end or Close(0, "the server takes nothing that we send")
        return until if self._took_at is None else min(until, self._took_at + SEND_TIMEOUT)

    def _flush(self) -> None:
        try:
            if self._wire.flush():
                self._took_at = None
        except OSError as error:
            self._frames.ended = self._frames.ended or Ended(ABNORMAL, error.strerror or type(error).__name__)

    # ---- what the protocol says

    def _obey(self, outputs: list[Output], now: float) -> None:
        if not outputs or self._is_over():
            return
        if _OURS.isdisjoint(map(type, outputs)):  # publications: nearly every read
            self._runner.listen(outputs, now)
            return
        others: list[Output] = []
        for output in outputs:
            kind = type(output)
            if kind not in _OURS or not self._do(output, now):
                others.append(output)
            if self._is_over():
                break
        if others:
            self._runner.listen(others, now)

    def _is_over(self) -> bool:
        return self._end is not None

    def _do(self, output: Output, now: float) -> bool:
        """False if the listener should hear it as well."""
        if isinstance(output, Send):
            try:
                self._frames.send(output.text)
            except OSError as error:
                self._frames.ended = self._frames.ended or Ended(ABNORMAL, error.strerror or type(error).__name__)
        elif isinstance(output, Ping):
            self._frames.ping(b"")
        elif isinstance(output, Close):
            self._end = output
            self._frames.close()
        elif isinstance(output, TokenWanted):
            if output.stream is not None:
                return False
            self._renew(self._protocol, output.refused)
        elif isinstance(output, Heartbeat):
            self._pulse.beat(output.latency, output.ok, now)
        elif isinstance(output, Opened):
            if self.opened_at is None:
                self.opened_at = now
                self._pulse.begin(now)
                self._opened()
            return False
        return True

    def _closed(self, ended: Ended) -> Close:
        close = self._protocol.closed(ABNORMAL if ended.ours else ended.code, ended.reason)
        return Close(0, f"{ended.reason} from the server") if ended.ours else close

    def _tell_end(self, close: Close) -> None:
        if self.opened_at is not None:
            self._runner.listen([close], self._clock.monotonic())
