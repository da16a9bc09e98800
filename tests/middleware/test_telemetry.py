"""Telemetry: figures, correlation ids and records, without a secret in them."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from chatsdk.core.errors import CircuitOpenError, Forbidden, NotFound, NotSentError, ServerError
from chatsdk.core.events import (
    CircuitStateChanged,
    MessageFailed,
    MessagePermanentFailure,
    MessageSent,
    RetryScheduled,
)
from chatsdk.core.exchange import CallNext, Request, Response
from chatsdk.middleware.telemetry import chatsdk_event, chatsdk_middleware
from chatsdk.pipeline.registry import Registry
from chatsdk.plugin import Stage
from tests.pipeline.kit import Client, FakeClock, Script, read, send

OK = Response(status=200)


def make() -> tuple[Any, Client, FakeClock]:
    clock = FakeClock()
    client = Client(clock)
    layer = chatsdk_middleware(client)
    assert layer.stage is Stage.TELEMETRY
    return layer.call, client, clock


def test_every_call_has_a_correlation_id() -> None:
    """One is made where there is none, another one each time; a given one stays."""
    telemetry, client, _ = make()
    numbers = iter([0.1, 0.2, 0.3, 0.4])
    client.random = lambda: next(numbers)  # type: ignore[method-assign]
    script = Script(OK)
    telemetry(read(), script)
    telemetry(read(), script)
    telemetry(send(), script)
    first, second, given = (request.correlation_id for request in script.seen)
    assert first != second
    assert len(first) == 28
    assert given == "corr-1"


def test_calls_are_counted_and_timed() -> None:
    """Latency of what went to the server, errors by type, and the time of the last good answer."""
    telemetry, client, clock = make()

    def slow(request: Request) -> Response:
        assert client.metrics.value("active_requests") == 1
        clock.now += 0.25
        return OK

    telemetry(read(), slow)
    assert client.metrics.last_success == clock.now
    for error in (NotFound(status=404), CircuitOpenError()):
        with pytest.raises(type(error)):
            telemetry(read(), Script(error))
    telemetry(read(), Script(Response(status=200, from_cache=True)))
    snapshot = client.metrics.snapshot()
    assert snapshot["request_latency_ms"]["sum"] == 250.0
    assert snapshot["request_latency_ms"]["count"] == 2  # an open circuit and the cache ask nothing of the server
    assert snapshot["client_http_errors_by_type"] == {"NotFound": 1, "CircuitOpenError": 1}
    assert snapshot["active_requests"] == 0


def test_events_are_counted() -> None:
    """Retries, deliveries and circuits, by the seeds' names."""
    client = Client()
    message: dict[str, Any] = {"id": 1, "key": "k", "user": "alice", "channel": "c"}
    client.circuits["api"].force_open()
    for event in (
        RetryScheduled(operation="x", attempt=1, delay=1),
        MessageSent(**message, state="SENT"),
        MessageFailed(**message, state="QUEUED"),
        MessagePermanentFailure(**message, state="DEAD"),
        CircuitStateChanged(circuit="api", old="closed", new="open"),
    ):
        chatsdk_event(client, event)
    snapshot = client.metrics.snapshot()
    assert {name: snapshot[name] for name in snapshot if name.endswith("_total") or name == "open_circuits"} == {
        "client_http_errors_total": 0,
        "sync_failures_total": 2,
        "sync_success_total": 1,
        "circuit_breaker_opens_total": 1,
        "retry_attempts_total": 1,
        "fallbacks_used_total": 0,
        "open_circuits": 1,
    }
    client.circuits["api"].reset()
    chatsdk_event(client, CircuitStateChanged(circuit="api", old="open", new="closed"))
    assert client.metrics.value("open_circuits") == 0


def test_an_outage_is_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    """One when it begins and one when it ends, however many calls failed; a 404 is none."""
    caplog.set_level(logging.INFO, logger="chatsdk")
    telemetry, _, clock = make()
    for error in (NotFound(status=404), NotSentError(), ServerError(status=503), NotSentError()):
        clock.now += 1
        with pytest.raises(type(error)):
            telemetry(send(), Script(error))
    telemetry(send(), Script(Response(status=200, from_cache=True)))
    telemetry(send(), Script(OK))
    telemetry(send(), Script(OK))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "NotSentError" in lines[0]
    assert "after 2.0 s, 3 calls failed (1 operation: messages.send)" in lines[1]


