"""Who may hear which stream: names of streams, and the membership behind them (contract, 11.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chatsdk.devserver.store.channels import OPEN_TYPES, Channels

if TYPE_CHECKING:
    from chatsdk.devserver.realtime.connection import Session
    from chatsdk.devserver.realtime.events import Events


class NoSuchRoom(LookupError):
    """No channel has this id."""


class NotAMember(PermissionError):
    """The user may not hear this channel."""


@dataclass(frozen=True)
class Rooms:
    """The channels of one app, as streams."""

    app: str
    channels: Channels
    events: Events

    def full_name(self, user: str) -> str:
        """A user as Centrifugo knows them."""
        return f"{self.app}:{user}"

    def stream(self, channel: str) -> str:
        return f"chat:{self.app}:{channel}"

    def own_stream(self, user: str) -> str:
        return f"user:{self.app}:{user}"

    def admit(self, user: str, channel: str) -> None:
        """Raises `NoSuchRoom` or `NotAMember` where a user may not hear a channel."""
        found = self.channels.find(channel)
        if found is None:
            raise NoSuchRoom
        if found["type"] not in OPEN_TYPES and self.channels.role(channel, user) is None:
            raise NotAMember

    def type(self, user: str, channel: str, *, typing: bool, typist: Session) -> None:
        """A typing signal that came as a frame: for everybody but the connection that it came from."""
        self.events.typing(channel, user, typing=typing, typist=typist)
