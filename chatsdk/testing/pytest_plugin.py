"""The pytest plugin: what a user's own tests get as soon as chatsdk is installed.

Every test gets an outbox directory of its own, no plugins from entry points, and clients that talk to this machine
only: a test that forgets to set a URL must not send real messages to real people. `chatsdk_server` is a running
development server in a process of its own, `chatsdk_client` a client that speaks to it.

Nothing of chatsdk is imported before a fixture needs it, so that coverage counts right.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from chatsdk import ChatClient
    from chatsdk.devserver.process import DevServer


@pytest.fixture(autouse=True)
def _chatsdk_isolated(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A state directory of the test's own, no foreign plugins, no way out but loopback; a test may set them anew."""
    # named, not made: most tests of most projects never open an outbox
    state = tmp_path_factory.getbasetemp() / "chatsdk-state" / str(next(_numbers))
    monkeypatch.setenv("CHATSDK_STATE_DIR", str(state))
    monkeypatch.setenv("CHATSDK_DISCOVER", "false")
    monkeypatch.setenv("CHATSDK_LOOPBACK_ONLY", "true")


_numbers = count()


@pytest.fixture
def chatsdk_server(tmp_path: Path) -> Iterator[DevServer]:
    """A development server of the test's own: `url`, `tokens["alice"]`, `channel_id`, `faults(...)`, `log()`, `kill()`,
    `restart()`. Durable in a file, so that a restart keeps everything."""
    from chatsdk.devserver.process import DevServer

    with DevServer(tmp_path / "chatsdk-server.db") as server:
        yield server


@pytest.fixture
def chatsdk_client(chatsdk_server: DevServer) -> Iterator[ChatClient]:
    """A client that speaks to `chatsdk_server` as alice, with "general" as an alias of its channel."""
    from chatsdk import ChatClient

    with ChatClient(
        chatsdk_server.url,
        chatsdk_server.tokens["alice"],
        user="alice",
        channels={"general": chatsdk_server.channel_id},
    ) as client:
        yield client
