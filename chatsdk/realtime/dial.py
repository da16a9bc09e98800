"""From a URL to a connected socket: name lookup, TCP, a proxy's tunnel, TLS; all within one time, and each of them
ended at once when the connection is stopped (see `waiting`). The socket never blocks.

TLS is verified, always: certificates as for HTTP (`ca_bundle`; else, with `trust_env`, REQUESTS_CA_BUNDLE or
CURL_CA_BUNDLE; else those that requests trusts), and a server that does not speak it is an error, never spoken to in
plain text in its place.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
from base64 import b64encode
from urllib.parse import SplitResult, urlsplit

from ..core.clock import Clock
from ..core.errors import ConnectTimeoutError, NotSentError, SettingsError
from ..core.record import Record, record
from ..core.settings import Settings
from ..core.tokens import Secret
from ..pipeline.resolver import Address, Resolver
from .proxies import Proxy, proxy_for
from .waiting import Waiter

MAX_TUNNEL_BYTES = 64 * 2**10
"""Of a proxy's answer to CONNECT."""

_PENDING = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR, getattr(errno, "WSAEWOULDBLOCK", errno.EINPROGRESS))

_TLS_HINT = (
    "the server could not prove who it is, so nothing was sent to it: check the URL, the clock and the certificates "
    "(setting ca_bundle)"
)
_PROXY_HINT = "check the proxy's address and credentials (setting proxy, or HTTPS_PROXY)"


@record(frozen=True, slots=True, kw_only=True)
class DialSettings(Record):
    """How to get there; see the settings of the same names. `connect_timeout` in seconds, for all of it."""

    connect_timeout: float = 5.0
    proxy: Secret | None = None
    trust_env: bool = True
    ca_bundle: str = ""
    loopback_only: bool = False

    @classmethod
    def of(cls, settings: Settings) -> DialSettings:
        """What the settings say."""
        return cls(
            connect_timeout=settings.connect_timeout,
            proxy=settings.proxy,
            trust_env=settings.trust_env,
            ca_bundle=settings.ca_bundle,
            loopback_only=settings.loopback_only,
        )


def parse_url(url: str) -> SplitResult:
    """The parts of a realtime server's URL. Raises SettingsError."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in parts.netloc or not all("!" <= each <= "~" for each in url):
        raise SettingsError("the realtime server's url must look like wss://chat.example.org/ws", code="ws_url")
    return parts


class Dialer:
    """Makes sockets. Only the reader thread calls it."""

    def __init__(self, settings: DialSettings, clock: Clock, resolver: Resolver | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._resolver = resolver or Resolver()
        self._context: ssl.SSLContext | None = None

    def dial(self, url: str, waiter: Waiter) -> socket.socket:
        """A connected socket, TLS done. Raises NotSentError (code dns, connect, proxy or tls), ConnectTimeoutError,
        SettingsError for what can't be used, Stopped."""
        target = parse_url(url)
        host, port = target.hostname or "", target.port or (443 if target.scheme == "wss" else 80)
        if self._settings.loopback_only and not _is_loopback(host):
            raise SettingsError(f"{host} is not on this machine, and loopback_only is set", code="loopback_only")
        until = self._clock.monotonic() + self._settings.connect_timeout
        proxy = proxy_for(target, self._settings.proxy, self._settings.trust_env)
        try:
            sock = self._connect(proxy.host if proxy else host, proxy.port if proxy else port, waiter, until)
            try:
                if proxy is not None:
                    _tunnel(sock, host, port, proxy, waiter, until)
                if target.scheme == "wss":
                    sock = self._secured(sock, host)
                    waiter.hold(sock)
                    _shake_hands(sock, waiter, until)
            except BaseException:
                waiter.hold(None)
                sock.close()
                raise
        except NotSentError:
            raise
        except TimeoutError as error:
            raise ConnectTimeoutError(f"no connection to {host} in time") from error
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or type(error).__name__
            raise NotSentError(f"no secure connection to {host}: {reason}", code="tls", hint=_TLS_HINT) from error
        except OSError as error:
            raise NotSentError(f"no connection to {host}: {_named(error)}", code="connect") from error
        return sock

    def after_fork(self) -> None:
        """In a forked child: helper threads are not there."""
        self._resolver.after_fork()

    # ---- the stages

    def _connect(self, host: str, port: int, waiter: Waiter, until: float) -> socket.socket:
        left = until - self._clock.monotonic()
        try:
            if _is_address(host):
                addresses = self._resolver.addresses(host, port, left)  # needs no lookup
            else:
                addresses = waiter.ask(lambda: self._resolver.addresses(host, port, left), until)
        except TimeoutError as error:
            raise ConnectTimeoutError(f"the address of {host} was not found in time", code="dns_timeout") from error
        except (OSError, UnicodeError) as error:
            raise NotSentError(f"the address of {host} was not found", code="dns") from error
        failed: OSError = OSError("no addresses")
        for number, address in enumerate(addresses):
            # so that one address that swallows everything leaves time for the others
            now = self._clock.monotonic()
            try:
                sock = _open(address, waiter, now + (until - now) / (len(addresses) - number))
            except OSError as error:
                failed = error
            else:
                self._resolver.worked(host, port, address)
                return sock
        self._resolver.failed(host, port)
        raise failed

    def _secured(self, sock: socket.socket, host: str) -> ssl.SSLSocket:
        if self._context is None:
            self._context = _trusting(self._settings)
        return self._context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)


