"""The manager against the development server, over real sockets: expired tokens, replay, lost sessions, signers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chatsdk.auth import SignedTokens
from chatsdk.auth.sources import Source
from chatsdk.core.chatsdk_backend import ChatSDKBackend
from chatsdk.core.errors import TokenExpiredError, Unauthorized
from chatsdk.core.exchange import Request
from chatsdk.core.tokens import Token
from chatsdk.devserver.process import DevServer
from chatsdk.middleware.auth import Auth
from chatsdk.pipeline.transport import Transport
from chatsdk.resilience.system_clock import SystemClock
from tests.auth.kit import Stage, static, together

BACKEND = ChatSDKBackend()
ME = Request(operation="me", method="GET", path="/api/users/me", user="alice")


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    """One server for all tests here."""
    with DevServer() as running:
        yield running


class Wire:
    """A user of the server: manager, auth layer and transport."""

    def __init__(self, server: DevServer, *sources: Source, **options: Any) -> None:
        self.server = server
        self.refreshes = server.faults("latency", operation="refresh", ms=0)  # a rule counts what it is asked
        self.stage = Stage(
            *sources,
            clock=SystemClock(),
            refresh=self.refresh,
            refresh_refused=BACKEND.refresh_refused,
            background=True,
            **options,
        )
        self.exchange = Transport(server.url, on_skew=self.stage.manager.observe_skew)
        self.authorize = self.stage.manager.authorize
        self.layer = Auth(self)  # type: ignore[arg-type]

    def refresh(self, secret: str, deadline: float) -> Token:
        """The backend's refresh, on the wire."""
        call = BACKEND.refresh_token("alice", secret, now=time.time())
        return call.parse(self.exchange(call.request.replace(deadline=deadline)))

    def me(self, _index: int = 0) -> Any:
        """Who am I, through the auth layer."""
        return self.layer(ME, self.exchange).body

    def refreshed(self) -> int:
        """How many refreshes the server saw since this wire was laid."""
        return next(int(rule["seen"]) for rule in self.server.fault_rules() if rule["id"] == self.refreshes)


@pytest.fixture
def lay(server: DevServer) -> Iterator[Callable[..., Wire]]:
    """Lays wires to the server, and cuts them afterwards."""
    wires: list[Wire] = []

    def make(*sources: Source, **options: Any) -> Wire:
        wires.append(Wire(server, *sources, **options))
        return wires[-1]

    yield make
    for wire in wires:
        wire.stage.manager.close()
        wire.exchange.close()


def session(server: DevServer) -> Token:
    """A fresh session of alice's."""
    pair = server.session("alice")
    return Token(pair["token"], pair["wsToken"], pair["refreshToken"])


def test_eight_threads_meet_an_expired_token(server: DevServer, lay: Callable[..., Wire]) -> None:
    """All tokens expire at once; eight threads ask; every answer is 200 and the server saw exactly one refresh."""
    pair = session(server)
    wire = lay(static(pair))
    wire.me()
    rule = server.faults("expire_tokens", operation="me")
    try:
        answers = together(8, wire.me)
    finally:
        server.clear_faults(rule)
    assert {answer["id"] for answer in answers} == {"alice"}
    assert wire.refreshed() == 1
    token = wire.stage.manager.token()
    assert token.access != pair.access
    assert token.refresh != pair.refresh
    assert token.ws != pair.ws
    assert wire.stage.names() == ["auth:token_refreshed"]


def test_used_up_refresh_token_ends_the_session(server: DevServer, lay: Callable[..., Wire]) -> None:
    """Somebody else used the refresh token: the server says so, the session is lost, and a new one revives it."""
    pair = session(server)
    assert pair.refresh is not None
    wire = lay(static(pair))
    wire.refresh(pair.refresh.reveal(), time.monotonic() + 20)
    rule = server.faults("unauthorized", operation="me")
    try:
        with pytest.raises(TokenExpiredError):
            wire.me()
        with pytest.raises(TokenExpiredError):
            wire.me()
    finally:
        server.clear_faults(rule)
    assert wire.refreshed() == 2
    wire.stage.manager.replace(session(server))
    assert wire.me()["id"] == "alice"
    assert wire.stage.names() == ["auth:token_expired", "auth:token_refreshed"]


def test_server_that_refuses_good_tokens(server: DevServer, lay: Callable[..., Wire]) -> None:
    """401 to everything while the session is fine: a 401 for the caller, at most two refreshes, nothing lost."""
    wire = lay(static(session(server)))
    rule = server.faults("unauthorized", operation="me")
    try:
        for _ in range(10):
            with pytest.raises(Unauthorized):
                wire.me()
    finally:
        server.clear_faults(rule)
    assert wire.refreshed() <= 2
    assert wire.me()["id"] == "alice"
    assert not wire.stage.manager.lost


def test_signed_tokens_are_taken(server: DevServer, lay: Callable[..., Wire]) -> None:
    """A backend that signs for its users needs nothing but the secret; a forced one is signed anew."""
    signer = SignedTokens(server.secret, server.app_id, ws_secret=server.ws_secret)
    wire = lay(signer)
    assert wire.me()["id"] == "alice"
    first = wire.stage.manager.token()
    assert wire.stage.manager.token(refused=first) != first
    assert wire.me()["id"] == "alice"
