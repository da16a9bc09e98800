"""Heartbeats as samples of the network, and the pings of our own; with the loop of a real connection at the end."""

from __future__ import annotations

import socket

import pytest

from chatsdk.condition import PROBE_TIMEOUT
from chatsdk.network.monitor import INTERVAL as PROBES
from chatsdk.realtime.pulse import INTERVAL, TIMEOUT, Pulse
from tests.realtime import peers
from tests.realtime.peers import PING, PONG, Server, connecting, frame, serving
from tests.waiting import eventually


class Samples(list[tuple[float | None, bool]]):
    """What the monitor is told."""

    def __call__(self, latency: float | None, ok: bool = True) -> None:
        self.append((latency, ok))


class Watched:
    """Whether anybody watches."""

    def __init__(self, now: bool = True) -> None:
        self.now = now

    def __call__(self) -> bool:
        return self.now


@pytest.fixture
def samples() -> Samples:
    return Samples()


def test_a_ping_and_its_pong(samples: Samples) -> None:
    """After a while of nothing; the answer has a latency, and the next ping comes as late again."""
    pulse = Pulse(samples, Watched())
    pulse.begin(100.0)
    assert pulse.next_due() == 100.0 + INTERVAL
    assert pulse.due(100.0 + INTERVAL - 0.1) is None
    ping = pulse.due(108.0)
    assert ping is not None
    pulse.pong(ping, 108.25)
    pulse.pong(ping, 108.5)  # once is enough
    assert samples == [(None, True), (0.25, True)]
    assert pulse.next_due() == 108.25 + INTERVAL


@pytest.mark.parametrize("same", [False, True])
def test_no_way_to_the_server(samples: Samples, same: bool) -> None:
    """A lost try, where both servers are one."""
    Pulse(samples, Watched(False), same=same).unreached()
    assert samples == [(None, False)] * same


def test_no_pong_is_a_lost_try(samples: Samples) -> None:
    """Then it asks again, with another word; a late answer counts for nothing."""
    pulse = Pulse(samples, Watched())
    pulse.begin(0.0)
    first = pulse.due(INTERVAL)
    assert first is not None
    assert pulse.next_due() == INTERVAL + TIMEOUT
    assert pulse.due(INTERVAL + TIMEOUT - 0.1) is None
    assert pulse.due(INTERVAL + TIMEOUT) is None
    second = pulse.due(2 * INTERVAL + TIMEOUT)
    pulse.pong(first, 22.0)
    assert second not in (None, first)
    assert samples == [(None, True), (None, False)]


def test_nobody_watches_nothing_is_sent(samples: Samples) -> None:
    """And nothing is waited for."""
    watched = Watched(False)
    pulse = Pulse(samples, watched)
    pulse.begin(0.0)
    assert pulse.next_due() is None
    assert pulse.due(1000.0) is None
    watched.now = True
    assert pulse.due(1000.0) is not None


def test_heartbeats_of_the_protocol_are_signs_enough(samples: Samples) -> None:
    """Each is a sample, and puts the next ping off."""
    pulse = Pulse(samples, Watched())
    pulse.begin(0.0)
    pulse.beat(0.05, True, 6.0)
    pulse.beat(None, False, 7.0)
    assert pulse.due(14.9) is None
    assert pulse.next_due() == 15.0
    assert samples[1:] == [(0.05, True), (None, False)]


def test_a_new_socket_begins_anew(samples: Samples) -> None:
    """A ping that the last one was asked is no business of this one."""
    pulse = Pulse(samples, Watched())
    pulse.begin(0.0)
    ping = pulse.due(INTERVAL)
    pulse.begin(20.0)
    pulse.pong(ping or b"", 20.1)
    assert pulse.next_due() == 20.0 + INTERVAL
    assert samples == [(None, True), (None, True)]


def test_over_a_real_socket(samples: Samples) -> None:
    """A peer that answers ping frames gives latencies, again and again; one that sends pongs unasked does no harm."""
    server = Server()
    with serving(server) as raw, connecting(raw.port, pulse=Pulse(samples, Watched(), interval=0.05)) as connection:
        assert connection.connect(5.0)
        for _ in range(5):
            server.say(frame(b"nobody asked", PONG))
        eventually(lambda: sum(latency is not None for latency, _ in samples) >= 3)
        assert connection.state == "CONNECTED"
        assert all(ok and (latency is None or 0 <= latency < 5) for latency, ok in samples)


def test_a_peer_that_answers_no_ping_is_a_bad_network_not_a_dead_one(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost tries; whether it lives is decided by the protocol's own heartbeat."""
    monkeypatch.setattr("chatsdk.realtime.pulse.TIMEOUT", 0.05)
    read = peers.read_frame

    def deaf(sock: socket.socket) -> tuple[int, bytes]:
        opcode, data = read(sock)
        return (-1 if opcode == PING else opcode), data

    monkeypatch.setattr(peers, "read_frame", deaf)
    server = Server()
    with serving(server) as raw, connecting(raw.port, pulse=Pulse(samples, Watched(), interval=0.05)) as connection:
        assert connection.connect(5.0)
        eventually(lambda: samples.count((None, False)) >= 2)
        assert connection.state == "CONNECTED"


def test_its_numbers_fit_the_monitors() -> None:
    """Sooner than the monitor would ask over HTTP, and as patient as its probe."""
    assert INTERVAL < PROBES
    assert TIMEOUT == PROBE_TIMEOUT
