"""The ChatSDK 2.0 server's contract: each call as a `Request`, each answer as a model.

Rules. Pure: no token (the auth middleware adds it; only `refresh_token` carries one), no URL, no clock. What the server
would answer with 500 is refused here (`chatsdk_checks`), because a 500 is tried again. `repeatable` is true for reads
and for what has the same effect twice (delete, react, unreact, mark_read, presence, and a direct channel, of which
there is only one per pair); an edit is not: tried again late, it would undo a later one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from . import chatsdk_checks as check
from . import chatsdk_models as read
from .errors import InvalidArgument, InvalidMessage, InvalidResponseError
from .exchange import Call, Json, Request, Response
from .models import Attachment, Channel, Health, Member, Message, MessagePage, Presence, SearchPage, User
from .tokens import Secret, Token

if TYPE_CHECKING:
    from .backend import EventReader
    from .realtime_events import MessageReceived
    from .timeouts import Preset

MAX_MESSAGES = 200
"""Messages in one page (contract, 7)."""

MAX_CHANNELS = 100
"""Channels in one page (contract, 6)."""

MAX_HITS = 100
"""Search results in one page (contract, 8)."""

MAX_QUERY = 500
"""UTF-16 units in what is searched for (contract, 8)."""

_MAX_OFFSET = 2**31 - 1

_FINAL_REFUSALS = frozenset(
    {
        "invalid token",
        "invalid token type",
        "refresh token expired",
        "refresh token replay detected",
        "token expired",
        "token has been revoked",
        "token user not found",
    }
)
"""Messages of a 401 to a refresh that mean the session is over (contract, 4.1 and 15.1), beside "Token session ...".
Not "Invalid refresh token": that is what the server says while its database is busy."""


class ChatSDKBackend:
    """The server's contract as functions. Holds no state. Implements `core.backend.Backend`.

    Builders raise `InvalidMessage` (sends) or `InvalidArgument` (other calls): nothing was sent.
    """

    name = "chatsdk"

    # ---- messages

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
        """The request that the outbox stores; `key` is a UUID. Raises InvalidMessage."""
        where = check.uuid(channel, "channel", InvalidMessage)
        made = check.uuid(key, "key", InvalidMessage)
        body: dict[str, Json] = {"text": check.text(text, "text", check.MAX_TEXT, InvalidMessage), "clientMsgId": made}
        if attachments:
            body["attachments"] = [check.attachment(each, InvalidMessage) for each in attachments]
        if parent_id is not None:
            body["parentId"] = check.uuid(parent_id, "parent_id", InvalidMessage)
        if reply_to is not None:
            body["replyToId"] = check.uuid(reply_to, "reply_to", InvalidMessage)
        return Request(
            operation="messages.send",
            method="POST",
            path=f"/api/channels/{where}/messages",
            body=body,
            user=check.name(user, "user", InvalidMessage) if user else "",
            channel=where,
            key=made,
        )

    def sent_message(self, request: Request, response: Response) -> Message:
        """The message of a send's answer. A repeat is answered with id and seq only: the rest is what was sent. Raises
        InvalidResponseError if the answer is not about `request.key`."""
        body, key = response.body, request.key
        if not isinstance(body, dict) or key not in (body.get("id"), body.get("clientMsgId")) or key is None:
            raise InvalidResponseError("the answer is not about the message that was sent")
        if "text" in body:
            return read.read_message(body, channel=request.channel)
        sent = request.body if isinstance(request.body, dict) else {}
        known = {"channelId": request.channel, "userId": request.user, "clientMsgId": key}
        said = {name: value for name, value in body.items() if value is not None}
        return replace(read.read_message({**sent, **known, **said}, channel=request.channel), raw=body)

    def settle(self, request: Request) -> Call[Message]:
        """Ask whether the server has the message of a send; NotFound if not (yet: see contract, 15.3)."""
        call = self.get_message(request.user, request.channel, request.key or "")
        return Call(call.request.replace(fresh=True, correlation_id=request.correlation_id), call.parse, call.preset)

    def get_message(self, user: str, channel: str, message: str) -> Call[Message]:
        """One message; its `reactions` and `mentions` are filled."""
        where, path = _message_path(channel, message)
        return _call("messages.get", "GET", path, lambda body: read.read_message(body, channel=where), user, where)

    def list_messages(
        self,
        user: str,
        channel: str,
        *,
        limit: int = 100,
        before: str | None = None,
        after: str | None = None,
        since_seq: int | None = None,
    ) -> Call[MessagePage]:
        """The newest `limit` (1 to 200) messages, or those before or after a message id (by time), or the oldest ones
        with a seq above `since_seq`, which must be 1 or more: the server takes 0 as "not given"."""
        if sum(bound is not None for bound in (before, after, since_seq)) > 1:
            raise InvalidArgument("only one of before, after and since_seq can be given")
        where = check.uuid(channel, "channel")
        most = check.count(limit, "limit", 1, MAX_MESSAGES)
        query = {"limit": str(most)}
        if before is not None:
            query["before"] = check.uuid(before, "before")
        if after is not None:
            query["after"] = check.uuid(after, "after")
        if since_seq is not None:
            query["since_seq"] = str(check.count(since_seq, "since_seq", 1, check.MAX_SEQ))

        def parse(body: Json) -> MessagePage:
            return read.read_message_page(body, channel=where, limit=most)

        return _call("messages.list", "GET", f"/api/channels/{where}/messages", parse, user, where, query=query)

    def edit_message(self, user: str, channel: str, message: str, text: str) -> Call[Message]:
        """Replace the text of one's own message."""
        where, path = _message_path(channel, message)
        body = {"text": check.text(text, "text", check.MAX_TEXT)}
        return _call(
            "messages.edit", "PATCH", path, lambda body: read.read_message(body, channel=where), user, where, body
        )

    def delete_message(self, user: str, channel: str, message: str) -> Call[None]:
        """Delete a message; its place and its id stay."""
        where, path = _message_path(channel, message)
        return _call("messages.delete", "DELETE", path, read.read_done, user, where, repeatable=True)

    def react(self, user: str, channel: str, message: str, emoji: str) -> Call[None]:
        """Add a reaction: 1 to 50 UTF-16 units."""
        where, path = _message_path(channel, message)
        body = {"emoji": check.emoji(emoji)}
        return _call("messages.react", "POST", f"{path}/reactions", read.read_done, user, where, body, repeatable=True)

    def unreact(self, user: str, channel: str, message: str, emoji: str) -> Call[None]:
        """Take a reaction back."""
        where, path = _message_path(channel, message)
        path = f"{path}/reactions/{check.part(check.emoji(emoji), 'emoji')}"
        return _call("messages.unreact", "DELETE", path, read.read_done, user, where, repeatable=True)

    def mark_read(self, user: str, channel: str) -> Call[int]:
        """The whole channel is read; the answer is the seq up to which."""
        where = check.uuid(channel, "channel")
        path = f"/api/channels/{where}/read"
        return _call("messages.read", "POST", path, read.read_last_read, user, where, {}, repeatable=True)

    def search(
        self, user: str, query: str, *, channel: str | None = None, limit: int = 20, offset: int = 0
    ) -> Call[SearchPage]:
        """Messages that match `query` (1 to 500 UTF-16 units), 1 to 100 at once."""
        words = {"q": check.text(query, "query", MAX_QUERY)}
        where = "" if channel is None else check.uuid(channel, "channel")
        if where:
            words["channelId"] = where
        words["limit"] = str(check.count(limit, "limit", 1, MAX_HITS))
        words["offset"] = str(check.count(offset, "offset", 0, _MAX_OFFSET))
        return _call("search", "GET", "/api/search", read.read_search_page, user, where, query=words)

    # ---- channels

    def list_channels(
        self,
        user: str,
        *,
        type: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> Call[Sequence[Channel]]:
        """The user's channels and all public and team ones, latest message first; 1 to 100 at once."""
        query = {
            "limit": str(check.count(limit, "limit", 1, MAX_CHANNELS)),
            "offset": str(check.count(offset, "offset", 0, _MAX_OFFSET)),
        }
        if type is not None:
            query["type"] = check.choice(type, "type", check.CHANNEL_TYPES)
        return _call("channels.list", "GET", "/api/channels", read.read_channels, user, query=query)

    def get_channel(self, user: str, channel: str) -> Call[Channel]:
        """One channel with its first 100 members."""
        where = check.uuid(channel, "channel")
        return _call("channels.get", "GET", f"/api/channels/{where}", read.read_channel, user, where)

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
    ) -> Call[Channel]:
        """Create a channel. A `messaging` channel has exactly one member beside the user; if it exists the server
        answers with a redirect to it, which the transport follows.

        key: 1 to 255 characters; the same key gives the same channel, for every user of the server and whatever else
        is asked, so a good key is long.
        """
        body: dict[str, Json] = {"type": check.choice(type, "type", check.CHANNEL_TYPES)}
        if name is not None:
            body["name"] = check.text(name, "name", check.MAX_ID)
        if image is not None:
            body["image"] = check.url(image, "image")
        if isinstance(members, str):
            raise InvalidArgument("members must be a list of user ids")
        # the server counts a member who is named twice, or who creates the channel, twice
        ids = list(dict.fromkeys(check.name(member, "a member's id") for member in members))
        if type == "messaging":
            if len(ids) != 1:
                raise InvalidArgument("a messaging channel takes exactly one member", hint='or use type="group"')
        else:
            ids = [each for each in ids if each != user]
        if ids:
            body["memberIds"] = ids
        if config is not None:
            flags: dict[Any, Any] = dict(config)
            if not all(isinstance(word, str) and isinstance(flag, bool) for word, flag in flags.items()):
                raise InvalidArgument("config must map names to True or False")
            body["config"] = flags
        if key is not None:
            body["idempotencyKey"] = check.name(key, "key")
        return _call(
            "channels.create",
            "POST",
            "/api/channels",
            read.read_channel,
            user,
            body=body,
            key=key,
            repeatable=type == "messaging",
        )

    def channel_members(self, user: str, channel: str) -> Call[Sequence[Member]]:
        """All members of a channel."""
        where = check.uuid(channel, "channel")
        return _call("channels.members", "GET", f"/api/channels/{where}/members", read.read_members, user, where)

    def leave_channel(self, user: str, channel: str) -> Call[None]:
        """Leave a channel: to the server, remove oneself. Needs the user's id, not just a token."""
        where = check.uuid(channel, "channel")
        path = f"/api/channels/{where}/members/{check.part(check.name(user, 'user'), 'user')}"
        return _call("channels.leave", "DELETE", path, read.read_done, user, where)

    # ---- presence, users, typing

    def presence(self, user: str, channel: str) -> Call[Presence]:
        """Who of a channel is there."""
        where = check.uuid(channel, "channel")
        path = f"/api/channels/{where}/presence"
        return _call("presence.get", "GET", path, read.read_presence, user, where, preset="quick")

    def set_presence(self, user: str, online: bool) -> Call[None]:
        """Say that this user is there, or is not."""
        path = f"/api/presence/{'online' if online else 'offline'}"
        return _call("presence.set", "POST", path, read.read_done, user, body={}, repeatable=True, preset="quick")

    def me(self, user: str) -> Call[User]:
        """The user that the token belongs to."""
        return _call("users.me", "GET", "/api/users/me", read.read_user, user)

    def typing(self, user: str, channel: str, typing: bool) -> Call[None]:
        """Say that this user is typing, or stopped."""
        where = check.uuid(channel, "channel")
        return _call(
            "typing",
            "POST",
            f"/api/channels/{where}/typing",
            read.read_done,
            user,
            where,
            {"typing": bool(typing)},
            preset="quick",
        )

    # ---- service

    def health(self) -> Call[Health]:
        """How the server is; needs no token."""
        return _call("health", "GET", "/health", read.read_health, "", preset="quick")

    def refresh_token(self, user: str, refresh: str | Secret, *, now: float) -> Call[Token]:
        """Buy the next pair. The refresh token goes in the header, which this server reads, and in the body, which
        others do. `now`: Unix time when it is asked; `expires_at` of the new token counts from there: early, never
        late."""
        text = Secret(refresh).reveal()
        call = _call(
            "auth.refresh",
            "POST",
            "/api/auth/refresh",
            lambda body: read.read_token(body, now=now),
            user,
            body={"refreshToken": text},
        )
        return Call(call.request.with_headers({"Authorization": f"Bearer {text}"}), call.parse)

    def refresh_refused(self, body: Any) -> bool:
        """True if a 401 to a refresh says that the session is over (expired, revoked, replayed, wrong type)."""
        error = body.get("error") if isinstance(body, dict) else None
        if isinstance(error, str):
            error = {"message": error}
        if not isinstance(error, dict):
            return False
        message = error.get("message")
        said = message.strip().lower() if isinstance(message, str) else ""
        expired = error.get("code") == "REFRESH_TOKEN_EXPIRED"
        return expired or said in _FINAL_REFUSALS or said.startswith("token session ")

    # ---- realtime

    def stream(self, channel: str, claims: Mapping[str, Any]) -> str:
        """`chat:<app>:<channel>`, or the channel itself where the token names no app: a plain server knows no
        streams."""
        where, app = check.uuid(channel, "channel"), claims.get("app_id")
        return f"chat:{app}:{where}" if isinstance(app, str) and app else where

    def user_stream(self, user: str, claims: Mapping[str, Any]) -> str | None:
        """`user:<app>:<user>`."""
        app = claims.get("app_id")
        return f"user:{app}:{user}" if isinstance(app, str) and app else None

    def stream_token(self, user: str, stream: str) -> Call[Secret]:
        """A token to subscribe to a stream with (contract, 11.2)."""
        return _call(
            "realtime.subscription_token",
            "POST",
            "/api/realtime/subscription-token",
            read.read_stream_token,
            user,
            body={"channel": stream},
            repeatable=True,
        )

    @property
    def read_event(self) -> EventReader:
        """See `chatsdk_events.read_event`."""
        from .chatsdk_events import read_event  # a process that only sends has no use for it

        return read_event

    def event_of(self, message: Message, *, user: str, channel: str, at: float = 0.0) -> MessageReceived:
        """See `chatsdk_events.event_of`."""
        from .chatsdk_events import event_of

        return event_of(message, user=user, channel=channel, at=at)


T = TypeVar("T")
Method = Literal["GET", "POST", "PATCH", "DELETE"]


def _call(
    operation: str,
    method: Method,
    path: str,
    parse: Callable[[Json], T],
    user: str,
    channel: str = "",
    body: Json = None,
    *,
    query: Mapping[str, str] | None = None,
    key: str | None = None,
    repeatable: bool = False,
    preset: Preset = "standard",
) -> Call[T]:
    request = Request(
        operation=operation,
        method=method,
        path=path,
        query=query or {},
        body=body,
        user=user,
        channel=channel,
        key=key,
        repeatable=repeatable or method == "GET",
    )
    return Call(request, lambda response: parse(response.body), preset)


def _message_path(channel: str, message: str) -> tuple[str, str]:
    """(channel id, path of a message)."""
    where = check.uuid(channel, "channel")
    return where, f"/api/channels/{where}/messages/{check.uuid(message, 'message')}"
