"""JSON from a stranger: as the standard has it, or an error. Pure.

Python's reader takes more than JSON is (NaN, Infinity, numbers that become infinite) and gives back what can't be
written again (halves of surrogate pairs), and how deep it goes depends on where it is called from. Whatever comes from
a server is read here instead, be it an HTTP body or a realtime frame.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

MAX_DEPTH = 100
"""Of JSON. The interpreter itself gives up at about a thousand, from wherever it happens to be."""


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0.0:  # infinity: as a number it would go on to places that can't write it
        raise ValueError("a number is too large")
    return number


DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)
"""For whoever must read faster than `parse_json` does; depth and surrogates are then the caller's to look at."""


def parse_json(data: bytes) -> Any:
    """JSON as the standard has it: UTF-8, no NaN, no depth without end, no lone surrogates (they become U+FFFD, as the
    server stores them). Raises ValueError, RecursionError."""
    value = DECODER.decode(data.decode("utf-8-sig" if data.startswith(b"\xef\xbb\xbf") else "utf-8"))
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and too_deep(value):
        raise ValueError(f"deeper than {MAX_DEPTH}")
    if b"\\ud" in data or b"\\uD" in data:
        return without_surrogates(value)
    return value


def too_deep(value: Any) -> bool:
    """Whether lists and objects are nested deeper than MAX_DEPTH."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


def without_surrogates(value: Any) -> Any:
    """The same, with U+FFFD for every lone surrogate."""
    text = json.dumps(value, ensure_ascii=False)
    if text.isascii():
        return value
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return value if whole == text else DECODER.decode(whole)
