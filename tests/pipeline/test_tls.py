"""TLS: who can't prove who he is gets nothing, and is never asked without it."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chatsdk.core.errors import ConnectTimeoutError, NotSentError
from chatsdk.pipeline.transport import Transport
from tests.pipeline.kit import Peer, RawServer, always, http, raised, read, send

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificates with openssl")

Serve = Callable[..., RawServer]
Connect = Callable[..., Transport]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give a function that makes a certificate (with its key in one file) for a name."""
    folder = tmp_path_factory.mktemp("certificates")

    def make(name: str) -> Path:
        path = folder / f"{name.partition(':')[2]}.pem"
        if not path.exists():
            command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
            command += ["-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={name}"]
            command += ["-keyout", str(path), "-out", str(folder / "cert")]
            subprocess.run(command, check=True, capture_output=True)
            path.write_bytes(path.read_bytes() + (folder / "cert").read_bytes())
        return path

    return make


def tls(certificate: Path) -> Callable[[socket.socket], socket.socket]:
    """How a server wraps its connections."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return lambda sock: context.wrap_socket(sock, server_side=True)


def https(server: RawServer) -> str:
    return f"https://127.0.0.1:{server.port}"


def test_https_with_own_certificates(serve: Serve, connect: Connect, certificates: Callable[[str], Path]) -> None:
    """With the right certificates it works, and connections are reused."""
    mine = certificates("IP:127.0.0.1")
    server = serve(always(http(b'{"a": 1}')), wrap=tls(mine))
    transport = connect(https(server), ca_bundle=str(mine))
    assert transport(send()).body == {"a": 1}
    assert transport(send(body={"text": "x" * 200_000})).body == {"a": 1}
    assert server.connections == 1


@pytest.mark.parametrize("name", ["IP:127.0.0.1", "DNS:other.invalid"], ids=["unknown authority", "wrong host"])
def test_untrusted_server_gets_nothing(
    serve: Serve, connect: Connect, certificates: Callable[[str], Path], name: str
) -> None:
    """A certificate that can't be trusted: nothing is sent, the error says so, and it is worth trying again later."""
    bundle = {} if name.startswith("IP") else {"ca_bundle": str(certificates(name))}
    server = serve(always(http()), wrap=tls(certificates(name)))
    error = raised(lambda: connect(https(server), **bundle)(send().with_headers({"Authorization": "Bearer t"})))
    assert (type(error), error.code, error.retryable) == (NotSentError, "tls", True)
    assert "ca_bundle" in error.hint
    assert server.requests == []


def test_plain_server_behind_https(serve: Serve, connect: Connect) -> None:
    """A server without TLS is an error, never asked without TLS in its place."""
    server = serve(always(http()))
    error = raised(lambda: connect(https(server), timeout=0.3)(send()))
    assert isinstance(error, NotSentError)
    assert not any(b"hello" in request for request in server.requests)


def test_handshake_that_does_not_end(serve: Serve, connect: Connect) -> None:
    """A peer that is silent in the handshake costs the connect time-out, and nothing was sent."""
    server = serve(lambda peer: peer.hold())
    began = time.monotonic()
    error = raised(lambda: connect(https(server), timeout=5, connect_timeout=0.3)(send()))
    assert type(error) is ConnectTimeoutError
    assert time.monotonic() - began < 0.3 * 1.1 + 0.25


def test_answer_that_drips_over_tls(serve: Serve, connect: Connect, certificates: Callable[[str], Path]) -> None:
    """The deadline holds over TLS as well."""

    def behave(peer: Peer) -> None:
        peer.request()
        peer.drip(http(b"x" * 1000))

    mine = certificates("IP:127.0.0.1")
    server = serve(behave, wrap=tls(mine))
    began = time.monotonic()
    error = raised(lambda: connect(https(server), ca_bundle=str(mine), timeout=0.5)(read()))
    assert error.code == "deadline"
    assert time.monotonic() - began < 0.5 * 1.1 + 0.25
