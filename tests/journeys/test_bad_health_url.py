"""A health URL that is missing, slow or somebody's page, while somebody watches the network and the server is well:
the calls say how the network is, and the probe neither spoils that nor is in anybody's way."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chatsdk import ChatClient, condition, events
from chatsdk.devserver.process import DevServer
from tests.faults.link import PORTAL, REFUSED
from tests.faults.proxy import FaultProxy
from tests.journeys.leftovers import exactly_once, nothing_left
from tests.pipeline.kit import Peer, RawServer, http
from tests.waiting import eventually

INTERVAL = 0.2
"""Seconds between two probes; 10 in life."""

PATIENCE = 0.5
"""Seconds that a probe may take; 5 in life."""

BAD: dict[str, dict[str, Any]] = {
    "404": {"kind": "status", "status": 404, "body": '{"error": "no such page"}'},
    "404 with a page": {"kind": "html"},
    "404 in words": {"kind": "status", "status": 404, "body": "not found"},
    "204": {"kind": "status", "status": 204, "body": ""},
    "500": {"kind": "status", "status": 500},
    "401": {"kind": "unauthorized"},
    "slow": {"kind": "stall", "hold_s": 30},
    "dripping": {"kind": "drip", "interval_s": 0.1},
    "garbage": {"kind": "garbage"},
    "empty": {"kind": "garbage", "body": ""},
    "another JSON": {"kind": "garbage", "body": "[1, 2]"},
    "a gigabyte": {"kind": "huge", "size": 2**30},
    "a gigabyte, zipped": {"kind": "gzip_bomb", "size": 2**27},
    "reset": {"kind": "reset"},
    "redirect to itself": {"kind": "redirect", "location": "/health"},
    "redirect elsewhere": {"kind": "redirect", "location": "http://portal.invalid/login"},
}


@pytest.fixture(autouse=True)
def _nothing_left(_server: DevServer) -> Iterator[None]:
    """Fail a story that leaves a thread or a descriptor."""
    with nothing_left():
        yield


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(condition, "PROBE_TIMEOUT", PATIENCE)


def watched(chat: ChatClient) -> tuple[list[str], Callable[[], None]]:
    """Levels as somebody who watches sees them, and how to end that. Probes come often."""
    monitor, seen = chat.network, list[str]()
    assert monitor._prober is not None
    monitor._prober._interval = INTERVAL
    return seen, monitor.watch(lambda metrics: seen.append(f"{metrics.quality} {metrics.reason}".strip()))


def asked(server: DevServer, rule: int) -> int:
    """How many probes came."""
    return next(int(each["seen"]) for each in server.fault_rules() if each["id"] == rule)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_health_url(
    name: str,
    server: DevServer,
    connect: Callable[..., ChatClient],
    channel: str,
    texts: Callable[[str], list[str]],
) -> None:
    """After a few messages the network is known to be well, and stays so while the client is idle, whatever comes of
    the probes. They come one after the other, at their pace; no send is late, and no circuit opens."""
    fault = dict(BAD[name])
    rule = server.faults(fault.pop("kind"), operation="health", **fault)
    chat = connect()
    moved: list[events.CircuitStateChanged] = []
    chat.on(events.CircuitStateChanged, moved.append)
    receipts = [chat.send(channel, f"{number}") for number in range(10)]
    began = time.monotonic()
    seen, unwatch = watched(chat)
    eventually(lambda: asked(server, rule) >= 4)
    took = []
    for number in range(10, 20):
        started = time.monotonic()
        receipts.append(chat.send(channel, f"{number}"))
        took.append(time.monotonic() - started)
    so_far = asked(server, rule)
    eventually(lambda: asked(server, rule) >= so_far + 3)
    probes, elapsed = asked(server, rule), time.monotonic() - began
    each = 2 if name == "redirect to itself" else 1  # it is followed once
    assert probes <= (elapsed / INTERVAL + 2) * each
    if name == "slow":
        assert probes <= elapsed / PATIENCE + 2, "a probe began before the last one had ended"
    assert sorted(took)[len(took) // 2] < PATIENCE / 2, "a send waited for a probe"
    assert [level for level in seen if level.startswith(("OFFLINE", "POOR", "FAIR"))] == []
    assert chat.network.metrics().loss == 0
    assert moved == []
    assert [each.name for each in threading.enumerate()].count("chatsdk-network-probe") == 1
    exactly_once(chat, receipts, texts)
    unwatch()
    chat.close()


def test_an_endless_answer_is_not_read_for_long(connect: Callable[..., ChatClient]) -> None:
    """A probe takes 64 KiB, not the 16 MiB that an answer may have otherwise, from a health URL that never ends."""
    sent: list[int] = []

    def behave(peer: Peer) -> None:
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        while (request := peer.request()) is not None:
            if b" /health " not in request:
                peer.say(http(b"[]"))
                continue
            sent.append(0)
            peer.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
            while True:
                peer.say(b"1," * 2**12)
                sent[-1] += 2**13

    server = RawServer(behave)
    chat = connect(server.url, user="alice")
    _, unwatch = watched(chat)
    eventually(lambda: len(sent) >= 3)
    unwatch()
    chat.close()
    server.stop()
    assert max(sent) < 2**20


def test_a_health_url_that_breaks_later(
    server: DevServer, connect: Callable[..., ChatClient], channel: str, texts: Callable[[str], list[str]]
) -> None:
    """It was well, so the first pages in its place may be a portal's; after a call was answered in between they are
    known to be no news of the network. When it is well again, it counts again."""
    chat = connect()
    seen, unwatch = watched(chat)
    receipts = [chat.send(channel, "0")]
    rule = server.faults("latency", operation="health", ms=0)
    eventually(lambda: asked(server, rule) >= 2)
    rule = server.faults("html", operation="health")
    eventually(lambda: asked(server, rule) >= 1)
    receipts.append(chat.send(channel, "1"))
    eventually(lambda: asked(server, rule) >= 3)
    receipts.append(chat.send(channel, "2"))
    settled = len(seen)
    eventually(lambda: asked(server, rule) >= 12)
    assert [level for level in seen[settled:] if level.startswith("OFFLINE")] == []
    server.clear_faults()
    samples = chat.network.metrics().samples
    eventually(lambda: chat.network.metrics().samples > samples)
    exactly_once(chat, receipts, texts)
    unwatch()
    chat.close()


@pytest.mark.parametrize("link", [REFUSED, PORTAL], ids=["gone", "portal"])
def test_with_a_bad_health_url_an_outage_is_seen_all_the_same(
    link: Any,
    server: DevServer,
    connect: Callable[..., ChatClient],
    channel: str,
    texts: Callable[[str], list[str]],
) -> None:
    """A server that is gone is OFFLINE by the probes alone; of a portal, which looks like the bad URL, the first
    calls tell. Afterwards everything is delivered."""
    server.faults("html", operation="health")
    with FaultProxy(int(server.url.rpartition(":")[2])) as proxy:
        chat = connect(proxy.url)
        receipts = [chat.send(channel, "0")]
        seen, unwatch = watched(chat)
        proxy.set(link)
        proxy.reset()
        if link is PORTAL:
            receipts.append(chat.send(channel, "1", wait=0))
        eventually(lambda: seen[-1].startswith("OFFLINE"))
        assert seen[-1] == ("OFFLINE captive_portal" if link is PORTAL else "OFFLINE no_contact")
        proxy.set(type(link)())
        receipts.append(chat.send(channel, "2", wait=0))
        exactly_once(chat, receipts, texts)
        eventually(lambda: not seen[-1].startswith("OFFLINE"))
        unwatch()
        chat.close()
