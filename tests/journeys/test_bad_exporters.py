"""Exporters that fail, block or are shut down, a scraper that hangs, plugins that raise where they only should listen:
every message is delivered all the same, once, in order."""

from __future__ import annotations

import importlib
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chatsdk import ChatClient, State, events
from chatsdk.devserver.process import DevServer
from chatsdk.plugin import CallNext, Middleware, Request, Response, Stage, hookimpl
from tests.faults.link import REFUSED, WELL
from tests.faults.proxy import FaultProxy
from tests.journeys.leftovers import exactly_once, nothing_left
from tests.waiting import eventually

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"


@pytest.fixture(autouse=True)
def _nothing_left(_server: DevServer) -> Iterator[None]:
    """Fail a story that leaves a thread or a descriptor."""
    with nothing_left():
        yield


@pytest.fixture
def prometheus(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin's module."""
    pytest.importorskip("prometheus_client")
    monkeypatch.syspath_prepend(PLUGINS / "chatsdk-prometheus")
    return importlib.import_module("chatsdk_prometheus")


@pytest.fixture
def opentelemetry(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plugin's module."""
    pytest.importorskip("opentelemetry.sdk")
    monkeypatch.syspath_prepend(PLUGINS / "chatsdk-opentelemetry")
    return importlib.import_module("chatsdk_opentelemetry")


def story(chat: ChatClient, server: DevServer, channel: str, texts: Callable[[str], list[str]]) -> float:
    """Thirty messages, a few of them through answers of 503. Gives the seconds of the slowest `send`."""
    server.faults("status", operation="send", channel=channel, status=503, times=2)
    took, receipts = [], []
    for number in range(30):
        began = time.monotonic()
        receipts.append(chat.send(channel, f"{number}", wait=0))
        took.append(time.monotonic() - began)
    exactly_once(chat, receipts, texts)
    return max(took)


# ---- Prometheus


def test_a_port_that_is_taken(
    prometheus: Any,
    server: DevServer,
    connect: Callable[..., ChatClient],
    channel: str,
    texts: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One warning, no endpoint, and everything else as it should be."""
    from prometheus_client import CollectorRegistry

    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("CHATSDK_PLUGIN_PROMETHEUS_PORT", str(other.getsockname()[1]))
        plugin = prometheus.Prometheus(CollectorRegistry())
        chat = connect(plugins=[plugin])
        story(chat, server, channel, texts)
        assert plugin.port == 0
        assert sum("no metrics at" in record.getMessage() for record in caplog.records) == 1
        chat.close()


def test_scrapers_that_hang(
    prometheus: Any,
    server: DevServer,
    connect: Callable[..., ChatClient],
    channel: str,
    texts: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twenty that say nothing, twenty that ask and never read: no message waits for them, another one is served
    meanwhile, and they are let go of."""
    from prometheus_client import CollectorRegistry

    monkeypatch.setenv("CHATSDK_PLUGIN_PROMETHEUS_PORT", "0")
    monkeypatch.setattr("chatsdk_prometheus.endpoint.PATIENCE", 1.0)
    plugin = prometheus.Prometheus(CollectorRegistry())
    chat = connect(plugins=[plugin])
    assert chat.send(server.channel("alice"), "first").delivered
    before = threading.active_count()
    hanging = []
    for number in range(40):
        scraper = socket.create_connection(("127.0.0.1", plugin.port))
        hanging.append(scraper)
        if number % 2:
            scraper.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    server.faults("status", operation="send", channel=channel, status=503, times=2)
    receipts = [chat.send(channel, f"{number}") for number in range(20)]
    with urllib.request.urlopen(f"http://127.0.0.1:{plugin.port}/metrics", timeout=10) as answer:
        assert b"sync_success_total" in answer.read()
    assert {receipt.wait(20).state for receipt in receipts} == {State.SENT}
    assert texts(channel) == [f"{number}" for number in range(20)]
    eventually(lambda: threading.active_count() <= before + 2, "the end of what served them")
    chat.close()
    for scraper in hanging:
        scraper.close()


# ---- OpenTelemetry


def _raise(*_: Any, **__: Any) -> Any:
    raise OSError("no collector")


def _leave(*_: Any, **__: Any) -> Any:
    sys.exit("an exporter that wants to leave")


def _block(*_: Any, **__: Any) -> Any:
    time.sleep(0.05)


@pytest.mark.parametrize("act", [_raise, _leave, _block], ids=lambda act: act.__name__)
def test_a_processor_that_fails(
    act: Callable[..., Any],
    opentelemetry: Any,
    server: DevServer,
    connect: Callable[..., ChatClient],
    channel: str,
    texts: Callable[[str], list[str]],
) -> None:
    """It is called in the thread of the call: what it raises stays there, and what it takes is all that it costs."""
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

    class Bad(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            act()

        def on_end(self, span: Any) -> None:
            act()

    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(Bad())
    chat = connect(plugins=[opentelemetry.OpenTelemetry(tracers)])
    story(chat, server, channel, texts)
    assert chat.channels.get(channel, fresh=True).id == channel
    chat.close()


def test_an_exporter_that_hangs(
    opentelemetry: Any,
    server: DevServer,
    connect: Callable[..., ChatClient],
    channel: str,
    texts: Callable[[str], list[str]],
) -> None:
    """Behind OpenTelemetry's own batches nobody waits for it, though its queue overflows."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    free, hanging = threading.Event(), threading.Event()

    class Hangs(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            hanging.set()
            free.wait(30)
            return SpanExportResult.FAILURE

    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(
        BatchSpanProcessor(Hangs(), max_queue_size=4, schedule_delay_millis=1, max_export_batch_size=1)
    )
    chat = connect(plugins=[opentelemetry.OpenTelemetry(tracers)])
    began = time.monotonic()
    slowest = story(chat, server, channel, texts)
    assert hanging.is_set()
    assert slowest < 1
    assert time.monotonic() - began < 10
    chat.close()
    free.set()
    tracers.shutdown()


def test_providers_that_are_shut_down_in_the_middle(
    opentelemetry: Any,
    server: DevServer,
    connect: Callable[..., ChatClient],
    channel: str,
    texts: Callable[[str], list[str]],
) -> None:
    """The application ends its telemetry first, as it may: the rest is delivered untold."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    tracers, meters = TracerProvider(shutdown_on_exit=False), MeterProvider([InMemoryMetricReader()])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    chat = connect(plugins=[opentelemetry.OpenTelemetry(tracers, meters)])
    receipts = []
    for number in range(30):
        if number == 10:
            tracers.shutdown()
            meters.shutdown()
        receipts.append(chat.send(channel, f"{number}", wait=0))
    exactly_once(chat, receipts, texts)
    chat.close()


# ---- anybody's plugin


class Bad:
    """A plugin that does something bad at every event, and in a layer of its own after the answer."""

    chatsdk_name = "bad"

    def __init__(self, act: Callable[..., Any]) -> None:
        self.act = act
        self.heard: set[type[events.Event]] = set()

    @hookimpl
    def chatsdk_event(self, event: events.Event) -> None:
        """Fail."""
        self.heard.add(type(event))
        self.act()


@pytest.mark.parametrize("act", [_raise, _leave, _block], ids=lambda act: act.__name__)
def test_a_plugin_that_fails_at_events(
    act: Callable[..., Any],
    server: DevServer,
    connect: Callable[..., ChatClient],
    channel: str,
    texts: Callable[[str], list[str]],
) -> None:
    """Through an outage and its end: each event is told to it, and to a good one that comes after it."""
    bad, good = Bad(act), Bad(lambda: None)
    good.chatsdk_name = "good"
    with FaultProxy(int(server.url.rpartition(":")[2])) as proxy:
        chat = connect(proxy.url, plugins=[bad, good])
        receipts = [chat.send(channel, f"{number}", wait=0) for number in range(10)]
        eventually(lambda: receipts[-1].delivered)
        proxy.set(REFUSED)
        proxy.reset()
        receipts += [chat.send(channel, f"{number}", wait=0) for number in range(10, 20)]
        eventually(lambda: chat.circuits["api"].state == "open")
        proxy.set(WELL)
        exactly_once(chat, receipts, texts)
        wanted = {events.MessageQueued, events.MessageSent, events.MessageFailed, events.CircuitStateChanged}
        eventually(lambda: bad.heard == good.heard >= wanted)
        chat.close()


def test_a_layer_that_leaves_with_a_delivery_thread(
    server: DevServer, connect: Callable[..., ChatClient], channel: str, texts: Callable[[str], list[str]]
) -> None:
    """KeyboardInterrupt and GeneratorExit out of a plugin's layer, four times, with one thread to deliver: it does not
    die of them, and the message is no victim."""
    left = [KeyboardInterrupt, GeneratorExit] * 2

    class Interrupts:
        chatsdk_name = "interrupts"

        @hookimpl
        def chatsdk_middleware(self) -> Middleware:
            return Middleware("interrupts", Stage.ATTEMPT, self.call)

        def call(self, request: Request, call_next: CallNext) -> Response:
            response = call_next(request)
            if left and request.key:
                raise left.pop()
            return response

    chat = connect(plugins=[Interrupts()], workers=1)
    receipts = [chat.send(channel, f"{number}", wait=0) for number in range(5)]
    exactly_once(chat, receipts, texts, 60)
    assert left == []
    chat.close()
