"""The metrics, written by prometheus_client and read back by its parser."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from chatsdk_prometheus import Prometheus
from chatsdk_prometheus.collector import ChatCollector
from kit import TEN, parse, scrape, value
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics

from chatsdk.plugin import ERRORS, OPERATIONS, Metrics, Request, Response, Stage, errors, events


class Client:
    """As much of a client as the plugin looks at."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.clock = SimpleNamespace(monotonic=lambda: 0.0)


@pytest.fixture
def registry() -> CollectorRegistry:
    """Give a registry of the test's own."""
    return CollectorRegistry()


def layer(plugin: Prometheus, client: Client, **config: object) -> object:
    """The plugin's layer for a client."""
    made = plugin.chatsdk_middleware(client, config)  # type: ignore[arg-type]
    assert (made.name, made.stage) == ("prometheus", Stage.TELEMETRY)
    return made.call


def call(layer: object, outcome: Response | BaseException, **facts: object) -> None:
    """One call through the layer, which ends as told."""
    request = Request(**{"operation": "messages.send", "method": "POST", "path": "/", "correlation_id": "c-1", **facts})

    def end(_: Request) -> Response:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    if isinstance(outcome, BaseException):
        with pytest.raises(type(outcome)):
            layer(request, end)  # type: ignore[operator]
    else:
        assert layer(request, end) is outcome  # type: ignore[operator]


def test_ten_metrics_by_name(registry: CollectorRegistry) -> None:
    """All ten are there by their names and with their types before anything has happened, and nothing else."""
    registry.register(ChatCollector())
    kinds = {metric.name: metric.type for metric in registry.collect()}
    assert {name + "_total" if kind == "counter" else name for name, kind in kinds.items()} == TEN
    assert {name for name, kind in kinds.items() if kind == "gauge"} == {
        "active_requests",
        "pending_sync_items",
        "open_circuits",
    }
    assert kinds["request_latency_ms"] == "histogram"


def test_calls(registry: CollectorRegistry) -> None:
    """Calls are timed by operation and failures counted by class; an answer from the cache and a call that an open
    circuit refused are no latency."""
    plugin = Prometheus(registry)
    send = layer(plugin, Client())
    call(send, Response(status=201))
    call(send, errors.ServerError("down", status=503))
    call(send, errors.CircuitOpenError(circuit="api"))
    call(send, Response(status=200, from_cache=True), operation="channels.list")
    call(send, KeyboardInterrupt())
    found = scrape(registry)
    assert value(found, "request_latency_ms_count", operation="messages.send") == 2
    assert value(found, "request_latency_ms_count", operation="channels.list") is None
    assert value(found, "client_http_errors_total", type="ServerError") == 1
    assert value(found, "client_http_errors_total", type="CircuitOpenError") == 1
    assert value(found, "client_http_errors_total", type="other") == 1  # Ctrl-C
    assert value(found, "active_requests") == 0


def test_a_call_under_way_is_active(registry: CollectorRegistry) -> None:
    """`active_requests` is what is under way at the scrape."""
    send = layer(Prometheus(registry), Client())
    seen: list[float | None] = []

    def end(_: Request) -> Response:
        seen.append(value(scrape(registry), "active_requests"))
        return Response(status=200)

    send(Request(operation="health", method="GET", path="/health"), end)  # type: ignore[operator]
    assert seen == [1]
    assert value(scrape(registry), "active_requests") == 0


def test_events(registry: CollectorRegistry) -> None:
    """Retries, deliveries and circuits are counted from their events."""
    plugin = Prometheus(registry)
    layer(plugin, Client())
    who = {"id": 1, "key": "k", "user": "u", "channel": "c"}
    for event in (
        events.RetryScheduled(operation="messages.send", attempt=1, delay=0.1),
        events.MessageFailed(**who, state="QUEUED"),
        events.MessagePermanentFailure(**who, state="DEAD"),
        events.MessageSent(**who, state="SENT"),
        events.CircuitStateChanged(circuit="api", old="closed", new="open"),
        events.CircuitStateChanged(circuit="api", old="open", new="half_open"),
        events.CircuitStateChanged(circuit="user-4711", old="closed", new="open"),
    ):
        plugin.chatsdk_event(Client(), event)
    found = scrape(registry)
    assert value(found, "retry_attempts_total", operation="messages.send") == 1
    assert value(found, "sync_failures_total") == 2
    assert value(found, "sync_success_total") == 1
    assert value(found, "circuit_breaker_opens_total", circuit="api") == 1
    assert value(found, "circuit_breaker_opens_total", circuit="other") == 1


