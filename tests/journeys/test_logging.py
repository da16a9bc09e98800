"""CHATSDK_LOG=debug: each call's story can be read by its correlation id, here and at the server; no secret can."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chatsdk.devserver.process import DevServer

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (?P<level>DEBUG|INFO|WARNING|ERROR) (?P<logger>chatsdk[\w.]*)"
    r" (?P<id>\S+): (?P<text>.*)"
)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")

STORY = """
import json, sys, threading
from chatsdk import ChatClient, ChatError, Token, events

channel = sys.argv[1]
with ChatClient(retry_first=0.01, timeout=3) as first, ChatClient(retry_first=0.01, timeout=3) as chat:
    ids = {}
    chat.on(events.RetryScheduled, lambda event: ids.setdefault("retried", event.correlation_id))
    chat.on(events.Event, lambda event: 1 / 0 if event.NAME == "message:queued" else None)
    came = threading.Event()
    chat.on(events.MessageReceived, lambda event: came.set())
    chat.subscribe(channel)
    chat.connect(10)
    chat.send(channel, "the first words")
    came.wait(10)
    chat.channels.get(channel, fresh=True)
    receipt = chat.send(channel, "the second words")
    for call in (lambda: chat.users.me(fresh=True), lambda: chat.channels.get(channel, fresh=True)):
        try:
            call()
        except ChatError as error:
            ids.setdefault("failed", error.request_id)
    chat.circuits["api"].force_open(60)
    try:
        chat.users.me(fresh=True)
    except ChatError as error:
        ids["refused"] = error.request_id
    chat.circuits["api"].reset()
    print(json.dumps(ids))
"""


def run(code: str, environment: dict[str, str], *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A script of a user's."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, check=True, timeout=60)


def test_a_debug_log_tells_each_calls_story_and_no_secret(
    server: DevServer, environment: dict[str, str], channel: str
) -> None:
    """Sends, retries, a refresh, realtime, errors, a handler that raises: every line of a call bears the id that the
    server was told, from telemetry to transport; two clients print no line twice; no part of any token comes out."""
    session = server.session("alice")
    server.faults("expire_tokens", operation=["get_channel"])
    server.faults("status", operation="send", status=503, times=1)
    server.faults("garbage", operation="me")
    before = server.requests()[-1]["number"] if server.requests() else 0
    done = run(
        STORY,
        environment,
        channel,
        CHATSDK_LOG="debug",
        CHATSDK_TOKEN=session["token"],
        CHATSDK_REFRESH_TOKEN=session["refreshToken"],
        CHATSDK_WS_TOKEN=session["wsToken"],
    )
    ids = json.loads(done.stdout)
    found = [LINE.fullmatch(line) for line in done.stderr.splitlines()]
    assert all(found), [line for line, match in zip(done.stderr.splitlines(), found, strict=True) if match is None]
    lines = [match.groupdict() for match in found if match is not None]
    told = {each["request_id"]: each for each in server.requests(before)}

    def loggers(correlation: str) -> set[str]:
        return {line["logger"] for line in lines if line["id"] == correlation}

    # every layer of a call bears its id, and the server knows it
    assert {"chatsdk", "chatsdk.retry", "chatsdk.transport", "chatsdk.breaker"} <= loggers(ids["failed"])
    assert told[ids["failed"]]["operation"] == "me"
    assert loggers(ids["refused"]) == {"chatsdk", "chatsdk.breaker"}, "the circuit's refusal has its line"
    assert ids["refused"] not in told
    sends = [each["request_id"] for each in server.requests(before) if each["operation"] == "send"]
    assert len(sends) == 3
    assert sends[0] == sends[1], "both tries of a message have one id"
    for send in sends:
        assert {"chatsdk", "chatsdk.outbox", "chatsdk.transport"} <= loggers(send)
    (waits,) = (line["text"] for line in lines if "waits: " in line["text"])
    assert waits.endswith("tries so far: 1"), "a message that waits after its first try"
    assert any("try 1, POST" in line["text"] and "503 (ServerError)" in line["text"] for line in lines)
    refused = [line["id"] for line in lines if line["logger"] == "chatsdk.auth" and "refused" in line["text"]]
    assert refused
    assert told[refused[0]]["operation"] == "get_channel"
    assert {each["operation"] for each in told.values()} >= {"send", "get_channel", "refresh", "me"}
    # what is told of one call has an id
    for line in lines:
        if line["logger"] in ("chatsdk.transport", "chatsdk.retry", "chatsdk.breaker"):
            assert UUID.fullmatch(line["id"]), line
    assert set(told) - {None} <= {line["id"] for line in lines}, "the server was asked for something that no line tells"
    assert len(done.stderr.splitlines()) == len(set(done.stderr.splitlines())), "a line is there twice"
    (raised,) = (line for line in lines if "ZeroDivisionError" in line["text"])
    assert raised["id"] in sends, "a handler's mistake has the id of the message that it was told of"
    # no secret, no message
    secrets = {
        session["token"],
        session["refreshToken"],
        session["wsToken"],
        *_kept(Path(environment["CHATSDK_STATE_DIR"])),
    }
    assert len(secrets) > 3, "the refresh left no new pair"
    parts = {part for secret in secrets for part in (secret, *secret.split(".")[1:])}
    assert [part[:12] for part in parts if part in done.stderr + done.stdout] == []
    assert "words" not in done.stderr
    assert "urllib3" not in done.stderr


def _kept(state_dir: Path) -> set[str]:
    pairs = [json.loads(path.read_text()) for path in state_dir.rglob("tokens/*.json")]
    return {pair[name] for pair in pairs for name in ("access", "ws", "refresh") if pair.get(name)}


def test_the_servers_answer_has_the_same_id(
    server: DevServer, connect: Callable[..., object], channel: str, environment: dict[str, str]
) -> None:
    """What the server says of a call, its log, its answer and the error here, can be put side by side."""
    server.faults("status", operation="get_channel", status=404)
    code = """
