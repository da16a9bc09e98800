"""Clocks that jump, machines that sleep: messages are delivered as if nothing had happened, and nobody waits for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from chatsdk import ChatClient, Reason, State, events
from chatsdk.devserver.process import DevServer
from tests.faults.link import REFUSED, WELL
from tests.faults.proxy import FaultProxy
from tests.journeys.leftovers import exactly_once, nothing_left
from tests.journeys.moved_clock import MovedClock
from tests.waiting import eventually

HOUR = 3600.0
JUMPS = pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
SWEEP = 1.0
"""Seconds between two looks for lanes that were parked by a clock that was set back (30 in life)."""

DEADLINE = 1.5
STOPPED = 6.0
"""Seconds for which a process is stopped."""


@pytest.fixture(autouse=True)
def _nothing_left(_server: DevServer) -> Iterator[None]:
    """Fail a story that leaves a thread or a descriptor."""
    with nothing_left():
        yield


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@JUMPS
def test_jumps_while_messages_are_sent_and_the_network_is_watched(
    jump: float,
    clock: MovedClock,
    connect: Callable[..., ChatClient],
    server: DevServer,
    channel: str,
    texts: Callable[[str], list[str]],
) -> None:
    """An hour forward and back again, or back and forward: nothing waits, expires, opens or is measured by it."""
    chat = connect(clock=clock)
    seen: list[Any] = []
    unwatch = chat.network.watch(seen.append)
    began = time.monotonic()
    receipts = []
    for number in range(60):
        if number in (20, 40):
            clock.set(jump if number == 20 else -jump)
        receipts.append(chat.send(channel, f"{number}", wait=0 if number % 2 else 5))
    exactly_once(chat, receipts, texts)
    assert time.monotonic() - began < 15
    metrics = chat.network.metrics()
    assert (metrics.loss, metrics.drops, metrics.online) == (0.0, 0, True)
    assert metrics.contact_age is not None
    assert 0 <= metrics.contact_age < 15
    health = chat.health()
    assert (health.open_circuits, health.errors, health.oldest_age) == ((), 0, None)
    unwatch()
    chat.close()


@JUMPS
def test_jumps_while_lanes_are_parked_and_the_circuit_is_open(
    jump: float,
    clock: MovedClock,
    connect: Callable[..., ChatClient],
    server: DevServer,
    texts: Callable[[str], list[str]],
) -> None:
    """What waits for its back-off does not wait an hour, and the circuit closes when it would have."""
    channels = [server.channel("alice") for _ in range(3)]
    with FaultProxy(int(server.url.rpartition(":")[2])) as proxy:
        chat = connect(proxy.url, clock=clock, sweep_interval=SWEEP)
        receipts = [chat.send(channel, "before") for channel in channels]
        proxy.set(REFUSED)
        proxy.reset()
        receipts += [chat.send(channel, f"{number}", wait=0) for number in range(3) for channel in channels]
        eventually(lambda: chat.circuits["api"].state == "open")
        eventually(lambda: {each.reason for each in receipts[3:]} & {Reason.CIRCUIT_OPEN, Reason.OFFLINE})
        clock.set(jump)
        opens_in = chat.circuits["api"].retry_after
        assert opens_in <= 60
        proxy.set(WELL)
        began = time.monotonic()
        exactly_once(chat, receipts, texts)
        assert time.monotonic() - began < opens_in + SWEEP + 10
        clock.set(-jump)
        receipts.append(chat.send(channels[0], "after"))
        exactly_once(chat, receipts, texts)
        chat.close()


def test_the_clock_goes_back_while_a_lane_waits_as_the_server_asked(
    clock: MovedClock,
    connect: Callable[..., ChatClient],
    server: DevServer,
    channel: str,
    texts: Callable[[str], list[str]],
) -> None:
    """`Retry-After: 2`, and then the clock is set back by an hour: the next look at the lanes finds it."""
    chat = connect(clock=clock, sweep_interval=SWEEP)
    server.faults("status", operation="send", status=429, retry_after=2, times=1)
    receipt = chat.send(channel, "later", wait=0.3)
    assert (receipt.state, receipt.reason) == (State.QUEUED, Reason.RATE_LIMITED)
    clock.set(-HOUR)
    began = time.monotonic()
    exactly_once(chat, [receipt], texts)
    assert time.monotonic() - began < 10
    chat.close()


def test_a_date_to_wait_for_is_the_servers(
    clock: MovedClock,
    connect: Callable[..., ChatClient],
    server: DevServer,
    channel: str,
    texts: Callable[[str], list[str]],
) -> None:
    """`Retry-After` as a date two seconds ahead, and a clock that is an hour behind: it waits for seconds, not for an
    hour and two seconds."""
    clock.set(-HOUR)
    chat = connect(clock=clock)
    at = formatdate(time.time() + 2, usegmt=True)
    server.faults("status", operation="send", status=429, times=1, headers={"Retry-After": at})
    receipt = chat.send(channel, "later", wait=0.3)
    assert (receipt.state, receipt.reason) == (State.QUEUED, Reason.RATE_LIMITED)
    began = time.monotonic()
    exactly_once(chat, [receipt], texts)
    assert time.monotonic() - began < 8
    chat.close()


@JUMPS
def test_a_wait_takes_as_long_as_it_was_told(
    jump: float, clock: MovedClock, connect: Callable[..., ChatClient], nowhere: str, channel: str
) -> None:
    """The clock jumps while somebody waits for a message that cannot be delivered: no second more or less for it."""
    chat = connect(nowhere, clock=clock, user="alice")
    receipt = chat.send(channel, "text", wait=0)
    chat.on(events.RetryScheduled, lambda _: clock.set(jump) if clock._wall == 0 else None)
    began = time.monotonic()
    assert receipt.wait(1.5).state is State.QUEUED
    assert 1.4 < time.monotonic() - began < 5
    chat.close(0.2)


def test_the_next_process_delivers_what_a_clock_left_in_the_future(
    connect: Callable[..., ChatClient],
    server: DevServer,
    channel: str,
    nowhere: str,
    texts: Callable[[str], list[str]],
) -> None:
    """A client whose clock was an hour ahead parked a message; one without threads, and with the right time, sends it
    at once."""
    ahead = MovedClock()
    ahead.set(HOUR)
    first = connect(clock=ahead, background=False)
    server.faults("status", operation="send", status=503)
    first.send(channel, "early", wait=0.2)
    first.close()
    server.clear_faults()
    second = connect(background=False)
    assert second.outbox.flush(10).queued == 0
    assert texts(channel) == ["early"]
    second.close()


# ---- sleep


COUNTED = pytest.mark.parametrize("counted", [False, True], ids=["unseen", "counted"])


@COUNTED
def test_a_machine_sleeps_for_hours(
    counted: bool,
    clock: MovedClock,
    connect: Callable[..., ChatClient],
    server: DevServer,
    texts: Callable[[str], list[str]],
) -> None:
    """Meanwhile its connections died in silence and its token expired. The first message after it goes out at once,
    and is no reason to think ill of the network."""
    channels = [server.channel("alice") for _ in range(4)]
    pair = server.session("alice")
    with FaultProxy(int(server.url.rpartition(":")[2])) as proxy:
        chat = connect(
            proxy.url, clock=clock, token=pair["token"], refresh_token=pair["refreshToken"], timeout=4, send_wait=20
        )
        unwatch = chat.network.watch(lambda _: None)
        overlapping = server.faults("latency", operation="send", ms=30, when="before")
        receipts = [chat.send(channel, f"{number}", wait=0) for number in range(10) for channel in channels]
        exactly_once(chat, receipts, texts)
        server.clear_faults(overlapping)
        assert proxy.open > 1, "one connection shows nothing"
        proxy.new_address("127.0.0.2")
        server.faults("expire_tokens")
        clock.sleep(3 * HOUR, counted=counted)
        began = time.monotonic()
        receipts.append(chat.send(channels[0], "after"))
        took = time.monotonic() - began
        assert receipts[-1].delivered
        assert took < 3, f"{took:.1f} s: it was sent into a dead connection"
        receipts += [chat.send(channel, "and more") for channel in channels]
        exactly_once(chat, receipts, texts)
        metrics = chat.network.metrics()
        assert metrics.loss * metrics.samples <= 1.5
        assert metrics.drops <= 1
        assert metrics.online
        unwatch()
        chat.close()


def test_connections_that_died_in_silence_cost_one_deadline(
    connect: Callable[..., ChatClient], server: DevServer, texts: Callable[[str], list[str]]
) -> None:
    """A router forgot them, and no clock says so: the first try that hears nothing is a sign for all of them."""
    channels = [server.channel("alice") for _ in range(6)]
    with FaultProxy(int(server.url.rpartition(":")[2])) as proxy:
        chat = connect(proxy.url, timeout=DEADLINE)
        overlapping = server.faults("latency", operation="send", ms=30, when="before")
        receipts = [chat.send(channel, f"{number}", wait=0) for number in range(10) for channel in channels]
        exactly_once(chat, receipts, texts)
        server.clear_faults(overlapping)
        died = proxy.new_address("127.0.0.2")
        assert died > 2, "too few to show anything"
        began = time.monotonic()
        receipts.append(chat.send(channels[0], "after", wait=0))
        receipts[-1].wait(20)
        first = time.monotonic() - began
        assert DEADLINE * 0.9 < first < DEADLINE * 2
        receipts += [chat.send(channel, "and more", wait=0) for channel in channels]
        exactly_once(chat, receipts, texts)
        rest = time.monotonic() - began - first
        assert rest < DEADLINE * 0.9, f"{rest:.1f} s more for {died} dead connections"
        chat.close()


class Sleeper:
    """A process that runs `sleeper.py`."""

    def __init__(self, environment: dict[str, str], *channels: str) -> None:
        script = Path(__file__).with_name("sleeper.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script), *channels],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, line: str) -> None:
        """Have it do something."""
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """What it says to the oldest line that it was told."""
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def ask(self, line: str = "state") -> dict[str, Any]:
        """Both."""
        self.tell(line)
        return self.answer()

    def stop_for(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)
            time.sleep(seconds)
        finally:
            self.process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """Let it end."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        code = self.process.wait(20)
        self.process.stdout.close()
        return code


