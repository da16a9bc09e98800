"""The plugin author's door: everything a plugin needs, and all that is promised.

    from chatsdk.plugin import CallNext, Middleware, Request, Response, Stage, hookimpl

    def shout(request: Request, call_next: CallNext) -> Response:
        if request.operation == "messages.send":
            request = request.with_body(text=request.body["text"].upper())
        return call_next(request)

    @hookimpl
    def chatsdk_middleware() -> Middleware:
        return Middleware("shout", Stage.CALL, shout)

and in the plugin's `pyproject.toml`:

    [project.entry-points.chatsdk]
    shout = "chatsdk_shout"

The hooks stand in `chatsdk.hookspecs`. How long a request may still take says
`Deadline(request.deadline, client.clock).remaining()`. Who exports figures labels them with the words of `OPERATIONS`,
`ERRORS` and `CIRCUITS`, and with nothing that a server or a user may choose; who holds something for a client lets go
of it at `events.ClientClosed`. The built-in middlewares import this module and nothing else of chatsdk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from .core import backoff, errors, events
from .core.clock import Clock, Random, Waitable
from .core.exchange import CallNext, Request, Response
from .core.vocabulary import CIRCUITS, ERRORS, OPERATIONS, operations
from .hookspecs import SPEC_VERSION, Middleware, Stage, hookimpl
from .resilience.budget import RetryBudget
from .resilience.circuits import Circuit, Circuits
from .resilience.deadline import Deadline
from .resilience.metrics import Metrics

if TYPE_CHECKING:
    from .core.settings import Settings

__all__ = [
    "CIRCUITS",
    "ERRORS",
    "OPERATIONS",
    "SPEC_VERSION",
    "CallNext",
    "Circuit",
    "Clock",
    "Deadline",
    "Metrics",
    "Middleware",
    "PluginClient",
    "Request",
    "Response",
    "RetryBudget",
    "Stage",
    "backoff",
    "emit",
    "errors",
    "events",
    "hookimpl",
    "operations",
]


class PluginClient(Protocol):
    """The client, as the hook `chatsdk_middleware` gets it.

    settings  what the user configured (read only)
    clock     time and waiting; a plugin that waits uses `clock.wait(client.closing, seconds)`, never a bare sleep
    random    a function that returns a number in [0, 1)
    closing   set when the client closes
    circuits  by name: `client.circuits["my-service"].call(function, ...)`
    metrics   counters, gauges, latencies
    budget    what retries may spend
    """

    @property
    def settings(self) -> Settings:
        """What the user configured (read only)."""
        ...

    @property
    def clock(self) -> Clock:
        """Time and waiting."""
        ...

    @property
    def random(self) -> Random:
        """A function that returns a number in [0, 1)."""
        ...

    @property
    def closing(self) -> Waitable:
        """Set when the client closes."""
        ...

    @property
    def circuits(self) -> Circuits:
        """The circuits, by name."""
        ...

    @property
    def metrics(self) -> Metrics:
        """Counters, gauges, latencies."""
        ...

    @property
    def budget(self) -> RetryBudget:
        """What retries may spend."""
        ...

    def emit(self, event: events.Event) -> None:
        """Tell whoever listens. Never raises for what a listener does."""
        ...

    def authorize(self, request: Request, force: bool) -> Mapping[str, str]:
        """Headers that prove who `request.user` is. force: those that `request` carries were refused, find newer ones.
        Raises TokenUnavailableError (later there may be one), TokenExpiredError (the session is over)."""
        ...


def emit(client: PluginClient, event: events.Event) -> None:
    """Tell whoever listens to the client: handlers of `chat.on` and the plugins' `chatsdk_event`."""
    client.emit(event)
