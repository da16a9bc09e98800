"""WebSocket on a connected socket: texts out of bytes. The only file that knows websocket-client.

* The handshake is the library's, on a reader of ours: one time limit over all of it (a peer may drip), a limit on its
  size, no `Origin` (a server would have to allow it), no redirects (the token would follow), no cookies (the library
  shares them among all connections of a process).
* Whole text frames, as a server sends them, are cut straight from the buffer. Every other frame goes through the
  library, once all of it is there: fragments, pings, close.
* Nothing is negotiated, so a frame with a reserved bit is an error (1002), as is one that is masked. No frame, and no
  message of several, may be longer than `max_size` (1009), and one that says that it is longer is not waited for. Text
  is UTF-8 (1007).

Uses `WebSocket.connect(socket=)`, `recv_frame`, `send`, `ping`, `pong` and `send_close` with `sock` set to an object
of ours.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..core.errors import (
    CaptivePortalError,
    ChatError,
    ConnectTimeoutError,
    Forbidden,
    NotFound,
    NotSentError,
    RateLimited,
    ServerError,
    SettingsError,
    StatusError,
    Unauthorized,
)
from ..core.tokens import Secret
from ..resilience.import_lock import ImportLock
from .waiting import Waiter
from .wire import Wire

MAX_HEAD_BYTES = 64 * 2**10
"""Of the handshake's answer."""

MAX_UNSENT_PONGS = 2**20
"""Bytes unsent from which on pings are not answered: the peer does not read the answers."""

NO_CODE, ABNORMAL, PROTOCOL_ERROR, BAD_DATA, TOO_BIG = 1005, 1006, 1002, 1007, 1009  # RFC 6455, 7.4.1

_TEXT, _BINARY, _CONTINUED, _CLOSE, _PING, _PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA  # RFC 6455, 5.2

_read_head = struct.Struct(">BBH").unpack_from

_LEFT_OUT = re.compile(rb"(?im)^(?:set-cookie|content-length)[ \t]*:.*\r?\n(?:[ \t].*\r?\n)*")
"""Headers of the answer that the library would act upon: it would keep cookies, and wait for an error's body."""

_STATUS: Mapping[int, type[StatusError]] = {401: Unauthorized, 403: Forbidden, 404: NotFound, 429: RateLimited}

_HINTS: Mapping[int, str] = {
    403: "check ws_token and ws_url; a proxy or filter on the way may let no websocket through",
    404: "check ws_url and realtime: no websocket is served at this address",
}
"""Of an answer to a handshake, which is about no channel and no message."""

_VISIBLE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

_importing = ImportLock()


class Ended(NamedTuple):
    """Why no more frames come. `ours`: we found fault with the peer, and said so."""

    code: int
    reason: str
    ours: bool = False