def _open(address: Address, waiter: Waiter, until: float) -> socket.socket:
    family, kind, protocol, _, where = address
    sock = socket.socket(family, kind, protocol)
    waiter.hold(sock)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        number = sock.connect_ex(where)
        if number in _PENDING:
            waiter.ready(sock, True, until)
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))
    except BaseException:
        waiter.hold(None)
        sock.close()
        raise
    return sock


def _tunnel(sock: socket.socket, host: str, port: int, proxy: Proxy, waiter: Waiter, until: float) -> None:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    request = f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n"
    if proxy.credentials is not None:
        request += f"Proxy-Authorization: Basic {b64encode(proxy.credentials.reveal().encode()).decode()}\r\n"
    left = memoryview((request + "\r\n").encode("idna" if not host.isascii() else "ascii"))
    while left:
        try:
            left = left[sock.send(left) :]
        except BlockingIOError:
            waiter.ready(sock, True, until)
    answer = b""
    while b"\r\n\r\n" not in answer:
        waiter.ready(sock, False, until)
        try:
            piece = sock.recv(4096)
        except BlockingIOError:
            continue
        answer += piece
        if not piece or len(answer) > MAX_TUNNEL_BYTES:
            raise _no_way(host, "its answer makes no sense")
    words = answer.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise _no_way(host, "its answer makes no sense")
    if words[1] != b"200":
        raise _no_way(host, f"status {words[1].decode()}")
    if not answer.endswith(b"\r\n\r\n"):
        raise _no_way(host, "it speaks before the server is asked")


def _no_way(host: str, why: str) -> NotSentError:
    return NotSentError(f"the proxy gives no way to {host}: {why}", code="proxy", hint=_PROXY_HINT)


def _shake_hands(sock: ssl.SSLSocket, waiter: Waiter, until: float) -> None:
    while True:
        try:
            return sock.do_handshake()
        except ssl.SSLWantReadError:
            waiter.ready(sock, False, until)
        except ssl.SSLWantWriteError:
            waiter.ready(sock, True, until)


def _trusting(settings: DialSettings) -> ssl.SSLContext:
    """Verifies certificates and names. Raises SettingsError for a bundle that can't be read."""
    bundle = settings.ca_bundle
    if not bundle and settings.trust_env:
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or ""
    if not bundle:
        import certifi

        bundle = certifi.where()
    try:
        if os.path.isdir(bundle):
            context = ssl.create_default_context(capath=bundle)
        else:
            context = ssl.create_default_context(cafile=bundle)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"the certificates can't be read: {_named(error)}", code="ca_bundle") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _is_loopback(host: str) -> bool:
    """As `core.resolve` has it, for URLs that are no settings."""
    return host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdecimal())


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _named(error: OSError) -> str:
    return error.strerror or type(error).__name__
