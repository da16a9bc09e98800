"""Keys: which UUID names a message.

A key that we make is a UUIDv7: the server wants a UUID, and a time-ordered one lets the outbox's unique index grow at
its end. A key that a user gives is used as it is if it is a UUID; other text becomes a UUIDv5 of (server, user,
channel, text), so that the same text means the same message in every run.
"""

from __future__ import annotations

import re
import uuid

NAMESPACE = uuid.UUID("6b1b7a0e-5d4f-5c63-9a42-7c1d8a3e2f10")
"""Namespace of the UUIDv5 that a text key becomes. Never change it: keys would stop naming the same messages."""

_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")


def uuid7(now: float, random: bytes) -> str:
    """A time-ordered UUID (RFC 9562) from Unix time in seconds and 10 random bytes."""
    milliseconds = int(now * 1000) & ((1 << 48) - 1)
    bits = int.from_bytes(random[:10], "big")
    value = milliseconds << 80 | 7 << 76 | (bits >> 62 & 0xFFF) << 64 | 2 << 62 | bits & ((1 << 62) - 1)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_uuid(text: str) -> bool:
    """True for 8-4-4-4-12 hex digits, in either case."""
    return _UUID.fullmatch(text) is not None


def message_key(given: str, *, server: str, user: str, channel: str) -> str:
    """The key of a message as it travels (`clientMsgId`): canonical lower-case UUID text."""
    if is_uuid(given):
        return given.lower()
    # lengths first: ("a", "bc") and ("ab", "c") must not be the same name
    parts = (server, user, channel, given)
    name = "".join(f"{len(part)}:{part}" for part in parts)
    return str(uuid.uuid5(NAMESPACE, name))
