"""The guards of conftest.py really guard."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from chatsdk.devserver.process import DevServer


def test_foreign_address_is_refused() -> None:
    """A connection that would leave this machine fails the test before a packet is sent."""
    with socket.socket() as sock, pytest.raises(AssertionError, match="loopback only"):
        sock.connect(("192.0.2.1", 80))


def test_foreign_name_is_not_resolved() -> None:
    """No name server is asked."""
    with pytest.raises(socket.gaierror, match="no names"):
        socket.create_connection(("chat.example.org", 443), timeout=1)


def test_loopback_is_open() -> None:
    """A server of the test's own can be reached by address and by name."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for host in ("127.0.0.1", "localhost"):
            socket.create_connection((host, server.getsockname()[1]), timeout=5).close()


def test_server_is_there(devserver: DevServer) -> None:
    """The server on request answers, on loopback, and is nobody else's."""
    assert devserver.url.startswith("http://127.0.0.1:")
    assert devserver.log()["messages"] == []


def test_home_is_empty() -> None:
    """No setting of the developer's reaches a test."""
    assert not list(Path.home().iterdir())
    assert not [name for name in os.environ if name.startswith("CHATSDK_")]
