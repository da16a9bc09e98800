"""How the text or value that somebody gave for a setting becomes the value that the code uses.

A `Kind` says what is allowed, in words that fit behind "must be", and parses both text (environment, command line) and
native values (arguments, TOML). Parsers raise ValueError; what that says is for nobody's eyes, because it may quote a
secret.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from .record import Record, record
from .tokens import Secret

MAX_SECONDS = 10 * 365 * 86400.0
"""Longest time a setting may name: ten years. Waiting much longer overflows what the operating system can wait for."""

MAX_COUNT = 2**53
"""Largest whole number a setting may name: what JSON and TOML carry without loss."""

_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zA-Z]*)", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BLANK = re.compile(r"[\s\\]")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


@record(frozen=True, slots=True)
class Kind(Record):
    """What a setting may be. `allowed`: in words; `parse`: raises ValueError; `show`: a value as people read it."""

    allowed: str
    parse: Callable[[Any], Any]
    show: Callable[[Any], str] = str


def parse_seconds(value: Any) -> float:
    """Seconds out of a number or of text such as "500ms", "10s", "5m", "24h", "7d". Raises ValueError."""
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value.strip())
        if match is None or match[2].lower() not in _SECONDS:
            raise ValueError("no time")
        value = float(match[1]) * _SECONDS[match[2].lower()]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("no time")
    # an int may be too large to be a float, so it is compared before it is converted
    if not 0 <= value <= MAX_SECONDS:
        raise ValueError("no time that can be waited for")
    return float(value)


def _show_seconds(value: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if value >= size and value % size == 0:
            return f"{value / size:g} {unit}"
    return f"{value:g} s"


def seconds(*, zero: bool = True) -> Kind:
    """A time; `zero`: whether none at all is meant to be possible."""

    def parse(value: Any) -> float:
        found = parse_seconds(value)
        if not found and not zero:
            raise ValueError("zero")
        return found

    bound = "0 or more" if zero else "more than 0"
    return Kind(f"a time in seconds, {bound} and at most ten years (10, 0.5, 500ms, 5m, 24h, 7d)", parse, _show_seconds)


def integer(low: int = 0, high: int = MAX_COUNT) -> Kind:
    """A whole number."""

    def parse(value: Any) -> int:
        if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError("no whole number in range")
        return value

    bounds = f"{low} or more" if high == MAX_COUNT else f"{low} to {high}"
    return Kind(f"a whole number, {bounds}", parse)


def _show_size(value: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= size and value % size == 0:
            return f"{value // size} {unit}"
    return f"{value} B"


def size(low: int) -> Kind:
    """A number of bytes."""

    def parse(value: Any) -> int:
        if isinstance(value, str):
            match = _NUMBER.fullmatch(value.strip())
            if match is None or match[2].lower() not in _BYTES:
                raise ValueError("no size")
            exact = float(match[1]) * _BYTES[match[2].lower()]
            if not math.isfinite(exact):
                raise ValueError("no size")
            value = int(exact)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= MAX_COUNT:
            raise ValueError("no size in range")
        return value

    return Kind(f"a number of bytes, {low} or more (1048576, 512KiB, 16MiB, 1GiB)", parse, _show_size)


def _flag(value: Any) -> bool:
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    if isinstance(value, bool):
        return value
    raise ValueError("no truth value")


FLAG = Kind("true or false (1, 0, yes, no, on, off)", _flag, lambda value: str(value).lower())


def choice(*words: str) -> Kind:
    """One of a few words."""

    def parse(value: Any) -> str:
        if not isinstance(value, str) or value.strip().lower() not in words:
            raise ValueError("none of them")
        return value.strip().lower()

    return Kind("one of " + ", ".join(words), parse)


def text(longest: int) -> Kind:
    """Some text."""

    def parse(value: Any) -> str:
        if not isinstance(value, str) or not 0 < len(value) <= longest or _CONTROL.search(value):
            raise ValueError("no plain text")
        return value

    return Kind(f"text of 1 to {longest} characters without control characters", parse)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value) or value.endswith("."):
        raise ValueError("no name")
    return value


NAME = Kind("a name of 1 to 64 letters, digits, dots, dashes and underscores that begins with a letter or digit", _name)


def _path(value: Any) -> str:
    value = str(value) if hasattr(value, "__fspath__") else value  # a pathlib.Path, without knowing pathlib
    if not isinstance(value, str) or not value.strip() or _CONTROL.search(value):
        raise ValueError("no path")
    return value


PATH = Kind("a path", _path)


def url(*schemes: str) -> Kind:
    """An address: scheme, host, perhaps port and path, nothing else. Normalised, so that one server has one name."""

    def parse(value: Any) -> str:
        if not isinstance(value, str) or len(value) > 2000 or _CONTROL.search(value) or _BLANK.search(value.strip()):
            raise ValueError("no address")
        parts = urlsplit(value.strip())  # raises ValueError for a broken IPv6 address
        host, port = parts.hostname, parts.port  # raises ValueError for a port out of range
        if parts.scheme.lower() not in schemes or not host or "@" in parts.netloc or port == 0:
            raise ValueError("no such address")
        if "?" in value or "#" in value:
            raise ValueError("a query")
        where = f"[{host}]" if ":" in host else host
        if port is not None and port != _PORTS[parts.scheme.lower()]:
            where += f":{port}"
        return f"{parts.scheme.lower()}://{where}{parts.path.rstrip('/')}"

    kinds = " or ".join(f"{scheme}://host[:port][/path]" for scheme in schemes)
    return Kind(f"{kinds}, without user, password, query or blanks", parse)


def _secret(value: Any) -> Secret:
    found = value.reveal() if isinstance(value, Secret) else value
    if not isinstance(found, str) or not _VISIBLE.fullmatch(found.strip()):
        raise ValueError("no token")
    return Secret(found.strip())


SECRET = Kind("text of visible ASCII characters", _secret)


def _proxy(value: Any) -> Secret:
    found = value.reveal() if isinstance(value, Secret) else value
    if not isinstance(found, str) or not _VISIBLE.fullmatch(found.strip()):
        raise ValueError("no address")
    parts = urlsplit(found.strip())
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname or parts.port == 0:
        raise ValueError("no address")
    return Secret(found.strip())


PROXY = Kind("http://[user:password@]host[:port]", _proxy)
"""A secret, because it may hold a password."""


def _command(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        import shlex

        value = shlex.split(value)  # raises ValueError for an open quote
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(word, str) for word in value):
        raise ValueError("no command")
    if not value[0] or any("\0" in word for word in value):
        raise ValueError("no command")
    return tuple(value)


COMMAND = Kind("a program with its arguments, as a list or as one text (no shell runs it)", _command)


def optional(kind: Kind) -> Kind:
    """The same, where nothing (None) is the default."""
    return Kind(kind.allowed, kind.parse, lambda value: "" if value is None else kind.show(value))
