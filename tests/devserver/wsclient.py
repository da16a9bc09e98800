"""A raw WebSocket client for tests of the server: standard library only, every byte under the test's control."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class HandshakeRefused(Exception):
    """The server answered with something else than 101."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status, body)
        self.status, self.body = status, body


@dataclass(frozen=True)
class Frame:
    opcode: int
    payload: bytes

    @property
    def close(self) -> tuple[int, str]:
        return struct.unpack("!H", self.payload[:2])[0], self.payload[2:].decode()


class WsClient:
    """One connection. A context manager: closes the socket at the end, without a word."""

    def __init__(
        self,
        port: int,
        path: str,
        headers: dict[str, str] | None = None,
        *,
        handshake: bool = True,
        timeout: float = 10.0,
    ) -> None:
        self.timeout = timeout
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.buffer = b""
        self.answer_headers = ""
        self._messages: list[Any] = []
        self.answer_pings = True
        if handshake:
            try:
                self.shake_hands(port, path, headers or {})
            except BaseException:
                self.sock.close()
                raise

    def __enter__(self) -> WsClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()

    def shake_hands(self, port: int, path: str, headers: dict[str, str]) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self.buffer:
            self._read(time.monotonic() + self.timeout)
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        self.answer_headers = head.decode("latin-1").lower()
        status = int(head.split(b" ")[1])
        if status != 101:
            while part := self.sock.recv(65536):
                self.buffer += part
            raise HandshakeRefused(status, self.buffer)

    # Sending

    def send(self, *commands: Any) -> None:
        """Commands as one text frame, one a line."""
        self.send_text("\n".join(json.dumps(command) for command in commands))

    def send_text(self, text: str) -> None:
        self.send_frame(TEXT, text.encode())

    def send_frame(self, opcode: int, payload: bytes, fin: bool = True) -> None:
        self.sock.sendall(masked(opcode, payload, fin))

    # Receiving

    def frame(self, seconds: float | None = None) -> Frame:
        """The next frame, unfragmented. Raises TimeoutError, or ConnectionError at the end of the stream."""
        ends = time.monotonic() + (self.timeout if seconds is None else seconds)
        while (found := self._cut_frame()) is None:
            self._read(ends)
        return found

    def message(self, seconds: float | None = None) -> Any:
        """The next JSON message. A close frame comes as {"close", "reason"}, a Centrifugo ping, answered, as {}."""
        while not self._messages:
            frame = self.frame(seconds)
            if frame.opcode == CLOSE:
                code, reason = frame.close
                return {"close": code, "reason": reason}
            if frame.opcode == PONG:
                return {"ws_pong": frame.payload.decode()}
            self._messages += [json.loads(line) for line in frame.payload.split(b"\n")]
        message = self._messages.pop(0)
        if message == {} and self.answer_pings:
            self.send_text("{}")
        return message

    def until(self, wanted: Callable[[Any], bool], seconds: float = 10.0) -> list[Any]:
        """Messages up to and with the one that is wanted."""
        ends, found = time.monotonic() + seconds, []
        while True:
            found.append(self.message(max(0.01, ends - time.monotonic())))
            if wanted(found[-1]):
                return found

    def nothing_comes(self, seconds: float = 0.1) -> bool:
        """Whether no message but pings comes for a while."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            try:
                if self.message(left) != {}:
                    return False
            except TimeoutError:
                return True
        return True

    def _cut_frame(self) -> Frame | None:
        if len(self.buffer) < 2:
            return None
        size, start = self.buffer[1] & 127, 2
        if size == 126:
            size, start = int.from_bytes(self.buffer[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(self.buffer[2:10], "big"), 10
        if len(self.buffer) < start + size:
            return None
        opcode, payload = self.buffer[0] & 15, self.buffer[start : start + size]
        self.buffer = self.buffer[start + size :]
        return Frame(opcode, payload)

    def _read(self, ends: float) -> None:
        left = ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(left)
        part = self.sock.recv(1 << 20)
        if not part:
            raise ConnectionError("end of stream")
        self.buffer += part


def masked(opcode: int, payload: bytes, fin: bool = True) -> bytes:
    """A client's frame."""
    mask = os.urandom(4)
    size = len(payload)
    first = (128 if fin else 0) | opcode
    if size < 126:
        head = bytes((first, 128 | size))
    elif size < 65536:
        head = struct.pack("!BBH", first, 128 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 128 | 127, size)
    body = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    return head + mask + body