def test_sends_that_fail_while_reads_answer_are_two_lines(caplog: pytest.LogCaptureFixture) -> None:
    """What answers all the time does not end the outage of what fails, and the lines carry correlation ids."""
    caplog.set_level(logging.INFO, logger="chatsdk")
    telemetry, _, clock = make()
    for _ in range(50):
        clock.now += 1
        with pytest.raises(ServerError):
            telemetry(send(), Script(ServerError(status=503)))
        telemetry(read(), Script(OK))
    telemetry(send(), Script(OK))
    assert [record.getMessage().partition(" ")[0] for record in caplog.records] == ["messages.send", "the"]
    assert all(record.correlation_id == "corr-1" for record in caplog.records)  # type: ignore[attr-defined]


def test_thousands_that_fail_at_once_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Threads that meet in the same moment included."""
    caplog.set_level(logging.INFO, logger="chatsdk")
    telemetry, client, _ = make()
    together = threading.Barrier(32)

    def fail() -> None:
        together.wait(10)
        for _ in range(100):
            with pytest.raises(NotSentError):
                telemetry(read(), Script(NotSentError()))

    threads = [threading.Thread(target=fail) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(caplog.records) == 1
    telemetry(read(), Script(OK))
    assert "3200 calls failed" in caplog.records[1].getMessage()
    assert client.metrics.errors()[0].count == 3200


def test_a_403_a_second_does_not_fill_a_log(caplog: pytest.LogCaptureFixture) -> None:
    """The first one, then one line a minute with their number; a 404 is an answer like any other."""
    caplog.set_level(logging.INFO, logger="chatsdk")
    telemetry, _, clock = make()
    for _ in range(181):
        clock.now += 1
        for error in (Forbidden("canary", status=403), NotFound("canary", status=404)):
            with pytest.raises(type(error)):
                telemetry(read(), Script(error))
    assert len(caplog.records) == 4
    assert "60 more times" in caplog.records[1].getMessage()
    assert "canary" not in caplog.text


def test_the_last_errors_are_known_by_operation() -> None:
    """With the call's correlation id; a Ctrl-C is none."""
    telemetry, client, _ = make()
    for error in (ServerError("busy", status=503), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            telemetry(send(), Script(error))
    (failure,) = client.metrics.errors()
    assert (failure.operation, failure.error, failure.status) == ("messages.send", "ServerError", 503)
    assert failure.correlation_id == "corr-1"
    assert client.metrics.snapshot()["client_http_errors_by_operation"]["messages.send"]["ServerError"] == 1


def test_records_of_a_call_carry_its_id_and_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    """At DEBUG, through the whole chain: correlation id in every record, neither token nor text in any."""
    caplog.set_level(logging.DEBUG, logger="chatsdk")
    client = Client(FakeClock())
    client.tokens = ["canary-token", "canary-token-2"]
    outcomes = Script(NotSentError(), ServerError(status=500, retryable=True), OK)
    Registry(client).chain(outcomes)(send(body={"text": "canary-text"}))
    mine = [record for record in caplog.records if record.name.startswith("chatsdk")]
    assert len(mine) >= 3
    assert all(record.correlation_id == "corr-1" for record in mine)  # type: ignore[attr-defined]
    assert "canary" not in caplog.text
    assert "canary" not in str([vars(record) for record in mine])


def test_library_is_silent() -> None:
    """Nothing is printed by who did not ask for records: the logger has a handler that does nothing."""
    from chatsdk import ChatClient

    assert ChatClient is not None
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("chatsdk").handlers)


def test_interruption_is_no_error_of_the_server() -> None:
    """A Ctrl-C leaves no call counted as active, and passes."""
    telemetry, client, _ = make()

    def interrupted(request: Request, call_next: CallNext | None = None) -> Response:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        telemetry(read(), interrupted)
    assert client.metrics.value("active_requests") == 0
    assert client.metrics.snapshot()["request_latency_ms"]["count"] == 0
