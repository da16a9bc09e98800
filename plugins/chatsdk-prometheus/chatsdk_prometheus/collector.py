"""The metrics: ten, by chatsdk's own names, as instruments of prometheus_client behind one collector.

    client_http_errors_total     counter    type: class of the error
    sync_failures_total          counter
    sync_success_total           counter
    circuit_breaker_opens_total  counter    circuit
    retry_attempts_total         counter    operation
    fallbacks_used_total         counter
    request_latency_ms           histogram  operation; without those that were answered from the cache
    active_requests              gauge
    pending_sync_items           gauge
    open_circuits                gauge

Rules:
* Real instruments, not numbers that are read at a scrape: so they also work where prometheus_client gathers them from
  many processes (PROMETHEUS_MULTIPROC_DIR). What only the client knows (`pending_sync_items`, `open_circuits`,
  `fallbacks_used_total`) is copied from its own figures at each event and each scrape.
* A label is one of chatsdk's own words, or `other`: no server, user or plugin can choose how many series there are.
* The correlation id is no label. It stands beside the figures as an exemplar, which OpenMetrics shows.
* Nothing here raises into a call: what goes wrong is logged once, and the call goes on (`harmless`).
* Every change is made under one lock, which a fork waits for: a child never inherits an instrument that is locked.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import weakref
from collections.abc import Callable, Container, Iterable
from typing import ParamSpec

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric

from chatsdk.plugin import CIRCUITS, ERRORS, OPERATIONS, PluginClient

log = logging.getLogger("chatsdk.plugins.prometheus")

BUCKETS_MS = (10, 50, 150, 300, 1000, 2000, 5000, 10000)
"""Those of chatsdk's own histogram: the bounds of network quality (50, 150, 300) and of health (1, 2 s) among them."""

OTHER = "other"
"""The label of whatever is none of chatsdk's words."""

LONGEST_EXEMPLAR = 100
"""Characters of a correlation id. OpenMetrics allows 128 with the name; ours have 36."""

P = ParamSpec("P")


def harmless(call: Callable[P, None]) -> Callable[P, None]:
    """What `call` raises is logged, the first time with its trace, and goes no further."""
    said = threading.Event()

    @functools.wraps(call)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            call(*args, **kwargs)
        except Exception as error:
            if not said.is_set():
                said.set()
                log.error("metrics can't be kept (said once); calls are not affected", exc_info=error)

    return guarded


