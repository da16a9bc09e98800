"""Prometheus and OpenTelemetry side by side, over one message that met two 503s: each shows it, and what one shows
leads to the other by the correlation id. And a drainer that shows its figures."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from chatsdk.devserver.process import DevServer

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import json, sys
from chatsdk import ChatClient
from chatsdk_opentelemetry import OpenTelemetry
from chatsdk_prometheus import Prometheus
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

url, token, channel, state = sys.argv[1:]
exporter, registry, tracers = InMemorySpanExporter(), CollectorRegistry(), TracerProvider()
tracers.add_span_processor(SimpleSpanProcessor(exporter))
plugins = [OpenTelemetry(tracers, MeterProvider()), Prometheus(registry)]
with ChatClient(url, token, user="alice", plugins=plugins, discover=False, state_dir=state) as chat:
    receipt = chat.send(channel, "hello", wait=20)
families = text_string_to_metric_families(generate_latest(registry).decode())
samples = [sample for family in families for sample in family.samples]
print(json.dumps({
    "receipt": [receipt.state, receipt.attempts],
    "spans": [[span.name, dict(span.attributes)] for span in exporter.get_finished_spans()],
    "figures": {sample.name: sample.value for sample in samples},
    "exemplars": sorted({sample.exemplar.labels["correlation_id"] for sample in samples if sample.exemplar}),
}))
"""


def test_one_send_with_two_retries_in_both(devserver: DevServer, tmp_path: Path) -> None:
    """Three tries, two failures, one delivery and a closed circuit in both, with one correlation id."""
    devserver.faults("status", operation="send", status=503, times=2)
    path = [ROOT, ROOT / "plugins" / "chatsdk-opentelemetry", ROOT / "plugins" / "chatsdk-prometheus"]
    arguments = [devserver.url, devserver.tokens["alice"], devserver.channel_id, str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["receipt"] == ["SENT", 3]
    tries = [facts for name, facts in seen["spans"] if name == "POST"]
    (message,) = (facts for name, facts in seen["spans"] if name == "messages.send")
    assert [facts["http.response.status_code"] for facts in tries] == [503, 503, 201]
    assert [facts["chatsdk.circuit.state"] for facts in tries] == ["closed"] * 3
    figures = seen["figures"]
    assert figures["request_latency_ms_count"] == 3
    assert figures["client_http_errors_total"] == figures["retry_attempts_total"] == 2
    assert figures["sync_success_total"] == 1
    assert figures["circuit_breaker_opens_total"] == figures["open_circuits"] == 0
    assert {facts["chatsdk.correlation_id"] for facts in [message, *tries]} == set(seen["exemplars"])
    assert len(seen["exemplars"]) == 1


def test_a_drainer_shows_its_figures_from_the_beginning(devserver: DevServer, tmp_path: Path) -> None:
    """`chatsdk outbox run` with a port is scraped before any message came, as a monitor expects; its end is clean."""
    metadata = tmp_path / "chatsdk_prometheus-0.1.0.dist-info"  # what an installation leaves behind
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: chatsdk-prometheus\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text("[chatsdk]\nprometheus = chatsdk_prometheus:plugin\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {
        "PYTHONPATH": os.pathsep.join(map(str, [tmp_path, ROOT / "plugins" / "chatsdk-prometheus", ROOT])),
        "CHATSDK_URL": devserver.url,
        "CHATSDK_TOKEN": devserver.tokens["alice"],
        "CHATSDK_STATE_DIR": str(tmp_path / "state"),
        "CHATSDK_DISCOVER": "true",
        "CHATSDK_PLUGIN_PROMETHEUS_PORT": str(port),
    }
    drainer = subprocess.Popen(
        [sys.executable, "-m", "chatsdk", "outbox", "run"],
        env={**os.environ, **told},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        text, end = "", time.monotonic() + 30
        while not text and drainer.poll() is None and time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                    text = answer.read().decode()
            except urllib.error.URLError:
                threading.Event().wait(0.05)
        drainer.terminate()
    finally:
        complaints = drainer.communicate(timeout=30)[1]
    assert "\nsync_success_total 0.0\n" in text, complaints
    assert (drainer.returncode, complaints) == (0, "")
