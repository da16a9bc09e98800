"""Parts of Centrifugo's messages, read into outputs. What makes no sense is said in a word, never raised."""

from __future__ import annotations

from typing import Any

from .outputs import Joined, Left, Output, Position, Published, Subscribed

MAX_OFFSET = 2**63 - 1
"""Offsets count from 1; a cursor is stored in 64 bits."""

Object = dict[str, Any]


def read_publication(stream: str, pub: Any) -> Published | None:
    """A publication; None if it or its offset makes no sense. One without data still has its place in the stream."""
    if not isinstance(pub, dict):
        return None
    offset, epoch, info = pub.get("offset"), pub.get("epoch"), pub.get("info")
    if offset is not None and not (type(offset) is int and 0 <= offset <= MAX_OFFSET):
        return None
    return Published(
        stream,
        pub.get("data"),
        offset or None,
        epoch if isinstance(epoch, str) and epoch else None,
        info if isinstance(info, dict) else None,
    )


def read_subscription(
    stream: str, result: Object, *, asked: bool = False, by_server: bool = False
) -> tuple[list[Output], str]:
    """Where a stream stands after the server took us in, then what came along; and what of it made no sense."""
    pubs = result.get("publications")
    published = [read_publication(stream, pub) for pub in pubs] if isinstance(pubs, list) else []
    sound = [each for each in published if each is not None]
    epoch, offset = result.get("epoch"), result.get("offset", 0)  # a 0 is left out
    position: Position | None = None
    if isinstance(epoch, str) and epoch and type(offset) is int and 0 <= offset <= MAX_OFFSET:
        last = next((each.offset for each in reversed(sound) if each.offset is not None), offset)
        position = Position(last, epoch)
    recovered = result.get("recovered") is True and position is not None
    wrong = "" if len(sound) == len(published) else "a recovered publication whose offset makes no sense"
    return [Subscribed(stream, recovered, position, asked, by_server), *sound], wrong


def read_presence(kind: type[Joined] | type[Left], stream: str, value: Object) -> Joined | Left | None:
    """Somebody who came or left; None if nobody is named."""
    info = value.get("info")
    if not isinstance(info, dict):
        return None
    user, client = info.get("user"), info.get("client")
    return kind(stream, user if isinstance(user, str) else "", client if isinstance(client, str) else "", info)
