"""Requests and responses as values; what an error answer stands for; how long a server asks to wait."""

from __future__ import annotations

import json
import math
import pickle
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core import errors
from chatsdk.core.exchange import MAX_RETRY_AFTER, Request, Response, retry_after, status_error

NOW = 1_790_000_000.0

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
REQUESTS = st.builds(
    Request,
    operation=st.text(max_size=9),
    method=st.sampled_from(["GET", "POST"]),
    path=st.text(max_size=9),
    query=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    body=JSON,
    user=st.text(max_size=5),
    channel=st.text(max_size=5),
    key=st.none() | st.uuids().map(str),
    repeatable=st.booleans(),
    correlation_id=st.text(max_size=5),
)
SEND = Request(operation="messages.send", method="POST", path="/p", body={"text": "hi"}, headers={"X-A": "1"})


@given(REQUESTS)
def test_a_request_survives_the_outbox(request: Request) -> None:
    """Stored as JSON and read again it is the same request."""
    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request


def test_what_is_not_stored() -> None:
    """Headers (where tokens are), deadline and attempt are of this process; what a newer version stored is left out."""
    stored = SEND.replace(deadline=5.0, attempt=3, fresh=True).to_json()
    assert not {"headers", "deadline", "attempt", "fresh"} & stored.keys()
    assert Request.from_json({**stored, "of_a_newer_version": 1}) == SEND.replace(headers={})


@given(REQUESTS)
def test_replace_changes_only_what_is_named(request: Request) -> None:
    """The rest is as it was, and so is the original."""
    before = request.to_json()
    changed = request.replace(attempt=2, user="somebody")
    assert (changed.attempt, changed.user) == (2, "somebody")
    assert changed.replace(attempt=1, user=request.user) == request
    assert request.to_json() == before
    assert pickle.loads(pickle.dumps(changed)) == changed


def test_replace_knows_its_fields() -> None:
    """A misspelt field is an error, not an attribute."""
    with pytest.raises(TypeError, match="atempt"):
        SEND.replace(atempt=2)


def test_bodies_and_headers_are_added_to() -> None:
    """A copy with more of them; the original keeps its own."""
    assert SEND.with_body(text="ho", more=1).body == {"text": "ho", "more": 1}
    assert SEND.with_headers({"X-B": "2"}).headers == {"X-A": "1", "X-B": "2"}
    assert (SEND.body, SEND.headers) == ({"text": "hi"}, {"X-A": "1"})
    assert Request(operation="o", method="POST", path="/").with_body(a=1).body == {"a": 1}


def test_repr_shows_no_content() -> None:
    """What is written, and tokens in headers and bodies, are in no log line that shows a request or an answer."""
    request = SEND.replace(body={"refreshToken": "canary"}, headers={"Authorization": "Bearer canary"})
    assert "canary" not in repr(request)
    assert "canary" not in repr(Response(status=200, body={"token": "canary"}))


def test_reads() -> None:
    """GET and HEAD read."""
    assert [
        Request(operation="o", method=method, path="/").is_read for method in ("GET", "HEAD", "POST", "DELETE")
    ] == [
        True,
        True,
        False,
        False,
    ]


def test_request_id_of_a_response() -> None:
    """It is the server's header."""
    assert Response(status=200, headers={"x-request-id": "r"}).request_id == "r"
    assert Response(status=200).request_id is None


# ---- Retry-After

WAITS: list[tuple[dict[str, str], Any, float | None]] = [
    ({"retry-after": "2"}, None, 2.0),
    ({"retry-after": " 1.5 "}, None, 1.5),
    ({"retry-after": "0"}, None, 0.0),
    ({"retry-after": "-5"}, None, 0.0),
    ({"retry-after": "999999999"}, None, MAX_RETRY_AFTER),
    ({"retry-after": "inf"}, None, MAX_RETRY_AFTER),
    ({"retry-after": "nan"}, None, None),
    ({"retry-after": formatdate(NOW + 30, usegmt=True)}, None, 30.0),
    ({"retry-after": formatdate(NOW + 30)}, None, 30.0),  # "-0000": no zone, which is UTC and not ours
    ({"retry-after": formatdate(NOW - 30, usegmt=True)}, None, 0.0),
    ({"retry-after": "soon"}, None, None),
    ({"retry-after": ""}, {"retry_after_ms": 1500}, 1.5),
    ({"retry-after": "soon"}, {"retry_after_ms": 1500}, 1.5),
    ({"retry-after": "2"}, {"retry_after_ms": 1500}, 2.0),
    ({}, {"error": {"retryAfter": 7}}, 7.0),
    ({}, {"retry_after_ms": True, "error": {"retryAfter": "7"}}, None),
    ({}, {"retry_after_ms": 10**400}, MAX_RETRY_AFTER),
    ({}, {"retry_after_ms": -(10**400)}, 0.0),
    ({}, {"retry_after_ms": math.nan}, None),
    ({}, {"error": "busy"}, None),
    ({}, [1], None),
    ({}, None, None),
]


