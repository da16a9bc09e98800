"""requests' adapter, as a client of one server needs it.

`HTTPAdapter` finds out anew for each request which pool, proxy and certificates its URL wants, and builds a response
with cookies and a guess at its encoding. Here all requests go to one origin in one way, cookies are not kept, and who
asked reads the raw answer: what is found is found once, and a request takes a fifth less time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class OneServer:
    """Goes before `HTTPAdapter` in a class of both. It overrides what requests shows for that: see there."""

    response_class: Callable[[], Any]
    """`requests.Response`."""

    _pool: Any = None
    _verified: Any = None

    def get_connection_with_tls_context(
        self, request: Any, verify: Any, proxies: Mapping[str, str] | None = None, cert: Any = None
    ) -> Any:
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(request, verify, proxies=proxies, cert=cert)  # type: ignore[misc]
        return self._pool

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()  # or its idle connections stay open as long as anybody holds an error that names it
        super().close()  # type: ignore[misc]

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        if self._verified is not conn:
            super().cert_verify(conn, url, verify, cert)  # type: ignore[misc]
            self._verified = conn

    def request_url(self, request: Any, proxies: Mapping[str, str] | None) -> Any:
        return super().request_url(request, proxies) if proxies else request.path_url  # type: ignore[misc]

    def build_response(self, req: Any, resp: Any) -> Any:
        response = self.response_class()
        response.status_code, response.reason, response.headers = resp.status, resp.reason, resp.headers
        response.raw, response.url, response.request, response.connection = resp, req.url, req, self
        return response
