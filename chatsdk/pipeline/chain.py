"""The chain: middlewares around the transport, as a plain onion that is composed once.

A layer is called with the request and the rest of the chain, and may call that any number of times (a pluggy wrapper
could not: it yields once). Our own layers cost one frame each: the rest is bound to them by `partial`. A third party's
layer is guarded, so that what it raises carries its name:

* an exception that began in it and is no ChatError becomes PluginError, with the exception as its cause; so does
  handing on what is no Request;
* a ChatError that began in it stays what it is and gets a note;
* what came from further in and merely passed through is left alone, as long as it is the same exception;
* anything but a Response coming out of it is a PluginError too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from ..core.errors import ChatError, PluginError
from ..core.exchange import CallNext, Request, Response
from ..core.record import Record, record
from ..hookspecs import Middleware

Handler = Callable[[Request], Response]


@record(frozen=True, slots=True)
class Layer(Record):
    """A middleware and whose it is. `ours`: a built-in one, which needs no guard."""

    plugin: str
    middleware: Middleware
    ours: bool = False


def compose(layers: Sequence[Layer], transport: Handler) -> Handler:
    """The chain: `layers`, outermost first, around `transport`."""
    handler = transport
    for layer in reversed(layers):
        if layer.ours:
            handler = partial(layer.middleware.call, call_next=handler)  # type: ignore[call-arg]
        else:
            handler = guard(layer.plugin, layer.middleware.call, handler)
    return handler


def guard(plugin: str, call: Callable[[Request, CallNext], Response], inner: Handler) -> Handler:
    """`call` around `inner`; what goes wrong in `call` itself is blamed on `plugin`."""

    def guarded(request: Request) -> Response:
        passing: list[BaseException] = []

        def call_next(request: Request) -> Response:
            if not isinstance(request, Request):
                raise TypeError(f"call_next takes a Request, not {type(request).__name__}")
            try:
                return inner(request)
            except BaseException as error:
                passing.append(error)
                raise

        try:
            response = call(request, call_next)
        except (Exception, SystemExit) as error:  # a plugin that wants to leave would only end a delivery thread
            if any(error is other for other in passing):
                raise
            if isinstance(error, ChatError):
                error.add_note(f"raised by the plugin {plugin!r}")
                raise
            raise _blame(plugin, type(error).__name__, request) from error
        finally:
            passing.clear()  # an error that holds a frame that holds the error is freed late
        if isinstance(response, Response):
            return response
        raise _blame(plugin, f"it returned {type(response).__name__}, no Response", request)

    return guarded


def _blame(plugin: str, what: str, request: Request) -> PluginError:
    # The cause's text is not repeated here: nobody knows what a stranger writes into it.
    return PluginError(
        f"plugin {plugin!r} failed at {request.operation}: {what}", plugin=plugin, request_id=request.correlation_id
    )
