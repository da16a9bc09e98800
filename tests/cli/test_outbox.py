"""`chatsdk outbox ...`."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from chatsdk.devserver.process import DevServer
from tests.cli.conftest import Shell, end
from tests.waiting import eventually

Texts = Callable[[], list[str]]
DEAD: dict[str, str | None] = {"CHATSDK_TOKEN": None, "CHATSDK_USER": None}
"""No token at all."""


def test_the_lists_need_no_token_and_no_network(chatsdk: Shell, channel: str, server: DevServer) -> None:
    """list, get and discard work with a server that is gone and without a token."""
    key = chatsdk("send", channel, "one", "--no-wait", "--json").json["key"]
    chatsdk("send", channel, "two", "--no-wait")
    server.kill()
    listed = chatsdk("outbox", "list", "--json", **DEAD)
    assert listed.code == 0
    assert [(each["text"], each["state"]) for each in listed.json["messages"]] == [("one", "QUEUED"), ("two", "QUEUED")]
    assert [line.split("\t")[-1] for line in chatsdk("outbox", "list", **DEAD).out.splitlines()] == ["one", "two"]
    got = chatsdk("outbox", "get", key, "--json", **DEAD)
    assert (got.code, got.json["text"]) == (0, "one")
    assert chatsdk("outbox", "dead", **DEAD).out == ""
    assert chatsdk("outbox", "discard", key, **DEAD).out == "1 discarded\n"
    assert [each["text"] for each in chatsdk("outbox", "list", "--json", **DEAD).json["messages"]] == ["two"]


def _let_in(server: DevServer, room: str, user: str) -> None:
    """Carol, whose room it is, adds a member."""
    request = urllib.request.Request(
        f"{server.url}/api/channels/{room}/members",
        method="POST",
        data=json.dumps({"userId": user}).encode(),
        headers={"Authorization": f"Bearer {server.mint('carol')}", "Content-Type": "application/json"},
    )
    urllib.request.urlopen(request).close()


def test_a_dead_letter_can_be_retried(chatsdk: Shell, server: DevServer) -> None:
    """Rejected, the cause corrected, retried by id, delivered by a flush."""
    room = server.channel("carol")
    dead = chatsdk("send", room, "hello", "--json")
    assert dead.code == 65
    assert "rejected" in chatsdk("outbox", "dead").out
    _let_in(server, room, "alice")
    assert chatsdk("outbox", "retry", str(dead.json["id"])).out == "1 back in the queue\n"
    assert chatsdk("outbox", "flush", "--budget", "20s").code == 0
    assert [each["text"] for each in server.log()["messages"] if each["channel"] == room] == ["hello"]


def test_all_dead_letters_at_once(chatsdk: Shell, server: DevServer) -> None:
    """--all means the dead ones; a message that waits is never discarded by it."""
    room = server.channel("carol")
    for text in ("a", "b"):
        assert chatsdk("send", room, text).code == 65
    chatsdk("send", room, "waits", "--no-wait")
    assert chatsdk("outbox", "retry", "--all").out == "2 back in the queue\n"
    assert chatsdk("outbox", "flush", "--budget", "20s").code == 65
    assert chatsdk("outbox", "discard", "--all").out == "3 discarded\n"
    assert chatsdk("outbox", "dead").out == ""


def test_ids_must_be_given_and_known(chatsdk: Shell) -> None:
    """Neither "all" by accident nor silence about a wrong id."""
    assert chatsdk.here("outbox", "retry").code == 2
    assert chatsdk.here("outbox", "discard").code == 2
    unknown = chatsdk.here("outbox", "discard", "4711")
    assert unknown.code == 1
    assert "4711" in unknown.err
    assert chatsdk.here("outbox", "get", "4711").code == 1


def test_a_flush_with_nothing_to_do_is_zero_and_quiet(chatsdk: Shell) -> None:
    """Cron runs it every minute."""
    ended = chatsdk("outbox", "flush")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_a_flush_that_leaves_something_is_75(chatsdk: Shell, channel: str, nowhere: str) -> None:
    """Within its budget, and --queued-ok is content with it."""
    chatsdk("send", channel, "x", "--no-wait", CHATSDK_URL=nowhere)
    began = time.monotonic()
    ended = chatsdk("outbox", "flush", "--budget", "1s", "--json", CHATSDK_URL=nowhere)
    assert time.monotonic() - began < 10
    assert (ended.code, ended.json["queued"], ended.json["exit"]) == (75, 1, 75)
    assert "chatsdk outbox run" in ended.err
    assert chatsdk("outbox", "flush", "--budget", "1s", "--queued-ok", CHATSDK_URL=nowhere).code == 0


def test_a_flush_with_a_bad_token_is_77(chatsdk: Shell, channel: str, server: DevServer) -> None:
    """The worst wins: 77 before 75."""
    chatsdk("send", channel, "x", "--no-wait")
    head, _, signature = server.tokens["alice"].rpartition(".")
    ended = chatsdk("outbox", "flush", "--budget", "1s", CHATSDK_TOKEN=f"{head}.{signature[::-1]}")
    assert ended.code == 77


def test_all_shows_every_profile(chatsdk: Shell, channel: str, nowhere: str) -> None:
    """Whatever server and profile a message waits in, `--all` finds it, and needs no URL."""
    chatsdk("send", channel, "here", "--no-wait")
    chatsdk("send", channel, "there", "--no-wait", "--profile", "work", CHATSDK_URL=nowhere)
    ended = chatsdk("outbox", "list", "--all", "--json", CHATSDK_URL=None, **DEAD)
    assert ended.code == 0
    assert {(each["profile"], each["text"]) for each in ended.json["messages"]} == {
        ("default", "here"),
        ("work", "there"),
    }
    assert chatsdk("outbox", "list", "--all", CHATSDK_URL=None, **DEAD).out.count("\n") == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_drainer_sends_what_others_put_and_leaves_politely(
    number: signal.Signals, chatsdk: Shell, channel: str, texts: Texts
) -> None:
    """`outbox run` delivers what lay there and what comes, and ends with 0 when it is told to."""
    chatsdk("send", channel, "before", "--no-wait")
    drainer = chatsdk.start("outbox", "run")
    eventually(lambda: texts() == ["before"])
    chatsdk("send", channel, "after", "--no-wait")
    eventually(lambda: texts() == ["before", "after"])
    ended = end(drainer, number)
    assert (ended.code, ended.out, ended.err) == (0, "", "")


def test_the_drainer_says_what_is_wrong_with_its_settings(chatsdk: Shell, tmp_path: Path) -> None:
    """A service manager gets 78 and one sentence."""
    (tmp_path / "file").touch()
    ended = chatsdk("outbox", "run", "--state-dir", str(tmp_path / "file"))
    assert ended.code == 78
