"""One request and one response, as values that travel through the pipeline.

A `Request` is frozen and, but for `deadline`, JSON: what the outbox stores is what is sent. It never carries a token;
the auth middleware puts that on the copy that goes to the transport. A `Call` is a request with the function that
turns its response into a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import UTC
from typing import Any, Generic, TypeVar

from . import errors
from .record import Record, record
from .timeouts import Preset

T = TypeVar("T")

Json = Any
"""Whatever `json.loads` may return."""

_EMPTY: Mapping[str, str] = {}
_STORED = ("operation", "method", "path", "query", "body", "user", "channel", "key", "repeatable", "correlation_id")


@record(frozen=True, kw_only=True)
class Request(Record):
    """What is asked of the server.

    operation       the backend's name for the call, such as "messages.send"; circuits, caches and plugins go by it
    method, path    path begins with "/", quoted, without the query
    query           query parameters, str to str
    body            JSON object, or None
    user            on whose behalf; "" for calls without a user (health)
    channel         the channel it is about, or ""
    key             idempotency key (UUID text) of a mutation, or None; kept over all tries
    repeatable      doing it twice is the same as doing it once (reads, delete, react, ...)
    deadline        monotonic time at which the caller stops waiting, or None
    attempt         1 for the first try, set by whoever tries again
    correlation_id  one id over all tries; sent as X-Request-ID, found in every log record
    headers         extra headers; never Authorization in a stored request
    fresh           a read that must not be answered from the cache
    single_try      whoever sends it tries again by himself (the outbox): one try, no retries. Not stored
    connect_timeout seconds for making one connection, None: as the setting has it. Not stored
    max_bytes       longest answer that is of use, None: as the setting `max_response_bytes` has it
    """

    operation: str
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    body: Json = field(default=None, repr=False)
    user: str = ""
    channel: str = ""
    key: str | None = None
    repeatable: bool = False
    deadline: float | None = None
    attempt: int = 1
    correlation_id: str = ""
    headers: Mapping[str, str] = field(default_factory=lambda: _EMPTY, repr=False)
    fresh: bool = False
    single_try: bool = False
    connect_timeout: float | None = None
    max_bytes: int | None = None

    def replace(self, **changes: Any) -> Request:
        """A copy with the named fields changed."""
        # dataclasses.replace costs ten times as much, and this runs several times for every request
        new = object.__new__(Request)
        facts = new.__dict__
        facts.update(self.__dict__)
        facts.update(changes)
        if len(facts) != len(_FIELDS):
            raise TypeError(f"Request has no field {sorted(set(facts) - set(_FIELDS))[0]!r}")
        return new

    def with_body(self, **changes: Json) -> Request:
        """A copy with the named keys of the body changed."""
        return self.replace(body={**(self.body or {}), **changes})

    def with_headers(self, headers: Mapping[str, str]) -> Request:
        """A copy with more headers."""
        return self.replace(headers={**self.headers, **headers})

    @property
    def is_read(self) -> bool:
        """True for GET and HEAD."""
        return self.method in ("GET", "HEAD")

    def to_json(self) -> dict[str, Json]:
        """What the outbox stores: no headers, no deadline."""
        return {name: (dict(self.query) if name == "query" else getattr(self, name)) for name in _STORED}

    @classmethod
    def from_json(cls, stored: Mapping[str, Json]) -> Request:
        """The request as it was stored; unknown fields (of a newer version) are left out."""
        return cls(**{name: stored[name] for name in _STORED if name in stored})


_FIELDS = tuple(Request.__dataclass_fields__)


@record(frozen=True, slots=True, kw_only=True)
class Response(Record):
    """What the server answered: `headers` with lower-case names, `body` as parsed JSON (None where there was none),
    `elapsed` seconds for this exchange, `from_cache` if no exchange took place."""

    status: int
    headers: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    body: Json = field(default=None, repr=False)
    elapsed: float = 0.0
    from_cache: bool = False

    @property
    def request_id(self) -> str | None:
        """The server's X-Request-ID."""
        return self.headers.get("x-request-id")


