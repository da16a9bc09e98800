"""The plugin: what happens in chatsdk, told to the collector.

Settings, under `[plugins.prometheus]` or as `CHATSDK_PLUGIN_PROMETHEUS_*`:

    register    put the metrics into prometheus_client.REGISTRY (true)
    port        show them at http://127.0.0.1:PORT/metrics (not set: no endpoint)
    operations  operations of another backend that get a label of their own

The layer stands at TELEMETRY, inside chatsdk's own: it sees what that sees, and its numbers are the same.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chatsdk.plugin import (
    CallNext,
    Middleware,
    PluginClient,
    Request,
    Response,
    Stage,
    errors,
    events,
    hookimpl,
    operations,
)

from .endpoint import Endpoint

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from .collector import ChatCollector

log = logging.getLogger("chatsdk.plugins.prometheus")

_OFF = (False, 0, "false", "0", "no", "off")
_NO_EXCHANGE = (errors.CircuitOpenError, errors.TokenUnavailableError)


class Prometheus:
    """The plugin, with metrics of its own. `registry`: where they go, if not to prometheus_client.REGISTRY.

    The one that chatsdk finds is `plugin`. Another one is for tests: `ChatClient(plugins=[Prometheus(registry)],
    discover=False)`.
    """

    chatsdk_name = "prometheus"

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        self._collector: ChatCollector | None = None
        self._registered = False
        self._endpoint = Endpoint()

    @property
    def port(self) -> int:
        """Where the endpoint listens; 0: there is none."""
        return self._endpoint.port

    @property
    def collector(self) -> ChatCollector:
        """The metrics; any registry takes it."""
        made = self._collector
        if made is None:
            from .collector import ChatCollector

            with self._lock:
                made = self._collector = self._collector or ChatCollector()
        return made

    @hookimpl
    def chatsdk_middleware(self, client: PluginClient, config: Mapping[str, Any]) -> Middleware:
        """One layer around each call. Raises ValueError for settings that make no sense."""
        port = _port(config)
        more = operations(config)
        collector = self.collector
        collector.operations |= more
        collector.watch(client)
        if config.get("register", True) not in _OFF:
            self._register()
        if port is not None:
            self._endpoint.serve(collector, port, client)
        return Middleware("prometheus", Stage.TELEMETRY, Layer(client, collector))

    @hookimpl
    def chatsdk_event(self, client: PluginClient, event: events.Event) -> None:
        """Count what is told by events; the endpoint goes with the last client."""
        if isinstance(event, events.RetryScheduled):
            self.collector.retried(event.operation, event.correlation_id)
        elif isinstance(event, events.MessageSent):
            self.collector.synced(True, event.correlation_id)
        elif isinstance(event, (events.MessageFailed, events.MessagePermanentFailure)):
            self.collector.synced(False, event.correlation_id)
        elif isinstance(event, events.CircuitStateChanged):
            self.collector.circuit(event.circuit, event.new == "open")
        elif isinstance(event, events.MessageQueued) and self._collector is not None:  # not worth an import
            self.collector.changed()
        elif isinstance(event, events.ClientClosed):
            self._endpoint.release(client)

    def _register(self) -> None:
        from prometheus_client import REGISTRY

        with self._lock:
            if self._registered:
                return
            self._registered = True
        try:
            (self._registry or REGISTRY).register(self.collector)
        except ValueError as error:  # the application has metrics of these names
            log.warning(
                "the metrics are not in the registry: %s; set register = false under [plugins.prometheus], and give "
                "chatsdk_prometheus.plugin.collector a registry of its own",
                error,
            )


class Layer:
    """The layer: counts and times each call."""

    def __init__(self, client: PluginClient, collector: ChatCollector) -> None:
        self._monotonic = client.clock.monotonic
        self._collector = collector

    def __call__(self, request: Request, call_next: CallNext) -> Response:
        """One call."""
        collector, began = self._collector, self._monotonic()
        collector.begin()
        try:
            response = call_next(request)
        except BaseException as error:
            asked = isinstance(error, Exception) and not isinstance(error, _NO_EXCHANGE)
            took = (self._monotonic() - began) * 1000 if asked else None
            collector.finish(request.operation, took, type(error).__name__, request.correlation_id)
            raise
        took = None if response.from_cache else (self._monotonic() - began) * 1000
        collector.finish(request.operation, took, "", request.correlation_id)
        return response


def _port(config: Mapping[str, Any]) -> int | None:
    told = config.get("port", "")
    if told in ("", None, False):
        return None
    try:
        port = int(told)
    except (TypeError, ValueError):
        port = -1
    if not 0 <= port < 2**16:
        raise ValueError(f"port must be a number from 0 (any) to 65535, not {told!r}")
    return port


plugin = Prometheus()
