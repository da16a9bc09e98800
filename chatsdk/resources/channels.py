"""Channels, presence, users and typing: direct calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..core.models import Channel, Member, Presence, User

if TYPE_CHECKING:
    from ..client import ChatClient


class Channels:
    """`chat.channels`."""

    def __init__(self, chat: ChatClient) -> None:
        self._chat = chat

    def list(
        self, *, type: str | None = None, limit: int = 50, offset: int = 0, fresh: bool = False
    ) -> Sequence[Channel]:
        """The user's channels and all public ones, latest message first; at most 100 at once."""
        call = self._chat._backend.list_channels(self._chat.user, type=type, limit=limit, offset=offset)
        return self._chat.call(call, fresh=fresh)

    def get(self, channel: str | Channel, *, fresh: bool = False) -> Channel:
        """One channel. Raises Forbidden, NotFound."""
        call = self._chat._backend.get_channel(self._chat.user, self._chat._channel_id(channel))
        return self._chat.call(call, fresh=fresh)

    def create(
        self,
        name: str | None = None,
        *,
        members: Sequence[str] = (),
        type: str = "group",
        image: str | None = None,
        config: Mapping[str, bool] | None = None,
        key: str | None = None,
    ) -> Channel:
        """Create a channel; a direct one (`type="messaging"`, one member) that exists is returned. With a `key` it is
        created once, however often it is asked for."""
        call = self._chat._backend.create_channel(
            self._chat.user, type=type, name=name, members=members, image=image, config=config, key=key
        )
        return self._chat.call(call)

    def members(self, channel: str | Channel, *, fresh: bool = False) -> Sequence[Member]:
        """Who is in a channel."""
        call = self._chat._backend.channel_members(self._chat.user, self._chat._channel_id(channel))
        return self._chat.call(call, fresh=fresh)

    def leave(self, channel: str | Channel) -> None:
        """Leave a channel."""
        call = self._chat._backend.leave_channel(self._chat.user, self._chat._channel_id(channel))
        self._chat.call(call)
        self._chat._parts.seen.left(call.request.user, call.request.channel)


class PresenceResource:
    """`chat.presence`. It is an ornament, and goes without a word where the server has none to give: who is there is
    then not known, and what is said is not heard. Mistakes (a wrong channel, a missing right) raise all the same."""

    def __init__(self, chat: ChatClient) -> None:
        self._chat = chat

    def get(self, channel: str | Channel, *, fresh: bool = False) -> Presence:
        """Who of a channel is online. In an outage, or while the feature "presence" is off, an answer whose `known` is
        False. Raises Forbidden, NotFound."""
        call = self._chat._backend.presence(self._chat.user, self._chat._channel_id(channel))
        return self._chat.features.run("presence", lambda: self._chat.call(call, fresh=fresh), _nobody_knows)

    def set(self, online: bool) -> bool:
        """Say that this user is (not) here; True if the server heard it. In an outage it is False, and nobody says it
        later: to be here lapses anyway, after five minutes without another word (contract, 8)."""
        call = self._chat._backend.set_presence(self._chat.user, online)

        def say() -> bool:
            self._chat.call(call)
            return True

        return self._chat.features.run("presence", say, lambda: False)


def _nobody_knows() -> Presence:
    return Presence(known=False)


class Users:
    """`chat.users`."""

    def __init__(self, chat: ChatClient) -> None:
        self._chat = chat

    def me(self, *, fresh: bool = False) -> User:
        """Who the token says this is."""
        return self._chat.call(self._chat._backend.me(self._chat.user), fresh=fresh)


class Typing:
    """`chat.typing`. Nobody waits for these signals, and none is worth a second try: both calls return at once, and
    what cannot be sent is dropped and counted. In one-shot mode (`background=False`) they are direct calls, which
    raise."""

    def __init__(self, chat: ChatClient) -> None:
        self._chat = chat

    def start(self, channel: str | Channel) -> None:
        """Show others in the channel that this user is typing. It ends with `stop`, or 6 s after the last `start`."""
        self._tell(channel, True)

    def stop(self, channel: str | Channel) -> None:
        """Take that back."""
        self._tell(channel, False)

    def _tell(self, channel: str | Channel, typing: bool) -> None:
        chat, where = self._chat, self._chat._channel_id(channel)
        call = chat._backend.typing(chat.user, where, typing)  # raises InvalidArgument for what is no channel
        if not chat.settings.background:
            chat.call(call)
        elif typing:
            chat._parts.connections.typing().start(chat.user, where)
        else:
            chat._parts.connections.typing().stop(chat.user, where)
