"""What `chatsdk status` looks at, with real clients, a real outbox and a real server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chatsdk import ChatClient
from chatsdk.cli.status.facts import ROWS, Since, look, stats_of
from chatsdk.core.errors import NotSentError, StorageError
from chatsdk.devserver.process import DevServer

NOWHERE = "http://127.0.0.1:9"


@contextmanager
def looking(url: str, state: Path, **settings: Any) -> Iterator[tuple[ChatClient, ChatClient]]:
    """The two clients of an onlooker."""
    both = {"url": url, "token": "t", "user": "alice", "state_dir": str(state), "discover": False, **settings}
    with (
        ChatClient(**both, close_timeout=1.0) as watcher,
        ChatClient(**both, background=False) as keeper,
    ):
        yield watcher, keeper


def queue(url: str, state: Path, *channels: str, **settings: Any) -> None:
    """Messages that wait, untried."""
    given = {"token": "t", "user": "alice", "state_dir": str(state), "discover": False, **settings}
    with ChatClient(url, **given, background=False) as chat:
        for channel in channels:
            chat.send(channel, "hello", wait=0)


def test_nothing_is_known_at_first(tmp_path: Path) -> None:
    """Unknown is None or "unknown"; the outbox that is not there is empty, and is not made."""
    with looking(NOWHERE, tmp_path / "state") as (watcher, keeper):
        for _ in range(2):
            facts = look(watcher, keeper, time.time())
        assert stats_of(keeper).pending == 0
    assert facts["network"]["quality"] == "unknown"
    assert facts["network"]["loss"] is facts["network"]["latency_ms"] is None
    assert facts["connection"]["since"] is None
    assert (facts["outbox"]["queued"], facts["outbox"]["oldest_age"], facts["outbox"]["next_in"]) == (0, None, None)
    assert facts["lanes"] == facts["errors"] == []
    assert not list(tmp_path.rglob("*.db"))
    json.dumps(facts)


def test_looking_delivers_nothing(server: DevServer, tmp_path: Path) -> None:
    """Not even where the server is well and the connection works: messages wait as they did."""
    channel = server.channel("alice")
    queue(server.url, tmp_path, channel, channel, token=server.tokens["alice"])
    settings = {"token": server.tokens["alice"], "ws_token": server.ws_tokens["alice"]}
    with looking(server.url, tmp_path, **settings) as (watcher, keeper):
        assert watcher.connect(wait=10)
        for _ in range(3):
            watcher._parts.condition.probe()
            facts = look(watcher, keeper, time.time(), Since())
    assert facts["connection"]["connected"]
    assert facts["connection"]["since"] is not None
    assert facts["network"]["samples"] >= 3
    assert facts["outbox"]["queued"] == 2
    assert facts["lanes"][0]["tries"] == 0
    assert not [each for each in server.log()["attempts"] if each["channel"] == channel]


def test_the_worst_lanes_come_first(tmp_path: Path) -> None:
    """Most failures in a row first, then the longest waiting; with what their messages met in another process."""
    channels = [f"00000000-0000-7000-8000-00000000000{number}" for number in range(3)]
    queue(NOWHERE, tmp_path, *channels, channels[2])
    with ChatClient(NOWHERE, "t", user="alice", state_dir=str(tmp_path), discover=False, background=False) as other:
        other.send(channels[1], "tried", wait=0.05)
    with looking(NOWHERE, tmp_path) as (watcher, keeper):
        facts = look(watcher, keeper, time.time())
    assert [lane["channel"] for lane in facts["lanes"]] == [channels[1], channels[0], channels[2]]
    assert [lane["waiting"] for lane in facts["lanes"]] == [2, 1, 2]
    assert facts["lanes"][0]["failures"] > 0
    assert facts["lanes"][0]["reason"] == "offline"
    noted = [each for each in facts["errors"] if each["where"] == "waiting"]
    assert noted[0]["operation"] == "messages.send"
    assert noted[0]["error"] == "NotSentError"
    assert noted[0]["last_at"] is None
    assert facts["outbox"]["why"]
    json.dumps(facts)


def test_dead_letters_tell_why_they_died(server: DevServer, tmp_path: Path) -> None:
    """Their error stands among the last ones."""
    token = server.tokens["alice"]
    with ChatClient(server.url, token, state_dir=str(tmp_path), discover=False, background=False) as other:
        with pytest.raises(Exception, match="not found"):
            other.send("00000000-0000-7000-8000-00000000dead", "hello")
    with looking(server.url, tmp_path, token=token) as (watcher, keeper):
        facts = look(watcher, keeper, time.time())
    assert facts["outbox"]["dead"] == 1
    (noted,) = facts["errors"]
    assert (noted["where"], noted["error"], noted["status"], noted["count"]) == ("dead", "NotFound", 404, 1)


def test_many_messages_are_not_all_read(tmp_path: Path) -> None:
    """The oldest hundred show which lanes are stuck; that there are more is said."""
    queue(NOWHERE, tmp_path, *["00000000-0000-7000-8000-000000000001"] * (ROWS + 1))
    with looking(NOWHERE, tmp_path) as (watcher, keeper):
        facts = look(watcher, keeper, time.time())
    assert facts["outbox"]["queued"] == ROWS + 1
    assert (facts["lanes"][0]["waiting"], facts["lanes"][0]["more"]) == (ROWS, True)


def test_what_nobody_sends_is_known(tmp_path: Path) -> None:
    """Due, untried and nobody's for as long as it waits; who is at it is seen as well."""
    channel = "00000000-0000-7000-8000-000000000001"
    queue(NOWHERE, tmp_path, channel)
    with looking(NOWHERE, tmp_path) as (watcher, keeper):
        facts = look(watcher, keeper, time.time() + 100)
        assert facts["outbox"]["due_for"] == pytest.approx(100, abs=20)
        assert facts["outbox"]["sending"] is False
        claim = keeper._parts.outbox().store.claim(time.time())
        assert claim is not None
        facts = look(watcher, keeper, time.time() + 100)
        assert facts["outbox"]["sending"] is True
        assert facts["outbox"]["due_for"] is None
        assert facts["outbox"]["why"] == "it is being sent"
        keeper._parts.outbox().store.release(claim.lane)


