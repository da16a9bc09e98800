"""The bare exchange: what goes over the wire, which connection it takes, and what is known when it breaks."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import requests
import responses

from chatsdk.core.errors import (
    CaptivePortalError,
    ConnectTimeoutError,
    InvalidResponseError,
    NotSentError,
    OutcomeUnknownError,
    SettingsError,
    Unauthorized,
)
from chatsdk.core.settings import Settings
from chatsdk.core.tokens import Secret
from chatsdk.pipeline import wire
from chatsdk.pipeline.transport import Transport
from tests.pipeline.kit import Peer, RawServer, always, edit, http, raised, read, send

Serve = Callable[..., RawServer]
Connect = Callable[..., Transport]
ROOT = Path(__file__).resolve().parents[2]


def headers_of(request: bytes) -> dict[str, str]:
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


# ---- what is sent


def test_request_on_the_wire(serve: Serve, connect: Connect) -> None:
    """Method, path, query, JSON and headers are what the request says; the correlation id is X-Request-ID, and what is
    left of its time X-Request-Timeout."""
    server = serve(always(http(b'{"id": "1"}', "201 Created", {"X-Request-ID": "srv-1"})))
    transport = connect(server.url + "/below/", user_agent="chatsdk/test")
    request = send(query={"a": "ä b"}, body={"text": "grüß 🎉"}).with_headers({"Authorization": "Bearer t"})
    response = transport(request)
    assert (response.status, response.body, response.request_id) == (201, {"id": "1"}, "srv-1")
    assert response.elapsed > 0
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /below/api/channels/c/messages?a=%C3%A4+b HTTP/1.1"
    assert json.loads(body) == {"text": "grüß 🎉"}
    headers = headers_of(server.requests[0])
    assert 9.0 < float(headers.pop("x-request-timeout")) <= 10.0
    assert headers == {
        "host": f"127.0.0.1:{server.port}",
        "user-agent": "chatsdk/test",
        "accept": "application/json",
        "accept-encoding": "gzip",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": "corr-1",
        "authorization": "Bearer t",
    }


def test_request_without_a_body(serve: Serve, connect: Connect) -> None:
    """A POST without a body says so by its length and names no content type, which the server would try to read."""
    server = serve(always(http(b"", "204 No Content", length=-1)))
    transport = connect(server)
    assert transport(send(body=None)).body is None
    assert transport(read()).body is None
    posted, got = (headers_of(request) for request in server.requests)
    assert posted["content-length"] == "0"
    assert "content-length" not in got
    assert "content-type" not in posted


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b", "ä", "a\x1b[0m"])
def test_header_injection_is_refused(serve: Serve, connect: Connect, value: str) -> None:
    """A header that would begin another one is refused before anything is sent, and not shown (it may be a secret)."""
    server = serve(always(http()))
    error = raised(lambda: connect(server)(send().with_headers({"Authorization": value})))
    assert type(error) is NotSentError
    assert not error.retryable
    assert value not in str(error)
    assert server.connections == 0


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: 1", "no-slash", "/ä", "//evil.invalid/x\0"])
def test_unquoted_path_is_refused(serve: Serve, connect: Connect, path: str) -> None:
    """A path that is not quoted never leaves."""
    server = serve(always(http()))
    error = raised(lambda: connect(server)(read(path=path)))
    assert (type(error), error.retryable) == (NotSentError, False)
    assert server.connections == 0


@pytest.mark.parametrize("body", [{"a": float("nan")}, {"a": object()}, {"a": "\ud800"}])
def test_body_that_is_no_json_is_refused(serve: Serve, connect: Connect, body: object) -> None:
    """What can't be written as JSON never leaves."""
    server = serve(always(http()))
    error = raised(lambda: connect(server)(send(body=body)))
    assert (type(error), error.retryable) == (NotSentError, False)
    assert server.connections == 0


@pytest.mark.parametrize(
    "url", ["", "chat.example", "ftp://x", "http://", "http://u:p@x", "http://x?a=1", "http://x:y"]
)
def test_url_that_is_none(url: str) -> None:
    """A wrong server URL is a setting to correct."""
    with pytest.raises(SettingsError):
        Transport(url)


# ---- what comes back


