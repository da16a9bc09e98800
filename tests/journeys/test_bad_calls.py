"""Whatever is passed in, the answer is a typed error that says what to do, and nothing was sent or stored."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chatsdk import (
    Attachment,
    ChatClient,
    ChatError,
    InvalidMessage,
    KeyReusedError,
    MessageRejected,
    NotAcceptedError,
    Reason,
    State,
)
from chatsdk.devserver.process import DevServer


class _Thing:
    """Something that nobody expects, shown the same in each run."""

    def __repr__(self) -> str:
        return "a thing"


NOTHING_LIKE_IT = _Thing()

PILE = "\U0001f4a9"  # two UTF-16 units
BAD_IDS: list[Any] = [
    None,
    5,
    b"x",
    "",
    "no-such-channel",
    "../../users",
    "a/b",
    "a\r\nX-Evil: 1",
    "a\0b",
    "\ud800",
    "x" * 10_000,
    ["x"],
    {},
]
BAD_TEXTS: list[Any] = [
    None,
    5,
    b"bytes",
    "",
    "nul \0 here",
    "\ud800",
    "x" * 10_001,
    PILE * 5_001,
    ["x"],
    NOTHING_LIKE_IT,
]
BAD_TIMES: list[Any] = ["soon", -1, math.nan, [1], b"1", NOTHING_LIKE_IT, {}]


@pytest.fixture
def chat(connect: Callable[..., ChatClient], server: DevServer, channel: str) -> Iterator[ChatClient]:
    """A client that has sent before, after whose test no thread is missing and nothing but that was stored or sent."""
    made = connect()
    made.send(channel, "before")
    threads = own_threads()
    sent = server.state()["attempts"]
    yield made
    assert threads <= own_threads(), "a thread died"
    assert made.outbox.stats().accepted == 1
    assert server.state()["attempts"] == sent
    assert made.send(channel, "after").state is State.SENT


def own_threads() -> set[str]:
    """The SDK's threads."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("chatsdk")}


def refused(error: type[ChatError], act: Callable[[], object]) -> ChatError:
    """It raises this error, which says what to do."""
    with pytest.raises(error) as caught:
        act()
    assert caught.value.hint
    assert caught.value.code
    return caught.value


@pytest.mark.parametrize("bad", BAD_IDS, ids=lambda bad: repr(bad)[:20])
def test_channel_that_is_none(bad: Any, chat: ChatClient) -> None:
    """As the channel of a send, of a direct call, and as a message's id."""
    refused(InvalidMessage, lambda: chat.send(bad, "text"))
    for call in (
        lambda: chat.channels.get(bad),
        lambda: chat.messages.get(bad, bad),
        lambda: list(chat.messages.list(bad)),
        lambda: chat.messages.edit(bad, bad, "text"),
        lambda: chat.messages.mark_read(bad),
    ):
        refused(ChatError, call)


@pytest.mark.parametrize("bad", BAD_TEXTS, ids=lambda bad: repr(bad)[:20])
def test_text_that_is_none(bad: Any, chat: ChatClient, channel: str) -> None:
    """Wrong types, nothing, too long in UTF-16 units, U+0000, lone surrogates."""
    refused(InvalidMessage, lambda: chat.send(channel, bad))
    refused(ChatError, lambda: chat.messages.edit(channel, channel, bad))


@pytest.mark.parametrize("bad", [5, b"x", "", "\ud800", ["x"]], ids=repr)
def test_key_that_is_none(bad: Any, chat: ChatClient, channel: str) -> None:
    """A key is text."""
    refused(InvalidMessage, lambda: chat.send(channel, "text", key=bad))


@pytest.mark.parametrize("bad", BAD_TIMES, ids=repr)
def test_time_that_is_none(bad: Any, chat: ChatClient, channel: str) -> None:
    """As `wait`, and as `ttl`, which may be neither nothing nor longer than the server keeps keys."""
    refused(InvalidMessage, lambda: chat.send(channel, "text", wait=bad))
    refused(InvalidMessage, lambda: chat.send(channel, "text", ttl=bad))
    for never in (0, True, math.inf, 1e12):
        refused(InvalidMessage, lambda never=never: chat.send(channel, "text", ttl=never))  # type: ignore[misc]


@pytest.mark.parametrize("bad", [5, "report.pdf", ["report.pdf"], [None], [5], {"url": "x"}], ids=repr)
def test_attachment_that_is_none(bad: Any, chat: ChatClient, channel: str) -> None:
    """Paths and other things are no attachments."""
    refused(InvalidMessage, lambda: chat.send(channel, "text", attachments=bad))


@pytest.mark.parametrize("bad", ["", "x", "a/b", "a\r\nb", 5, b"x"], ids=repr)
def test_message_id_that_is_none(bad: Any, chat: ChatClient, channel: str) -> None:
    """As what a message replies to."""
    refused(InvalidMessage, lambda: chat.send(channel, "text", reply_to=bad))
    refused(InvalidMessage, lambda: chat.send(channel, "text", parent_id=bad))


