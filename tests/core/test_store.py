"""The words and values that every outbox store speaks in."""

from __future__ import annotations

import json

from chatsdk.core.exchange import Request
from chatsdk.core.store import Lane, Reason, Row, State

REQUEST = Request(operation="messages.send", method="POST", path="/", user="u", channel="c", key="k")


def test_words_are_the_same_everywhere() -> None:
    """A state or a reason is its word: in text, in JSON, compared with text, and read from it."""
    for words in (State, Reason):
        for word in words:
            assert word == str(word) == f"{word}" == json.loads(json.dumps(word)) == word.value
            assert words(word.value) is word
    assert [str(state) for state in State] == ["QUEUED", "SENT", "DEAD"]


def test_a_row_knows_its_lane_and_key() -> None:
    """A lane is (user, channel); the key is the request's."""
    row = Row(id=1, request=REQUEST, state=State.QUEUED, created_at=1.0, expires_at=2.0)
    assert row.lane == Lane("u", "c") == ("u", "c")
    assert row.key == "k"
    assert Row(id=1, request=REQUEST.replace(key=None), state=State.DEAD, created_at=1.0, expires_at=2.0).key == ""
