"""Frames: the same texts however the bytes are cut, and an end with a code for whatever is no WebSocket."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatsdk.core.errors import (
    CaptivePortalError,
    ChatError,
    ConnectTimeoutError,
    Forbidden,
    NotSentError,
    RateLimited,
    ServerError,
    SettingsError,
    Unauthorized,
)
from chatsdk.core.tokens import Secret
from chatsdk.realtime.frames import Frames, open_frames
from chatsdk.realtime.waiting import Waiter, Waker
from chatsdk.realtime.wire import Wire
from chatsdk.resilience.system_clock import SystemClock
from tests.realtime.peers import (
    BINARY,
    CLOSE,
    CONTINUED,
    LIMIT,
    PING,
    PONG,
    TEXT,
    accepted,
    close_frame,
    frame,
    header,
    read_frame,
)

URL = "ws://127.0.0.1:1/ws?q=1"


class Pair:
    """Both ends of a socket: `frames` is ours, `peer` the other one."""

    def __init__(self, ours: socket.socket, peer: socket.socket) -> None:
        self.peer = peer
        self.wire = Wire(ours)
        self.waker = Waker()
        self.waiter = Waiter(SystemClock(), self.waker)
        self.frames: Frames = None  # type: ignore[assignment]

    def open(self, answer: bytes | None = None, *, within: float = LIMIT, **facts: object) -> Frames:
        """Shake hands with a peer that answers `answer` (None: as it should)."""

        def reply() -> None:
            with contextlib.suppress(OSError):
                request = b""
                while b"\r\n\r\n" not in request:
                    request += self.peer.recv(65536)
                self.request = request
                self.peer.sendall(accepted(request) if answer is None else answer)

        thread = threading.Thread(target=reply, daemon=True)
        thread.start()
        try:
            until = time.monotonic() + within
            self.frames = open_frames(self.wire, URL, self.waiter, until, **facts)  # type: ignore[arg-type]
        finally:
            thread.join(LIMIT)
        return self.frames

    def say(self, data: bytes) -> list[str]:
        """Send bytes, and give the texts that are complete then."""
        texts: list[str] = []
        for start in range(0, len(data), 50_000):  # so that the socket takes it
            self.peer.sendall(data[start : start + 50_000])
            texts += self.drain()
        return texts

    def drain(self) -> list[str]:
        """Read until nothing is there."""
        texts: list[str] = []
        while self.frames.ended is None and self.waker.wait(self.wire.sock, False, 0)[0]:
            texts += self.frames.texts()
        return texts

    def error(self, answer: bytes, **facts: object) -> ChatError:
        """What the handshake raises."""
        with pytest.raises(ChatError) as caught:
            self.open(answer, **facts)  # type: ignore[arg-type]
        return caught.value

    @property
    def ended(self) -> int | None:
        return None if self.frames.ended is None else self.frames.ended.code


@contextlib.contextmanager
def make_pair() -> Iterator[Pair]:
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    peer.settimeout(LIMIT)
    pair = Pair(ours, peer)
    try:
        yield pair
    finally:
        pair.waker.close()
        ours.close()
        peer.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both ends of a socket, hands not shaken."""
    with make_pair() as pair:
        yield pair


# ---- texts


def test_texts_of_one_read(pair: Pair) -> None:
    """All texts that came together are given together, of every length of header, in order."""
    pair.open()
    sizes = [0, 1, 125, 126, 300, 65535, 65536, 200_000]
    said = ["x" * size for size in sizes]
    assert pair.say(b"".join(map(frame, said))) == said
    assert pair.ended is None


def test_text_with_the_handshake(pair: Pair) -> None:
    """What came in one piece with the handshake's answer is not lost."""
    answer: list[bytes] = []

    def reply() -> None:
        request = pair.peer.recv(65536)
        answer.append(request)
        pair.peer.sendall(accepted(request) + frame("first") + frame("second"))

    threading.Thread(target=reply, daemon=True).start()
    frames = open_frames(pair.wire, URL, pair.waiter, time.monotonic() + LIMIT)
    assert frames.cut() == ["first", "second"]


def _messages() -> st.SearchStrategy[list[tuple[str, list[int], bool]]]:
    text = st.text(max_size=40) | st.builds(
        lambda piece, times: piece * times, st.text(min_size=1, max_size=3), st.integers(0, 700)
    )
    return st.lists(st.tuples(text, st.lists(st.integers(0, 50), max_size=4), st.booleans()), max_size=12)


@settings(max_examples=150, deadline=None)
@given(messages=_messages(), cuts=st.lists(st.integers(1, 900), max_size=30))
def test_however_it_is_cut(messages: list[tuple[str, list[int], bool]], cuts: list[int]) -> None:
    """Whole texts and fragmented ones, with pings between, in whatever pieces the bytes arrive: the same texts."""
    stream = b""
    for text, fragments, ping in messages:
        data = text.encode()
        opcode = TEXT
        for size in fragments:
            stream += frame(data[:size], opcode, last=False)
            data, opcode = data[size:], CONTINUED
            if ping:
                stream += frame(b"alive", PING)
        stream += frame(data, opcode)
    with make_pair() as pair:
        pair.open()
        texts: list[str] = []
        for cut in cuts:
            texts += pair.say(stream[:cut])
            stream = stream[cut:]
        texts += pair.say(stream)
        assert texts == [text for text, _, _ in messages]
        assert pair.ended is None


