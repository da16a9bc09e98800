"""The bare exchange with one server: the end of the chain, and the only file that knows requests.

* One adapter a transport, imported and opened at the first request: a process that only enqueues never pays for it.
  The environment (proxies, certificates) is read once, then; `.netrc` never, which would replace our token.
* The request is built by hand and sent by `HTTPAdapter.send` (so `responses` can stand in its place). No cookies, no
  automatic redirects; secrets go to the configured origin and nowhere else.
* One deadline covers everything, on one connection or two: an idle connection that turns out to be dead is replaced
  once, if doing the request twice would do no harm. One that died in silence cost a whole deadline; then, when the
  machine slept, and after a long silence, the other idle ones are not trusted either.
* Every failure is one of ours: NotSentError (nothing left this machine), ConnectTimeoutError, DeadlineExceeded,
  OutcomeUnknownError, CaptivePortalError, InvalidResponseError, StatusError.
"""

from __future__ import annotations

import http.client
import logging
import os
import sys
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from ..core.clock import Clock
from ..core.errors import (
    ChatError,
    ConnectTimeoutError,
    DeadlineExceeded,
    InvalidResponseError,
    NotSentError,
    OutcomeUnknownError,
    SettingsError,
    StatusError,
)
from ..core.exchange import Request, Response
from ..core.tokens import Secret
from ..resilience.deadline import nothing_sent
from ..resilience.system_clock import SystemClock
from .adapter import OneServer
from .answers import Answer, TooLarge, inflate, origin, read_answer, redirect
from .outgoing import prepare
from .resolver import Resolver

if TYPE_CHECKING:
    from requests.adapters import HTTPAdapter

    from ..core.settings import Settings
    from .wire import Exchange

log = logging.getLogger("chatsdk.transport")

POOL_SIZE = 64
"""Idle connections kept; a client with more threads than that opens and closes some."""

TIME_LEFT = "X-Request-Timeout"
"""Seconds that the caller still waits, as decimal text: a server need not work for one who has gone."""

PIECE = 64 * 2**10
"""Bytes of a compressed body that are unpacked at once."""

PATIENT = 0.5
"""Seconds of silence from which on a connection may be dead; a shorter deadline says more about the caller."""

SLEPT = 30.0
"""Seconds by which the wall clock gets ahead of the monotonic one, which stands still while a machine sleeps."""

IDLE = 300.0
"""Seconds without an answer after which routers may have forgotten our connections (RFC 5382 asks them for two hours;
many take minutes)."""