def test_deliveries_lead_to_their_call(registry: CollectorRegistry) -> None:
    """Beside the count of deliveries and of failures stands the correlation id of the last one, as an exemplar."""
    plugin = Prometheus(registry)
    layer(plugin, Client())
    who = {"id": 1, "key": "k", "user": "u", "channel": "c"}
    plugin.chatsdk_event(Client(), events.MessageFailed(**who, state="QUEUED", correlation_id="corr-1"))
    plugin.chatsdk_event(Client(), events.MessageSent(**who, state="SENT", correlation_id="corr-2"))
    text = openmetrics(registry).decode()
    assert 'sync_failures_total 1.0 # {correlation_id="corr-1"} 1.0' in text
    assert 'sync_success_total 1.0 # {correlation_id="corr-2"} 1.0' in text


def test_what_only_the_client_knows(registry: CollectorRegistry) -> None:
    """Gauges are summed over the living clients; a counter never goes back when one of them is gone."""
    plugin = Prometheus(registry)
    one, two = Client(), Client()
    layer(plugin, one)
    layer(plugin, two)
    one.metrics.gauge("pending_sync_items", 3)
    two.metrics.gauge("pending_sync_items", 4)
    one.metrics.gauge("open_circuits", 1)
    one.metrics.count("fallbacks_used_total", 2)
    two.metrics.count("fallbacks_used_total")
    found = scrape(registry)
    assert [value(found, name) for name in ("pending_sync_items", "open_circuits")] == [7, 1]
    assert value(found, "fallbacks_used_total") == 3
    del one
    found = scrape(registry)
    assert [value(found, name) for name in ("pending_sync_items", "open_circuits")] == [4, 0]
    assert value(found, "fallbacks_used_total") == 3


def test_label_explosion(registry: CollectorRegistry) -> None:
    """Ten thousand ids in operations, channels, errors and circuits make no more series than one does."""
    plugin = Prometheus(registry)
    client = Client()
    send = layer(plugin, client)
    for number in range(10_000):
        hostile = f'messages.{number}"}}\n# HELP'
        strange = type(f"Error{number}", (Exception,), {})
        call(send, Response(status=200), operation=hostile, channel=hostile, user=hostile, key=hostile)
        if not number % 100:
            call(send, strange(), operation=hostile)
            plugin.chatsdk_event(
                Client(), events.RetryScheduled(operation=hostile, attempt=1, delay=0, correlation_id=hostile)
            )
            plugin.chatsdk_event(Client(), events.CircuitStateChanged(circuit=hostile, old="closed", new="open"))
    found = scrape(registry)
    assert {label for _, labels in found for label in labels if label[0] != "le"} == {
        ("operation", "other"),
        ("type", "other"),
        ("circuit", "other"),
        ("circuit", "api"),
    }
    assert value(found, "request_latency_ms_count", operation="other") == 10_100


def test_most_series_that_there_can_be(registry: CollectorRegistry) -> None:
    """With every operation and every error seen, the exposition is still a page, not a flood."""
    send = layer(Prometheus(registry), Client())
    for operation in OPERATIONS:
        call(send, Response(status=200), operation=operation)
    for name in ERRORS:
        call(send, vars(errors)[name]("x"))
    assert len(scrape(registry)) < 400


def test_correlation_id_is_an_exemplar(registry: CollectorRegistry) -> None:
    """OpenMetrics shows beside a figure which call made it; what is too long or not printable is left out."""
    plugin = Prometheus(registry)
    send = layer(plugin, Client())
    call(send, errors.ServerError("down", status=503), correlation_id="the-id")
    for bad in ("x" * 500, "a\nb", "ä", ""):
        call(send, Response(status=200), operation="search", correlation_id=bad)
    text = openmetrics(registry).decode()
    samples = [sample for family in read_openmetrics(text) for sample in family.samples if sample.exemplar]
    assert {sample.name for sample in samples} == {"client_http_errors_total", "request_latency_ms_bucket"}
    assert all(sample.exemplar.labels == {"correlation_id": "the-id"} for sample in samples)
    assert value(scrape(registry), "request_latency_ms_count", operation="search") == 4
    assert all("the-id" not in str(labels) for _, labels in scrape(registry))


def test_names_that_are_taken(caplog: pytest.LogCaptureFixture) -> None:
    """An application that has a metric of such a name keeps it; the collector can go elsewhere, and calls go on."""
    registry = CollectorRegistry()
    Counter("sync_success", "the application's own", registry=registry)
    plugin = Prometheus(registry)
    send = layer(plugin, Client())
    call(send, Response(status=200))
    assert "register = false" in caplog.text
    assert value(scrape(registry), "request_latency_ms_count", operation="messages.send") is None
    elsewhere = CollectorRegistry()
    elsewhere.register(plugin.collector)
    assert value(scrape(elsewhere), "request_latency_ms_count", operation="messages.send") == 1