class Frames:
    """One open WebSocket. Belongs to the reader thread. `ended`: why it ended, or None. `pongs`: what came as answers
    to pings and was not looked at yet. `came`: bytes of the last read, of which TLS may have kept all."""

    def __init__(self, wire: Wire, websocket: Any, max_size: int) -> None:
        self.wire = wire
        self.ended: Ended | None = None
        self.came = 0
        self.pongs: deque[bytes] = deque(maxlen=2)  # a peer may send more of them than were asked for
        self._websocket = websocket  # Any: its methods have no types
        self._max_size = max_size
        self._parts: bytearray | None = None

    # ---- in

    def texts(self) -> list[str]:
        """Read once: the texts that are complete now. Never raises for what a peer sends: see `ended`."""
        self.came = 0
        try:
            self.came = self.wire.read()
        except OSError as error:
            self.ended = Ended(ABNORMAL, error.strerror or str(error) or type(error).__name__)
            return []
        return self.cut() if self.came else []

    def cut(self) -> list[str]:
        """The complete texts of what has come already."""
        texts: list[str] = []
        wire = self.wire
        try:
            self._cut_into(texts, wire)
        except UnicodeDecodeError:
            self._give_up(BAD_DATA, "text that is not UTF-8")
        return texts

    def _cut_into(self, texts: list[str], wire: Wire) -> None:
        while self.ended is None:
            if self._parts is None:
                self._cut_whole(texts, wire)
            if len(wire.buffer) - wire.position < 2 or not self._other(texts):
                return

    def _cut_whole(self, texts: list[str], wire: Wire) -> None:
        """Text frames that are all there, up to the first that is anything else."""
        buffer, position = wire.buffer, wire.position
        end, most = len(buffer), self._max_size
        while end - position >= 4:
            kind, short, length = _read_head(buffer, position)
            if kind != 0x81 or short > 126:
                break
            if short == 126:
                start = position + 4
            else:
                start, length = position + 2, short
            stop = start + length
            if stop > end or length > most:
                break
            texts.append(buffer[start:stop].decode())
            position = stop
        wire.position = position

    def _other(self, texts: list[str]) -> bool:
        """The frame at the buffer's position, whatever it is. False if it is not whole."""
        size = self._size()
        left = len(self.wire.buffer) - self.wire.position
        if size is None or size > left:
            if size is not None:
                self.wire.want(size)
            return False
        from websocket import WebSocketException

        try:
            frame = self._websocket.recv_frame()
        except (WebSocketException, ValueError) as error:
            self._give_up(PROTOCOL_ERROR, str(error))
            return True
        data: bytes = frame.data
        if frame.opcode in (_TEXT, _BINARY, _CONTINUED):
            self._part(texts, frame.opcode, frame.fin, data)
        elif frame.opcode == _PING:
            if self.wire.unsent <= MAX_UNSENT_PONGS:
                self._send_quietly(lambda: self._websocket.pong(data))
        elif frame.opcode == _PONG:
            self.pongs.append(data)
        elif frame.opcode == _CLOSE:
            code = int.from_bytes(data[:2], "big") if data else NO_CODE
            self.ended = Ended(code, data[2:].decode("utf-8", "replace"))
            self._send_quietly(lambda: self._websocket.send_close(1000 if code == NO_CODE else code))
        return True

    def _size(self) -> int | None:
        """Bytes of the frame at the buffer's position, header and all; None if that can't be known yet."""
        buffer, position = self.wire.buffer, self.wire.position
        first, length = buffer[position], buffer[position + 1]
        if length & 0x80:
            self._give_up(PROTOCOL_ERROR, "a masked frame")
            return None
        if first & 0x08 and length > 125:
            self._give_up(PROTOCOL_ERROR, "a control frame that is too long")
            return None
        head = {126: 4, 127: 10}.get(length, 2)
        if len(buffer) - position < head:
            return None
        if head > 2:
            length = int.from_bytes(buffer[position + 2 : position + head], "big")
        if length + len(self._parts or b"") > self._max_size:
            self._give_up(TOO_BIG, f"a frame of {length} bytes")
            return None
        return head + length

    def _part(self, texts: list[str], opcode: int, last: int, data: bytes) -> None:
        """A whole message, or a part of one. Binary ones are taken for text: who reads them says whether they are."""
        if (opcode == _CONTINUED) == (self._parts is None):
            self._give_up(PROTOCOL_ERROR, "fragments in disorder")
            return
        if last and self._parts is None:
            texts.append(data.decode())
            return
        parts = self._parts = bytearray() if self._parts is None else self._parts
        parts += data
        if last:
            self._parts = None
            texts.append(parts.decode())

    def _give_up(self, code: int, reason: str) -> None:
        self.ended = Ended(code, reason, ours=True)
        self.close(code)

    # ---- out

    def send(self, text: str) -> None:
        """Send a text frame, now or as soon as the socket takes it. Raises OSError."""
        self._websocket.send(text)

    def ping(self, data: bytes) -> None:
        """Send a ping."""
        self._send_quietly(lambda: self._websocket.ping(data))

    def close(self, code: int = 1000) -> None:
        """Say that we go. Not that it arrives: the socket may not take it."""
        self._send_quietly(lambda: self._websocket.send_close(code))

    def _send_quietly(self, send: Any) -> None:
        """For answers: if the socket is broken, reading tells."""
        try:
            send()
        except OSError as error:
            self.ended = self.ended or Ended(ABNORMAL, error.strerror or type(error).__name__)


