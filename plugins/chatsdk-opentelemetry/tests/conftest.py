"""One development server for all tests: starting one takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chatsdk.devserver.process import DevServer


@pytest.fixture(scope="session")
def _running() -> Iterator[DevServer]:
    with DevServer() as running:
        yield running


@pytest.fixture
def server(_running: DevServer) -> DevServer:
    """Give a server without faults. What it was sent by other tests is in its log still."""
    _running.clear_faults()
    return _running
