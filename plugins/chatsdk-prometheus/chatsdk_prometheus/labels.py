"""What may stand in a label: words of a fixed list, and `other` for everything else. Pure.

A label's values multiply the series that are kept for ever, so none may be chosen by a server, a user or a stranger's
plugin: no user, channel, key, path or text ever becomes one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chatsdk.plugin import errors

OTHER = "other"

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
"""The operations of chatsdk's own backend; another backend's are added by the setting `operations`."""

MOST_OPERATIONS = 100
"""The setting may name that many more: each is a histogram of eleven series."""

ERRORS = frozenset(
    name for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, errors.ChatError)
)

CIRCUITS = frozenset({"api", "auth", "websocket"})


def known(word: str, words: Iterable[str]) -> str:
    """The word, if it is one of those; else `other`."""
    return word if word in words else OTHER


def operations(config: Mapping[str, Any]) -> frozenset[str]:
    """The operations that get a label of their own: ours, and those of the setting `operations` (a list, or words with
    blanks or commas between them). Raises ValueError for too many."""
    told = config.get("operations", ())
    more = told.replace(",", " ").split() if isinstance(told, str) else [str(word) for word in told]
    if len(set(more)) > MOST_OPERATIONS:
        raise ValueError(f"operations may name {MOST_OPERATIONS} at most, not {len(set(more))}")
    return OPERATIONS.union(more)
