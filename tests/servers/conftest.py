"""What the tests of forks and foreign servers share: a development server, a channel, the environment of a program."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatsdk.devserver.process import DevServer

if not sys.platform.startswith("linux"):
    pytest.skip("what processes share is read from /proc", allow_module_level=True)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="package")
def _server() -> Iterator[DevServer]:
    with DevServer() as server:
        yield server


@pytest.fixture
def server(_server: DevServer) -> Iterator[DevServer]:
    """A development server without faults."""
    yield _server
    _server.clear_faults()


@pytest.fixture
def channel(server: DevServer) -> str:
    """A new channel of alice's and bob's."""
    return server.channel("alice", "bob")


@pytest.fixture
def texts(server: DevServer) -> Callable[..., list[str]]:
    """What the server holds of these channels, each in the order of arrival."""

    def read(*channels: str) -> list[str]:
        messages = server.log()["messages"]
        return [str(each["text"]) for channel in channels for each in messages if each["channel"] == channel]

    return read


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name: a path of a socket has room for 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="chat") as made:
        yield Path(made)


@pytest.fixture
def environment(server: DevServer, channel: str, tmp_path: Path) -> dict[str, str]:
    """What a program of alice's finds in its environment."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "CHATSDK_URL": server.url,
        "CHATSDK_TOKEN": server.tokens["alice"],
        "CHATSDK_STATE_DIR": str(tmp_path / "state"),
        "CHATSDK_DISCOVER": "false",
        "CHAT_CHANNEL": channel,
    }
