"""A connection: its states, how it comes back, what is posted to it, what it shows of itself, and forks."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from chatsdk.core.backoff import RECONNECTS, Backoff
from chatsdk.core.errors import ChatError, ConnectionFailedError, TokenExpiredError, TokenUnavailableError
from chatsdk.core.events import Event
from chatsdk.core.protocols.outputs import Close, Opened, Output, Send, TokenWanted
from chatsdk.core.protocols.plain_json import PlainJson
from chatsdk.core.protocols.states import ConnectionState
from chatsdk.core.realtime_events import Connected, ConnectionStateChanged, Disconnected
from chatsdk.core.tokens import Secret
from chatsdk.realtime.connection import Connection
from chatsdk.resilience.circuits import Circuits
from tests.realtime.peers import (
    CLOSE,
    LIMIT,
    Heard,
    Peer,
    RawServer,
    Server,
    Simple,
    close_frame,
    connecting,
    frame,
    read_frame,
    readers,
    serving,
    shake_hands,
    took,
)
from tests.waiting import eventually

S = ConnectionState
QUICK = (Backoff(tries=0, first=0.01, factor=1.0, cap=0.01),)


class Watch(list[ConnectionState]):
    """An observer that keeps what it sees."""

    def __call__(self, state: ConnectionState) -> None:
        self.append(state)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """No reader thread outlives its connection."""
    yield
    eventually(lambda: not readers())


def nobody_listens() -> int:
    """A port that refuses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


# ---- states


def test_states_of_a_loss() -> None:
    """CLOSED, CONNECTING, CONNECTED; cut: DISCONNECTED, RECONNECTING, CONNECTED, within two seconds."""
    seen, server, events = Watch(), Server(), list[Event]()
    with serving(server) as raw, connecting(raw.port, emit=events.append, user="alice") as connection:
        connection.watch(seen)
        assert seen == [S.CLOSED]
        assert not connection.connect()
        assert connection.wait_connected(LIMIT)
        began = time.monotonic()
        server.cut()
        eventually(lambda: len(seen) == 6)
        assert time.monotonic() - began < 2
        assert seen == [S.CLOSED, S.CONNECTING, S.CONNECTED, S.DISCONNECTED, S.RECONNECTING, S.CONNECTED]
        assert connection.metrics().reconnects == 1
        connection.disconnect()
        assert seen[-1] is S.CLOSED
    moves = [(event.old, event.new) for event in events if isinstance(event, ConnectionStateChanged)]
    assert moves == list(pairwise(seen))
    assert [event.reconnects for event in events if isinstance(event, Connected)] == [0, 1]
    lost = [event for event in events if isinstance(event, Disconnected)]
    assert [(event.reconnecting, event.user) for event in lost] == [(True, "alice"), (False, "alice")]


def test_failed_after_the_last_try() -> None:
    """With a limit: that many tries, then FAILED with the error; `connect` begins anew."""
    seen = Watch()
    tries = (Backoff(tries=3, first=0.01, factor=2.0, cap=0.02),)
    with connecting(nobody_listens(), reconnect=tries) as connection:
        connection.watch(seen)
        with pytest.raises(ConnectionFailedError) as caught:
            connection.connect(wait=LIMIT)
        assert isinstance(caught.value.__cause__, ChatError)
        assert seen == [S.CLOSED, S.CONNECTING, *[S.DISCONNECTED, S.RECONNECTING] * 3, S.FAILED]
        assert connection.status_text.startswith("Failed: no connection")
        with pytest.raises(ConnectionFailedError):
            connection.wait_closed()
        eventually(lambda: not readers())
        assert not connection.post(lambda protocol, now: [])
        connection.connect()
        eventually(lambda: seen[-4:] == [S.RECONNECTING, S.DISCONNECTED, S.RECONNECTING, S.FAILED])
        assert seen.count(S.CONNECTING) == 2


def test_server_that_says_stay_away() -> None:
    """A terminal close code is obeyed: FAILED, with the reason, and no further try."""
    server = Server()
    with serving(server) as raw, connecting(raw.port) as connection:
        assert connection.connect(wait=LIMIT)
        server.say(close_frame(3503, "force disconnect"))
        eventually(lambda: connection.state is S.FAILED)
        assert connection.error is not None
        assert (connection.error.message, connection.error.code) == ("force disconnect", "server_3503")
        assert raw.connections == 1


