"""Messages and calls on their way to a real server, as the real OpenTelemetry SDK sees them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from chatsdk_opentelemetry import OpenTelemetry
from kit import Telemetry, attributes, eventually, identity, noted, parent, recording_server
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode

from chatsdk import ChatClient
from chatsdk.devserver.process import DevServer
from chatsdk.plugin import CallNext, Middleware, Request, Response, Stage, errors, hookimpl

SECRET_TEXT = "the text of the message"


def client(server: DevServer, state: Path, *plugins: object, **settings: Any) -> ChatClient:
    """A client of alice's with these plugins and no others."""
    given = {"token": server.tokens["alice"], "user": "alice", "state_dir": str(state), **settings}
    return ChatClient(server.url, plugins=plugins, discover=False, **given)


def test_one_send_with_two_retries(server: DevServer, tmp_path: Path) -> None:
    """One trace from the caller's span down: the message, its three tries, the circuit that opened and let the third
    one pass as a probe, and the correlation id on each."""
    server.faults("status", operation="send", status=503, times=2)
    telemetry = Telemetry()
    settings = {"circuit_failures": 2, "circuit_open_first": 0.1, "circuit_successes": 1}
    with client(server, tmp_path, telemetry.plugin, **settings) as chat:
        with telemetry.tracers.get_tracer("app").start_as_current_span("the caller"):
            receipt = chat.send(server.channel_id, SECRET_TEXT, wait=20)
        assert (receipt.state, receipt.attempts) == ("SENT", 3)
        eventually(lambda: telemetry.named("messages.send"))
        eventually(lambda: telemetry.points("sync_success_total"))

    (caller,), (message,), tries = (telemetry.named(name) for name in ("the caller", "messages.send", "POST"))
    assert parent(message) == identity(caller)
    assert message.kind is SpanKind.INTERNAL
    assert attributes(message)["chatsdk.state"] == "SENT"
    assert attributes(message)["chatsdk.attempts"] == 3
    assert message.status.status_code is StatusCode.UNSET
    assert [each["chatsdk.attempt"] for each in noted(message, "retry")] == [1, 2]
    moves = [(each["chatsdk.circuit"], each["from"], each["to"]) for each in noted(message, "circuit")]
    assert moves == [("api", "closed", "open"), ("api", "open", "half_open"), ("api", "half_open", "closed")]

    assert len(tries) == 3
    assert {parent(each) for each in tries} == {identity(message)}
    assert {each.kind for each in tries} == {SpanKind.CLIENT}
    facts = [attributes(each) for each in tries]
    assert [each["http.response.status_code"] for each in facts] == [503, 503, 201]
    assert [each.get("error.type") for each in facts] == ["503", "503", None]
    assert [each.status.status_code for each in tries] == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
    assert [each.get("http.request.resend_count") for each in facts] == [None, 1, 2]
    assert [each["chatsdk.attempt"] for each in facts] == [1, 2, 3]
    assert [each["chatsdk.circuit.state"] for each in facts] == ["closed", "closed", "half_open"]
    assert len({each["chatsdk.correlation_id"] for each in [*facts, attributes(message)]} - {""}) == 1
    assert {each.get_span_context().trace_id for each in [message, *tries]} == {caller.get_span_context().trace_id}

    send = frozenset({("chatsdk.operation", "messages.send")})
    assert telemetry.points("request_latency_ms")[send] == 3
    assert telemetry.points("retry_attempts_total") == {send: 2}
    assert telemetry.points("sync_failures_total") == {frozenset(): 2}
    assert telemetry.points("sync_success_total") == {frozenset(): 1}
    assert telemetry.points("circuit_breaker_opens_total") == {frozenset({("chatsdk.circuit", "api")}): 1}
    assert telemetry.points("client_http_errors_total")[frozenset({("error.type", "503")})] == 2
    assert sum(telemetry.points("http.client.request.duration").values()) == 3
    for gauge in ("active_requests", "pending_sync_items", "open_circuits", "fallbacks_used_total"):
        assert telemetry.points(gauge) == {frozenset(): 0}, gauge
    for private in (SECRET_TEXT, server.tokens["alice"], "Bearer", "alice", receipt.key):
        assert private not in telemetry.written()


