"""The control routes are for programs on this machine only, and say what they refuse."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chatsdk.devserver.answers import ApiError
from chatsdk.devserver.handlers import control
from chatsdk.devserver.process import ControlRefused, DevServer
from chatsdk.devserver.routes import Operation
from chatsdk.devserver.server import build_world
from chatsdk.devserver.settings import ServerSettings, is_loopback
from chatsdk.devserver.world import Call
from tests.devserver.caller import call


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    """Give one server to all tests of this file."""
    with DevServer() as started:
        yield started


@pytest.mark.parametrize(
    ("address", "headers", "allowed"),
    [
        ("127.0.0.1", {"host": "127.0.0.1:5500"}, True),
        ("127.0.0.1", {"host": "localhost"}, True),
        ("::1", {"host": "[::1]:5500"}, True),
        ("192.0.2.7", {"host": "127.0.0.1:5500"}, False),
        ("", {"host": "127.0.0.1"}, False),
        ("127.0.0.1", {"host": "rebound.example:5500"}, False),
        ("127.0.0.1", {"host": "127.0.0.1:5500", "origin": "http://localhost:3000"}, False),
    ],
)
def test_only_programs_on_this_machine(address: str, headers: dict[str, str], allowed: bool) -> None:
    """Callers from elsewhere, web pages and rebound names are refused, whatever address the server listens on."""
    world = build_world(ServerSettings())
    operation = Operation("dev_state", "GET", "/__dev__/state", control.state, public=True)
    caller = Call(world, operation, {}, "", headers, b"", address, 0)
    try:
        if allowed:
            control.check_caller(caller)
        else:
            with pytest.raises(ApiError) as refused:
                control.check_caller(caller)
            assert refused.value.answer.status == 403
    finally:
        world.db.close()


def test_web_page_is_refused_on_the_wire(server: DevServer) -> None:
    """A page that posts to a control route gets 403, no CORS header, and changes nothing."""
    reply = call(server, "POST", "/__dev__/faults", {"kind": "drop"}, headers={"Origin": "http://localhost:3000"})
    assert reply.status == 403
    assert "access-control-allow-origin" not in reply.headers
    assert server.fault_rules() == []


def test_bad_rule_is_refused_with_the_reason(server: DevServer) -> None:
    """A rule that makes no sense is 400, and the text says why."""
    reply = call(server, "POST", "/__dev__/faults", {"kind": "drop", "ms": 5})
    assert (reply.status, reply.body["error"]["message"]) == (400, "drop does not know ms")
    with pytest.raises(ControlRefused, match="kind must be one of") as refused:
        server.faults("unheard-of")
    assert refused.value.status == 400
    assert call(server, "DELETE", "/__dev__/faults/99").status == 404
    assert call(server, "GET", "/__dev__/nothing").status == 404


def test_state_counts(server: DevServer) -> None:
    """The summary agrees with the logs."""
    state, log = server.state(), server.log()
    assert state["messages"] == len(log["messages"])
    assert state["attempts"] == len(log["attempts"])
    assert sum(state["outcomes"].values()) == state["attempts"]


def test_channel_and_users_are_made(server: DevServer) -> None:
    """A channel to order, with users who did not exist; asking again gives the same."""
    wanted = "01a201f8-da2c-7568-8539-b76e6142e34a"
    assert server.channel("xena", "yves", channel_id=wanted, name="made") == wanted
    assert server.channel("xena", channel_id=wanted) == wanted
    seen = call(server, "GET", f"/api/channels/{wanted}", token=server.mint("yves")).body
    assert (seen["name"], seen["role"], seen["memberCount"]) == ("made", "member", 2)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        *((name, True) for name in ("127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost")),
        *((name, False) for name in ("0.0.0.0", "::", "192.0.2.1", "example.org", "localhost.example")),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    """Only addresses that no other machine can reach count as this machine's."""
    assert is_loopback(host) == loopback
