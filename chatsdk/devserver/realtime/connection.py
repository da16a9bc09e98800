"""One upgraded socket: WebSocket frames in and out, over asyncio's transport and without ASGI in between.

Rules:
* A protocol's session says what is sent; this file says how. What is sent within one turn of the loop goes out as one
  write, cut so that no more than `WRITE_CHUNK` bytes lie in the transport at a time.
* Who does not read is cut off: more than `QUEUE_LIMIT` bytes waiting, and the queue is dropped for a close frame.
* A frame of more than `FRAME_LIMIT` bytes ends in a reset, as at a real Centrifugo.
* Every way of misbehaving that a fault switch asks for is a method here; nothing else in the server misbehaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from typing import TYPE_CHECKING, Protocol

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import RemoteProtocolError

from chatsdk.devserver import wire
from chatsdk.devserver.realtime.frames import close_frame, text_frame

if TYPE_CHECKING:
    from uvicorn.server import ServerState

    from chatsdk.devserver.realtime.hub import Hub
    from chatsdk.devserver.realtime.publication import Publication

FRAME_LIMIT = 64 * 1024
"""Bytes of a client's frame (Centrifugo's default)."""
QUEUE_LIMIT = 1024 * 1024
"""Bytes that wait for one client (Centrifugo's default)."""
WRITE_CHUNK = 64 * 1024
CLOSE_WAIT_S = 0.5
"""How long a client is given to answer a close frame."""
SLOW_CLOSE_WAIT_S = 10.0
"""The same for one that does not read: it has to get through what lies in its buffers first."""
_TICK_S = 0.05


class Session(Protocol):
    """What a protocol does with one connection."""

    user: str
    """The full name, "<app>:<user>"; "" before it is known."""

    def opened(self) -> None:
        """The handshake is done."""

    def received(self, text: str) -> None:
        """A text frame came."""

    def received_binary(self) -> None:
        """A binary frame came: no protocol here has any."""

    def frames(self, messages: list[bytes]) -> bytes:
        """Messages as WebSocket frames."""

    def deliver(self, publication: Publication) -> None:
        """A publication of a stream that this client hears."""

    def removed(self, stream: str, code: int, reason: str) -> None:
        """The server ended a subscription."""

    def stop(self) -> tuple[int, str]:
        """Code and reason of a close frame when the server stops."""

    def too_slow(self) -> tuple[int, str]:
        """The same for a client that does not read."""

    def disconnect(self, code: int, reason: str) -> None:
        """The server takes the client off; code and reason are Centrifugo's."""

    def reschedule(self) -> None:
        """The server's clock has moved: timers must be set anew."""

    def ended(self) -> None:
        """The connection is gone: stop timers, leave the hub. May be called again."""


class Connection(asyncio.Protocol):
    """The socket of one client. uvicorn hands it over with the bytes of the upgrade request."""

    transport: asyncio.Transport

    def __init__(self, hub: Hub, server_state: ServerState) -> None:
        self.hub = hub
        self.session: Session | None = None
        self._peers = server_state.connections
        self._websocket = WSConnection(ConnectionType.SERVER)
        self._parts: list[str] = []
        self._size = 0
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._scheduled = False
        self._paused = False
        self._closing = False
        self._half_open = False
        self._trickle = b""
        self._deadline: asyncio.TimerHandle | None = None

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=WRITE_CHUNK)
        self._peers.add(self)  # type: ignore[arg-type]
        self.hub.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._peers.discard(self)
        self.hub.connections.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()
        self._leave()

    def data_received(self, data: bytes) -> None:
        if self._half_open:
            return
        try:
            self._websocket.receive_data(data)
            for event in self._websocket.events():
                self._handle(event)
                if self.transport.is_closing():
                    return
        except RemoteProtocolError:
            # A handshake that is none; a broken frame comes as a CloseConnection.
            self.transport.write(wire.head(400, {"connection": "close"}, 0))
            self.transport.close()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    @property
    def live(self) -> bool:
        """Whether there is a session that hears and is heard."""
        return self.session is not None and not self._closing and not self._half_open

    def shutdown(self) -> None:
        """The server stops (uvicorn calls it)."""
        if self.session is None or self._half_open:
            self.transport.abort()
        else:
            self.close(*self.session.stop())

    # Receiving

    def _handle(self, event: object) -> None:
        if isinstance(event, Request):
            self.hub.upgrade(self, event)
        elif isinstance(event, CloseConnection):
            if not self._closing:
                code = 1000 if event.code == 1005 else int(event.code)
                self._write_close(code if code != 1006 else 1002, "")
            self._leave()
            self.transport.close()
        elif self._closing or self.session is None:
            return
        elif isinstance(event, TextMessage):
            self._text(self.session, event)
        elif isinstance(event, BytesMessage):
            self.session.received_binary()
        elif isinstance(event, Ping) and not self.hub.suffers("ws_no_pong", self):
            self.transport.write(self._websocket.send(event.response()))

    def _text(self, session: Session, event: TextMessage) -> None:
        self._parts.append(event.data)
        self._size += len(event.data)
        if self._size > FRAME_LIMIT:
            self.reset()
        elif event.message_finished:
            text = "".join(self._parts)
            self._parts, self._size = [], 0
            if len(text.encode()) > FRAME_LIMIT:
                self.reset()
            else:
                session.received(text)

    # The handshake

    def accept(self, session: Session, subprotocol: str | None) -> None:
        """Answers 101 and gives the connection to the session."""
        self.session = session
        self.transport.write(self._websocket.send(AcceptConnection(subprotocol=subprotocol)))
        session.opened()

    def reject(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Answers the upgrade with an HTTP error, and closes."""
        listed = [(name.encode(), value.encode()) for name, value in headers.items()]
        listed += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        data = self._websocket.send(RejectConnection(status_code=status, headers=listed, has_body=True))
        self.transport.write(data + self._websocket.send(RejectData(data=body)))
        self.transport.close()

    # Sending

    def send(self, message: bytes) -> None:
        """Queues one message of the session's protocol."""
        if not self.live:
            return
        self._queue.append(message)
        self._queued += len(message)
        if self._queued > QUEUE_LIMIT and self.session is not None:
            self._queue.clear()
            self._queued = 0
            self.close(*self.session.too_slow(), wait=SLOW_CLOSE_WAIT_S)
        elif not self._scheduled and not self._paused:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        if self.session is None or not self.live:
            return
        while self._queue and not self._paused and not self._trickle:
            batch, size = [], 0
            while self._queue and size < WRITE_CHUNK:
                message = self._queue.popleft()
                batch.append(message)
                size += len(message)
            self._queued -= size
            self._put(self.session.frames(batch))

    def _put(self, data: bytes) -> None:
        """Writes frames, at the pace of a `ws_slow` rule where one stands."""
        rule = self.hub.suffers("ws_slow", self)
        if rule is None:
            self.transport.write(data)
        else:
            self._trickle = data  # until this is out nothing else is taken from the queue
            self._drip(rule.get("bytes_per_s"), rule.get("ms", 0) / 1000)

    def _drip(self, bytes_per_s: float | None, delay: float) -> None:
        loop = asyncio.get_running_loop()
        if delay:
            loop.call_later(delay, self._drip, bytes_per_s, 0.0)
            return
        amount = len(self._trickle) if bytes_per_s is None else max(1, int(bytes_per_s * _TICK_S))
        if self._closing or self._half_open:
            return
        self.transport.write(self._trickle[:amount])
        self._trickle = self._trickle[amount:]
        if self._trickle:
            loop.call_later(_TICK_S, self._drip, bytes_per_s, 0.0)
        else:
            loop.call_later(0 if bytes_per_s is None else _TICK_S, self._flush)

    # Ending

    def close(self, code: int, reason: str, *, wait: float = CLOSE_WAIT_S) -> None:
        """Sends what is queued and a close frame; ends the connection when the client has answered, or after `wait`."""
        if self._closing:
            return
        if self.session is None or self._half_open:
            self.reset()
            return
        if not self._paused:
            self._put_all(self.session)
        self._write_close(code, reason)
        self._leave()
        self._deadline = asyncio.get_running_loop().call_later(wait, self.transport.abort)

    def _put_all(self, session: Session) -> None:
        messages = list(self._queue)
        self._queue.clear()
        self._queued = 0
        self._trickle += session.frames(messages)

    def _write_close(self, code: int, reason: str) -> None:
        self._closing = True
        # The rest of a frame that a slow connection was in the middle of goes out first.
        self.transport.write(self._trickle + close_frame(code, reason))
        self._trickle = b""

    def _leave(self) -> None:
        if self.session is not None:
            self.session.ended()

    # Misbehaving

    def cut(self) -> None:
        """Ends the connection without a close frame."""
        self._closing = True
        self._leave()
        self.transport.close()

    def reset(self) -> None:
        """Ends the connection with an RST."""
        self._closing = True
        self._leave()
        wire.reset(self.transport)

    def half_open(self) -> None:
        """Keeps the socket and does nothing with it any more: neither reads nor writes, nor notices its end."""
        self.ignore()
        self._leave()
        self._queue.clear()
        with contextlib.suppress(RuntimeError):
            self.transport.pause_reading()

    def ignore(self) -> None:
        """Answers nothing any more, but notices when the client hangs up."""
        self._half_open = True

    def raw(self, data: bytes) -> None:
        """Writes bytes as they are, after what is queued."""
        if self._trickle:
            self._trickle += data
            return
        self._flush()
        self.transport.write(data)

    def raw_text(self, text: bytes) -> None:
        """Writes a text frame that no protocol made."""
        self.raw(text_frame(text))
