"""What every test gets: a home of its own, no settings of the developer's, and no network but loopback; and a server.

The first three hold in this process only. A test that starts a process passes `os.environ` on and so gives it the same
home; what that process connects to is the test's own business.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from chatsdk.devserver.process import DevServer

_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
_SCREEN = {"COLUMNS", "LINES"}  # a size that wins over the terminal's own; pytest-xdist sets them


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes that tests start: a shell's background job is started with SIGINT ignored, and
    every process below it would inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give the test a home without settings and state, and hide those of the developer."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        ours = name.startswith(("CHATSDK_", "XDG_")) or name == "STATE_DIRECTORY"
        if ours or name in _SCREEN or name.lower() in _PROXIES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))


@pytest.fixture(autouse=True, scope="session")
def _loopback_only() -> Iterator[None]:
    """Refuse every connection that would leave this machine, and resolve no name but localhost."""
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _refuse_foreign(self, address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _refuse_foreign(self, address)
        return connect_ex(self, address)

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_local(host):
            raise socket.gaierror(socket.EAI_NONAME, f"tests resolve no names: {host!r}")
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        patch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
        yield


@pytest.fixture
def devserver() -> Iterator[DevServer]:
    """Give a development server of the test's own, in memory, in a process that ends with the test."""
    from chatsdk.devserver.process import DevServer

    with DevServer() as server:
        yield server


def _refuse_foreign(sock: socket.socket, address: Any) -> None:
    """Fail the test that connects to another machine: an AssertionError, so that no retry takes it for bad luck."""
    if sock.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
        raise AssertionError(f"a test may connect to loopback only, not to {address!r}")


def _is_local(host: Any) -> bool:
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in (None, "", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified
