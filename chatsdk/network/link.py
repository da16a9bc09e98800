"""What the system knows of its networks, without asking it again and again.

On Linux the kernel tells over a netlink socket when a link or an address changes; then the routes are read again
(/proc/net), and whoever wants to know is told whether there is a network, and that it is another one. Elsewhere there
is nothing: tries that fail say the same, a little later.

A machine has a network if it has a route over anything but the loopback. A server on this machine needs none.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Callable
from time import monotonic  # threads run in real time, whatever clock is injected

from ..resilience.threads import has_ended

_NETLINK_ROUTE = 0
_GROUPS = 0x1 | 0x10 | 0x100
"""RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR of linux/rtnetlink.h."""

_UP, _REJECT = 0x1, 0x200
"""RTF_UP, RTF_REJECT of linux/route.h."""

SETTLE = 0.1
"""Seconds without another message after which the routes are read: addresses and routes come in bursts."""

SETTLE_MOST = 1.0

Routes = frozenset[str]
Told = Callable[[bool], object]


def is_local(host: str) -> bool:
    """The host is this machine by its name: `localhost`, 127.0.0.0/8, ::1."""
    import ipaddress

    name = host.strip("[]").rstrip(".").lower()
    if name in ("", "localhost") or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def read_routes(ipv4: str, ipv6: str) -> Routes:
    """The routes over real interfaces, from /proc/net/route and /proc/net/ipv6_route. Lines that are none are passed
    over; link-local and multicast ones lead nowhere."""
    found = set()
    for line in ipv4.splitlines()[1:]:
        parts = line.split()
        if len(parts) >= 4 and parts[0] != "lo" and _flags(parts[3]) & _UP:
            found.add(" ".join(parts[:3]))
    for line in ipv6.splitlines():
        parts = line.split()
        if len(parts) < 10 or parts[9] == "lo" or parts[0].startswith(("fe8", "ff")):
            continue
        flags = _flags(parts[8])
        if flags & _UP and not flags & _REJECT:
            found.add(" ".join((parts[9], parts[0], parts[1], parts[4])))
    return frozenset(found)


def _flags(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0


def current_routes() -> Routes | None:
    """Those of now; None where the system does not say."""
    ipv4 = _read("/proc/net/route")
    return None if ipv4 is None else read_routes(ipv4, _read("/proc/net/ipv6_route") or "")


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return None


class LinkWatch:
    """Calls `told(there_is_a_network)` when the routes have changed, and at the start if there are none, in a thread of
    its own, between `start` and `stop`. `routes`: reads them."""

    def __init__(self, told: Told, *, routes: Callable[[], Routes | None] = current_routes) -> None:
        self._told = told
        self._routes = routes
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def start(self) -> bool:
        """False: the system offers nothing."""
        with self._lock:
            if self._running is None:
                known = self._routes()
                sock = None if known is None else _open()
                if known is None or sock is None:
                    return False
                running = _Running(sock, known, self._told, self._routes)
                try:
                    running.thread.start()
                except RuntimeError:  # the interpreter ends
                    running.free()
                    return False
                self._running = running
            return True

    def stop(self) -> None:
        """The thread ends soon. Idempotent."""
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.end()

    def join(self, timeout: float) -> bool:
        """`stop`, and wait for it at most `timeout` seconds; True if the thread has ended."""
        running = self._running
        self.stop()
        return has_ended(None if running is None else running.thread, timeout)

    @property
    def alive(self) -> bool:
        """Whether there is a thread."""
        return self._running is not None

    def after_fork(self) -> None:
        """In a forked child: the parent's sockets are copies that nobody reads here."""
        running, self._running = self._running, None
        self._lock = threading.Lock()
        if running is not None:
            running.free()


class _Running:
    """A thread with its socket."""

    def __init__(self, sock: socket.socket, known: Routes, told: Told, routes: Callable[[], Routes | None]) -> None:
        self._sock = sock
        self._known = known
        self._told = told
        self._routes = routes
        self._end_in, self._end_out = socket.socketpair()
        self._ending = False
        self.thread = threading.Thread(target=self._work, name="chatsdk-network-link", daemon=True)

    def end(self) -> None:
        self._ending = True
        with contextlib.suppress(OSError):  # it ended by itself
            self._end_out.send(b"\0")

    def free(self) -> None:
        for sock in (self._sock, self._end_in, self._end_out):
            sock.close()

    def _work(self) -> None:
        try:
            if not self._known:
                self._told(False)
            self._look()  # what changed before the socket was open
            while self._wait(None):
                began = monotonic()
                while monotonic() - began < SETTLE_MOST and self._wait(SETTLE):
                    pass
                if not self._ending:
                    self._look()
        finally:
            self.free()

    def _look(self) -> None:
        routes = self._routes()
        if routes is not None and routes != self._known:
            self._known = routes
            self._told(bool(routes))

    def _wait(self, seconds: float | None) -> bool:
        """Until a message came: True. False: the time is over, or the end has come."""
        if self._ending:
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._end_in, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000)}
        if self._sock.fileno() not in ready or self._ending:
            return False
        with contextlib.suppress(OSError):  # ENOBUFS: more came than was kept, which says as much
            self._sock.recv(65536)
        return True


def _open() -> socket.socket | None:
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        return None
    try:
        sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
    except OSError:
        return None
    try:
        sock.bind((0, _GROUPS))
    except OSError:
        sock.close()
        return None
    return sock
