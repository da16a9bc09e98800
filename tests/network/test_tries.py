"""What an exchange says about the network, over a real transport and real sockets."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from chatsdk.core.errors import (
    CircuitOpenError,
    ConnectTimeoutError,
    DeadlineExceeded,
    NotSentError,
    TokenUnavailableError,
)
from chatsdk.core.exchange import Request, Response
from chatsdk.network.monitor import NetworkMonitor
from chatsdk.network.tries import observed
from chatsdk.pipeline.transport import Transport
from tests.pipeline.kit import Peer, RawServer, Script, http, raised, read

PORTAL = http(b"<html>sign in</html>", headers={"Content-Type": "text/html"})


class Samples(list[tuple[float | None, bool, int, str]]):
    """What came."""

    def __call__(self, latency: float | None, ok: bool = True, size: int = 0, reason: str = "") -> None:
        self.append((latency, ok, size, reason))


@pytest.fixture
def answers() -> list[bytes]:
    """What the server says to each request, in turn; nothing left: it hangs up."""
    return []


@pytest.fixture
def transport(answers: list[bytes]) -> Iterator[Transport]:
    """A transport to a server that says that."""

    def serve(peer: Peer) -> None:
        while peer.request() is not None and answers:
            peer.say(answers.pop(0))
            if not answers:
                return

    server = RawServer(serve)
    made = Transport(server.url, timeout=5)
    yield made
    made.close()
    server.stop()


def _sample_of(exchange: Any, request: Request | None = None) -> Samples:
    """What one call says, whatever becomes of it."""
    samples = Samples()
    run = observed(exchange, samples, time.monotonic)
    before = raised_or_none(lambda: run(request or read()))
    assert before is None or isinstance(before, Exception)
    return samples


def raised_or_none(call: Any) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


def test_an_answer_is_contact_and_a_latency(transport: Transport, answers: list[bytes]) -> None:
    """What the call returns stays the same."""
    answers.append(http(b'{"a": 1}'))
    samples = Samples()
    assert observed(transport, samples, time.monotonic)(read()).body == {"a": 1}
    [(latency, ok, size, reason)] = samples
    assert latency is not None
    assert 0 < latency < 5
    assert (ok, size, reason) == (True, 0, "")


def test_a_large_body_says_its_size(transport: Transport, answers: list[bytes]) -> None:
    """For the bandwidth."""
    body = json.dumps({"text": "x" * 50_000}).encode()
    answers.append(http(body))
    [(_, ok, size, _)] = _sample_of(transport)
    assert (ok, size) == (True, len(body))


@pytest.mark.parametrize("status", ["404 Not Found", "429 Too Many Requests", "500 Oops", "503 Not now"])
def test_an_error_of_the_server_is_contact(transport: Transport, answers: list[bytes], status: str) -> None:
    """The network brought it: also where the health URL is missing."""
    answers.append(http(b'{"error": "no"}', status))
    [(latency, ok, _, reason)] = _sample_of(transport)
    assert latency is not None
    assert (ok, reason) == (True, "")


def test_a_web_page_is_somebody_in_between(transport: Transport, answers: list[bytes]) -> None:
    """And so is a redirect to another host."""
    answers += [PORTAL, http(b"", "302 Found", {"Location": "http://portal.invalid/"})]
    for _ in range(2):
        assert _sample_of(transport) == [(None, False, 0, "captive_portal")]


@pytest.mark.parametrize("body", [b"not json", b'{"a": 1}<script></script>', b"[1]", b"\xff\xfe"])
def test_an_answer_of_no_use_is_somebody_in_between(transport: Transport, answers: list[bytes], body: bytes) -> None:
    """Whole, and not what the server says."""
    answers.append(http(body, "404 Not Found", headers={"Content-Type": "text/plain"}))
    assert _sample_of(transport) == [(None, False, 0, "rewriting_proxy")]


@pytest.mark.parametrize("body", [b'{"a": 1', b'{"a": "' + b"x" * 50_000, b"[", b'[{"a'])
def test_an_answer_that_breaks_off_is_lost(transport: Transport, answers: list[bytes], body: bytes) -> None:
    """Nobody rewrote it."""
    answers.append(http(body, length=100_000))
    assert _sample_of(transport) == [(None, False, 0, "")]


def test_silence_and_refusal_are_lost(transport: Transport) -> None:
    """A server that hangs up, and a port that nobody listens at."""
    assert _sample_of(transport) == [(None, False, 0, "")]
    closed = Transport("http://127.0.0.1:9", timeout=5)
    assert _sample_of(closed) == [(None, False, 0, "unreachable")]
    closed.close()


@pytest.mark.parametrize(
    "error",
    [
        CircuitOpenError(circuit="api", retry_after=1.0, retry_at=1.0),
        TokenUnavailableError("none"),
        NotSentError("closed", code="closed", retryable=False),
        ConnectTimeoutError("too late", code="deadline"),
        DeadlineExceeded("the caller waited for a moment only"),
        ValueError("a bug"),
    ],
)
def test_what_was_never_tried_says_nothing(error: Exception) -> None:
    """Nor does a caller without patience, nor a mistake of ours."""
    if isinstance(error, TokenUnavailableError):
        error.retryable = False
    assert _sample_of(Script(error)) == []


def test_a_patient_caller_without_answer_is_a_loss() -> None:
    """A second of silence is a sign."""
    times = iter([10.0, 12.0])
    samples = Samples()
    run = observed(Script(DeadlineExceeded("silence")), samples, lambda: next(times))
    assert raised(lambda: run(read())).code == "deadline"
    assert samples == [(None, False, 0, "")]


@pytest.mark.parametrize("length", ["", "0", "-5", "9" * 5000, "1e9", "٣" * 9, "12345 "])
def test_a_strange_length_does_no_harm(length: str) -> None:
    """Whatever a header says."""
    response = Response(status=200, headers={"content-length": length}, elapsed=0.02)
    [(latency, ok, size, _)] = _sample_of(Script(response))
    assert (latency, ok) == (0.02, True)
    assert size in (0, 333333333)


def test_a_captive_portal_is_named_by_the_monitor(transport: Transport, answers: list[bytes]) -> None:
    """From the socket to the level: good answers, then only web pages, then the server again."""
    now = [0.0]

    class Clock:
        def monotonic(self) -> float:
            now[0] += 1.0
            return now[0]

        def time(self) -> float:
            return 0.0

        def wait(self, event: Any, timeout: float) -> bool:
            return True

    monitor = NetworkMonitor(clock=Clock(), background=False)
    run = observed(transport, monitor.sample, time.monotonic)
    answers += [http()] * 5 + [PORTAL] * 2 + [http()] * 3
    for _ in range(5):
        run(read())
    assert monitor.quality == "EXCELLENT"
    for _ in range(2):
        raised(lambda: run(read()))
    assert (monitor.quality, monitor.reason) == ("OFFLINE", "captive_portal")
    for _ in range(3):
        run(read())
    assert monitor.quality == "EXCELLENT"


@pytest.mark.parametrize(("late", "said"), [(0.5, 1), (40.0, 0)])
def test_a_try_that_overslept_says_nothing(late: float, said: int) -> None:
    """Its process was stopped, or the machine slept: it ended long after its deadline, and nobody had listened."""
    times = iter([10.0, 15.0 + late])
    samples = Samples()
    run = observed(Script(DeadlineExceeded("silence")), samples, lambda: next(times))
    assert raised(lambda: run(read(deadline=15.0))).code == "deadline"
    assert len(samples) == said