def test_protocol_that_ends_it() -> None:
    """A `Close` of the protocol is told to the server, to the listener, and obeyed."""
    server, heard = Server(), Heard()
    with serving(server) as raw, connecting(raw.port, heard) as connection:
        assert connection.connect(wait=LIMIT)
        server.say(frame('{"n": 1}') + frame('{"end": [0, "enough", false]}') + frame('{"n": 2}'))
        eventually(lambda: connection.state is S.FAILED)
        assert [type(output).__name__ for output in heard] == ["Opened", "Published", "Close"]
        eventually(lambda: server.codes == [1000])


def test_connect_again_at_once() -> None:
    """After `disconnect` without waiting, `connect` works, and there is never a second reader thread."""
    most, server = 0, Server()
    with serving(server) as raw, connecting(raw.port) as connection:
        for _ in range(20):
            connection.connect()
            most = max(most, len(readers()))
            connection.disconnect(0.0)
            most = max(most, len(readers()))
        assert connection.connect(wait=LIMIT)
        assert most == len(readers()) == 1


def test_many_threads_at_once() -> None:
    """connect, disconnect, post and looks from many threads: one reader thread at most, and moves along the table."""
    seen, wrong = Watch(), list[BaseException]()
    with serving(Server()) as raw, connecting(raw.port, reconnect=QUICK) as connection:
        connection.watch(seen)
        stop = time.monotonic() + 1.0

        def play(number: int) -> None:
            try:
                while time.monotonic() < stop:
                    (connection.connect, connection.disconnect)[number % 2]()
                    connection.post(lambda protocol, now: [])
                    connection.status_text.encode()
                    connection.metrics()
                    assert len(readers()) <= 1
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=play, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        connection.connect()
        assert connection.wait_connected(LIMIT)


def test_closed_for_good() -> None:
    """After `close`, connecting is an error that says so."""
    with connecting(1) as connection:
        connection.close()
        with pytest.raises(ConnectionFailedError) as caught:
            connection.connect()
        assert caught.value.code == "closed"


def test_waiting() -> None:
    """`wait_connected` and `wait_closed` end when it is so, or after their time."""
    with serving(Server(take=False)) as raw, connecting(raw.port) as connection:
        assert not connection.connect(wait=0.05)
        assert not connection.wait_closed(0.05)
        threading.Timer(0.05, connection.disconnect).start()
        assert connection.wait_closed(LIMIT)


def test_observers_that_raise_or_leave() -> None:
    """One that raises does not harm the others, and one that left hears nothing."""
    seen, left = Watch(), Watch()

    def broken(state: ConnectionState) -> None:
        raise ValueError("mine")

    with serving(Server()) as raw, connecting(raw.port) as connection:
        connection.watch(broken)
        connection.watch(left)()
        connection.watch(seen)
        assert connection.connect(wait=LIMIT)
        eventually(lambda: seen == [S.CLOSED, S.CONNECTING, S.CONNECTED])
        assert left == [S.CLOSED]


# ---- coming back


def test_cuts_do_not_add_up() -> None:
    """A connection that lived is back after the first wait, however often it was lost before."""
    server = Server()
    with serving(server) as raw, connecting(raw.port, random=lambda: 1.0) as connection:
        for number in range(4):
            assert connection.connect(wait=LIMIT)
            threading.Event().wait(0.3)
            server.cut()
            eventually(partial(at_least, raw, number + 2))
            assert connection.wait_connected(LIMIT)
        assert connection.metrics().reconnects == 4


