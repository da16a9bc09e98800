"""What goes out: a `Request` as bytes, or a refusal. Pure.

Requests are built by hand, past the checks of the library below, so the checks are here: nothing that could begin
another header, another line or another host ever leaves. What is refused would be refused each time, so it is not
retryable, and counts as not sent.
"""

from __future__ import annotations

import json
from urllib.parse import urlencode

from ..core.errors import NotSentError
from ..core.exchange import Request

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def prepare(request: Request) -> tuple[str, dict[str, str], bytes | None]:
    """Path with query, headers, and body (None: there is none, and none is announced). Raises NotSentError."""
    path = f"{request.path}?{urlencode(request.query)}" if request.query else request.path
    if not (path.startswith("/") and path.isascii() and path.isprintable() and " " not in path):
        raise _refused(request, "the path is not quoted")
    headers = {"Accept": "application/json", "Accept-Encoding": "gzip"}
    if request.correlation_id:
        headers["X-Request-ID"] = request.correlation_id
    data = None
    if request.body is not None:
        try:
            data = _encode(request.body).encode()
        except (TypeError, ValueError, RecursionError) as error:  # lone surrogates are ValueErrors too
            raise _refused(request, f"the body is no JSON: {type(error).__name__}") from error
        headers["Content-Type"] = "application/json"
    elif not request.is_read:
        data = b""
    headers.update(request.headers)
    for name, value in headers.items():
        # a line break would begin another header; the value itself may be a secret, and is not shown
        if not (value.isascii() and value.isprintable() and name.isascii() and name.isprintable()):
            raise _refused(request, f"the header {name!r} holds characters that no header may hold")
    return path, headers, data


def _refused(request: Request, what: str) -> NotSentError:
    return NotSentError(
        f"{request.operation} can't be sent: {what}",
        code="invalid_request",
        retryable=False,
        hint="it would fail each time: correct the request, or the plugin that changed it",
        request_id=request.correlation_id or None,
    )
