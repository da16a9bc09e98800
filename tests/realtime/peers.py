"""The other end of a realtime connection, on a raw socket: it can do everything wrong that a server can do wrong. And
the smallest protocol that there is, to drive a connection with."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from chatsdk.core.protocols.outputs import Close, Malformed, Opened, Output, Published, Send
from chatsdk.core.tokens import Secret
from chatsdk.realtime.connection import Connection
from tests.pipeline.kit import Behaviour, Peer, RawServer

LIMIT = 10.0
"""Seconds after which something that should happen is taken not to happen."""

TEXT, BINARY, CONTINUED, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA

__all__ = ["Behaviour", "Peer", "RawServer"]


def frame(payload: bytes | str, opcode: int = TEXT, *, last: bool = True, reserved: int = 0) -> bytes:
    """A frame as a server sends it."""
    data = payload.encode() if isinstance(payload, str) else payload
    return header(len(data), opcode, last=last, reserved=reserved) + data


def header(length: int, opcode: int = TEXT, *, last: bool = True, reserved: int = 0) -> bytes:
    """What goes before `length` bytes of payload, whether they come or not."""
    first = (0x80 if last else 0) | reserved | opcode
    if length < 126:
        return struct.pack("!BB", first, length)
    if length < 2**16:
        return struct.pack("!BBH", first, 126, length)
    return struct.pack("!BBQ", first, 127, length)


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame."""
    return frame(struct.pack("!H", code) + reason.encode(), CLOSE)


def accepted(request: bytes, *, more: bytes = b"") -> bytes:
    """The answer to a handshake. `more`: further headers."""
    key = next(
        line.partition(b":")[2].strip()
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    )
    proof = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return head + b"Sec-WebSocket-Accept: " + proof + b"\r\n" + more + b"\r\n"


def shake_hands(peer: Peer) -> bytes:
    """Answer the handshake; returns the request."""
    request = peer.request()
    if request is None:
        raise ConnectionError("the client has gone")
    peer.say(accepted(request))
    return request


