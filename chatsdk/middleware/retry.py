"""Retry: the border between a call and its tries. It owns the deadline, and everything further in runs once per try.

It keeps no list of errors; it asks the error (`retryable`, `retry_after`) and the request:
* reads, keyed and repeatable calls are tried again after every retryable error;
* other mutations only after NotSentError, at most three times, because anything else may have happened already;
* `Retry-After` is obeyed if it fits the deadline; if not, the error surfaces with it;
* a retry must be paid for from the client's budget, so that retries do not multiply an outage;
* a request with `single_try` passes once: whoever made it (the outbox) tries again by himself.
"""

from __future__ import annotations

import logging

from chatsdk.plugin import (
    CallNext,
    Middleware,
    PluginClient,
    Request,
    Response,
    Stage,
    backoff,
    errors,
    events,
    hookimpl,
)

log = logging.getLogger("chatsdk.retry")


class Retry:
    """The layer. `preset`: the name of the back-off's preset; `waits`: the back-off."""

    def __init__(self, client: PluginClient, preset: str, waits: backoff.Backoff) -> None:
        self._client = client
        self._waits = waits
        self._server_tries = min(waits.tries, backoff.PATIENT_5XX_TRIES) if preset == "patient" else waits.tries
        self._timeout = client.settings.timeout

    def __call__(self, request: Request, call_next: CallNext) -> Response:
        """Try until it succeeds, or until another try is no use."""
        client = self._client
        if request.deadline is None:
            request = request.replace(deadline=client.clock.monotonic() + self._timeout)
        try:
            response = call_next(request)
        except errors.ChatError as error:
            if request.single_try:
                raise
            failed = error
        else:
            client.budget.success()
            return response
        while True:
            delay = self._delay(request, failed)
            if delay is None:
                raise failed
            self._announce(request, failed, delay)
            if client.clock.wait(client.closing, delay):
                raise failed
            request = request.replace(attempt=request.attempt + 1)
            try:
                return call_next(request)
            except errors.ChatError as error:
                failed = error

    def _delay(self, request: Request, error: errors.ChatError) -> float | None:
        """Seconds to wait before the next try, or None: there is none."""
        if not error.retryable or request.attempt >= self._tries(request, error):
            return None
        delay = self._waits.delay(request.attempt, self._client.random())
        asked = getattr(error, "retry_after", None)
        if asked is not None:
            delay = max(delay, asked)
        if request.deadline is not None and self._client.clock.monotonic() + delay >= request.deadline:
            return None
        return delay if self._client.budget.take(error) else None

    def _tries(self, request: Request, error: errors.ChatError) -> int:
        if not (request.is_read or request.repeatable or request.key is not None):
            if not isinstance(error, errors.NotSentError):
                return 1
            return min(self._waits.tries, backoff.UNKEYED_TRIES)
        return self._server_tries if isinstance(error, errors.ServerError) else self._waits.tries

    def _announce(self, request: Request, error: errors.ChatError, delay: float) -> None:
        self._client.emit(
            events.RetryScheduled(
                operation=request.operation,
                attempt=request.attempt,
                delay=delay,
                error=error,
                correlation_id=request.correlation_id,
                key=request.key,
            )
        )
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "%s: try %d failed (%s), next in %.3f s",
                request.operation,
                request.attempt,
                type(error).__name__,
                delay,
                extra={"correlation_id": request.correlation_id},
            )


@hookimpl
def chatsdk_middleware(client: PluginClient) -> Middleware:
    """The layer, by the setting `retry`."""
    settings = client.settings
    return Middleware("retry", Stage.RETRY, Retry(client, settings.retry, settings.backoff()))
