"""A text frame into JSON values, quickly, whatever is in it.

Thousands of publications a second come through here, so a sound frame costs one pass of the C reader and a few searches
for single characters. Only a frame with something wrong in it is read line by line, to save the good lines.

Sound is: UTF-8, not longer than the limit (looked at before anything is parsed), JSON by the standard, not deeper than
`strict_json.MAX_DEPTH`; lone surrogates become U+FFFD.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..strict_json import DECODER, MAX_DEPTH, parse_json, too_deep, without_surrogates
from .outputs import Malformed

MAX_FRAME = 16 * 2**20
"""Bytes. A recovery brings up to a hundred publications in one frame."""

_STRETCH = 1024
"""Characters of a frame of many lines within which brackets are counted at once."""

PIECE = 8192
"""Characters of frames that are decoded together. More spares little, and what is decoded only to be taken apart again
should be gone before the garbage collector looks for it."""

_read = DECODER.raw_decode


def decode(frame: bytes | str, limit: int, *, lines: bool) -> tuple[list[Any], Malformed | None]:
    """The values of a frame, and what was wrong with it. `lines`: one value a line, else one value. Never raises."""
    if len(frame) > limit:
        return [], Malformed(f"a frame of {len(frame)} bytes, {limit} are allowed")
    try:
        text = (frame if isinstance(frame, str) else frame.decode()).strip()
        if lines and "\n" in text:
            parts = text.split("\n")
            value, end = _read("[" + ",\n".join(parts) + "]")
            if len(value) != len(parts) or end != len(text) + len(parts) + 1:
                return _line_by_line(frame)
            if _many_brackets(text) and any(too_deep(each) for each in value):
                return _line_by_line(frame)
        else:
            value, end = _read(text)
            if end != len(text):
                return [], Malformed(f"no JSON ({len(frame)} bytes)")
            if text.count("{") + text.count("[") > MAX_DEPTH and too_deep(value):
                return [], Malformed(f"JSON deeper than {MAX_DEPTH}")
            value = [value]
        if "\\" in text and ("\\ud" in text or "\\uD" in text):
            value = without_surrogates(value)
    except (ValueError, RecursionError):
        if lines:
            return _line_by_line(frame)
        return [], Malformed(f"no JSON ({len(frame)} bytes)")
    return value, None


def pieces(frames: Sequence[str]) -> Iterator[Sequence[str]]:
    """The frames of one read, in parts of about `PIECE` characters."""
    count = max(1, PIECE * len(frames) // (sum(map(len, frames)) or 1))
    for first in range(0, len(frames), count):
        yield frames[first : first + count]


def _many_brackets(text: str) -> bool:
    """Whether some line might be too deep: more brackets than that in one stretch of lines."""
    start, end = 0, len(text)
    while start < end:
        stop = text.find("\n", start + _STRETCH)
        if stop < 0:
            stop = end
        if text.count("{", start, stop) + text.count("[", start, stop) > MAX_DEPTH:
            return True
        start = stop
    return False


def _line_by_line(frame: bytes | str) -> tuple[list[Any], Malformed | None]:
    data = frame.encode("utf-8", "surrogatepass") if isinstance(frame, str) else frame
    values: list[Any] = []
    wrong, first = 0, 0
    for line in data.split(b"\n"):
        line = line.strip()
        if not line:
            continue
        try:
            values.append(parse_json(line))
        except (ValueError, RecursionError):
            wrong += 1
            first = first or len(line)
    if not wrong:
        return values, None
    return values, Malformed(f"no JSON, or too deep ({first} bytes{f', and {wrong - 1} more' if wrong > 1 else ''})")