def test_trace_context_reaches_the_server(tmp_path: Path) -> None:
    """Each try carries a traceparent of its own, which names the try's span, and the id that its attributes have."""
    telemetry = Telemetry()
    with recording_server([503, 503, 201]) as (url, heard):
        with ChatClient(
            url, "token", user="alice", plugins=[telemetry.plugin], discover=False, state_dir=str(tmp_path)
        ) as chat:
            assert chat.send("3f0e0c1e-0000-4000-8000-000000000001", "hello", wait=20).state == "SENT"
    tries = telemetry.named("POST")
    contexts = [each.get_span_context() for each in tries]
    assert [each["traceparent"] for each in heard] == [
        f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}" for context in contexts
    ]
    assert [each["x-request-id"] for each in heard] == [attributes(each)["chatsdk.correlation_id"] for each in tries]
    assert all("baggage" not in each for each in heard)


def test_without_propagation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `propagate = false` the server is told nothing."""
    monkeypatch.setenv("CHATSDK_PLUGIN_OPENTELEMETRY_PROPAGATE", "false")
    with recording_server([201]) as (url, heard):
        with ChatClient(
            url, "token", user="alice", plugins=[Telemetry().plugin], discover=False, state_dir=str(tmp_path)
        ) as chat:
            assert chat.send("3f0e0c1e-0000-4000-8000-000000000001", "hello", wait=20).state == "SENT"
    assert "traceparent" not in heard[0]


def test_a_direct_call_with_retries(server: DevServer, tmp_path: Path) -> None:
    """A read has one span with its tries below it; an answer from the cache has no try."""
    telemetry = Telemetry()
    with client(server, tmp_path, telemetry.plugin) as chat:
        assert chat.channels.list()
        (warm,) = telemetry.named("channels.list")
        telemetry.exporter.clear()
        server.faults("status", status=503, times=2)
        assert chat.channels.list(fresh=True)
        (call,), tries = telemetry.named("channels.list"), telemetry.named("GET")
        assert [attributes(each)["http.response.status_code"] for each in tries] == [503, 503, 200]
        assert [attributes(each).get("http.request.resend_count") for each in tries] == [None, 1, 2]
        assert {parent(each) for each in tries} == {identity(call)}
        assert [each["chatsdk.attempt"] for each in noted(call, "retry")] == [1, 2]
        assert call.status.status_code is StatusCode.UNSET
        assert parent(call) is parent(warm) is None
        telemetry.exporter.clear()
        assert chat.channels.list()
        (cached,) = telemetry.spans
        assert attributes(cached)["chatsdk.from_cache"] is True


def test_a_call_that_fails(server: DevServer, tmp_path: Path) -> None:
    """The error's kind stands on the call and on its try, and nothing of what it says; what a circuit refused is no
    try."""
    telemetry = Telemetry()
    with client(server, tmp_path, telemetry.plugin) as chat:
        with pytest.raises(errors.StatusError):
            chat.channels.get("3f0e0c1e-0000-4000-8000-00000000dead")
        (call,), (tried,) = telemetry.named("channels.get"), telemetry.named("GET")
        for span in (call, tried):
            assert span.status.status_code is StatusCode.ERROR
            assert span.status.description is None
            assert attributes(span)["error.type"] in ("403", "404")
            assert [event.name for event in span.events] == []  # no exception with its text and its trace
        telemetry.exporter.clear()
        chat.circuits["api"].force_open(60)
        with pytest.raises(errors.CircuitOpenError):
            chat.channels.list(fresh=True)
        (refused,) = telemetry.spans
        assert attributes(refused)["error.type"] == "CircuitOpenError"


def test_a_refused_token_is_a_second_exchange(server: DevServer, tmp_path: Path) -> None:
    """A 401 and the exchange with the newer token are two tries on the wire, and both are seen."""
    telemetry = Telemetry()
    tokens = iter(["not-a-token", server.tokens["alice"]])
    newest = [next(tokens)]

    def provider(asked: Any) -> str:
        if asked.force:
            newest[0] = next(tokens, newest[0])
        return newest[0]

    with client(server, tmp_path, telemetry.plugin, token=None, token_provider=provider) as chat:
        assert chat.channels.list()
    facts = [attributes(each) for each in telemetry.named("GET")]
    assert [each["http.response.status_code"] for each in facts] == [401, 200]
    assert [each.get("http.request.resend_count") for each in facts] == [None, 1]
    assert [each["chatsdk.attempt"] for each in facts] == [1, 1]


def test_a_message_from_another_process(server: DevServer, tmp_path: Path) -> None:
    """Who delivers what another one accepted begins a trace of its own, with the same correlation id."""
    sender, drainer = Telemetry(), Telemetry()
    with client(server, tmp_path, sender.plugin, background=False) as chat:
        chat.send(server.channel_id, "hello", wait=0)
    (accepted,) = sender.spans
    assert attributes(accepted)["chatsdk.state"] == "QUEUED"
    with client(server, tmp_path, drainer.plugin, background=False) as chat:
        with drainer.tracers.get_tracer("app").start_as_current_span("the drainer"):
            assert chat.outbox.flush(20).sent == 1
    (message,), (tried,) = drainer.named("messages.send"), drainer.named("POST")
    assert parent(message) is None  # no child of whoever happened to drain
    assert parent(tried) == identity(message)
    assert attributes(message)["chatsdk.correlation_id"] == attributes(accepted)["chatsdk.correlation_id"]


def test_a_dead_letter(server: DevServer, tmp_path: Path) -> None:
    """A message that the server refuses ends as DEAD, with the reason."""
    server.faults("status", operation="send", status=400)
    telemetry = Telemetry()
    with client(server, tmp_path, telemetry.plugin) as chat:
        with pytest.raises(errors.MessageRejected):
            chat.send(server.channel_id, SECRET_TEXT, wait=20)
        eventually(lambda: telemetry.named("messages.send"))
    (message,) = telemetry.named("messages.send")
    assert attributes(message)["chatsdk.state"] == "DEAD"
    assert attributes(message)["error.type"] == "rejected"
    assert message.status.status_code is StatusCode.ERROR


def test_a_message_that_another_plugin_refuses(server: DevServer, tmp_path: Path) -> None:
    """Nothing happened, so nothing is told."""

    class Refuses:
        @hookimpl
        def chatsdk_accept(self, request: Request) -> None:
            raise ValueError("no")

    telemetry = Telemetry()
    with client(server, tmp_path, telemetry.plugin, Refuses()) as chat:
        with pytest.raises(errors.NotAcceptedError, match="refused the message"):
            chat.send(server.channel_id, "hello")
    telemetry.plugin._spans().close()
    assert telemetry.spans == ()


def test_a_hostile_server(server: DevServer, tmp_path: Path) -> None:
    """What a server writes into errors and headers is told nowhere, and the message arrives."""
    body = json.dumps({"error": {"code": "unbounded-1", "message": "unbounded-2"}})
    server.faults("status", operation="send", status=599, times=2, body=body, headers={"X-Request-ID": "unbounded-3"})
    telemetry = Telemetry()
    with client(server, tmp_path, telemetry.plugin) as chat:
        assert chat.send(server.channel_id, "hello", wait=20).state == "SENT"
        eventually(lambda: telemetry.named("messages.send"))
    assert "unbounded" not in telemetry.written()
    assert frozenset({("error.type", "_OTHER")}) in telemetry.points("client_http_errors_total")


def test_attribute_explosion(server: DevServer, tmp_path: Path) -> None:
    """A plugin that gives every call an operation of its own makes one more point, not one each."""

    class Explodes:
        number = 0

        @hookimpl
        def chatsdk_middleware(self) -> Middleware:
            return Middleware("explodes", Stage.TELEMETRY, self.call)

        def call(self, request: Request, call_next: CallNext) -> Response:
            self.number += 1
            return call_next(request.replace(operation=f"evil.{self.number}"))

    telemetry = Telemetry()
    with client(server, tmp_path, Explodes(), telemetry.plugin) as chat:
        for _ in range(30):
            chat.channels.list(fresh=True)
    assert set(telemetry.points("request_latency_ms")) == {frozenset({("chatsdk.operation", "_OTHER")})}
    assert {span.name for span in telemetry.spans} == {"_OTHER", "GET"}


class BrokenExporter(SpanExporter):
    """An exporter whose other end is away."""

    def export(self, spans: Any) -> SpanExportResult:
        raise OSError("no collector")


class BrokenStart(SpanProcessor):
    """A processor of the application's with a mistake."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise RuntimeError("mistake at the start")


