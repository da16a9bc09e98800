"""Errors by kind."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core.errors import ChatError, Forbidden, NotSentError, ServerError
from chatsdk.resilience.failures import KINDS, LONGEST_MESSAGE, OTHER, VARIETIES, Failures


def test_errors_of_a_kind_are_one_with_their_number() -> None:
    """Count, first and last time, and what is known of the last one; the last kind stands first."""
    failures = Failures()
    failures.add("messages.send", ServerError("busy", status=503), "c1", 10.0)
    failures.add("messages.list", Forbidden("no", status=403), "c2", 11.0)
    failures.add("messages.send", ServerError("still busy", status=503), "c3", 12.0)
    first, second = failures.all()
    assert first.to_dict() == {
        "operation": "messages.send",
        "error": "ServerError",
        "code": "server_error",
        "status": 503,
        "count": 2,
        "first_at": 10.0,
        "last_at": 12.0,
        "correlation_id": "c3",
        "message": "still busy",
    }
    assert (second.error, second.status, second.count) == ("Forbidden", 403, 1)
    json.dumps(first.to_dict())


def test_what_has_no_answer_has_no_status() -> None:
    """Unknown is not 0."""
    failures = Failures()
    failures.add("messages.send", NotSentError("nobody there"), "", 1.0)
    assert failures.all()[0].status is None


def test_a_strangers_error_is_its_class_only() -> None:
    """Nobody knows what it quotes."""
    failures = Failures()
    failures.add("messages.send", RuntimeError("canary"), "c", 1.0)
    assert failures.all()[0].error == "RuntimeError"
    assert "canary" not in repr(failures.all())


def test_the_kind_seen_longest_ago_goes_first() -> None:
    """There are never more than fifty."""
    failures = Failures()
    for number in range(KINDS):
        failures.add(f"operation{number}", NotSentError(), "", number)
    failures.add("operation0", NotSentError(), "", 100.0)
    failures.add("one more", NotSentError(), "", 101.0)
    known = [failure.operation for failure in failures.all()]
    assert len(known) == KINDS
    assert known[:2] == ["one more", "operation0"]
    assert "operation1" not in known


def test_a_server_that_sends_another_code_each_time() -> None:
    """It pushes no other error out."""
    failures = Failures()
    failures.add("channels.list", NotSentError(), "", 0.0)
    for number in range(1000):
        failures.add("messages.send", ServerError(status=500 + number % 90, code=f"code-{number}"), "", number)
    known = failures.all()
    assert len(known) == VARIETIES + 2
    assert sum(failure.count for failure in known) == 1001
    assert (known[0].code, known[0].status) == (OTHER, None)
    assert known[-1].operation == "channels.list"


@given(st.text(max_size=3000), st.text(max_size=300), st.text(max_size=300))
def test_foreign_text_is_short_and_harmless(message: str, code: str, correlation_id: str) -> None:
    """Whatever a server writes: one line, no control character, bounded."""
    failures = Failures()
    failures.add("messages.send", ChatError(message, code=code), correlation_id, 1.0)
    (failure,) = failures.all()
    assert len(failure.message) <= LONGEST_MESSAGE
    shown = failure.message + failure.code + failure.correlation_id
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in shown)
    assert len(shown.splitlines()) <= 1