def test_compressed_and_chunked_answers(serve: Serve, connect: Connect) -> None:
    """gzip (of one or two members), chunks, a BOM and a body until the end are read."""
    body = b'{"text": "' + b"x" * 100_000 + b'"}'
    halves = gzip.compress(body[:5000]) + gzip.compress(body[5000:])
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:10], body[10:])) + b"0\r\n\r\n"
    answers = [
        http(gzip.compress(body), headers={"Content-Encoding": "gzip"}),
        http(halves, headers={"Content-Encoding": "gzip"}),
        http(chunks, length=-1, headers={"Transfer-Encoding": "chunked"}),
        http(b"\xef\xbb\xbf" + body),
        http(body, length=-1, headers={"Connection": "close"}),
    ]

    def behave(peer: Peer) -> None:
        while peer.request() is not None:
            answer = answers.pop(0)
            peer.say(answer)
            if b"close" in answer[:200]:
                return

    transport = connect(serve(behave))
    for _ in range(5):
        response = transport(read())
        assert response.body == json.loads(body)
        assert int(response.headers["content-length"]) >= len(body)
    assert not answers


def test_lone_surrogates_become_replacement_characters(serve: Serve, connect: Connect) -> None:
    """Half a character would break whoever stores or prints it later; a whole pair stays whole."""
    server = serve(always(http(b'{"text": "a\\ud800b", "smile": "\\ud83d\\ude00"}')))
    assert connect(server)(read()).body == {"text": "a\ufffdb", "smile": "😀"}


def test_clock_skew_is_told_once_a_second(serve: Serve, connect: Connect) -> None:
    """The Date header gives the server's clock against ours; the same second is told once."""
    seen: list[float] = []
    server = serve(always(http(headers={"Date": "Sun, 22 Nov 2026 13:32:35 GMT"})))
    transport = connect(server, on_skew=seen.append)
    transport(read())
    transport(read())
    assert seen == [pytest.approx(1795354355.5 - time.time(), abs=5)]


def test_clock_skew_is_learnt_from_a_refusal(serve: Serve, connect: Connect) -> None:
    """A token that is refused because of the clock is what the skew is for; a portal's clock does not count."""
    seen: list[float] = []
    date = {"Date": "Sun, 22 Nov 2026 13:32:35 GMT"}
    refused = serve(always(http(b'{"error": "expired"}', "401 Unauthorized", date)))
    raised(partial(connect(refused, on_skew=seen.append), read()))
    assert len(seen) == 1
    portal = serve(always(http(b"<html>", headers={**date, "Content-Type": "text/html"})))
    raised(partial(connect(portal, on_skew=seen.append), read()))
    assert len(seen) == 1


def test_cookies_are_never_stored(serve: Serve, connect: Connect) -> None:
    """What a server (or a portal) sets is not sent back."""
    server = serve(always(http(headers={"Set-Cookie": "session=1; Path=/"})))
    transport = connect(server)
    transport(read())
    transport(read())
    assert "cookie" not in headers_of(server.requests[1])


