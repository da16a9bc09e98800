"""The fault proxy does to bytes what it was told, and nothing else."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from statistics import median
from urllib.parse import urlsplit

import pytest

from tests.faults.link import BLACK_HOLE, NO_ANSWERS, NO_SIGNAL, PORTAL, REFUSED, WELL, Link, Way, slow
from tests.faults.proxy import HOST, PAGE, FaultProxy
from tests.waiting import eventually

LIMIT = 10.0
SLACK_S = 0.5
"""A busy machine may look late."""


class Echo:
    """A server that sends back what it gets. `heard`: all bytes; `peers`: where connections came from."""

    def __init__(self) -> None:
        self.heard = b""
        self.peers: list[str] = []
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, peer = self._listener.accept()
                self.peers.append(peer[0])
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                self.heard += data
                sock.sendall(data)

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.stop()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(echo.port, seed=5) as proxy:
        yield proxy


@pytest.fixture
def dial(proxy: FaultProxy) -> Iterator[Callable[[], socket.socket]]:
    """Makes connections to the proxy, which are closed at the end."""
    with contextlib.ExitStack() as stack:

        def connect() -> socket.socket:
            return stack.enter_context(socket.create_connection((HOST, proxy.port), LIMIT))

        yield connect


def exactly(sock: socket.socket, count: int) -> bytes:
    """So many bytes; fewer only at the end."""
    data = b""
    while len(data) < count and (piece := sock.recv(count - len(data))):
        data += piece
    return data


def ask(sock: socket.socket, text: bytes = b"hello") -> float:
    """Seconds until `text` came back whole."""
    began = time.monotonic()
    sock.sendall(text)
    assert exactly(sock, len(text)) == text
    return time.monotonic() - began


def silent(sock: socket.socket, seconds: float = 0.2) -> bool:
    """Nothing comes, and the connection stays."""
    sock.settimeout(seconds)
    try:
        sock.recv(1)
    except TimeoutError:
        return True
    finally:
        sock.settimeout(LIMIT)
    return False


def test_a_link_that_is_well_changes_nothing(dial: Callable[[], socket.socket], echo: Echo) -> None:
    """Any bytes, many of them, and the end of both sides go through as they are."""
    data = random.Random(1).randbytes(2_000_000)
    sock = dial()

    def write() -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=write)
    writer.start()
    assert exactly(sock, len(data) + 1) == data
    writer.join(LIMIT)
    assert echo.heard == data


def test_latency_is_that_of_the_link_and_of_a_new_connection(
    dial: Callable[[], socket.socket], proxy: FaultProxy
) -> None:
    """A round trip takes what it was told; the first one of a connection takes it twice, as a handshake does."""
    proxy.set(slow(0.1))
    sock = dial()
    first, second = ask(sock), median(ask(sock) for _ in range(3))
    assert 0.2 <= first < 0.2 + SLACK_S
    assert 0.1 <= second < 0.1 + SLACK_S


def test_latency_does_not_narrow_the_link(dial: Callable[[], socket.socket], proxy: FaultProxy) -> None:
    """What is sent together arrives together: 20 pieces need one latency, not 20."""
    proxy.set(slow(0.2))
    sock = dial()
    ask(sock)
    began = time.monotonic()
    for number in range(20):
        sock.sendall(b"%02d" % number)
    assert exactly(sock, 40) == b"".join(b"%02d" % number for number in range(20))
    assert time.monotonic() - began < 1.0


def test_directions_are_apart(dial: Callable[[], socket.socket], proxy: FaultProxy, echo: Echo) -> None:
    """Slow on the way back only: the server hears at once, the client late."""
    proxy.set(Link(down=Way(latency=0.5)))
    sock = dial()
    sock.sendall(b"hello")
    eventually(lambda: proxy.connections)
    began = time.monotonic()
    eventually(lambda: echo.heard == b"hello")
    assert exactly(sock, 5) == b"hello"
    assert time.monotonic() - began >= 0.4


def test_jitter_keeps_the_order(dial: Callable[[], socket.socket], proxy: FaultProxy) -> None:
    """Times differ, the order of the bytes does not."""
    proxy.set(slow(0.02, jitter=0.02))
    sock = dial()
    sent = [b"%03d" % number for number in range(100)]
    for piece in sent:
        sock.sendall(piece)
        time.sleep(0.0005)
    assert exactly(sock, 300) == b"".join(sent)
    times = [ask(sock) for _ in range(12)]
    assert max(times) - min(times) > 0.004


def test_bandwidth(dial: Callable[[], socket.socket], proxy: FaultProxy) -> None:
    """20 kB at 50 kB/s need 0.4 s."""
    proxy.set(Link(up=Way(bandwidth=50_000)))
    took = ask(dial(), b"x" * 20_000)
    assert 0.35 <= took < 0.4 + SLACK_S


def test_cut_after_so_many_bytes(dial: Callable[[], socket.socket], proxy: FaultProxy, echo: Echo) -> None:
    """The server has heard just so many bytes of the connection when it is reset."""
    proxy.set(Link(up=Way(cut_after=1000)))
    sock = dial()
    sock.sendall(b"x" * 5000)
    with pytest.raises(ConnectionResetError):
        exactly(sock, 5000)
    eventually(lambda: len(echo.heard) == 1000)


def test_reset_and_hang_up(dial: Callable[[], socket.socket], proxy: FaultProxy) -> None:
    """One is an error at the client, the other an end; new connections are as before."""
    sock, other = dial(), dial()
    ask(sock), ask(other)
    assert proxy.reset() == 2
    with pytest.raises(ConnectionResetError):
        sock.recv(1)
    again = dial()
    ask(again)
    assert proxy.hang_up() == 1
    assert again.recv(1) == b""
    assert proxy.open == 0


def test_black_hole(dial: Callable[[], socket.socket], proxy: FaultProxy, echo: Echo) -> None:
    """Connections are taken, bytes vanish, also those of connections that are open, and these are lost for good."""
    old = dial()
    ask(old, b"before")
    proxy.set(BLACK_HOLE)
    new = dial()
    old.sendall(b"into")
    new.sendall(b"the dark")
    assert silent(old)
    assert silent(new)
    assert echo.heard == b"before"
    proxy.set(WELL)
    old.sendall(b"too late")
    assert silent(old)
    assert echo.heard == b"before"
    ask(dial())


def test_answers_do_not_arrive(dial: Callable[[], socket.socket], proxy: FaultProxy, echo: Echo) -> None:
    """One-way loss: the server has it, the client hears nothing."""
    proxy.set(NO_ANSWERS)
    sock = dial()
    sock.sendall(b"hello")
    eventually(lambda: echo.heard == b"hello")
    assert silent(sock)


def test_no_signal_for_a_moment(dial: Callable[[], socket.socket], proxy: FaultProxy) -> None:
    """What is sent meanwhile arrives afterwards, whole."""
    sock = dial()
    ask(sock)
    proxy.set(NO_SIGNAL)
    sock.sendall(b"hello")
    assert silent(sock)
    proxy.set(WELL)
    assert exactly(sock, 5) == b"hello"


def test_refused(dial: Callable[[], socket.socket], proxy: FaultProxy) -> None:
    """Nobody listens; the port stays the proxy's own, and open connections stay open. Then somebody listens again."""
    old = dial()
    ask(old)
    proxy.set(REFUSED)
    with pytest.raises(ConnectionRefusedError):
        dial()
    ask(old)
    proxy.set(WELL)
    ask(dial())


