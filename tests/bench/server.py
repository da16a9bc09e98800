"""The other end of the wire, in a process of its own: as little server as can be, and the same for everybody.

One thread, epoll, keep-alive, TCP_NODELAY, a fixed JSON answer. What stands between the port and the first "/api" of a
request's path says how it behaves:

    (nothing)   answers; a message is answered under its own `clientMsgId`, as its sender wants to see it
    /drip       answers one byte every 0.2 s, for ever
    /silent     reads, and says nothing
    /count      answers how many POSTs were answered so far

It ends with the process that started it: its standard input is the other end of a pipe.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType

KEY = "00000000-0000-4000-8000-000000000000"
ANSWER = json.dumps(
    {
        "ok": True,
        "id": KEY,
        "clientMsgId": KEY,
        "channelId": KEY,
        "userId": "alice",
        "seq": 1,
        "type": "message",
        "status": "sent",
        "createdAt": "2026-01-01T00:00:00.000Z",
        "text": "hello",
    },
    separators=(",", ":"),
).encode()

DRIP = 0.2
_MARK = b'"clientMsgId"'


class Server:
    """The process. `url` is where it listens, once the `with` block has begun."""

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            raise RuntimeError("the bench's server did not start")
        self.port = int(port)
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def answered(self) -> int:
        """How many POSTs it has answered."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall(b"GET /count HTTP/1.1\r\nConnection: close\r\n\r\n")
            data = b""
            while piece := sock.recv(65536):
                data += piece
        return int(json.loads(data.partition(b"\r\n\r\n")[2])["count"])


class _Peer:
    """A connection and what has been read of its next request."""

    __slots__ = ("data", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""


def _whole(data: bytes) -> int:
    """Length of the first request in `data`, 0 if it is not all there yet."""
    head = data.find(b"\r\n\r\n")
    if head < 0:
        return 0
    lower = data[:head].lower()
    at = lower.find(b"\r\ncontent-length:")
    length = 0 if at < 0 else int(lower[at + 17 :].split(b"\r\n", 1)[0])
    whole = head + 4 + length
    return whole if len(data) >= whole else 0


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def _serve() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    poll.register(0, select.EPOLLIN)
    peers: dict[int, _Peer] = {}
    dripping: set[int] = set()
    fixed, count = _answer(ANSWER), 0

    def drop(number: int) -> None:
        dripping.discard(number)
        peers.pop(number).sock.close()

    while True:
        for number, _ in poll.poll(DRIP if dripping else -1):
            if number == 0:
                if not os.read(0, 4096):
                    return
                continue
            if number == listener.fileno():
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peers[sock.fileno()] = _Peer(sock)
                poll.register(sock, select.EPOLLIN)
                continue
            peer = peers[number]
            try:
                data = peer.sock.recv(65536)
            except OSError:
                data = b""
            if not data:
                drop(number)
                continue
            data = peer.data = peer.data + data
            whole = _whole(data)
            if not whole:
                continue
            peer.data = data[whole:]
            path = data.split(b" ", 2)[1]
            if path.startswith(b"/silent"):
                continue
            if path.startswith(b"/drip"):
                dripping.add(number)
                continue
            if path.startswith(b"/count"):
                peer.sock.sendall(_answer(b'{"count":%d}' % count))
                drop(number)
                continue
            count += 1
            mark = data.find(_MARK)
            if mark >= 0:
                key = data[mark + len(_MARK) : whole].split(b'"', 2)[1]
                peer.sock.sendall(fixed.replace(KEY.encode(), key))
            else:
                peer.sock.sendall(fixed)
            if b"\r\nConnection: close" in data[:whole]:
                drop(number)
        for number in list(dripping):
            try:
                peers[number].sock.sendall(b"x")
            except OSError:
                drop(number)


if __name__ == "__main__":
    _serve()
