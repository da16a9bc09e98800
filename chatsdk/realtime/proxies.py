"""Which proxy leads to a realtime server, by the rules that hold for HTTP.

    setting `proxy`   for everything
    `trust_env`       what WSS_PROXY or HTTPS_PROXY (ws: WS_PROXY or HTTP_PROXY) and ALL_PROXY say, unless NO_PROXY
                      names the host: a name and what lies below it, an address, a network (10.0.0.0/8), or "*"

Only proxies that are spoken to in plain HTTP: inside of their tunnel the connection to the server is secured as ever.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urlsplit

from ..core.errors import SettingsError
from ..core.record import Record, record
from ..core.tokens import Secret

_HINT = "realtime takes http://[user:password@]host[:port] (setting proxy, HTTPS_PROXY or ALL_PROXY)"


@record(frozen=True, slots=True)
class Proxy(Record):
    """Where it is. `credentials`: "user:password"."""

    host: str
    port: int
    credentials: Secret | None = None


def proxy_for(url: SplitResult, proxy: Secret | str | None, trust_env: bool) -> Proxy | None:
    """The proxy on the way to `url`. Raises SettingsError for one that can't be used."""
    if proxy:
        return _parse(Secret(proxy).reveal())
    if not trust_env or not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # takes as long as the rest of the package

    found = _select(url.scheme, getproxies())
    host = url.hostname or ""
    if not found or _in_no_proxy(host) or proxy_bypass(host if ":" in host else f"{host}:{url.port or _port(url)}"):
        return None
    return _parse(found)


def _select(scheme: str, proxies: Mapping[str, str]) -> str:
    for name in (scheme, {"wss": "https", "ws": "http"}[scheme], "all"):
        if proxies.get(name):
            return proxies[name]
    return ""


def _in_no_proxy(host: str) -> bool:
    """NO_PROXY names the address or a network that it is in; names are left to the standard library."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for each in (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").split(","):
        try:
            if address in ipaddress.ip_network(each.strip(), strict=False):
                return True
        except ValueError:
            continue  # a name
    return False


def _port(url: SplitResult) -> int:
    return 443 if url.scheme == "wss" else 80


def _parse(text: str) -> Proxy:
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port  # raises ValueError for a port out of range
    except ValueError:
        host, port, parts = None, None, SplitResult("", "", "", "", "")
    if parts.scheme.lower() != "http" or not host:
        raise SettingsError("the proxy can't be used for realtime", code="proxy", hint=_HINT)
    credentials = None
    if parts.username is not None:
        credentials = Secret(f"{unquote(parts.username)}:{unquote(parts.password or '')}")
    return Proxy(host, port or 80, credentials)
