"""The HTTP endpoint: on loopback, as long as a client is open, and never in the way."""

from __future__ import annotations

import errno
import os
import socket
import threading
import urllib.request

import pytest
from chatsdk_prometheus.collector import ChatCollector
from chatsdk_prometheus.endpoint import Endpoint
from kit import eventually, parse, value


def get(port: int) -> str:
    """What a scraper gets."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def refused(port: int) -> bool:
    """Nobody listens there."""
    with socket.socket() as peer:
        peer.settimeout(1)  # a socket that nobody accepts from stays silent when its queue is full
        return peer.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


class Client:
    """Somebody whose figures are shown."""


@pytest.fixture
def collector() -> ChatCollector:
    """Give a collector that saw one call."""
    made = ChatCollector()
    made.begin()
    made.finish("messages.send", 12.0, "", "c-1")
    return made


def test_scrape_until_the_last_client_is_closed(collector: ChatCollector) -> None:
    """Two clients share one endpoint; it listens on loopback only, and is gone with the second one."""
    endpoint, first, second = Endpoint(), Client(), Client()
    endpoint.serve(collector, 0, first)
    port = endpoint.port
    endpoint.serve(collector, 0, second)
    assert endpoint.port == port
    assert endpoint._server is not None
    assert endpoint._server.server_address[0] == "127.0.0.1"
    assert value(parse(get(port)), "request_latency_ms_count", operation="messages.send") == 1
    endpoint.release(first)
    endpoint.release(first)
    endpoint.release(Client())  # one that closed before it called anybody
    assert "sync_success_total 0.0" in get(port)
    endpoint.release(second)
    eventually(lambda: refused(port))
    assert endpoint.port == 0
    eventually(lambda: not [thread for thread in threading.enumerate() if "prometheus" in thread.name])


def test_a_port_that_is_taken(collector: ChatCollector, caplog: pytest.LogCaptureFixture) -> None:
    """Another process on that port is a warning, and nothing else happens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        endpoint = Endpoint()
        endpoint.serve(collector, other.getsockname()[1], Client())
    assert endpoint.port == 0
    assert "no metrics at 127.0.0.1" in caplog.text


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # there are threads: that is the point
def test_a_child_lets_go_of_the_port(collector: ChatCollector) -> None:
    """A forked child holds no end of the socket: the parent's endpoint answers, and closes for good."""
    endpoint, client = Endpoint(), Client()
    endpoint.serve(collector, 0, client)
    port = endpoint.port
    stays, ends = os.pipe()
    child = os.fork()
    if not child:
        os.close(ends)
        os.read(stays, 1)  # until the parent has looked
        os._exit(endpoint.port)
    os.close(stays)
    try:
        assert "request_latency_ms" in get(port)
        endpoint.release(client)
        eventually(lambda: refused(port))
    finally:
        os.close(ends)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
