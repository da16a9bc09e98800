"""What the ChatSDK server would not take, found out before anything is sent.

The server answers 500 to many mistakes of a caller (an id that is no UUID, a negative limit, U+0000), and a 500 is
tried again. So whoever builds a request checks here first. Each check returns the value to send and raises the `error`
class it is given: `InvalidMessage` for sends, `InvalidArgument` for other calls.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from .errors import ChatError, InvalidArgument
from .identity import is_uuid
from .models import Attachment

MAX_TEXT = 10_000
"""UTF-16 units in a message (contract, 7)."""

MAX_EMOJI = 50
"""UTF-16 units in a reaction (contract, 7)."""

MAX_ID = 255
"""Characters in a user's id, a channel's name or an idempotency key (contract, 1, 6, 15.33, 15.44)."""

MAX_SEQ = 2**63 - 1

CHANNEL_TYPES = ("messaging", "group", "team", "livestream", "public", "private")
ATTACHMENT_TYPES = ("image", "video", "audio", "file", "giphy", "voicenote")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:[^\s\x00-\x1f\x7f]+")
_ID_HINT = "ids of channels and messages are UUIDs; names for channels stand in [profile.NAME.channels]"
_WIRE_NAMES = {
    "name": "name",
    "title": "title",
    "mime_type": "mimeType",
    "size": "size",
    "width": "width",
    "height": "height",
    "duration": "duration",
    "thumbnail_url": "thumbnailUrl",
}

Refusal = type[ChatError]


def units(value: str) -> int:
    """Length in UTF-16 units, as the server counts. Raises UnicodeEncodeError for a lone surrogate."""
    return len(value.encode("utf-16-le")) // 2


def text(value: Any, what: str, most: int, error: Refusal = InvalidArgument) -> str:
    """1 to `most` UTF-16 units without U+0000 and lone surrogates; blanks alone are text."""
    if not isinstance(value, str):
        raise error(f"{what} must be a str, not {type(value).__name__}")
    if "\0" in value:
        raise error(f"{what} holds U+0000, which the server can't store")
    try:
        length = units(value)
    except UnicodeEncodeError as broken:
        raise error(f"{what} holds a lone surrogate at {broken.start}, which is no text") from None
    if not 1 <= length <= most:
        raise error(f"{what} must have 1 to {most} UTF-16 units, not {length}")
    return value


def uuid(value: Any, what: str, error: Refusal = InvalidArgument) -> str:
    """A UUID in its usual form, in lower case, so that one thing has one name."""
    if not isinstance(value, str) or not is_uuid(value):
        raise error(f"{what} must be a UUID: {_shown(value)}", hint=_ID_HINT)
    return value.lower()


def name(value: Any, what: str, error: Refusal = InvalidArgument) -> str:
    """A user's id or the like: 1 to 255 characters, none of them control characters."""
    found = text(value, what, MAX_ID, error)
    if _CONTROL.search(found):
        raise error(f"{what} holds a control character: {_shown(found)}")
    return found


def part(value: str, what: str) -> str:
    """One part of a path, quoted; dots alone would be resolved on the way and lead somewhere else."""
    if value in (".", ".."):
        raise InvalidArgument(f"{what} must not be {value!r}")
    return quote(value, safe="")


def emoji(value: Any) -> str:
    """A reaction. The server decodes one with "%" twice when it is taken back, and fails: it could never go again."""
    found = text(value, "emoji", MAX_EMOJI)
    if "%" in found:
        raise InvalidArgument("emoji must not hold '%': the server could not take it back")
    return found


def count(value: Any, what: str, least: int, most: int) -> int:
    """A whole number in a range."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise InvalidArgument(f"{what} must be a whole number, {least} to {most}: {_shown(value)}")
    return value


def choice(value: Any, what: str, words: Iterable[str]) -> str:
    """One of a few words."""
    if not isinstance(value, str) or value not in words:
        raise InvalidArgument(f"{what} must be one of {', '.join(words)}: {_shown(value)}")
    return value


def url(value: Any, what: str, error: Refusal = InvalidArgument) -> str:
    """An absolute URL of any scheme."""
    found = text(value, what, 2**16, error)
    if not _URL.fullmatch(found):
        raise error(f"{what} must be an absolute URL")
    return found


def attachment(value: Any, error: Refusal) -> dict[str, Any]:
    """An attachment as the server takes it."""
    if not isinstance(value, Attachment):
        raise error(f"attachments must be Attachment objects, not {type(value).__name__}", hint="upload the file first")
    if value.type not in ATTACHMENT_TYPES:
        raise error(f"an attachment's type must be one of {', '.join(ATTACHMENT_TYPES)}: {_shown(value.type)}")
    wire: dict[str, Any] = {"type": value.type, "url": url(value.url, "an attachment's url", error)}
    for field, wire_name in _WIRE_NAMES.items():
        fact = getattr(value, field)
        if isinstance(fact, str):
            wire[wire_name] = text(fact, f"an attachment's {field}", 2**16, error)
        elif fact is not None:
            wire[wire_name] = _amount(fact, field, error)
    if value.waveform:
        wire["waveform"] = [_amount(sample, "waveform", error) for sample in value.waveform]
    return wire


def _amount(value: Any, field: str, error: Refusal) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise error(f"an attachment's {field} must be a number: {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
