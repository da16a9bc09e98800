"""Telemetry: what is known of every call. The outermost layer, so that it sees what the user sees.

* Every call has a correlation id: it is sent as X-Request-ID, kept over all tries and found in every log record of the
  call (`record.correlation_id`).
* Calls are counted and timed by the names of `chatsdk.plugin.Metrics`; retries, circuits and deliveries are counted
  from their events.
* Records go to the standard library's logging, below the logger "chatsdk". An outage is one line when it begins and one
  when it ends, not one an attempt; other errors are one line a kind, and then one a minute. What is to be said decides
  `client.metrics`, which remembers the errors. No token, no body and no text of a server is ever logged.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from chatsdk.plugin import CallNext, Middleware, PluginClient, Request, Response, Stage, errors, events, hookimpl

log = logging.getLogger("chatsdk")

_NO_EXCHANGE = (errors.CircuitOpenError, errors.TokenUnavailableError)


class Telemetry:
    """The layer."""

    def __init__(self, client: PluginClient) -> None:
        self._client = client
        self._monotonic = client.clock.monotonic

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
            if isinstance(error, errors.ChatError):  # of a circuit, a token or the cache, which know no ids
                error.request_id = error.request_id or request.correlation_id
            asked = isinstance(error, Exception) and not isinstance(error, _NO_EXCHANGE)
            took = (self._monotonic() - began) * 1000
            metrics.finish(took if asked else None, type(error).__name__, request.operation)
            line = metrics.failed(request.operation, error, took, request.correlation_id)
            if line:
                log.warning("%s", line, extra=_facts(request))
            elif log.isEnabledFor(logging.DEBUG):
                name = type(error).__name__
                log.debug("%s: %s in %.1f ms", request.operation, name, took, extra=_facts(request))
            raise
        took = (self._monotonic() - began) * 1000
        if response.from_cache:
            metrics.finish(None)
        else:
            metrics.finish(took, None, request.operation)
            if metrics.failing:
                line = metrics.answered(request.operation)
                if line:
                    log.warning("%s", line, extra=_facts(request))
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s: %d in %.1f ms", request.operation, response.status, took, extra=_facts(request))
        return response

    def _new_id(self) -> str:
        return f"{int(self._client.random() * 2**53):014x}{int(self._client.random() * 2**53):014x}"


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
