"""How one client is doing: its network, its features, its health. Each part is made when it is first needed.

What goes through here on its way to the server is looked at, never changed: an exchange tells the monitor how it went,
and a call that ends while something is off has the features look again. One-shot mode goes without: nobody could make
use of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .core.errors import ChatError
from .core.events import CircuitStateChanged, Event
from .core.exchange import CallNext, Request, Response
from .core.identity import uuid7

if TYPE_CHECKING:
    from .core.backend import Backend
    from .core.clock import Clock
    from .core.settings import Settings
    from .network.features import Features
    from .network.health import Health
    from .network.monitor import NetworkMonitor
    from .outbox.outbox import Outbox
    from .realtime.realtime import Realtime
    from .resilience.circuits import Circuits
    from .resilience.metrics import Metrics

PROBE_TIMEOUT = 5.0
"""Seconds that a probe of the network may take: as long as a quick call (seed 003)."""

PROBE_BYTES = 64 * 2**10
"""Longest answer to a probe that is read; a server says in a few hundred how it is."""


class Condition:
    """Thread-safe.

    once             makes a part of the client, by name, the first time it is asked for
    backend          the chat system
    transport        the bare exchange with the server
    emit, subscribe  the client's events
    restored         called when there is contact with the server again
    watching         called when somebody begins to watch the network
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        metrics: Metrics,
        circuits: Circuits,
        once: Callable[[str, Callable[[], Any]], Any],
        backend: Callable[[], Backend],
        transport: Callable[[], CallNext],
        emit: Callable[[Event], None],
        subscribe: Callable[..., object],
        restored: Callable[[], object],
        watching: Callable[[], object],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._circuits = circuits
        self._once = once
        self._backend = backend
        self._transport = transport
        self._emit = emit
        self._subscribe = subscribe
        self._restored = restored
        self._watching = watching

    @property
    def network(self) -> NetworkMonitor:
        """How the network is."""
        monitor: NetworkMonitor = self._once("network", self._make_network)
        return monitor

    @property
    def features(self) -> Features:
        """What works at the moment, and what stands in for what does not."""
        features: Features = self._once("features", self._make_features)
        return features

    # ---- what is looked at

    def seen_exchange(self) -> CallNext:
        """The transport, whose exchanges are samples of the network."""
        if not self._settings.background:
            return self._transport()
        from .network.tries import observed

        return observed(self._transport(), self.network.sample, self._clock.monotonic)

    def seen_chain(self, chain: CallNext) -> CallNext:
        """The pipeline, after whose calls features that were off may be there again."""
        if not self._settings.background:
            return chain
        features = self.features  # from now on there is something to tell of them, whoever asks for one

        def whole(request: Request) -> Response:
            try:
                return chain(request)
            finally:
                if features.ailing:
                    features.refresh()

        return whole

    def probe(self) -> None:
        """Ask the server how it is, past circuits and retries: they would spoil the sample."""
        from .network.tries import observed

        request = (
            self._backend()
            .health()
            .request.replace(
                correlation_id=uuid7(self._clock.time(), os.urandom(10)),
                deadline=self._clock.monotonic() + PROBE_TIMEOUT,
                single_try=True,
                max_bytes=PROBE_BYTES,
            )
        )
        try:
            observed(self._transport(), self.network.probed, self._clock.monotonic)(request)
        except ChatError as error:  # that is a sample, too
            self._metrics.remember(request.operation, error, request.correlation_id)

    # ---- all of it in one value

    def health(self, outbox: Outbox | None, realtime: Realtime | None) -> Health:
        """How the client is, as far as it knows without asking anybody: see `ChatClient.health`. outbox, realtime: None
        where this process uses none."""
        from .network.health import judge

        stats, error = None, ""
        if outbox is not None:
            try:
                stats = outbox.stats()
            except Exception as failed:  # a store may be anybody's, and who asks about health wants an answer
                error = str(failed) or type(failed).__name__
        circuits = self._circuits
        return judge(
            self._metrics.recent(),
            [name for name in circuits.open_names() if not circuits.counts(name).successes],
            self.network.metrics(),
            outbox=stats,
            outbox_error=error,
            connection="CLOSED" if realtime is None else realtime.connection.state.value,
            polling=realtime is not None and realtime.polling,
            degradation=self.features.level.value,
            now=self._clock.time(),
        )

    # ---- making

    def _make_network(self) -> NetworkMonitor:
        from .network.link import is_local
        from .network.monitor import NetworkMonitor

        return NetworkMonitor(
            clock=self._clock,
            emit=self._emit,
            probe=self.probe,
            restored=self._restored,
            watching=self._watching,
            watch_link=not is_local(urlsplit(self._settings.url).hostname or ""),
            background=self._settings.background,
        )

    def _make_features(self) -> Features:
        from .core.network_events import NetworkQualityChanged
        from .network.features import Features

        features = Features(
            self._circuits,
            lambda: self.network.quality,
            clock=self._clock,
            emit=self._emit,
            count=self._metrics.count,
        )
        for event in (CircuitStateChanged, NetworkQualityChanged):
            self._subscribe(event, lambda _: features.refresh())
        return features
