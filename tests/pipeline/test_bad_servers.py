"""Whatever stands in the server's place, the caller gets a typed error with a hint, in time."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable

import pytest

from chatsdk.core.errors import (
    CaptivePortalError,
    ChatError,
    ConnectTimeoutError,
    DeadlineExceeded,
    InvalidResponseError,
    NotFound,
    NotSentError,
    OutcomeUnknownError,
    RateLimited,
    ServerError,
)
from chatsdk.core.exchange import Request
from chatsdk.pipeline.transport import Transport
from tests.pipeline.kit import Behaviour, Peer, RawServer, always, edit, http, raised, read, send

TIMEOUT = 0.5
LATEST = TIMEOUT * 1.1 + 0.4
"""Seconds: the deadline and 10 %, and what a busy machine may take."""

HTML = {"Content-Type": "text/html"}


def ask(
    serve: Callable[..., RawServer], connect: Callable[..., Transport], behaviour: Behaviour, request: Request
) -> ChatError:
    """The error of one request, which must come in time and say what to do."""
    transport = connect(serve(behaviour), timeout=TIMEOUT, max_response_bytes=2**20)
    began = time.monotonic()
    error = raised(lambda: transport(request))
    assert time.monotonic() - began < LATEST
    assert error.hint
    assert error.request_id == (request.correlation_id or None)
    return error


def once(*pieces: bytes) -> Behaviour:
    """A behaviour: read a request, say this, close."""

    def behave(peer: Peer) -> None:
        peer.request()
        peer.say(*pieces)

    return behave


def dripped(data: bytes) -> Behaviour:
    def behave(peer: Peer) -> None:
        peer.request()
        peer.drip(data)

    return behave


def silent(peer: Peer) -> None:
    peer.hold()


def resets(peer: Peer) -> None:
    peer.request()
    peer.say(http(b'{"id"', length=100))
    peer.reset()


def endless(peer: Peer) -> None:
    peer.request()
    peer.say(http(b"", length=-1))
    while True:
        peer.say(b" " * 65536)


BOMB = gzip.compress(b"\0" * 2**24)  # made beforehand: the deadline is short, and the machine may be busy


def bomb(peer: Peer) -> None:
    peer.request()
    peer.say(http(b"", length=-1, headers={"Content-Encoding": "gzip"}))
    peer.say(BOMB)


DEEP = b"[" * 200_000 + b"]" * 200_000
BAD = [
    ("web page", once(http(b"<html>sign in</html>", headers=HTML)), CaptivePortalError),
    ("web page that says it is JSON", once(http(b"\n <!doctype html>")), CaptivePortalError),
    ("web page with 403", once(http(b"<html>blocked</html>", "403 Forbidden", HTML)), CaptivePortalError),
    ("511", once(http(b"{}", "511 Network Authentication Required")), CaptivePortalError),
    ("another host", once(http(b"", "302 Found", {"Location": "http://portal.invalid/login"})), CaptivePortalError),
    ("407", once(http(b"", "407 Proxy Authentication Required")), NotSentError),
    ("broken JSON", once(http(b'{"id": ')), InvalidResponseError),
    ("no UTF-8", once(http(b'{"id": "\xff"}')), InvalidResponseError),
    ("a plain text", once(http(b"OK", headers={"Content-Type": "text/plain"})), InvalidResponseError),
    ("404 with no reason", once(http(b"", "404 Not Found")), InvalidResponseError),
    ("400 with a list", once(http(b"[]", "400 Bad Request")), InvalidResponseError),
    ("NaN", once(http(b'{"seq": NaN}')), InvalidResponseError),
    ("infinity", once(http(b'{"seq": 1e999}')), InvalidResponseError),
    ("5000 digits", once(http(b'{"seq": ' + b"9" * 5000 + b"}")), InvalidResponseError),
    ("too deep for the interpreter", once(http(DEEP)), InvalidResponseError),
    ("deeper than we allow", once(http(b"[" * 101 + b"]" * 101)), InvalidResponseError),
    ("1 GB, announced", once(http(b"{", length=10**9)), InvalidResponseError),
    ("1 GB, not announced", endless, InvalidResponseError),
    ("gzip bomb", bomb, InvalidResponseError),
    ("gzip, damaged", once(http(b"\x1f\x8b rubbish", headers={"Content-Encoding": "gzip"})), InvalidResponseError),
    (
        "gzip, cut off",
        once(http(gzip.compress(b"{}")[:-4], headers={"Content-Encoding": "gzip"})),
        InvalidResponseError,
    ),
    ("br, unasked", once(http(b"{}", headers={"Content-Encoding": "br"})), InvalidResponseError),
    ("cut-off body", once(http(b'{"id":', length=100)), OutcomeUnknownError),
    ("cut-off body that is whole JSON", once(http(b"{}", length=100)), OutcomeUnknownError),
    (
        "cut-off chunks",
        once(http(b"5\r\n{'id'\r\n", length=-1, headers={"Transfer-Encoding": "chunked"})),
        OutcomeUnknownError,
    ),
    (
        "broken chunks",
        once(http(b"zz\r\n", length=-1, headers={"Transfer-Encoding": "chunked"})),
        OutcomeUnknownError,
    ),
    ("100 kB of headers", once(http(headers={f"X-{n}": "y" * 2000 for n in range(50)})), InvalidResponseError),
    ("a header of 100 kB", once(http(headers={"X": "y" * 100_000})), InvalidResponseError),
    ("1000 headers", once(http(headers={f"X-{n}": "y" for n in range(1000)})), InvalidResponseError),
    ("no HTTP", once(b"SSH-2.0-OpenSSH_9\r\n\r\n"), InvalidResponseError),
    ("status 999", once(http(b"{}", "999 What")), ChatError),
    ("304", once(http(b"", "304 Not Modified")), InvalidResponseError),
    ("redirect to nowhere", once(http(b"", "302 Found", {"Location": "http://[::1"})), InvalidResponseError),
    ("1 byte at a time: headers", dripped(http(b"{}" * 1000)), DeadlineExceeded),
    ("1 byte at a time: body", dripped(http(b'{"a": "' + b"x" * 1000)[:]), DeadlineExceeded),
    ("silence", silent, DeadlineExceeded),
    ("end without an answer", once(), OutcomeUnknownError),
    ("RST in the body", resets, OutcomeUnknownError),
    ("500", once(http(b"<html>oops</html>", "500 Oops", HTML)), ServerError),
    ("503, cut off", once(http(b"{", "503 Down", {"Retry-After": "7"}, length=100)), ServerError),
    ("429 as a web page", once(http(b"<html>slow down", "429 Too Many", {**HTML, "Retry-After": "7"})), RateLimited),
]


@pytest.mark.parametrize("request_", [read(correlation_id="r1"), send(), edit()], ids=["read", "send", "edit"])
@pytest.mark.parametrize(("behaviour", "expected"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_server(
    serve: Callable[..., RawServer],
    connect: Callable[..., Transport],
    behaviour: Behaviour,
    expected: type[ChatError],
    request_: Request,
) -> None:
    """Each kind of wrong answer is one kind of error, in time, for every kind of request."""
    error = ask(serve, connect, behaviour, request_)
    assert isinstance(error, expected), repr(error)
    assert expected is ChatError or type(error) is expected or issubclass(expected, ServerError), repr(error)


@pytest.mark.parametrize("status", ["503 Down", "429 Too Many"])
def test_retry_after_survives_a_bad_body(
    serve: Callable[..., RawServer], connect: Callable[..., Transport], status: str
) -> None:
    """A server (or what stands before it) that asks to wait is heard, whatever its body is."""
    error = ask(serve, connect, once(http(b"<html>", status, {**HTML, "Retry-After": "7"})), send())
    assert getattr(error, "retry_after", None) == 7.0


def test_nothing_of_a_huge_body_is_kept(serve: Callable[..., RawServer], connect: Callable[..., Transport]) -> None:
    """An announced gigabyte is refused at once, not read up to the limit."""
    transport = connect(serve(once(http(b"{", length=10**9))), timeout=5)
    began = time.monotonic()
    error = raised(lambda: transport(read()))
    assert error.code == "too_large"
    assert time.monotonic() - began < 1


def test_peer_that_does_not_read(serve: Callable[..., RawServer], connect: Callable[..., Transport]) -> None:
    """The deadline covers sending as well: a peer that takes nothing can't hold the caller."""
    error = ask(serve, connect, silent, send(body={"text": "x" * 20_000_000}))
    assert type(error) is DeadlineExceeded


