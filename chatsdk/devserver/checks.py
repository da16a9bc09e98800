"""Checking a body or query field by field, answering as the original's validator does.

Rules: all issues of a body are collected and raised at once by `done()`; unknown fields are dropped by never being
read; lengths are UTF-16 units. U+0000 is refused here (the original's database answers 500 to it).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from chatsdk.devserver.answers import invalid, thrown
from chatsdk.devserver.ids import utf16_length

_JSON_TYPE = re.compile(r"application/([a-z.-]+\+)?json(;.*)?\Z")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_EMAIL = re.compile(r"[^\s@]+@[^\s@.]+(\.[^\s@.]+)+\Z")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?\Z")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")


def parse_body(content_type: str, raw: bytes) -> Any:
    """The JSON body, `{}` where the content type is not JSON (as the original: it then sees no body at all).

    Bytes that are not UTF-8 and lone surrogates become U+FFFD; a byte order mark is skipped; NaN is no JSON.
    """
    if not _JSON_TYPE.match(content_type):
        return {}
    try:
        text = raw.decode("utf-8", "replace").removeprefix("\ufeff")
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError):
        raise thrown(400, "Malformed JSON in request body") from None
    return _without_surrogates(value) if b"\\u" in raw else value


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)
    return number


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value


def type_name(value: Any) -> str:
    """The name JavaScript's validator has for the type of a parsed JSON value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def is_url(text: str) -> bool:
    """Whether `text` is an absolute URL of any scheme; http and https need a host."""
    if not _SCHEME.match(text) or any(character.isspace() for character in text):
        return False
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.netloc) if parts.scheme in ("http", "https") else True


_FORMATS: dict[str, Callable[[str], bool]] = {
    "uuid": lambda text: bool(_UUID.match(text)),
    "url": is_url,
    "email": lambda text: bool(_EMAIL.match(text)),
}


class Form:
    """One JSON object being checked. Each method reads a field, notes what is wrong with it, and returns it or None."""

    def __init__(self, value: Any, path: Sequence[str | int] = (), issues: list[dict[str, Any]] | None = None) -> None:
        self.issues: list[dict[str, Any]] = [] if issues is None else issues
        self.path = list(path)
        self.fields: dict[str, Any] = {}
        if isinstance(value, dict):
            self.fields = value
        else:
            self._wrong_type("object", value, self.path)
            if issues is None:
                self.done()

    def done(self) -> None:
        """Raises 400 with every issue found so far."""
        if self.issues:
            raise invalid(self.issues)

    def has(self, name: str) -> bool:
        return name in self.fields

    def issue(self, name: str | None, code: str, message: str, **details: Any) -> None:
        """Notes an issue of a kind that only one handler knows."""
        path = self.path if name is None else [*self.path, name]
        self.issues.append({"code": code, "message": message, "path": path, **details})

    def string(
        self,
        name: str,
        *,
        required: bool = False,
        least: int | None = None,
        most: int | None = None,
        form: str | None = None,
        empty_message: str | None = None,
    ) -> str | None:
        """A text of `least` to `most` units; `form`: uuid, url or email."""
        value = self._read(name, "string", str, required)
        if not isinstance(value, str):
            return None
        sizes = {"type": "string", "inclusive": True, "exact": False}
        if least is not None and utf16_length(value) < least:
            message = empty_message or f"String must contain at least {least} character(s)"
            self.issue(name, "too_small", message, minimum=least, **sizes)
        elif most is not None and utf16_length(value) > most:
            self.issue(name, "too_big", f"String must contain at most {most} character(s)", maximum=most, **sizes)
        elif form is not None and not _FORMATS[form](value):
            self.issue(name, "invalid_string", f"Invalid {form}", validation=form)
        elif "\0" in value:
            self.issue(name, "custom", "String must not contain U+0000")
        return value

    def boolean(self, name: str, *, required: bool = False) -> bool | None:
        value = self._read(name, "boolean", bool, required)
        return value if isinstance(value, bool) else None

    def number(self, name: str) -> float | None:
        value = self._read(name, "number", int | float, False)
        return value if isinstance(value, int | float) else None

    def mapping(self, name: str) -> dict[str, Any] | None:
        value = self._read(name, "object", dict, False)
        return value if isinstance(value, dict) else None

    def array(self, name: str) -> list[Any] | None:
        value = self._read(name, "array", list, False)
        return value if isinstance(value, list) else None

    def strings(self, name: str) -> list[str] | None:
        """A list of texts; what is no text is an issue of its own position."""
        value = self.array(name)
        if value is None:
            return None
        for position, item in enumerate(value):
            if not isinstance(item, str):
                self._wrong_type("string", item, [*self.path, name, position])
        return [item for item in value if isinstance(item, str)]

    def choice(self, name: str, options: Sequence[str], *, required: bool = False) -> str | None:
        """One of `options`."""
        if name not in self.fields:
            if required:
                self._missing(name, " | ".join(f"'{option}'" for option in options))
            return None
        value = self.fields[name]
        listed = " | ".join(f"'{option}'" for option in options)
        if not isinstance(value, str):
            self._wrong_type(listed, value, [*self.path, name])
            return None
        if value not in options:
            message = f"Invalid enum value. Expected {listed}, received '{value}'"
            self.issue(name, "invalid_enum_value", message, received=value, options=list(options))
            return None
        return value

    def _read(self, name: str, expected: str, kind: Any, required: bool) -> Any:
        if name not in self.fields:
            if required:
                self._missing(name, expected)
            return None
        value = self.fields[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and expected != "boolean"):
            self._wrong_type(expected, value, [*self.path, name])
            return None
        return value

    def _missing(self, name: str, expected: str) -> None:
        self.issue(name, "invalid_type", "Required", expected=expected, received="undefined")

    def _wrong_type(self, expected: str, value: Any, path: Sequence[str | int]) -> None:
        received = type_name(value)
        message = f"Expected {expected}, received {received}"
        self.issues.append(
            {"code": "invalid_type", "expected": expected, "received": received, "path": list(path), "message": message}
        )


def whole_number(
    text: str | None, default: int, name: str, *, least: int = 0, most: int | None = None, lenient: bool = False
) -> int:
    """A number out of the query. Absent or empty: `default`; over `most`: `most`; no number or under `least`: 400.

    A fraction is cut off as JavaScript's parseInt does. `lenient`: what is no number at all is taken as absent.
    """
    if text is None or text == "" or (lenient and not re.match(r"\s*[+-]?\d", text)):
        return default
    match = re.match(r"\s*([+-]?\d{1,18})(?!\d)", text)
    if match is None or int(match[1]) < least:
        raise thrown(400, f"Query parameter '{name}' must be a whole number of at least {least}")
    return int(match[1]) if most is None else min(int(match[1]), most)


def waits_until(text: str | None, now: float) -> float | None:
    """The monotonic time until which a caller waits who said so in seconds; None where that is no such number."""
    return now + float(text) if text is not None and _SECONDS.match(text) else None