def test_what_failed_here_is_among_the_errors(tmp_path: Path) -> None:
    """A probe that got no answer, with its count."""
    with looking(NOWHERE, tmp_path) as (watcher, keeper):
        for _ in range(2):
            watcher._parts.condition.probe()
        facts = look(watcher, keeper, time.time())
        assert watcher.errors()[0].count == 2
    (error,) = facts["errors"]
    assert (error["where"], error["operation"], error["error"], error["count"]) == ("here", "health", "NotSentError", 2)
    assert facts["health"]["calls"] == 0  # a probe is no call of anybody's


def test_a_client_tells_its_last_errors(server: DevServer, tmp_path: Path) -> None:
    """`chat.errors()`: of all its calls, by kind, with the correlation id that the server has seen."""
    server.faults("status", operation="me", status=503)
    token = server.tokens["alice"]
    with ChatClient(server.url, token, state_dir=str(tmp_path), discover=False, retry_tries=1) as chat:
        for _ in range(2):
            with pytest.raises(Exception, match="503"):
                chat.users.me()
        (failure,) = chat.errors()
    assert (failure.operation, failure.error, failure.status, failure.count) == ("users.me", "ServerError", 503, 2)
    assert failure.correlation_id
    assert failure.first_at <= failure.last_at


def test_an_outbox_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error, and no zero."""
    queue(NOWHERE, tmp_path, "00000000-0000-7000-8000-000000000001")
    with looking(NOWHERE, tmp_path) as (watcher, keeper):
        outbox = keeper._parts.outbox()

        def fail() -> None:
            raise StorageError("the disk is gone")

        monkeypatch.setattr(outbox, "stats", fail)
        facts = look(watcher, keeper, time.time())
    assert facts["outbox"]["error"] == "the disk is gone"
    assert facts["outbox"]["queued"] is facts["outbox"]["dead"] is None


def test_hostile_errors_are_short_and_harmless(tmp_path: Path) -> None:
    """What a server wrote is cut, and commands no terminal."""
    with looking(NOWHERE, tmp_path) as (watcher, keeper):
        watcher._parts.metrics.remember("health", NotSentError("\x1b[2J" * 1000, code="c\n" * 500))
        facts = look(watcher, keeper, time.time())
    (error,) = facts["errors"]
    assert "\x1b" not in error["message"] + error["code"]
    assert len(error["message"]) + len(error["code"]) < 300


def test_since_when_it_is_down() -> None:
    """From the last moment it was up; tries to connect do not begin anew, and before any change nothing is claimed."""
    since = Since()
    assert since.note(False, 10.0) is None
    assert since.note(True, 20.0) == 0.0
    assert since.note(False, 30.0) == 0.0
    assert since.note(False, 45.0) == 15.0
