"""Names that a hostile server or somebody's plugin comes up with: error codes, statuses, ids, operations, ten thousand
different ones, with line breaks, quotes, NUL, and of any length. What is kept and exported stays small and well-formed,
and messages are delivered meanwhile."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from chatsdk import ChatClient, ChatError
from chatsdk.core.exchange import Call
from chatsdk.devserver.process import DevServer
from chatsdk.plugin import CallNext, Middleware, Request, Response, Stage, errors, hookimpl
from tests.journeys.leftovers import exactly_once, nothing_left
from tests.pipeline.kit import Peer, RawServer, http

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"
NAMES = 10_000
LARGEST = 250_000
"""Characters of all that one exporter has to say, however much came in; most of it are the buckets of histograms."""

SIGN = "zxq"
"""Stands in everything hostile."""


def hostile(number: int) -> str:
    """A name that no exporter likes."""
    shapes = ("{}\n# EOF\n", 'x"}} {} 1\n', "\x00{}", "\x1b[2J{}", "{}" + "a" * 100_000, "ü{}\u2028", "{}\\", "  {}  ")
    return shapes[number % len(shapes)].format(f"{SIGN}{number}")


@pytest.fixture(autouse=True)
def _nothing_left(_server: DevServer) -> Iterator[None]:
    """Fail a story that leaves a thread or a descriptor."""
    with nothing_left():
        yield


class Exported:
    """Everything that exporters have to say, from the two plugins and from the client's own figures."""

    def __init__(self) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from prometheus_client import CollectorRegistry

        self.registry = CollectorRegistry()
        self.reader = InMemoryMetricReader()
        meters = MeterProvider([self.reader], shutdown_on_exit=False)
        self.plugins = [
            importlib.import_module("chatsdk_prometheus").Prometheus(self.registry),
            importlib.import_module("chatsdk_opentelemetry").OpenTelemetry(None, meters),
        ]

    def check(self, chat: ChatClient) -> dict[str, Any]:
        """Small, well-formed, and nothing hostile in it. Gives the client's own figures."""
        from prometheus_client import generate_latest
        from prometheus_client.parser import text_string_to_metric_families

        exposition: Any = importlib.import_module("prometheus_client.openmetrics.exposition")
        parser: Any = importlib.import_module("prometheus_client.openmetrics.parser")
        plain = generate_latest(self.registry).decode()
        assert list(text_string_to_metric_families(plain))
        opened = exposition.generate_latest(self.registry).decode()
        assert list(parser.text_string_to_metric_families(opened))
        data = self.reader.get_metrics_data()
        assert data is not None
        snapshot: dict[str, Any] = chat._parts.metrics.snapshot()
        for text in (plain, opened, data.to_json(), json.dumps(snapshot)):
            assert len(text) < LARGEST
            assert SIGN not in text
        return snapshot


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Exported:
    pytest.importorskip("prometheus_client")
    pytest.importorskip("opentelemetry.sdk")
    for name in ("prometheus", "opentelemetry"):
        monkeypatch.syspath_prepend(PLUGINS / f"chatsdk-{name}")
    return Exported()


