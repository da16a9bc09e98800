"""What the tests share: the exposition, read back, and waiting for something."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]

TEN = {
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
}


def parse(text: str) -> Figures:
    """Each sample of an exposition: by name and labels."""
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def scrape(registry: CollectorRegistry) -> Figures:
    """Each sample of a registry, written and read by prometheus_client."""
    return parse(generate_latest(registry).decode())


def value(figures: Figures, name: str, **labels: str) -> float | None:
    """One sample, or None."""
    return figures.get((name, frozenset(labels.items())))


def eventually(check: Callable[[], object]) -> None:
    """Wait until it is true."""
    end = time.monotonic() + 10
    while not check():
        assert time.monotonic() < end, "it did not happen"
        threading.Event().wait(0.01)
