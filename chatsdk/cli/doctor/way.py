"""The way to the server: proxy, name, port, certificate. Each step with sockets of its own, so that it has a line of
its own; the rules (which proxy, which certificates) are those of the real connections."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from ...core.errors import ChatError, SettingsError
from ...core.settings import Settings
from ...pipeline.resolver import Address, Resolver
from ...realtime.dial import Dialer, DialSettings
from ...realtime.proxies import Proxy, proxy_for
from ...realtime.waiting import Waiter, Waker
from ...resilience.system_clock import SystemClock
from . import verdicts
from .findings import Finding, fail, ok, warn

_PORTS = {"http": 80, "https": 443}


class Way:
    """Where the first connection goes: the proxy, or the server itself."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.server = urlsplit(settings.url)
        self._proxy: Proxy | None = None
        self._addresses: Sequence[Address] = ()

    @property
    def host(self) -> str:
        """Whose name is looked up."""
        return self._proxy.host if self._proxy else self.server.hostname or ""

    @property
    def port(self) -> int:
        """Of `host`."""
        return self._proxy.port if self._proxy else self.server.port or _PORTS[self.server.scheme]

    def proxy(self) -> Finding:
        """Whether there is a proxy on the way, and one that can be used."""
        found = self._settings
        # the rules are written for realtime, whose schemes have other names
        url = SplitResult({"http": "ws", "https": "wss"}[self.server.scheme], self.server.netloc, "", "", "")
        try:
            self._proxy = proxy_for(url, found.proxy, found.trust_env)
        except SettingsError as error:
            return fail("proxy", error.message, error.hint)
        if self._proxy is None:
            return ok("proxy", "none")
        where = f"setting proxy, {found.source('proxy')}" if found.proxy else "environment"
        return ok("proxy", f"{self._proxy.host}:{self._proxy.port} ({where})")

    def dns(self, limit: float) -> Finding:
        """The addresses of the host."""
        try:
            self._addresses = Resolver(threaded=True).addresses(self.host, self.port, limit)
        except TimeoutError:
            return fail(
                "dns", f"no answer about {self.host} within {limit:.0f} s", "check the network and its name servers"
            )
        except (OSError, UnicodeError):
            what = "the proxy's host name" if self._proxy else "the host name in url"
            return fail("dns", f"there is no address for {self.host}", f"check {what}, and the network's name servers")
        shown = ", ".join(dict.fromkeys(str(address[4][0]) for address in self._addresses))
        return ok("dns", f"{self.host} is {shown}")

    def tcp(self, limit: float) -> Finding:
        """Whether somebody listens at one of the addresses."""
        until = time.monotonic() + limit
        why = "no addresses"
        for number, (family, kind, protocol, _, where) in enumerate(self._addresses):
            left = (until - time.monotonic()) / (len(self._addresses) - number)
            try:
                with socket.socket(family, kind, protocol) as sock:
                    sock.settimeout(max(0.05, left))
                    sock.connect(where)
                return ok("tcp", f"port {self.port} of {where[0]} is open")
            except TimeoutError:
                why = "no answer in time"
            except OSError as error:
                why = error.strerror or type(error).__name__
        whose = "the proxy" if self._proxy else "the server"
        return fail(
            "tcp",
            f"no connection to port {self.port} of {self.host}: {why}",
            f"check the port, that {whose} runs, and what a firewall on the way lets through",
        )

    def tls(self, limit: float) -> Finding:
        """Whether the server can prove who it is, by the certificates that the client trusts."""
        if self.server.scheme == "http":
            return _unencrypted(self.server.hostname or "")
        waker = Waker()
        dialer = Dialer(
            DialSettings(
                connect_timeout=limit,
                proxy=self._settings.proxy,
                trust_env=self._settings.trust_env,
                ca_bundle=self._settings.ca_bundle,
            ),
            SystemClock(),
        )
        try:
            with dialer.dial(f"wss://{self.server.netloc}", Waiter(SystemClock(), waker)) as sock:
                assert isinstance(sock, ssl.SSLSocket)
                return self._proved(sock)
        except ChatError as error:
            if error.code == "tls":
                return verdicts.of_tls_error(error)
            return fail("tls", error.message, error.hint)
        finally:
            waker.close()

    def _proved(self, sock: ssl.SSLSocket) -> Finding:
        ends = (sock.getpeercert() or {}).get("notAfter")
        host = self.server.hostname or ""
        if not isinstance(ends, str):
            return ok("tls", f"{host} proved who it is")
        return verdicts.of_certificate(ssl.cert_time_to_seconds(ends) - time.time(), host)


def _unencrypted(host: str) -> Finding:
    if host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdecimal()):
        return ok("tls", "none, and none needed on this machine")
    return warn("tls", "none: everybody on the way can read the token and the messages", "use https in url")
