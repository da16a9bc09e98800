"""Small values of the wire: UUIDs as the server takes and makes them, times as it writes them.

Rules: nothing here reads a clock; the caller passes the time. UUID spellings follow PostgreSQL's, because that is
what decides on the real server: upper case, braces and 32 digits pass and come back canonical, `urn:uuid:` does not.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from uuid import UUID

_SPELLINGS = re.compile(r"\{?[0-9a-fA-F]{4}(?:-?[0-9a-fA-F]{4}){7}\}?\Z")


def canonical_uuid(text: str) -> str | None:
    """The UUID in lower case with dashes, or None where `text` is not one."""
    if not _SPELLINGS.match(text) or text.startswith("{") != text.endswith("}"):
        return None
    return str(UUID(text.strip("{}").replace("-", "")))


def uuid7(milliseconds: int) -> str:
    """A UUID version 7 (RFC 9562): 48 bits of time, 74 random bits."""
    tail = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | (tail >> 68 & 0xFFF) << 64
    value |= 0b10 << 62 | tail & (1 << 62) - 1
    return str(UUID(int=value))


def iso(milliseconds: int | None) -> str | None:
    """Milliseconds since 1970 as `2026-11-22T06:09:45.461Z`; None stays None."""
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}Z"


def from_iso(text: str) -> int | None:
    """The reverse of `iso`, or None where `text` is no time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def utf16_length(text: str) -> int:
    """How long JavaScript says `text` is: the unit of every length limit of the contract."""
    return len(text) + sum(character > "\uffff" for character in text)