class Transport:
    """`transport(request) -> Response`, thread-safe.

    base_url            of the server, with a path if it lies below one
    timeout             seconds for an exchange whose request has no deadline
    connect_timeout     seconds for lookup, connecting and TLS
    max_response_bytes  longest body, decompressed
    proxy               URL for all requests; else, with `trust_env`, what HTTPS_PROXY, NO_PROXY and the like say
    ca_bundle           file or directory of certificates; else, with `trust_env`, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE
    threaded_dns        look names up in a helper thread, bounded by the deadline
    on_skew             called with the server's clock minus ours, in seconds, at most once a second

    Raises SettingsError for a base_url that is none.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 10.0,
        connect_timeout: float = 5.0,
        max_response_bytes: int = 16 * 2**20,
        proxy: Secret | str | None = None,
        trust_env: bool = False,
        ca_bundle: str = "",
        threaded_dns: bool = True,
        clock: Clock | None = None,
        on_skew: Callable[[float], object] | None = None,
        user_agent: str = "",
    ) -> None:
        url = _split(base_url)
        self._origin = f"{url.scheme}://{url.netloc}"
        self._prefix = url.path.rstrip("/")
        self._timeout = timeout
        self._connect_timeout = connect_timeout
        self._max_bytes = max_response_bytes
        self._proxy = Secret(proxy) if proxy else None
        self._trust_env = trust_env
        self._ca_bundle = ca_bundle
        self._clock = clock or SystemClock()
        self._on_skew = on_skew
        self._last_date = ""
        self._resolver = Resolver(threaded=threaded_dns)
        self._user_agent = user_agent
        self._lock = threading.Lock()
        self._open: _Opened | None = None
        self._closed = False

    @classmethod
    def from_settings(
        cls, settings: Settings, *, clock: Clock | None = None, on_skew: Callable[[float], object] | None = None
    ) -> Transport:
        """The transport that the settings describe. Raises SettingsError."""
        return cls(
            settings.require("url"),
            timeout=settings.timeout,
            connect_timeout=settings.connect_timeout,
            max_response_bytes=settings.max_response_bytes,
            proxy=settings.proxy,
            trust_env=settings.trust_env,
            ca_bundle=settings.ca_bundle,
            threaded_dns=settings.background,
            clock=clock,
            on_skew=on_skew,
        )

    def __call__(self, request: Request) -> Response:
        """One exchange, or two if the server redirects within its origin."""
        deadline = request.deadline
        if deadline is None:
            deadline = self._clock.monotonic() + self._timeout
        target, headers, data = prepare(request)
        target = self._prefix + target
        again = request.is_read or request.repeatable or request.key is not None
        method, followed = request.method, False
        while True:
            try:
                answer = self.exchange(
                    method,
                    target,
                    headers,
                    data,
                    deadline=deadline,
                    again=again,
                    connect_timeout=request.connect_timeout,
                    max_bytes=request.max_bytes,
                )
                if 300 <= answer.status < 400:
                    where = redirect(answer, request, self._origin + target, followed=followed)
                    if where is not None:
                        url = urlsplit(where)
                        target = url._replace(scheme="", netloc="", fragment="").geturl()
                        method, data, followed, again = "GET", None, True, True
                        headers.pop("Content-Type", None)
                        continue
                response = read_answer(answer, request, now=self._clock.time())
            except ChatError as error:
                error.request_id = request.correlation_id or None
                if log.isEnabledFor(logging.DEBUG):
                    self._log(request, deadline, _how(error))
                if isinstance(error, StatusError) and error.status < 500:
                    self._observe_date(answer)  # a 401 may be due to the clock
                raise
            self._observe_date(answer)
            if log.isEnabledFor(logging.DEBUG):
                self._log(request, deadline, f"{answer.status} in {answer.elapsed * 1000:.1f} ms")
            return response

    def exchange(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        data: bytes | None,
        *,
        deadline: float,
        again: bool = False,
        connect_timeout: float | None = None,
        max_bytes: int | None = None,
    ) -> Answer:
        """Send bytes, get bytes: any status is an answer, and no redirect is followed. The server is told how many
        seconds are left (TIME_LEFT).

        target: path and query; again: it does no harm if the server does it twice. Raises NotSentError,
        ConnectTimeoutError, OutcomeUnknownError, DeadlineExceeded, InvalidResponseError.
        """
        began = self._clock.monotonic()
        if began >= deadline:
            raise nothing_sent()
        opened = self._opened()
        connect_until = min(deadline, began + (connect_timeout or self._connect_timeout))
        for fresh in (False, True):
            exchange = opened.begin(deadline, connect_until, fresh)
            try:
                status, received, body = opened.run(
                    exchange,
                    method,
                    self._origin + target,
                    headers,
                    data,
                    self._max_bytes if max_bytes is None else max_bytes,
                )
                break
            except opened.errors as error:
                died_idle = exchange.reused and exchange.sent and not exchange.heard
                if died_idle:
                    opened.distrust(exchange, began)
                if fresh or not again or not died_idle or self._clock.monotonic() >= deadline:
                    explained = self._explain(exchange, error)
                    raise (_went_out_before(explained) if fresh else explained) from error
        opened.heard_at = now = self._clock.monotonic()
        return Answer(status, received, body, now - began)

    def close(self) -> None:
        """Close idle connections; what is under way ends by itself. Idempotent; later requests raise NotSentError."""
        with self._lock:
            self._closed = True
            opened, self._open = self._open, None
        if opened is not None:
            opened.adapter.close()

    @property
    def making(self) -> threading.Lock:
        """Held while libraries are imported: a fork waits for it."""
        return self._lock

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connections without a word to the server, and start afresh."""
        opened, self._open = self._open, None
        self._lock = threading.Lock()
        self._resolver.after_fork()
        if opened is not None:
            opened.abandon()

    # ---- before

    def _opened(self) -> _Opened:
        opened = self._open
        if opened is None:
            with self._lock:
                if self._closed:
                    raise NotSentError("the client is closed", code="closed", retryable=False, hint="make a new one")
                if self._open is None:
                    self._open = _Opened(self, self._user_agent)
                opened = self._open
        return opened

    # ---- after

    def _explain(self, exchange: Exchange, error: Exception) -> ChatError:
        """What `error` of requests, urllib3, http.client or the system means."""
        if exchange.failure is not None and not exchange.sent:
            return exchange.failure
        cause = _root(error)
        late = isinstance(cause, TimeoutError) or self._clock.monotonic() >= exchange.deadline
        if not exchange.sent:
            if isinstance(cause, ValueError):
                return NotSentError(f"the request can't be sent: {cause}", code="invalid_request", retryable=False)
            text = f"no connection to {self._origin}"
            return ConnectTimeoutError(text) if late else NotSentError(f"{text}: {_named(cause)}")
        if isinstance(cause, TooLarge):
            return InvalidResponseError(
                "the answer is too large", code="too_large", hint="raise max_response_bytes, or ask for less at once"
            )
        if late:
            return DeadlineExceeded("no whole answer before the deadline")
        if isinstance(cause, ConnectionError):  # also http.client.RemoteDisconnected: no answer at all
            return OutcomeUnknownError(f"the connection broke: {_named(cause)}")
        if isinstance(cause, OSError):
            return OutcomeUnknownError(f"the connection failed: {_named(cause)}")
        if isinstance(cause, http.client.IncompleteRead):
            return OutcomeUnknownError("the answer broke off")
        return InvalidResponseError(f"the answer can't be read: {_named(cause)}")

    def _log(self, request: Request, deadline: float, how: str) -> None:
        """One line a try: without the query, which may be somebody's words."""
        what, left = "try %d, %s %s: %s, %.3f s are left", deadline - self._clock.monotonic()
        facts = {"correlation_id": request.correlation_id}
        log.debug(what, request.attempt, request.method, request.path, how, left, extra=facts)

    def _observe_date(self, answer: Answer) -> None:
        if self._on_skew is None:
            return
        date = answer.headers.get("date", "")
        if not date or date == self._last_date:
            return
        self._last_date = date
        try:
            server = parsedate_to_datetime(date).timestamp() + 0.5  # whole seconds, cut off
        except (ValueError, TypeError, OverflowError):
            return
        self._on_skew(server - (self._clock.time() - answer.elapsed / 2))


