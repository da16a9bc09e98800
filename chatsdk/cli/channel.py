"""Which channel a name on the command line means."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..client import ChatClient

DEVELOPMENT_ALIAS = "general"


def channel_id(chat: ChatClient, name: str) -> str:
    """An id as it is, an alias of the settings, or `general`: the channel that every development server has. (No server
    takes that word for an id, so the alias hides nothing.)"""
    if name == DEVELOPMENT_ALIAS and name not in chat.settings.channels:
        from ..devserver.settings import GENERAL_CHANNEL_ID

        return GENERAL_CHANNEL_ID
    return chat.settings.channels.get(name, name)
