"""Counters, gauges and latencies, by the names of seed 003.

    client_http_errors_total     counter    failed calls, by the error's class name
    sync_failures_total          counter    tries of outbox messages that failed
    sync_success_total           counter    outbox messages that were delivered
    circuit_breaker_opens_total  counter    times that a circuit opened
    retry_attempts_total         counter    retries that were scheduled
    fallbacks_used_total         counter    answers that came from a fallback
    request_latency_ms           histogram  duration of calls that went to the server
    active_requests              gauge      calls under way
    pending_sync_items           gauge      outbox messages that wait
    open_circuits                gauge      circuits that are not closed

Other names may be used too; they are kept beside these. Thread-safe; a call costs two short turns of one lock. What
happened lately (`recent`) is kept in slots of ten seconds, because health is judged by the last five minutes.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from ..core.clock import Clock
from ..core.record import Record, record
from .system_clock import SystemClock

COUNTERS = (
    "client_http_errors_total",
    "sync_failures_total",
    "sync_success_total",
    "circuit_breaker_opens_total",
    "retry_attempts_total",
    "fallbacks_used_total",
)
GAUGES = ("active_requests", "pending_sync_items", "open_circuits")
LATENCIES = ("request_latency_ms",)

BOUNDS_MS = (10.0, 50.0, 150.0, 300.0, 1000.0, 2000.0, 5000.0, 10000.0)
"""Upper bounds of the histogram's buckets, among them those of network quality (50, 150, 300) and health (1, 2 s)."""

SLOT = 10.0
SLOTS = 30


@record(frozen=True, slots=True)
class Recent(Record):
    """What happened lately: calls that went to the server, those that failed, their mean duration in ms."""

    calls: int
    errors: int
    latency_ms: float


class Histogram:
    """Counts by upper bound, with their sum and greatest; the caller holds the lock."""

    __slots__ = ("buckets", "count", "greatest", "total")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_MS) + 1)
        self.count = 0
        self.total = 0.0
        self.greatest = 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self.buckets[bisect_left(BOUNDS_MS, value)] += 1
        self.count += 1
        self.total += value
        if value > self.greatest:
            self.greatest = value

    def to_dict(self) -> dict[str, Any]:
        """`{"count", "sum", "max", "buckets": {upper bound: how many up to it}}`."""
        running, up_to = 0, {}
        for bound, number in zip((*BOUNDS_MS, float("inf")), self.buckets, strict=True):
            running += number
            up_to["+Inf" if bound == float("inf") else f"{bound:g}"] = running
        return {"count": self.count, "sum": self.total, "max": self.greatest, "buckets": up_to}


class Metrics:
    """The figures of one client."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._counters: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._errors: Counter[str] = Counter()
        self._gauges: dict[str, float] = dict.fromkeys(GAUGES, 0)
        self._sources: dict[str, Callable[[], float | None]] = {}
        self._active = 0
        self._latencies: dict[str, Histogram] = {name: Histogram() for name in LATENCIES}
        self._request_latency = self._latencies["request_latency_ms"]
        self._slots: deque[list[float]] = deque(maxlen=SLOTS)  # [number, calls, errors, ms]
        self.last_success: float | None = None
        """Monotonic time of the last good answer of this server."""

    # ---- a call, from beginning to end

    def begin(self) -> None:
        """A call begins."""
        with self._lock:
            self._active += 1

    def finish(self, ms: float | None, error: str | None = None) -> None:
        """A call ended after `ms` (None: nothing was asked of the server); `error`: its class name, if it failed."""
        now = self._clock.monotonic()
        with self._lock:
            self._active -= 1
            if error is not None:
                self._counters["client_http_errors_total"] += 1
                self._errors[error] += 1
            if ms is None:
                return
            self._request_latency.add(ms)
            number = now // SLOT
            slots = self._slots
            if not slots or slots[-1][0] != number:
                slots.append([number, 0, 0, 0.0])
            slot = slots[-1]
            slot[1] += 1
            slot[3] += ms
            if error is None:
                self.last_success = now
            else:
                slot[2] += 1

    # ---- single figures

    def count(self, name: str, amount: int = 1) -> None:
        """Raise a counter."""
        with self._lock:
            self._counters[name] += amount

    def gauge(self, name: str, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._gauges[name] = value

    def gauge_from(self, name: str, read: Callable[[], float | None]) -> None:
        """Have a gauge read whenever somebody asks for it. `read` may be called by any thread, with locks of the caller
        held: it must be quick and must not raise. None: it cannot say now, and the last value stands."""
        self._sources[name] = read

    def observe(self, name: str, value: float) -> None:
        """Add a value to a histogram."""
        with self._lock:
            histogram = self._latencies.get(name)
            if histogram is None:
                histogram = self._latencies[name] = Histogram()
            histogram.add(value)

    # ---- reading

    def value(self, name: str) -> float:
        """A counter or gauge; 0 if there was none of that name."""
        if name in self._sources:
            self._read(name)
        with self._lock:
            if name == "active_requests":
                return self._active
            return self._counters[name] if name in self._counters else self._gauges.get(name, 0)

    def recent(self, seconds: float = SLOT * SLOTS) -> Recent:
        """The last `seconds` (at most 300), to within ten."""
        first = (self._clock.monotonic() - seconds) // SLOT
        with self._lock:
            slots = [slot for slot in self._slots if slot[0] > first]
        calls, errors, ms = (sum(slot[place] for slot in slots) for place in (1, 2, 3))
        return Recent(int(calls), int(errors), ms / calls if calls else 0.0)

    def snapshot(self) -> dict[str, Any]:
        """Everything, JSON-able: counters and gauges by name, `client_http_errors_by_type`, and per histogram
        `{"count", "sum", "max", "buckets"}`."""
        for name in list(self._sources):
            self._read(name)
        with self._lock:
            return {
                **self._counters,
                "client_http_errors_by_type": dict(self._errors),
                **self._gauges,
                "active_requests": self._active,
                **{name: histogram.to_dict() for name, histogram in self._latencies.items()},
            }

    def _read(self, name: str) -> None:
        found = self._sources[name]()
        if found is not None:
            self.gauge(name, found)

    def after_fork(self) -> None:
        """In a forked child: a lock that another thread held there would never be released; its calls are not ours."""
        self._lock = threading.Lock()
        self._active = 0
