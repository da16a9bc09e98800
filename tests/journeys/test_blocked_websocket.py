"""Stories of networks that let HTTP through and no websocket: messages are polled, the same ones in the same order, and
the websocket is back by itself as soon as it can be had."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chatsdk import events
from chatsdk.core.ordering import Order
from chatsdk.devserver.process import DevServer
from tests.chaos.listening.heard import Notes, judge
from tests.chaos.listening.storm import end, start
from tests.chaos.monkey import whole_log
from tests.journeys.blocking import (
    POLL_S,
    WAYS,
    ForwardProxy,
    Gate,
    heard,
    polling,
    through,
    verdict,
    write,
)
from tests.journeys.listeners import PROTOCOLS, Listener
from tests.waiting import eventually

CHANNELS, MESSAGES = 5, 200


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    ("way", "protocol"),
    [*((way, "centrifugo") for way in WAYS), *((way, "json") for way in ("403", "html", "silent", "swallow"))],
)
def test_200_messages_while_it_is_blocked_let_through_and_blocked_again(
    way: str, protocol: str, server: DevServer, wall: Gate, listener: Callable[..., Listener]
) -> None:
    """However it is blocked: each message of five channels is heard once, in order, across both switches."""
    channels = [server.channel("alice", "bob") for _ in range(CHANNELS)]
    wall.block(way)
    bot = listener(protocol)
    bot.chat.subscribe(channels)
    eventually(lambda: set(bot.chat.connection.subscriptions.values()) == {"subscribed"})
    assert bot.chat.connection.polling
    assert bot.chat.connection.state != "CONNECTED"
    write(server, channels, range(80))
    eventually(lambda: heard(bot) >= 60)
    wall.unblock()
    eventually(lambda: bot.chat.connection.state == "CONNECTED" and not bot.chat.connection.polling, seconds=40.0)
    write(server, channels, range(80, 120))
    wall.block(way)
    write(server, channels, range(120, 160))
    eventually(lambda: bot.chat.connection.polling)
    write(server, channels, range(160, MESSAGES))
    eventually(lambda: heard(bot) == MESSAGES)
    found = verdict(server, bot, channels)
    assert found.violations == {}
    assert not found.late
    assert polling(bot) == [True, False, True]
    assert "CONNECTED" in bot.states


def test_a_proxy_that_gives_no_tunnel(server: DevServer, protocol: str, tmp_path: Path) -> None:
    """HTTP goes through the proxy, the websocket's CONNECT is refused: messages come all the same."""
    channel, proxy = server.channel("alice", "bob"), ForwardProxy()
    ws_url = server.plain_url if protocol == "json" else server.ws_url
    options: dict[str, Any] = {"proxy": f"http://127.0.0.1:{proxy.port}", "ws_url": ws_url, "poll_interval": POLL_S}
    with Listener(server, tmp_path, protocol, reconnect="forever", **options) as bot:
        bot.chat.subscribe(channel)
        eventually(lambda: bot.chat.connection.polling)
        write(server, [channel], range(20))
        eventually(lambda: heard(bot) == 20)
        assert proxy.tunnels > 1
        assert verdict(server, bot, [channel]).violations == {}
        [event] = bot.of(events.PollingChanged)
        assert "proxy" in event.reason
    proxy.close()


def _forgetful_switch(patch: pytest.MonkeyPatch) -> None:
    """What was polled is forgotten when the stream is heard again."""
    original = Order.rejoined

    def rejoined(order: Order, *given: Any) -> None:
        if order.seq is not None:
            order.seq = max(0, order.seq - 3)
            order.ids.new.clear()
            order.ids.old.clear()
        original(order, *given)

    patch.setattr(Order, "rejoined", rejoined)


@pytest.mark.parametrize(
    ("mutant", "crimes"), [(lambda _: None, set()), (_forgetful_switch, {"repeated"})], ids=["control", "mutant"]
)
def test_a_client_that_forgets_at_the_switch_is_found_out(
    mutant: Callable[[pytest.MonkeyPatch], None],
    crimes: set[str],
    server: DevServer,
    wall: Gate,
    listener: Callable[..., Listener],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A checker that cannot fail proves nothing: the same story, with and without that mistake."""
    mutant(monkeypatch)
    channel = server.channel("alice", "bob")
    wall.block("403")
    bot = listener()
    bot.hear(channel)
    write(server, [channel], range(20))
    eventually(lambda: heard(bot) == 20)
    wall.unblock()
    eventually(lambda: bot.chat.connection.state == "CONNECTED" and not bot.chat.connection.polling)
    write(server, [channel], range(20, 40))
    eventually(lambda: heard(bot) == 40)
    assert set(verdict(server, bot, [channel]).violations) == crimes


@pytest.mark.parametrize(("control", "crimes"), [("", set()), ("no_cursor", {"missing"})], ids=["client", "mutant"])
def test_killed_while_polling(control: str, crimes: set[str], server: DevServer, wall: Gate, tmp_path: Path) -> None:
    """kill -9, again and again: nothing is missed, all is in order, and only what a handler was busy with comes twice.
    The mutant, which does not store where it stands, is found out."""
    channels = [server.channel("alice", "bob") for _ in range(CHANNELS)]
    wall.block("403")
    notes = Notes(tmp_path / "notes")
    job = {
        "url": server.url,
        "ws_url": through(wall, server, "centrifugo"),
        "user": "bob",
        "token_s": 900.0,
        "realtime": "centrifugo",
        **{name: str(tmp_path / name) for name in ("state", "notes", "answer", "calm")},
        "channels": channels,
        "control": control,
        "quiet_check": 1.0,
        "poll_interval": POLL_S,
        "slow": 0.2,
        "stall_every": 0,
        "stall_s": 0.0,
        "fidget_s": 0.0,
        "seed": 1,
    }

    def subscribed(run: int) -> bool:
        return notes.read().run == run and [notes.states.get(each) for each in channels] == ["subscribed"] * CHANNELS

    def seen_by(run: int) -> bool:
        return any(sight.run == run for sight in notes.read().sights)

    with contextlib.ExitStack() as stack:
        for run in range(1, 5):
            process = start("-m", "tests.chaos.listening.bot", job={**job, "run": run}, errors=tmp_path / "errors")
            stack.callback(end, process, signal.SIGKILL)
            eventually(partial(subscribed, run))
            write(server, channels, range(40))
            eventually(partial(seen_by, run))
            if run < 4:
                end(process, signal.SIGKILL)
                write(server, channels, range(40, 50))
        log = [message for message in whole_log(server) if message["channel"] in channels]
        with contextlib.suppress(AssertionError):
            eventually(lambda: len(notes.read().ids) == len(log), seconds=3.0 if control else 30.0)
        found = judge(notes.sights, log, notes.gaps)
        assert set(found.violations) == crimes
        assert found.runs == 4
        assert len(found.in_flight) <= 3 * CHANNELS
