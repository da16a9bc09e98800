"""Telemetry: what is known of every call. The outermost layer, so that it sees what the user sees.

* Every call has a correlation id: it is sent as X-Request-ID, kept over all tries and found in every log record of the
  call (`record.correlation_id`).
* Calls are counted and timed by the names of `chatsdk.plugin.Metrics`; retries, circuits and deliveries are counted
  from their events.
* Records go to the standard library's logging, below the logger "chatsdk". An outage is one line when it begins and one
  when it ends, not one an attempt. No token and no body is ever logged.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from chatsdk.plugin import CallNext, Middleware, PluginClient, Request, Response, Stage, errors, events, hookimpl

log = logging.getLogger("chatsdk")

_OUTAGE = (errors.NotSentError, errors.OutcomeUnknownError, errors.ServerError)
_NO_EXCHANGE = (errors.CircuitOpenError, errors.TokenUnavailableError)


class Telemetry:
    """The layer."""

    def __init__(self, client: PluginClient) -> None:
        self._client = client
        self._monotonic = client.clock.monotonic
        self._lock = threading.Lock()
        self._down_since: float | None = None
        self._failed_calls = 0

    def __call__(self, request: Request, call_next: CallNext) -> Response:
        """One call, timed and counted."""
        if not request.correlation_id:
            request = request.replace(correlation_id=self._new_id())
        metrics = self._client.metrics
        began = self._monotonic()
        metrics.begin()
        try:
            response = call_next(request)
        except BaseException as error:
            asked = isinstance(error, Exception) and not isinstance(error, _NO_EXCHANGE)
            took = (self._monotonic() - began) * 1000
            metrics.finish(took if asked else None, type(error).__name__)
            self._failed(request, error, took)
            raise
        took = (self._monotonic() - began) * 1000
        metrics.finish(None if response.from_cache else took)
        if self._down_since is not None and not response.from_cache:
            self._recovered(request)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s: %d in %.1f ms", request.operation, response.status, took, extra=_facts(request))
        return response

    def _new_id(self) -> str:
        return f"{int(self._client.random() * 2**53):014x}{int(self._client.random() * 2**53):014x}"

    def _failed(self, request: Request, error: BaseException, took: float) -> None:
        if isinstance(error, _OUTAGE) and not isinstance(error, _NO_EXCHANGE):
            with self._lock:
                self._failed_calls += 1
                first = self._down_since is None
                if first:
                    self._down_since = self._monotonic()
            if first:
                code = getattr(error, "code", "")
                log.warning(
                    "%s failed: %s (%s); said once until the server answers again",
                    request.operation,
                    type(error).__name__,
                    code,
                    extra=_facts(request),
                )
                return
        if log.isEnabledFor(logging.DEBUG):
            name = type(error).__name__
            log.debug("%s: %s in %.1f ms", request.operation, name, took, extra=_facts(request))

    def _recovered(self, request: Request) -> None:
        with self._lock:
            since, calls = self._down_since, self._failed_calls
            self._down_since, self._failed_calls = None, 0
        if since is not None:
            seconds = self._monotonic() - since
            log.warning("the server answers again after %.1f s, %d calls failed", seconds, calls, extra=_facts(request))


def _facts(request: Request) -> dict[str, str]:
    return {"correlation_id": request.correlation_id, "operation": request.operation}


@hookimpl
def chatsdk_middleware(client: PluginClient) -> Middleware:
    """The layer."""
    return Middleware("telemetry", Stage.TELEMETRY, Telemetry(client))


@hookimpl
def chatsdk_event(client: PluginClient, event: events.Event) -> None:
    """Count what is told by events."""
    counter = _COUNTED.get(type(event))
    if counter is not None:
        client.metrics.count(counter)
    elif isinstance(event, events.CircuitStateChanged):
        if event.new == "open":
            client.metrics.count("circuit_breaker_opens_total")
        client.metrics.gauge("open_circuits", len(client.circuits.open_names()))


_COUNTED: Mapping[type[events.Event], str] = {
    events.RetryScheduled: "retry_attempts_total",
    events.MessageSent: "sync_success_total",
    events.MessageFailed: "sync_failures_total",
    events.MessagePermanentFailure: "sync_failures_total",
}
