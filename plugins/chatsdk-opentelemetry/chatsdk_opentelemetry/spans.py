"""The spans: what happens in chatsdk, told to a tracer.

    messages.send                  a message, from `send` until it is delivered or dead (or MAX_AGE is over)
      POST  503                    a try: one exchange with the server, which is given this span's traceparent
      POST  503
      POST  201
    channels.list                  a direct call, with its retries
      GET   200

* A message's tries are made by other threads, later, perhaps in another process: what holds them together is its key,
  and in another process the correlation id. (The trace does not travel through the outbox.)
* A try that the circuit refused is no exchange: its call has an event instead. So has a circuit that moves.
* The layer of tries stands at AUTH, inside chatsdk's own: it sees what really goes out, also the second exchange after
  a token was refused. Of headers it reads none.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chatsdk.plugin import CallNext, PluginClient, Request, Response, errors, events

from . import attributes as said
from .figures import Figures
from .harmless import harmless
from .messages import Messages

_NO_EXCHANGE = (errors.CircuitOpenError, errors.TokenUnavailableError)
_REASONS = frozenset({"rejected", "expired", "poison"})
_W3C = TraceContextTextMapPropagator()
_SUPPRESS = getattr(contexts, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", None)
"""Instrumentations of HTTP libraries (urllib3's) leave an exchange alone that has a span already."""


@dataclass(slots=True)
class _Tries:
    """Of the call of this thread: which try, and how many exchanges it has had."""

    attempt: int = 0
    exchanges: int = 0

    def next(self, attempt: int) -> int:
        """One more exchange; returns how many that try had before."""
        if attempt != self.attempt:
            self.attempt, self.exchanges = attempt, 0
        self.exchanges += 1
        return self.exchanges - 1


_tries: ContextVar[_Tries | None] = ContextVar("chatsdk_opentelemetry_tries", default=None)


class _Current:
    """A span, and that it is the current one of this thread until `leave`."""

    __slots__ = ("_token", "span")

    def __init__(self, span: Span, *, suppress: bool = False) -> None:
        self.span = span
        context = trace.set_span_in_context(span)
        if suppress and _SUPPRESS is not None:
            context = contexts.set_value(_SUPPRESS, True, context)
        self._token = contexts.attach(context)

    def leave(self) -> Span:
        """The span before it is the current one again."""
        contexts.detach(self._token)
        return self.span


class Spans:
    """What the layers share."""

    def __init__(self, tracer: Tracer, figures: Figures) -> None:
        self.tracer = tracer
        self.figures = figures
        self.messages = Messages(time.monotonic)

    def begin(self, request: Request, context: Context | None = None) -> Span:
        """The span of a call or message."""
        known = request.operation if request.operation in self.figures.operations else said.OTHER
        return self.tracer.start_span(known, context, SpanKind.INTERNAL, attributes=said.of_call(request))

    # ---- a message

    @harmless
    def accepted(self, request: Request) -> None:
        """`send` was called, in the caller's thread: here its trace is known."""
        self._end_overdue()
        if request.key and self.messages.find(request.key) is None:
            self.messages.add(request.key, self.begin(request))

    @harmless
    def told(self, client: PluginClient, event: events.Event) -> None:
        """An event of the client."""
        if isinstance(event, events.MessageQueued):
            span = self.messages.stored(event.key, client)
            if span is not None:
                _note(span, "stored", {})
        elif isinstance(event, events.MessageSent):
            self.figures.synced(True)
            self._end(event)
        elif isinstance(event, events.MessagePermanentFailure):
            self.figures.synced(False)
            self._end(event, said.known(event.reason, _REASONS))
        elif isinstance(event, events.MessageFailed):
            self.figures.synced(False)
        elif isinstance(event, events.RetryScheduled):
            self.figures.retried(event.operation)
            span = trace.get_current_span() if event.key is None else self.messages.find(event.key)
            facts = {"chatsdk.attempt": event.attempt, "chatsdk.delay": round(event.delay, 6)}
            _note(span or trace.get_current_span(), "retry", facts)
        elif isinstance(event, events.CircuitStateChanged):
            if event.new == "open":
                self.figures.opened(event.circuit)
            moved = {"chatsdk.circuit": event.circuit[: said.LONGEST], "from": event.old, "to": event.new}
            _note(trace.get_current_span(), "circuit", moved)

    def _end(self, event: events.MessageEvent, died_of: str = "") -> None:
        span = self.messages.end(event.key)
        if span is not None:
            span.set_attributes({"chatsdk.state": event.state, "chatsdk.attempts": event.attempts})
            if died_of:
                span.set_attribute("error.type", died_of)
                span.set_status(Status(StatusCode.ERROR))
            span.end()
        self._end_overdue()

    def _end_overdue(self) -> None:
        for span in self.messages.overdue():
            _end_queued(span)

    @harmless
    def closed(self, client: PluginClient) -> None:
        """A client was closed: what it leaves in the outbox is somebody else's to deliver."""
        for span in self.messages.left_by(client):
            _end_queued(span)

    def close(self) -> None:
        """The process ends."""
        for span in self.messages.rest():
            _end_queued(span)


def _note(span: Span, name: str, facts: Mapping[str, str | int | float]) -> None:
    """An event of a span; none where that has ended already."""
    if span.is_recording():
        span.add_event(name, facts)


@harmless
def _end_queued(span: Span) -> None:
    span.set_attribute("chatsdk.state", "QUEUED")
    span.end()


class CallLayer:
    """Around a call: its span, or for a try of a message from the outbox the message's."""

    def __init__(self, client: PluginClient, spans: Spans) -> None:
        self._client = client
        self._monotonic = client.clock.monotonic
        self._spans = spans

    def __call__(self, request: Request, call_next: CallNext) -> Response:
        """One call."""
        is_message = request.single_try and request.key is not None and not request.is_read
        began = self._monotonic()
        self._spans.figures.begin()
        current = self._enter(request, is_message)
        before = _tries.set(_Tries())
        try:
            response = call_next(request)
        except BaseException as error:
            self._leave(current, request, began, is_message, error=error)
            raise
        finally:
            _tries.reset(before)
        self._leave(current, request, began, is_message, response=response)
        return response

    @harmless
    def _enter(self, request: Request, is_message: bool) -> _Current:
        spans = self._spans
        if is_message and request.key is not None:
            span = spans.messages.find(request.key)
            if span is None:  # accepted by another process, or long ago
                span = spans.messages.add(request.key, spans.begin(request, Context()), self._client)
        else:
            span = spans.begin(request)
        return _Current(span)

    def _leave(
        self,
        current: _Current | None,
        request: Request,
        began: float,
        is_message: bool,
        *,
        response: Response | None = None,
        error: BaseException | None = None,
    ) -> None:
        if current is not None:
            current.leave()
        self._count(request, began, response, error)
        if current is not None:
            self._end(current.span, is_message, response, error)

    def _count(self, request: Request, began: float, response: Response | None, error: BaseException | None) -> None:
        exchanged = isinstance(error, Exception) and not isinstance(error, _NO_EXCHANGE)
        if response is not None:
            exchanged = not response.from_cache
        took = (self._monotonic() - began) * 1000 if exchanged else None
        self._spans.figures.finish(request.operation, took, said.error_type(error) if error is not None else "")

    @harmless
    def _end(self, span: Span, is_message: bool, response: Response | None, error: BaseException | None) -> None:
        if is_message:  # ended when its fate is known
            if isinstance(error, _NO_EXCHANGE):
                _note(span, "not sent", {"error.type": said.error_type(error)})
            return
        if response is not None and response.from_cache:
            span.set_attribute("chatsdk.from_cache", True)
        if error is not None:
            span.set_attribute("error.type", said.error_type(error))
            span.set_status(Status(StatusCode.ERROR))
        span.end()


class TryLayer:
    """Around one exchange with the server. propagate: give the server the trace context."""

    def __init__(self, client: PluginClient, spans: Spans, *, propagate: bool) -> None:
        self._monotonic = client.clock.monotonic
        self._circuits = client.circuits
        self._server = said.Server(client.settings.url)
        self._spans = spans
        self._propagate = propagate

    def __call__(self, request: Request, call_next: CallNext) -> Response:
        """One exchange."""
        current = self._enter(request)
        headers = self._headers() if current is not None and self._propagate else None
        began = self._monotonic()
        try:
            response = call_next(request.with_headers(headers) if headers else request)
        except BaseException as error:
            self._leave(current, request, began, said.of_error(error), failed=True)
            raise
        self._leave(current, request, began, said.of_response(response), failed=False)
        return response

    @harmless
    def _enter(self, request: Request) -> _Current:
        tries = _tries.get()
        facts = said.of_try(
            request,
            self._server,
            again=tries.next(request.attempt) if tries is not None else 0,
            circuit=self._circuits["api"].state,
        )
        name = request.method if request.method in said.METHODS else "HTTP"
        span = self._spans.tracer.start_span(name, kind=SpanKind.CLIENT, attributes=facts)
        return _Current(span, suppress=True)

    @harmless
    def _headers(self) -> Mapping[str, str]:
        """traceparent and tracestate of the current span. What no header may hold would make the request unsendable, so
        it is left out."""
        made: dict[str, str] = {}
        _W3C.inject(made)
        return {name: value for name, value in made.items() if value.isascii() and value.isprintable()}

    def _leave(
        self, current: _Current | None, request: Request, began: float, outcome: said.Attributes, *, failed: bool
    ) -> None:
        if current is not None:
            current.leave()
            self._end(current.span, outcome, failed)
        seconds = self._monotonic() - began
        self._spans.figures.exchanged(seconds, said.of_metric(request, self._server, outcome))

    @harmless
    def _end(self, span: Span, outcome: said.Attributes, failed: bool) -> None:
        span.set_attributes(outcome)
        if failed:
            span.set_status(Status(StatusCode.ERROR))
        span.end()
