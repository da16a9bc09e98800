"""Retry: what is tried again, how often, after how long, and when not."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from chatsdk.core.errors import (
    BadRequest,
    ChatError,
    CircuitOpenError,
    DeadlineExceeded,
    InvalidResponseError,
    NotSentError,
    OutcomeUnknownError,
    PluginError,
    RateLimited,
    ServerError,
    TokenExpiredError,
)
from chatsdk.core.events import RetryScheduled
from chatsdk.core.exchange import Request, Response
from chatsdk.middleware.retry import Retry, chatsdk_middleware
from chatsdk.plugin import Stage, errors
from tests.pipeline.kit import Client, FakeClock, Script, edit, read, send

OK = Response(status=200)


def make(**settings: Any) -> tuple[Retry, Client, FakeClock]:
    clock = FakeClock()
    client = Client(clock, **{"timeout": 1000.0, **settings})
    layer = chatsdk_middleware(client)
    assert layer.stage is Stage.RETRY
    return layer.call, client, clock  # type: ignore[return-value]


def tries(request: Request, error: BaseException, **settings: Any) -> int:
    """How often a request is tried when every try fails like this."""
    retry, _, _ = make(**settings)
    script = Script(error)
    with pytest.raises(type(error)):
        retry(request, script)
    assert [seen.attempt for seen in script.seen] == list(range(1, len(script.seen) + 1))
    return len(script.seen)


RETRYABLE = [
    NotSentError(),
    OutcomeUnknownError(),
    DeadlineExceeded(),
    InvalidResponseError(),
    RateLimited(retryable=True),
]
RETRYABLE += [ServerError(status=500, retryable=True), ServerError(status=503, retryable=True)]
FINAL = [BadRequest(status=400), TokenExpiredError(), CircuitOpenError(), PluginError(plugin="x")]


@pytest.mark.parametrize("error", RETRYABLE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("request_", [read(), send(), edit(repeatable=True)], ids=["read", "keyed", "repeatable"])
def test_what_does_no_harm_is_tried_five_times(request_: Request, error: ChatError) -> None:
    """Every retryable error, for every call that may be done twice."""
    assert tries(request_, error) == 5


@pytest.mark.parametrize("error", RETRYABLE, ids=lambda error: type(error).__name__)
def test_a_mutation_without_a_key_is_retried_only_if_it_was_not_sent(error: ChatError) -> None:
    """An edit that may have happened is not done again; one that certainly did not, three times."""
    assert tries(edit(), error) == (3 if isinstance(error, NotSentError) else 1)


@pytest.mark.parametrize("error", FINAL, ids=lambda error: type(error).__name__)
def test_what_can_not_help_is_not_retried(error: ChatError) -> None:
    """The error says that trying again is no use."""
    assert tries(read(), error) == 1


def test_stranger_s_exceptions_pass() -> None:
    """What is no ChatError is a bug or an interruption: it is not our business."""
    assert tries(read(), RuntimeError("bug")) == 1
    assert tries(read(), KeyboardInterrupt()) == 1


@pytest.mark.parametrize(
    ("preset", "error", "expected"),
    [
        ("standard", NotSentError(), 3),
        ("patient", NotSentError(), 5),
        ("patient", ServerError(status=500, retryable=True), 3),
    ],
)
def test_presets(preset: str, error: ChatError, expected: int) -> None:
    """The number of tries is the preset's."""
    assert tries(read(), error, retry=preset) == expected


def test_waits_grow_and_are_events() -> None:
    """100 ms x2 with jitter; each wait is announced with attempt, delay and error."""
    retry, client, clock = make()
    failed = NotSentError()
    retry(send(), Script(failed, failed, failed, OK))
    assert clock.waits == pytest.approx([0.125, 0.25, 0.5])  # jitter of 0 to 50 %, at a random number of 0.5
    scheduled = [event for event in client.events if isinstance(event, RetryScheduled)]
    assert [(event.attempt, event.delay) for event in scheduled] == [(n + 1, clock.waits[n]) for n in range(3)]
    assert scheduled[0].error is failed
    assert (scheduled[0].operation, scheduled[0].correlation_id, scheduled[0].key) == ("messages.send", "corr-1", "k1")


def test_retry_after_is_obeyed() -> None:
    """The server's wish wins over a shorter back-off."""
    retry, _, clock = make()
    retry(read(), Script(RateLimited(retry_after=7.0, retryable=True), OK))
    assert clock.waits == [7.0]
    retry(read(), Script(RateLimited(retry_after=0.0, retryable=True), OK))
    assert clock.waits[1] == pytest.approx(0.125)


def test_retry_after_that_does_not_fit_surfaces() -> None:
    """Waiting in vain helps nobody: the error comes at once, with the value."""
    retry, client, clock = make(timeout=5.0)
    with pytest.raises(RateLimited) as caught:
        retry(read(), Script(RateLimited(retry_after=7.0, retryable=True)))
    assert (caught.value.retry_after, clock.waits, client.events) == (7.0, [], [])


def test_deadline_is_one_for_all_tries() -> None:
    """Set here if the caller set none, the same for every try, and never waited past."""
    retry, _, clock = make(timeout=0.5)
    script = Script(NotSentError())
    with pytest.raises(NotSentError):
        retry(read(), script)
    assert {seen.deadline for seen in script.seen} == {1000.5}
    assert clock.now < 1000.5
    mine = Script(NotSentError())
    with pytest.raises(NotSentError):
        retry(read(deadline=clock.now + 0.1), mine)
    assert len(mine.seen) == 1


def test_outbox_rows_get_one_try() -> None:
    """For them the lane is the retry; tries are never multiplied. They still get a deadline."""
    retry, client, _ = make()
    script = Script(NotSentError())
    with pytest.raises(NotSentError):
        retry(send(single_try=True), script)
    assert (len(script.seen), client.events) == (1, [])
    assert script.seen[0].deadline is not None


def test_budget_ends_retries_in_an_outage() -> None:
    """When everything fails retries run out, and calls fail at their first error; successes earn them back."""
    retry, client, _ = make()

    def run() -> int:
        script = Script(NotSentError())
        with pytest.raises(NotSentError):
            retry(read(), script)
        return len(script.seen)

    assert sum(run() for _ in range(100)) == 100 + 100  # each call once, and a hundred retries
    assert run() == 1
    for _ in range(5):
        retry(read(), Script(OK))
    assert client.budget.tokens == 5
    assert run() == 2


def test_a_success_after_retries_earns_nothing() -> None:
    """Only a clean success fills the budget."""
    retry, client, _ = make()
    retry(read(), Script(NotSentError(), OK))
    assert client.budget.tokens == 495


def test_closing_ends_the_wait() -> None:
    """A client that closes gets the last error now, not after the back-off."""
    client = Client(retry_first=60.0, timeout=1000.0)
    retry = chatsdk_middleware(client).call
    raised: list[BaseException] = []
    script = Script(NotSentError("last"))

    def run() -> None:
        try:
            retry(read(), script)
        except errors.NotSentError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    client.closing.set()
    thread.join(10)
    assert [str(error).startswith("last") for error in raised] == [True]
    assert len(script.seen) == 1
