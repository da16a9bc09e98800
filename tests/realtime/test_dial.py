"""Getting there: addresses, proxies, TLS; and errors that say which stage it was."""

from __future__ import annotations

import base64
import contextlib
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from chatsdk.core.errors import ChatError, ConnectTimeoutError, NotSentError, SettingsError
from chatsdk.core.protocols.states import ConnectionState
from chatsdk.core.settings import Settings
from chatsdk.core.tokens import Secret
from chatsdk.pipeline.resolver import Resolver
from chatsdk.realtime.dial import Dialer, DialSettings
from chatsdk.realtime.proxies import proxy_for
from chatsdk.realtime.waiting import Stopped, Waiter, Waker
from chatsdk.resilience.system_clock import SystemClock
from tests.realtime.peers import (
    LIMIT,
    Heard,
    Peer,
    RawServer,
    Server,
    certificate,
    connecting,
    frame,
    serving,
)
from tests.waiting import eventually

PROXY_NAMES = ("http_proxy", "https_proxy", "ws_proxy", "wss_proxy", "all_proxy", "no_proxy")

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificates with openssl")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine has set."""
    for name in (*PROXY_NAMES, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def waiter() -> Iterator[Waiter]:
    """One run."""
    waker = Waker()
    yield Waiter(SystemClock(), waker)
    waker.close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a function that makes a certificate for a name."""
    folder = tmp_path_factory.mktemp("certificates")
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = certificate(folder, name)
        return made[name]

    return make


def dialer(lookup: Any = None, **facts: Any) -> Dialer:
    resolver = None if lookup is None else Resolver(lookup=lookup)
    return Dialer(DialSettings(**facts), SystemClock(), resolver)


def failed(call: Callable[[], Any]) -> ChatError:
    with pytest.raises(ChatError) as caught:
        call()
    return caught.value


def tls(path: Path) -> Callable[[socket.socket], socket.socket]:
    """How a server wraps its connections."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return lambda sock: context.wrap_socket(sock, server_side=True)


def relay(peer: Peer) -> None:
    """A proxy: obeys CONNECT, whatever name is asked for, to that port of this machine."""
    request = peer.request() or b""
    port = int(request.split(b" ")[1].rpartition(b":")[2])
    with socket.create_connection(("127.0.0.1", port)) as server:
        peer.say(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
        ends = [(peer.sock, server), (server, peer.sock)]
        threads = [threading.Thread(target=_copy, args=each, daemon=True) for each in ends]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def answering(answer: bytes) -> Callable[[Peer], None]:
    """A proxy that answers everything the same."""

    def behave(peer: Peer) -> None:
        peer.request()
        peer.say(answer)
        peer.hold()

    return behave


# ---- addresses


@pytest.mark.parametrize(
    "url",
    [
        "",
        "chat.example.org",
        "http://chat.example.org",
        "ws://",
        "ws://user:pw@chat.example.org",
        "ws://h:0/",
        "ws://h:99999/",
        "ws://h/a b",
        "ws://h/\r\nX: y",
    ],
)
def test_urls_that_are_none(waiter: Waiter, url: str) -> None:
    """They are refused, and not shown: they may hold secrets."""
    error = failed(lambda: dialer().dial(url, waiter))
    assert isinstance(error, SettingsError)
    assert "pw" not in str(error)


def test_next_address_is_tried(waiter: Waiter) -> None:
    """A name with several addresses: one that refuses is no obstacle, and the one that worked is remembered."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("127.0.0.1", 0)) as closed:
        port, refused = listener.getsockname()[1], closed.getsockname()[1]
        closed.close()
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        found = [(*kind, ("127.0.0.1", refused)), (*kind, ("127.0.0.1", port))]
        dialer(lambda host, port: found).dial("ws://chat.invalid/", waiter).close()
        listener.accept()[0].close()


def test_one_address_that_swallows_everything(waiter: Waiter) -> None:
    """It leaves time for the others."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        good = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        found = [(*kind, full.getsockname()), (*kind, good.getsockname())]
        began = time.monotonic()
        dialer(lambda host, port: found, connect_timeout=1.0).dial("ws://chat.invalid/", waiter).close()
        assert time.monotonic() - began < 0.9
        error = failed(lambda: dialer(lambda *_: found[:1], connect_timeout=0.2).dial("ws://chat.invalid/", waiter))
        assert type(error) is ConnectTimeoutError


def test_name_that_is_not_found(waiter: Waiter) -> None:
    """It says so."""

    def look_up(host: str, port: int) -> Any:
        raise socket.gaierror(8, "unknown")

    error = failed(lambda: dialer(look_up).dial("ws://chat.invalid/", waiter))
    assert (type(error), error.code, error.retryable) == (NotSentError, "dns", True)


def test_lookup_that_does_not_end(waiter: Waiter) -> None:
    """It costs the connect time-out, and no more."""
    go = threading.Event()
    began = time.monotonic()
    slow = dialer(lambda host, port: go.wait(LIMIT) and [], connect_timeout=0.2)
    error = failed(lambda: slow.dial("ws://chat.invalid/", waiter))
    assert (type(error), error.code) == (ConnectTimeoutError, "dns_timeout")
    assert time.monotonic() - began < 0.5
    go.set()


def test_nobody_listens(waiter: Waiter) -> None:
    """A refused connection is told at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = failed(lambda: dialer().dial(f"ws://127.0.0.1:{port}/", waiter))
    assert (type(error), error.code) == (NotSentError, "connect")
    assert "refused" in error.message


def test_stopped(waiter: Waiter) -> None:
    """A run that was stopped dials no more."""
    waiter.stop()
    with serving(lambda peer: peer.hold()) as server, pytest.raises(Stopped):
        dialer().dial(f"wss://127.0.0.1:{server.port}/", waiter)


@pytest.mark.parametrize("host", ["chat.example.org", "10.0.0.1", "127.example.org", "[::2]"])
def test_loopback_only(waiter: Waiter, host: str) -> None:
    """Nothing leaves this machine, not even a lookup."""
    asked: list[str] = []

    def look_up(host: str, port: int) -> Any:
        asked.append(host)
        return []

    error = failed(lambda: dialer(look_up, loopback_only=True).dial(f"ws://{host}/", waiter))
    assert isinstance(error, SettingsError)
    assert asked == []


def test_from_settings() -> None:
    """It takes the settings of the same names."""
    settings = Settings(connect_timeout=2.5, proxy=Secret("http://p"), trust_env=False, ca_bundle="x")
    assert DialSettings.of(settings) == DialSettings(
        connect_timeout=2.5, proxy=Secret("http://p"), trust_env=False, ca_bundle="x"
    )


# ---- proxies


@pytest.mark.parametrize(
    ("url", "environ", "found"),
    [
        ("wss://h/", {"https_proxy": "http://p:3128"}, ("p", 3128)),
        ("wss://h/", {"HTTPS_PROXY": "http://p:3128"}, ("p", 3128)),
        ("wss://h/", {"https_proxy": "p:3128"}, ("p", 3128)),
        ("wss://h/", {"wss_proxy": "http://w", "https_proxy": "http://p"}, ("w", 80)),
        ("wss://h/", {"http_proxy": "http://p"}, None),
        ("ws://h/", {"http_proxy": "http://p"}, ("p", 80)),
        ("ws://h/", {"https_proxy": "http://p"}, None),
        ("ws://h/", {"all_proxy": "http://p"}, ("p", 80)),
        ("wss://h.example.org/", {"all_proxy": "http://p", "no_proxy": "example.org"}, None),
        ("wss://h.example.org:99/", {"all_proxy": "http://p", "no_proxy": "h.example.org:99"}, None),
        ("wss://example.com/", {"all_proxy": "http://p", "no_proxy": "example.org"}, ("p", 80)),
        ("wss://h/", {"all_proxy": "http://p", "no_proxy": "*"}, None),
        ("wss://10.1.2.3/", {"all_proxy": "http://p", "no_proxy": "10.0.0.0/8"}, None),
        ("wss://11.1.2.3/", {"all_proxy": "http://p", "no_proxy": "10.0.0.0/8, 11.1.2.4"}, ("p", 80)),
        ("wss://[::1]/", {"all_proxy": "http://p", "no_proxy": "::1"}, None),
        ("wss://h/", {}, None),
    ],
)
def test_proxies_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, url: str, environ: dict[str, str], found: tuple[str, int] | None
) -> None:
    """The variables that HTTP obeys, and what is excepted from them."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    proxy = proxy_for(urlsplit(url), None, True)
    assert (proxy and (proxy.host, proxy.port)) == found
    assert proxy_for(urlsplit(url), None, False) is None


def test_proxy_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes before the environment, and its password is not shown."""
    monkeypatch.setenv("HTTPS_PROXY", "http://other")
    monkeypatch.setenv("NO_PROXY", "*")
    proxy = proxy_for(urlsplit("wss://h/"), Secret("http://me:pass%40word@p:1"), True)
    assert proxy is not None
    assert (proxy.host, proxy.port) == ("p", 1)
    assert proxy.credentials is not None
    assert proxy.credentials.reveal() == "me:pass@word"
    assert "word" not in repr(proxy)


@pytest.mark.parametrize("proxy", ["socks5://p:1", "https://p:1", "http://", "http://h:99999"])
def test_proxies_that_are_not_spoken_to(proxy: str) -> None:
    """They are an error, not passed by."""
    with pytest.raises(SettingsError):
        proxy_for(urlsplit("wss://h/"), proxy, True)


def test_through_a_proxy() -> None:
    """The server is reached by the name that the proxy was given; the proxy gets its credentials, the server none."""
    behaviour = Server()
    with serving(behaviour) as server, serving(relay) as proxy:
        dial = DialSettings(proxy=Secret(f"http://me:secret@127.0.0.1:{proxy.port}"))
        url = f"ws://chat.invalid:{server.port}/ws"
        with connecting(0, url=url, dial=dial) as connection:
            assert connection.connect(wait=LIMIT)
        asked = proxy.requests[0]
        assert asked.startswith(f"CONNECT chat.invalid:{server.port} HTTP/1.1\r\n".encode())
        assert b"Proxy-Authorization: Basic " + base64.b64encode(b"me:secret") in asked
        assert b"Proxy-Authorization" not in behaviour.requests[0]
        assert f"Host: chat.invalid:{server.port}".encode() in behaviour.requests[0]


@needs_openssl
def test_tls_through_a_proxy(certificates: Callable[[str], Path]) -> None:
    """Inside of the tunnel the server proves who it is, by the name that was asked for."""
    mine = certificates("DNS:chat.invalid")
    with serving(Server(), wrap=tls(mine)) as server, serving(relay) as proxy:
        dial = DialSettings(proxy=Secret(proxy.url), ca_bundle=str(mine))
        with connecting(0, url=f"wss://chat.invalid:{server.port}/ws", dial=dial) as connection:
            assert connection.connect(wait=LIMIT)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\n\r\nhidden",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nand more",
        b"x" * 70_000,
    ],
    ids=["407", "502", "nonsense", "speaks first", "too long"],
)
def test_proxy_that_gives_no_way(waiter: Waiter, answer: bytes) -> None:
    """Whatever it answers: nothing was sent to the server, and the error says that it was the proxy."""
    with serving(answering(answer)) as proxy:
        error = failed(lambda: dialer(proxy=Secret(proxy.url)).dial("ws://chat.invalid/", waiter))
        assert (type(error), error.code) == (NotSentError, "proxy")
        assert "hidden" not in str(error)


@pytest.mark.parametrize("drips", [False, True])
def test_proxy_that_does_not_answer(waiter: Waiter, drips: bool) -> None:
    """Silent or dripping, it costs the connect time-out."""

    def behave(peer: Peer) -> None:
        peer.request()
        if drips:
            peer.drip(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 5000)
        peer.hold()

    with serving(behave) as proxy:
        began = time.monotonic()
        error = failed(lambda: dialer(proxy=Secret(proxy.url), connect_timeout=0.3).dial("ws://chat.invalid/", waiter))
        assert type(error) is ConnectTimeoutError
        assert time.monotonic() - began < 0.6


# ---- TLS


@needs_openssl
def test_tls(certificates: Callable[[str], Path]) -> None:
    """With the right certificates; large texts both ways, in many records."""
    mine = certificates("IP:127.0.0.1")
    heard, behaviour = Heard(), Server()
    with serving(behaviour, wrap=tls(mine)) as server:
        dial = DialSettings(ca_bundle=str(mine))
        with connecting(server.port, heard, scheme="wss", dial=dial) as connection:
            assert connection.connect(wait=LIMIT)
            texts = [f'{{"n": {number}, "x": "{"x" * 70_000}"}}' for number in range(20)]
            behaviour.say(b"".join(map(frame, texts)))
            eventually(lambda: len(heard.data) == 20)
            assert [each["n"] for each in heard.data] == list(range(20))


@needs_openssl
@pytest.mark.parametrize("name", ["IP:127.0.0.1", "DNS:other.invalid"], ids=["unknown authority", "wrong host"])
def test_untrusted_server_gets_nothing(waiter: Waiter, certificates: Callable[[str], Path], name: str) -> None:
    """A certificate that can't be trusted: nothing is sent, and the error says so."""
    behaviour = Server()
    with serving(behaviour, wrap=tls(certificates(name))) as server:
        bundle = {} if name.startswith("IP") else {"ca_bundle": str(certificates(name))}
        error = failed(lambda: dialer(**bundle).dial(f"wss://127.0.0.1:{server.port}/", waiter))
        assert (type(error), error.code, error.retryable) == (NotSentError, "tls", True)
        assert "ca_bundle" in error.hint
        assert behaviour.requests == []


def test_plain_server_behind_wss(waiter: Waiter) -> None:
    """A server without TLS is an error, never asked without TLS in its place."""
    with serving(answering(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        error = failed(lambda: dialer(connect_timeout=0.3).dial(f"wss://127.0.0.1:{server.port}/", waiter))
        assert isinstance(error, NotSentError)
        assert not any(b"GET" in request for request in server.requests)


def test_tls_handshake_that_does_not_end(waiter: Waiter) -> None:
    """A peer that is silent in the handshake costs the connect time-out."""
    with serving(lambda peer: peer.hold()) as server:
        began = time.monotonic()
        error = failed(lambda: dialer(connect_timeout=0.3).dial(f"wss://127.0.0.1:{server.port}/", waiter))
        assert type(error) is ConnectTimeoutError
        assert time.monotonic() - began < 0.6


@pytest.mark.parametrize("bundle", ["missing.pem", "empty.pem"])
def test_certificates_that_can_not_be_read(waiter: Waiter, tmp_path: Path, bundle: str) -> None:
    """That is a mistake in the settings, and no try would mend it."""
    (tmp_path / "empty.pem").write_text("")
    with serving(lambda peer: peer.hold()) as server:
        url = f"wss://127.0.0.1:{server.port}/"
        error = failed(lambda: dialer(ca_bundle=str(tmp_path / bundle)).dial(url, waiter))
        assert (type(error), error.code) == (SettingsError, "ca_bundle")
        with connecting(server.port, url=url, dial=DialSettings(ca_bundle=str(tmp_path / bundle))) as connection:
            connection.connect()
            eventually(lambda: connection.state is ConnectionState.FAILED)


@needs_openssl
def test_bundle_of_the_environment(
    waiter: Waiter, certificates: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable that HTTP obeys, if the environment is trusted."""
    mine = certificates("IP:127.0.0.1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(mine))
    with serving(Server(), wrap=tls(mine)) as server:
        url = f"wss://127.0.0.1:{server.port}/"
        dialer().dial(url, waiter).close()
        assert failed(lambda: dialer(trust_env=False).dial(url, waiter)).code == "tls"


def test_sockets_are_closed_when_it_fails(waiter: Waiter) -> None:
    """Each stage that fails frees what it had."""
    import os

    with serving(answering(b"HTTP/1.1 500 no\r\n\r\n")) as server, contextlib.ExitStack():
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        for _ in range(10):
            failed(lambda: dialer(proxy=Secret(server.url)).dial("ws://chat.invalid/", waiter))
            failed(lambda: dialer(connect_timeout=0.02).dial(f"wss://127.0.0.1:{server.port}/", waiter))
        eventually(lambda: _client_fds(server, before))
    assert waiter.held is None


def _client_fds(server: RawServer, before: int) -> bool:
    """No more descriptors than the server's own ends."""
    import os

    if not before:
        return True
    return len(os.listdir("/proc/self/fd")) - before <= server.connections