def test_attachment_with_a_bad_address(chat: ChatClient, channel: str) -> None:
    """An address that is none, and a type that no server knows."""
    refused(ChatError, lambda: chat.send(channel, "text", attachments=[Attachment(type="file", url="a b\r\n")]))
    refused(ChatError, lambda: chat.send(channel, "text", attachments=[Attachment(type="x", url="http://h/a")]))


@pytest.mark.parametrize("bad", [None, 5, "", "a\r\nb", "a\0b", "\ud800", "x" * 256], ids=lambda bad: repr(bad)[:20])
def test_user_that_is_none(bad: Any, chat: ChatClient, server: DevServer) -> None:
    """Of a view, and of a new session."""
    refused(ChatError, lambda: chat.as_user(bad, token=server.tokens["bob"]))
    refused(ChatError, lambda: chat.connect_user(bad, server.tokens["bob"]))


@pytest.mark.parametrize("bad", [5, b"x", "a\r\nX-Evil: 1", "two words", "\u2603", NOTHING_LIKE_IT], ids=repr)
def test_token_that_is_none(bad: Any, chat: ChatClient, channel: str) -> None:
    """It is refused before any header is made of it, and never shown."""
    error = refused(ChatError, lambda: chat.as_user("bob", token=bad))
    refused(ChatError, lambda: chat.connect_user("alice", bad))
    assert "Evil" not in f"{error!r} {error}"


def test_events_and_handlers_that_are_none(chat: ChatClient) -> None:
    """Names and classes that are no events are refused; what can't be called is refused when it is given."""
    senseless: list[Any] = ["message:snet", 5, None, dict]
    for bad in senseless:
        with pytest.raises(ValueError):
            chat.on(bad, print)
    with pytest.raises((TypeError, ValueError)):
        chat.on("message:sent", 5)  # type: ignore[call-overload]


def test_outbox_ids_that_are_none(chat: ChatClient) -> None:
    """Unknown rows are NotFound, and touch nothing."""
    for bad in (-1, 10**30, "x", "", "a/b", "00000000-0000-4000-8000-000000000000", None, 1.5):
        refused(ChatError, lambda bad=bad: chat.outbox.get(bad))  # type: ignore[misc]
        assert chat.outbox.retry([bad]) == 0  # type: ignore[list-item]
        assert chat.outbox.discard([bad]) == 0  # type: ignore[list-item]


@pytest.mark.parametrize("text", ["x" * 10_000, PILE * 5_000, " ", "a\nb\tc\x01", "\u202e", "<b>&amp;", "'; --"])
def test_odd_text_arrives_as_it_was(
    text: str, connect: Callable[..., ChatClient], channel: str, texts: Callable[[str], list[str]]
) -> None:
    """What the contract allows is delivered unchanged."""
    receipt = connect().send(channel, text)
    assert receipt.state is State.SENT
    assert receipt.message is not None
    assert receipt.message.text == text
    assert texts(channel) == [text]


def test_key_that_is_used_again_with_another_body(
    connect: Callable[..., ChatClient], channel: str, texts: Callable[[str], list[str]]
) -> None:
    """The same key and body: the same receipt. Another body: refused, and nothing happened."""
    chat = connect()
    first = chat.send(channel, "paid 5", key="order 1")
    again = chat.send(channel, "paid 5", key="order 1")
    assert (again.id, again.key, again.state) == (first.id, first.key, State.SENT)
    refused(KeyReusedError, lambda: chat.send(channel, "paid 6", key="order 1"))
    assert texts(channel) == ["paid 5"]
    assert chat.outbox.stats().accepted == 1


def test_message_that_the_server_refuses_stands_as_a_dead_letter(
    connect: Callable[..., ChatClient], server: DevServer, texts: Callable[[str], list[str]]
) -> None:
    """`send` raises, the receipt shows it, the lane goes on, and it is counted."""
    chat = connect()
    foreign = server.channel("bob")
    error = refused(MessageRejected, lambda: chat.send(foreign, "not a member"))
    receipt = error.receipt  # type: ignore[attr-defined]
    assert (receipt.state, receipt.reason) == (State.DEAD, Reason.REJECTED)
    assert [each.id for each in chat.outbox.dead()] == [receipt.id]
    assert texts(foreign) == []
    assert chat.outbox.discard() == 1
    stats = chat.outbox.stats()
    assert (stats.accepted, stats.discarded, stats.dead) == (1, 1, 0)


def test_full_outbox_refuses_before_it_accepts(
    connect: Callable[..., ChatClient], server: DevServer, channel: str, texts: Callable[[str], list[str]]
) -> None:
    """What was accepted before is delivered; what was refused is not there."""
    server.faults("status", operation="send", status=503)
    chat = connect(max_pending=5)
    for n in range(5):
        chat.send(channel, f"{n}", wait=0)
    error = refused(NotAcceptedError, lambda: chat.send(channel, "one too many", wait=0))
    assert error.code == "outbox_full"
    server.clear_faults()
    chat.circuits["api"].reset()
    chat.outbox.flush(10)
    assert texts(channel) == [f"{n}" for n in range(5)]