def test_large_frame_is_put_together_once(pair: Pair) -> None:
    """A frame of 16 MiB takes time and memory in proportion to its size."""
    pair.open()
    text = "x" * (16 * 2**20 - 20)
    data = frame(text)
    tracemalloc.start()
    began = time.process_time()
    try:
        texts = pair.say(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert texts == [text]
    assert time.process_time() - began < 3
    assert peak < 4 * len(text)


def test_flood_of_fragments(pair: Pair) -> None:
    """Many small fragments take time in proportion to their number."""
    pair.open()
    stream = frame(b"x", TEXT, last=False) + frame(b"y" * 100, CONTINUED, last=False) * 20_000 + frame(b"z", CONTINUED)
    began = time.process_time()
    assert pair.say(stream) == ["x" + "y" * 2_000_000 + "z"]
    assert time.process_time() - began < 5


def test_binary_counts_as_text(pair: Pair) -> None:
    """A binary message is handed on like a text."""
    pair.open()
    assert pair.say(frame(b"{}", BINARY)) == ["{}"]


# ---- ends


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (header(2**40), 1009),
        (header(2**63 + 5), 1009),
        (frame("x" * 1001), 1009),
        (frame("x" * 600, last=False) + frame("x" * 600, CONTINUED), 1009),
        (frame("x", reserved=0x40), 1002),
        (frame("x" * 200, reserved=0x10), 1002),
        (frame("x", 0x3), 1002),
        (frame("x", 0xB), 1002),
        (b"\x81\x81abcdx", 1002),
        (frame("x", CONTINUED), 1002),
        (frame("x", last=False) + frame("y"), 1002),
        (frame("x" * 126, PING), 1002),
        (frame("x", PING, last=False), 1002),
        (frame("x", CLOSE), 1002),
        (close_frame(999), 1002),
        (frame(b"\xff\xfe"), 1007),
        (frame(b"\xed\xa0\x80"), 1007),
        (frame(b"\xc3", last=False) + frame(b"x", CONTINUED), 1007),
    ],
    ids=[
        "1 TiB announced",
        "negative length",
        "too long",
        "too long in fragments",
        "compressed",
        "reserved bit",
        "unknown opcode",
        "unknown control opcode",
        "masked",
        "continues nothing",
        "fragments in disorder",
        "long ping",
        "fragmented ping",
        "close with half a code",
        "close with a bad code",
        "no UTF-8",
        "surrogate",
        "no UTF-8 in fragments",
    ],
)
def test_what_is_no_websocket(pair: Pair, data: bytes, code: int) -> None:
    """It ends with the code that the standard has for it, the peer is told that, and what came before it counts."""
    pair.open(max_size=1000)
    assert pair.say(frame("before") + data + frame("after")) == ["before"]
    assert pair.ended == code
    assert pair.frames.ended is not None
    assert pair.frames.ended.ours
    opcode, payload = read_frame(pair.peer)
    assert (opcode, payload) == (CLOSE, code.to_bytes(2, "big"))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_garbage(data: bytes) -> None:
    """Whatever bytes come, reading them never raises."""
    with make_pair() as pair:
        pair.open(max_size=5000)
        assert all(isinstance(text, str) for text in pair.say(data))


def test_peer_closes(pair: Pair) -> None:
    """Code and reason of the peer are kept, texts before its close count, and it is answered."""
    pair.open()
    assert pair.say(frame("last") + close_frame(3001, "shutdown")) == ["last"]
    assert pair.frames.ended is not None
    assert (pair.frames.ended.code, pair.frames.ended.reason, pair.frames.ended.ours) == (3001, "shutdown", False)
    assert read_frame(pair.peer) == (CLOSE, (3001).to_bytes(2, "big"))


def test_peer_closes_without_a_code(pair: Pair) -> None:
    """A close frame may be empty: 1005."""
    pair.open()
    pair.say(frame(b"", CLOSE))
    assert pair.ended == 1005


def test_peer_goes_without_a_word(pair: Pair) -> None:
    """The end of the stream is 1006, also in the middle of a frame."""
    pair.open()
    pair.peer.sendall(frame("whole") + b"\x81\x7e\x10\x00abc")
    pair.peer.close()
    assert pair.drain() == ["whole"]
    assert pair.ended == 1006


def test_ping_is_answered(pair: Pair) -> None:
    """With its own payload."""
    pair.open()
    assert pair.say(frame(b"are you there", PING) + frame(b"", PONG)) == []
    assert read_frame(pair.peer) == (PONG, b"are you there")


def test_pings_of_a_peer_that_does_not_read(pair: Pair) -> None:
    """Their answers do not fill the memory."""
    pair.open()
    for _ in range(40):
        pair.say(frame(b"x" * 125, PING) * 1000)
    assert 2**17 < pair.wire.unsent < 2**20 + 1000