@pytest.fixture
def sleeper(environment: dict[str, str], server: DevServer) -> Iterator[Callable[..., Sleeper]]:
    """Starts such a process, with a token that lives for STOPPED seconds at most."""
    made: list[Sleeper] = []

    def start(*channels: str) -> Sleeper:
        pair = server.session("alice", ttl=STOPPED - 1)
        settings = {
            "TOKEN": pair["token"],
            "REFRESH_TOKEN": pair["refreshToken"],
            "WS_TOKEN": pair["wsToken"],
            "REALTIME": "json",
            "TIMEOUT": "2",
            "HEARTBEAT": "1",
            "HEARTBEAT_TIMEOUT": "1",
        }
        environment.update({f"CHATSDK_{name}": value for name, value in settings.items()})
        made.append(Sleeper(environment, *channels))
        return made[-1]

    yield start
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
            each.end()


def test_a_process_is_stopped_in_the_middle_of_sending(
    sleeper: Callable[..., Sleeper], server: DevServer, texts: Callable[[str], list[str]]
) -> None:
    """Eight tries are out when it is stopped, for longer than their deadlines, its heartbeat and its token. It goes on
    as if it had not been: each message once, the connection back after one break at most, and the network not blamed
    for tries that nobody looked after."""
    channels = [server.channel("alice", "bob") for _ in range(8)]
    process = sleeper(*channels)
    assert process.ask("send 5")["count"] == 5
    eventually(lambda: process.ask()["pending"] == 0)
    before = process.ask()
    server.faults("latency", operation="send", ms=400, when="before", for_s=3)
    process.tell("send 1")
    process.answer()
    time.sleep(0.1)  # the tries are out
    process.stop_for(STOPPED)
    first = process.ask("first after")
    assert first["state"] == "SENT"
    assert first["seconds"] < 5
    eventually(lambda: process.ask()["pending"] == 0)
    eventually(lambda: process.ask()["connection"] == "CONNECTED")
    state = process.ask()
    assert state["dead"] == 0
    assert len(state["breaks"]) - len(before["breaks"]) <= 1
    assert state["lost"] <= before["lost"] + 1.5
    assert state["drops"] <= before["drops"] + 1
    assert not [level for level in state["levels"] if level.startswith("OFFLINE")]
    for channel in channels:
        assert texts(channel) == [*(f"{number}" for number in range(6)), *["after"][: channel == channels[0]]]
    eventually(lambda: len(process.ask()["heard"]) == 8 * 6 + 1)
    assert process.end() == 0


def test_a_process_is_stopped_in_between(
    sleeper: Callable[..., Sleeper], server: DevServer, channel: str, texts: Callable[[str], list[str]]
) -> None:
    """It had nothing to do. Afterwards it hears what was said meanwhile, once, and sends at once."""
    process = sleeper(channel)
    assert process.ask("first 1")["state"] == "SENT"
    process.process.send_signal(signal.SIGSTOP)
    try:
        with ChatClient(
            server.url, server.tokens["bob"], state_dir=os.environ["HOME"], discover=False, background=False
        ) as other:
            assert other.send(channel, "2").delivered
        time.sleep(STOPPED)
    finally:
        process.process.send_signal(signal.SIGCONT)
    first = process.ask("first 3")
    assert (first["state"], first["seconds"] < 3) == ("SENT", True)
    eventually(lambda: process.ask()["heard"] == ["1", "2", "3"])
    state = process.ask()
    assert state["lost"] <= 1.5
    assert not [level for level in state["levels"] if level.startswith(("OFFLINE", "POOR"))]
    assert texts(channel) == ["1", "2", "3"]
    assert process.end() == 0
