"""Breaker: the circuit "api" around every try.

What counts as a failure of the server:

    connect errors, time-outs, 502, 503, 504, an answer that broke off     every try
    500, an answer that can't be used, a captive portal                    once per message (or per call, without a key)
    every other 4xx                                                        a success: the server did answer
    429, errors of plugins, of tokens, of our own                          neither
    a 5xx, a time-out, an answer that can't be used, of search or presence neither
    the end of a deadline that left the try less than PATIENT              neither

A real server answers 500 to mistakes of a caller, and a firewall may answer HTML to the text of one message: one poison
message, tried again and again, must not stop every channel. `auth.*` has a circuit of its own and does not pass here: a
probe that met a 401 could otherwise never close this one. Search and presence have circuits of their own, too, around
the whole call (the features of these names); they pass here, because a server that is away is away for them as well,
but a search engine that is down must not stop messages.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from functools import partial

from chatsdk.plugin import CallNext, Middleware, PluginClient, Request, Response, Stage, errors, hookimpl

CIRCUIT = "api"

REMEMBERED = 1024
"""Messages whose failure was counted; older ones are forgotten, and would count once more."""

PATIENT = 1.0
"""Seconds (half the setting `timeout`, if that is less) from which on a time-out counts. A caller that waits less says
more about itself, and must not stop the others."""

_FEATURES = ("search", "presence.")
"""Operations of features with circuits of their own."""

log = logging.getLogger("chatsdk.breaker")

_NOT_THE_SERVER = (errors.CircuitOpenError, errors.TokenUnavailableError)
_ONCE = (errors.InvalidResponseError, errors.CaptivePortalError)


class Breaker:
    """The layer."""

    def __init__(self, client: PluginClient) -> None:
        self._circuit = client.circuits[CIRCUIT]
        self._monotonic = client.clock.monotonic
        self._patient = min(PATIENT, client.settings.timeout / 2)
        self._lock = threading.Lock()
        self._counted: OrderedDict[str, None] = OrderedDict()

    def __call__(self, request: Request, call_next: CallNext) -> Response:
        """One try, if the circuit lets it through; else CircuitOpenError."""
        if request.operation.startswith("auth."):
            return call_next(request)
        try:
            return self._circuit.call(
                call_next, request, is_failure=partial(self._is_failure, request, self._monotonic())
            )
        except errors.CircuitOpenError as error:
            if log.isEnabledFor(logging.DEBUG):
                what = "%s: circuit %r is open, for %.3f s more"
                log.debug(what, request.operation, error.circuit, error.retry_after, extra=_facts(request))
            raise

    def _is_failure(self, request: Request, began: float, error: Exception) -> bool | None:
        failed = self._judge(request, began, error)
        if failed and log.isEnabledFor(logging.DEBUG):
            name = type(error).__name__
            log.debug("%s: %s counts against circuit %r", request.operation, name, CIRCUIT, extra=_facts(request))
        return failed

    def _judge(self, request: Request, began: float, error: Exception) -> bool | None:
        if isinstance(error, errors.StatusError):
            if error.status == 429:
                return None
            if error.status < 500:
                return False
            if request.operation.startswith(_FEATURES):
                return None
            return self._first_time(request) if error.status == 500 else True
        if isinstance(error, _ONCE):
            own = request.operation.startswith(_FEATURES) and not isinstance(error, errors.CaptivePortalError)
            return None if own else self._first_time(request)
        if isinstance(error, TimeoutError) and self._was_impatient(request, began):
            return None
        if isinstance(error, errors.NotSentError):
            # one that is not retryable never tried to connect: the request itself was wrong
            return None if isinstance(error, _NOT_THE_SERVER) or not error.retryable else True
        if not isinstance(error, errors.OutcomeUnknownError):
            return None
        return None if request.operation.startswith(_FEATURES) else True

    def _was_impatient(self, request: Request, began: float) -> bool:
        now = self._monotonic()
        return request.deadline is not None and now >= request.deadline and now - began < self._patient

    def _first_time(self, request: Request) -> bool | None:
        """True if this message (or call) did not count yet, else None."""
        name = request.key or request.correlation_id
        with self._lock:
            if name in self._counted:
                self._counted.move_to_end(name)
                return None
            self._counted[name] = None
            if len(self._counted) > REMEMBERED:
                self._counted.popitem(last=False)
            return True


def _facts(request: Request) -> dict[str, str]:
    return {"correlation_id": request.correlation_id}


@hookimpl
def chatsdk_middleware(client: PluginClient) -> Middleware:
    """The layer."""
    return Middleware("breaker", Stage.BREAKER, Breaker(client))
