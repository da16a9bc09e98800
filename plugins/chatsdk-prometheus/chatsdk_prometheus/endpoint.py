"""An HTTP endpoint for a scraper, where the application has none of its own: `http://127.0.0.1:PORT/metrics`.

For bots and for `chatsdk outbox run`; only on loopback. It is opened with the first client, closed when the last one
is, and let go of in a forked child: the port is its parent's. A port that is taken is one warning and no endpoint.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIServer

if TYPE_CHECKING:
    from .collector import ChatCollector

log = logging.getLogger("chatsdk.plugins.prometheus")

ADDRESS = "127.0.0.1"

PATIENCE = 10.0
"""Seconds for a scraper to say what it wants, and to take each piece; Prometheus itself gives up after as long."""


class Endpoint:
    """At most one server in a process; `serve` for each client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: WSGIServer | None = None
        self._users: weakref.WeakSet[object] = weakref.WeakSet()
        self._pid = os.getpid()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.abandon)

    @property
    def port(self) -> int:
        """Where it listens; 0: it does not."""
        server = self._server
        return 0 if server is None or self._pid != os.getpid() else int(server.server_port)

    def serve(self, collector: ChatCollector, port: int, client: object) -> None:
        """Show the collector's metrics until the client's `release`. port: 0 takes any that is free."""
        if self._pid != os.getpid():  # not every fork runs the hooks
            self.abandon()
        with self._lock:
            if self._server is None:
                self._server = _open(collector, port)
            if self._server is not None:
                self._users.add(client)

    def release(self, client: object) -> None:
        """This client was closed; with the last one goes the endpoint."""
        if self._pid != os.getpid():
            return
        with self._lock:
            self._users.discard(client)
            if self._users:
                return
            server, self._server = self._server, None
        if server is None:
            return
        closer = threading.Thread(target=_end, args=(server,), name="chatsdk-prometheus-close", daemon=True)
        try:
            closer.start()  # it takes up to half a second, which no close() has to wait for
        except RuntimeError:  # the interpreter ends
            _end(server)

    def abandon(self) -> None:
        """In a forked child: close our end of the socket, and say nothing on it."""
        self._lock = threading.Lock()
        self._pid = os.getpid()
        server, self._server, self._users = self._server, None, weakref.WeakSet()
        if server is not None:
            server.socket.close()


def _end(server: WSGIServer) -> None:
    server.shutdown()
    server.server_close()


def _open(collector: ChatCollector, port: int) -> WSGIServer | None:
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(port, ADDRESS, registry)
    except OSError as error:
        log.warning("no metrics at %s:%d: %s", ADDRESS, port, error.strerror or type(error).__name__)
        return None
    server.RequestHandlerClass = _with_patience(server.RequestHandlerClass)
    thread.name = "chatsdk-prometheus"
    log.info("metrics at http://%s:%d/metrics", ADDRESS, server.server_port)
    return server


def _with_patience(handler: Any) -> Any:
    """A scraper that hangs takes a thread and a descriptor: not for ever."""

    class Handler(handler):  # type: ignore[misc]  # of a class that prometheus_client made
        timeout = PATIENCE

        def handle(self) -> None:
            with contextlib.suppress(TimeoutError):
                super().handle()

    return Handler
