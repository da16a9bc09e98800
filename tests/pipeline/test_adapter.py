"""The adapter of one server: what requests would find out for each request is found once, and nothing else changes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from chatsdk.pipeline.adapter import OneServer


class _Asked:
    """In requests' place: notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        self.asked.append("pool")
        return object()

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        self.asked.append("certificates")

    def request_url(self, request: Any, proxies: Mapping[str, str] | None) -> str:
        self.asked.append("url")
        return "whole"


class _Adapter(OneServer, _Asked):
    response_class = requests.Response


def test_pool_and_certificates_are_found_once() -> None:
    """The second request gets the first one's."""
    adapter, request = _Adapter(), SimpleNamespace(url="http://chat.test/api", path_url="/api")
    pools = []
    for _ in range(3):
        pools.append(adapter.get_connection_with_tls_context(request, True))
        adapter.cert_verify(pools[-1], request.url, True, None)
    assert len(set(pools)) == 1
    assert adapter.asked == ["pool", "certificates"]


def test_a_proxy_is_told_what_requests_would_tell_it() -> None:
    """Only a proxy needs the whole URL; which one does is for requests to say."""
    adapter, request = _Adapter(), SimpleNamespace(url="http://chat.test/api?x=1", path_url="/api?x=1")
    assert adapter.request_url(request, {}) == "/api?x=1"
    assert adapter.request_url(request, {"http": "http://proxy.test"}) == "whole"
    assert adapter.asked == ["url"]


def test_a_response_is_what_it_is_for_those_who_look() -> None:
    """Test doubles show it to their users: status, headers in any case, JSON."""
    adapter = type("Adapter", (OneServer, HTTPAdapter), {"response_class": requests.Response})()
    request = requests.Request("GET", "http://chat.test/api").prepare()
    raw = HTTPResponse(
        io.BytesIO(b'{"ok": true}'), {"Content-Type": "application/json"}, 200, reason="OK", preload_content=False
    )
    response = adapter.build_response(request, raw)
    assert (response.status_code, response.reason, response.url) == (200, "OK", "http://chat.test/api")
    assert response.headers["content-type"] == "application/json"
    assert response.raw is raw
    assert response.request is request
    assert response.json() == {"ok": True}
