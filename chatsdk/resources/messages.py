"""Messages: send (durable), and the direct calls: list, get, edit, delete, react, unreact, search, mark_read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.errors import Forbidden, NotFound
from ..core.exchange import Call
from ..core.models import Attachment, Channel, Message, MessagePage, SearchPage
from .receipt import Receipt

if TYPE_CHECKING:
    from ..client import ChatClient
    from ..offline.seen import Seen

T = TypeVar("T")

PAGE = 100
"""Messages asked for at once while paging; the server gives at most 200."""


class Messages:
    """`chat.messages`."""

    def __init__(self, chat: ChatClient) -> None:
        self._chat = chat

    def send(
        self,
        channel: str | Channel,
        text: str,
        *,
        attachments: Sequence[Attachment] = (),
        reply_to: str | None = None,
        parent_id: str | None = None,
        key: str | None = None,
        ttl: float | None = None,
        wait: float | None = None,
    ) -> Receipt:
        """Send a message: it is safe on disk before this returns, then its delivery is awaited for a while.

        channel: id, alias from the settings, or Channel; text: 1 to 10,000 UTF-16 units; reply_to, parent_id: message
        ids; key: names the message for ever (a UUID as it is, other text becomes one): the same key and body give the
        same receipt; ttl: seconds until it dies unsent (None: the setting, 24 h); wait: seconds to wait for delivery
        (None: the setting `send_wait`, but no longer than it makes sense; 0: return at once). It never raises for
        waiting too long, and returns QUEUED at once when the lane can't be served in time.

        Raises NotAcceptedError (InvalidMessage, KeyReusedError, OutboxFullError, StorageError: nothing happened),
        MessageRejected (the server refused it; it stands as a dead letter), SettingsError (from the call that opens the
        outbox). Everything else is a Receipt.
        """
        user = self._chat.user
        try:
            return self._chat._sender.send(
                user,
                self._chat._channel_id(channel),
                text,
                attachments=attachments,
                reply_to=reply_to,
                parent_id=parent_id,
                key=key,
                ttl=ttl,
                wait=wait,
            )
        finally:
            self._chat._parts.users.keep(user)

    def list(
        self, channel: str | Channel, *, limit: int | None = 100, since_seq: int | None = None, fresh: bool = False
    ) -> Iterator[Message]:
        """The newest `limit` messages (None: all), newest first, paged lazily; with `since_seq` (1 or more) those with
        a higher sequence number, oldest first. Raises NotSentError, OutcomeUnknownError, StatusError on the way."""
        if limit is not None and limit < 0:
            raise ValueError(f"limit must not be negative: {limit}")
        channel_id = self._chat._channel_id(channel)
        if since_seq is not None:
            return self._forward(channel_id, limit, since_seq, fresh)
        return self._backward(channel_id, limit, fresh)

    def _page(self, channel: str, fresh: bool, **where: str | int | None) -> MessagePage:
        call: Call[MessagePage] = self._chat._backend.list_messages(self._chat.user, channel, **where)  # type: ignore[arg-type]
        page = self._read(call, fresh)
        self._saw(call, page.messages)
        return page

    def _backward(self, channel: str, limit: int | None, fresh: bool) -> Iterator[Message]:
        given, before = 0, None
        while limit is None or given < limit:
            wanted = PAGE if limit is None else min(PAGE, limit - given)
            page = self._page(channel, fresh, limit=wanted, before=before)
            yield from reversed(page.messages)
            given += len(page.messages)
            if len(page.messages) < wanted:  # the server's hasMore is wrong when paging back
                return
            before = page.before

    def _forward(self, channel: str, limit: int | None, since: int, fresh: bool) -> Iterator[Message]:
        given = 0
        while limit is None or given < limit:
            wanted = PAGE if limit is None else min(PAGE, limit - given)
            page = self._page(channel, fresh, limit=wanted, since_seq=since)
            yield from page.messages
            given += len(page.messages)
            if len(page.messages) < wanted:
                return
            since = page.messages[-1].seq or since

    def get(self, channel: str | Channel, message: str, *, fresh: bool = False) -> Message:
        """One message. Raises NotFound."""
        call = self._chat._backend.get_message(self._chat.user, self._chat._channel_id(channel), message)
        try:
            found = self._read(call, fresh)
        except NotFound:
            self._seen.missing(self._chat.user, message)
            raise
        return self._saw(call, [found])[0]

    def edit(self, channel: str | Channel, message: str, text: str) -> Message:
        """Change the text of one's own message."""
        call = self._chat._backend.edit_message(self._chat.user, self._chat._channel_id(channel), message, text)
        return self._saw(call, [self._chat.call(call)])[0]

    def delete(self, channel: str | Channel, message: str) -> None:
        """Delete a message; doing it again does no harm."""
        self._chat.call(self._chat._backend.delete_message(self._chat.user, self._chat._channel_id(channel), message))
        self._seen.deleted(self._chat.user, message)

    def react(self, channel: str | Channel, message: str, emoji: str) -> None:
        """Add a reaction; doing it again does no harm."""
        self._chat.call(self._chat._backend.react(self._chat.user, self._chat._channel_id(channel), message, emoji))

    def unreact(self, channel: str | Channel, message: str, emoji: str) -> None:
        """Take a reaction back; doing it again does no harm."""
        self._chat.call(self._chat._backend.unreact(self._chat.user, self._chat._channel_id(channel), message, emoji))

    def mark_read(self, channel: str | Channel) -> int:
        """The whole channel is read; returns the sequence number up to which."""
        return self._chat.call(self._chat._backend.mark_read(self._chat.user, self._chat._channel_id(channel)))

    def search(
        self, query: str, *, channel: str | Channel | None = None, limit: int = 20, offset: int = 0, fresh: bool = False
    ) -> SearchPage:
        """Messages that hold `query` (1 to 500 characters), the newest first.

        In an outage (no answer, 5xx, 429, an open circuit), and while the feature "search" is off, the answer comes
        from the messages that this client has seen lately: those that hold all the words, in any case. Its `local` is
        True then. Raises InvalidArgument and whatever is no outage, such as Forbidden.
        """
        user = self._chat.user
        where = None if channel is None else self._chat._channel_id(channel)
        call = self._chat._backend.search(user, query, channel=where, limit=limit, offset=offset)

        def ask() -> SearchPage:
            page = self._chat.call(call, fresh=fresh)
            self._seen.found(user, page.hits)
            return page

        def look() -> SearchPage:
            return self._seen.search(user, query, channel=call.request.channel, limit=limit, offset=offset)

        return self._chat.features.run("search", ask, look)

    # ---- what was seen

    @property
    def _seen(self) -> Seen:
        return self._chat._parts.seen

    def _read(self, call: Call[T], fresh: bool) -> T:
        try:
            return self._chat.call(call, fresh=fresh)
        except Forbidden:  # no member any more
            self._seen.left(call.request.user, call.request.channel)
            raise

    def _saw(self, call: Call[Any], messages: Sequence[Message]) -> Sequence[Message]:
        self._seen.add(call.request.user, messages, channel=call.request.channel)
        return messages