@pytest.mark.parametrize(("headers", "body", "seconds"), WAITS)
def test_how_long_the_server_asks_to_wait(headers: dict[str, str], body: Any, seconds: float | None) -> None:
    """In seconds, as a date, or in the body; never below 0, never above a day."""
    assert retry_after(headers, body, NOW) == seconds


@given(
    text=st.text() | st.text(alphabet="0123456789:, GMTWedOct+-") | st.floats().map(str),
    body=JSON
    | st.fixed_dictionaries({"retry_after_ms": LEAVES, "error": st.fixed_dictionaries({"retryAfter": LEAVES})}),
)
def test_any_header_and_body_give_a_bounded_wait(text: str, body: Any) -> None:
    """Whatever the server writes, the answer is None or 0 to a day."""
    seconds = retry_after({"retry-after": text}, body, NOW)
    assert seconds is None or 0 <= seconds <= MAX_RETRY_AFTER


# ---- errors

ERRORS: list[tuple[int, Any, type[errors.StatusError], str, str, bool]] = [
    (
        400,
        {"error": {"message": "Malformed", "code": "BAD_REQUEST"}},
        errors.BadRequest,
        "bad_request",
        "Malformed",
        False,
    ),
    (401, {"error": {"message": "Token expired"}}, errors.Unauthorized, "unauthorized", "Token expired", False),
    (
        403,
        {"error": {"message": "no", "code": "ATTACHMENT_FORBIDDEN"}},
        errors.Forbidden,
        "attachment_forbidden",
        "no",
        False,
    ),
    (404, None, errors.NotFound, "not_found", "the server answered 404", False),
    (408, None, errors.StatusError, "status", "the server answered 408", True),
    (409, {"error": "taken"}, errors.Conflict, "conflict", "taken", False),
    (413, "<html>", errors.TooLarge, "too_large", "the server answered 413", False),
    (418, {}, errors.StatusError, "status", "the server answered 418", False),
    (422, {"error": {}}, errors.BadRequest, "bad_request", "the server answered 422", False),
    (429, {"error": {"code": 7, "message": 7}}, errors.RateLimited, "rate_limited", "the server answered 429", True),
    (500, None, errors.ServerError, "server_error", "the server answered 500", True),
    (504, [], errors.ServerError, "server_error", "the server answered 504", True),
    (599, None, errors.ServerError, "server_error", "the server answered 599", True),
    (
        400,
        {"success": False, "error": {"issues": [{"path": ["body", 0], "message": "Required"}, {"message": "x"}, 7]}},
        errors.BadRequest,
        "bad_request",
        "body.0: Required; x",
        False,
    ),
]


@pytest.mark.parametrize(("status", "body", "cls", "code", "message", "retryable"), ERRORS)
def test_each_status_is_its_error(
    status: int, body: Any, cls: type[errors.StatusError], code: str, message: str, retryable: bool
) -> None:
    """Class by status; code, text and hint out of any of the four shapes of body, or by class."""
    error = status_error(Response(status=status, body=body), request_id="r", now=NOW)
    assert type(error) is cls
    assert (error.status, error.code, error.message, error.retryable) == (status, code, message, retryable)
    assert error.request_id == "r"
    assert error.response is not None
    assert error.response.body == body


def test_the_servers_hint_wins() -> None:
    """Where the server says what to do, that is the hint; else the class knows."""
    told = status_error(Response(status=403, body={"error": {"suggestion": "ask Bob"}}), request_id="", now=NOW)
    assert told.hint == "ask Bob"
    assert status_error(Response(status=403), request_id="", now=NOW).hint == errors.Forbidden.default_hint


@given(status=st.integers(400, 599), body=JSON)
def test_any_body_gives_an_error(status: int, body: Any) -> None:
    """No body breaks the reading of an error, and none makes its text long."""
    error = status_error(Response(status=status, body=body), request_id="r", now=NOW)
    assert error.message
    assert error.retryable == (status >= 500 or status in (408, 429))


def test_long_texts_are_cut() -> None:
    """An error is stored and logged: what a server writes in it is bounded."""
    body = {"error": {"message": "m" * 10**6, "hint": "h" * 10**6, "code": "c" * 10**6}}
    assert len(str(status_error(Response(status=500, body=body), request_id="", now=NOW))) < 3000