class ChatCollector:
    """A collector of prometheus_client: give it to any registry, or to several. One a process is enough.

    Its methods but `collect` and `describe` are for the plugin's layer and events. Thread-safe.
    """

    def __init__(self) -> None:
        self.operations = OPERATIONS
        self._lock = threading.RLock()
        self._clients: weakref.WeakKeyDictionary[PluginClient, float] = weakref.WeakKeyDictionary()  # its fallbacks
        self._errors = Counter("client_http_errors", "Failed calls, by class of error.", ["type"], registry=None)
        self._failures = Counter("sync_failures", "Tries of outbox messages that failed.", registry=None)
        self._successes = Counter("sync_success", "Outbox messages that were delivered.", registry=None)
        self._opens = Counter("circuit_breaker_opens", "Times that a circuit opened.", ["circuit"], registry=None)
        self._retries = Counter("retry_attempts", "Retries that were scheduled.", ["operation"], registry=None)
        self._fallbacks = Counter("fallbacks_used", "Answers that came from a fallback.", registry=None)
        self._latency = Histogram(
            "request_latency_ms",
            "Duration of calls that went to the server, in milliseconds.",
            ["operation"],
            buckets=BUCKETS_MS,
            registry=None,
        )
        self._active = _gauge("active_requests", "Calls under way.", "livesum")
        # many processes drain one outbox: each knows how much waits in all
        self._pending = _gauge("pending_sync_items", "Outbox messages that wait.", "livemostrecent")
        self._open = _gauge("open_circuits", "Circuits that are not closed.", "livemax")
        self._all = (
            *(self._errors, self._failures, self._successes, self._opens, self._retries, self._fallbacks),
            *(self._latency, self._active, self._pending, self._open),
        )
        self._opens.labels("api")  # a series that begins at 0 shows its first increase
        self._errors_of: dict[str, Counter] = {}
        self._latency_of: dict[str, Histogram] = {}
        _hold_at_fork(self)

    # ---- for a registry

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        self.changed()
        with self._lock:
            return [metric for instrument in self._all for metric in instrument.collect()]

    def describe(self) -> Iterable[Metric]:
        """Their names: a registry that has one of them already refuses this collector."""
        return [metric for instrument in self._all for metric in instrument.describe()]

    # ---- for the plugin

    def watch(self, client: PluginClient) -> None:
        """Show this client's figures too, as long as it lives."""
        with self._lock:
            self._clients.setdefault(client, 0.0)

    @harmless
    def begin(self) -> None:
        """A call begins."""
        with self._lock:
            self._active.inc()

    @harmless
    def finish(self, operation: str, ms: float | None, error: str, correlation_id: str) -> None:
        """A call ended after `ms` (None: nothing was asked of the server); `error`: its class, or ""."""
        exemplar = _exemplar(correlation_id)
        with self._lock:
            self._active.dec()
            if error:
                error = known(error, ERRORS)
                counter = self._errors_of.get(error)
                if counter is None:
                    counter = self._errors_of[error] = self._errors.labels(error)
                counter.inc(1, exemplar)
            if ms is not None:
                operation = known(operation, self.operations)
                histogram = self._latency_of.get(operation)
                if histogram is None:
                    histogram = self._latency_of[operation] = self._latency.labels(operation)
                histogram.observe(ms, exemplar)

    @harmless
    def retried(self, operation: str, correlation_id: str) -> None:
        """Another try follows."""
        with self._lock:
            self._retries.labels(known(operation, self.operations)).inc(1, _exemplar(correlation_id))
            self._copy()

    @harmless
    def synced(self, well: bool, correlation_id: str) -> None:
        """A message of the outbox was delivered, or a try of one failed."""
        with self._lock:
            (self._successes if well else self._failures).inc(1, _exemplar(correlation_id))
            self._copy()

    @harmless
    def circuit(self, name: str, opened: bool) -> None:
        """A circuit moved."""
        with self._lock:
            if opened:
                self._opens.labels(known(name, CIRCUITS)).inc()
            self._copy()

    @harmless
    def changed(self) -> None:
        """Something happened that the client counts itself."""
        with self._lock:
            self._copy()

    def _copy(self) -> None:
        """Take over what only the clients know."""
        pending = opened = 0.0
        for client, seen in list(self._clients.items()):
            metrics = client.metrics
            pending += metrics.value("pending_sync_items")
            opened += metrics.value("open_circuits")
            fallbacks = metrics.value("fallbacks_used_total")
            if fallbacks > seen:
                self._fallbacks.inc(fallbacks - seen)
                self._clients[client] = fallbacks
        self._pending.set(pending)
        self._open.set(opened)

    # ---- forks

    def before_fork(self) -> None:
        """Let nobody be in the middle of a change."""
        self._lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.release()

    def after_fork(self) -> None:
        """In the child: the calls under way are the parent's."""
        self._lock = threading.RLock()
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:  # else it has files of its own, which begin at 0
            self._active.set(0)


def known(word: str, words: Container[str]) -> str:
    """The word, if it is one of those; else `other`."""
    return word if word in words else OTHER


def _gauge(name: str, text: str, mode: str) -> Gauge:
    return Gauge(name, text, registry=None, multiprocess_mode=mode)  # type: ignore[arg-type]  # a Literal of its words


def _exemplar(correlation_id: str) -> dict[str, str] | None:
    """An exemplar must not be long, and its text is shown as it is."""
    if 0 < len(correlation_id) <= LONGEST_EXEMPLAR and correlation_id.isascii() and correlation_id.isprintable():
        return {"correlation_id": correlation_id}
    return None


def _hold_at_fork(collector: ChatCollector) -> None:
    """Nothing can be unregistered there, so the collector is not kept alive by it."""
    if not hasattr(os, "register_at_fork"):
        return
    found = weakref.ref(collector)

    def tell(method: Callable[[ChatCollector], None]) -> Callable[[], None]:
        def hook() -> None:
            alive = found()
            if alive is not None:
                method(alive)

        return hook

    os.register_at_fork(
        before=tell(ChatCollector.before_fork),
        after_in_parent=tell(ChatCollector.after_fork_in_parent),
        after_in_child=tell(ChatCollector.after_fork),
    )
