"""Breaker: what counts against the server, and what does not."""

from __future__ import annotations

import pytest

from chatsdk.core.errors import (
    BadRequest,
    CaptivePortalError,
    ChatError,
    CircuitOpenError,
    ConnectTimeoutError,
    DeadlineExceeded,
    InvalidResponseError,
    NotFound,
    NotSentError,
    OutcomeUnknownError,
    PluginError,
    RateLimited,
    ServerError,
    TokenExpiredError,
    TokenUnavailableError,
    Unauthorized,
)
from chatsdk.core.exchange import Request, Response
from chatsdk.middleware.breaker import REMEMBERED, chatsdk_middleware
from chatsdk.plugin import Stage
from tests.pipeline.kit import Client, FakeClock, Script, read, send


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.client = Client(self.clock)
        layer = chatsdk_middleware(self.client)
        assert layer.stage is Stage.BREAKER
        self.breaker = layer.call
        self.circuit = self.client.circuits["api"]

    def fail(self, error: BaseException, request: Request) -> None:
        with pytest.raises(type(error)):
            self.breaker(request, Script(error))

    def failures(self, error: ChatError, *, same: bool, times: int = 4) -> int:
        """How many of these failures count, of one message or of several."""
        for number in range(times):
            self.fail(error, send(key="same" if same else f"k{number}"))
        return self.circuit.counts.failures


PER_TRY: list[ChatError] = [NotSentError(), ConnectTimeoutError(), DeadlineExceeded(), OutcomeUnknownError()]
PER_TRY += [ServerError(status=status, retryable=True) for status in (502, 503, 504)]
PER_MESSAGE: list[ChatError] = [ServerError(status=500, retryable=True), InvalidResponseError(), CaptivePortalError()]
NEVER: list[ChatError] = [
    BadRequest(status=400),
    Unauthorized(status=401),
    NotFound(status=404),
    RateLimited(status=429),
]
NEVER += [PluginError(plugin="x"), TokenUnavailableError(), TokenExpiredError(), NotSentError(retryable=False)]


def name(error: ChatError) -> str:
    return f"{type(error).__name__} {getattr(error, 'status', '')} {error.retryable}"


@pytest.mark.parametrize("error", PER_TRY, ids=name)
def test_silence_and_gateways_count_per_try(error: ChatError) -> None:
    """Connect errors, time-outs, 502, 503 and 504 are about the server, whoever asked."""
    assert Bench().failures(error, same=True) == 4


@pytest.mark.parametrize("error", PER_MESSAGE, ids=name)
def test_what_may_be_the_messages_fault_counts_once(error: ChatError) -> None:
    """One poison message never opens the circuit; several messages that fail like that do."""
    bench = Bench()
    assert bench.failures(error, same=True, times=50) == 1
    assert bench.circuit.state == "closed"
    assert Bench().failures(error, same=False) == 4


@pytest.mark.parametrize("error", NEVER, ids=name)
def test_refusals_and_our_own_errors_never_count(error: ChatError) -> None:
    """4xx, 429, plugins and tokens say nothing about an outage."""
    bench = Bench()
    assert bench.failures(error, same=False, times=20) == 0
    assert bench.circuit.state == "closed"


def test_a_call_without_a_key_counts_once_too() -> None:
    """A read that the server answers with 500 is one failure however often it is tried."""
    bench = Bench()
    for _ in range(10):
        bench.fail(ServerError(status=500, retryable=True), read(correlation_id="one"))
    assert bench.circuit.counts.failures == 1


def test_an_answer_clears_the_window() -> None:
    """A 404 proves that the server is there; a 429 proves nothing."""
    bench = Bench()
    bench.failures(NotSentError(), same=True)
    bench.fail(RateLimited(status=429), read())
    assert bench.circuit.counts.failures == 4
    bench.fail(NotFound(status=404), read())
    assert bench.circuit.counts.failures == 0


def test_open_circuit_asks_nothing_of_the_server() -> None:
    """Calls fail at once and tell when the next one is let through; a good answer closes it again."""
    bench = Bench()
    bench.failures(NotSentError(), same=True, times=5)
    end = Script(Response(status=200))
    with pytest.raises(CircuitOpenError) as caught:
        bench.breaker(send(), end)
    assert (caught.value.circuit, caught.value.retry_after, end.seen) == ("api", 1.0, [])
    bench.clock.now += 1
    bench.breaker(send(), end)
    bench.breaker(send(), end)
    assert bench.circuit.state == "closed"


def test_auth_does_not_pass() -> None:
    """Refreshing a token has a circuit of its own: it is not stopped by this one, and counts for nothing here."""
    bench = Bench()
    refresh = Request(operation="auth.refresh", method="POST", path="/api/auth/refresh")
    for _ in range(10):
        bench.fail(NotSentError(), refresh)
    assert bench.circuit.counts.failures == 0
    bench.circuit.force_open()
    assert bench.breaker(refresh, Script(Response(status=200))).status == 200


def test_memory_of_poison_is_bounded() -> None:
    """Only so many messages are remembered."""
    bench = Bench()
    for number in range(REMEMBERED + 50):
        bench.breaker(send(), Script(Response(status=200)))
        bench.fail(ServerError(status=500, retryable=True), send(key=f"k{number}"))
    assert len(bench.breaker._counted) == REMEMBERED  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [DeadlineExceeded(), ConnectTimeoutError()], ids=name)
@pytest.mark.parametrize(
    ("left", "took", "timeout", "counts"),
    [(0.3, 0.3, 10, 0), (0.99, 0.99, 10, 0), (1.0, 1.0, 10, 1), (5, 5, 10, 1), (0.3, 0.3, 0.4, 1), (8, 0.3, 10, 1)],
    ids=str,
)
def test_an_impatient_caller_says_nothing_of_the_server(
    error: ChatError, left: float, took: float, timeout: float, counts: int
) -> None:
    """A time-out counts if the try had a second, or half of what is usual here; and where it was not the deadline that
    ended it (the time for connecting was over)."""
    bench = Bench()
    bench.client = Client(bench.clock, timeout=timeout)
    bench.breaker = chatsdk_middleware(bench.client).call

    def silence(request: Request) -> Response:
        bench.clock.now += took
        raise error

    with pytest.raises(type(error)):
        bench.breaker(send().replace(deadline=bench.clock.now + left), silence)
    assert bench.client.circuits["api"].counts.failures == counts


@pytest.mark.parametrize("operation", ["search", "presence.get", "presence.set"])
def test_what_has_a_circuit_of_its_own(operation: str) -> None:
    """A search engine or a presence service that is down does not stop messages; a server that is not there does."""
    request = read(operation=operation)
    own: list[ChatError] = [ServerError(status=status, retryable=True) for status in (500, 502, 503, 504)]
    own += [DeadlineExceeded(), OutcomeUnknownError(), InvalidResponseError()]
    for error in own:
        bench = Bench()
        for _ in range(10):
            bench.fail(error, request)
        assert bench.circuit.counts.failures == 0
    for error in (NotSentError(), ConnectTimeoutError(), CaptivePortalError()):
        bench = Bench()
        bench.fail(error, request)
        assert bench.circuit.counts.failures == 1
    bench.circuit.force_open(60)
    with pytest.raises(CircuitOpenError):
        bench.breaker(request, Script())
