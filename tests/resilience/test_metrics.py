"""Figures by the seeds' names."""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core.errors import Forbidden, NotSentError
from chatsdk.resilience.metrics import (
    BOUNDS_MS,
    COUNTERS,
    ERROR_KINDS,
    GAUGES,
    LATENCIES,
    OPERATIONS,
    OTHER,
    Histogram,
    Metrics,
    Recent,
)
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


def called(metrics: Metrics, operation: str, ms: float, error: str | None = None) -> None:
    metrics.begin()
    metrics.finish(ms, error, operation)


def test_latencies_and_errors_by_operation() -> None:
    """Each operation has a histogram of its own, and together they are the one of all; errors are counted by
    operation and class."""
    metrics = Metrics()
    for ms in (20.0, 40.0):
        called(metrics, "messages.list", ms)
    called(metrics, "messages.send", 700.0, "ServerError")
    called(metrics, "messages.list", 3.0, "ServerError")
    snapshot = metrics.snapshot()
    by_operation = snapshot["request_latency_ms_by_operation"]
    assert {name: each["count"] for name, each in by_operation.items()} == {"messages.list": 3, "messages.send": 1}
    assert by_operation["messages.list"]["mean"] == 21.0
    assert by_operation["messages.send"]["max"] == snapshot["request_latency_ms"]["max"] == 700.0
    assert snapshot["request_latency_ms"]["count"] == 4
    assert snapshot["client_http_errors_by_operation"] == {
        "messages.send": {"ServerError": 1},
        "messages.list": {"ServerError": 1},
    }
    assert snapshot["client_http_errors_by_type"] == {"ServerError": 2}
    json.dumps(snapshot)


def test_names_that_never_end_grow_nothing() -> None:
    """Ids in names, long ones, control characters, errors of classes that are made on the way: all are "other"."""
    metrics = Metrics()
    called(metrics, "messages.send", 1.0)
    for number in range(5000):
        called(metrics, f"messages.get.{number}", 1.0, f"Error{number}")
        metrics.failed(f"messages.get.{number}", NotSentError(), 1.0)
    for name in ("x" * 10_000, "a\x1b[2J", ""):
        called(metrics, name, 1.0, "E")
    snapshot = metrics.snapshot()
    by_operation = snapshot["request_latency_ms_by_operation"]
    assert len(by_operation) <= OPERATIONS + 1
    assert by_operation["messages.send"]["count"] == 1
    assert snapshot["request_latency_ms"]["count"] == sum(each["count"] for each in by_operation.values()) == 5004
    assert sum(len(each) for each in snapshot["client_http_errors_by_operation"].values()) <= ERROR_KINDS + 1
    assert snapshot["client_http_errors_by_type"][OTHER] + ERROR_KINDS == snapshot["client_http_errors_total"]
    assert len(metrics.errors()) <= 50
    assert len(json.dumps(snapshot)) < 100_000


def test_percentiles_are_estimated_from_the_buckets() -> None:
    """Even values come out right to within a bucket's share; without values nothing is claimed."""
    histogram = Histogram()
    assert histogram.to_dict()["p99"] is histogram.to_dict()["mean"] is None
    for ms in range(1, 1001):
        histogram.add(float(ms))
    facts = histogram.to_dict()
    assert facts["mean"] == 500.5
    assert facts["p50"] == pytest.approx(500, rel=0.02)
    assert facts["p95"] == pytest.approx(950, rel=0.02)
    assert facts["p99"] == pytest.approx(990, rel=0.02)


@given(st.lists(st.floats(0.0, 60_000.0), min_size=1, max_size=200), st.floats(0.0, 1.0))
def test_a_percentile_lies_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    """The estimate is never outside of the bucket, nor above the greatest value."""
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    found = histogram.quantile(share)
    assert found is not None
    true = sorted(values)[max(0, min(len(values) - 1, int(-(-share * len(values) // 1)) - 1))]
    low = max((bound for bound in BOUNDS_MS if bound < true), default=0.0)
    high = min((bound for bound in BOUNDS_MS if bound >= true), default=max(values))
    assert low - 1e-6 <= found <= min(high, max(values)) + 1e-6


def test_the_last_errors_are_kept_by_kind() -> None:
    """With the wall clock's time; they count nowhere else."""
    clock = FakeClock()
    metrics = Metrics(clock)
    metrics.failed("messages.list", Forbidden("no", status=403), 5.0, "c1")
    clock.now += 10
    metrics.remember("messages.list", Forbidden("no", status=403), "c2")
    (failure,) = metrics.errors()
    assert (failure.count, failure.correlation_id) == (2, "c2")
    assert failure.last_at - failure.first_at == 10
    assert failure.last_at == clock.time()
    assert metrics.value("client_http_errors_total") == 0


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
