"""The metrics, through OpenTelemetry's metrics API.

    http.client.request.duration  histogram, s   each exchange, as the semantic conventions have it
    request_latency_ms            histogram, ms  each call that went to the server: chatsdk.operation
    client_http_errors_total      counter        failed calls: error.type
    sync_failures_total           counter
    sync_success_total            counter
    circuit_breaker_opens_total   counter        chatsdk.circuit
    retry_attempts_total          counter        chatsdk.operation
    fallbacks_used_total          counter
    active_requests               up-down counter
    pending_sync_items            gauge
    open_circuits                 gauge

The ten without dots have chatsdk's own names, the same as everywhere else. What only the client knows
(`pending_sync_items`, `open_circuits`, `fallbacks_used_total`) is read from its own figures when metrics are collected.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from chatsdk.plugin import CIRCUITS, OPERATIONS, PluginClient

from .attributes import OTHER, Attributes, known
from .harmless import harmless

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""As the conventions advise for http.client.request.duration."""

BUCKETS_MS = (10, 50, 150, 300, 1000, 2000, 5000, 10000)
"""Those of chatsdk's own histogram."""


class Figures:
    """The instruments. Thread-safe. What is told of a call raises nothing into it."""

    def __init__(self, meter: Meter) -> None:
        self.operations = OPERATIONS
        self._lock = threading.Lock()
        self._clients: weakref.WeakKeyDictionary[PluginClient, float] = weakref.WeakKeyDictionary()  # its fallbacks
        self._fallbacks = 0.0
        self._exchange = meter.create_histogram(
            "http.client.request.duration",
            "s",
            "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=BUCKETS_S,
        )
        self._latency = meter.create_histogram(
            "request_latency_ms",
            "ms",
            "Duration of calls that went to the server.",
            explicit_bucket_boundaries_advisory=BUCKETS_MS,
        )
        self._errors = meter.create_counter("client_http_errors_total", "{call}", "Failed calls.")
        self._failures = meter.create_counter("sync_failures_total", "{try}", "Tries of outbox messages that failed.")
        self._successes = meter.create_counter("sync_success_total", "{message}", "Outbox messages delivered.")
        self._opens = meter.create_counter("circuit_breaker_opens_total", "{time}", "Times that a circuit opened.")
        self._retries = meter.create_counter("retry_attempts_total", "{try}", "Retries that were scheduled.")
        self._active = meter.create_up_down_counter("active_requests", "{call}", "Calls under way.")
        meter.create_observable_counter(
            "fallbacks_used_total", [self._observe_fallbacks], "{answer}", "Answers that came from a fallback."
        )
        meter.create_observable_gauge(
            "pending_sync_items", [self._observe_pending], "{message}", "Outbox messages that wait."
        )
        meter.create_observable_gauge(
            "open_circuits", [self._observe_open], "{circuit}", "Circuits that are not closed."
        )

    def watch(self, client: PluginClient) -> None:
        """Show this client's figures too, as long as it lives."""
        with self._lock:
            self._clients.setdefault(client, 0.0)

    @harmless
    def begin(self) -> None:
        """A call begins."""
        self._active.add(1)

    @harmless
    def finish(self, operation: str, ms: float | None, error: str) -> None:
        """A call ended after `ms` (None: nothing was asked of the server); `error`: its type, or ""."""
        self._active.add(-1)
        if error:
            self._errors.add(1, {"error.type": error})
        if ms is not None:
            self._latency.record(ms, self._by_operation(operation))

    @harmless
    def exchanged(self, seconds: float, attributes: Attributes) -> None:
        """One exchange with the server."""
        self._exchange.record(seconds, attributes)

    @harmless
    def retried(self, operation: str) -> None:
        """Another try follows."""
        self._retries.add(1, self._by_operation(operation))

    @harmless
    def synced(self, well: bool) -> None:
        """A message of the outbox was delivered, or a try of one failed."""
        (self._successes if well else self._failures).add(1)

    @harmless
    def opened(self, circuit: str) -> None:
        """A circuit opened."""
        self._opens.add(1, {"chatsdk.circuit": known(circuit, CIRCUITS)})

    def after_fork(self) -> None:
        """In a forked child: a lock that another thread held there would never be released."""
        self._lock = threading.Lock()

    def _by_operation(self, operation: str) -> Attributes:
        return {"chatsdk.operation": operation if operation in self.operations else OTHER}

    # ---- when metrics are collected

    def _observe_pending(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(self._sum("pending_sync_items"))]

    def _observe_open(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(self._sum("open_circuits"))]

    def _observe_fallbacks(self, _: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            for client, seen in list(self._clients.items()):
                now = client.metrics.value("fallbacks_used_total")
                self._fallbacks += max(0.0, now - seen)
                self._clients[client] = now
            return [Observation(self._fallbacks)]

    def _sum(self, name: str) -> float:
        with self._lock:
            return sum(client.metrics.value(name) for client in list(self._clients))