def test_sending_never_waits(pair: Pair) -> None:
    """What the socket does not take is kept, in order, and sent when it does."""
    pair.open()
    said = [f"{number} " + "x" * 50_000 for number in range(40)]
    for text in said:
        pair.frames.send(text)
    assert pair.wire.unsent > 0
    assert pair.wire.wants_to_write
    heard: list[str] = []
    thread = threading.Thread(target=lambda: heard.extend(read_frame(pair.peer)[1].decode() for _ in said), daemon=True)
    thread.start()
    while pair.wire.unsent:
        assert pair.waker.wait(pair.wire.sock, True, LIMIT)[1]
        pair.wire.flush()
    thread.join(LIMIT)
    assert heard == said


# ---- handshake


def test_what_is_asked(pair: Pair) -> None:
    """The request has what was given, no Origin, and nothing that would be compressed."""
    pair.open(headers={"Authorization": Secret("Bearer abc"), "X-App": "1"})
    head = pair.request.decode()
    assert head.startswith("GET /ws?q=1 HTTP/1.1\r\n")
    assert "Authorization: Bearer abc\r\n" in head
    assert "X-App: 1\r\n" in head
    assert "Origin" not in head
    assert "Extensions" not in head
    assert "Subprotocol" not in head


@pytest.mark.parametrize(
    ("name", "value"),
    [("X-A", "hidden\r\nX-B: c"), ("X-A", "hidden\0"), ("X A", "hidden"), ("", "hidden"), ("X-A\n", "hidden")],
)
def test_headers_that_would_break_the_request(pair: Pair, name: str, value: str) -> None:
    """They are refused before anything is sent, and their values not shown."""
    with pytest.raises(SettingsError) as caught:
        open_frames(pair.wire, URL, pair.waiter, time.monotonic() + LIMIT, headers={name: value})
    assert "hidden" not in repr(caught.value)
    pair.peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        pair.peer.recv(1)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("401 Unauthorized", Unauthorized),
        ("403 Forbidden", Forbidden),
        ("429 Too Many Requests", RateLimited),
        ("503 Service Unavailable", ServerError),
        ("200 OK", CaptivePortalError),
        ("302 Found\r\nLocation: ws://other.invalid/", CaptivePortalError),
    ],
)
def test_refused(pair: Pair, status: str, kind: type[ChatError]) -> None:
    """The error says which status it was, not what was in the body, and waits for none of it."""
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 1000000\r\nRetry-After: 7\r\n\r\nhidden".encode()
    error = pair.error(answer)
    assert type(error) is kind
    assert "hidden" not in repr(error)
    assert getattr(error, "retry_after", 7.0) == 7.0


@pytest.mark.parametrize(
    "answer",
    [
        b"\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 abc def\r\n\r\n",
        b"HTTP/1.1 101 x\r\nnonsense\r\n\r\n",
        b"HTTP/1.1 101 x\r\n\xff\xff: a\r\n\r\n",
        b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n",
        b"X" * 70_000,
        b"HTTP/1.1 101 x\r\n" + b"X-A: b\r\n" * 10_000 + b"\r\n",
    ],
    ids=["empty", "no status", "bad status", "bad header", "no text", "bad proof", "too long", "too many headers"],
)
def test_answers_that_make_no_sense(pair: Pair, answer: bytes) -> None:
    """They are an error of ours, whatever they are."""
    error = pair.error(answer)
    assert (type(error), error.code) == (NotSentError, "handshake")


def test_cookies_are_not_kept(pair: Pair) -> None:
    """Neither for this connection nor for another one of the process."""
    request: list[bytes] = []

    def reply(peer: socket.socket) -> None:
        asked = peer.recv(65536)
        request.append(asked)
        peer.sendall(accepted(asked, more=b"Set-Cookie: id=1; Domain=127.0.0.1\r\nset-cookie: b=2; domain=.0.0.1\r\n"))

    for _ in range(2):
        with make_pair() as other:
            threading.Thread(target=reply, args=(other.peer,), daemon=True).start()
            open_frames(other.wire, URL, other.waiter, time.monotonic() + LIMIT)
    assert not any(b"cookie" in each.lower() for each in request)


def test_handshake_that_drips(pair: Pair) -> None:
    """A byte now and then does not make the limit longer."""
    stop = threading.Event()

    def drip() -> None:
        with contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"a" * 5000:
                pair.peer.send(bytes([byte]))
                if stop.wait(0.02):
                    return

    threading.Thread(target=drip, daemon=True).start()
    began = time.monotonic()
    with pytest.raises(ConnectTimeoutError):
        open_frames(pair.wire, URL, pair.waiter, began + 0.3)
    stop.set()
    assert time.monotonic() - began < 0.6


def test_library_is_loaded_late() -> None:
    """Who never connects does not pay for the library, nor for TLS certificates."""
    code = (
        "import sys, chatsdk.realtime.connection as c; c.Connection('ws://h/', lambda: None, print).close();"
        "print([name for name in ('websocket', 'certifi', 'requests') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
