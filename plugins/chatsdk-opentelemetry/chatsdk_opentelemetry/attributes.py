"""What is said of a call and of a try, as attributes. Pure.

HTTP attributes have the stable names of OpenTelemetry's semantic conventions; ours begin with `chatsdk.`.

Two rules:
* Nothing private: no body, no header, no token, no message of an error (a server writes these), and of a query only
  its names. A path does stand in `url.full`, with the channel's id.
* What is an attribute of a metric comes from a fixed list: no server, user or plugin can choose how many series there
  are. The others are `_OTHER`, as the conventions have it.
"""

from __future__ import annotations

from collections.abc import Container
from http import HTTPStatus
from urllib.parse import urlsplit

from chatsdk.plugin import ERRORS, Request, Response, errors

Attributes = dict[str, str | int | bool]

OTHER = "_OTHER"

METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
STATUSES = frozenset(status.value for status in HTTPStatus)
LONGEST = 256
"""Characters of a text that somebody else chose (an operation, a correlation id)."""

LONGEST_URL = 2048


def known(word: str, words: Container[str]) -> str:
    """The word, if it is one of those; else `_OTHER`."""
    return word if word in words else OTHER


class Server:
    """The server, as attributes say it. `url`: the client's setting."""

    def __init__(self, url: str) -> None:
        split = urlsplit(url)
        self.base = f"{split.scheme}://{split.netloc.rpartition('@')[2]}{split.path.rstrip('/')}"
        self.attributes: Attributes = {
            "server.address": split.hostname or "",
            "server.port": split.port or {"http": 80, "https": 443}.get(split.scheme, 0),
        }


def of_call(request: Request) -> Attributes:
    """What is known when a call begins."""
    return {
        "chatsdk.operation": request.operation[:LONGEST],
        "chatsdk.correlation_id": request.correlation_id[:LONGEST],
    }


def of_try(request: Request, server: Server, *, again: int, circuit: str) -> Attributes:
    """What is known when a try begins. again: exchanges of this try before this one (a refused token); circuit: state
    of the circuit that let it pass."""
    method = known(request.method, METHODS)
    query = "?" + "&".join(f"{name}=REDACTED" for name in request.query) if request.query else ""
    attributes: Attributes = {
        **server.attributes,
        **of_call(request),
        "http.request.method": method,
        "url.full": f"{server.base}{request.path}{query}"[:LONGEST_URL],
        "chatsdk.attempt": request.attempt,
        "chatsdk.circuit.state": circuit,
    }
    if method == OTHER:
        attributes["http.request.method_original"] = request.method[:LONGEST]
    if request.attempt + again > 1:
        attributes["http.request.resend_count"] = request.attempt + again - 1
    return attributes


def of_response(response: Response) -> Attributes:
    """What a good answer adds."""
    return {"http.response.status_code": response.status}


def of_error(error: BaseException) -> Attributes:
    """What a failure adds: its kind, and the status of the answer if there was one. Never its text."""
    attributes: Attributes = {"error.type": error_type(error)}
    status = getattr(error, "status", None)
    if isinstance(error, errors.StatusError) and isinstance(status, int) and status:
        attributes["http.response.status_code"] = status
    return attributes


def error_type(error: BaseException) -> str:
    """The status of an answer as text ("503"), else the error's class."""
    if isinstance(error, errors.StatusError):
        return str(error.status) if error.status in STATUSES else OTHER
    return known(type(error).__name__, ERRORS)


def of_metric(request: Request, server: Server, outcome: Attributes) -> Attributes:
    """The same, as far as a metric may have it. outcome: `of_response` or `of_error`."""
    kept = {
        name: value
        for name, value in outcome.items()
        if name == "error.type" or (name == "http.response.status_code" and value in STATUSES)
    }
    return {"http.request.method": known(request.method, METHODS), **server.attributes, **kept}
