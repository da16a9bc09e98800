"""`chatsdk tail` and `chatsdk status`, as people and scripts use them."""

from __future__ import annotations

import json
import re
import signal
import subprocess

import pytest

from chatsdk.devserver.process import DevServer
from tests.cli.conftest import TIMEOUT, Shell, end


@pytest.fixture
def listening(chatsdk: Shell, server: DevServer) -> Shell:
    """The command line with the websocket's token too."""
    chatsdk.environ["CHATSDK_WS_TOKEN"] = server.ws_tokens["alice"]
    chatsdk.canaries += server.ws_tokens.values()
    return chatsdk


def begun(process: subprocess.Popen[str]) -> None:
    """Wait until it listens: then it shows what is there already."""
    assert process.stdout is not None
    assert "the first one" in process.stdout.readline()


def test_what_is_written_is_shown(listening: Shell, channel: str) -> None:
    """A line a message: time, who, what; control characters are shown as such."""
    listening.here("send", channel, "the first one")
    process = listening.start("tail", channel, "--since", "0", "--limit", "3")
    begun(process)
    listening.here("send", channel, "second")
    listening.here("send", channel, "third\x1b[31m\nline")
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, "")
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in out.splitlines()] == [
        "alice: second",
        "alice: third\\x1b[31m\\nline",
    ]


def test_json_lines(listening: Shell, channel: str) -> None:
    """One object a line, with the message as the server told it."""
    for number in range(3):
        listening.here("send", channel, f"m{number}")
    ended = listening("tail", channel, "--since", "0", "--limit", "3", "--json")
    shown = [json.loads(line) for line in ended.out.splitlines()]
    messages = [each for each in shown if each["event"] == "message:received"]
    assert (ended.code, [each["seq"] for each in messages]) == (0, [1, 2, 3])
    assert messages[0]["raw"]["text"] == "m0"


def test_it_looks_on_only(listening: Shell, channel: str) -> None:
    """It leaves nothing in the state directory: no bot loses its place by it."""
    listening.here("send", channel, "the first one")
    for _ in range(2):
        assert "the first one" in listening("tail", channel, "--since", "0", "--limit", "1").out


def test_it_ends_when_nothing_comes(listening: Shell, channel: str) -> None:
    """`--timeout` ends it, without an error."""
    ended = listening("tail", channel, "--timeout", "0.2")
    assert (ended.code, ended.out, ended.err) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_politely(listening: Shell, channel: str, number: signal.Signals) -> None:
    """Ctrl-C is how one ends it: no error, no traceback."""
    listening.here("send", channel, "the first one")
    process = listening.start("tail", channel, "--since", "0")
    begun(process)
    ended = end(process, number)
    assert (ended.code, ended.err) == (0, "")


def test_a_reader_that_goes_away(listening: Shell, channel: str) -> None:
    """`chatsdk tail general | head -1` ends, at the next message."""
    listening.here("send", channel, "the first one")
    process = listening.start("tail", channel, "--since", "0")
    begun(process)
    assert process.stdout is not None
    process.stdout.close()
    with process:
        listening.here("send", channel, "nobody reads this")
        assert process.wait(TIMEOUT) == 0


def test_lost_and_back(listening: Shell, channel: str, server: DevServer) -> None:
    """A lost connection is said, and what was written meanwhile is shown."""
    listening.here("send", channel, "the first one")
    process = listening.start("tail", channel, "--since", "0", "--limit", "2")
    begun(process)
    server.realtime.cut()
    listening.here("send", channel, "meanwhile")
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0
    assert "alice: meanwhile" in out
    assert "Reconnecting" in err
    assert "Connected" in err


def test_what_cannot_be_heard(listening: Shell, channel: str, nowhere: str) -> None:
    """No such channel, a wrong token, a server that is not there: a sentence, a hint and an exit code."""
    missing = listening("tail", "00000000-0000-7000-8000-00000000dead")
    assert missing.code == 1 or missing.code == 77
    assert missing.err.startswith("chatsdk: ")
    assert listening("tail", "no such alias").code == 2
    wrong = listening("tail", channel, CHATSDK_WS_TOKEN="x.y.z")
    assert wrong.code == 77
    assert "CHATSDK_WS_TOKEN" in wrong.err
    nobody = listening("tail", channel, CHATSDK_WS_URL=nowhere.replace("http", "ws"), CHATSDK_RECONNECT="fast")
    assert nobody.code == 69


def test_status(listening: Shell, channel: str) -> None:
    """Connected, and what waits; for people and for programs."""
    listening.here("send", channel, "waits", "--no-wait")
    shown = listening("status")
    assert shown.code == 0
    assert re.search(r"^connection +Connected", shown.out, re.MULTILINE)
    assert re.search(r"^outbox +1 queued, 0 dead", shown.out, re.MULTILINE)
    facts = listening("status", "--json").json
    assert facts["connection"]["connected"] is True
    assert facts["outbox"]["queued"] == 1
    assert facts["user"] == "alice"


def test_status_of_what_does_not_work(listening: Shell, nowhere: str) -> None:
    """It says what is wrong and what to do, and its exit code says it too."""
    down = listening("status", "--timeout", "1", CHATSDK_WS_URL=nowhere.replace("http", "ws"))
    assert down.code == 69
    assert "Reconnecting" in down.out or "Connecting" in down.out
    wrong = listening("status", "--json", CHATSDK_WS_TOKEN="x.y.z")
    assert wrong.code == 77
    assert wrong.json["connection"]["state"] == "FAILED"


def test_status_stays(listening: Shell, server: DevServer) -> None:
    """With `--watch` every change is a line, until it is told to end."""
    process = listening.start("status", "--watch")
    assert process.stdout is not None
    seen = ""
    while "Connected" not in seen:
        seen = process.stdout.readline()
    server.realtime.refuse(for_s=20)
    server.realtime.cut()
    while "Reconnecting" not in seen:
        seen = process.stdout.readline()
    ended = end(process, signal.SIGINT)
    assert ended.code == 0