def test_a_hostile_server(
    exported: Exported, connect: Callable[..., ChatClient], caplog: pytest.LogCaptureFixture
) -> None:
    """Over real sockets: another status, code, message and id in each answer. No log record has a second line, or
    commands a terminal."""
    count = 0

    def behave(peer: Peer) -> None:
        nonlocal count
        while peer.request() is not None:
            name = hostile(count)
            error = {"code": name, "message": name, "hint": name, "retryAfter": name, "issues": [{"path": [name]}]}
            body = json.dumps({"error": error, "retry_after_ms": name}).encode()
            status = 400 + count % 200
            peer.say(http(body, f"{status} {SIGN}", headers={"X-Request-ID": f"{SIGN}{count}", "Retry-After": SIGN}))
            count += 1

    server = RawServer(behave)
    chat = connect(server.url, user="alice", plugins=exported.plugins, retry_tries=1, circuit_failures=10**6)
    with caplog.at_level(logging.DEBUG, logger="chatsdk"):
        for number in range(400):
            with pytest.raises(ChatError):
                chat.channels.get(str(UUID(int=number + 2**124)), fresh=True)
    assert count >= 400
    snapshot = exported.check(chat)
    assert snapshot["client_http_errors_total"] == 400
    assert len(snapshot["client_http_errors_by_type"]) < 20
    said = [record.getMessage() for record in caplog.records if record.name.startswith("chatsdk")]
    assert said
    for line in said:
        assert len(line) < 5000
        assert line.isprintable(), line[:200]
    health = json.dumps(chat.health().to_dict())
    assert len(health) < 10_000
    chat.close()
    server.stop()


class Inventive:
    """A plugin with a name of its own for each call, which also answers them, and sometimes fails."""

    chatsdk_name = "inventive"

    @hookimpl
    def chatsdk_middleware(self) -> list[Middleware]:
        """Outermost and innermost."""
        return [
            Middleware("inventive", Stage.TELEMETRY, self.rename),
            Middleware("inventive-answers", Stage.ATTEMPT, self.answer),
        ]

    def rename(self, request: Request, call_next: CallNext) -> Response:
        """Another operation."""
        number = request.query.get("number")
        if number is None:
            return call_next(request)
        name = hostile(int(number))
        # an id may be exported, as an exemplar: so this one is only badly formed
        return call_next(request.replace(operation=name, correlation_id=name.replace(SIGN, "id")))

    def answer(self, request: Request, call_next: CallNext) -> Response:
        """Nothing of it reaches the server."""
        number = request.query.get("number")
        if number is None:
            return call_next(request)
        if int(number) % 3:
            return Response(status=200, body={})
        kind = type(hostile(int(number)).replace("\x00", "\x1b"), (errors.StatusError,), {})
        raise kind("no", status=int(number), code=hostile(int(number)))


def test_ten_thousand_operations_and_errors(
    exported: Exported,
    server: DevServer,
    connect: Callable[..., ChatClient],
    channel: str,
    texts: Callable[[str], list[str]],
) -> None:
    """Each call has an operation, an id and a class of error of its own, made by a plugin; messages go out in between,
    and their figures can still be told apart."""
    chat = connect(plugins=[Inventive(), *exported.plugins], retry_tries=1, circuit_failures=10**6)
    receipts = []
    request = Request(operation="invented", method="GET", path="/x", user="alice", fresh=True)
    for number in range(NAMES):
        if number % 500 == 0:
            receipts.append(chat.send(channel, f"{number}"))
        try:
            chat.call(Call(request.replace(query={"number": str(number)}), lambda response: response))
        except ChatError:
            assert number % 3 == 0
    exactly_once(chat, receipts, texts)
    snapshot = exported.check(chat)
    assert snapshot["sync_success_total"] == len(receipts)
    assert snapshot["request_latency_ms"]["count"] >= NAMES
    assert chat.health().calls >= NAMES
    chat.close()


def test_a_thousand_features(
    exported: Exported,
    server: DevServer,
    connect: Callable[..., ChatClient],
    channel: str,
    texts: Callable[[str], list[str]],
) -> None:
    """A feature per user is refused, with a hint at the mistake; what is exported of those before it stays small."""
    chat = connect(plugins=exported.plugins)
    receipts = [chat.send(channel, "before")]
    refused = 0
    for number in range(1000):
        try:
            chat.features.run(hostile(number)[:100], lambda: 1 / 0, lambda: 0, is_failure=lambda error: True)
        except ValueError:
            refused += 1
    assert refused > 500
    receipts.append(chat.send(channel, "after"))
    exactly_once(chat, receipts, texts)
    exported.check(chat)
    chat.close()
