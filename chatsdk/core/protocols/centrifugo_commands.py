"""Commands to Centrifugo: their ids, their text, which are under way and until when."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from .outputs import Send

MAX_COMMAND = 64 * 1024 - 1
"""Bytes of a frame to the server; a longer one ends the connection without a word (`websocket.message_size_limit`)."""

REQUESTS: Mapping[str, tuple[str, ...]] = {
    "publish": ("channel", "data"),
    "history": ("channel",),
    "presence": ("channel",),
    "presence_stats": ("channel",),
    "rpc": (),
}
"""What `request` can ask for, and what has to be in it, or the server closes for good."""

About = TypeVar("About")


class Asked(NamedTuple, Generic[About]):
    """A command under way, and what it is about."""

    method: str
    deadline: float
    about: About


class Commands(Generic[About]):
    """What was sent and is not answered. `timeout`: seconds."""

    __slots__ = ("_last_id", "_timeout", "_under_way")

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._last_id = 0
        self._under_way: dict[int, Asked[About]] = {}  # all may take equally long, so the first is due first

    def make(self, method: str, params: Mapping[str, Any], about: About, now: float) -> str:
        """The text of a command, which from now on is under way as `last_id`. Raises ValueError for what is no JSON or
        too long for a frame; then it is not under way."""
        number = self._last_id + 1
        try:
            text = json.dumps({"id": number, method: params}, separators=(",", ":"), allow_nan=False)
        except (TypeError, RecursionError) as error:
            raise ValueError(f"{method} takes JSON only") from error
        if len(text) > MAX_COMMAND:
            raise ValueError(f"{method}: {len(text)} bytes, a frame may have {MAX_COMMAND}")
        self._last_id = number
        self._under_way[number] = Asked(method, now + self._timeout, about)
        return text

    @property
    def last_id(self) -> int:
        """Of the command made last."""
        return self._last_id

    def under_way(self, number: Any) -> Asked[About] | None:
        """The command with that id."""
        return self._under_way.get(number) if type(number) is int else None

    def done(self, number: int) -> None:
        """It is answered."""
        del self._under_way[number]

    def next_due(self) -> float | None:
        """When the first of them has taken too long."""
        for asked in self._under_way.values():
            return asked.deadline
        return None

    def overdue(self, now: float) -> tuple[int, Asked[About]] | None:
        """The first that took too long; it is no longer under way."""
        for number, asked in self._under_way.items():
            if now < asked.deadline:
                break
            del self._under_way[number]
            return number, asked
        return None


def check_request(method: str, params: Mapping[str, Any]) -> None:
    """Raises ValueError for a request that the server would close the connection for."""
    if method not in REQUESTS:
        raise ValueError(f"Centrifugo has no {method!r}")
    for name in REQUESTS[method]:
        if name not in params or (name == "channel" and not (isinstance(params[name], str) and params[name])):
            raise ValueError(f"{method} needs {name}")


def in_frames(texts: Iterable[str]) -> list[Send]:
    """Commands in as few frames as the server's limit allows."""
    frames: list[Send] = []
    lines: list[str] = []
    size = 0
    for text in texts:
        if lines and size + len(text) + 1 > MAX_COMMAND:
            frames.append(Send("\n".join(lines)))
            lines, size = [], 0
        lines.append(text)
        size += len(text) + 1
    if lines:
        frames.append(Send("\n".join(lines)))
    return frames