class _Socket:
    """What websocket-client needs of a socket, on a wire. During the handshake it waits; afterwards never: a frame is
    handed to the library when all of it is there."""

    def __init__(self, wire: Wire, waiter: Waiter, until: float) -> None:
        self._wire = wire
        self._waiter = waiter
        self._until = until
        self._head: bytes | None = None

    def begin_frames(self) -> None:
        """The handshake is done."""
        self._head = None
        self.recv = self._wire.take  # type: ignore[method-assign]

    def send(self, data: bytes) -> int:
        self._wire.send(data)
        return len(data)

    def recv(self, count: int) -> bytes:
        if self._head is None:
            self._head = self._read_head()
        piece, self._head = self._head[:count], self._head[count:]
        return piece  # empty: the library takes it for the end

    def _read_head(self) -> bytes:
        wire = self._wire
        while (end := _end_of_head(wire.buffer)) < 0:
            if len(wire.buffer) > MAX_HEAD_BYTES:
                break
            self._waiter.ready(wire.sock, wire.wants_to_write, self._until)
            wire.flush()
            wire.read()
        if not 0 <= end <= MAX_HEAD_BYTES:
            raise ConnectionError("the handshake's answer is too long")
        return _LEFT_OUT.sub(b"", wire.take(end))

    def gettimeout(self) -> float:
        return 0.0  # so that the library neither waits nor looks twice

    def settimeout(self, timeout: float | None) -> None:
        """The library's time-outs have nothing to say here."""

    def close(self) -> None:
        """The wire is closed by who made it."""


def _end_of_head(data: bytes) -> int:
    end = data.find(b"\r\n\r\n")
    return end + 4 if end >= 0 else -1


def open_frames(
    wire: Wire,
    url: str,
    waiter: Waiter,
    until: float,
    *,
    headers: Mapping[str, str | Secret] | None = None,
    subprotocols: Sequence[str] = (),
    max_size: int = 16 * 2**20,
) -> Frames:
    """Shake hands. until: when it must be done, monotonic.

    Raises StatusError (Unauthorized, Forbidden, ...; `retry_after` as the server said) if the server answers something
    else, CaptivePortalError if that is a redirect or a page, NotSentError, ConnectTimeoutError, SettingsError for
    headers that can't be sent, Stopped.
    """
    lines = _checked(headers or {})
    with _importing:
        import websocket
    sock = _Socket(wire, waiter, until)
    library: Any = websocket.WebSocket(skip_utf8_validation=True, enable_multithread=False)
    try:
        library.connect(
            url,
            socket=sock,
            suppress_origin=True,
            redirect_limit=0,
            header=lines,
            subprotocols=list(subprotocols),
        )
    except websocket.WebSocketBadStatusException as error:
        raise _refused(error.status_code, error.resp_headers or {}) from None  # its text holds what the server said
    except websocket.WebSocketTimeoutException as error:
        raise ConnectTimeoutError("no WebSocket handshake in time") from error
    except websocket.WebSocketException as error:
        if "edirect" in str(error):
            raise CaptivePortalError("the server redirects the WebSocket handshake") from None
        raise NotSentError("the answer to the WebSocket handshake makes no sense", code="handshake") from None
    except TimeoutError as error:
        raise ConnectTimeoutError("no WebSocket handshake in time") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotSentError(f"no WebSocket handshake: {reason}", code="handshake") from error
    sock.begin_frames()
    return Frames(wire, library, max_size)


def _checked(headers: Mapping[str, str | Secret]) -> list[str]:
    lines = []
    for name, value in headers.items():
        text = value.reveal() if isinstance(value, Secret) else value
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not _VISIBLE.fullmatch(text):
            raise SettingsError(f"the header {name!r} can't be sent", code="header")
        lines.append(f"{name}: {text}")
    return lines


def _refused(status: int | None, headers: Mapping[str, Any]) -> ChatError:
    if status is None:
        return NotSentError("the answer to the WebSocket handshake makes no sense", code="handshake")
    text = f"the server answered the WebSocket handshake with {status}"
    if status == 200:
        return CaptivePortalError(text)
    after = str(headers.get("retry-after", ""))
    cls = _STATUS.get(status, ServerError if status >= 500 else StatusError)
    return cls(
        text,
        status=status,
        hint=_HINTS.get(status),
        retry_after=float(after) if after.isdecimal() and len(after) < 6 else None,
    )
