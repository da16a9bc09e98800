"""The tree of errors: what each says of itself, and that it survives being pickled."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import pytest

from chatsdk.core import errors
from chatsdk.core.errors import ChatError
from chatsdk.core.exchange import Response

CLASSES = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, ChatError)]

# class: (bases that other code catches, retryable, maybe_done)
FACTS: dict[type[ChatError], tuple[tuple[type[BaseException], ...], bool, bool]] = {
    errors.ChatError: ((Exception,), False, False),
    errors.NotAcceptedError: ((ChatError,), False, False),
    errors.InvalidMessage: ((errors.NotAcceptedError, ValueError), False, False),
    errors.KeyReusedError: ((errors.NotAcceptedError,), False, False),
    errors.OutboxFullError: ((errors.NotAcceptedError,), False, False),
    errors.StorageError: ((errors.NotAcceptedError,), False, False),
    errors.MessageRejected: ((ChatError,), False, False),
    errors.NotSentError: ((ChatError, ConnectionError), True, False),
    errors.ConnectTimeoutError: ((errors.NotSentError, TimeoutError), True, False),
    errors.CircuitOpenError: ((errors.NotSentError,), False, False),
    errors.TokenUnavailableError: ((errors.NotSentError,), True, False),
    errors.OutcomeUnknownError: ((ChatError, ConnectionError), True, True),
    errors.DeadlineExceeded: ((errors.OutcomeUnknownError, TimeoutError), True, True),
    errors.CaptivePortalError: ((errors.OutcomeUnknownError,), True, True),
    errors.InvalidResponseError: ((errors.OutcomeUnknownError,), True, True),
    errors.StatusError: ((ChatError,), False, False),
    errors.BadRequest: ((errors.StatusError,), False, False),
    errors.Unauthorized: ((errors.StatusError,), False, False),
    errors.Forbidden: ((errors.StatusError,), False, False),
    errors.NotFound: ((errors.StatusError,), False, False),
    errors.Conflict: ((errors.StatusError,), False, False),
    errors.TooLarge: ((errors.StatusError,), False, False),
    errors.RateLimited: ((errors.StatusError,), True, False),
    errors.ServerError: ((errors.StatusError,), True, True),
    errors.TokenExpiredError: ((ChatError,), False, False),
    errors.ConnectionFailedError: ((ChatError, ConnectionError), False, False),
    errors.InvalidArgument: ((ChatError, ValueError), False, False),
    errors.SettingsError: ((ChatError, ValueError), False, False),
    errors.PluginError: ((ChatError,), False, False),
}


def test_the_table_knows_every_error() -> None:
    """No error is without its row here, nor without its line in the module's tree."""
    assert set(FACTS) == set(CLASSES)
    tree = errors.__doc__ or ""
    assert [cls.__name__ for cls in CLASSES if cls.__name__ not in tree] == []


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_says_what_happened_and_what_to_do(cls: type[ChatError]) -> None:
    """Its class tells what code may catch it, whether trying again helps, and whether the call may have happened."""
    bases, retryable, maybe_done = FACTS[cls]
    error = cls("it went wrong", request_id="r-1")
    assert isinstance(error, bases)
    assert (error.retryable, error.maybe_done) == (retryable, maybe_done)
    assert error.code
    assert error.message == "it went wrong"
    assert cls is ChatError or cls is errors.StatusError or error.hint
    assert str(error).startswith("it went wrong")
    assert error.hint in str(error)
    assert cls().message


MADE: list[ChatError] = [
    *(cls("m", code="c", hint="h", retryable=True, request_id="r") for cls in CLASSES),
    errors.CircuitOpenError(circuit="api", retry_after=2.5, retry_at=1000.0),
    errors.RateLimited("slow", status=429, retry_after=3.0, response=Response(status=429, body={"error": {"x": [1]}})),
    errors.PluginError(plugin="audit"),
    errors.StorageError("full", plugin="audit"),
]


@pytest.mark.parametrize("error", MADE, ids=lambda error: type(error).__name__)
def test_all_pickle_and_copy(error: ChatError) -> None:
    """In another process an error is the same one: class, text and every fact."""
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert other.args == error.args
        assert str(other) == str(error)
        assert vars(other) == vars(error)


def test_notes_do_not_break_pickling() -> None:
    """An error that somebody added a note to still pickles."""
    error = errors.NotFound("m")
    error.add_note("while looking")
    assert pickle.loads(pickle.dumps(error)).message == "m"


def test_a_rejected_message_pickles_without_its_client() -> None:
    """The live receipt stays; what it says travels."""

    class Receipt:
        def to_dict(self) -> dict[str, Any]:
            return {"id": 7, "state": "DEAD"}

        def __reduce__(self) -> Any:
            raise TypeError("a receipt holds sockets")

    error = pickle.loads(pickle.dumps(errors.MessageRejected("no", receipt=Receipt())))
    assert error.receipt == {"id": 7, "state": "DEAD"}


def test_what_is_stored_of_an_error_is_json() -> None:
    """The outbox keeps type, code, text, hint and status; not the answer itself."""
    error = errors.RateLimited("slow", status=429, response=Response(status=429, body={"secret": 1}))
    facts = json.loads(json.dumps(error.to_dict()))
    assert facts["type"] == "RateLimited"
    assert (facts["code"], facts["message"], facts["status"]) == ("rate_limited", "slow", 429)
    assert "secret" not in json.dumps(facts)
    assert "status" not in errors.NotSentError("x").to_dict()