def test_server_that_takes_everybody_and_drops_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left alone more and more."""
    monkeypatch.setattr("chatsdk.realtime.reconnect.FLAPPING", 0.2)

    def drop(peer: Peer) -> None:
        shake_hands(peer)
        peer.say(frame('{"opened": true}'))

    with serving(drop) as raw, connecting(raw.port, random=lambda: 1.0) as connection:
        connection.connect()
        eventually(lambda: (connection.reconnect_in or 0) > 0.7)
        assert raw.connections < 8


def test_network_is_back() -> None:
    """`retry_now` ends the wait for the next try."""
    late = (Backoff(tries=0, first=60.0, factor=1.0, cap=60.0, high=1.0),)
    server = Server()
    with serving(server) as raw, connecting(raw.port, reconnect=late) as connection:
        assert connection.connect(wait=LIMIT)
        server.cut()
        eventually(lambda: connection.state is S.DISCONNECTED)
        assert 50 < (connection.reconnect_in or 0) <= 60
        assert connection.status_text == "Reconnecting in 60s (attempt 1)"
        connection.retry_now()
        assert connection.wait_connected(LIMIT)
        server.cut()
        eventually(lambda: connection.state is S.DISCONNECTED)
        connection.connect()  # is as good
        assert connection.wait_connected(LIMIT)


def test_who_sees_the_loss_may_hurry_at_once() -> None:
    """Also from an observer, before the wait has begun."""
    late = (Backoff(tries=0, first=60.0, factor=1.0, cap=60.0, high=1.0),)
    server = Server()
    with serving(server) as raw, connecting(raw.port, reconnect=late) as connection:
        connection.watch(lambda state: connection.retry_now() if state is S.DISCONNECTED else None)
        assert connection.connect(wait=LIMIT)
        connection.retry_now()  # nothing is waited for: it means nothing, now or later
        server.cut()
        eventually(lambda: connection.metrics().reconnects == 1)


def test_server_asks_to_wait() -> None:
    """Retry-After of a refused handshake is obeyed."""

    def refuse(peer: Peer) -> None:
        peer.request()
        peer.say(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n")

    with serving(refuse) as raw, connecting(raw.port) as connection:
        connection.connect()
        eventually(lambda: connection.state is S.DISCONNECTED)
        assert 25 < (connection.reconnect_in or 0) <= 30


@pytest.mark.parametrize("answers_pings", [True, False], ids=["half-open", "answers"])
def test_peer_that_falls_silent(answers_pings: bool) -> None:
    """It is noticed when the protocol's time is over, not before, and not later."""
    server = Server()
    with serving(server) as raw, connecting(raw.port, protocol=lambda: Simple(0.3), reconnect=QUICK) as connection:
        assert connection.connect(wait=LIMIT)
        for _ in range(5):  # a ping frame is a sign of life as well
            threading.Event().wait(0.1)
            server.say(frame(b"", 0x9) if answers_pings else frame('{"n": 1}'))
        assert raw.connections == 1
        said = time.monotonic()
        eventually(lambda: raw.connections == 2)
        assert 0.28 < time.monotonic() - said < 0.6


def test_a_plain_server_that_answers_no_frame() -> None:
    """It knows no ping and says nothing by itself, but it speaks WebSocket: that it is there is known from that."""
    server = Server()
    with serving(server) as raw, connecting(raw.port, protocol=PlainJson) as connection:
        assert connection.connect(wait=LIMIT)
        assert server.heard == ['{"type":"ping"}']
        assert connection.state is S.CONNECTED


def test_connect_that_is_never_answered() -> None:
    """It counts as failed after `open_timeout`."""
    with serving(Server(take=False)) as raw, connecting(raw.port, open_timeout=0.2, reconnect=QUICK) as connection:
        connection.connect()
        eventually(lambda: raw.connections == 3)
        assert connection.state is not S.CONNECTED
        assert connection.error is not None
        assert "in time" in connection.error.message


def test_peer_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """If nothing that we send is taken, the connection is given up."""
    monkeypatch.setattr("chatsdk.realtime.session.SEND_TIMEOUT", 0.3)

    def deaf(peer: Peer) -> None:
        shake_hands(peer)
        peer.say(frame('{"opened": true}'))
        peer.server.stopped.wait(LIMIT)

    with serving(deaf) as raw, connecting(raw.port, reconnect=QUICK) as connection:
        assert connection.connect(wait=LIMIT)
        connection.post(lambda protocol, now: [Send("x" * 8_000_000)])
        eventually(lambda: raw.connections == 2)


def cut_at_random(raw: RawServer, server: Server, connection: Connection, times: int, seed: int) -> Iterator[float]:
    """Cut the connection now and then, in all ways there are; gives the seconds until it is connected again."""
    random = Random(seed)
    for _ in range(times):
        threading.Event().wait(random.uniform(0.0, 0.03))
        before = connection.metrics().reconnects
        began = time.monotonic()
        _cut(server.peers[-1].sock, random.choice(("shutdown", "reset", "half", "close")))
        eventually(partial(reconnected, connection, before))
        assert connection.wait_connected(LIMIT)
        yield time.monotonic() - began
        # so that what grows is ours, not the server's
        raw._threads[:] = [thread for thread in raw._threads if thread.is_alive()]
        del server.peers[:-1], raw._peers[:-1]