class BrokenEnd(SpanProcessor):
    """Another one."""

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("mistake at the end")


class BrokenSampler(Sampler):
    """A sampler with a mistake."""

    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        raise RuntimeError("mistake of the sampler")

    def get_description(self) -> str:
        return "broken"


@pytest.mark.parametrize(
    "telemetry",
    [
        pytest.param(lambda: Telemetry(SimpleSpanProcessor(BrokenExporter())), id="exporter"),
        pytest.param(lambda: Telemetry(BrokenStart()), id="start"),
        pytest.param(lambda: Telemetry(BrokenEnd()), id="end"),
        pytest.param(lambda: Telemetry(sampler=BrokenSampler()), id="sampler"),
        pytest.param(lambda: Telemetry(sampler=ALWAYS_OFF), id="off"),
    ],
)
def test_telemetry_that_fails_changes_no_delivery(
    telemetry: Any, server: DevServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With an exporter, a processor or a sampler that raises, messages arrive in order, after the same tries, and reads
    are answered; we say it once for each place."""
    made, before = telemetry(), len(server.log()["messages"])
    server.faults("status", operation="send", status=503, times=2)
    with client(server, tmp_path, made.plugin) as chat:
        receipts = [chat.send(server.channel_id, f"message {number}", wait=20) for number in range(4)]
        assert chat.channels.list()
    assert [(receipt.state, receipt.attempts) for receipt in receipts] == [("SENT", 3)] + [("SENT", 1)] * 3
    assert [each["text"] for each in server.log()["messages"][before:]] == [f"message {n}" for n in range(4)]
    ours = [
        record
        for record in caplog.records
        if record.name == "chatsdk.plugins.opentelemetry" and record.levelno >= logging.ERROR
    ]
    assert len(ours) <= 5
    assert sum(made.points("http.client.request.duration").values()) == 7  # the figures are kept all the same


def test_metrics_that_fail_change_no_delivery(server: DevServer, tmp_path: Path) -> None:
    """The same with every instrument broken; the spans are there."""

    class Broken:
        def add(self, *_: object) -> None:
            raise RuntimeError("mistake")

        record = add

    telemetry = Telemetry()
    figures = telemetry.plugin._spans().figures
    broken = [name for name, value in vars(figures).items() if hasattr(value, "add") or hasattr(value, "record")]
    assert len(broken) == 8
    for name in broken:
        setattr(figures, name, Broken())
    server.faults("status", operation="send", status=503, times=2)
    with client(server, tmp_path, telemetry.plugin) as chat:
        receipt = chat.send(server.channel_id, "hello", wait=20)
    assert (receipt.state, receipt.attempts) == ("SENT", 3)
    assert len(telemetry.named("POST")) == 3
    assert len(telemetry.named("messages.send")) == 1


def test_without_an_sdk(server: DevServer, tmp_path: Path) -> None:
    """Where the application has no OpenTelemetry SDK, nothing happens and messages arrive; providers that the
    application sets after the first call are used from then on."""
    program = """
import sys
from chatsdk import ChatClient
from chatsdk_opentelemetry import plugin
url, token, channel, state = sys.argv[1:]
assert "opentelemetry" not in sys.modules
with ChatClient(url, token, user="alice", plugins=[plugin], discover=False, state_dir=state) as chat:
    assert chat.send(channel, "one", wait=20).state == "SENT"
    assert "opentelemetry.sdk" not in sys.modules
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    assert chat.send(channel, "two", wait=20).state == "SENT"
print(sorted(span.name for span in exporter.get_finished_spans()))
"""
    arguments = [server.url, server.tokens["alice"], server.channel_id, str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *arguments],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['POST', 'messages.send']"


def test_wrong_settings(server: DevServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that make no sense disable the plugin, with a warning; the message arrives."""
    monkeypatch.setenv("CHATSDK_PLUGIN_OPENTELEMETRY_OPERATIONS", " ".join(f"op{number}" for number in range(101)))
    with client(server, tmp_path, OpenTelemetry()) as chat:
        with pytest.warns(RuntimeWarning, match="opentelemetry.*100 at most"):
            assert chat.send(server.channel_id, "hello", wait=20).state == "SENT"
