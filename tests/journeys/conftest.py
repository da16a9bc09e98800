"""What the stories share: a development server, clients that are closed at the end, addresses where nobody answers."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from chatsdk import ChatClient
from chatsdk.devserver.process import DevServer
from tests.journeys.blocking import Gate, behind, gate
from tests.journeys.listeners import Listener
from tests.journeys.senders import Steady


@pytest.fixture(scope="package")
def _server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevServer]:
    with DevServer(tmp_path_factory.mktemp("server") / "server.db") as server:
        yield server


@pytest.fixture
def server(_server: DevServer) -> Iterator[DevServer]:
    """The server, up and without faults; it keeps its messages, keys and secrets over a restart."""
    yield _server
    if _server.pid is None:
        _server.start()
    _server.clear_faults()


@pytest.fixture
def channel(server: DevServer) -> str:
    """A new channel of alice's and bob's."""
    return server.channel("alice", "bob")


@pytest.fixture
def texts(server: DevServer) -> Callable[[str], list[str]]:
    """What the server holds of a channel, in the order of arrival."""
    return lambda channel: [str(each["text"]) for each in server.log()["messages"] if each["channel"] == channel]


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Where the clients of a test keep their outbox."""
    return tmp_path / "state"


@pytest.fixture
def connect(server: DevServer, state_dir: Path) -> Iterator[Callable[..., ChatClient]]:
    """Makes clients of alice's with one state directory. They are closed at the end, whatever became of them."""
    made: list[ChatClient] = []

    def make(url: str | None = None, **options: Any) -> ChatClient:
        given = {"token": server.tokens["alice"], "state_dir": str(state_dir), "discover": False, **options}
        made.append(ChatClient(url or server.url, **given))
        return made[-1]

    yield make
    for chat in made:
        with contextlib.suppress(Exception):  # some stories make clients that can't work
            chat.close(0.2)


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The URL of a port where every connection is refused."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


@pytest.fixture
def black_hole() -> Iterator[str]:
    """The URL of a port where connections are neither accepted nor refused: its queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):  # the kernel takes a few more than it was told
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        probe = stack.enter_context(socket.socket())
        probe.settimeout(0.3)
        with pytest.raises(TimeoutError):
            probe.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def environment(server: DevServer, state_dir: Path) -> dict[str, str]:
    """What a script of alice's finds in its environment."""
    return {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "CHATSDK_URL": server.url,
        "CHATSDK_TOKEN": server.tokens["alice"],
        "CHATSDK_STATE_DIR": str(state_dir),
        "CHATSDK_DISCOVER": "false",
    }


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Callable[..., Steady]]:
    """Starts such processes; whatever becomes of them, they end with the test."""
    made: list[Steady] = []

    def make(name: str, channel: str, setup: str = "") -> Steady:
        made.append(Steady(environment, name, channel, setup))
        made[-1].sends(1)
        return made[-1]

    yield make
    for each in made:
        if each.process.poll() is None:
            each.kill()


@pytest.fixture
def wall(server: DevServer) -> Iterator[Gate]:
    """What stands before the server's websocket, open at first."""
    with gate(server.port) as made:
        yield made


@pytest.fixture
def listener(server: DevServer, wall: Gate, tmp_path: Path) -> Iterator[Callable[..., Listener]]:
    """Makes listeners behind the wall."""
    with contextlib.ExitStack() as stack:
        numbers = count()
        yield lambda protocol="centrifugo", **options: stack.enter_context(
            behind(wall, server, tmp_path / f"bot-{next(numbers)}", protocol, **options)
        )
