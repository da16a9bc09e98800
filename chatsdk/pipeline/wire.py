"""Connections with one deadline over the whole exchange: lookup, connect, TLS, sending, headers, body.

A time-out per recv is not enough: a server that sends one byte a second meets it for ever. Here every wait on the
socket is given what is left of the deadline. The deadline hangs at the thread (`Exchange`), because nothing that
requests and urllib3 pass down could carry it; the connection classes below find it there and note what happened, so
that an error can be told apart by whether anything had left this machine.

Used from urllib3: `_new_conn`, `_get_conn` and `QueueCls` of its connections and pools, and http.client's
`response_class`. A package that replaces urllib3 (urllib3-future comes with niquests) has none of them: `POOLS` is
empty then, and time-outs are per recv.
"""

from __future__ import annotations

import http.client
import io
import queue
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from urllib3 import connection, connectionpool
from urllib3 import exceptions as u3

from ..core.errors import ChatError, ConnectTimeoutError, NotSentError
from .resolver import Resolver

MAX_HEADER_BYTES = 64 * 2**10
"""Of an answer. http.client alone would take a hundred lines of 64 KiB."""

BUFFER = 16 * 2**10
"""Read and written at once. TLS sends a record of this size as a whole, so a slow peer is noticed after each."""

_KEEP_ALIVE = re.compile(r"timeout=(\d{1,6})")

_TLS_HINT = (
    "the server could not prove who it is, so nothing was sent to it: check the URL, the clock and the certificates "
    "(setting ca_bundle); messages stay queued meanwhile"
)
_PROXY_HINT = "check the proxy's address and credentials (setting proxy, or HTTPS_PROXY)"


class Exchange:
    """One exchange: its limits, and what happened so far.

    deadline, connect_until   monotonic times
    epoch     connections of another one are not to be used: they may be dead
    fresh     must not use a connection that was used before
    reused    it did
    sent      something of the request may have left this machine
    heard     something of an answer came
    failure   what to raise, where the connection knows best
    """

    __slots__ = (
        "connect_until",
        "deadline",
        "epoch",
        "failure",
        "fresh",
        "headers_done",
        "heard",
        "keep",
        "monotonic",
        "opening",
        "resolver",
        "reused",
        "sent",
    )

    def __init__(
        self,
        deadline: float,
        connect_until: float,
        *,
        monotonic: Callable[[], float],
        resolver: Resolver,
        fresh: bool = False,
        epoch: int = 0,
        keep: Callable[[Connection], None] | None = None,
    ) -> None:
        self.deadline = deadline
        self.epoch = epoch
        self.connect_until = connect_until
        self.monotonic = monotonic
        self.resolver = resolver
        self.fresh = fresh
        self.keep = keep
        self.opening = False
        self.reused = False
        self.sent = False
        self.heard = False
        self.headers_done = False
        self.failure: ChatError | None = None

    def left(self) -> float:
        """Seconds until the deadline. Raises TimeoutError when none are left."""
        left = self.deadline - self.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline passed")
        return left

    def left_to_connect(self) -> float:
        """Seconds until connecting must be done. Raises TimeoutError when none are left."""
        left = self.connect_until - self.monotonic()
        if left <= 0:
            raise TimeoutError("the connect time-out passed")
        return left


class _Current(threading.local):
    exchange: Exchange | None = None


_current = _Current()


@contextmanager
def current(exchange: Exchange) -> Iterator[Exchange]:
    """The exchange that connections of this thread take part in."""
    before, _current.exchange = _current.exchange, exchange
    try:
        yield exchange
    finally:
        _current.exchange = before


def _now_running() -> Exchange:
    exchange = _current.exchange
    if exchange is None:
        raise RuntimeError("these connections work inside of wire.current() only")
    return exchange


class _HeaderTooLarge(http.client.HTTPException):
    """The headers of an answer take more than MAX_HEADER_BYTES."""


