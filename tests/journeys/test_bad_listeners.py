"""Listeners that raise, block, want the program to end or call the client: every message is delivered all the same,
once, in order, and no thread dies of it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chatsdk import ChatClient, Reason, State, events
from chatsdk.core.network_events import DegradationChanged, FeatureStateChanged, NetworkQualityChanged
from chatsdk.devserver.process import DevServer
from tests.faults.link import REFUSED, WELL
from tests.faults.proxy import FaultProxy
from tests.journeys.leftovers import exactly_once, nothing_left, threads
from tests.waiting import eventually

HEARD = {
    events.MessageQueued,
    events.MessageSent,
    events.MessageFailed,
    events.RetryScheduled,
    events.CircuitStateChanged,
    events.TokenRefreshed,
    events.MessageReceived,
    events.Disconnected,
    NetworkQualityChanged,
    DegradationChanged,
    FeatureStateChanged,
}
"""What is told in the story below; each of them to a bad listener."""


@pytest.fixture(autouse=True)
def _nothing_left(_server: DevServer) -> Iterator[None]:
    """Fail a story that leaves a thread or a descriptor."""
    with nothing_left():
        yield


Act = Callable[[ChatClient, Any], object]


def _raises(chat: ChatClient, event: Any) -> None:
    raise RuntimeError("a bad listener")


def _exits(chat: ChatClient, event: Any) -> None:
    sys.exit("a listener that wants to leave")


def _interrupts(chat: ChatClient, event: Any) -> None:
    raise KeyboardInterrupt


def _recurses(chat: ChatClient, event: Any) -> None:
    _recurses(chat, event)


def _blocks(chat: ChatClient, event: Any) -> None:
    time.sleep(0.05)


def _asks(chat: ChatClient, event: Any) -> None:
    chat.network.metrics()
    chat.health()
    chat.outbox.stats()
    chat.features.is_available("search")
    chat.features.refresh()
    chat.circuits["api"].counts  # noqa: B018
    chat.network.watch(lambda _: None)()
    chat.on(events.Event, lambda _: None)()


@pytest.mark.parametrize("act", [_raises, _exits, _interrupts, _recurses, _blocks, _asks], ids=lambda act: act.__name__)
def test_listeners_of_everything(
    act: Act, server: DevServer, connect: Callable[..., ChatClient], texts: Callable[[str], list[str]]
) -> None:
    """One listener of every event, one of the network and one of the connection do the same bad thing each time they
    are called, through an outage with all that belongs to it. A good listener hears everything meanwhile."""
    with ThreadPoolExecutor(1) as pool:  # in the main thread a wish to leave is granted
        pool.submit(_story_of_an_outage, act, server, connect, texts).result()


def _story_of_an_outage(
    act: Act, server: DevServer, connect: Callable[..., ChatClient], texts: Callable[[str], list[str]]
) -> None:
    channels = [server.channel("alice", "bob") for _ in range(3)]
    pair = server.session("alice")
    heard: list[events.Event] = []
    told: list[Any] = []

    with FaultProxy(int(server.url.rpartition(":")[2])) as proxy:
        chat = connect(
            proxy.url,
            token=pair["token"],
            refresh_token=pair["refreshToken"],
            ws_token=pair["wsToken"],
            reconnect="fast",
            realtime="json",
        )

        def bad(event: Any) -> None:
            act(chat, event)

        chat.on(events.Event, bad)
        chat.on(events.Event, heard.append)
        chat.on(NetworkQualityChanged, bad)
        chat.on(FeatureStateChanged, bad)
        # whoever watches is told at once, in the thread that asks: there a wish to leave is granted
        quiet = threading.Event()
        unwatch = [chat.network.watch(lambda metrics: bad(metrics) if quiet.is_set() else None)]
        unwatch += [chat.network.watch(told.append)]
        unwatch += [chat.connection.watch(lambda state: bad(state) if quiet.is_set() else None)]
        quiet.set()
        assert chat.features.level == "none"
        chat.subscribe(channels)
        assert chat.connect(10)

        def send(number: int) -> list[Any]:
            return [chat.send(channel, f"{number}", wait=0) for channel in channels]

        receipts = [each for number in range(5) for each in send(number)]
        server.faults("expire_tokens")
        receipts += send(5)
        eventually(lambda: all(receipt.delivered for receipt in receipts))
        proxy.set(REFUSED)
        proxy.reset()
        receipts += [each for number in range(6, 10) for each in send(number)]
        eventually(lambda: chat.circuits["api"].state == "open")
        for available in (False, True):
            chat.features.report("search", available)
        proxy.set(WELL)
        exactly_once(chat, receipts, texts)
        eventually(lambda: {type(event) for event in heard} >= HEARD, f"{HEARD - {type(event) for event in heard}}")
        eventually(lambda: sum(isinstance(event, events.MessageReceived) for event in heard) == len(receipts))
        keys = sorted(receipt.key for receipt in receipts)  # told after the commit, so perhaps a moment later
        eventually(lambda: sorted(event.key for event in heard if isinstance(event, events.MessageSent)) == keys)
        assert len(told) > 1
        for end in unwatch:
            end()
        chat.close()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("background", [True, False], ids=["threads", "inline"])
@pytest.mark.parametrize("event", [events.MessageQueued, events.MessageSent], ids=lambda event: event.__name__)
def test_a_wish_to_leave_in_the_main_thread(
    event: type[events.Event],
    background: bool,
    error: type[BaseException],
    connect: Callable[..., ChatClient],
    channel: str,
    texts: Callable[[str], list[str]],
) -> None:
    """It is granted: `send` raises it. The message was accepted, and goes out with those that follow, once."""
    chat = connect(background=background)
    wishes = [error("a listener in the main thread")]

    def leave(_: events.Event) -> None:
        if wishes and threading.current_thread() is threading.main_thread():
            raise wishes.pop()

    chat.on(event, leave)
    if event is events.MessageQueued or not background:
        with pytest.raises(error):
            chat.send(channel, "0")
    else:
        assert chat.send(channel, "0").delivered
    receipts = [receipt for receipt in chat.outbox.list() if receipt.state is State.QUEUED]
    if background:
        eventually(lambda: texts(channel) == ["0"])
    receipts += [chat.send(channel, f"{number}") for number in (1, 2)]
    chat.outbox.flush(10)
    assert {receipt.wait(10).state for receipt in receipts} == {State.SENT}
    assert texts(channel) == ["0", "1", "2"]
    stats = chat.outbox.stats()
    assert (stats.accepted, stats.delivered, stats.pending) == (3, 3, 0)
    chat.close()


def test_a_wish_to_leave_ends_run_forever(
    server: DevServer, connect: Callable[..., ChatClient], channel: str, texts: Callable[[str], list[str]]
) -> None:
    """Whatever event the handler is of: one of the outbox is told by a thread that delivers."""
    chat = connect(ws_token=server.session("alice")["wsToken"], realtime="json")
    chat.on(events.MessageSent, lambda _: sys.exit(3))
    chat.connect(10)
    sender = threading.Timer(0.2, lambda: chat.send(channel, "0", wait=0))
    sender.start()
    with pytest.raises(SystemExit) as caught:
        chat.run_forever()
    sender.join()
    assert caught.value.code == 3
    assert chat.send(channel, "1").delivered
    assert texts(channel) == ["0", "1"]
    chat.close()


def test_a_watcher_that_wants_to_leave_at_once(connect: Callable[..., ChatClient]) -> None:
    """It is called by the one who asks, who gets what it raises; and nobody is left watching."""
    chat = connect()
    with pytest.raises(KeyboardInterrupt):
        chat.network.watch(lambda _: _interrupts(chat, _))
    assert not chat.network.watched
    eventually(lambda: not [name for name in threads() if "network" in name])
    chat.close()


@pytest.mark.parametrize("background", [True, False], ids=["threads", "inline"])
def test_a_listener_that_sends_to_its_own_channel(
    background: bool, connect: Callable[..., ChatClient], channel: str, texts: Callable[[str], list[str]]
) -> None:
    """It runs in the thread that delivers that channel, which cannot deliver while it waits: so it does not wait, and
    says why. What it sent follows."""
    chat = connect(background=background)
    took: list[float] = []
    receipts: list[Any] = []

    def answer(event: events.MessageSent) -> None:
        if len(receipts) < 5:
            began = time.monotonic()
            receipts.append(chat.send(channel, f"{len(receipts) + 1}"))
            receipts[-1].wait(5)
            took.append(time.monotonic() - began)

    chat.on(events.MessageSent, answer)
    receipts_of_mine = [chat.send(channel, "0")]
    assert receipts_of_mine[0].delivered
    chat.outbox.flush(10)
    eventually(lambda: len(receipts) == 5)
    exactly_once(chat, [*receipts_of_mine, *receipts], texts)
    assert max(took) < 2, took
    chat.close()


def test_a_listener_that_waits_is_told_why(connect: Callable[..., ChatClient], channel: str) -> None:
    """The receipt of such a message says that others stand before it."""
    chat = connect()
    reasons: list[Any] = []

    def answer(event: events.MessageSent) -> None:
        if not reasons:
            reasons.append(chat._parts.outbox().stuck(chat.send(channel, "1")._row.lane, wait=5))

    chat.on(events.MessageSent, answer)
    assert chat.send(channel, "0").delivered
    eventually(lambda: reasons)
    assert reasons == [Reason.BEHIND_OTHERS]
    chat.close()


def test_a_listener_that_blocks_stops_its_own_channel_only(
    connect: Callable[..., ChatClient], server: DevServer, texts: Callable[[str], list[str]]
) -> None:
    """Handlers run where it happened: while one blocks, its channel waits and the others do not; nor does the network
    monitor, or who watches it. When it is free, everything is delivered."""
    slow, *others = [server.channel("alice") for _ in range(4)]
    chat = connect()
    free, blocked = threading.Event(), threading.Event()

    def block(event: events.MessageSent) -> None:
        if event.channel == slow:
            blocked.set()
            free.wait(20)

    chat.on(events.MessageSent, block)
    receipts = [chat.send(slow, f"{number}", wait=0) for number in range(5)]
    assert blocked.wait(10)
    began = time.monotonic()
    receipts += [chat.send(channel, f"{number}") for number in range(5) for channel in others]
    assert all(receipt.delivered for receipt in receipts[5:])
    assert time.monotonic() - began < 5
    assert chat.network.metrics().loss == 0
    assert not receipts[1].delivered
    free.set()
    exactly_once(chat, receipts, texts)
    chat.close()


def test_closing_while_a_listener_blocks(
    connect: Callable[..., ChatClient], channel: str, texts: Callable[[str], list[str]]
) -> None:
    """It takes as long as it was told, and what was left goes out with the next client."""
    chat = connect()
    free = threading.Event()
    chat.on(events.MessageSent, lambda _: free.wait(20))
    receipts = [chat.send(channel, f"{number}", wait=0) for number in range(3)]
    eventually(lambda: texts(channel) == ["0"])
    began = time.monotonic()
    chat.close(0.5)
    assert time.monotonic() - began < 3
    free.set()
    after = connect()
    after.outbox.flush(10)
    eventually(lambda: texts(channel) == ["0", "1", "2"])
    assert after.outbox.stats().pending == 0
    assert len(receipts) == 3
    after.close()


@pytest.mark.parametrize("where", ["sent", "quality", "watch"])
def test_a_listener_that_closes_the_client(
    where: str,
    connect: Callable[..., ChatClient],
    server: DevServer,
    channel: str,
    texts: Callable[[str], list[str]],
) -> None:
    """From any thread: it ends, in time, and the rest goes out with the next client."""
    with FaultProxy(int(server.url.rpartition(":")[2])) as proxy:
        chat = connect(proxy.url, close_timeout=1)
        done = threading.Event()

        def close(_: object) -> None:
            if ready.is_set():
                chat.close()
                done.set()

        ready = threading.Event()
        if where == "sent":
            chat.on(events.MessageSent, close)
        elif where == "quality":
            chat.on(NetworkQualityChanged, close)
        else:
            chat.network.watch(close)
        chat.send(channel, "0")
        ready.set()
        if where == "sent":
            chat.send(channel, "1", wait=0)
        else:
            proxy.set(REFUSED)
            proxy.reset()
            chat.send(channel, "1", wait=0)
        assert done.wait(15)
        proxy.set(WELL)
        after = connect(proxy.url)
        after.outbox.flush(10)
        eventually(lambda: texts(channel) == ["0", "1"])
        assert after.outbox.stats().pending == 0
        after.close()
