"""A connected socket that never blocks: what came and was not used yet, and what could not be sent yet.

Reading takes what is there, 64 KiB at once: websocket-client alone would ask the system three times for each frame.
Sending never waits either: what the peer does not take stays here until the socket takes more, so a peer that does not
read can't stop the reading. Who drives this polls for writing while something is unsent, and gives up in the end.

TLS keeps what it has decrypted: a read takes all of that as well, so that the socket alone says whether more comes.
"""

from __future__ import annotations

import contextlib
import socket
import ssl

READ_SIZE = 64 * 2**10
"""Bytes that one read asks for."""

RECORD = 16 * 2**10
"""Bytes given to TLS at once: one record, which it takes whole or not at all."""

_NOTHING_YET = (BlockingIOError, InterruptedError, ssl.SSLWantReadError)


class Wire:
    """`buffer[position:]` came and was not used yet. Not thread-safe: it belongs to the reader thread."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.position = 0
        self._tls = sock if isinstance(sock, ssl.SSLSocket) else None
        self._wanted = 0
        self._held = bytearray()
        self._unsent = bytearray()
        self._tls_must_write = False

    # ---- in

    def read(self) -> int:
        """Take what is there into the buffer: how many bytes came. Raises OSError; ConnectionError at the end."""
        try:
            data = self.sock.recv(READ_SIZE)
        except _NOTHING_YET:
            return 0
        except ssl.SSLWantWriteError:
            self._tls_must_write = True
            return 0
        if not data:
            raise ConnectionResetError("the peer has gone")
        if self._tls is not None:
            data = self._decrypted(self._tls, data)
        came = len(data)
        if self._wanted:
            self._held += data
            if len(self._held) < self._wanted:
                return came
            data, self._held, self._wanted = bytes(self._held), bytearray(), 0
        elif self.position < len(self.buffer):
            data = self.buffer[self.position :] + data
        self.buffer, self.position = data, 0
        return came

    def want(self, size: int) -> None:
        """What is in the buffer is of use only together with what follows, `size` bytes in all: until they have come,
        the buffer is empty. A large frame is put together once, not again with each read."""
        if size > READ_SIZE:
            self._held += self.buffer[self.position :]
            self._wanted = size
            self.buffer, self.position = b"", 0

    def take(self, count: int) -> bytes:
        """The next bytes of the buffer, at most `count`."""
        taken = self.buffer[self.position : self.position + count]
        self.position += len(taken)
        return taken

    @staticmethod
    def _decrypted(tls: ssl.SSLSocket, data: bytes) -> bytes:
        pieces = [data]
        while tls.pending():
            try:
                pieces.append(tls.recv(READ_SIZE))
            except _NOTHING_YET:
                break
        return b"".join(pieces) if len(pieces) > 1 else data

    # ---- out

    @property
    def unsent(self) -> int:
        """Bytes that the socket did not take yet."""
        return len(self._unsent)

    @property
    def wants_to_write(self) -> bool:
        """Wait for writing as well."""
        return bool(self._unsent) or self._tls_must_write

    def send(self, data: bytes) -> None:
        """Send, now or as soon as the socket takes it. Raises OSError."""
        self._unsent += data
        self.flush()

    def flush(self) -> bool:
        """Send what is left. True if the socket took something, or there was nothing left. Raises OSError."""
        self._tls_must_write = False
        if not self._unsent:
            return True
        sent = 0
        try:
            while sent < len(self._unsent):
                sent += self.sock.send(self._unsent[sent : sent + RECORD])
        except (*_NOTHING_YET, ssl.SSLWantWriteError):
            pass
        del self._unsent[:sent]
        return sent > 0

    # ---- the end

    def end(self) -> None:
        """Close, and tell the peer: also if a forked child still holds the socket."""
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)
        self.sock.close()


def drop(sock: socket.socket) -> None:
    """In a forked child: close its copy of a socket and tell the peer nothing, because the parent still uses it."""
    with contextlib.suppress(OSError):
        socket.close(sock.detach())