class _Reader(io.RawIOBase):
    """A socket's file that waits for what is left of the deadline, not for a time-out of its own."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, exchange: Exchange) -> None:
        self._raw = raw
        self._sock = sock
        self._exchange = exchange
        self._header_room = MAX_HEADER_BYTES + BUFFER  # the last piece may hold a piece of the body too

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        exchange = self._exchange
        self._sock.settimeout(exchange.left())
        count: int | None = self._raw.readinto(buffer)
        if count:
            exchange.heard = True
            if not exchange.headers_done:
                self._header_room -= count
                if self._header_room < 0:
                    raise _HeaderTooLarge(f"more than {MAX_HEADER_BYTES} bytes of headers")
        return count

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        exchange = _now_running()
        # http.client closes the socket early and relies on its file to keep it open, so the file is kept and wrapped
        self.fp = io.BufferedReader(_Reader(self.fp.detach(), sock, exchange), BUFFER)
        self._exchange = exchange

    def begin(self) -> None:
        super().begin()
        self._exchange.headers_done = True


class Connection(connection.HTTPConnection):
    """Plain HTTP; `TLSConnection` is the same over TLS."""

    response_class = _Response
    _held: list[bytes] | None = None
    _good_until: float | None = None
    _epoch = 0

    def connect(self) -> None:
        exchange = _now_running()
        exchange.opening = True  # what a tunnel through a proxy sends is nothing of the request
        try:
            super().connect()
        except BaseException as error:
            if exchange.failure is None:
                exchange.failure = _cannot_connect(self, error)
            raise
        finally:
            exchange.opening = False
        self._epoch = exchange.epoch
        if exchange.keep is not None:
            exchange.keep(self)

    def _new_conn(self) -> socket.socket:
        exchange = _now_running()
        host, port, resolver = self._dns_host, self.port, exchange.resolver
        try:
            addresses = resolver.addresses(host, port, exchange.left_to_connect())
        except TimeoutError as error:
            exchange.failure = ConnectTimeoutError(f"the address of {host} was not found in time", code="dns_timeout")
            raise u3.ConnectTimeoutError(self, str(error)) from error
        except (OSError, UnicodeError) as error:
            exchange.failure = NotSentError(f"the address of {host} was not found", code="dns")
            raise u3.NewConnectionError(self, "name lookup failed") from error
        failed: OSError = OSError("no addresses")
        for number, address in enumerate(addresses):
            try:
                # so that one address that swallows everything leaves time for the others
                left = exchange.left_to_connect() / (len(addresses) - number)
                sock = _open(address, left, self.socket_options or ())
                sock.settimeout(exchange.left_to_connect())  # for what follows: TLS
            except OSError as error:
                failed = error
            else:
                resolver.worked(host, port, address)
                return sock
        resolver.failed(host, port)
        if isinstance(failed, TimeoutError):
            exchange.failure = ConnectTimeoutError(f"no connection to {host}:{port} in time")
            raise u3.ConnectTimeoutError(self, "timed out") from failed
        exchange.failure = NotSentError(f"no connection to {host}:{port}: {failed.strerror or failed}", code="connect")
        raise u3.NewConnectionError(self, "no connection") from failed

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        self._held = []
        try:
            super().request(*args, **kwargs)
            held = b"".join(self._held)
        finally:
            self._held = None
        self.send(held)

    def send(self, data: Any) -> None:
        exchange = _now_running()
        if self._held is not None:
            self._held.append(data)  # headers and body leave together, in one packet if they fit
            return
        view = memoryview(data)
        for start in range(0, len(view), BUFFER):
            self.sock.settimeout(exchange.left())  # covers the whole of one sendall, but over TLS only of one record
            if not exchange.opening:
                exchange.sent = True
            self.sock.sendall(view[start : start + BUFFER])

    def getresponse(self) -> Any:
        response = super().getresponse()
        announced = response.headers.get("keep-alive")
        if announced:
            found = _KEEP_ALIVE.search(announced)
            self._good_until = _now_running().monotonic() + int(found[1]) - 1 if found else None
        return response

    def reusable(self, exchange: Exchange) -> bool:
        """Whether a request may go out on what is open. A second before the server said that it would close it, that
        might cross on the way; then nobody knows whether the request arrived."""
        if exchange.fresh or self._epoch != exchange.epoch:
            return False
        return self._good_until is None or exchange.monotonic() < self._good_until


class TLSConnection(Connection, connection.HTTPSConnection):
    """HTTP over TLS, never downgraded."""


class _Idle:
    """Idle connections, the last one first: what urllib3 uses of a queue, without its lock. A process that forks while
    another thread is inside of that would leave the child a lock that nobody ever releases."""

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._items: deque[Any] = deque()

    def put(self, item: Any, block: bool = False) -> None:
        if len(self._items) >= self._maxsize:
            raise queue.Full
        self._items.append(item)

    def get(self, block: bool = False, timeout: float | None = None) -> Any:
        try:
            return self._items.pop()
        except IndexError:
            raise queue.Empty from None


class Pool(connectionpool.HTTPConnectionPool):
    """Of `Connection`s."""

    ConnectionCls = Connection
    QueueCls = _Idle  # type: ignore[assignment]  # it needs no more of a queue than that

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection: Any = super()._get_conn(timeout)
        exchange = _now_running()
        if not connection.is_closed:
            if connection.reusable(exchange):
                exchange.reused = True
            else:
                connection.close()
        return connection


class TLSPool(Pool, connectionpool.HTTPSConnectionPool):
    """Of `TLSConnection`s."""

    ConnectionCls = TLSConnection


POOLS: dict[str, Any] = (
    {"http": Pool, "https": TLSPool} if issubclass(connection.HTTPConnection, http.client.HTTPConnection) else {}
)
"""What to put into a pool manager's `pool_classes_by_scheme`."""


def drop_socket(connection: Connection) -> None:
    """Close this process's copy of a connection's socket, and tell the peer nothing: the parent still uses it."""
    sock = connection.sock
    if sock is not None:
        try:
            socket.close(sock.detach())
        except OSError:
            return  # it was closed already


def _open(address: Any, timeout: float, options: Any) -> socket.socket:
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    try:
        for option in options:
            sock.setsockopt(*option)
        sock.settimeout(timeout)
        sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return sock


def _cannot_connect(connection: Connection, error: BaseException) -> ChatError | None:
    """What went wrong between the connection and the request: TLS, or a proxy's tunnel."""
    host = connection._tunnel_host or connection.host
    if isinstance(error, (ssl.SSLError, ssl.CertificateError, u3.SSLError)) and not isinstance(error, TimeoutError):
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or type(error).__name__
        return NotSentError(f"no secure connection to {host}: {reason}", code="tls", hint=_TLS_HINT)
    if isinstance(error, TimeoutError):
        return ConnectTimeoutError(f"no connection to {host} in time")
    if isinstance(error, OSError) and "Tunnel" in str(error):
        return NotSentError(f"the proxy gives no way to {host}: {error}", code="proxy", hint=_PROXY_HINT)
    if isinstance(error, (OSError, http.client.HTTPException, ValueError)):
        return NotSentError(f"no connection to {host}: {error}", code="connect")
    return None
