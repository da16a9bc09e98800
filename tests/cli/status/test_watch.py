"""`chatsdk status --watch`, in terminals and elsewhere, while a real server comes and goes."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatsdk.devserver.process import DevServer
from tests.cli.conftest import TIMEOUT, Shell, end
from tests.cli.status.screen import ENTERS, Terminal
from tests.faults.link import PORTAL
from tests.faults.proxy import FaultProxy
from tests.pipeline.kit import Peer, RawServer, http
from tests.waiting import eventually


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[DevServer]:
    """A server that may be killed, and keeps its secrets when it comes back."""
    with DevServer(data=str(tmp_path / "server.db")) as server:
        yield server


@pytest.fixture
def watching(own_server: DevServer, tmp_path: Path) -> Shell:
    """The command line as alice has it on that server, websocket and all."""
    return Shell(
        {
            "CHATSDK_URL": own_server.url,
            "CHATSDK_TOKEN": own_server.tokens["alice"],
            "CHATSDK_WS_TOKEN": own_server.ws_tokens["alice"],
            "CHATSDK_STATE_DIR": str(tmp_path / "state"),
        }
    )


def started(shell: Shell, *arguments: str, width: int = 80, height: int = 24, **environ: str | None) -> Terminal:
    return Terminal(shell.environment(environ), "status", "--watch", *arguments, width=width, height=height)


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
def test_an_outage_is_seen(watching: Shell, own_server: DevServer, size: tuple[int, int]) -> None:
    """The server dies with messages waiting, and comes back: connection, why it waits, what failed; every picture fits,
    nothing was delivered by looking, and Ctrl-C leaves the terminal as it was."""
    channel = own_server.channel("alice")
    for text in ("first", "second"):
        watching.here("send", channel, text, "--no-wait")
    with started(watching, width=size[0], height=size[1]) as terminal:
        terminal.until(lambda shown: "Connected (" in shown and "2 queued, 0 dead" in shown, "connected")
        own_server.kill()
        terminal.until(lambda shown: "Reconnecting" in shown and "down for " in shown, "the outage")
        watching.here("send", channel, "third", "--wait", "0.2", "--queued-ok")
        terminal.until(
            lambda shown: "3 queued" in shown and ", failed " in shown and "waiting: messages.send: " in shown,
            "what another process met",
        )
        own_server.start()
        terminal.until(lambda shown: "Connected (" in shown and "1 reconnect" in shown, "the end of it")
        assert own_server.log()["messages"] == []
        assert terminal.end() == 0
        assert terminal.is_clean()


def test_another_size_is_another_picture(watching: Shell) -> None:
    """It fits again at once, smaller and larger."""
    for number in range(12):
        watching.here("send", f"00000000-0000-7000-8000-0000000000{number:02d}", "hello", "--no-wait")
    with started(watching, width=120, height=40) as terminal:
        terminal.until(lambda shown: shown.count(" waiting, ") == 8, "all lanes")
        terminal.resize(60, 16)
        small = terminal.until(lambda shown: "more" in shown and "12 queued" in shown, "a small picture")
        assert len(small) <= 16
        terminal.resize(120, 40)
        terminal.until(lambda shown: shown.count(" waiting, ") == 8, "all lanes again")
        assert terminal.end(signal.SIGTERM) == 0
        assert terminal.is_clean()


def test_no_colour_where_none_is_wanted(watching: Shell) -> None:
    """NO_COLOR is obeyed; without it there is some."""
    for unwanted in ("1", None):
        with started(watching, NO_COLOR=unwanted) as terminal:
            terminal.until(lambda shown: "Connected (" in shown, "connected")
            assert (b"\x1b[32m" in terminal.written) is (unwanted is None)
            assert terminal.end() == 0


def test_a_terminal_that_takes_ascii_only(watching: Shell) -> None:
    """Signs that it can show, and escapes for the rest."""
    watching.here("send", "00000000-0000-7000-8000-000000000001", "hello", "--no-wait")
    with started(watching, PYTHONIOENCODING="ascii", CHATSDK_USER="Jürgen 漢") as terminal:
        terminal.until(lambda shown: "network      **" in shown and "J\\xfcrgen \\u6f22" in shown, "ASCII signs")
        assert terminal.written.isascii()
        assert terminal.end() == 0


def test_records_do_not_write_across_the_picture(watching: Shell) -> None:
    """With -v the terminal gets lines."""
    with started(watching, "-v") as terminal:
        eventually(lambda: b"connection Connected" in terminal.written)
        assert ENTERS not in terminal.written
        assert terminal.end() == 0


def test_one_object_a_change(watching: Shell, own_server: DevServer) -> None:
    """`--json`: each line has all the facts, and time alone makes none."""
    process = watching.start("status", "--watch", "--json")
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert set(first) >= {"connection", "network", "outbox", "lanes", "circuits", "features", "health", "errors"}
    facts = first
    while not facts["connection"]["connected"]:
        facts = json.loads(process.stdout.readline())
    threading.Event().wait(2.5)
    own_server.realtime.refuse(for_s=20)
    own_server.realtime.cut()
    seen = [facts]
    while facts["connection"]["connected"]:
        facts = json.loads(process.stdout.readline())
        seen.append(facts)
    assert len(seen) <= 4  # the network's quality may have become known meanwhile
    assert end(process, signal.SIGINT).code == 0


def test_it_asks_little(tmp_path: Path) -> None:
    """A few seconds of watching: a probe each ten seconds, the websocket's handshakes, and nothing else."""
    began = time.monotonic()

    def behave(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            if b"GET /connection/websocket" in request:
                peer.say(http(b"{}", "503 Service Unavailable"))
                return
            peer.say(http(b'{"status": "ok"}'))

    server = RawServer(behave)
    shell = Shell({"CHATSDK_URL": server.url, "CHATSDK_TOKEN": "t", "CHATSDK_USER": "alice"})
    try:
        with started(shell, CHATSDK_STATE_DIR=str(tmp_path)) as terminal:
            terminal.until(lambda shown: "(attempt 6)" in shown, "some tries to connect")
            assert terminal.end() == 0
    finally:
        server.stop()
    asked = [request.split(b" HTTP/")[0] for request in server.requests]
    others = [each for each in asked if not each.startswith(b"GET /connection/websocket")]
    assert set(others) == {b"GET /health"}
    assert len(others) <= 1 + (time.monotonic() - began) / 10


def test_a_reader_that_goes_away_ends_it(watching: Shell, own_server: DevServer) -> None:
    """`chatsdk status --watch | head -1`."""
    process = watching.start("status", "--watch")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    with process:
        own_server.kill()
        assert process.wait(TIMEOUT) == 0


def test_one_look_has_the_same_facts(watching: Shell) -> None:
    """Without --watch: a few tries of the network, so that its quality is known; as lines and as JSON."""
    facts = watching("status", "--json").json
    assert facts["connection"]["connected"]
    assert facts["network"]["samples"] >= 3
    assert facts["network"]["latency_ms"] > 0
    assert facts["outbox"]["oldest_age"] is None
    lines = watching("status").out.splitlines()
    labels = [line.split("  ")[0] for line in lines if not line.startswith(" ")]
    assert labels == ["server", "outbox", "connection", "network", "circuits", "features", "this client", "errors"]


def test_one_look_at_a_dead_server(watching: Shell, own_server: DevServer) -> None:
    """Offline is found out at once, and said with what failed."""
    own_server.kill()
    shown = watching("status", "--timeout", "2")
    assert shown.code == 69
    assert "Offline" in shown.out
    assert "here: health: NotSentError" in shown.out


def test_one_look_at_a_captive_portal(watching: Shell, own_server: DevServer) -> None:
    """Its few tries are enough to name it."""
    with FaultProxy(own_server.port, PORTAL) as proxy:
        ended = watching("status", "--json", "--timeout", "2s", CHATSDK_URL=proxy.url)
    network = json.loads(ended.out)["network"]
    assert (network["quality"], network["reason"]) == ("OFFLINE", "captive_portal")
    assert ended.code == 69


def test_many_looks_leave_no_thread(own_server: DevServer, watching: Shell) -> None:
    """A watcher is one process with a handful of threads and descriptors, however long it looks."""
    with started(watching) as terminal:
        terminal.until(lambda shown: "Connected (2s)" in shown, "two seconds")
        place = Path(f"/proc/{terminal.process.pid}")
        before = _size(place)
        terminal.until(lambda shown: "Connected (6s)" in shown, "six seconds")
        after = _size(place)
        assert terminal.end() == 0
    assert after[0] <= before[0]
    assert after[1] <= before[1] + 1


def _size(place: Path) -> tuple[int, int]:
    return len(os.listdir(place / "task")), len(os.listdir(place / "fd"))
