"""What the API's writes publish: `{"type", "payload"}` on chat and user streams (contract, 11.4).

Rules: each method belongs into the transaction of the change that it tells of. Unlike the original, every change is
told once, in the order of the commits: no edit is swallowed, a reaction that was there is not added again. Nothing is
made for a user's own stream that nobody hears, as it keeps no history.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chatsdk.devserver.ids import iso
from chatsdk.devserver.realtime.hub import Hub
from chatsdk.devserver.store.channels import OPEN_TYPES, Channels
from chatsdk.devserver.store.messages import message_shape
from chatsdk.devserver.store.people import People

if TYPE_CHECKING:
    from chatsdk.devserver.realtime.connection import Session


@dataclass(frozen=True)
class Events:
    """The publisher of one app's events."""

    app: str
    hub: Hub
    people: People
    channels: Channels

    # Messages

    def message_new(self, row: sqlite3.Row) -> None:
        """A message that was sent, and everybody else's unread counts."""
        channel = row["channel"]
        self._chat(channel, "message.new", {"message": message_shape(row, 0)})
        self._unread_of_all(channel, without=row["user"])

    def reply_new(self, channel: str, reply: Mapping[str, Any]) -> None:
        """A reply by the thread route, in its own shape; unread counts stay as they are."""
        self._chat(channel, "thread.reply", {"parentId": reply["parentId"], "message": reply})
        self._chat(channel, "message.new", {"message": reply})

    def message_updated(self, row: sqlite3.Row, reaction_count: int) -> None:
        self._chat(row["channel"], "message.updated", {"message": message_shape(row, reaction_count)})

    def message_deleted(self, channel: str, message: str) -> None:
        self._chat(channel, "message.deleted", {"messageId": message})

    def reaction(self, channel: str, message: str, emoji: str, user: str, *, added: bool) -> None:
        reaction = {"type": emoji, "userId": user, "user": self._person(user)}
        self._chat(channel, f"reaction.{'added' if added else 'removed'}", {"messageId": message, "reaction": reaction})

    def typing(self, channel: str, user: str, *, typing: bool, typist: Session | None = None) -> None:
        """Whether somebody types. `typist`: the connection that said so, which is not told."""
        kind = "typing.start" if typing else "typing.stop"
        payload = {"channelId": channel, "user": self._person(user)}
        stream = f"chat:{self.app}:{channel}"
        if typist is None:
            self.hub.announce(stream, {"type": kind, "payload": payload})
        else:
            self.hub.publish(stream, {"type": kind, "payload": payload}, skip=typist)

    def read(self, channel: str, user: str, last_seq: int) -> None:
        self._chat(channel, "read.updated", {"userId": user, "lastReadSeq": str(last_seq)})
        self._unread(user, channel, 0)

    # Channels

    def channel_created(self, shape: Mapping[str, Any]) -> None:
        """Told to the members; a channel that is open to all is told to all."""
        everybody = shape["type"] in OPEN_TYPES
        members = self.people.all_ids() if everybody else self._members(shape["id"])
        for user in members:
            self._user(user, "channel.created", {"channel": shape})

    def channel_updated(self, shape: Mapping[str, Any]) -> None:
        self._publish(f"chat:{self.app}:{shape['id']}", "channel.updated", {"channel": shape})

    def channel_deleted(self, channel: str, members: Sequence[str]) -> None:
        for user in members:
            self._user(user, "channel.deleted", {"channelId": channel})

    def member_joined(self, channel: str, user: str) -> None:
        self._chat(channel, "channel.member_joined", {"userId": user})
        self._user(user, "channel.member_joined", {"channelId": channel, "userId": user})

    def member_left(self, channel: str, user: str) -> None:
        """The one who left hears it on their own stream only; `hub.unsubscribe` takes them off the other."""
        self._chat(channel, "channel.member_left", {"userId": user})
        self._user(user, "channel.member_left", {"channelId": channel, "userId": user})

    def presence(self, user: str, now: int, *, online: bool) -> None:
        """On the user's own stream alone, as in the original."""
        payload: dict[str, Any] = {"userId": user}
        if not online:
            payload["lastSeen"] = iso(now)
        self._user(user, "presence.online" if online else "presence.offline", payload)

    # Means

    def _unread_of_all(self, channel: str, without: str) -> None:
        for user in self._members(channel):
            if user != without and self.hub.is_heard(self._own(user)):
                self._unread(user, channel, self.channels.unread_of(channel, user))

    def _unread(self, user: str, channel: str, count: int) -> None:
        if self.hub.is_heard(self._own(user)):
            self._user(user, "channel.unread_changed", {"channelId": channel, "count": count})
            self._user(user, "channel.total_unread_changed", {"count": self.channels.unread_count(user)})

    def _chat(self, channel: str, kind: str, payload: Mapping[str, Any]) -> None:
        self._publish(f"chat:{self.app}:{channel}", kind, {"channelId": channel, **payload})

    def _user(self, user: str, kind: str, payload: Mapping[str, Any]) -> None:
        if self.hub.is_heard(self._own(user)):
            self._publish(self._own(user), kind, payload)

    def _publish(self, stream: str, kind: str, payload: Mapping[str, Any]) -> None:
        self.hub.announce(stream, {"type": kind, "payload": payload})

    def _own(self, user: str) -> str:
        return f"user:{self.app}:{user}"

    def _members(self, channel: str) -> list[str]:
        return self.channels.member_ids(channel)

    def _person(self, user: str) -> dict[str, Any]:
        profile = self.people.profile(user) or {"id": user, "name": None, "image": None}
        shown = {name: profile[name] for name in ("id", "name", "image")}
        return {name: value for name, value in shown.items() if name != "image" or value is not None}
