"""What stands between a client and a realtime server in schools and companies: it lets the websocket through, or blocks
it in one of the ways that there are. HTTP goes past it, or through a proxy that gives no tunnel. And a listener behind
it, whose handlers are compared with the server's own record."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from chatsdk import events
from chatsdk.devserver.process import DevServer
from tests.chaos.listening.heard import Sight, Verdict, judge
from tests.chaos.monkey import whole_log
from tests.journeys.listeners import Listener
from tests.realtime.bots import Writer

POLL_S = 0.2
"""In place of 3 s."""

WAYS = ("400", "403", "426", "html", "reset", "silent", "closed", "swallow")
"""How the websocket is blocked: the upgrade is answered by that status, by a page, by a reset, by nothing; the port is
closed; or the handshake is let through and every frame after it is swallowed."""

_PAGE = b"<html><body>This site is blocked by your administrator.</body></html>"


class Gate:
    """A TCP proxy for the websocket. `way`: "" lets it through, else one of `WAYS`; `tries`: connections so far."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.way = ""
        self.tries = 0
        self.port = 0
        self._listen()

    def block(self, way: str) -> None:
        """From now on. Whoever is connected, or hangs, is cut off."""
        self.way = way
        if way == "closed":
            self._shut()
        elif self._listener is None:
            self._listen()
        self._cut()

    def unblock(self) -> None:
        """Let everything through."""
        self.block("")

    def close(self) -> None:
        """The end."""
        self._shut()
        self._cut()

    # ---- the rest

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(50)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _shut(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _cut(self) -> None:
        with self._lock:
            cut, self._open = self._open, set()
        for sock in cut:
            _end(sock)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                self.tries += 1
                with self._lock:
                    self._open.add(sock)
                threading.Thread(target=self._serve, args=(sock, self.way), daemon=True).start()

    def _serve(self, sock: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            head = _head(sock)
            if way.isdecimal():
                sock.sendall(b"HTTP/1.1 %s No\r\nContent-Length: 0\r\n\r\n" % way.encode())
            elif way == "html":
                sock.sendall(_answer(b"200 OK", _PAGE))
            elif way == "reset":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif way == "silent":
                _swallow(sock)
            else:
                self._pass(sock, head, swallow=way == "swallow")
        sock.close()

    def _pass(self, sock: socket.socket, head: bytes, *, swallow: bool) -> None:
        with socket.create_connection(("127.0.0.1", self._target)) as server:
            with self._lock:
                self._open.add(server)
            server.sendall(head)
            if swallow:
                sock.sendall(_head(server))
                _swallow(sock)
            else:
                _relay(sock, server)
            _end(server)


class ForwardProxy:
    """An HTTP proxy that fetches pages, and refuses every tunnel. `tunnels`: how many it refused."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.tunnels = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """The end."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            head = _head(sock)
            method, target, rest = head.split(b" ", 2)
            if method == b"CONNECT":
                self.tunnels += 1
                sock.sendall(_answer(b"403 Forbidden", _PAGE))
                return
            url = urlsplit(target.decode())
            path = url.path + (f"?{url.query}" if url.query else "")
            lines = [line for line in rest.split(b"\r\n") if not line.lower().startswith(b"connection:")]
            lines.insert(1, b"Connection: close")  # so that one connection is one request
            with socket.create_connection((url.hostname or "", url.port or 80)) as server:
                server.sendall(b" ".join((method, path.encode(), b"\r\n".join(lines))))
                _relay(sock, server)


def _answer(status: bytes, page: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n%s" % (status, len(page), page)


def _head(sock: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            raise ConnectionError("it has gone")
        data += piece
    return data


def _swallow(sock: socket.socket) -> None:
    while sock.recv(65536):
        pass


def _relay(one: socket.socket, other: socket.socket) -> None:
    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        _end(source)
        _end(sink)

    back = threading.Thread(target=pump, args=(other, one), daemon=True)
    back.start()
    pump(one, other)
    back.join()


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def gate(port: int) -> Iterator[Gate]:
    """A gate before that port, open at first."""
    made = Gate(port)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def behind(
    wall: Gate, server: DevServer, directory: Path, protocol: str = "centrifugo", **options: Any
) -> Iterator[Listener]:
    """bob, whose websocket goes through the wall."""
    given = {
        "ws_url": through(wall, server, protocol),
        "poll_interval": POLL_S,
        "reconnect": "forever",
        "heartbeat_timeout": 1.0,
        **options,
    }
    with Listener(server, directory, protocol, **given) as bot:
        yield bot


def through(wall: Gate, server: DevServer, protocol: str) -> str:
    """The URL of the server's websocket behind the wall."""
    url = server.plain_url if protocol == "json" else server.ws_url
    return url.replace(f":{server.port}/", f":{wall.port}/")


def write(server: DevServer, channels: list[str], numbers: range) -> None:
    """So many messages, spread over the channels."""
    writer = Writer(server)
    for number in numbers:
        writer.send(channels[number % len(channels)], [f"m{number}"])
    writer.connection.close()


def verdict(server: DevServer, bot: Listener, channels: list[str]) -> Verdict:
    """What the handlers saw, against the server's own record."""
    sights = [
        Sight(1, each.channel, each.message_id or "", each.seq or 0, each.late, each.message.text or "")
        for each in bot.of(events.MessageReceived)
    ]
    log = [message for message in whole_log(server) if message["channel"] in channels]
    gaps = [f"{each.channel}: {each.reason}" for each in bot.of(events.Gap) if each.channel]
    return judge(sights, log, gaps)


def heard(bot: Listener) -> int:
    """How many messages its handlers saw."""
    return len({each.message_id for each in bot.of(events.MessageReceived)})


def polling(bot: Listener) -> list[bool]:
    """When it was told to poll, and not to."""
    return [event.polling for event in bot.of(events.PollingChanged)]
