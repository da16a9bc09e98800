"""Histories, page by page, and what to do when there is no answer."""

from __future__ import annotations

import pytest

from chatsdk.core.chatsdk_backend import ChatSDKBackend
from chatsdk.core.errors import (
    CircuitOpenError,
    DeadlineExceeded,
    Forbidden,
    NotFound,
    NotSentError,
    RateLimited,
    ServerError,
    TokenUnavailableError,
    Unauthorized,
)
from chatsdk.realtime.backfill import History, again_in, is_final
from tests.realtime.channels import Chat, channel_id

C = channel_id(1)


def history() -> tuple[Chat, History]:
    chat = Chat()
    return chat, History(ChatSDKBackend(), "bot", chat.ask)


def all_after(seq: int, history: History) -> list[int]:
    """Page after page."""
    found: list[int] = []
    while True:
        page = history.after(C, seq)
        found += [message.seq or 0 for message in page.messages]
        if not page.more:
            return found
        seq = page.last


@pytest.mark.parametrize("count", [0, 1, 199, 200, 201, 202, 400, 401, 650])
@pytest.mark.parametrize("after", [0, 1, 150])
def test_every_message_after_a_seq(count: int, after: int) -> None:
    """From the start as well, for which the server has no question; each once, in order."""
    chat, pages = history()
    chat.send(C, *range(1, count + 1))
    assert all_after(after, pages) == list(range(after + 1, count + 1))


def test_holes_are_no_ends() -> None:
    """Thread replies and purged messages are in no page."""
    chat, pages = history()
    seqs = [seq for seq in range(1, 900) if seq % 7]
    chat.send(C, *seqs)
    assert all_after(0, pages) == seqs


def test_the_newest_seq() -> None:
    """0 for an empty channel."""
    chat, pages = history()
    assert pages.newest(C) == 0
    chat.send(C, 1, 2)
    chat.newest[C] = 5  # thread replies count
    assert pages.newest(C) == 5


def test_messages_without_seq_say_nothing() -> None:
    """None: this backend has no places."""
    chat, pages = history()
    chat.messages[C] = [{"id": "m1", "cid": C, "text": "x", "seq": None, "createdAt": "2026-11-22T10:00:00.000Z"}]
    chat.page = lambda channel, query: {"messages": chat.messages[C]}  # type: ignore[method-assign]
    assert pages.newest(C) is None


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (Forbidden("no", status=403), True),
        (NotFound("no", status=404), True),
        (Unauthorized("no", status=401), False),  # perhaps a server's bad moment (contract, 15.1)
        (RateLimited("no", status=429), False),
        (ServerError("no", status=500), False),
        (NotSentError("no"), False),
        (DeadlineExceeded("no"), False),
        (TokenUnavailableError("no"), False),
        (CircuitOpenError(circuit="api"), False),
        (ValueError("a mistake of ours"), True),
    ],
)
def test_what_is_final(error: Exception, final: bool) -> None:
    """What asking again would not change."""
    assert is_final(error) is final


def test_when_to_ask_again() -> None:
    """As the server says, or the circuit; never sooner than by back-off."""
    assert again_in(RateLimited("no", status=429, retry_after=9.0), 1, 0.5) == 9.0
    assert again_in(CircuitOpenError(circuit="api", retry_after=4.0), 1, 0.5) == 4.0
    assert again_in(NotSentError("no"), 1, 0.5) == 0.2
    assert again_in(NotSentError("no"), 100, 1.0) <= 37.5
