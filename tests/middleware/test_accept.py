"""Accept: what plugins made of a message can still be sent."""

from __future__ import annotations

from typing import Any

import pytest

from chatsdk.core.errors import InvalidMessage
from chatsdk.middleware.accept import MAX_TEXT, chatsdk_accept
from tests.pipeline.kit import send


def test_good_messages_pass() -> None:
    """Blanks, the longest text, other fields, and a message of another system."""
    for body in (
        {"text": " "},
        {"text": "x" * MAX_TEXT},
        {"text": "🎉" * (MAX_TEXT // 2)},
        {"ciphertext": "abc"},
        None,
    ):
        chatsdk_accept(send(body=body), {})
    chatsdk_accept(send(body={"text": "x", "clientMsgId": "k1"}), {})


@pytest.mark.parametrize(
    "body",
    [
        {"text": ""},
        {"text": "x" * (MAX_TEXT + 1)},
        {"text": "🎉" * (MAX_TEXT // 2 + 1)},
        {"text": "a\0b"},
        {"text": "a\ud800"},
        {"text": 5},
        {"text": None},
        {"text": "x", "extra": float("nan")},
        {"text": "x", "extra": object()},
        {"text": "x", "extra": {"\udc00": 1}},
        {"text": "x", "clientMsgId": "another"},
        "text",
        ["text"],
    ],
)
def test_bad_messages_are_refused(body: Any) -> None:
    """What the server answers with an error, or nobody can write as JSON, is refused while the caller hears of it."""
    with pytest.raises(InvalidMessage):
        chatsdk_accept(send(body=body), {})


def test_longest_text_is_a_setting() -> None:
    """Another chat system takes more, or less."""
    with pytest.raises(InvalidMessage):
        chatsdk_accept(send(body={"text": "long"}), {"max_text": 3})
    chatsdk_accept(send(body={"text": "x" * 20_000}), {"max_text": "65536"})
