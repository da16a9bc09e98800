"""One message on its way to a real server, as Prometheus sees it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
from chatsdk_prometheus import Prometheus
from kit import TEN, eventually, parse, scrape, value
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics

from chatsdk import ChatClient, events
from chatsdk.devserver.process import DevServer

SECRET_TEXT = "the text of the message"


def client(server: DevServer, plugin: Prometheus, state: Path, **settings: object) -> ChatClient:
    """A client of alice's with this plugin and no other."""
    return ChatClient(
        server.url,
        server.tokens["alice"],
        user="alice",
        plugins=[plugin],
        discover=False,
        state_dir=str(state),
        **settings,
    )


def test_one_send_with_two_retries(server: DevServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tries, two failures, the circuit that opened and closed again, and the correlation id; in a scrape of the
    endpoint over HTTP. The figures are the client's own."""
    server.faults("status", operation="send", status=503, times=2)
    registry = CollectorRegistry()
    plugin = Prometheus(registry)
    monkeypatch.setenv("CHATSDK_PLUGIN_PROMETHEUS_PORT", "0")
    settings = {"circuit_failures": 2, "circuit_open_first": 0.1, "circuit_successes": 1}
    sent: list[events.MessageSent] = []
    with client(server, plugin, tmp_path, **settings) as chat:
        chat.on(events.MessageSent, sent.append)
        receipt = chat.send(server.channel_id, SECRET_TEXT, wait=20)
        assert (receipt.state, receipt.attempts) == ("SENT", 3)
        # a receipt may be there before its event
        eventually(lambda: sent and value(scrape(registry), "sync_success_total") == 1)
        with urllib.request.urlopen(f"http://127.0.0.1:{plugin.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        asked = urllib.request.Request(
            f"http://127.0.0.1:{plugin.port}/metrics", headers={"Accept": "application/openmetrics-text"}
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            with_exemplars = answer.read().decode()
        own = chat._parts.metrics.snapshot()  # the client's figures, to compare
    eventually(lambda: plugin.port == 0)  # gone with its client
    found = parse(text)
    assert value(found, "request_latency_ms_count", operation="messages.send") == 3
    assert value(found, "client_http_errors_total", type="ServerError") == 2
    assert value(found, "retry_attempts_total", operation="messages.send") == 2
    assert value(found, "sync_failures_total") == 2
    assert value(found, "sync_success_total") == 1
    assert value(found, "circuit_breaker_opens_total", circuit="api") == 1
    assert value(found, "open_circuits") == value(found, "active_requests") == 0

    def total(name: str) -> float:
        return sum(figure for (sample, _), figure in found.items() if sample == name)

    for name in TEN - {"request_latency_ms"}:
        assert total(name) == own[name], name
    assert total("request_latency_ms_count") == own["request_latency_ms"]["count"]
    assert total("request_latency_ms_sum") == pytest.approx(own["request_latency_ms"]["sum"], rel=0.3, abs=5)
    assert server.fault_rules()[0]["fired"] == 2
    samples = [sample for family in read_openmetrics(with_exemplars) for sample in family.samples if sample.exemplar]
    assert {sample.exemplar.labels["correlation_id"] for sample in samples} == {sent[0].correlation_id}
    assert {"client_http_errors_total", "retry_attempts_total", "request_latency_ms_bucket"} <= {
        sample.name for sample in samples
    }
    asked_for = [each["request_id"] for each in server.requests() if each["operation"] == "send"]
    assert asked_for == [sent[0].correlation_id] * 3
    told = text + with_exemplars
    for private in (SECRET_TEXT, "alice", server.channel_id, server.tokens["alice"], receipt.key):
        assert private not in told


def test_a_hostile_server(server: DevServer, tmp_path: Path) -> None:
    """What a server writes into its errors and headers never becomes a series, and the message arrives."""
    body = json.dumps({"error": {"code": 'x"}\nevil 1', "message": "unbounded-4711"}})
    server.faults(
        "status", operation="send", status=599, times=2, body=body, headers={"X-Request-ID": "unbounded-4712"}
    )
    registry = CollectorRegistry()
    with client(server, Prometheus(registry), tmp_path) as chat:
        assert chat.send(server.channel_id, "hello", wait=20).state == "SENT"
    text = openmetrics(registry).decode()
    assert "unbounded" not in text
    assert "evil" not in text
    assert value(scrape(registry), "client_http_errors_total", type="ServerError") == 2


def test_a_plugin_with_wrong_settings(server: DevServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is none disables the plugin, with a warning; the message arrives."""
    registry = CollectorRegistry()
    monkeypatch.setenv("CHATSDK_PLUGIN_PROMETHEUS_PORT", "http")
    with client(server, Prometheus(registry), tmp_path) as chat:
        with pytest.warns(RuntimeWarning, match="prometheus.*port must be"):
            assert chat.send(server.channel_id, "hello", wait=20).state == "SENT"
    assert scrape(registry) == {}


def test_metrics_that_fail_change_no_delivery(
    server: DevServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every instrument broken, messages arrive in order and the retries are the same."""

    def broken(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    before = len(server.log()["messages"])
    server.faults("status", operation="send", status=503, times=2)
    plugin = Prometheus(CollectorRegistry())
    for instrument in plugin.collector._all:
        for method in ("inc", "dec", "set", "observe", "labels"):
            monkeypatch.setattr(instrument, method, broken, raising=False)
    with client(server, plugin, tmp_path) as chat:
        receipts = [chat.send(server.channel_id, f"message {number}", wait=20) for number in range(5)]
    assert [(receipt.state, receipt.attempts) for receipt in receipts] == [("SENT", 3)] + [("SENT", 1)] * 4
    assert [each["text"] for each in server.log()["messages"][before:]] == [f"message {n}" for n in range(5)]
