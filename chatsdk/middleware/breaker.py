"""Breaker: the circuit "api" around every try.

What counts as a failure of the server:

    connect errors, time-outs, 502, 503, 504, an answer that broke off     every try
    500, an answer that can't be used, a captive portal                    once per message (or per call, without a key)
    every other 4xx                                                        a success: the server did answer
    429, errors of plugins, of tokens, of our own                          neither

A real server answers 500 to mistakes of a caller, and a firewall may answer HTML to the text of one message: one poison
message, tried again and again, must not stop every channel. `auth.*` has a circuit of its own and does not pass here: a
probe that met a 401 could otherwise never close this one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import partial

from chatsdk.plugin import CallNext, Middleware, PluginClient, Request, Response, Stage, errors, hookimpl

CIRCUIT = "api"

REMEMBERED = 1024
"""Messages whose failure was counted; older ones are forgotten, and would count once more."""

_NOT_THE_SERVER = (errors.CircuitOpenError, errors.TokenUnavailableError)
_ONCE = (errors.InvalidResponseError, errors.CaptivePortalError)


class Breaker:
    """The layer."""

    def __init__(self, client: PluginClient) -> None:
        self._circuit = client.circuits[CIRCUIT]
        self._lock = threading.Lock()
        self._counted: OrderedDict[str, None] = OrderedDict()

    def __call__(self, request: Request, call_next: CallNext) -> Response:
        """One try, if the circuit lets it through; else CircuitOpenError."""
        if request.operation.startswith("auth."):
            return call_next(request)
        return self._circuit.call(call_next, request, is_failure=partial(self._is_failure, request))

    def _is_failure(self, request: Request, error: Exception) -> bool | None:
        if isinstance(error, errors.StatusError):
            if error.status == 429:
                return None
            if error.status < 500:
                return False
            return self._first_time(request) if error.status == 500 else True
        if isinstance(error, _ONCE):
            return self._first_time(request)
        if isinstance(error, errors.NotSentError):
            # one that is not retryable never tried to connect: the request itself was wrong
            return None if isinstance(error, _NOT_THE_SERVER) or not error.retryable else True
        return True if isinstance(error, errors.OutcomeUnknownError) else None

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


@hookimpl
def chatsdk_middleware(client: PluginClient) -> Middleware:
    """The layer."""
    return Middleware("breaker", Stage.BREAKER, Breaker(client))
