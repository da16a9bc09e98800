"""The plugin.

Settings, under `[plugins.opentelemetry]` or as `CHATSDK_PLUGIN_OPENTELEMETRY_*`:

    propagate   send traceparent and tracestate to the server (true)
    operations  operations of another backend that are told apart
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from chatsdk.plugin import Middleware, PluginClient, Request, Stage, events, hookimpl, operations

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from .spans import Spans

SCOPE = "chatsdk_opentelemetry"
SCHEMA = "https://opentelemetry.io/schemas/1.28.0"

_OFF = (False, 0, "false", "0", "no", "off")


class OpenTelemetry:
    """The plugin. Without providers, the application's global ones are used, also those that it sets later.

    The one that chatsdk finds is `plugin`. Another one is for tests: `ChatClient(plugins=[OpenTelemetry(mine)],
    discover=False)`.
    """

    chatsdk_name = "opentelemetry"

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        self._providers = tracer_provider, meter_provider
        self._lock = threading.Lock()
        self._made: Spans | None = None

    @hookimpl
    def chatsdk_accept(self, request: Request) -> None:
        """A message is sent: in the caller's thread, so below the span that is current there."""
        self._spans().accepted(request)

    @hookimpl
    def chatsdk_middleware(self, client: PluginClient, config: Mapping[str, Any]) -> list[Middleware]:
        """One layer around each call and one around each exchange. Raises ValueError for settings that make no
        sense."""
        from .spans import CallLayer, TryLayer

        more = operations(config)
        spans = self._spans()
        spans.figures.operations |= more
        spans.figures.watch(client)
        propagate = config.get("propagate", True) not in _OFF
        return [
            Middleware("opentelemetry", Stage.TELEMETRY, CallLayer(client, spans)),
            Middleware("opentelemetry-try", Stage.AUTH, TryLayer(client, spans, propagate=propagate)),
        ]

    @hookimpl
    def chatsdk_event(self, client: PluginClient, event: events.Event) -> None:
        """Retries, circuits, what becomes of messages, and the end of the client."""
        if isinstance(event, (events.MessageEvent, events.RetryScheduled, events.CircuitStateChanged)):
            self._spans().told(client, event)
        elif isinstance(event, events.ClientClosed) and self._made is not None:
            self._made.closed(client)

    def _spans(self) -> Spans:
        made = self._made
        if made is None:
            with self._lock:
                made = self._made
                if made is None:
                    made = self._made = self._make()
        return made

    def _make(self) -> Spans:
        from opentelemetry import metrics, trace

        from . import __version__
        from .figures import Figures
        from .spans import Spans

        tracers, meters = self._providers
        figures = Figures(metrics.get_meter(SCOPE, __version__, meters, SCHEMA))
        spans = Spans(trace.get_tracer(SCOPE, __version__, tracers, SCHEMA), figures)
        atexit.register(spans.close)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=figures.after_fork)
        return spans


plugin = OpenTelemetry()
