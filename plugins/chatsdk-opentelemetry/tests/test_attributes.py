"""Names are those of the conventions, values are bounded, and nothing private is among them."""

from __future__ import annotations

from chatsdk_opentelemetry import attributes as said
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes, url_attributes

from chatsdk.plugin import Request, Response, errors

SERVER = said.Server("https://chat.example.org/base/")
SEND = Request(
    operation="messages.send",
    method="POST",
    path="/api/x",
    body={"text": "the text"},
    query={"q": "searched words"},
    headers={"Authorization": "Bearer secret"},
    correlation_id="corr-1",
    attempt=3,
)
STABLE = {
    value
    for module in (error_attributes, http_attributes, server_attributes, url_attributes)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}


def test_names_are_stable_ones() -> None:
    """What does not begin with `chatsdk.` is a stable name of the semantic conventions."""
    strange = SEND.replace(method="WEIRD")
    names = {
        *said.of_try(SEND, SERVER, again=0, circuit="closed"),
        *said.of_try(strange, SERVER, again=0, circuit="closed"),
        *said.of_response(Response(status=200)),
        *said.of_error(errors.ServerError("x", status=503)),
    }
    assert {name for name in names if not name.startswith("chatsdk.")} <= STABLE
    assert {"http.request.method", "server.address", "server.port", "url.full", "error.type"} <= names


def test_a_try() -> None:
    """Method, server, address without the query's values, and which resending it is."""
    assert said.of_try(SEND, SERVER, again=1, circuit="half_open") == {
        "chatsdk.operation": "messages.send",
        "chatsdk.correlation_id": "corr-1",
        "chatsdk.attempt": 3,
        "chatsdk.circuit.state": "half_open",
        "http.request.method": "POST",
        "http.request.resend_count": 3,
        "server.address": "chat.example.org",
        "server.port": 443,
        "url.full": "https://chat.example.org/base/api/x?q=REDACTED",
    }
    first = said.of_try(SEND.replace(attempt=1), said.Server("http://127.0.0.1:81"), again=0, circuit="closed")
    assert "http.request.resend_count" not in first
    assert first["server.port"] == 81


def test_errors_are_named_not_quoted() -> None:
    """The kind of an error and its status are told; what it says, and strange classes and statuses, are not."""
    assert said.of_error(errors.ServerError("the text", status=503, code="evil")) == {
        "error.type": "503",
        "http.response.status_code": 503,
    }
    assert said.of_error(errors.ServerError("x", status=799))["error.type"] == said.OTHER
    assert said.of_error(errors.NotSentError("the text")) == {"error.type": "NotSentError"}
    assert said.of_error(type("Strange4711", (Exception,), {})("the text")) == {"error.type": said.OTHER}


def test_metrics_have_no_more() -> None:
    """An attribute of a metric comes from a fixed list: no path, no id, no invented status or method."""
    allowed = {"http.request.method", "server.address", "server.port", "http.response.status_code", "error.type"}
    seen = set()
    for status in range(100, 1000):
        for method in ("POST", f"M{status}"):
            outcome = said.of_error(errors.ServerError("x", status=status))
            made = said.of_metric(SEND.replace(method=method), SERVER, outcome)
            assert set(made) <= allowed
            seen.add(tuple(sorted(made.items())))
    assert len(seen) <= 2 * (len(said.STATUSES) + 1)


def test_long_texts_are_cut() -> None:
    """Ids and paths that somebody else chose take little room."""
    long = SEND.replace(operation="o" * 9999, correlation_id="c" * 9999, path="/" + "p" * 9999, method="M" * 9999)
    assert sum(len(str(value)) for value in said.of_try(long, SERVER, again=0, circuit="closed").values()) < 4000