def _how(error: ChatError) -> str:
    """How a try ended, for the log: no text, which may be a server's."""
    name = type(error).__name__
    return f"{error.status} ({name})" if isinstance(error, StatusError) else f"{name} ({error.code})"


def _went_out_before(error: ChatError) -> ChatError:
    """What the second try's error means: the first one left this machine, and nobody knows how far it came."""
    if not isinstance(error, NotSentError):
        return error
    if isinstance(error, TimeoutError):
        return DeadlineExceeded("no answer on a connection that died, and no other one before the deadline")
    return OutcomeUnknownError(f"no answer on a connection that died; then {error.message}")


class _Opened:
    """What a transport has once it is open. Importing requests takes longer than many a script runs."""

    def __init__(self, transport: Transport, user_agent: str) -> None:
        import requests
        import urllib3
        from requests.adapters import HTTPAdapter
        from requests.models import PreparedRequest
        from requests.utils import get_environ_proxies

        from . import wire

        self.errors = (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            http.client.HTTPException,
            OSError,
            ValueError,
            zlib.error,
            TooLarge,
        )
        self._wire = wire
        self._prepared = PreparedRequest
        self._monotonic = transport._clock.monotonic
        self._time = transport._clock.time
        self._ahead = self._time() - self._monotonic()
        self._epoch = 0
        self._doubted_at = self._monotonic()
        self.heard_at = float("-inf")
        """When an answer came last."""
        self._resolver = transport._resolver
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self._agent = user_agent or f"chatsdk/{_version()}"
        url, trust = transport._origin, transport._trust_env
        self.verify: bool | str = transport._ca_bundle or True
        self.proxies: dict[str, str] = {}
        if transport._proxy is not None:
            self.proxies = dict.fromkeys(("http", "https"), transport._proxy.reveal())
        elif trust:
            self.proxies = get_environ_proxies(url)
        if trust and not transport._ca_bundle:
            self.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        adapter = type("Adapter", (OneServer, HTTPAdapter), {"response_class": requests.Response})
        self.adapter: HTTPAdapter = adapter(pool_connections=4, pool_maxsize=POOL_SIZE, max_retries=0)
        if wire.POOLS:
            self.adapter.poolmanager.pool_classes_by_scheme = wire.POOLS
            try:
                for proxy in set(self.proxies.values()):
                    self.adapter.proxy_manager_for(proxy).pool_classes_by_scheme = wire.POOLS
            except (requests.RequestException, ValueError) as error:
                raise SettingsError(f"the proxy can't be used: {type(error).__name__}", code="proxy") from None

    def begin(self, deadline: float, connect_until: float, fresh: bool) -> Exchange:
        """The books of one exchange."""
        now = self._monotonic()
        ahead = self._time() - now
        if ahead - self._ahead > SLEPT or now - max(self.heard_at, self._doubted_at) > IDLE:
            self._epoch += 1
            self._doubted_at = now  # once a silence: what is opened from now on is as good as what is opened next
        self._ahead = ahead
        return self._wire.Exchange(
            deadline,
            connect_until,
            monotonic=self._monotonic,
            resolver=self._resolver,
            fresh=fresh,
            epoch=self._epoch,
            keep=self._connections.add,
        )

    def distrust(self, exchange: Exchange, began: float) -> None:
        """Nothing was heard on an idle connection until the deadline: where nothing else was, either, those that are as
        old may be dead, too, and would cost a deadline each."""
        now = self._monotonic()
        silent = now >= exchange.deadline and now - began >= PATIENT and self.heard_at < began
        if silent and exchange.epoch == self._epoch:
            self._epoch += 1

    def run(
        self, exchange: Exchange, method: str, url: str, headers: Mapping[str, str], data: bytes | None, most: int
    ) -> tuple[int, dict[str, str], bytes]:
        """Send and receive: status, headers, body. Raises whatever went wrong."""
        prepared = self._prepared()
        prepared.method = method
        prepared.url = url
        left = exchange.left()
        prepared.headers = {"User-Agent": self._agent, **headers, TIME_LEFT: f"{left:.3f}"}  # type: ignore[assignment]
        if data is not None:
            prepared.headers["Content-Length"] = str(len(data))
        prepared.body = data
        prepared.hooks = {"response": []}
        with self._wire.current(exchange):
            raw = self.adapter.send(
                prepared, stream=True, timeout=(left, left), verify=self.verify, proxies=self.proxies
            ).raw
            received = {name.lower(): value for name, value in raw.headers.items()}
            try:
                body = _read(raw, received, most)
            except BaseException as error:
                raw.close()  # what is left unread must not be taken for the next answer
                if raw.status < 500 or not isinstance(error, self.errors):
                    raise
                body = b""  # the status alone says it
            else:
                raw.release_conn()
        received["content-length"] = str(len(body))  # of what is handed on
        received.pop("content-encoding", None)
        return raw.status, received, body

    def abandon(self) -> None:
        """See `Transport.abandon`. Takes no lock of a pool: another thread may have held it when the process forked."""
        for connection in list(self._connections):
            self._wire.drop_socket(connection)


