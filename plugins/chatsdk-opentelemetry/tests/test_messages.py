"""The spans of messages under way: each ends once, and there are never many."""

from __future__ import annotations

from itertools import count
from typing import Any

from chatsdk_opentelemetry.messages import MAX_AGE, MAX_OPEN, Messages
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext

numbers = count(1)


class Client:
    """Somebody who delivers."""


CLIENT: Any = Client()


def span() -> Span:
    """A span that is itself and no other."""
    return NonRecordingSpan(SpanContext(1, next(numbers), is_remote=False))


class Time:
    """A clock that is moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_delivered() -> None:
    """A message's span is found until the message is delivered, and handed out once to be ended."""
    messages, one = Messages(Time()), span()
    assert messages.add("k", one) is one
    assert messages.add("k", span()) is one
    assert messages.stored("k", CLIENT) is messages.find("k") is one
    assert messages.end("k") is one
    assert messages.end("k") is messages.find("k") is messages.stored("k", CLIENT) is None


def test_waiting_long() -> None:
    """After MAX_AGE the span is to be ended, once; its message's tries still find it; then its end ends nothing."""
    time, one = Time(), span()
    messages = Messages(time)
    messages.add("k", one, CLIENT)
    assert messages.overdue() == []
    time.now = MAX_AGE
    assert messages.overdue() == [one]
    assert messages.overdue() == []
    found = messages.find("k")
    assert found is not None
    assert found.get_span_context() == one.get_span_context()
    assert messages.end("k") is None


def test_never_stored() -> None:
    """A message that was refused is forgotten, and its span is never ended."""
    time = Time()
    messages = Messages(time)
    messages.add("k", span())
    assert messages.rest() == []
    messages.add("k", span())
    time.now = MAX_AGE
    assert messages.overdue() == []
    assert messages.find("k") is None


def test_bounded() -> None:
    """However many messages wait, MAX_OPEN spans are open and as many remembered."""
    messages = Messages(Time())
    ended = 0
    for number in range(3 * MAX_OPEN):
        messages.add(str(number), span(), CLIENT)
        ended += len(messages.overdue())
    assert ended == 2 * MAX_OPEN
    assert messages.find("0") is None
    assert messages.find(str(MAX_OPEN)) is not None
    assert len(messages.rest()) == MAX_OPEN
    assert messages.rest() == []


def test_a_closed_client() -> None:
    """Its messages' spans are to be ended, once, and no others'; their later tries still find them."""
    messages, mine, others, refused = Messages(Time()), span(), span(), span()
    other: Any = Client()
    messages.add("mine", mine)
    messages.add("others", others, other)
    messages.add("refused", refused)
    messages.stored("mine", CLIENT)
    assert messages.left_by(CLIENT) == [mine]
    assert messages.left_by(CLIENT) == []
    found = messages.find("mine")
    assert found is not None
    assert found.get_span_context() == mine.get_span_context()
    assert messages.rest() == [others]
