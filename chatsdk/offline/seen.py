"""The messages that this client has seen, to search in while the server's search cannot be had. In memory only.

Seen is what lists, gets, edits and searches brought, what of one's own was delivered, and what came by realtime: each
user's own, nobody finds what another one saw. An edit takes the place of what was there unless it is older, a deleted
message is never found again, and neither is a channel that the user left.

Rules.
1. Bounded: at most `MESSAGES`, that take at most `BYTES`, beside what came in the last moment and was not looked at;
   what was seen the longest time ago goes first.
2. Realtime brings many that nobody will ever search. So `heard` does no more than put an event into a short queue; what
   is in there is weighed a few times a second, and read (made a model of) when somebody searches. Of more than `CAME`
   messages within `LOOK` seconds the rest is not remembered: in a flood, keeping each until the next one pushes it out
   would cost more than all else here, and nobody reads 4,000 messages a second.
3. Deletions are remembered for themselves: a list that was asked for before one may come after it.
4. A forked child begins with nothing: it does not hear what the parent hears, so it would find what was deleted since.
"""

from __future__ import annotations

import marshal
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from sys import getsizeof
from typing import TYPE_CHECKING

from ..core.models import Message, SearchHit, SearchPage

if TYPE_CHECKING:  # a process that only sends has no use for them
    from ..core.realtime_events import MessageReceived, MessageUpdated

MESSAGES = 2000
"""Twenty pages of a channel, or the last screens of a few dozen; a search through them takes a few milliseconds, and
what was only heard so far is read within 60."""

BYTES = 4 * 2**20
"""About as the server's JSON has them: 2 kB a message, where one of the contract's takes 1.2. In memory several times
as much, before they are read."""

CAME = 1024
LOOK = 0.25
"""Messages that wait to be looked at, at most, and seconds in which that is done once: five pages of a backfill."""

DELETED = 10_000
"""Deletions that are remembered."""

_HIT = 400
"""Bytes of a hit without its text, about."""

_Key = tuple[str, str]


class _Kept:
    """One message of one user: as it came, or read."""

    __slots__ = ("at", "changed", "channel", "event", "folded", "hit", "weight")

    def __init__(self, channel: str, weight: int, at: float = 0.0, event: MessageReceived | None = None) -> None:
        self.channel = channel
        self.weight = weight
        self.at = at
        self.event = event
        self.hit: SearchHit | None = None
        self.folded = ""
        self.changed: datetime | None = None

    def read(self) -> None:
        """Make of an event what can be searched; nothing, if it is not to be found or cannot be read."""
        event = self.event
        if event is not None:
            with suppress(Exception):  # a backend's reader, on what anybody sent: then it is not found
                self.take(event.message)
            self.event = None

    def take(self, message: Message) -> None:
        """What a message says."""
        if not message.deleted and message.text:
            self.hit = _as_hit(message, self.channel)
            self.folded = fold(message.text)
            self.changed = message.updated_at or message.created_at

    @property
    def when(self) -> float:
        """Unix time: of the message, or of when it was seen, where it does not say."""
        hit = self.hit
        return self.at if hit is None or hit.created_at is None else hit.created_at.timestamp()


