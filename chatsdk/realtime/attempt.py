"""One try: token, dial, handshake, session; and how it ended, as a value.

The token comes first: it may have to be fetched, and a socket that waits for it might be closed by the server. It is
asked elsewhere, because it may block. If that takes too long the try has failed, but the question stays: the next try
waits for the same answer, so a token source that hangs is asked once, not again and again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

from ..core.clock import Clock
from ..core.errors import (
    ChatError,
    ConnectionFailedError,
    ConnectTimeoutError,
    SettingsError,
    StatusError,
    TokenExpiredError,
    TokenUnavailableError,
)
from ..core.protocols.outputs import Close, Output, RealtimeProtocol
from ..core.tokens import Secret
from .dial import Dialer
from .frames import open_frames
from .pulse import Pulse
from .session import Posted, Runner, Session
from .waiting import Question, Start, Stopped, Waiter, Waker
from .wire import Wire

TOKEN_TIMEOUT = 30.0
"""Seconds that a token may take until the try counts as failed."""

UNREACHED = frozenset({"connect", "dns"})
"""Codes of a dial (beside time-outs) that found no way to the server. What a proxy or TLS says is another matter."""

FINAL = (TokenExpiredError, SettingsError)
"""Errors that no further try would mend."""

log = logging.getLogger("chatsdk.realtime")

Headers = Mapping[str, "str | Secret"]


class Lost(NamedTuple):
    """How a try ended.

    lived        seconds that it was open, None: never
    cut          it was open, and lost without a word
    code         the server's close code, 0: none
    reconnect    whether another try makes sense
    fresh_token  the next one needs another token
    asked        seconds that the server asked us to wait, or None
    """

    error: ChatError
    lived: float | None = None
    code: int = 0
    reconnect: bool = True
    fresh_token: bool = False
    asked: float | None = None
    cut: bool = False


class _Ready(NamedTuple):
    """What a try begins with."""

    url: str
    token: Secret | None
    headers: Headers


class Attempt:
    """`make` one after the other; see `connection.Connection` for the arguments. Only the reader thread is in here."""

    def __init__(
        self,
        *,
        url: str | Callable[[], str],
        protocol: Callable[[], RealtimeProtocol],
        ws_token: Callable[[bool], Secret | None] | None,
        headers: Callable[[Secret | None], Headers] | None,
        errand: Start | None,
        dialer: Dialer,
        runner: Runner,
        post: Callable[[Posted], bool],
        pulse: Pulse,
        clock: Clock,
        max_message_bytes: int,
        open_timeout: float,
    ) -> None:
        self._url = url
        self._protocol = protocol
        self._ws_token = ws_token
        self._headers = headers
        self._errand = errand
        self._dialer = dialer
        self._runner = runner
        self._post = post
        self._pulse = pulse
        self._clock = clock
        self._max_message_bytes = max_message_bytes
        self._open_timeout = open_timeout
        self._question: Question[_Ready] | None = None
        self._renewing: RealtimeProtocol | None = None
        self._forbidden = False  # since it was open the last time
        self.url = url if isinstance(url, str) else ""

    def make(self, waiter: Waiter, waker: Waker, fresh_token: bool, opened: Callable[[], object]) -> Lost:
        """One try, to its end. opened: called when the server has taken us. Raises Stopped."""
        try:
            ready = self._ready(waiter, fresh_token)
            self.url = ready.url
        except ChatError as error:
            return Lost(error, reconnect=not isinstance(error, FINAL))
        try:
            wire = Wire(self._dialer.dial(ready.url, waiter))
        except ChatError as error:
            if error.code in UNREACHED or isinstance(error, ConnectTimeoutError):
                self._pulse.unreached()
            return Lost(error, reconnect=not isinstance(error, FINAL))
        try:
            return self._talk(wire, ready, waiter, waker, opened)
        except ChatError as error:
            return self._refused(error)
        finally:
            waiter.hold(None)
            wire.end()

    def forget(self) -> None:
        """The run ended: what was asked for it is of no use."""
        self._question = None

    def after_fork(self) -> None:
        """In a forked child: nobody is asked there."""
        self.forget()
        self._dialer.after_fork()

    # ---- the stages

    def _ready(self, waiter: Waiter, fresh_token: bool) -> _Ready:
        if isinstance(self._url, str) and self._ws_token is None and self._headers is None:
            return _Ready(self._url, None, {})
        if self._question is None:
            try:
                self._question = waiter.begin(lambda: self._prepare(fresh_token), self._errand)
            except RuntimeError as error:
                raise TokenUnavailableError(f"nobody could be asked for a token: {error}") from error
        question = self._question
        try:
            ready = waiter.answer(question, self._clock.monotonic() + TOKEN_TIMEOUT)
        except Exception as error:
            if isinstance(error, (ChatError, Stopped)):
                raise
            if not question.done:
                raise TokenUnavailableError(f"no token within {TOKEN_TIMEOUT:g} s") from error
            log.exception("the token source raised")
            raise TokenUnavailableError(f"the token source raised {type(error).__name__}") from error
        finally:
            if question.done:
                self._question = None
        return ready

    def _prepare(self, fresh_token: bool) -> _Ready:
        url = self._url if isinstance(self._url, str) else self._url()
        token = None if self._ws_token is None else self._ws_token(fresh_token)
        return _Ready(url, token, {} if self._headers is None else self._headers(token))

    def _talk(self, wire: Wire, ready: _Ready, waiter: Waiter, waker: Waker, opened: Callable[[], object]) -> Lost:
        protocol = self._protocol()
        open_until = self._clock.monotonic() + self._open_timeout
        frames = open_frames(
            wire,
            ready.url,
            waiter,
            open_until,
            headers=ready.headers,
            subprotocols=protocol.subprotocols,
            max_size=self._max_message_bytes,
        )
        session = Session(
            frames,
            protocol,
            runner=self._runner,
            waiter=waiter,
            clock=self._clock,
            pulse=self._pulse,
            opened=opened,
            renew=self._renew,
        )
        try:
            close = session.run(ready.token, open_until)
        except Stopped:
            session.leave(waker, waiter.leave_within)
            raise
        lived = None
        if session.opened_at is not None:
            lived, self._forbidden = self._clock.monotonic() - session.opened_at, False
        return Lost(_lost(close), lived, close.code, close.reconnect, close.fresh_token, cut=session.cut)

    def _refused(self, error: ChatError) -> Lost:
        """The handshake failed. A 403 may be about the token, so another one is tried; a second one is not: then it is
        something in between that permits no websocket, and tokens would be renewed for nothing with each try."""
        status = error.status if isinstance(error, StatusError) else 0
        asked = error.retry_after if isinstance(error, StatusError) else None
        fresh = status == 401 or (status == 403 and not self._forbidden)
        self._forbidden = self._forbidden or status == 403
        return Lost(error, reconnect=not isinstance(error, FINAL), fresh_token=fresh, asked=asked)

    def _renew(self, protocol: RealtimeProtocol, refused: bool) -> None:
        """The connection's token runs out: fetch one elsewhere, and give it to the protocol object that asked. If that
        fails, the protocol asks again."""
        ws_token = self._ws_token
        if ws_token is None or self._renewing is protocol:
            return
        self._renewing = protocol

        def fetch() -> None:
            try:
                token = ws_token(refused)
            except Exception as error:
                log.warning("the realtime connection's token could not be renewed: %s", error)
                token = None

            def give(current: RealtimeProtocol | None, now: float) -> list[Output]:
                if self._renewing is protocol:
                    self._renewing = None
                return protocol.renew(None, token, now) if token is not None and current is protocol else []

            self._post(give)

        try:
            Question(fetch, None).begin(self._errand)
        except RuntimeError as error:
            self._renewing = None
            log.debug("nobody could be asked for a token: %s", error)


def _lost(close: Close) -> ChatError:
    code = f"server_{close.code}" if close.code else "lost"
    text = close.reason or "the server closed the connection"
    return ConnectionFailedError(text, code=code, hint=_HINTS.get(close.code))


_HINTS = {
    3500: "the realtime server refuses the token: ws_token (CHATSDK_WS_TOKEN) must be one that is signed for it; an"
    " access token is signed with another secret",
    3503: "the server's operator ended the connection, as for a revoked token",
}
"""What to do about close codes that mean to stay away."""
