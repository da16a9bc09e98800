"""A realtime server that only publishes, in a process of its own, so that no reader ever waits for it.

Standard library only. Its streams are encoded before anybody connects: COUNT publications of 200 bytes of JSON, in turn
for CHANNELS channels, as frames of the plain protocol and as Centrifugo's, one publication a frame and sixteen (what a
real Centrifugo puts into a frame at most, when a queue has built up). Readers are served one after the other:

    WebSocket        both handshakes are answered, and every subscription is granted. What a client sends is read
                     while the stream flows
    GET /go?STREAM   STREAM ("plain", "one", "sixteen") flows to the newest WebSocket, as fast as its socket takes it
    GET .../messages the page of a channel after `since_seq`, for a client that fell behind
    POST ...         a subscription's token

It ends with the process that started it: its standard input is the other end of a pipe.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

SIZE = 200
CHANNELS = 20
USER = "alice"
APP = "app"
PATH = "/connection/websocket"

_PIECE = 1 << 16
_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_LINES = {"plain": 0, "one": 1, "sixteen": 16}


def channel_id(number: int) -> str:
    """A channel's id."""
    return f"{number:08x}-1111-4111-8111-111111111111"


def stream_name(channel: str) -> str:
    """What Centrifugo calls it."""
    return f"chat:{APP}:{channel}"


