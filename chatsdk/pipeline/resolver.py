"""Names to addresses, without waiting longer than the caller can.

`getaddrinfo` takes no time-out and can block for ten seconds and more. So it runs in a helper thread, one a name
however many ask, and who asked stops waiting at his deadline; the thread ends by itself. If the lookup fails or is
late, the address that worked last is used. Without threads (one-shot mode, interpreter exit) the last known address
comes first and a lookup, in the caller, only if there is none.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

Address = tuple[Any, ...]
"""As `getaddrinfo` gives it: family, type, protocol, name, address."""

Lookup = Callable[[str, int], Sequence[Address]]


def look_up(host: str, port: int) -> Sequence[Address]:
    """Ask the system. Raises socket.gaierror."""
    return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)


class _Running:
    """A lookup under way."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.found: Sequence[Address] = ()
        self.error: BaseException | None = None


class Resolver:
    """Thread-safe. `threaded`: look up in a helper thread; `lookup`: how, for tests."""

    def __init__(self, *, threaded: bool = True, lookup: Lookup = look_up) -> None:
        self._threaded = threaded
        self._lookup = lookup
        self._lock = threading.Lock()
        self._running: dict[tuple[str, int], _Running] = {}
        self._known: dict[tuple[str, int], Sequence[Address]] = {}

    def addresses(self, host: str, port: int, timeout: float) -> Sequence[Address]:
        """Addresses to try, in order, within `timeout` seconds. Raises socket.gaierror, TimeoutError."""
        numeric = _numeric(host, port)
        if numeric:
            return numeric
        known = self._known.get((host, port))
        if not self._threaded:
            return known or self._lookup(host, port)
        running = self._start(host, port)
        if not running.done.wait(timeout):
            error: BaseException | None = TimeoutError(f"{host} was not found in time")
        else:
            error = running.error
        if error is None:
            return running.found
        if known:
            return known
        raise error

    def worked(self, host: str, port: int, address: Address) -> None:
        """A connection to this address was made."""
        self._known[host, port] = (address,)

    def failed(self, host: str, port: int) -> None:
        """None of the addresses could be reached: look up again before the next try."""
        self._known.pop((host, port), None)

    def after_fork(self) -> None:
        """In a forked child: the helper threads are not there."""
        self._lock = threading.Lock()
        self._running = {}

    def _start(self, host: str, port: int) -> _Running:
        name = (host, port)
        with self._lock:
            running = self._running.get(name)
            if running is not None:
                return running
            running = self._running[name] = _Running()
        thread = threading.Thread(target=self._run, args=(name, running), name="chatsdk-resolve", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread is started at interpreter exit
            self._run(name, running)
        return running

    def _run(self, name: tuple[str, int], running: _Running) -> None:
        try:
            running.found = self._lookup(*name)
        except BaseException as error:
            running.error = error  # raised again by whoever waits
        finally:
            with self._lock:
                if self._running.get(name) is running:
                    del self._running[name]
            running.done.set()


def _numeric(host: str, port: int) -> Sequence[Address]:
    """The address that `host` is, if it is one: needs no lookup."""
    if not (host[-1:].isdigit() or ":" in host):
        return ()
    try:
        return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    except socket.gaierror:
        return ()