def test_back_in_time() -> None:
    """With the server up, and by the preset that is the default, it is connected again within 0.3 s half of the times,
    and within 1 s always, however short the connections live."""
    server = Server()
    with serving(server) as raw, connecting(raw.port) as connection:
        assert connection.connect(wait=LIMIT)
        times = sorted(cut_at_random(raw, server, connection, 30, seed=7))
        assert times[15] < 0.3
        assert times[-1] < 1.0


def test_200_random_cuts() -> None:
    """It is connected again each time; threads, descriptors and memory stay where they were."""
    server = Server()
    with serving(server) as raw, connecting(raw.port, reconnect=QUICK) as connection:
        assert connection.connect(wait=LIMIT)
        list(cut_at_random(raw, server, connection, 100, seed=1))
        threads, fds, rss = _resources()
        list(cut_at_random(raw, server, connection, 100, seed=2))
        threads_after, fds_after, rss_after = _resources()
        assert len(readers()) == 1
        assert connection.metrics().reconnects == 200
    assert raw.connections == 201
    assert threads_after <= threads + 1
    assert fds_after <= fds + 1
    assert rss_after - rss < 2048  # KiB


def at_least(raw: RawServer, count: int) -> bool:
    return raw.connections >= count


def reconnected(connection: Connection, before: int) -> bool:
    return connection.metrics().reconnects > before


def _cut(sock: socket.socket, how: str) -> None:
    with contextlib.suppress(OSError):  # the server may be done with it already
        if how == "half":
            sock.sendall(b"\x81\x7e\x10\x00abc")
        if how == "close":
            sock.sendall(close_frame(3001, "shutdown"))
        if how == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.shutdown(socket.SHUT_RDWR)


def _resources() -> tuple[int, int, int]:
    """Threads, descriptors, KiB of memory of this process."""
    if not os.path.isdir("/proc/self/fd"):
        return threading.active_count(), 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    return threading.active_count(), len(os.listdir("/proc/self/fd")), pages * resource.getpagesize() // 1024


def test_idle_costs_nothing() -> None:
    """Connected and nothing to do: no wake-ups but the protocol's own."""
    with serving(Server()) as raw, connecting(raw.port, protocol=lambda: Simple(60.0)) as connection:
        assert connection.connect(wait=LIMIT)
        turns: list[float] = []
        session_wait = connection._run.wait  # type: ignore[union-attr]

        def wait(*args: Any) -> tuple[bool, bool]:
            turns.append(1.0)
            return session_wait(*args)

        connection._run.wait = wait  # type: ignore[union-attr,method-assign]
        connection.post(lambda protocol, now: [])
        threading.Event().wait(1.0)
        assert len(turns) <= 2


def test_what_is_due_now_is_done_now() -> None:
    """Whoever says "now" says it a moment after he was asked: that is not waited for in turn after turn."""
    dues: list[float] = []

    class Ready(Simple):
        def next_due(self) -> float | None:
            return time.monotonic() if len(dues) < 3 else None

        def due(self, now: float) -> list[Output]:
            dues.append(now)
            return []

    with serving(Server()) as raw, connecting(raw.port, protocol=Ready) as connection:
        assert connection.connect(wait=LIMIT)
        eventually(lambda: len(dues) == 3)


# ---- tokens


class Tokens:
    """A token source. `asked`: whether each question was forced."""

    def __init__(self, *answers: str | BaseException) -> None:
        self.answers = list(answers)
        self.asked: list[bool] = []
        self.threads: set[str] = set()

    def __call__(self, force: bool) -> Secret | None:
        self.asked.append(force)
        self.threads.add(threading.current_thread().name)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return Secret(answer)


def test_token_goes_with_each_connection() -> None:
    """It is asked for each time, never on the reader thread, and forced once the last one was refused."""
    server, tokens = Server(), Tokens("a", "b", "c")
    with serving(server) as raw, connecting(raw.port, ws_token=tokens, reconnect=QUICK) as connection:
        assert connection.connect(wait=LIMIT)
        server.cut()
        eventually(lambda: server.tokens == ["a", "b"])
        assert connection.wait_connected(LIMIT)
        server.say(close_frame(3005, "expired"))
        eventually(lambda: server.tokens == ["a", "b", "c"])
        assert tokens.asked == [False, False, True]
        assert "chatsdk-realtime" not in tokens.threads


