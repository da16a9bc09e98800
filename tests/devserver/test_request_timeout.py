"""X-Request-Timeout: the server works for nobody who has gone; and its window on what it was asked."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.devserver.checks import waits_until
from chatsdk.devserver.process import DevServer
from tests.devserver.caller import call


@pytest.fixture(scope="module")
def shared() -> Iterator[DevServer]:
    """Give one server to all tests of this file."""
    with DevServer() as started:
        yield started


@pytest.fixture
def server(shared: DevServer) -> Iterator[DevServer]:
    """Give the server without the rules of the test before."""
    yield shared
    shared.clear_faults()


def post(server: DevServer, seconds: str | None, key: str) -> int:
    """Send a message whose sender waits that long (by his own words); gives the status."""
    headers = {} if seconds is None else {"X-Request-Timeout": seconds}
    body = {"text": "text", "clientMsgId": key}
    return call(
        server, "POST", f"/api/channels/{server.channel_id}/messages", body, user="alice", headers=headers
    ).status


def stored(server: DevServer, key: str) -> bool:
    return key in [message["key"] for message in server.log()["messages"]]


@pytest.mark.parametrize("seconds", ["0", "0.0", "0.000", "0.1"])
def test_who_has_gone_is_not_worked_for(server: DevServer, seconds: str) -> None:
    """408 before anything is done; the try is in the log, and the same key is new afterwards."""
    server.faults("latency", operation="send", ms=150, times=1)
    key = str(uuid.uuid4())
    assert post(server, seconds, key) == 408
    assert not stored(server, key)
    attempt = server.log()["attempts"][-1]
    assert (attempt["key"], attempt["outcome"], attempt["status"]) == (key, "rejected", 408)
    assert post(server, "5", key) == 201


def test_an_answer_that_was_lost_is_no_answer_of_408(server: DevServer) -> None:
    """A fault that comes after the work does not undo it; one that comes late enough keeps it from being done."""
    done, late = str(uuid.uuid4()), str(uuid.uuid4())
    server.faults("latency", operation="send", ms=150, when="after")
    assert post(server, "0.1", done) == 201
    assert stored(server, done)
    server.clear_faults()
    server.faults("latency", operation="send", ms=150)
    server.faults("reply_lost", operation="send")
    with pytest.raises(OSError):
        post(server, "0.1", late)
    assert not stored(server, late)


@pytest.mark.parametrize("seconds", [None, "", "-1", "nan", "inf", "1e-9", "1,5", "0x1", "1 2", "²", "9" * 40, "0.1s"])
def test_what_is_no_number_is_no_limit(server: DevServer, seconds: str | None) -> None:
    """Whatever a stranger writes there: the request is worked on."""
    server.faults("latency", operation="send", ms=20, times=1)
    sent = None if seconds is None else seconds.encode("utf-8").decode("latin-1")
    assert post(server, sent, str(uuid.uuid4())) == 201


@given(st.text(max_size=20), st.floats(0, 1e6))
def test_any_text(text: str, now: float) -> None:
    """A moment that is not before now, or none."""
    until = waits_until(text, now)
    assert until is None or until >= now


@given(st.decimals(0, 10**6, places=3))
def test_decimal_numbers_are_seconds(number: object) -> None:
    """As the client writes them."""
    assert waits_until(f"{number}", 5.0) == pytest.approx(5.0 + float(str(number)))


def test_the_window_on_requests(server: DevServer) -> None:
    """Each request with what it said of itself, but neither query nor token; control routes are not in it."""
    before = server.requests()[-1]["number"] if server.requests() else 0
    began = time.monotonic()
    call(
        server, "GET", "/api/users/me?x=hush", user="alice", headers={"X-Request-ID": "id-1", "X-Request-Timeout": "4"}
    )
    call(server, "GET", "/nowhere", headers={"X-Request-ID": "id-2"})
    server.faults("drop", operation="health")
    with pytest.raises(OSError):
        call(server, "GET", "/health")
    assert time.monotonic() - began < 10
    first, second, third = server.requests(before)
    assert {**first, "number": 0} == {
        "number": 0,
        "operation": "me",
        "method": "GET",
        "path": "/api/users/me",
        "request_id": "id-1",
        "timeout": "4",
        "fault": None,
        "status": 200,
    }
    assert (second["operation"], second["status"], second["timeout"]) == ("unknown", 404, None)
    assert (third["fault"], third["status"], third["request_id"]) == ("drop", None, None)
    assert server.requests(third["number"]) == []


def test_the_window_is_bounded(server: DevServer) -> None:
    """It keeps the last thousand."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    for _ in range(1100):
        connection.request("GET", "/health")
        connection.getresponse().read()
    connection.close()
    assert len(server.requests()) == 1000