def test_nobody_listens(connect: Callable[..., Transport]) -> None:
    """A refused connection means that nothing was sent, and says where it went."""
    server = RawServer(silent)
    server.stop()
    error = raised(lambda: connect(server, timeout=TIMEOUT)(send()))
    assert type(error) is NotSentError
    assert str(server.port) in error.message
    assert not error.maybe_done


def test_nobody_accepts(connect: Callable[..., Transport]) -> None:
    """A port that swallows connections costs the connect time-out, and nothing was sent."""
    import socket

    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as filler:
        port = full.getsockname()[1]
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", port))
        others = [socket.socket() for _ in range(4)]
        try:
            for other in others:
                other.setblocking(False)
                other.connect_ex(("127.0.0.1", port))
            transport = connect(f"http://127.0.0.1:{port}", timeout=5, connect_timeout=0.3)
            began = time.monotonic()
            error = raised(lambda: transport(send()))
            assert type(error) is ConnectTimeoutError
            assert time.monotonic() - began < 0.3 * 1.1 + 0.25
        finally:
            for other in others:
                other.close()


def test_deadline_that_has_passed(serve: Callable[..., RawServer], connect: Callable[..., Transport]) -> None:
    """A request that comes too late is not sent at all."""
    server = serve(always(http()))
    error = raised(lambda: connect(server)(send(deadline=time.monotonic() - 1)))
    assert type(error) is ConnectTimeoutError
    assert server.connections == 0


def test_transport_goes_on_after_bad_answers(
    serve: Callable[..., RawServer], connect: Callable[..., Transport]
) -> None:
    """After a wrong answer the next one is read from its beginning, not from what was left of the last one."""
    bad = [http(b"{", length=10**9), http(b"<html>", headers=HTML), http(b"oops", "404 Not Found"), http(b"{")]

    def behave(peer: Peer) -> None:
        while peer.request() is not None:
            peer.say(bad.pop() if bad else http(b'{"fine": true}'))

    transport = connect(serve(behave), timeout=TIMEOUT)
    for _ in range(4):
        raised(lambda: transport(read()))
    assert transport(read()).body == {"fine": True}


def test_a_real_404_is_a_404(serve: Callable[..., RawServer], connect: Callable[..., Transport]) -> None:
    """The control: an error that the server itself explains is that error."""
    error = ask(serve, connect, always(http(b'{"error": {"message": "no such channel"}}', "404 Not Found")), send())
    assert type(error) is NotFound
    assert error.message == "no such channel"
