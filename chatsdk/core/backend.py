"""The seam to a chat system: pure functions from what a user asks to `Call`s, and from answers to models.

`chatsdk_backend` speaks the ChatSDK 2.0 server's contract. Another system is one more class with these methods, handed
out by a plugin's `chatsdk_backend` hook. Builders raise `InvalidMessage` (sends) or `InvalidArgument` (other calls) for
what no server would take: nothing was sent. They know no token, no URL and no clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .exchange import Call, Json, Request, Response
from .models import Attachment, Channel, Health, Member, Message, MessagePage, Presence, SearchPage, User
from .tokens import Secret, Token

if TYPE_CHECKING:
    from .realtime_events import MessageReceived, RealtimeEvent


class EventReader(Protocol):
    def __call__(
        self, data: Json, user: str, channel: str = "", offset: int | None = None, at: float = 0.0
    ) -> RealtimeEvent:
        """The event that a publication stands for; `Unknown` for what nobody knows. Never raises."""
        ...


class Backend(Protocol):
    """One chat system. Every builder takes `user` (on whose behalf) first."""

    name: str

    # messages
    def send_message(
        self,
        user: str,
        channel: str,
        text: str,
        *,
        key: str,
        attachments: Sequence[Attachment] = (),
        reply_to: str | None = None,
        parent_id: str | None = None,
    ) -> Request:
        """The request that the outbox stores. Raises InvalidMessage."""
        ...

    def sent_message(self, request: Request, response: Response) -> Message:
        """The message of a send's answer (also of the short answer to a repeat). Raises InvalidResponseError if the
        answer is not about `request.key`."""
        ...

    def settle(self, request: Request) -> Call[Message]:
        """Ask whether the server has the message of a send; NotFound if not."""
        ...

    def get_message(self, user: str, channel: str, message: str) -> Call[Message]: ...
    def list_messages(
        self,
        user: str,
        channel: str,
        *,
        limit: int = 100,
        before: str | None = None,
        after: str | None = None,
        since_seq: int | None = None,
    ) -> Call[MessagePage]: ...
    def edit_message(self, user: str, channel: str, message: str, text: str) -> Call[Message]: ...
    def delete_message(self, user: str, channel: str, message: str) -> Call[None]: ...
    def react(self, user: str, channel: str, message: str, emoji: str) -> Call[None]: ...
    def unreact(self, user: str, channel: str, message: str, emoji: str) -> Call[None]: ...
    def mark_read(self, user: str, channel: str) -> Call[int]: ...
    def search(
        self, user: str, query: str, *, channel: str | None = None, limit: int = 20, offset: int = 0
    ) -> Call[SearchPage]: ...

    # channels
    def list_channels(
        self,
        user: str,
        *,
        type: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> Call[Sequence[Channel]]: ...
    def get_channel(self, user: str, channel: str) -> Call[Channel]: ...
    def create_channel(
        self,
        user: str,
        *,
        type: str = "group",
        name: str | None = None,
        members: Sequence[str] = (),
        image: str | None = None,
        config: Mapping[str, bool] | None = None,
        key: str | None = None,
    ) -> Call[Channel]: ...
    def channel_members(self, user: str, channel: str) -> Call[Sequence[Member]]: ...
    def leave_channel(self, user: str, channel: str) -> Call[None]: ...

    # presence, users, typing
    def presence(self, user: str, channel: str) -> Call[Presence]: ...
    def set_presence(self, user: str, online: bool) -> Call[None]: ...
    def me(self, user: str) -> Call[User]: ...
    def typing(self, user: str, channel: str, typing: bool) -> Call[None]: ...

    # service
    def health(self) -> Call[Health]: ...
    def refresh_token(self, user: str, refresh: str | Secret, *, now: float) -> Call[Token]:
        """The one request whose headers carry a token; it goes straight to the transport and is never stored. `now`:
        Unix time when it is asked; the new token's `expires_at` counts from there."""
        ...

    def refresh_refused(self, body: Any) -> bool:
        """True if a 401 to a refresh says that the session is over (expired, revoked, replayed, wrong type)."""
        ...

    # realtime
    def stream(self, channel: str, claims: Mapping[str, Any]) -> str:
        """The realtime server's name of a channel. `claims`: what the connection's token says. Raises
        InvalidArgument."""
        ...

    def user_stream(self, user: str, claims: Mapping[str, Any]) -> str | None:
        """The name of the stream that tells a user what is not about one channel, or None if there is none."""
        ...

    def stream_token(self, user: str, stream: str) -> Call[Secret]:
        """A token to subscribe to a stream with."""
        ...

    @property
    def read_event(self) -> EventReader:
        """The function that reads publications. It is asked for once, and called for thousands."""
        ...

    def event_of(self, message: Message, *, user: str, channel: str, at: float = 0.0) -> MessageReceived:
        """The event of a message that was fetched over HTTP."""
        ...
