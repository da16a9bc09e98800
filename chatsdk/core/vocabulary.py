"""The words that a figure may be labelled with: for whoever exports figures (metrics, spans).

A label's values multiply the series that a monitor keeps for ever, so none may be chosen by a server, a user or a
stranger's plugin. What is not among these words belongs under one word for everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import errors

OPERATIONS = frozenset(
    {
        "auth.refresh",
        "channels.create",
        "channels.get",
        "channels.leave",
        "channels.list",
        "channels.members",
        "health",
        "messages.delete",
        "messages.edit",
        "messages.get",
        "messages.list",
        "messages.react",
        "messages.read",
        "messages.send",
        "messages.unreact",
        "presence.get",
        "presence.set",
        "realtime.subscription_token",
        "search",
        "typing",
        "users.me",
    }
)
"""What `Request.operation` may be with chatsdk's own backend."""

ERRORS = frozenset(
    name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, errors.ChatError)
)
"""The classes of errors, by name."""

CIRCUITS = frozenset({"api", "auth", "websocket"})
"""The circuits that every client has. Backends may make more, by any name."""

MOST_OPERATIONS = 100
"""How many operations a plugin's settings may add."""


def operations(config: Mapping[str, Any]) -> frozenset[str]:
    """The operations that a plugin tells apart: `OPERATIONS`, and those of another backend that the plugin's setting
    `operations` names (a list, or words with blanks or commas between them).

    config: what `chatsdk_middleware` is given. Raises ValueError for more than MOST_OPERATIONS of them."""
    told = config.get("operations", ())
    more = told.replace(",", " ").split() if isinstance(told, str) else [str(word) for word in told]
    if len(set(more)) > MOST_OPERATIONS:
        raise ValueError(f"operations may name {MOST_OPERATIONS} at most, not {len(set(more))}")
    return OPERATIONS.union(more)