def test_register_false(registry: CollectorRegistry) -> None:
    """With `register = false`, as text too, no registry is touched."""
    for told in (False, "false", "0"):
        layer(Prometheus(registry), Client(), register=told)
    assert scrape(registry) == {}


@pytest.mark.parametrize("port", ["-1", "65536", "http", [1]])
def test_port_that_is_none(registry: CollectorRegistry, port: object) -> None:
    """A port that is none is said, so that chatsdk disables the plugin with a warning."""
    with pytest.raises(ValueError, match="port must be"):
        layer(Prometheus(registry), Client(), port=port)


def test_instruments_that_fail(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """When the metrics cannot be kept (a full disk below many processes), calls go on, and it is said once."""

    def broken(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    plugin = Prometheus(registry)
    send = layer(plugin, Client())
    for name in ("_active", "_errors", "_retries", "_latency", "_failures", "_opens", "_pending"):
        instrument = getattr(plugin.collector, name)
        for method in ("inc", "dec", "set", "observe", "labels"):
            monkeypatch.setattr(instrument, method, broken, raising=False)
    for _ in range(3):
        call(send, Response(status=200))
        call(send, errors.ServerError("down", status=503))
        plugin.chatsdk_event(Client(), events.RetryScheduled(operation="x", attempt=1, delay=0))
        plugin.chatsdk_event(Client(), events.MessageFailed(id=1, key="k", user="u", channel="c", state="QUEUED"))
        plugin.chatsdk_event(Client(), events.CircuitStateChanged(circuit="api", old="closed", new="open"))
    said = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len({record.getMessage() for record in said}) == 1
    assert len(said) == len({"begin", "finish", "retried", "synced", "circuit"})


def test_threads(registry: CollectorRegistry) -> None:
    """No call is lost or counted twice when many threads count."""
    send = layer(Prometheus(registry), Client())

    def work() -> None:
        for _ in range(500):
            call(send, Response(status=200))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = scrape(registry)
    assert value(found, "request_latency_ms_count", operation="messages.send") == 4000
    assert value(found, "active_requests") == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_fork_in_the_middle_of_counting(registry: CollectorRegistry) -> None:
    """A child that is forked while other threads count can count at once: no lock stays shut in it."""
    program = """
import os, signal, sys, threading, warnings
from chatsdk_prometheus.collector import ChatCollector
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forks beside threads: that is the point
collector, stop = ChatCollector(), threading.Event()
def count():
    while not stop.is_set():
        collector.begin()
        collector.finish("messages.send", 1.0, "", "c")
threads = [threading.Thread(target=count, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
codes = []
for _ in range(40):
    child = os.fork()
    if not child:
        signal.alarm(10)
        collector.begin()
        gauge = next(m for m in collector.collect() if m.name == "active_requests")
        os._exit(0 if gauge.samples[0].value == 1 else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    if codes[-1]:
        break
stop.set()
print(set(codes))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "{0}", done.stdout + done.stderr


def test_import_is_cheap() -> None:
    """Whoever has the plugin installed and only enqueues never loads prometheus_client."""
    program = "import sys, chatsdk_prometheus; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def test_many_processes(tmp_path: Path) -> None:
    """Where prometheus_client gathers from many processes, as under gunicorn, the figures of all are summed, and
    `pending_sync_items` is not: they share one outbox."""
    program = """
import sys
from types import SimpleNamespace
from chatsdk.plugin import Metrics
from chatsdk_prometheus.collector import ChatCollector
class Client: metrics = Metrics()
client, collector = Client(), ChatCollector()
collector.watch(client)
client.metrics.gauge("pending_sync_items", 5)
collector.begin()
collector.finish("messages.send", 20.0, "ServerError", "c-1")
collector.synced(False, "c-1")
print("done", flush=True)
sys.stdin.read()
"""
    env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    gather = """
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
registry = CollectorRegistry()
MultiProcessCollector(registry)
print(generate_latest(registry).decode())
"""
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "done\n"
        text = subprocess.run([sys.executable, "-c", gather], env=env, capture_output=True, text=True, timeout=60)
    finally:
        for worker in workers:
            worker.communicate(timeout=60)
    found = parse(text.stdout)
    assert value(found, "request_latency_ms_count", operation="messages.send") == 3
    assert value(found, "client_http_errors_total", type="ServerError") == 3
    assert value(found, "sync_failures_total") == 3
    assert value(found, "pending_sync_items") == 5
