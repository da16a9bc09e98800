"""What a client shows while messages are polled, and where it does not poll."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from chatsdk import ChatClient, ConnectionFailedError, Token, events
from chatsdk.core.backoff import RECONNECT_FAST, RECONNECTS
from chatsdk.devserver.process import DevServer
from tests.journeys.blocking import POLL_S, Gate, gate, heard, polling, through, verdict, write
from tests.journeys.listeners import Listener
from tests.waiting import eventually


def test_from_the_first_message_or_from_now_on(
    server: DevServer, wall: Gate, listener: Callable[..., Listener]
) -> None:
    """A channel that never had a websocket begins where it is told to: `since`, or now."""
    first, now = server.channel("alice", "bob"), server.channel("alice", "bob")
    write(server, [first, now], range(10))
    wall.block("403")
    bot = listener()
    bot.hear(first, since=0)
    bot.hear(now)
    write(server, [first, now], range(10, 20))
    eventually(lambda: len(bot.texts(first)) == 10 and len(bot.texts(now)) == 5)
    assert bot.texts(first) == [f"m{number}" for number in range(0, 20, 2)]
    assert bot.texts(now) == [f"m{number}" for number in range(11, 20, 2)]


def test_what_is_shown(
    server: DevServer, wall: Gate, listener: Callable[..., Listener], caplog: pytest.LogCaptureFixture
) -> None:
    """State, text, metrics, events, the feature and its level: that it polls and why; and one line at either end."""
    channel = server.channel("alice", "bob")
    bot = listener().hear(channel)
    chat, told = bot.chat, bot.of
    assert not chat.connection.polling
    wall.block("403")
    eventually(lambda: chat.connection.polling)
    assert chat.connection.state in ("DISCONNECTED", "RECONNECTING")
    assert "messages are polled" in chat.connection.status_text
    assert chat.connection.metrics().polling
    eventually(lambda: chat.connection.metrics().polls >= 2)
    assert "403" in chat.features.states()["realtime"]
    assert chat.features.level == "minor"
    health = chat.health()
    assert (health.status, health.polling) == ("degraded", True)
    assert "the websocket cannot be had: messages are polled" in health.reasons
    assert chat.connection.subscriptions[channel] == "subscribed"
    wall.unblock()
    eventually(lambda: not chat.connection.polling)
    assert chat.connection.status_text.startswith("Connected")
    assert "polled" not in chat.connection.status_text
    assert chat.features.states()["realtime"] == ""
    assert not chat.health().polling
    assert [event.polling for event in told(events.PollingChanged)] == [True, False]
    changes = [event.available for event in told(events.FeatureStateChanged) if event.feature == "realtime"]
    assert (changes[0], changes[-1]) == (False, True)
    lines = [record.message for record in caplog.records if "polled" in record.message]
    assert len(lines) <= 2
    assert sum("messages are polled over HTTP" in line for line in lines) == 1
    assert [event.ongoing for event in told(events.ChangesMissed)] == [True]  # the server gave the rest again


def test_a_wall_that_forbids_costs_no_tokens(server: DevServer, wall: Gate, listener: Callable[..., Listener]) -> None:
    """A 403 at the handshake may be about the token: another one is tried, once. The other tries ask nobody."""
    wall.block("403")
    bot = listener()
    bot.hear(server.channel("alice", "bob"))
    before = server.requests()
    eventually(lambda: wall.tries >= 7)
    asked = [each["operation"] for each in server.requests()[len(before) :]]
    assert asked.count("me") <= 1
    assert "refresh" not in asked


def test_a_server_that_is_down_is_no_blocked_websocket(
    server: DevServer, wall: Gate, listener: Callable[..., Listener]
) -> None:
    """HTTP does not work either: nothing is told of polling; messages of the time are heard when it is back."""
    channel = server.channel("alice", "bob")
    bot = listener().hear(channel)
    server.kill()
    eventually(lambda: bot.states[-1] != "CONNECTED")
    eventually(lambda: bot.chat.connection.metrics().polls >= 1)
    assert polling(bot) == []
    server.start()
    write(server, [channel], range(3))
    eventually(lambda: heard(bot) == 3)
    assert verdict(server, bot, [channel]).violations == {}


def test_who_is_refused_for_good_does_not_poll(server: DevServer, listener: Callable[..., Listener]) -> None:
    """A wrong token is no blocked websocket: FAILED, nothing is asked, and `run_forever` says so."""
    bot = listener(ws_token="x.y.z")
    bot.chat.subscribe(server.channel("alice", "bob"))
    with pytest.raises(ConnectionFailedError):
        bot.chat.run_forever()
    eventually(lambda: bot.states[-1] == "FAILED")
    assert bot.chat.connection.metrics().polls == 0
    assert polling(bot) == []


def test_given_up_means_polling_ends(
    server: DevServer, wall: Gate, listener: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a limit of tries the last one ends polling, too."""
    monkeypatch.setitem(RECONNECTS, "fast", (RECONNECT_FAST.with_tries(5),))
    wall.block("reset")
    bot = listener(reconnect="fast")
    bot.chat.subscribe(server.channel("alice", "bob"))
    eventually(lambda: bot.chat.connection.polling)
    eventually(lambda: bot.states[-1] == "FAILED", seconds=30.0)
    eventually(lambda: polling(bot) == [True, False])
    assert not bot.chat.connection.polling


