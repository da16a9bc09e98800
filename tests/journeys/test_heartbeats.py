"""What a listening client learns of its network without asking anybody: from heartbeats, bodies and drops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from chatsdk.devserver.process import DevServer
from chatsdk.realtime import pulse
from tests.journeys.listeners import PROTOCOLS, Listener
from tests.realtime.bots import Writer
from tests.waiting import eventually

BEAT_S = 0.2


@pytest.fixture(scope="module")
def _beating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServer]:
    with DevServer(tmp_path_factory.mktemp("server") / "server.db", ping_interval=1.0, pong_timeout=0.8) as server:
        yield server


@pytest.fixture
def beating(_beating: DevServer) -> Iterator[DevServer]:
    """A server that pings every second."""
    yield _beating
    _beating.clear_faults()


def listener(server: DevServer, directory: Path, protocol: str, **options: Any) -> Listener:
    return Listener(server, directory, protocol, **{"heartbeat": BEAT_S, "heartbeat_timeout": 0.5, **options})


def test_a_ping_and_its_pong_are_a_latency(beating: DevServer, tmp_path: Path) -> None:
    """Plain JSON: an idle client knows how quick the server is, without a request."""
    with listener(beating, tmp_path, "json") as bot:
        bot.hear(beating.channel("alice", "bob"))
        before, requests = bot.chat.network.metrics().samples, len(beating.requests())
        eventually(lambda: bot.chat.network.metrics().samples >= before + 5)
        assert len(beating.requests()) == requests
        metrics = bot.chat.network.metrics()
        assert metrics.latency_ms is not None
        assert metrics.loss == 0.0
        assert metrics.contact_age is not None
        assert metrics.contact_age < 2.0


def test_a_pong_that_does_not_come_is_a_lost_try(beating: DevServer, tmp_path: Path) -> None:
    """And the connection is a drop."""
    with listener(beating, tmp_path, "json") as bot:
        bot.hear(beating.channel("alice", "bob"))
        assert bot.chat.network.metrics().loss == 0.0
        beating.realtime.no_pong(for_s=1.5)
        eventually(lambda: bot.chat.network.metrics().loss > 0.0)
        eventually(lambda: bot.chat.network.metrics().drops >= 1)
        eventually(lambda: bot.chat.connection.state == "CONNECTED")


def test_the_servers_ping_is_contact(beating: DevServer, tmp_path: Path) -> None:
    """Centrifugo: it says that there is contact, not how quick it is; one that stops is a lost try."""
    with listener(beating, tmp_path, "centrifugo") as bot:
        bot.hear(beating.channel("alice", "bob"))
        begun = bot.chat.network.metrics().samples
        eventually(lambda: bot.chat.network.metrics().samples >= begun + 2)  # what subscribing asked for is answered
        latency = bot.chat.network.latency
        before, requests = bot.chat.network.metrics().samples, len(beating.requests())
        eventually(lambda: bot.chat.network.metrics().samples >= before + 2)
        assert bot.chat.network.latency == latency
        assert len(beating.requests()) == requests
        assert beating.realtime.half_open()
        eventually(lambda: bot.chat.network.metrics().loss > 0.0)


@pytest.mark.parametrize("protocol", [*PROTOCOLS, ""])
def test_who_watches_a_connected_client_costs_no_request(
    protocol: str, beating: DevServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its websocket says how the network is, latency and all. Control: without one the server is asked over HTTP."""
    defaults: dict[str, Any] = pulse.Pulse.__init__.__kwdefaults__ or {}
    monkeypatch.setitem(defaults, "interval", BEAT_S)
    with listener(beating, tmp_path, protocol or "centrifugo", heartbeat=30.0) as bot:
        prober = bot.chat.network._prober
        assert prober is not None
        prober._interval = 4 * BEAT_S
        if protocol:
            bot.hear(beating.channel("alice", "bob"))
        else:
            bot.chat.users.me()
        bot.chat.network.watch(lambda _: None)
        eventually(lambda: bot.chat.network.metrics().samples >= 3)
        before = len(probes(beating))
        began, samples = monotonic(), bot.chat.network.metrics().samples
        while monotonic() < began + 2.4:
            sleep(0.1)
        made = len(probes(beating)) - before
        if protocol:
            assert made == 0
            assert bot.chat.network.metrics().samples >= samples + 5
            assert bot.chat.network.latency is not None
        else:
            assert made >= 2


def probes(server: DevServer) -> list[Any]:
    return [each for each in server.requests() if each["operation"] == "health"]


def test_a_large_answer_tells_of_the_bandwidth(server: DevServer, tmp_path: Path) -> None:
    """200 long messages in one list; what is small tells of the latency only."""
    channel, writer = server.channel("alice", "bob"), Writer(server)
    writer.send(channel, ["x" * 5000] * 20)
    writer.connection.close()
    with listener(server, tmp_path, "json") as bot:
        bot.chat.users.me()
        assert bot.chat.network.metrics().bandwidth is None
        list(bot.chat.messages.list(channel, limit=20))
        bandwidth = bot.chat.network.metrics().bandwidth
        assert bandwidth is not None
        assert bandwidth > 100_000


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_listens_knows_of_an_outage_at_once(protocol: str, tmp_path: Path) -> None:
    """Nothing is sent: each try to connect again that finds nobody is a sign. It is well again with the connection."""
    with DevServer(tmp_path / "server.db") as server, listener(server, tmp_path, protocol, heartbeat=30.0) as bot:
        bot.hear(server.channel("alice", "bob"))
        network = bot.chat.network
        server.kill()
        began = monotonic()
        eventually(lambda: network.quality == "OFFLINE")
        assert monotonic() - began < 5.0
        assert network.reason == "no_contact"
        assert bot.chat.features.states()["search"] == "offline"
        server.start()
        eventually(lambda: network.quality != "OFFLINE")
        eventually(lambda: bot.chat.connection.state == "CONNECTED")


def test_a_realtime_server_elsewhere_says_nothing_of_the_chat_server(tmp_path: Path) -> None:
    """It is away; the other one answers."""
    with DevServer() as server, DevServer() as gone:
        with listener(server, tmp_path, "centrifugo", ws_url=gone.ws_url) as bot:
            gone.kill()
            bot.chat.connect()
            eventually(lambda: bot.chat.circuits.state("websocket") != "closed")
            assert bot.chat.network.metrics().loss == 0.0


def test_messages_go_out_with_the_first_sign_of_the_server(tmp_path: Path) -> None:
    """However long the circuit would have been open: it may have been the network's fault."""
    with DevServer(tmp_path / "server.db") as server:
        channel = server.channel("alice", "bob")
        with listener(
            server, tmp_path, "centrifugo", circuit_failures=2, circuit_open_first=600, circuit_open_max=600
        ) as bot:
            bot.hear(channel)
            server.kill()
            receipts = [bot.chat.send(channel, f"{number}", wait=0) for number in range(5)]
            eventually(lambda: bot.chat.circuits.state("api") == "open")
            eventually(lambda: bot.chat.network.quality == "OFFLINE")
            server.start()
            eventually(lambda: all(receipt.wait(0).delivered for receipt in receipts))
            assert bot.chat.circuits.state("api") == "closed"
