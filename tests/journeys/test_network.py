"""How a client sees its network: by its own traffic, and by the server's silence."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from time import sleep
from typing import Any

import pytest

from chatsdk import ChatClient, ChatError, NotSentError, events
from chatsdk.devserver.process import DevServer
from tests.waiting import eventually

LIMIT = 15.0


until = partial(eventually, seconds=LIMIT)


def test_its_own_traffic_says_it(connect: Callable[..., ChatClient], server: DevServer) -> None:
    """Nobody asks for it: calls alone make the level, down and up again, and each change is an event."""
    chat = connect()
    changes: list[Any] = []
    chat.on("network:quality", changes.append)
    for _ in range(12):
        chat.users.me(fresh=True)
    assert chat.network.quality == "EXCELLENT"
    assert chat.network.latency is not None
    server.faults("latency", ms=200)
    for _ in range(20):
        chat.users.me(fresh=True)
    assert chat.network.quality == "FAIR"
    assert changes[-1].quality == "FAIR"
    assert chat.network.metrics().quality == "FAIR"


def test_watching_an_idle_client(connect: Callable[..., ChatClient], server: DevServer) -> None:
    """Who watches is told at once, and of the server's end and return, though the client itself has nothing to do."""
    chat = connect()
    seen: list[str] = []
    unwatch = chat.network.watch(lambda metrics: seen.append(str(metrics.quality)))
    assert seen
    server.kill()
    for _ in range(4):
        with pytest.raises(ChatError):
            chat.call(chat._backend.health(), timeout=1.0)
        sleep(0.2)
    until(lambda: seen[-1] == "OFFLINE")
    server.start()
    chat.circuits["api"].reset()
    chat.call(chat._backend.health())
    until(lambda: seen[-1] != "OFFLINE")
    unwatch()
    told = len(seen)
    chat.users.me(fresh=True)
    assert len(seen) == told


def test_a_fallback_stands_in(connect: Callable[..., ChatClient]) -> None:
    """A feature that fails is answered by its fallback; one that goes on failing is left alone for a while, and that is
    told."""
    chat = connect()
    told: list[Any] = []
    chat.on(events.FeatureStateChanged, told.append)
    asked: list[int] = []

    @chat.features.with_fallback("avatars", lambda: "a grey head")
    def avatar() -> str:
        asked.append(1)
        raise NotSentError("the server of pictures is away")

    assert [avatar() for _ in range(20)] == ["a grey head"] * 20
    assert len(asked) == 5  # the circuit "standard"
    assert not chat.features.is_available("avatars")
    assert [(event.feature, event.available) for event in told] == [("avatars", False)]
    chat.circuits["avatars"].reset()
    assert chat.features.is_available("avatars")


def test_one_shot_mode_has_no_monitor(connect: Callable[..., ChatClient]) -> None:
    """A process that sends one message does not pay for it."""
    chat = connect(background=False)
    chat.users.me()
    assert "network" not in chat._parts._made


def test_after_a_fork(connect: Callable[..., ChatClient]) -> None:
    """The child goes on with what was known, and learns by itself."""
    chat = connect()
    chat.users.me()
    chat.network.watch(lambda _: None)
    child = os.fork()
    if child == 0:
        try:
            chat.users.me(fresh=True)
            os._exit(0 if chat.network.latency is not None else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