def test_zero_never_polls(server: DevServer, wall: Gate, listener: Callable[..., Listener]) -> None:
    """The setting's off switch."""
    channel = server.channel("alice", "bob")
    wall.block("403")
    bot = listener(poll_interval=0)
    bot.chat.subscribe(channel)
    write(server, [channel], range(3))
    eventually(lambda: wall.tries > 4)
    assert bot.chat.connection.metrics().polls == 0
    assert heard(bot) == 0


def test_closing_while_polling_is_quick(server: DevServer, wall: Gate, listener: Callable[..., Listener]) -> None:
    """No thread is left, and the place is kept for the next start."""
    channel = server.channel("alice", "bob")
    wall.block("silent")
    bot = listener()
    bot.hear(channel)
    began = monotonic()
    bot.chat.close()
    assert monotonic() - began < 2.0
    assert bot.chat.connection.state == "CLOSED"
    assert polling(bot) == [True, False]


def test_servers_limits_are_not_hit(tmp_path: Path) -> None:
    """A server that limits as the real one does answers 14 polled channels without a single 429."""
    with DevServer(tmp_path / "server.db", rate_limits=True) as server, gate(server.port) as wall:
        channels = [server.channel("alice", "bob") for _ in range(14)]
        wall.block("403")
        ws_url = through(wall, server, "centrifugo")
        with Listener(server, tmp_path / "bot", ws_url=ws_url, poll_interval=POLL_S, reconnect="forever") as bot:
            bot.chat.subscribe(channels)
            eventually(lambda: set(bot.chat.connection.subscriptions.values()) == {"subscribed"}, seconds=40.0)
            asked = [each for each in server.requests() if each["operation"] == "list_messages"]
            assert len(asked) >= 14
            assert not [each for each in asked if each["status"] == 429]


def test_a_view_polls_for_its_own_user(server: DevServer, wall: Gate, listener: Callable[..., Listener]) -> None:
    """Two users of one client: realtime is off while one of them polls."""
    channel = server.channel("alice", "bob")
    wall.block("403")
    bot = listener()
    chat: ChatClient = bot.chat
    alice = chat.as_user("alice", Token(server.tokens["alice"], server.ws_tokens["alice"]))
    bot.hear(channel)
    alice.subscribe(channel)
    eventually(lambda: alice.connection.polling)
    bot.chat.disconnect()
    eventually(lambda: not chat.connection.polling)
    assert chat.features.states()["realtime"]
    alice.disconnect()
    eventually(lambda: not alice.connection.polling)
    assert not [why for why in [chat.features.states()["realtime"]] if "403" in why]


def test_a_forked_child_polls_nothing_that_it_did_not_ask_for(
    server: DevServer, wall: Gate, listener: Callable[..., Listener]
) -> None:
    """The parent goes on; the child begins with a realtime of its own, and polls for itself."""
    channel = server.channel("alice", "bob")
    wall.block("403")
    bot = listener().hear(channel)
    chat = bot.chat
    child = os.fork()
    if child == 0:
        try:
            assert not chat.connection.polling
            assert "403" not in chat.features.states()["realtime"]
            with chat.events(events.MessageReceived, timeout=15.0) as stream:
                chat.subscribe(channel, since=0, keep=False)
                eventually(lambda: chat.connection.polling)
                write(server, [channel], range(2))
                assert [next(stream).message.text for _ in range(2)] == ["m0", "m1"]
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    eventually(lambda: bot.texts(channel) == ["m0", "m1"])
    assert chat.connection.polling
