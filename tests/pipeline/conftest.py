"""Servers and transports that are gone when the test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from chatsdk.pipeline.transport import Transport
from tests.pipeline.kit import Behaviour, RawServer


@pytest.fixture
def serve() -> Iterator[Callable[..., RawServer]]:
    """Give a function that starts a server with a behaviour."""
    with ExitStack() as stack:

        def start(behaviour: Behaviour, **facts: Any) -> RawServer:
            server = RawServer(behaviour, **facts)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def connect() -> Iterator[Callable[..., Transport]]:
    """Give a function that makes a transport to a server (or a URL)."""
    with ExitStack() as stack:

        def make(server: RawServer | str, **facts: Any) -> Transport:
            transport = Transport(server if isinstance(server, str) else server.url, **facts)
            stack.callback(transport.close)
            return transport

        yield make
