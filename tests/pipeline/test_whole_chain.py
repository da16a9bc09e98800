"""All layers together, against a real server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from chatsdk.core.errors import CircuitOpenError, NotFound, PluginError, RateLimited, ServerError, Unauthorized
from chatsdk.core.exchange import CallNext, Request, Response
from chatsdk.hookspecs import Middleware, Stage, hookimpl
from chatsdk.pipeline.registry import Registry
from chatsdk.pipeline.transport import Transport
from tests.pipeline.kit import Client, Peer, RawServer, always, http, raised, read, send

Chain = Callable[[Request], Response]


class World:
    """A client, its chain and its server; `answers` is a list of answers, the last one for ever."""

    def __init__(self, server: RawServer, transport: Transport, *plugins: Any, **settings: Any) -> None:
        self.server = server
        self.client = Client(**{"url": server.url, "timeout": 2.0, "retry_first": 0.001, **settings})
        self.registry = Registry(self.client, plugins)
        self.chain = self.registry.chain(transport)


@pytest.fixture
def world(serve: Callable[..., RawServer], connect: Callable[..., Transport]) -> Callable[..., World]:
    def make(*answers: bytes, plugins: tuple[Any, ...] = (), **settings: Any) -> World:
        left = list(answers)

        def behave(peer: Peer) -> None:
            while peer.request() is not None:
                peer.say(left.pop(0) if len(left) > 1 else left[0])

        server = serve(behave)
        return World(server, connect(server), *plugins, **settings)

    return make


def header(request: bytes, name: str) -> str:
    for line in request.decode().split("\r\n"):
        if line.lower().startswith(f"{name.lower()}: "):
            return line.partition(": ")[2]
    return ""


DOWN = http(b"{}", "503 Down")
REFUSED = http(b'{"error": {"message": "Invalid token"}}', "401 Unauthorized")


def test_retries_keep_key_and_correlation_id(world: Callable[..., World]) -> None:
    """Two failures and a success: one call to the caller, three requests with the same id and key to the server."""
    world_ = world(DOWN, DOWN, http(b'{"id": "1"}', "201 Created"))
    assert world_.chain(send(correlation_id="")).status == 201
    ids = {header(request, "X-Request-ID") for request in world_.server.requests}
    assert len(world_.server.requests) == 3
    assert len(ids) == 1
    assert "" not in ids
    assert world_.client.metrics.value("active_requests") == 0


def test_refused_token_is_replaced_once(world: Callable[..., World]) -> None:
    """401, a newer token, success; the caller sees nothing of it and no circuit counts it."""
    world_ = world(REFUSED, http())
    world_.chain(read())
    assert [header(request, "Authorization") for request in world_.server.requests] == ["Bearer old", "Bearer new"]
    error = raised(lambda: world(REFUSED).chain(read()))
    assert isinstance(error, Unauthorized)


def test_outage_opens_the_circuit_and_the_server_is_left_alone(world: Callable[..., World]) -> None:
    """After five failures calls fail in less than a millisecond, without a request; the circuit closes again."""
    world_ = world(*[DOWN] * 5, http())
    assert isinstance(raised(lambda: world_.chain(read())), ServerError)
    assert len(world_.server.requests) == 5
    took = []
    for _ in range(20):
        began = time.perf_counter()
        assert isinstance(raised(lambda: world_.chain(read())), CircuitOpenError)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.001
    assert len(world_.server.requests) == 5
    world_.client.circuits["api"].reset()
    assert world_.chain(read()).status == 200


def test_poison_message_does_not_open_the_circuit(world: Callable[..., World]) -> None:
    """A message that the server answers with 500, tried for ever, stops nobody else."""
    world_ = world(http(b"{}", "500 Oops"))
    for _ in range(20):
        raised(lambda: world_.chain(send(single_try=True)))
    assert world_.client.circuits["api"].state == "closed"


def test_limits_of_the_server_surface_with_their_value(world: Callable[..., World]) -> None:
    """A Retry-After that does not fit the deadline comes at once, and is not charged as an outage."""
    world_ = world(http(b"{}", "429 Too Many", {"Retry-After": "30"}))
    error = raised(lambda: world_.chain(read()))
    assert isinstance(error, RateLimited)
    assert error.retry_after == 30
    assert len(world_.server.requests) == 1


def test_cached_reads_make_no_request(world: Callable[..., World]) -> None:
    """The second read is answered here; after a send it goes out again."""
    world_ = world(http(b'{"messages": []}'))
    world_.chain(read(channel="c"))
    assert world_.chain(read(channel="c")).from_cache
    world_.chain(send())
    assert not world_.chain(read(channel="c")).from_cache
    assert world_.registry.middleware("dedup").invalidate("messages.*") == 1
    assert len(world_.server.requests) == 3


def test_broken_plugin_does_not_count_against_the_server(world: Callable[..., World]) -> None:
    """A plugin that raises at ATTEMPT gives PluginError with its name: not retried, no failure of the circuit."""

    class Broken:
        chatsdk_name = "broken"

        @hookimpl
        def chatsdk_middleware(self) -> Middleware:
            return Middleware("broken", Stage.ATTEMPT, self.call)

        def call(self, request: Request, call_next: CallNext) -> Response:
            if request.operation == "messages.send":
                raise KeyError("bad release")
            return call_next(request)

    world_ = world(http(), plugins=(Broken(),))
    for _ in range(10):
        error = raised(lambda: world_.chain(send()))
        assert isinstance(error, PluginError)
        assert error.plugin == "broken"
    assert world_.client.circuits["api"].counts.failures == 0
    assert world_.server.requests == []
    assert world_.chain(read()).status == 200


def test_plugins_stand_where_their_stage_is(serve: Callable[..., RawServer], connect: Callable[..., Transport]) -> None:
    """CALL sees a call once, ATTEMPT every try; neither sees the token."""
    seen: list[tuple[str, int, bool]] = []

    class Watch:
        chatsdk_name = "watch"

        @hookimpl
        def chatsdk_middleware(self) -> list[Middleware]:
            def note(stage: Stage) -> Middleware:
                def call(request: Request, call_next: CallNext) -> Response:
                    seen.append((stage.name, request.attempt, "Authorization" in request.headers))
                    return call_next(request)

                return Middleware(stage.name, stage, call)

            return [note(Stage.ATTEMPT), note(Stage.CALL)]

    server = serve(always(DOWN))
    raised(lambda: World(server, connect(server), Watch(), retry_tries=3).chain(read()))
    assert seen == [("CALL", 1, False), ("ATTEMPT", 1, False), ("ATTEMPT", 2, False), ("ATTEMPT", 3, False)]


def test_slow_server_meets_one_deadline(serve: Callable[..., RawServer], connect: Callable[..., Transport]) -> None:
    """Retries do not add up: the time-out is for the whole call."""

    def behave(peer: Peer) -> None:
        peer.request()
        peer.hold()

    server = serve(behave)
    world_ = World(server, connect(server), timeout=0.5)
    began = time.monotonic()
    raised(lambda: world_.chain(read()))
    assert time.monotonic() - began < 0.5 * 1.1 + 0.25


def test_not_found_is_not_retried(world: Callable[..., World]) -> None:
    """The control: an ordinary refusal is one request."""
    world_ = world(http(b'{"error": {"message": "no"}}', "404 Not Found"))
    assert isinstance(raised(lambda: world_.chain(read())), NotFound)
    assert len(world_.server.requests) == 1