import sys
from chatsdk import ChatClient, ChatError
with ChatClient() as chat:
    try:
        chat.channels.get(sys.argv[1])
    except ChatError as error:
        print(error.request_id, error.response.request_id)
"""
    done = run(code, environment, channel)
    ours, theirs = done.stdout.split()
    assert ours == theirs
    assert server.requests()[-1]["request_id"] == ours
    assert done.stderr == "", "somebody logs though nobody asked"


@pytest.mark.parametrize(
    ("level", "expected"), [("", set()), ("error", set()), ("info", {"WARNING"}), ("debug", {"DEBUG", "WARNING"})]
)
def test_levels(environment: dict[str, str], nowhere: str, channel: str, level: str, expected: set[str]) -> None:
    """As much as was asked for; nothing where nobody asked."""
    code = """
import sys
from chatsdk import ChatClient, ChatError
with ChatClient(sys.argv[1], retry_tries=1) as chat:
    try:
        chat.users.me()
    except ChatError:
        pass
"""
    done = run(code, environment, nowhere, CHATSDK_LOG=level)
    assert {line.split()[1] for line in done.stderr.splitlines()} == expected


def chatsdk(environment: dict[str, str], *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command line."""
    command = [sys.executable, "-m", "chatsdk", *arguments]
    return subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, timeout=60)


def test_the_command_line_obeys(environment: dict[str, str], channel: str) -> None:
    """By the environment or by -v; what it prints as its result stays clean, and no line is there twice."""
    quiet = chatsdk(environment, "send", channel, "text", "--json")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    for more, flags in (({"CHATSDK_LOG": "debug"}, []), ({}, ["-vv"]), ({"CHATSDK_LOG": "debug"}, ["-vv"])):
        loud = chatsdk(environment, *flags, "send", channel, "text", "--json", **more)
        assert loud.returncode == 0
        assert json.loads(loud.stdout)["state"] == "SENT"
        lines = loud.stderr.splitlines()
        assert all(LINE.fullmatch(line) for line in lines), lines
        assert len(lines) == len(set(lines))
        assert {"chatsdk.transport", "chatsdk.outbox"} <= {line.split()[2] for line in lines}
    less = chatsdk(environment, "-v", "send", channel, "text", CHATSDK_LOG="debug")
    assert "DEBUG" not in less.stderr, "what is said on the command line comes first"
    for command in (["send", channel, "text"], ["serve", "--port", "0"]):
        wrong = chatsdk(environment, *command, CHATSDK_LOG="loud")
        assert wrong.returncode == 78
        assert "CHATSDK_LOG" in wrong.stderr