def _read(raw: Any, headers: Mapping[str, str], most: int) -> bytes:
    """The whole body, decompressed. Raises TooLarge before more than `most` bytes of it are there."""
    length = headers.get("content-length", "")
    if length.isdigit() and int(length[:20]) > most:
        raise TooLarge
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        body: bytes = raw.read(most + 1, decode_content=False)
        if len(body) > most:
            raise TooLarge
        if raw.length_remaining:  # urllib3 says nothing of a body that ends early but not at once
            raise http.client.IncompleteRead(body, raw.length_remaining)
        return body
    return inflate(_pieces(raw), encoding, most)


def _pieces(raw: Any) -> Iterator[bytes]:
    while piece := raw.read(PIECE, decode_content=False):
        yield piece


def _split(base_url: str) -> SplitResult:
    try:
        url = urlsplit(base_url)
        scheme, host, _ = origin(url)
    except ValueError:
        scheme, host = "", ""
    if scheme not in ("http", "https") or not host or not base_url.isascii():
        raise SettingsError("the server's url must look like https://chat.example.org", code="url")
    if url.username is not None or url.query or url.fragment:
        raise SettingsError("the server's url must hold no user, password, query or fragment", code="url")
    return url


def _root(error: BaseException) -> BaseException:
    """What began it: requests and urllib3 wrap errors in `reason`, in their arguments, or as the cause."""
    for _ in range(8):
        inner = getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((each for each in reversed(error.args) if isinstance(each, BaseException)), error.__cause__)
        if inner is None:
            return error
        error = inner
    return error


def _named(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__)


def _version() -> str:
    """The package says it; to ask the installation takes a millisecond."""
    return str(sys.modules[__name__.partition(".")[0]].__version__)