def test_netrc_does_not_replace_the_token(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A ~/.netrc entry for the host leaves our Authorization alone."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login u password p\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    server = serve(always(http()))
    connect(server, trust_env=True)(read().with_headers({"Authorization": "Bearer mine"}))
    assert headers_of(server.requests[0])["authorization"] == "Bearer mine"


# ---- connections


def test_connection_is_reused(serve: Serve, connect: Connect) -> None:
    """Requests one after another share a connection."""
    server = serve(always(http()))
    transport = connect(server)
    for _ in range(3):
        transport(send())
    assert server.connections == 1


def test_connections_that_were_opened_together_are_all_reused(serve: Serve, connect: Connect) -> None:
    """Also those that were opened before the first answer came."""
    together = threading.Barrier(2)

    def behave(peer: Peer) -> None:
        assert peer.request()
        together.wait(10)
        peer.say(http(b"{}"))
        while peer.request():
            peer.say(http(b"{}"))

    server = serve(behave)
    transport = connect(server.url)
    for _ in range(2):
        threads = [threading.Thread(target=transport, args=(read(),)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert server.connections == 2


def dies_when_reused(peer: Peer) -> None:
    """The first connection answers once, and resets when the next request has arrived: the race of a keep-alive."""
    peer.request()
    peer.say(http())
    if peer.number == 1:
        peer.request()
        peer.reset()
        return
    while peer.request() is not None:
        peer.say(http())


@pytest.mark.parametrize("request_", [read(), send(), edit(repeatable=True)], ids=["read", "keyed", "repeatable"])
def test_dead_idle_connection_is_replaced(serve: Serve, connect: Connect, request_: object) -> None:
    """A request that may be done twice goes out again, once, on a fresh connection; nobody notices."""
    server = serve(dies_when_reused)
    transport = connect(server)
    transport(read())
    assert transport(request_).status == 200  # type: ignore[arg-type]
    assert (server.connections, len(server.requests)) == (2, 3)


def test_dead_idle_connection_and_a_request_that_must_not_be_repeated(serve: Serve, connect: Connect) -> None:
    """An edit may have happened when the connection died under it: the caller must be told."""
    server = serve(dies_when_reused)
    transport = connect(server)
    transport(read())
    error = raised(lambda: transport(edit()))
    assert type(error) is OutcomeUnknownError
    assert error.maybe_done
    assert len(server.requests) == 2


def test_dead_idle_connection_and_no_other_one(serve: Serve, connect: Connect) -> None:
    """The server took the request and died: that it cannot be reached now does not mean that nothing was sent."""

    def behave(peer: Peer) -> None:
        peer.request()
        peer.say(http())
        peer.request()
        server._listener.shutdown(socket.SHUT_RDWR)  # nobody can connect any more
        peer.reset()

    server = serve(behave)
    transport = connect(server)
    transport(read())
    error = raised(lambda: transport(send()))
    assert type(error) is OutcomeUnknownError
    assert error.maybe_done
    assert len(server.requests) == 2


def test_all_idle_connections_dead(serve: Serve, connect: Connect) -> None:
    """After a restart of the server every idle connection is dead; the second try takes none of them."""
    gate = threading.Barrier(4)

    def behave(peer: Peer) -> None:
        peer.request()
        if peer.number <= 4:
            gate.wait(5)
            peer.say(http())
            peer.request()
            peer.reset()
        peer.say(http())

    server = serve(behave)
    transport = connect(server)
    threads = [threading.Thread(target=transport, args=(read(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert transport(send()).status == 200
    assert server.connections == 5


def test_fresh_means_fresh(serve: Serve, connect: Connect) -> None:
    """The second try takes no connection that was used before, however many lie idle."""
    server = serve(always(http()))
    transport = connect(server)
    transport(read())
    opened = transport._opened()
    later = time.monotonic() + 5
    for fresh in (False, True):
        exchange = opened.begin(later, later, fresh)
        opened.run(exchange, "GET", f"{server.url}/x", {}, None, 100)
        assert exchange.reused is not fresh
    assert server.connections == 2


def test_a_fresh_connection_that_dies_is_not_tried_again(serve: Serve, connect: Connect) -> None:
    """Only a connection that had been idle is replaced: trying again is else the retry layer's business."""

    def behave(peer: Peer) -> None:
        peer.request()
        peer.reset()

    server = serve(behave)
    assert type(raised(lambda: connect(server)(send()))) is OutcomeUnknownError
    assert len(server.requests) == 1


def test_announced_idle_time_is_respected(serve: Serve, connect: Connect) -> None:
    """A second before the server would close it, an idle connection is not used any more: an edit could get lost."""
    server = serve(always(http(headers={"Keep-Alive": "timeout=1"})))
    transport = connect(server)
    transport(edit())
    transport(edit())
    assert server.connections == 2


def test_many_threads_at_once(serve: Serve, connect: Connect) -> None:
    """Answers go to who asked."""

    def behave(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            peer.say(http(b'{"path": "%s"}' % request.split(b" ")[1]))

    transport = connect(serve(behave))
    wrong: list[object] = []

    def ask(number: int) -> None:
        for turn in range(20):
            path = f"/{number}/{turn}"
            if transport(read(path=path)).body != {"path": path}:
                wrong.append(path)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_closed_transport(serve: Serve, connect: Connect) -> None:
    """After close() requests are refused, as not sent; closing again does nothing."""
    transport = connect(serve(always(http())))
    transport(read())
    transport.close()
    transport.close()
    error = raised(lambda: transport(read()))
    assert (type(error), error.code) == (NotSentError, "closed")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of a process with threads: that is the case here
def test_forked_child_drops_the_parents_connections(serve: Serve, connect: Connect) -> None:
    """A child that abandons the transport uses connections of its own, and the parent's stays as it was."""
    server = serve(always(http()))
    transport = connect(server)
    transport(read())
    child = os.fork()
    if child == 0:
        try:
            transport.abandon()
            os._exit(0 if transport(read()).status == 200 else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert server.connections == 2
    transport(read())
    assert server.connections == 2


# ---- what is left


def lefts(server: RawServer) -> list[float]:
    return [float(headers_of(request)["x-request-timeout"]) for request in server.requests]


def test_each_exchange_says_what_is_left_then(serve: Serve, connect: Connect) -> None:
    """A redirect that is followed, and a dead connection that is replaced, took their time: it is subtracted."""

    def behave(peer: Peer) -> None:
        peer.request()
        peer.say(http())
        if peer.number == 1:
            peer.request()
            peer.server.stopped.wait(0.1)
            peer.reset()
            return
        peer.request()
        peer.server.stopped.wait(0.1)
        peer.say(http(b"", "303 See Other", {"Location": "/x"}))
        peer.request()
        peer.say(http())

    server = serve(behave)
    transport = connect(server)
    now = transport._clock.monotonic()
    transport(read(deadline=now + 5))
    transport(read(deadline=now + 5))  # on the connection that dies
    transport(edit(method="POST", deadline=now + 5))
    first, dying, replaced, moved, followed = lefts(server)
    assert 4 < first <= 5
    assert dying - replaced >= 0.09
    assert moved - followed >= 0.09
    assert followed > 3


def test_a_plugins_own_word_for_it_does_not_count(serve: Serve, connect: Connect) -> None:
    """What the transport keeps to is what the server is told."""
    server = serve(always(http()))
    connect(server)(read(headers={"X-Request-Timeout": "-1"}))
    assert lefts(server)[0] > 0
    assert server.requests[0].lower().count(b"x-request-timeout") == 1


def test_nothing_leaves_without_time(serve: Serve, connect: Connect) -> None:
    """A request whose deadline is over is not sent, by a code of its own."""
    server = serve(always(http()))
    transport = connect(server)
    transport(read())
    for late in (0.0, 5.0):
        error = raised(lambda late=late: transport(read(deadline=transport._clock.monotonic() - late)))  # type: ignore[misc]
        assert (type(error), error.code) == (ConnectTimeoutError, "deadline")
    assert len(server.requests) == 1


def test_a_requests_own_time_for_connecting(connect: Connect) -> None:
    """It counts in place of the transport's."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as filler:
        filler.connect(full.getsockname())
        transport = connect(f"http://127.0.0.1:{full.getsockname()[1]}", connect_timeout=30)
        began = time.monotonic()
        error = raised(lambda: transport(read(connect_timeout=0.2)))
        assert type(error) is ConnectTimeoutError
        assert 0.15 < time.monotonic() - began < 5


# ---- redirects


def test_303_is_followed_as_get_once(serve: Serve, connect: Connect) -> None:
    """An existing direct channel is answered with 303: it is fetched, with the token, on the same origin."""

    def behave(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            moved = http(b"", "303 See Other", {"Location": "/api/channels/7?x=1#f", "Content-Type": "text/plain"})
            peer.say(moved if request.startswith(b"POST") else http(b'{"id": "7"}'))

    server = serve(behave)
    assert connect(server)(edit(method="POST").with_headers({"Authorization": "Bearer t"})).body == {"id": "7"}
    assert server.requests[1].startswith(b"GET /api/channels/7?x=1 HTTP/1.1\r\n")
    followed = headers_of(server.requests[1])
    assert followed["authorization"] == "Bearer t"
    assert "content-type" not in followed
    assert "content-length" not in followed


def test_redirect_of_a_read_is_followed_once(serve: Serve, connect: Connect) -> None:
    """A loop of redirects ends at the second one."""
    server = serve(always(http(b"", "301 Moved", {"Location": "/again"})))
    assert type(raised(lambda: connect(server)(read()))) is InvalidResponseError
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_redirect_of_a_mutation_is_not_followed(serve: Serve, connect: Connect, status: str) -> None:
    """Only 303 says that the POST was done: others would have to be posted again, somewhere else."""
    server = serve(always(http(b"", status, {"Location": "/other"})))
    assert type(raised(lambda: connect(server)(send()))) is InvalidResponseError
    assert len(server.requests) == 1


@pytest.mark.parametrize("request_", [read(), send()], ids=["read", "send"])
@pytest.mark.parametrize("status", ["302 Found", "303 See Other", "307 Temporary"])
def test_no_byte_goes_to_another_origin(serve: Serve, connect: Connect, status: str, request_: object) -> None:
    """Another port of the host is another origin: nothing is sent there, least of all a secret; the hint names it."""
    other = serve(always(http()))
    server = serve(always(http(b"", status, {"Location": f"{other.url}/x"})))
    error = raised(lambda: connect(server)(request_))  # type: ignore[arg-type]
    assert type(error) is InvalidResponseError
    assert other.url in error.hint
    assert other.connections == 0


def test_redirect_to_https_names_the_url(serve: Serve, connect: Connect) -> None:
    """The usual cause: the setting says http where the server is on https."""
    server = serve(always(http(b"", "301 Moved", {"Location": "https://127.0.0.1/x"})))
    assert "https://127.0.0.1" in raised(lambda: connect(server)(read())).hint


def test_redirect_to_a_portal(serve: Serve, connect: Connect) -> None:
    """Another host is a captive portal; the token stays here."""
    server = serve(always(http(b"", "302 Found", {"Location": "http://login.invalid/"})))
    error = raised(lambda: connect(server)(send().with_headers({"Authorization": "Bearer t"})))
    assert type(error) is CaptivePortalError


# ---- proxies


def test_proxy_from_the_settings_and_its_secret(serve: Serve, connect: Connect) -> None:
    """A proxy gets the whole URL and its credentials; those are in no error."""
    proxy = serve(always(http(b'{"via": "proxy"}')))
    url = proxy.url.replace("http://", "http://user:geheim@")
    transport = connect("http://chat.invalid", proxy=Secret(url))
    assert transport(read()).body == {"via": "proxy"}
    assert proxy.requests[0].startswith(b"GET http://chat.invalid/api/x HTTP/1.1")
    assert headers_of(proxy.requests[0])["proxy-authorization"].startswith("Basic ")


def test_proxy_from_the_environment_is_read_once(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY and NO_PROXY count if the settings say so, as they are at the first request."""
    proxy = serve(always(http(b'{"via": "proxy"}')))
    direct = serve(always(http(b'{"via": "nothing"}')))
    monkeypatch.setenv("http_proxy", proxy.url)
    obeys, ignores = connect(direct, trust_env=True), connect(direct)
    assert obeys(read()).body == {"via": "proxy"}
    assert ignores(read()).body == {"via": "nothing"}
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert obeys(read()).body == {"via": "proxy"}
    assert connect(direct, trust_env=True)(read()).body == {"via": "nothing"}


def test_proxy_that_wants_credentials(serve: Serve, connect: Connect) -> None:
    """407 and a refused tunnel mean that nothing reached the server."""
    proxy = serve(always(http(b"", "407 Proxy Authentication Required")))
    for url in ("http://chat.invalid", "https://chat.invalid"):
        error = raised(partial(connect(url, proxy=proxy.url), send()))
        assert (type(error), error.code) == (NotSentError, "proxy"), url
        assert "proxy" in error.hint


# ---- the library below


def test_responses_can_stand_in(connect: Connect) -> None:
    """`responses`, which replaces HTTPAdapter.send, works for users who test their code with it."""
    transport = connect("http://chat.invalid")
    with responses.RequestsMock() as fake:
        fake.post("http://chat.invalid/api/channels/c/messages", json={"id": "1"}, status=201)
        fake.get("http://chat.invalid/api/x", json={"error": {"message": "no"}}, status=401)
        fake.get("http://chat.invalid/api/gone", body=requests.ConnectionError("refused"))
        assert transport(send()).body == {"id": "1"}
        assert type(raised(lambda: transport(read()))) is Unauthorized
        assert type(raised(lambda: transport(read(path="/api/gone")))) is NotSentError


def test_replaced_urllib3_still_works(serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another package took urllib3's name our connection classes are left out; requests still go out."""
    monkeypatch.setattr(wire, "POOLS", {})
    assert connect(serve(always(http(b'{"a": 1}'))))(read()).body == {"a": 1}
    assert raised(lambda: connect("http://127.0.0.1:1")(send())).maybe_done is False


def test_settings_are_obeyed(serve: Serve) -> None:
    """`from_settings` takes url, limits and mode from the settings; without a url it says how to give one."""
    server = serve(always(http(b'{"text": "' + b"x" * 5000 + b'"}')))
    transport = Transport.from_settings(Settings(url=server.url, max_response_bytes=4096))
    assert raised(lambda: transport(read())).code == "too_large"
    transport.close()
    with pytest.raises(SettingsError, match="url"):
        Transport.from_settings(Settings())


def test_nothing_is_imported_before_the_first_request() -> None:
    """A process that never sends does not load requests, nor the library of the circuits."""
    code = (
        "import sys, json; from chatsdk.pipeline.transport import Transport; Transport('http://x');"
        "import chatsdk.plugin; print(json.dumps(sorted(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert not {"requests", "urllib3", "circuitbreaker", "asyncio"} & set(json.loads(done.stdout))
