"""A program that forks after its client started: children send at once, nothing is lost, sent twice or shared."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chatsdk.devserver.process import DevServer
from tests.servers.forking import ROWS
from tests.servers.proc import is_gone, share_nothing
from tests.servers.running import running

FORKING = Path(__file__).with_name("forking.py")
AT_ONCE_S = 1.0
SLOW_MS = 200
"""What a send takes at the server while the children leave: without an exit flush they would be gone before."""

WAYS = ("os.fork", "bare", "fork", "forkserver", "spawn")
"""`bare` runs no hook of Python's, as uWSGI; the last three are multiprocessing's."""


def test_a_fork_while_a_thread_imports(
    server: DevServer, tmp_path: Path, environment: dict[str, str], texts: Callable[..., list[str]]
) -> None:
    """A thread that loads the HTTP library for its first delivery does not leave the children a module that is locked
    for ever, if the program forks right then."""
    own, *others = (server.channel("alice", "bob") for _ in range(3))
    go = tmp_path / "go"
    go.touch()
    with running(
        [sys.executable, str(FORKING), "os.fork", "cold", str(go), own, *others], environment, tmp_path
    ) as one:
        children = [facts for facts in one.said(3) if facts["what"] == "child"]
        assert [facts["state"] for facts in children] == ["SENT", "SENT"]
        assert max(facts["took"] for facts in children) < AT_ONCE_S
        assert one.end()[0] == 0
    assert texts(own) == [*(f"parent {n}" for n in range(ROWS)), "parent last"]


@pytest.mark.parametrize("leave", ["close", "return"])
@pytest.mark.parametrize("way", WAYS)
def test_a_program_that_forks(
    way: str,
    leave: str,
    server: DevServer,
    tmp_path: Path,
    environment: dict[str, str],
    texts: Callable[..., list[str]],
) -> None:
    """Children send within a second on sockets of their own, what the parent had accepted is sent once and in order,
    and a child that leaves, by `close()` or by just ending, delivers first what it had accepted."""
    own, *others = (server.channel("alice", "bob") for _ in range(3))
    go = tmp_path / "go"
    with running([sys.executable, str(FORKING), way, leave, str(go), own, *others], environment, tmp_path) as program:
        children = [facts for facts in program.said(3) if facts["what"] == "child"]
        assert [facts["state"] for facts in children] == ["SENT", "SENT"]
        assert max(facts["took"] for facts in children) < AT_ONCE_S
        share_nothing([program.pid, *(facts["pid"] for facts in children)], server.port)
        program.until(lambda: len(texts(own)) == ROWS + 2, "delivery of the parent's messages")
        server.faults("latency", operation="send", ms=SLOW_MS)
        program.process.send_signal(signal.SIGSTOP)  # the children are on their own
        go.touch()
        program.until(lambda: all(is_gone(facts["pid"]) for facts in children), "end of the children")
        left = [texts(each) for each in others]
        program.process.send_signal(signal.SIGCONT)
        assert program.said(4)[3]["codes"] == [0, 0], program.errors.read_text()
        assert program.end()[0] == 0
    assert texts(own) == ["parent first", *(f"parent {n}" for n in range(ROWS)), "parent last"]
    for found in left:
        assert found == ["child first", *(f"child {n}" for n in range(3))]
