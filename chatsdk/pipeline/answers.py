"""What an answer means: bytes in, `Response` or error out. Pure.

200 counts only with the expected JSON; whatever else stands in the server's place must neither count as sent nor kill a
message:

    2xx with JSON, or empty                       Response
    2xx or 4xx with HTML, 511, another host       CaptivePortalError
    2xx or 4xx with anything else                 InvalidResponseError (429 and 408 count whatever the body)
    4xx with a JSON object                        StatusError
    5xx                                           ServerError, whatever the body
    407                                           NotSentError: the proxy's, not the server's
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from ..core.errors import CaptivePortalError, ChatError, InvalidResponseError, NotSentError
from ..core.exchange import Json, Request, Response, status_error
from ..core.record import Record, record
from ..core.strict_json import parse_json

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ANY_BODY = frozenset({408, 429})
_URL_HINT = "correct the setting url: the server says that it is at {where}"


@record(frozen=True, slots=True)
class Answer(Record):
    """An answer as it came: `headers` with lower-case names, `data` decompressed, `elapsed` in seconds."""

    status: int
    headers: Mapping[str, str]
    data: bytes
    elapsed: float


class TooLarge(Exception):
    """A body is longer than it may be."""


def read_answer(answer: Answer, request: Request, *, now: float) -> Response:
    """The response, or what to raise in its place. `now`: Unix time."""
    status = answer.status
    if status >= 500 and status != 511:
        raise status_error(_response(answer, _json_or_none(answer.data)), request_id=request.correlation_id, now=now)
    if 200 <= status < 300:
        return _response(answer, None if not answer.data else _read_json(answer, request))
    if status == 407:
        raise NotSentError(
            "the proxy wants credentials",
            code="proxy",
            hint="put them into the setting proxy (http://user:password@host:port)",
            request_id=request.correlation_id,
        )
    if status == 511:
        raise _captive("the network wants a sign-in (511)", request)
    if 400 <= status < 500:
        body: Json
        if status in _ANY_BODY or request.method == "HEAD":
            body = _json_or_none(answer.data)
        else:
            body = _read_json(answer, request)
            if not isinstance(body, dict):
                raise _invalid(f"the answer {status} does not say why, so it is hardly the server's", request)
        raise status_error(_response(answer, body), request_id=request.correlation_id, now=now)
    raise _invalid(f"an answer {status} was not expected", request)


def redirect(answer: Answer, request: Request, url: str, *, followed: bool) -> str | None:
    """Where to GET what `answer` points to: a URL of the same origin as `url`, or None if it is no redirect.

    Followed are 303 (to any method) and any redirect of a read, once, and only within the origin: a secret goes nowhere
    else. Raises CaptivePortalError (another host), InvalidResponseError (everything else).
    """
    location = answer.headers.get("location")
    if answer.status not in REDIRECTS or location is None:
        return None
    try:
        target = urljoin(url, location)
        here, there = urlsplit(url), urlsplit(target)
        same = origin(here) == origin(there)
    except ValueError:
        raise _invalid("the server redirects to what is no URL", request) from None
    if here.hostname != there.hostname:
        raise _captive(f"{here.hostname} redirects to {there.hostname}", request)
    if not same:
        where = f"{there.scheme}://{there.netloc.rpartition('@')[2]}"
        raise _invalid(f"the server redirects to {where}", request, hint=_URL_HINT.format(where=where))
    if followed or not (answer.status == 303 or request.is_read):
        raise _invalid(f"the server redirects a {request.method} of {request.path} ({answer.status})", request)
    return target


def origin(url: SplitResult) -> tuple[str, str, int | None]:
    """Scheme, host and port. Raises ValueError for a port that is none."""
    scheme = url.scheme.lower()
    return scheme, url.hostname or "", url.port or {"http": 80, "https": 443}.get(scheme)


def inflate(pieces: Iterator[bytes], encoding: str, most: int) -> bytes:
    """A compressed body, never longer than `most` bytes at any moment. Raises TooLarge; zlib.error for what is damaged
    or an encoding that was not asked for."""
    if encoding not in ("gzip", "x-gzip"):
        raise zlib.error(f"content-encoding {encoding!r} was not asked for")
    out = bytearray()
    decoder = zlib.decompressobj(31)
    for piece in pieces:
        while piece:
            if decoder.eof:  # another member follows
                decoder = zlib.decompressobj(31)
            out += decoder.decompress(piece, most + 1 - len(out))
            if len(out) > most:
                raise TooLarge
            piece = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
    if not decoder.eof:
        raise zlib.error("the compressed body is cut off")
    return bytes(out)


# ---- JSON


def _json_or_none(data: bytes) -> Json:
    try:
        return parse_json(data) if data else None
    except (ValueError, RecursionError):
        return None


def _read_json(answer: Answer, request: Request) -> Json:
    data = answer.data
    try:
        return parse_json(data)
    except (ValueError, RecursionError) as error:
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in ("text/html", "application/xhtml+xml") or data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            raise _captive(f"a web page came in the server's place ({answer.status})", request) from error
        what = "nothing" if not data else f"{kind or 'something'} that is no JSON"
        raise _invalid(f"{what} came where JSON belongs ({answer.status})", request) from error


def _response(answer: Answer, body: Json) -> Response:
    return Response(status=answer.status, headers=answer.headers, body=body, elapsed=answer.elapsed)


def _captive(what: str, request: Request) -> ChatError:
    return CaptivePortalError(what, request_id=request.correlation_id)


def _invalid(what: str, request: Request, **facts: Any) -> ChatError:
    return InvalidResponseError(what, request_id=request.correlation_id, **facts)