@record(frozen=True, slots=True)
class Call(Record, Generic[T]):
    """A request and how to read its answer. `parse` raises `InvalidResponseError`; `preset`: how long it may take, if
    nobody says otherwise (`timeouts`)."""

    request: Request
    parse: Callable[[Response], T]
    preset: Preset = "standard"


CallNext = Callable[[Request], Response]
"""The rest of the chain, as a middleware sees it."""

_BY_STATUS: dict[int, type[errors.StatusError]] = {
    400: errors.BadRequest,
    401: errors.Unauthorized,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    422: errors.BadRequest,
    429: errors.RateLimited,
}

RETRYABLE_STATUS = frozenset({408, 429})
"""Retryable beside every 5xx (seed 002)."""

MAX_RETRY_AFTER = 24 * 3600.0
"""A server that asks for more (seconds) is taken to mean this: a wrong clock must not park a lane for ever."""


_LONGEST = 1000
"""Characters kept of a message that a server gives: errors are stored with their messages, and logged."""


def retry_after(headers: Mapping[str, str], body: Json, now: float) -> float | None:
    """Seconds the server asks to wait: `Retry-After` in seconds or as an HTTP date, `retry_after_ms` or
    `error.retryAfter` in the body. None if it does not say, or not in words we know. `now`: Unix time, for an answer
    that has a date to wait for and none of its own."""
    seconds: float | None = None
    value = headers.get("retry-after", "").strip()
    if value:
        try:
            seconds = float(value)
        except ValueError:
            date = _http_date(value)
            # by the server's clock where it tells the time: ours may be an hour behind
            sent = None if date is None else _http_date(headers.get("date", ""))
            seconds = None if date is None else date - (now if sent is None else sent)
    if seconds is None and isinstance(body, dict):
        error = body.get("error")
        for number, unit in (
            (body.get("retry_after_ms"), 0.001),
            (error.get("retryAfter") if isinstance(error, dict) else None, 1.0),
        ):
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                seconds = max(min(number, 1e12), -1e12) * unit  # an int may be too large for a float
                break
    if seconds is None or seconds != seconds:  # NaN is unequal to itself
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _http_date(value: str) -> float | None:
    """Unix time of an HTTP date; one without a zone is UTC."""
    from email.utils import parsedate_to_datetime  # pulls in socket, and few answers need it

    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def status_error(response: Response, *, request_id: str, now: float) -> errors.StatusError:
    """The error that an answer of 400 and above stands for. `now`: Unix time (a Retry-After may be a date)."""
    status = response.status
    code, message, hint = _read_error(response.body)
    cls = _BY_STATUS.get(status) or (errors.ServerError if status >= 500 else errors.StatusError)
    return cls(
        message or f"the server answered {status}",
        status=status,
        response=response,
        retry_after=retry_after(response.headers, response.body, now),
        code=code,
        hint=hint,
        retryable=status >= 500 or status in RETRYABLE_STATUS,
        request_id=request_id,
    )


def _read_error(body: Json) -> tuple[str | None, str, str | None]:
    """(code, message, hint) out of the four shapes the server uses."""
    if not isinstance(body, dict):
        return None, "", None
    error = body.get("error")
    if isinstance(error, str):
        return None, error[:_LONGEST], None
    if not isinstance(error, dict):
        return None, "", None
    code, message, hint = error.get("code"), error.get("message"), error.get("hint") or error.get("suggestion")
    issues = error.get("issues")
    if isinstance(issues, list) and issues:
        message = "; ".join(_issue(issue) for issue in issues[:5] if isinstance(issue, dict))
    return (
        code.lower()[:_LONGEST] if isinstance(code, str) and code else None,
        message[:_LONGEST] if isinstance(message, str) else "",
        hint[:_LONGEST] if isinstance(hint, str) and hint else None,
    )


def _issue(issue: Mapping[str, Json]) -> str:
    path = issue.get("path")
    where = ".".join(str(part) for part in path) if isinstance(path, list) else ""
    return f"{where}: {issue.get('message', 'invalid')}" if where else str(issue.get("message", "invalid"))
