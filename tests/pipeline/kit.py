"""What the tests of pipeline, middleware and resilience share: a client as plugins see it, a clock that is moved by
hand, and a server on a raw socket that can do everything wrong that a server can do wrong."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from typing import Any

from chatsdk.core.clock import Waitable
from chatsdk.core.errors import ChatError
from chatsdk.core.events import Event
from chatsdk.core.exchange import Request, Response
from chatsdk.core.settings import Settings
from chatsdk.resilience.budget import RetryBudget
from chatsdk.resilience.circuits import Circuits
from chatsdk.resilience.emitter import Emitter
from chatsdk.resilience.metrics import Metrics
from chatsdk.resilience.system_clock import SystemClock

LIMIT = 10.0
"""Seconds after which something that should happen is taken not to happen."""


class FakeClock:
    """A clock that only moves when it is told to, or when somebody waits on it. `waits`: how long each waited."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_700_000_000.0 + self.now

    def wait(self, event: Waitable, timeout: float) -> bool:
        self.waits.append(timeout)
        if not event.is_set():
            self.now += timeout
        return event.is_set()


class Client:
    """A `PluginClient`. `events`: what was emitted; `authorized`: what was asked of `authorize`."""

    def __init__(self, clock: Any = None, **settings: Any) -> None:
        self.settings = Settings(**{"url": "http://127.0.0.1:1", "discover": False, **settings})
        self.clock = clock or SystemClock()
        self.closing = threading.Event()
        self.circuits = Circuits(clock=self.clock, emit=self.emit, settings=self.settings)
        self.metrics = Metrics(self.clock)
        self.budget = RetryBudget()
        self.emitter = Emitter(self.clock)
        self.events: list[Event] = []
        self.authorized: list[tuple[Request, bool]] = []
        self.tokens = ["old", "new"]

    def random(self) -> float:
        return 0.5

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self.emitter.emit(event)

    def authorize(self, request: Request, force: bool) -> Mapping[str, str]:
        self.authorized.append((request, force))
        return {"Authorization": f"Bearer {self.tokens[1 if force else 0]}"}


def read(operation: str = "messages.list", **facts: Any) -> Request:
    """A GET."""
    return Request(**{"operation": operation, "method": "GET", "path": "/api/x", "user": "alice", **facts})


def send(**facts: Any) -> Request:
    """A message, with its key."""
    return Request(
        **{
            "operation": "messages.send",
            "method": "POST",
            "path": "/api/channels/c/messages",
            "body": {"text": "hello", "clientMsgId": "k1"},
            "user": "alice",
            "channel": "c",
            "key": "k1",
            "correlation_id": "corr-1",
            **facts,
        }
    )


def edit(**facts: Any) -> Request:
    """A mutation that is neither keyed nor repeatable."""
    return Request(
        **{
            "operation": "messages.edit",
            "method": "PATCH",
            "path": "/api/m",
            "body": {"text": "x"},
            "user": "alice",
            **facts,
        }
    )


class Script:
    """The end of a chain: gives or raises what it was told, in turn; the last one for ever. `seen`: the requests."""

    def __init__(self, *outcomes: Response | BaseException) -> None:
        self.outcomes = list(outcomes) or [Response(status=200, body={})]
        self.seen: list[Request] = []

    def __call__(self, request: Request) -> Response:
        self.seen.append(request)
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def raised(call: Callable[[], Any]) -> ChatError:
    """The ChatError that `call` raises."""
    try:
        call()
    except ChatError as error:
        return error
    raise AssertionError("nothing was raised")


def http(
    body: bytes = b"{}", status: str = "200 OK", headers: Mapping[str, str] | None = None, *, length: int | None = None
) -> bytes:
    """An answer as bytes. `length`: another Content-Length than the true one; -1: none."""
    given = {"Content-Type": "application/json", **(headers or {})}
    if length != -1:
        given["Content-Length"] = str(len(body) if length is None else length)
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


Behaviour = Callable[["Peer"], object]


class Peer:
    """The server's end of one connection."""

    def __init__(self, server: RawServer, sock: socket.socket, number: int) -> None:
        self.server = server
        self.sock = sock
        self.number = number
        self._rest = b""

    def request(self) -> bytes | None:
        """The next request as it came (head and body), or None at the end."""
        data = self._rest
        while b"\r\n\r\n" not in data:
            piece = self.sock.recv(65536)
            if not piece:
                return None
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        while len(body) < length:
            piece = self.sock.recv(65536)
            if not piece:
                return None
            body += piece
        self._rest = body[length:]
        whole = head + b"\r\n\r\n" + body[:length]
        self.server.requests.append(whole)
        return whole

    def say(self, *pieces: bytes) -> None:
        """Send."""
        for piece in pieces:
            self.sock.sendall(piece)

    def drip(self, data: bytes, every: float = 0.02) -> None:
        """Send a byte at a time, until the other side has gone."""
        for byte in data:
            self.sock.sendall(bytes([byte]))
            if self.server.stopped.wait(every):
                return

    def hold(self) -> None:
        """Do nothing until the other side goes, or the test ends."""
        self.sock.settimeout(0.02)
        while not self.server.stopped.is_set():
            try:
                if not self.sock.recv(1):
                    return
            except TimeoutError:
                continue

    def reset(self) -> None:
        """End the connection with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class RawServer:
    """A server on a loopback socket that runs `behaviour(peer)` for each connection.

    `connections`: how many came; `requests`: what they asked; `broken`: errors of the behaviour itself.
    """

    def __init__(self, behaviour: Behaviour, *, wrap: Callable[[socket.socket], socket.socket] | None = None) -> None:
        self.behaviour = behaviour
        self.wrap = wrap
        self.connections = 0
        self.requests: list[bytes] = []
        self.broken: list[BaseException] = []
        self.stopped = threading.Event()
        self._peers: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopped.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._peers.append(sock)
            self._start(self._serve, sock, self.connections)

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self.wrap is not None:
                sock = self.wrap(sock)
            self.behaviour(Peer(self, sock, number))
        except OSError:
            pass  # the client has gone
        except BaseException as error:
            self.broken.append(error)
        finally:
            with contextlib.suppress(OSError):
                sock.close()

    def stop(self) -> None:
        """Close everything and wait for it."""
        self.stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._peers:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        assert self.broken == []


def always(answer: bytes) -> Behaviour:
    """A behaviour: the same answer to every request."""

    def behave(peer: Peer) -> None:
        while peer.request() is not None:
            peer.say(answer)

    return behave
