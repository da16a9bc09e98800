"""A network that misbehaves as it is told: a TCP proxy on loopback, between a client and a server that both are well.

Rules:
* Each direction has a `Way` of its own; both and the door make a `Link`, which can be changed at any time, for all
  connections, those that are open included. A method that changes something has done so when it returns.
* Order is kept within a connection: jitter never lets bytes overtake, as TCP would not.
* A real connection costs a round trip before its first byte; this one takes that time before it passes anything on.
* Bytes know no messages. What is said until the other side answers is one exchange, as in HTTP/1.1: `loss` throws dice
  for each. A lost request never reaches the server; a lost answer was processed.
* A new address (Wi-Fi to mobile) is what the server sees: connections made afterwards come to it from another address
  of 127.0.0.0/8, and those made before are dead, in silence or by a reset.
* One thread with an event loop; no connection waits for another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from tests.faults.link import WELL, Link, Way

T = TypeVar("T")

HOST = "127.0.0.1"
PORTAL_HOST = "127.0.0.99"
"""Of the sign-in page: not the server's, as a portal's is not."""

CHUNK = 16384
"""Bytes that are read at a time."""

IN_FLIGHT = 16
"""Reads that may be under way in one direction; then the sender has to wait, as by a full window."""

PAGE = b"<!doctype html><html><head><title>Sign in</title></head><body>Welcome! Please sign in.</body></html>"


class FaultProxy:
    """One proxy to the server at `port`. `connections`: how many came; `lost`: exchanges lost on the way up and back;
    `visits`: what was asked of the host of the sign-in page; `sources`: addresses from which the server was reached."""

    def __init__(self, port: int, link: Link = WELL, *, seed: int = 0) -> None:
        self._target = (HOST, port)
        self._link = link
        self._random = random.Random(seed)
        self._source = HOST
        self._open: set[_Connection] = set()
        self._listener: socket.socket | None = None
        self._flapping: asyncio.Task[None] | None = None
        self._pages = 0
        self.connections = 0
        self.lost = [0, 0]
        self.visits: list[bytes] = []
        self.sources: list[str] = []
        # Bound and never listening: it keeps the port ours while nobody listens.
        self._reserved = _bound((HOST, 0))
        self.port: int = self._reserved.getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"
        self._sign_in = _bound((PORTAL_HOST, 0))
        self.sign_in_url = f"http://{PORTAL_HOST}:{self._sign_in.getsockname()[1]}/sign-in"
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._do(self._begin)

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ---- what can be done to it

    @property
    def link(self) -> Link:
        """How it is now."""
        return self._link

    @property
    def open(self) -> int:
        """Connections at the moment."""
        return self._do(lambda: len(self._open))

    def set(self, link: Link) -> None:
        """Be like this from now on. Ends the flapping."""

        def change() -> None:
            self._end_flapping()
            self._change(link)

        self._do(change)

    def flap(self, away: Sequence[Link], seconds: float = 1.0) -> None:
        """Be away for so many seconds, and then as now for as long, and so on: away in each of these ways in turn. One
        that refuses new connections resets the old ones, as an interface does that is down."""

        async def flapping(here: Link) -> None:
            for gone in itertools.cycle(away):
                self._change(gone)
                if gone.door == "refuse":
                    await self._end(rude=True)
                await asyncio.sleep(seconds)
                self._change(here)
                await asyncio.sleep(seconds)

        def begin() -> None:
            self._end_flapping()
            self._flapping = self._loop.create_task(flapping(self._link))

        self._do(begin)

    def reset(self) -> int:
        """Reset all open connections; how many there were."""
        return self._wait(self._end(rude=True))

    def hang_up(self) -> int:
        """End all open connections politely."""
        return self._wait(self._end(rude=False))

    def new_address(self, address: str, *, silent: bool = True) -> int:
        """The client has another network, and its old connections are dead: in silence, or reset. From now on the
        server is reached from `address` (in 127.0.0.0/8). Gives how many connections died."""
        died = self._do(self._silence) if silent else self.reset()
        self._do(lambda: setattr(self, "_source", address))
        return died

    def stop(self) -> None:
        """End everything. Idempotent."""
        if self._loop.is_closed():
            return
        self._wait(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._reserved.close()

    # ---- in the loop's thread

    def _do(self, work: Callable[[], T]) -> T:
        async def call() -> T:
            return work()

        return self._wait(call())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _begin(self) -> None:
        self._listen(self._sign_in, self._show_sign_in)
        self._change(self._link)

    def _change(self, link: Link) -> None:
        self._link = link
        listens = link.door != "refuse"
        if listens and self._listener is None:
            self._listener = _bound(self._reserved.getsockname())
            self._listen(self._listener, self._serve)
        elif not listens and self._listener is not None:
            self._deafen(self._listener)
            self._listener = None
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Wait until the link is another one."""
        await self._changed.wait()

    def _end_flapping(self) -> None:
        if self._flapping is not None:
            self._flapping.cancel()
            self._flapping = None

    async def _end(self, rude: bool) -> int:
        ending = list(self._open)
        for connection in ending:
            connection.rude = rude
            connection.task.cancel()
        await asyncio.gather(*(connection.task for connection in ending), return_exceptions=True)
        return len(ending)

    def _silence(self) -> int:
        for connection in self._open:
            connection.dead = True
        return len(self._open)

    async def _finish(self) -> None:
        self._end_flapping()
        for listener in (self._sign_in, self._listener):
            if listener is not None:
                self._deafen(listener)
        await self._end(rude=True)

    def _listen(self, listener: socket.socket, serve: Callable[[_Connection], Awaitable[None]]) -> None:
        """Serve whoever comes."""

        def take() -> None:
            with contextlib.suppress(OSError):  # it has gone again
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(connection := _Connection(self, sock))
                connection.task = self._loop.create_task(connection.run(serve))
                connection.task.add_done_callback(partial(self._forget, connection))

        listener.setblocking(False)
        listener.listen(256)
        self._loop.add_reader(listener, take)

    def _deafen(self, listener: socket.socket) -> None:
        self._loop.remove_reader(listener)
        listener.close()

    def _forget(self, connection: _Connection, _: asyncio.Task[None]) -> None:
        connection.close()  # here, and not in the task: one that is cancelled before its first step never runs
        self._open.discard(connection)

    async def _serve(self, connection: _Connection) -> None:
        self.connections += 1
        if self._link.door == "portal":
            self._pages += 1
            moved = b"Location: " + self.sign_in_url.encode() + b"\r\n" if self._pages % 2 == 0 else b""
            await connection.answer_page(b"302 Found" if moved else b"200 OK", moved)
            return
        link = self._link
        await asyncio.sleep(self.delay(link.up) + self.delay(link.down))
        upstream = socket.socket()
        connection.socks.append(upstream)
        upstream.setblocking(False)
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        upstream.bind((self._source, 0))
        self.sources.append(self._source)
        await self._loop.sock_connect(upstream, self._target)
        await connection.pass_on()

    async def _show_sign_in(self, connection: _Connection) -> None:
        self.visits.append(await connection.answer_page(b"200 OK", b""))

    # ---- dice

    def delay(self, way: Way) -> float:
        """Seconds that bytes take which come now."""
        return max(0.0, way.latency + self._random.uniform(-1.0, 1.0) * way.jitter)

    def fate(self) -> _Fate:
        """What becomes of a new exchange."""
        link = self._link
        if not link.loss or self._random.random() >= link.loss:
            return _Fate()
        back, silent = self._random.random() < 0.5, self._random.random() < link.silent
        self.lost[back] += 1
        return _Fate("down" if back else "up", silent)


