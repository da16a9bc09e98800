"""However a program ends right after `send`, it ends soon, and what it sent arrives exactly once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chatsdk import ChatClient
from chatsdk.devserver.process import DevServer

LEAVING = Path(__file__).with_name("leaving.py")
EXIT_S = 0.7
MORE_S = 0.5
"""What an exit may take beyond `exit_timeout`: the interpreter has to end as well."""

WAYS = {"return": (0,), "SystemExit": (3,), "exception": (1,), "ctrl-c": (-2, 1), "sigterm": (-15,), "_exit": (4,)}
"""How a program may end, and the exit status that it must have as if there were no chat. CPython 3.11 forgets that it
was interrupted, and says 1, if anything that is imported on the way out defines a named tuple."""

SUDDEN = ("sigterm", "_exit")
"""Ends at which Python runs nothing more."""


def leave(way: str, channel: str, environment: dict[str, str]) -> tuple[float, str]:
    """Run the script; seconds from its last send to its end, and what it said on standard error."""
    script = subprocess.Popen(
        [sys.executable, str(LEAVING), way, channel],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "CHATSDK_EXIT_TIMEOUT": str(EXIT_S)},
    )
    with script:
        assert script.stdout is not None
        assert script.stderr is not None
        assert script.stdout.readline() == "sent\n", script.stderr.read()
        began = time.monotonic()
        code = script.wait(20)
        took = time.monotonic() - began
        said = script.stderr.read()
    assert code in WAYS[way], said
    assert ("Traceback" in said) == (way in ("exception", "ctrl-c")), said
    return took, said


@pytest.mark.parametrize("way", WAYS)
def test_exit_with_the_server_up(
    way: str,
    channel: str,
    environment: dict[str, str],
    connect: Callable[..., ChatClient],
    texts: Callable[[str], list[str]],
) -> None:
    """An ordinary end delivers everything on its way out; a sudden one leaves it to the next start."""
    took, said = leave(way, channel, environment)
    assert took < EXIT_S + MORE_S
    wanted = [f"{way} {n}" for n in range(3)]
    if way not in SUDDEN:
        assert texts(channel) == wanted
        assert "safe in" not in said
    connect().outbox.flush(10)
    assert texts(channel) == wanted


@pytest.mark.parametrize("way", WAYS)
def test_exit_with_a_server_that_hangs(
    way: str,
    server: DevServer,
    channel: str,
    environment: dict[str, str],
    connect: Callable[..., ChatClient],
    texts: Callable[[str], list[str]],
) -> None:
    """A server that takes 30 s to answer keeps nobody, the program says what is left, and the next start delivers."""
    server.faults("latency", operation="send", ms=30_000)
    took, said = leave(way, channel, environment)
    assert took < EXIT_S + MORE_S
    assert ("3 message(s) are safe in" in said) == (way not in SUDDEN), said
    server.clear_faults()
    connect().outbox.flush(10)
    assert texts(channel) == [f"{way} {n}" for n in range(3)]


def test_exits_with_the_server_down(
    server: DevServer,
    channel: str,
    environment: dict[str, str],
    connect: Callable[..., ChatClient],
    texts: Callable[[str], list[str]],
) -> None:
    """No end of a program depends on the server; once it is back, the next start delivers what all of them left."""
    server.kill()
    for way in WAYS:
        took, said = leave(way, channel, environment)
        assert took < EXIT_S + MORE_S, way
        assert ("message(s) are safe in" in said) == (way not in SUDDEN), said
    server.restart()
    connect().outbox.flush(10)
    assert texts(channel) == [f"{way} {n}" for way in WAYS for n in range(3)]
