"""What the tests share: the real SDK with exporters in memory, and a server that says what it was told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from chatsdk_opentelemetry import OpenTelemetry
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Telemetry:
    """The plugin with an SDK of its own, and what that was told."""

    def __init__(self, *processors: SpanProcessor, sampler: Any = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        # atexit hooks of providers would outlive the test
        self.tracers = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        for processor in (*processors, SimpleSpanProcessor(self.exporter)):
            self.tracers.add_span_processor(processor)
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.plugin = OpenTelemetry(self.tracers, self.meters)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """Ended spans, in the order of their ends."""
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """Ended spans of a name, the earliest first."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.start_time or 0)

    def points(self, metric: str) -> dict[frozenset[tuple[str, Any]], Any]:
        """The points of a metric: attributes to value, or to how many were recorded."""
        data = self.reader.get_metrics_data()
        found = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for each in scope.metrics:
                    if each.name == metric:
                        for point in each.data.data_points:
                            amount = point.count if hasattr(point, "count") else point.value
                            found[frozenset((point.attributes or {}).items())] = amount
        return found

    def written(self) -> str:
        """Everything that would be exported, as text."""
        data = self.reader.get_metrics_data()
        return "".join(span.to_json() for span in self.spans) + ("" if data is None else data.to_json())


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """A span's attributes."""
    return dict(span.attributes or {})


def noted(span: ReadableSpan, name: str) -> list[dict[str, Any]]:
    """The attributes of a span's events of a name."""
    return [dict(event.attributes or {}) for event in span.events if event.name == name]


def parent(span: ReadableSpan) -> int | None:
    """The id of a span's parent."""
    return None if span.parent is None else span.parent.span_id


def identity(span: ReadableSpan) -> int:
    """A span's id."""
    return int(span.get_span_context().span_id)


def eventually(check: Callable[[], object]) -> None:
    """Wait until it is true."""
    end = time.monotonic() + 10
    while not check():
        assert time.monotonic() < end, "it did not happen"
        threading.Event().wait(0.01)


@contextmanager
def recording_server(statuses: Sequence[int]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that answers sends with these statuses in turn: its URL, and the headers of each request."""
    left, heard = list(statuses), list[dict[str, str]]()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            heard.append({name.lower(): value for name, value in self.headers.items()})
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = left.pop(0)
            body = json.dumps({"id": sent["clientMsgId"], "clientMsgId": sent["clientMsgId"], "seq": 1}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