def test_a_server_that_is_gone(dial: Callable[[], socket.socket], echo: Echo) -> None:
    """Who connects is reset, sooner or later."""
    echo.stop()
    with pytest.raises(ConnectionResetError):
        dial().recv(1)


def test_dripping(dial: Callable[[], socket.socket], proxy: FaultProxy) -> None:
    """A byte at a time; and it can be ended in the middle."""
    proxy.set(Link(down=Way(drip=0.05)))
    sock = dial()
    began = time.monotonic()
    sock.sendall(b"x" * 1000)
    assert len(sock.recv(4096)) == 1
    assert len(exactly(sock, 4)) == 4
    assert time.monotonic() - began >= 0.2
    proxy.set(WELL)
    assert len(exactly(sock, 995)) == 995
    assert time.monotonic() - began < 10


def test_captive_portal(proxy: FaultProxy, dial: Callable[[], socket.socket], echo: Echo) -> None:
    """Every request is answered by a page or sent to one, whose host is another; the server hears nothing."""
    proxy.set(PORTAL)
    answers = []
    for _ in range(2):
        sock = dial()
        sock.sendall(b"POST /x HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
        answers.append(exactly(sock, 100_000))
    assert answers[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert answers[0].endswith(PAGE)
    assert answers[1].startswith(b"HTTP/1.1 302 Found\r\n")
    assert b"Location: " + proxy.sign_in_url.encode() in answers[1]
    assert (echo.heard, proxy.visits) == (b"", [])
    address = urlsplit(proxy.sign_in_url)
    assert address.hostname not in (HOST, None)
    with socket.create_connection((address.hostname, address.port), LIMIT) as sock:
        sock.sendall(b"GET /sign-in HTTP/1.1\r\n\r\n")
        assert exactly(sock, 100_000).endswith(PAGE)
    eventually(lambda: proxy.visits == [b"GET /sign-in HTTP/1.1"])


def test_flapping(proxy: FaultProxy) -> None:
    """Away and back, in turn, until it is told how to be."""
    proxy.flap([NO_SIGNAL], 0.05)
    seen: list[Link] = []

    def look() -> bool:
        if seen[-1:] != [proxy.link]:
            seen.append(proxy.link)
        return len(seen) > 5

    eventually(look)
    assert seen[1:5] in ([WELL, NO_SIGNAL] * 2, [NO_SIGNAL, WELL] * 2)
    proxy.set(WELL)
    for _ in range(20):
        assert proxy.link == WELL
        time.sleep(0.01)


def test_flapping_resets_where_it_refuses(proxy: FaultProxy, dial: Callable[[], socket.socket]) -> None:
    """An interface that is down takes its connections with it."""
    sock = dial()
    ask(sock)
    proxy.flap([REFUSED], 0.2)
    with pytest.raises(ConnectionResetError):
        sock.recv(1)
    eventually(lambda: proxy.link == WELL)
    ask(dial())


@pytest.mark.parametrize("silently", [True, False])
def test_new_address(silently: bool, proxy: FaultProxy, dial: Callable[[], socket.socket], echo: Echo) -> None:
    """Old connections are dead, one way or the other; new ones reach the server from elsewhere."""
    old = dial()
    ask(old)
    assert proxy.new_address("127.0.0.2", silent=silently) == 1
    if silently:
        old.sendall(b"lost")
        assert silent(old)
    else:
        with pytest.raises(ConnectionResetError):
            old.recv(1)
    ask(dial())
    assert echo.peers == proxy.sources == [HOST, "127.0.0.2"]
    assert b"lost" not in echo.heard


def test_lost_exchanges(proxy: FaultProxy, dial: Callable[[], socket.socket], echo: Echo) -> None:
    """Half are lost: half of these never reached the server, the other half did; and the dice are the seed's."""
    proxy.set(Link(loss=0.5))
    fates = []
    for number in range(200):
        sock = dial()
        text = b"<%03d>" % number
        sock.sendall(text)
        try:
            answered = exactly(sock, len(text)) == text
        except ConnectionResetError:
            answered = False
        sock.close()
        fates.append((text in echo.heard, answered))
    assert 80 <= 200 - fates.count((True, True)) <= 120
    assert fates.count((False, False)) == proxy.lost[0] >= 25
    assert fates.count((True, False)) == proxy.lost[1] >= 25
    assert fates.count((False, True)) == 0


def test_an_exchange_that_is_lost_in_silence(proxy: FaultProxy, dial: Callable[[], socket.socket]) -> None:
    """The connection stays and is dead; the next one is another throw of the dice."""
    proxy.set(Link(loss=1.0, silent=1.0))
    sock = dial()
    sock.sendall(b"hello")
    assert silent(sock)
    proxy.set(WELL)
    sock.sendall(b"hello")
    assert silent(sock)
    ask(dial())


def test_stopping_leaves_nothing(echo: Echo) -> None:
    """No thread and no listener, whatever was under way; a second time does nothing."""
    before = threading.active_count()
    proxy = FaultProxy(echo.port, slow(5.0))
    proxy.flap([REFUSED, NO_SIGNAL], 0.01)
    with contextlib.suppress(OSError), socket.create_connection((HOST, proxy.port), LIMIT) as sock:
        sock.sendall(b"hello")
    proxy.stop()
    proxy.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, proxy.port), 1)
    eventually(lambda: threading.active_count() <= before)