class Seen:
    """Thread-safe. `user` is always the one on whose behalf a message was seen."""

    def __init__(self, *, most: int = MESSAGES, most_bytes: int = BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self.after_fork()

    # ---- what is seen

    def heard(self, event: MessageReceived) -> None:
        """Realtime brought a message. Called for each, in the thread of its handler."""
        at = event.at
        if (at >= self._due or at < self._looked) and self._lock.acquire(blocking=False):  # else somebody looks
            try:
                self._look(at)
            finally:
                self._lock.release()
        if len(self._came) < CAME:
            self._came.append(event)

    def changed(self, event: MessageUpdated) -> None:
        """Realtime told an edit; one that brings no text (a pin, a preview) changes nothing here."""
        with suppress(Exception):  # see `_Kept.read`
            self.add(event.user, [event.message], channel=event.channel, at=event.at)

    def add(self, user: str, messages: Iterable[Message], *, channel: str = "", at: float = 0.0) -> None:
        """An answer brought these. channel: for those that do not say theirs; at: Unix time, likewise."""
        with self._lock:
            self._look()
            for message in messages:
                if message.deleted:
                    self._delete(user, message.id)
                elif message.text:
                    kept = _Kept(message.channel_id or channel, _weight(message.text), at)
                    kept.take(message)
                    self._keep(_key(user, message.id), kept)
            self._shrink()

    def found(self, user: str, hits: Iterable[SearchHit]) -> None:
        """The server's search brought these. It may lag behind, so what is known already stays as it is."""
        with self._lock:
            self._look()
            for hit in hits:
                if hit.text and _key(user, hit.message_id) not in self._kept:
                    kept = _Kept(hit.channel_id, _weight(hit.text))
                    kept.hit, kept.folded = _plain(hit), fold(hit.text)
                    self._keep(_key(user, hit.message_id), kept)
            self._shrink()

    # ---- what is not to be found any more

    def deleted(self, user: str, message: str) -> None:
        """A message was deleted; no other user finds it any more, either."""
        with self._lock:
            self._delete(user, message)

    def missing(self, user: str, message: str) -> None:
        """The server says that there is none. Not for ever: another channel may have been asked for it."""
        with self._lock:
            self._look()
            self._drop(_key(user, message))

    def left(self, user: str, channel: str) -> None:
        """A channel is no longer one of the user's."""
        with self._lock:
            self._look()
            for key in [key for key, kept in self._kept.items() if key[0] == user and kept.channel == channel]:
                self._drop(key)

    # ---- searching

    def search(self, user: str, query: str, *, channel: str = "", limit: int, offset: int) -> SearchPage:
        """The user's messages that hold every word of `query`, in any case, also inside of words; the newest first.
        channel: only of that one."""
        with self._lock:
            self._look()
            mine = [
                kept
                for key, kept in self._kept.items()
                if key[0] == user and key[1] not in self._deleted and (not channel or kept.channel == channel)
            ]
        words = fold(query).split()
        hits: list[tuple[float, int, SearchHit]] = []
        for rank, kept in enumerate(mine):
            kept.read()
            hit = kept.hit
            if hit is not None and words and all(word in kept.folded for word in words):
                hits.append((kept.when, rank, hit))
        hits.sort(key=lambda each: each[:2], reverse=True)
        return SearchPage(
            hits=tuple(hit for _, _, hit in hits[offset : offset + limit]),
            query=query,
            total=len(hits),
            offset=offset,
            limit=limit,
            local=True,
        )

    def __len__(self) -> int:
        with self._lock:
            self._look()
            return len(self._kept)

    def after_fork(self) -> None:
        """Nothing was seen yet."""
        self._lock = threading.Lock()
        self._came: deque[MessageReceived] = deque()
        self._looked = self._due = 0.0
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()  # under the lock, as is all below; seen last is last
        self._bytes = 0
        self._deleted: OrderedDict[str, None] = OrderedDict()

    # ---- with the lock held

    def _look(self, now: float | None = None) -> None:
        """Take in what came. now: Unix time."""
        if now is not None:
            self._looked, self._due = now, now + LOOK
        came = self._came
        for _ in range(len(came)):
            event = came.popleft()  # by nobody else: the lock is held
            if event.message_id is None:
                continue
            try:
                weight = len(marshal.dumps(event.raw))  # a quarter of the time of JSON; nothing is ever loaded
            except ValueError:  # too deep, or some other chat system's, and no JSON
                continue
            self._keep(_key(event.user, event.message_id), _Kept(event.channel, weight, event.at, event))
        self._shrink()

    def _keep(self, key: _Key, kept: _Kept) -> None:
        known = self._kept.get(key)
        if known is not None:
            known.read()
            kept.read()
            if _is_older(kept, known):
                self._kept.move_to_end(key)
                return
            self._bytes -= known.weight
        self._kept[key] = kept
        self._kept.move_to_end(key)
        self._bytes += kept.weight

    def _delete(self, user: str, message: str) -> None:
        key = _key(user, message)
        self._drop(key)
        self._deleted[key[1]] = None
        if len(self._deleted) > DELETED:
            forgotten = {self._deleted.popitem(last=False)[0] for _ in range(DELETED // 2)}
            for key in [key for key in self._kept if key[1] in forgotten]:
                self._drop(key)

    def _drop(self, key: _Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._bytes -= kept.weight

    def _shrink(self) -> None:
        while self._kept and (len(self._kept) > self._most or self._bytes > self._most_bytes):
            self._bytes -= self._kept.popitem(last=False)[1].weight


def _key(user: str, message: str) -> _Key:
    return user, message.lower()  # a UUID may be written either way


def fold(text: str) -> str:
    """A text as it is compared: without case, and of one form where the same can be written in several."""
    if text.isascii():
        return text.lower()
    from unicodedata import normalize

    return normalize("NFKC", normalize("NFKC", text).casefold())


def _is_older(one: _Kept, other: _Kept) -> bool:
    return one.changed is not None and other.changed is not None and one.changed < other.changed


def _weight(text: str) -> int:
    return _HIT + 2 * getsizeof(text)  # as it is, and as it is compared


def _as_hit(message: Message, channel: str) -> SearchHit:
    return SearchHit(
        message_id=message.id,
        channel_id=channel,
        user_id=message.user_id,
        user_name=None if message.user is None else message.user.name,
        text=message.text,
        highlighted=message.text,
        created_at=message.created_at,
    )


def _plain(hit: SearchHit) -> SearchHit:
    """Without what belongs to the search that found it."""
    return SearchHit(
        message_id=hit.message_id,
        channel_id=hit.channel_id,
        channel_name=hit.channel_name,
        user_id=hit.user_id,
        user_name=hit.user_name,
        text=hit.text,
        highlighted=hit.text,
        created_at=hit.created_at,
    )