def test_tokens_that_are_always_refused() -> None:
    """Each costs a wait; it is no loop."""

    def refuse(peer: Peer) -> None:
        shake_hands(peer)
        read_frame(peer.sock)
        peer.say(close_frame(3005, "expired"))

    tokens = Tokens("a")
    with serving(refuse) as raw, connecting(raw.port, ws_token=tokens) as connection:
        connection.connect()
        threading.Event().wait(0.6)
        assert len(tokens.asked) <= 5
        assert tokens.asked[:2] == [False, True]
        assert raw.connections <= 5


def test_handshake_refused_with_401() -> None:
    """The next try has another token, and headers of its own."""

    def behave(peer: Peer) -> None:
        if peer.number == 1:
            peer.request()
            peer.say(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        else:
            server(peer)

    server, tokens = Server(), Tokens("old", "new")

    def headers(token: Secret | None) -> dict[str, str | Secret]:
        return {"Authorization": Secret(f"Bearer {token.reveal() if token else ''}")}

    with serving(behave) as raw, connecting(raw.port, ws_token=tokens, headers=headers) as connection:
        assert connection.connect(wait=LIMIT)
        assert tokens.asked == [False, True]
        assert b"Authorization: Bearer new\r\n" in server.requests[0]


def test_session_that_is_lost_for_good() -> None:
    """No further try would help: FAILED, with that error."""
    tokens = Tokens(TokenExpiredError("signed out"))
    with connecting(1, ws_token=tokens) as connection:
        with pytest.raises(ConnectionFailedError) as caught:
            connection.connect(wait=LIMIT)
        assert isinstance(caught.value.__cause__, TokenExpiredError)
        assert tokens.asked == [False]


def test_token_source_that_fails() -> None:
    """That is a failed try, whatever it raises."""
    tokens = Tokens(TokenUnavailableError("later"), ValueError("mine"), "good")
    with serving(Server()) as raw, connecting(raw.port, ws_token=tokens, reconnect=QUICK) as connection:
        assert connection.connect(wait=LIMIT)
        assert len(tokens.asked) == 3


def test_token_source_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked once, however many tries wait for it, and its answer is used when it comes."""
    monkeypatch.setattr("chatsdk.realtime.attempt.TOKEN_TIMEOUT", 0.05)
    go, asked, server = threading.Event(), list[bool](), Server()

    def token(force: bool) -> Secret:
        asked.append(force)
        go.wait(LIMIT)
        return Secret("late")

    with serving(server) as raw, connecting(raw.port, ws_token=token, reconnect=QUICK) as connection:
        connection.connect()
        eventually(lambda: connection.status_text.startswith("Reconnecting") and connection._standing.attempt > 3)
        assert isinstance(connection.error, TokenUnavailableError)
        go.set()
        assert connection.wait_connected(LIMIT)
        assert (asked, server.tokens) == ([False], ["late"])


def test_errand() -> None:
    """What may block is run by who was given for that; nobody there is a failed try."""
    ran: list[str] = []

    def errand(function: Callable[[], None]) -> bool:
        if not ran:
            ran.append("refused")
            return False
        ran.append("run")
        threading.Thread(target=function, daemon=True).start()
        return True

    server = Server()
    with serving(server) as raw:
        url = f"ws://127.0.0.1:{raw.port}/made-up"
        with connecting(0, url=lambda: url, ws_token=Tokens("t"), errand=errand, reconnect=QUICK) as connection:
            assert connection.metrics().url == ""
            assert connection.connect(wait=LIMIT)
            assert ran == ["refused", "run"]
            assert connection.metrics().url == url


class Renewing(Simple):
    """Wants its token anew when the server says so."""

    def receive(self, frame: bytes | str, now: float) -> list[Output]:
        fact = json.loads(frame)
        if "renew" in fact:
            return [TokenWanted(fact.get("stream"), fact["renew"])]
        return super().receive(frame, now)


def test_token_is_renewed_without_a_drop() -> None:
    """The connection's own is fetched and given; a stream's is the listener's affair."""
    server, heard, tokens = Server(), Heard(), Tokens("first", "second", ValueError("mine"), "fourth")
    with serving(server) as raw, connecting(raw.port, heard, protocol=Renewing, ws_token=tokens) as connection:
        assert connection.connect(wait=LIMIT)
        server.say(frame('{"renew": false}'))
        eventually(lambda: server.heard == ['{"renew": "second"}'])
        server.say(frame('{"renew": true}'))  # fails, and the protocol asks again
        eventually(lambda: len(tokens.asked) == 3)
        eventually(lambda: connection._attempts._renewing is None)
        server.say(frame('{"renew": true}') + frame('{"renew": false, "stream": "s"}'))
        eventually(lambda: server.heard[1:] == ['{"renew": "fourth"}'])
        assert tokens.asked == [False, False, True, True]
        assert raw.connections == 1
        assert TokenWanted("s") in heard


# ---- what is posted


def test_posts_are_in_order_and_have_the_protocol() -> None:
    """From any thread; what they return is done."""
    server, order = Server(), list[int]()
    with serving(server) as raw, connecting(raw.port) as connection:
        assert connection.connect(wait=LIMIT)

        def make(number: int) -> Callable[[Any, float], list[Output]]:
            def function(protocol: Any, now: float) -> list[Output]:
                assert isinstance(protocol, Simple)
                assert threading.current_thread().name == "chatsdk-realtime"
                order.append(number)
                return [Send(json.dumps({"n": number}))]

            return function

        for number in range(300):
            assert connection.post(make(number))
        eventually(lambda: len(server.heard) == 300)
        assert order == list(range(300))
        assert [json.loads(text)["n"] for text in server.heard] == order


def keep(called: list[Any], what: Any) -> list[Output]:
    called.append(what)
    return []


def test_post_while_not_connected() -> None:
    """It is called without a protocol: an answer that somebody waits for is not lost."""
    called: list[Any] = []
    with connecting(nobody_listens()) as connection:
        assert not connection.post(lambda protocol, now: keep(called, "never"))
        connection.connect()
        eventually(lambda: connection.state is S.DISCONNECTED)
        assert connection.post(lambda protocol, now: keep(called, protocol))
        eventually(lambda: called == [None])


def test_posts_that_raise() -> None:
    """The connection goes on, and so do the other functions."""
    server, called = Server(), list[int]()
    with serving(server) as raw, connecting(raw.port) as connection:
        assert connection.connect(wait=LIMIT)
        connection.post(lambda protocol, now: 1 // 0)  # type: ignore[arg-type,return-value]
        connection.post(lambda protocol, now: keep(called, 1))
        eventually(lambda: called)
        assert connection.state is S.CONNECTED


def test_transient_frames_wait_for_the_connection() -> None:
    """The newest hundred, in order; the others are counted. `disconnect` forgets them."""
    server = Server()

    def frame_of(number: int) -> Callable[[Any, float], list[Output]]:
        return lambda protocol, now: [Send(json.dumps({"n": number}))]

    with serving(server) as raw, connecting(raw.port) as connection:
        for number in range(130):
            connection.post_transient(frame_of(number))
        figures = connection.metrics()
        assert (figures.queued_messages, figures.dropped_messages) == (100, 30)
        assert connection.connect(wait=LIMIT)
        eventually(lambda: len(server.heard) == 100)
        assert [json.loads(text)["n"] for text in server.heard] == list(range(30, 130))
        connection.post_transient(frame_of(1000))
        eventually(lambda: server.heard[-1] == '{"n": 1000}')
        connection.disconnect()
        connection.post_transient(frame_of(1))
        connection.disconnect()
        assert connection.metrics().queued_messages == 0


def test_listener_that_raises() -> None:
    """The connection goes on."""
    server, heard = Server(), list[Output]()

    def listen(outputs: list[Output], now: float) -> None:
        heard.extend(outputs)
        raise ValueError("mine")

    with serving(server) as raw, connecting(raw.port, listen) as connection:
        assert connection.connect(wait=LIMIT)
        server.say(frame('{"n": 1}'))
        server.say(frame('{"n": 2}'))
        eventually(lambda: len(heard) == 3)
        assert connection.state is S.CONNECTED


def test_one_batch_a_read() -> None:
    """What came together is handed over together; the first batch is the `Opened`, the last the `Close`."""
    batches: list[list[Output]] = []
    server = Server()
    with serving(server) as raw, connecting(raw.port, lambda outputs, now: batches.append(outputs)) as connection:
        assert connection.connect(wait=LIMIT)
        server.say(b"".join(frame(json.dumps({"n": number})) for number in range(500)))
        eventually(lambda: sum(map(len, batches)) == 501)
        assert len(batches) <= 5
        connection.disconnect()
        assert isinstance(batches[0][0], Opened)
        assert [type(output) for output in batches[-1]] == [Close]


# ---- what it shows


def test_metrics_and_status() -> None:
    """The figures of seed 004, and a line for people; no secret in them."""
    with serving(Server()) as raw:
        url = f"ws://127.0.0.1:{raw.port}/ws?token=hidden"
        with connecting(0, url=url) as connection:
            assert connection.status_text == "Not connected"
            assert connection.connect(wait=LIMIT)
            threading.Event().wait(0.02)
            figures = connection.metrics()
            assert (figures.state, figures.connected, figures.reconnects) == (S.CONNECTED, True, 0)
            assert 20 <= figures.connection_duration_ms < 5000
            assert figures.url == f"ws://127.0.0.1:{raw.port}/ws"
            assert connection.status_text == "Connected (0s)"
            assert connection.reconnect_in is None
            assert "hidden" not in repr(connection) + repr(figures)


def test_circuit_is_shown_and_delays_nothing() -> None:
    """Three failures open it, tries go on, and a success closes it at once."""
    circuit = Circuits()["websocket"]
    late = Server()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.close()
        with connecting(port, circuit=circuit, reconnect=QUICK) as connection:
            connection.connect()
            eventually(lambda: circuit.state == "open")
            eventually(lambda: connection._standing.attempt > 6)
            with serving(lambda peer: late(peer)) as raw:
                connection._attempts._url = f"ws://127.0.0.1:{raw.port}/"
                assert connection.wait_connected(LIMIT)
                assert circuit.state == "closed"
                connection.close()


def test_one_log_line_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    """However many tries fail."""
    caplog.set_level("INFO", "chatsdk.realtime")
    with connecting(nobody_listens(), reconnect=QUICK) as connection:
        connection.connect()
        eventually(lambda: connection._standing.attempt > 10)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def stands(connection: Connection, state: ConnectionState) -> bool:
    return connection.state is state


def test_presets() -> None:
    """`forever` has no limit, the others ten tries; they are shown."""
    for name, limit in (("forever", ""), ("fast", "/10"), ("patient", "/10")):
        with connecting(nobody_listens(), reconnect=RECONNECTS[name]) as connection:
            connection.connect()
            eventually(partial(stands, connection, S.DISCONNECTED))
            assert connection.status_text.endswith(f"(attempt {connection._standing.attempt}{limit})")


# ---- forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork() -> None:
    """A child is CLOSED and without the parent's socket; it may connect for itself, and the parent hears nothing of
    it."""
    server, heard = Server(), Heard()
    with serving(server) as raw, connecting(raw.port, heard) as connection:
        assert connection.connect(wait=LIMIT)
        connection.post_transient(lambda protocol, now: [Send('{"of": "the parent"}')])
        held = connection._run.held  # type: ignore[union-attr]
        assert held is not None
        pid = os.fork()
        if pid == 0:
            os._exit(_in_child(connection, held))
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert connection.state is S.CONNECTED
        server.peers[0].say(frame('{"n": 1}'))
        eventually(lambda: heard.data == [{"n": 1}])
        assert raw.connections == 2


def _in_child(connection: Connection, held: socket.socket) -> int:
    signal.alarm(20)
    try:
        assert connection.state is S.CLOSED
        assert held.fileno() == -1
        assert connection.metrics().queued_messages == 0
        assert not connection.post(lambda protocol, now: [])
        assert connection.connect(wait=LIMIT)
        assert connection.disconnect()
        assert took(connection.close) < 1
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0


def test_a_child_that_never_uses_it_keeps_nothing_alive() -> None:
    """The server sees the end when the parent closes, though a child still has the socket."""
    server = Server()
    with serving(server) as raw, connecting(raw.port) as connection:
        assert connection.connect(wait=LIMIT)
        copy = os.dup(connection._run.held.fileno())  # type: ignore[union-attr]
        try:
            connection.close()
            eventually(lambda: server.codes == [1000])
            with socket.socket(fileno=os.dup(copy)) as sock:
                sock.settimeout(LIMIT)
                with contextlib.suppress(ConnectionResetError):
                    rest = sock.recv(100)
                    assert rest == b"" or rest[0] & 0x0F == CLOSE
        finally:
            os.close(copy)
