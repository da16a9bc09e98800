"""Centrifugo's commands: what a frame of them must look like, and the codes that they are answered with.

Rules: a code of the 3000s closes the connection (from 3500 on for good), one of the 2000s ends a subscription, one of
the 100s is an error in a reply, after which the connection goes on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

METHODS = frozenset(
    {
        "connect",
        "subscribe",
        "unsubscribe",
        "refresh",
        "sub_refresh",
        "publish",
        "history",
        "presence",
        "presence_stats",
        "rpc",
    }
)

SHUTDOWN = (3001, "shutdown")
EXPIRED = (3005, "connection expired")
SLOW = (3008, "slow")
NO_PONG = (3012, "no pong")
INVALID_TOKEN = (3500, "invalid token")
BAD_REQUEST = (3501, "bad request")
STALE = (3502, "stale")
FORCE_DISCONNECT = (3503, "force disconnect")

SERVER_UNSUBSCRIBE = (2000, "server unsubscribe")
INSUFFICIENT_STATE = (2500, "insufficient state")
SUBSCRIPTION_EXPIRED = (2501, "subscription expired")

UNKNOWN_CHANNEL = (102, "unknown channel")
PERMISSION_DENIED = (103, "permission denied")
ALREADY_SUBSCRIBED = (105, "already subscribed")
LIMIT_EXCEEDED = (106, "limit exceeded")
NOT_AVAILABLE = (108, "not available")
TOKEN_EXPIRED = (109, "token expired")
UNRECOVERABLE_POSITION = (112, "unrecoverable position")


class Refused(Exception):
    """An error in the reply: code and message."""


class Disconnected(Exception):
    """The end of the connection: code and reason."""


def commands(text: str) -> list[Any]:
    """The commands of a frame; ends the connection where it holds none."""
    try:
        found = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError):
        raise Disconnected(*BAD_REQUEST) from None
    if not found:
        raise Disconnected(*BAD_REQUEST)
    return found


def taken_apart(command: Any) -> tuple[int, str, Mapping[str, Any]]:
    """Id, method and arguments."""
    if not isinstance(command, dict):
        raise Disconnected(*BAD_REQUEST)
    number = command.get("id")
    methods = [name for name in command if name in METHODS]
    if isinstance(number, bool) or not isinstance(number, int) or not 0 < number < 2**32 or len(methods) != 1:
        raise Disconnected(*BAD_REQUEST)
    arguments = command[methods[0]]
    if not isinstance(arguments, dict):
        raise Disconnected(*BAD_REQUEST)
    return number, methods[0], arguments


def channel_of(arguments: Mapping[str, Any]) -> str:
    """The channel that a command is about."""
    channel = arguments.get("channel")
    if not isinstance(channel, str) or not channel:
        raise Disconnected(*BAD_REQUEST)
    return channel
