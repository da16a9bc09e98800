"""A process that sends so fast that the server is the limit: `python -S senders.py`, standard library only.

It reads its job, one line of JSON, from standard input, and ends with it. Each thread has a connection that is kept
alive, and repeats a message under its key until the server has accepted it. Each accepted message is one byte in the
file `count`, so that whoever watches knows how far it is.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

AGAIN_S = 0.02
"""Seconds until a message that did not get through is tried again."""

ANSWER_S = 10.0
"""Seconds that an answer may take."""

HOT = 0.25
"""Share of the messages that go to the first channel."""


def main() -> None:
    """Send what the job says, and end."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    count = os.open(job["count"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    numbers = itertools.count()
    senders = [
        threading.Thread(target=_send_all, args=(job, number, token, numbers, count))
        for number, token in enumerate(job["tokens"])
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()


def _end_with_standard_input() -> None:
    sys.stdin.read()
    os._exit(1)


def _send_all(job: dict[str, Any], sender: int, token: str, numbers: Iterator[int], count: int) -> None:
    dice = random.Random(f"{job['seed']} {sender}")
    connection = Connection(job["port"], token)
    while (number := next(numbers)) < job["messages"]:
        channel = job["channels"][0] if dice.random() < HOT else dice.choice(job["channels"])
        key = str(uuid.UUID(int=dice.getrandbits(128), version=4))
        while not connection.send(channel, key, f"message {sender}.{number}"):
            time.sleep(AGAIN_S)
        os.write(count, b".")
    connection.close()


class Connection:
    """A connection to the API, opened anew when it is lost."""

    def __init__(self, port: int, token: str) -> None:
        self._port, self._token = port, token
        self._sock: socket.socket | None = None

    def send(self, channel: str, key: str, text: str) -> bool:
        """Whether the server has the message now."""
        body = json.dumps({"text": text, "clientMsgId": key}).encode()
        head = (
            f"POST /api/channels/{channel}/messages HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._token}"
            f"\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            if self._sock is None:
                self._sock = socket.create_connection(("127.0.0.1", self._port), ANSWER_S)
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sock.sendall(head.encode() + body)
            status = self._status(self._sock)
        except OSError:
            self.close()
            return False
        return status in (200, 201)

    def _status(self, sock: socket.socket) -> int:
        data = b""
        while b"\r\n\r\n" not in data:
            data += _more(sock)
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
        while len(body) < length:
            body += _more(sock)
        if b"connection: close" in lines:
            self.close()
        return int(lines[0].split(b" ")[1])

    def close(self) -> None:
        """Hang up."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _more(sock: socket.socket) -> bytes:
    data = sock.recv(65536)
    if not data:
        raise ConnectionError("the server hung up")
    return data


if __name__ == "__main__":
    main()
