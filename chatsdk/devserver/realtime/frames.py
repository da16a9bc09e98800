"""A server's WebSocket frames (RFC 6455, 5.2). They carry no mask, so one text serves any number of clients."""

from __future__ import annotations

import struct

_CLOSE_REASON_LIMIT = 123


def text_frame(payload: bytes) -> bytes:
    """A whole, unfragmented text frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", 0x81, 126, size) + payload
    return struct.pack("!BBQ", 0x81, 127, size) + payload


def close_frame(code: int, reason: str) -> bytes:
    payload = struct.pack("!H", code) + reason.encode()[:_CLOSE_REASON_LIMIT]
    return bytes((0x88, len(payload))) + payload
