"""What a channel's history says over HTTP, page by page, and what to do when it says nothing. No thread, no clock.

Everything after a seq: `since_seq`, in order of seq. There is no such question for what comes after 0 ("from the start"
and "the newest" are the same to the server, contract 0.8), so that is put together: the newest page if it is not full;
else everything after 1, and the page before the end of that for the first message itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..core.backend import Backend
from ..core.backoff import Backoff
from ..core.errors import ChatError, CircuitOpenError, StatusError
from ..core.exchange import Call
from ..core.models import Message, MessagePage

PAGE = 200
"""Messages a page: the most that the server gives (contract, 7)."""

AGAIN = Backoff(tries=0, first=0.2, factor=2.0, cap=30.0, low=0.75, high=1.25)
"""After an answer that did not come or was none. `tries` does not apply."""

Ask = Callable[[Call[Any]], Any]
"""Has a call done, and gives what its answer says; may block, raises ChatError."""


class Page(NamedTuple):
    """Messages in order of seq. `more`: another page follows. `newest`: the channel's highest seq, 0: not said."""

    messages: Sequence[Message]
    more: bool
    newest: int

    @property
    def last(self) -> int:
        """The seq to go on from."""
        return max((message.seq or 0 for message in self.messages), default=0)


class History:
    """One user's view of the channels' histories."""

    def __init__(self, backend: Backend, user: str, ask: Ask) -> None:
        self._backend = backend
        self._user = user
        self._ask = ask

    def newest(self, channel: str) -> int | None:
        """The channel's highest seq, 0 where it is empty; None: its messages carry none. Raises ChatError."""
        page = self._page(channel, limit=1)
        return page.max_seq or max((message.seq or 0 for message in page.messages), default=0) or _unless(page.messages)

    def after(self, channel: str, seq: int) -> Page:
        """The messages after `seq`. Raises ChatError."""
        if seq > 0:
            page = self._page(channel, since_seq=seq)
            return Page(page.messages, page.has_more and bool(page.messages), page.max_seq)
        newest = self._page(channel)
        if not newest.has_more:
            return Page(newest.messages, False, newest.max_seq)
        page = self._page(channel, since_seq=1)
        first = self._page(channel, before=page.messages[-1].id).messages if page.messages else ()
        merged = {message.id: message for message in (*first, *page.messages)}
        messages = sorted(merged.values(), key=lambda message: message.seq or 0)
        return Page(messages, page.has_more and bool(page.messages), page.max_seq)

    def _page(self, channel: str, *, limit: int = PAGE, **bound: Any) -> MessagePage:
        call = self._backend.list_messages(self._user, channel, limit=limit, **bound)
        # not from a cache, nor from an answer that was on its way before: what it does not show counts as not there.
        # And one try: who asks has a back-off of his own
        page: MessagePage = self._ask(Call(call.request.replace(fresh=True, single_try=True), call.parse))
        return page


def _unless(messages: Sequence[Message]) -> int | None:
    return None if messages else 0


def is_final(error: BaseException) -> bool:
    """Asking again would bring the same. A 401 may be a server's bad moment (contract, 15.1)."""
    if isinstance(error, StatusError):
        return 400 <= error.status < 500 and error.status not in (401, 408, 429)
    return not isinstance(error, ChatError)


def again_in(error: BaseException, failures: int, random: float) -> float:
    """Seconds until the next try, after so many failures in a row; `random` in [0, 1)."""
    asked = error.retry_after if isinstance(error, (StatusError, CircuitOpenError)) else None
    return max(asked or 0.0, AGAIN.delay(failures, random))
