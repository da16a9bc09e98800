"""Figures by the seeds' names."""

from __future__ import annotations

import json
import threading

from chatsdk.resilience.metrics import COUNTERS, GAUGES, LATENCIES, Metrics, Recent
from tests.pipeline.kit import FakeClock

SEEDS = [
    "client_http_errors_total",
    "sync_failures_total",
    "sync_success_total",
    "circuit_breaker_opens_total",
    "retry_attempts_total",
    "fallbacks_used_total",
    "request_latency_ms",
    "active_requests",
    "pending_sync_items",
    "open_circuits",
]


def test_the_ten_names_are_there_from_the_beginning() -> None:
    """An exporter sees every metric at once, at zero."""
    assert sorted([*COUNTERS, *GAUGES, *LATENCIES]) == sorted(SEEDS)
    snapshot = Metrics().snapshot()
    assert set(SEEDS) <= set(snapshot)
    assert all(snapshot[name] == 0 for name in (*COUNTERS, *GAUGES))
    assert snapshot["request_latency_ms"]["count"] == 0


def test_a_call_from_beginning_to_end() -> None:
    """Active while it runs; then its latency, and its error by type; only a good one is a success."""
    clock = FakeClock()
    metrics = Metrics(clock)
    metrics.begin()
    assert metrics.value("active_requests") == metrics.snapshot()["active_requests"] == 1
    metrics.finish(120.0, "ServerError")
    before = metrics.last_success
    assert before is None
    metrics.begin()
    metrics.finish(40.0)
    assert metrics.last_success == clock.now
    metrics.begin()
    metrics.finish(None)  # from the cache
    snapshot = metrics.snapshot()
    assert (snapshot["client_http_errors_total"], snapshot["client_http_errors_by_type"]) == (1, {"ServerError": 1})
    latency = snapshot["request_latency_ms"]
    assert (latency["count"], latency["sum"], latency["max"]) == (2, 160.0, 120.0)
    assert (latency["buckets"]["10"], latency["buckets"]["50"], latency["buckets"]["150"]) == (0, 1, 2)
    assert latency["buckets"]["+Inf"] == 2
    assert snapshot["active_requests"] == 0
    json.dumps(snapshot)


def test_recent_forgets_after_five_minutes() -> None:
    """Health is judged by what happened lately, not since the start."""
    clock = FakeClock()
    metrics = Metrics(clock)
    for _ in range(4):
        metrics.begin()
        metrics.finish(1000.0, "ServerError")
    assert metrics.recent() == Recent(4, 4, 1000.0)
    clock.now += 200
    metrics.begin()
    metrics.finish(500.0)
    assert metrics.recent() == Recent(5, 4, 900.0)
    assert metrics.recent(60) == Recent(1, 0, 500.0)
    clock.now += 150
    assert metrics.recent() == Recent(1, 0, 500.0)
    clock.now += 1000
    assert metrics.recent() == Recent(0, 0, 0.0)


def test_other_figures() -> None:
    """Gauges are set, counters raised, and names of one's own kept beside the seeds'."""
    metrics = Metrics()
    metrics.gauge("pending_sync_items", 7)
    metrics.count("fallbacks_used_total")
    metrics.count("mine", 3)
    metrics.observe("upload_ms", 5.0)
    assert metrics.value("pending_sync_items") == 7
    assert metrics.value("mine") == 3
    assert metrics.value("unknown") == 0
    snapshot = metrics.snapshot()
    assert (snapshot["fallbacks_used_total"], snapshot["upload_ms"]["count"]) == (1, 1)


def test_threads_lose_no_count() -> None:
    """Eight threads, no lost update."""
    metrics = Metrics()

    def run() -> None:
        for _ in range(500):
            metrics.begin()
            metrics.finish(1.0, "X")
            metrics.count("mine")

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert metrics.value("mine") == metrics.value("client_http_errors_total") == 4000
    assert metrics.value("active_requests") == 0


def test_forked_child_gets_a_fresh_lock() -> None:
    """A lock that was held when the process forked does not hold the child."""
    metrics = Metrics()
    metrics.begin()
    metrics._lock.acquire()
    metrics.after_fork()
    assert metrics.value("active_requests") == 0
