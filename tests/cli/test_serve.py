"""`chatsdk serve`."""

from __future__ import annotations

import json
import re
import signal

import pytest

from tests.cli.conftest import Shell, end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_it_prints_can_be_copied(number: signal.Signals, chatsdk: Shell) -> None:
    """The lines that begin with export are all that `chatsdk send general` needs; a signal ends it with 0."""
    process = chatsdk.start("serve", "--port", "0")
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if line.startswith("# general"):
            break
    said = " ".join(re.findall(r"^export (.*?)(?:  #|$)", "".join(printed), re.MULTILINE))
    exports = dict(re.findall(r"(\w+)=(\S+)", said))
    assert set(exports) == {"CHATSDK_URL", "CHATSDK_TOKEN", "CHATSDK_WS_TOKEN"}
    assert chatsdk("send", "general", "hello", **exports).code == 0
    assert "hello" in chatsdk("tail", "general", "--since", "0", "--limit", "1", **exports).out
    assert end(process, number).code == 0


def test_as_json(chatsdk: Shell) -> None:
    """One line for programs: URL, channel, the tokens of two users."""
    process = chatsdk.start("serve", "--port", "0", "--json")
    assert process.stdout is not None
    facts = json.loads(process.stdout.readline())
    assert set(facts["tokens"]) == {"alice", "bob"}
    assert facts["url"].startswith("http://127.0.0.1:")
    assert end(process).code == 0


def test_only_loopback_unless_asked(chatsdk: Shell) -> None:
    """A host that others can reach is refused with the flag that permits it; permitted, it is loud."""
    refused = chatsdk("serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.code == 78
    assert "--allow-remote" in refused.err
    process = chatsdk.start("serve", "--host", "0.0.0.0", "--port", "0", "--allow-remote", "--json")
    assert process.stdout is not None
    assert process.stdout.readline()
    assert "everybody who can reach it" in end(process).err


def test_a_port_that_is_taken_is_one_sentence(chatsdk: Shell) -> None:
    """No traceback, and a hint."""
    port = chatsdk.environ["CHATSDK_URL"].rpartition(":")[2]
    ended = chatsdk("serve", "--port", port)
    assert ended.code == 78
    assert "--port" in ended.err