class Publisher:
    """The process. `port` is where it listens, once the `with` block has begun."""

    def __init__(self, count: int, channels: int = CHANNELS) -> None:
        self.count, self.channels = count, channels

    def __enter__(self) -> Publisher:
        command = [sys.executable, "-S", "-E", str(Path(__file__)), str(self.count), str(self.channels)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            raise RuntimeError("the bench's publisher did not start")
        self.port = int(port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def go(port: int, stream: str) -> None:
    """Let a stream flow to the newest WebSocket."""
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        sock.sendall(f"GET /go?{stream} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
        if not sock.recv(64).startswith(b"HTTP/1.1 200"):
            raise RuntimeError("the publisher has nobody to publish to")


# ---- the streams


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _padded(make: Any) -> str:
    """JSON of SIZE bytes."""
    return _compact(make("x" * (SIZE - len(_compact(make(""))))))


def _publications(count: int, channels: int) -> Iterator[tuple[str, int, str]]:
    """(channel, seq, message id), the channels in turn."""
    for number in range(count):
        which = number % channels
        yield channel_id(which), number // channels + 1, f"{number:08x}-0000-4000-8000-{which:012x}"


def _plain(channel: str, seq: int, name: str) -> str:
    return _padded(
        lambda text: {
            "type": "message",
            "id": name,
            "conversation_id": channel,
            "sender_id": USER,
            "text": text,
            "sequence_number": seq,
        }
    )


def _pushed(channel: str, seq: int, name: str) -> str:
    message = {"id": name, "userId": USER, "seq": seq}
    data = _padded(
        lambda text: {"type": "message.new", "payload": {"channelId": channel, "message": {**message, "text": text}}}
    )
    return f'{{"push":{{"channel":"{stream_name(channel)}","pub":{{"data":{data},"offset":{seq}}}}}}}'


def _frame(text: str) -> bytes:
    data = text.encode()
    if len(data) < 126:
        return bytes((0x81, len(data))) + data
    return b"\x81\x7e" + len(data).to_bytes(2, "big") + data


def encoded(count: int, channels: int) -> dict[str, bytes]:
    """The streams, by name, as they go over the wire."""
    publications = list(_publications(count, channels))
    pushes = [_pushed(*each) for each in publications]
    found = {"plain": b"".join(_frame(_plain(*each)) for each in publications)}
    for name, lines in _LINES.items():
        if lines:
            frames = ("\n".join(pushes[first : first + lines]) for first in range(0, count, lines))
            found[name] = b"".join(map(_frame, frames))
    return found


# ---- a connection


class _Socket:
    """What came and was not used yet; and one sender at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._file = sock.makefile("rb")
        self._sending = threading.Lock()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise ConnectionResetError
        return data

    def head(self) -> dict[str, str]:
        """Of a request; its first line is under ""."""
        first = self._file.readline().decode("latin-1").strip()
        if not first:
            raise ConnectionResetError
        found = {"": first}
        while line := self._file.readline().decode("latin-1").strip():
            name, _, value = line.partition(":")
            found[name.lower()] = value.strip()
        return found

    def send(self, data: bytes) -> None:
        with self._sending:
            self.sock.sendall(data)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """(opcode, payload) of what a client sends, until it goes."""
        while True:
            first, second = self.read(2)
            length = second & 0x7F
            if length > 125:
                length = int.from_bytes(self.read(2 if length == 126 else 8), "big")
            mask = self.read(4)
            data = bytes(byte ^ mask[place % 4] for place, byte in enumerate(self.read(length)))
            yield first & 0x0F, data
            if first & 0x0F == 8:
                return


def _answers(command: Any) -> str:
    """What a message of a client is answered with, or nothing."""
    if "type" in command:
        kind = {"ping": "pong", "subscribe": "subscribed", "unsubscribe": "unsubscribed"}.get(command["type"])
        return _compact({**command, "type": kind}) if kind else ""
    method = next((name for name in command if name != "id"), None)
    if method is None:
        return ""  # a pong
    answer: Any = {}
    if method == "connect":
        answer = {"client": "c", "version": "0", "ping": 25, "pong": True}
    elif method == "subscribe":
        answer = {"recoverable": True, "epoch": "e", "positioned": True}
    return _compact({"id": command["id"], method: answer})


class _Server:
    def __init__(self, count: int, channels: int) -> None:
        self._count, self._channels = count, channels
        self._bytes = encoded(count, channels)
        self._newest: _Socket | None = None

    def serve(self, sock: socket.socket) -> None:
        """One connection, in a thread of its own."""
        peer = _Socket(sock)
        with sock:
            try:
                while True:
                    head = peer.head()
                    if "sec-websocket-key" in head:
                        self._websocket(peer, head)
                        return
                    body = peer.read(int(head.get("content-length", 0)))
                    self._http(peer, head[""].split()[1], body)
            except (OSError, ValueError):
                return

    def _websocket(self, peer: _Socket, head: dict[str, str]) -> None:
        accept = base64.b64encode(hashlib.sha1(head["sec-websocket-key"].encode() + _KEY).digest()).decode()
        protocol = f"Sec-WebSocket-Protocol: {asked}\r\n" if (asked := head.get("sec-websocket-protocol")) else ""
        peer.send(
            f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{protocol}"
            f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
        )
        self._newest = peer
        for opcode, data in peer.frames():
            if opcode == 1:
                answers = [answer for line in data.split(b"\n") if (answer := _answers(json.loads(line)))]
                peer.send(b"".join(map(_frame, answers)))
            elif opcode == 9:
                peer.send(bytes((0x8A, len(data))) + data)
            elif opcode == 8:
                peer.send(bytes((0x88, len(data))) + data)

    def _http(self, peer: _Socket, path: str, body: bytes) -> None:
        answer: Any = {}
        if path.startswith("/go?"):
            if self._newest is None:
                raise ValueError("nobody to publish to")
            stream = self._bytes[path.partition("?")[2]]
            threading.Thread(target=_flow, args=(self._newest, stream), daemon=True).start()
        elif path.endswith("/subscription-token"):
            answer = {"token": "t", "expiresIn": 900}
        elif "/messages" in path:
            answer = self._page(path)
        data = _compact(answer).encode()
        peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data)
        )

    def _page(self, path: str) -> Any:
        route, _, query = path.partition("?")
        wanted = dict(each.split("=", 1) for each in query.split("&") if "=" in each)
        channel = route.split("/")[3]
        # a channel that was never heard has nothing yet: the stream begins afterwards
        since = int(wanted.get("since_seq", 0))
        limit = int(wanted.get("limit", 50))
        last = self._count // self._channels
        which = int(channel[:8], 16)
        seqs: Sequence[int] = range(since + 1, min(last, since + limit) + 1) if since else ()
        messages = [
            {
                "id": f"{(seq - 1) * self._channels + which:08x}-0000-4000-8000-{which:012x}",
                "channelId": channel,
                "userId": USER,
                "text": "",
                "seq": seq,
                "createdAt": "2026-01-01T00:00:00.000Z",
            }
            for seq in seqs
        ]
        return {"messages": messages, "maxSeq": last if since else 0, "hasMore": bool(seqs) and seqs[-1] < last}


def _flow(peer: _Socket, stream: bytes) -> None:
    view = memoryview(stream)
    try:
        for at in range(0, len(view), _PIECE):
            with peer._sending:
                peer.sock.sendall(view[at : at + _PIECE])
    except OSError:
        return  # it has read what it wanted


def _main(count: int, channels: int) -> None:
    server = _Server(count, channels)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=lambda: (os.read(0, 1), os._exit(0)), daemon=True).start()
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=server.serve, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]))