def read_frame(sock: socket.socket) -> tuple[int, bytes]:
    """The next frame of a client: opcode and payload. Raises ConnectionError at the end."""
    first, second = _exactly(sock, 2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack("!H", _exactly(sock, 2))
    elif length == 127:
        (length,) = struct.unpack("!Q", _exactly(sock, 8))
    mask = _exactly(sock, 4) if second & 0x80 else b"\0\0\0\0"
    data = _exactly(sock, length)
    return first & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise ConnectionError("the client has gone")
        data += piece
    return data


class Server:
    """A behaviour: shakes hands, takes every client (`open` is the answer to its token), and answers pings and close
    frames. `tokens`: those that came; `heard`: other texts that came; `say` talks to all clients."""

    def __init__(self, *, take: bool = True, hold: Callable[[], bool] = lambda: True) -> None:
        self.tokens: list[str] = []
        self.heard: list[str] = []
        self.codes: list[int] = []
        self.requests: list[bytes] = []
        self.peers: list[Peer] = []
        self.take = take
        self._hold = hold

    def __call__(self, peer: Peer) -> None:
        self.requests.append(shake_hands(peer))
        self.peers.append(peer)
        with contextlib.suppress(ConnectionError):
            while self._hold():
                opcode, data = read_frame(peer.sock)
                if opcode == TEXT:
                    self._text(peer, data.decode())
                elif opcode == PING:
                    peer.say(frame(data, PONG))
                elif opcode == CLOSE:
                    self.codes.append(int.from_bytes(data[:2], "big"))
                    peer.say(frame(data, CLOSE))
                    return

    def _text(self, peer: Peer, text: str) -> None:
        fact = json.loads(text)
        if "token" in fact:
            self.tokens.append(fact["token"])
            if self.take:
                peer.say(frame('{"opened": true}'))
        else:
            self.heard.append(text)

    def say(self, data: bytes) -> None:
        """Send bytes to the newest client."""
        self.peers[-1].say(data)

    def cut(self) -> None:
        """Cut the newest client off, without a word."""
        with contextlib.suppress(OSError):
            self.peers[-1].sock.shutdown(socket.SHUT_RDWR)


class Simple:
    """The smallest protocol: sends `{"token": ...}`, is open at `{"opened": ...}`, and takes anything else for a
    publication. `silence`: seconds without bytes after which the peer is gone."""

    subprotocols: tuple[str, ...] = ()

    def __init__(self, silence: float | None = None) -> None:
        self.silence = silence
        self.last = 0.0
        self.renewed: list[str] = []

    def opened(self, token: Secret | None, now: float) -> list[Output]:
        self.last = now
        return [Send(json.dumps({"token": token.reveal() if token else ""}))]

    def receive(self, frame: bytes | str, now: float) -> list[Output]:
        try:
            fact = json.loads(frame)
        except ValueError:
            return [Malformed("no JSON")]
        if "opened" in fact:
            return [Opened("client")]
        if "end" in fact:
            return [Close(*fact["end"])]
        return [Published("stream", fact)]

    def receive_all(self, frames: Sequence[str], now: float) -> list[Output]:
        return [output for frame in frames for output in self.receive(frame, now)]

    def heard(self, now: float) -> None:
        self.last = now

    def due(self, now: float) -> list[Output]:
        if self.silence is not None and now >= self.last + self.silence:
            return [Close(0, "nothing was heard")]
        return []

    def next_due(self) -> float | None:
        return None if self.silence is None else self.last + self.silence

    def closed(self, code: int, reason: str) -> Close:
        return Close(code, reason, reconnect=not 3500 <= code < 4000, fresh_token=code == 3005)

    def subscribe(self, stream: str, token: Any, position: Any, now: float) -> list[Output]:
        return [Send(json.dumps({"subscribe": stream}))]

    def unsubscribe(self, stream: str, now: float) -> list[Output]:
        return []

    def renew(self, stream: str | None, token: Secret, now: float) -> list[Output]:
        self.renewed.append(token.reveal())
        return [Send(json.dumps({"renew": token.reveal()}))]

    def typing(self, stream: str, user: str, typing: bool, now: float) -> list[Output] | None:
        return [Send(json.dumps({"typing": typing}))]

    def request(self, method: str, params: Any, now: float) -> tuple[int, list[Output]]:
        raise ValueError(method)


class Heard(list[Output]):
    """A listener that keeps what it hears."""

    def __call__(self, outputs: list[Output], now: float) -> None:
        self.extend(outputs)

    @property
    def data(self) -> list[Any]:
        """What was published."""
        return [output.data for output in self if isinstance(output, Published)]


@contextlib.contextmanager
def serving(behaviour: Behaviour, **facts: Any) -> Iterator[RawServer]:
    """A server that is gone when the test is over."""
    server = RawServer(behaviour, **facts)
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def connecting(port: int, listener: Any = None, *, scheme: str = "ws", **facts: Any) -> Iterator[Connection]:
    """A connection to a port, not begun; it is closed when the test is over, and its thread has ended."""
    facts = {"protocol": Simple, "close_timeout": 5.0, **facts}
    url = facts.pop("url", f"{scheme}://127.0.0.1:{port}/ws")
    connection = Connection(url, listener=Heard() if listener is None else listener, **facts)
    try:
        yield connection
    finally:
        assert connection.close()


def certificate(folder: Path, name: str) -> Path:
    """A certificate for `name` ("IP:127.0.0.1", "DNS:..."), with its key in one file, made by openssl."""
    path = folder / f"{name.partition(':')[2]}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=test", "-addext", f"subjectAltName={name}"]
    command += ["-keyout", str(path), "-out", str(folder / "cert")]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + (folder / "cert").read_bytes())
    return path


def took(call: Callable[[], Any]) -> float:
    """Seconds that `call` takes."""
    began = time.monotonic()
    call()
    return time.monotonic() - began


def readers() -> list[threading.Thread]:
    """The reader threads of this process."""
    return [thread for thread in threading.enumerate() if thread.name == "chatsdk-realtime"]