@dataclass(frozen=True, slots=True)
class _Fate:
    """In which direction an exchange is lost ("": in none), and whether nobody is told."""

    lost: str = ""
    silent: bool = False


class _Lost(Exception):
    """The connection is to be reset."""


@dataclass(eq=False)
class _Connection:
    """One client, its socket first, then the one to the server. `dead`: nothing of it comes anywhere any more."""

    proxy: FaultProxy
    sock: socket.socket
    rude: bool = True
    dead: bool = False
    task: asyncio.Task[None] = field(init=False)
    socks: list[socket.socket] = field(init=False)
    _fate: _Fate = _Fate()
    _speaker: str = "down"

    def __post_init__(self) -> None:
        self.socks = [self.sock]

    async def run(self, serve: Callable[[_Connection], Awaitable[None]]) -> None:
        """Serve it; it has a polite end if both sides were done, or if that was asked for."""
        try:
            await serve(self)
            self.rude = False
        except* (OSError, _Lost):
            self.rude = True

    def close(self) -> None:
        """Close its sockets, rudely by a reset."""
        for sock in self.socks:
            if self.rude:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    async def pass_on(self) -> None:
        """Carry bytes both ways until both sides have ended, or it is lost."""
        client, server = self.socks
        async with asyncio.TaskGroup() as both:
            both.create_task(self._carry(client, server, "up", lambda: self.proxy.link.up))
            both.create_task(self._carry(server, client, "down", lambda: self.proxy.link.down))

    async def answer_page(self, status: bytes, headers: bytes) -> bytes:
        """Answer one request by the sign-in page; gives the request's head."""
        loop, data = asyncio.get_running_loop(), b""
        while b"\r\n\r\n" not in data:
            piece = await loop.sock_recv(self.sock, CHUNK)
            if not piece:
                return data
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        missing = _length(head) - len(body)
        while missing > 0 and (piece := await loop.sock_recv(self.sock, CHUNK)):
            missing -= len(piece)
        answer = b"HTTP/1.1 %s\r\nContent-Type: text/html\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n%s"
        await loop.sock_sendall(self.sock, answer % (status, len(PAGE), headers, PAGE))
        self.sock.shutdown(socket.SHUT_WR)
        while await loop.sock_recv(self.sock, CHUNK):
            pass
        return head

    async def _carry(self, source: socket.socket, sink: socket.socket, name: str, way: Callable[[], Way]) -> None:
        coming: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._read(source, name, way, coming))
            both.create_task(self._write(sink, name, way, coming))

    async def _read(
        self, source: socket.socket, name: str, way: Callable[[], Way], coming: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        """Note for each piece when it is to arrive; an empty one is the end."""
        loop, due = asyncio.get_running_loop(), 0.0
        while True:
            data = await loop.sock_recv(source, CHUNK)
            if name == "up" and self._speaker == "down" and data:
                self._fate = self.proxy.fate()
            self._speaker = name if data else self._speaker
            due = max(due, loop.time() + self.proxy.delay(way()))
            await coming.put((due, data))
            if not data:
                return

    async def _write(
        self, sink: socket.socket, name: str, way: Callable[[], Way], coming: asyncio.Queue[tuple[float, bytes]]
    ) -> None:
        loop, passed, broken = asyncio.get_running_loop(), 0, False
        while True:
            due, data = await coming.get()
            await asyncio.sleep(due - loop.time())
            while way().hold and not self.dead:
                await self.proxy.change()
            if not data:
                if not self.dead:
                    sink.shutdown(socket.SHUT_WR)
                return
            if self._fate.lost == name:
                if not self._fate.silent:
                    raise _Lost
                self.dead = True
            while data:
                now = way()
                broken = broken or now.swallow
                if broken or self.dead:
                    break
                await asyncio.sleep(now.drip)
                piece = data[: now.piece]
                if now.cut_after is not None and passed + len(piece) >= now.cut_after:
                    await loop.sock_sendall(sink, piece[: max(0, now.cut_after - passed)])
                    raise _Lost
                await loop.sock_sendall(sink, piece)
                passed += len(piece)
                data = data[len(piece) :]
                if now.bandwidth is not None:
                    await asyncio.sleep(len(piece) / now.bandwidth)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


def _bound(address: tuple[str, int]) -> socket.socket:
    """A socket bound to an address that others of ours may be bound to as well."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(address)
    return sock
