"""An HTTP endpoint for a scraper, where the application has none of its own: `http://127.0.0.1:PORT/metrics`.

For bots and for `chatsdk outbox run`; only on loopback. It is opened with the first client, closed when the last one
is, and let go of in a forked child: the port is its parent's. A port that is taken is one warning and no endpoint.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Protocol
from wsgiref.simple_server import WSGIServer

if TYPE_CHECKING:
    from .collector import ChatCollector

log = logging.getLogger("chatsdk.plugins.prometheus")

ADDRESS = "127.0.0.1"


class Closing(Protocol):
    """What is set when a client closes."""

    def wait(self, timeout: float | None = None) -> bool: ...


class Endpoint:
    """At most one server in a process; `serve` for each client."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._server: WSGIServer | None = None
        self._users = 0
        self._pid = os.getpid()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.abandon)

    @property
    def port(self) -> int:
        """Where it listens; 0: it does not."""
        server = self._server
        return 0 if server is None or self._pid != os.getpid() else int(server.server_port)

    def serve(self, collector: ChatCollector, port: int, closing: Closing) -> None:
        """Show the collector's metrics until `closing` is set. port: 0 takes any that is free."""
        if self._pid != os.getpid():  # not every fork runs the hooks
            self.abandon()
        with self._lock:
            if self._server is None:
                self._server = _open(collector, port)
            if self._server is None:
                return
            self._users += 1
        threading.Thread(target=self._release, args=(closing,), name="chatsdk-prometheus-close", daemon=True).start()

    def _release(self, closing: Closing) -> None:
        closing.wait()
        with self._lock:
            self._users -= 1
            if self._users:
                return
            server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def abandon(self) -> None:
        """In a forked child: close our end of the socket, and say nothing on it."""
        self._lock = threading.Lock()
        self._pid = os.getpid()
        server, self._server, self._users = self._server, None, 0
        if server is not None:
            server.socket.close()


def _open(collector: ChatCollector, port: int) -> WSGIServer | None:
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(port, ADDRESS, registry)
    except OSError as error:
        log.warning("no metrics at %s:%d: %s", ADDRESS, port, error.strerror or type(error).__name__)
        return None
    thread.name = "chatsdk-prometheus"
    log.info("metrics at http://%s:%d/metrics", ADDRESS, server.server_port)
    return server
