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

Other names may be used too; they are kept beside these. Latencies and errors are also known by operation: of at most
`OPERATIONS` of them, so that names made of ids, or by a stranger, never grow it; the rest is "other". What happened
lately (`recent`) is kept in slots of ten seconds, because health is judged by the last five minutes. The errors
themselves are in `failures`, what a log should say of them in `outages`.

Thread-safe; a call costs two short turns of one lock.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from ..core.clock import Clock
from ..core.record import Record, record
from .failures import Failure, Failures
from .outages import Outages
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

OPERATIONS = 64
"""Operations that are told apart: three times as many as a backend has."""

LONGEST_OPERATION = 64
ERROR_KINDS = 256
"""Pairs of an operation and an error's class that are counted apart."""

OTHER = "other"


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

    def merge(self, other: Histogram) -> None:
        """The values of another one, too."""
        self.buckets = [ours + theirs for ours, theirs in zip(self.buckets, other.buckets, strict=True)]
        self.count += other.count
        self.total += other.total
        self.greatest = max(self.greatest, other.greatest)

    def quantile(self, share: float) -> float | None:
        """The value below which `share` (0 to 1) of them lie, None without values. An estimate: values are taken to be
        spread evenly between the bounds of their bucket."""
        if not self.count:
            return None
        wanted, below = share * self.count, 0
        for number, (low, high) in zip(
            self.buckets, pairwise((0.0, *BOUNDS_MS, max(self.greatest, BOUNDS_MS[-1]))), strict=True
        ):
            if number and below + number >= wanted:
                high = min(high, self.greatest)
                return low + max(0.0, high - low) * max(0.0, wanted - below) / number
            below += number
        return self.greatest

    def to_dict(self) -> dict[str, Any]:
        """`{"count", "sum", "max", "mean", "p50", "p95", "p99", "buckets": {upper bound: how many up to it}}`; mean and
        percentiles are None without values, the percentiles estimates."""
        running, up_to = 0, {}
        for bound, number in zip((*BOUNDS_MS, float("inf")), self.buckets, strict=True):
            running += number
            up_to["+Inf" if bound == float("inf") else f"{bound:g}"] = running
        return {
            "count": self.count,
            "sum": self.total,
            "max": self.greatest,
            "mean": self.total / self.count if self.count else None,
            **{f"p{share}": self.quantile(share / 100) for share in (50, 95, 99)},
            "buckets": up_to,
        }


class Metrics:
    """The figures of one client."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._counters: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self._errors: Counter[tuple[str, str]] = Counter()  # by operation and class
        self._gauges: dict[str, float] = dict.fromkeys(GAUGES, 0)
        self._sources: dict[str, Callable[[], float | None]] = {}
        self._active = 0
        self._latencies: dict[str, Histogram] = {name: Histogram() for name in LATENCIES}
        self._by_operation: dict[str, Histogram] = {}
        self._failures = Failures()
        self._outages = Outages()
        self._slots: deque[list[float]] = deque(maxlen=SLOTS)  # [number, calls, errors, ms]
        self.last_success: float | None = None
        """Monotonic time of the last good answer of this server."""

    # ---- a call, from beginning to end

    def begin(self) -> None:
        """A call begins."""
        with self._lock:
            self._active += 1

    def finish(self, ms: float | None, error: str | None = None, operation: str = OTHER) -> None:
        """A call ended after `ms` (None: nothing was asked of the server); `error`: its class name, if it failed."""
        now = self._clock.monotonic()
        with self._lock:
            self._active -= 1
            if error is not None:
                self._counters["client_http_errors_total"] += 1
                kind = self._known(operation), error if _is_a_name(error) else OTHER
                self._errors[kind if kind in self._errors or len(self._errors) < ERROR_KINDS else (OTHER, OTHER)] += 1
            if ms is None:
                return
            histogram = self._by_operation.get(operation)
            if histogram is None:
                histogram = self._by_operation.setdefault(self._known(operation), Histogram())
            histogram.add(ms)
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

    def failed(self, operation: str, error: BaseException, ms: float, correlation_id: str = "") -> str:
        """A call failed after `ms`: it is remembered. Returns what a log should say of it now, mostly nothing: ""."""
        with self._lock:
            known = self._known(operation)
            if isinstance(error, Exception):
                self._failures.add(known, error, correlation_id, self._clock.time())
            return self._outages.failed(known, error, ms, self._clock.monotonic())

    def remember(self, operation: str, error: Exception, correlation_id: str = "") -> None:
        """Something else failed, a probe: it is among the `errors`, and counts nowhere."""
        with self._lock:
            self._failures.add(self._known(operation), error, correlation_id, self._clock.time())

    def answered(self, operation: str) -> str:
        """A good answer came, which `failing` wants to hear of. Returns what a log should say now."""
        with self._lock:
            return self._outages.answered(self._known(operation), self._clock.monotonic())

    @property
    def failing(self) -> bool:
        """Calls failed as they do in an outage, and its end was not seen yet."""
        return self._outages.on

    def _known(self, operation: str) -> str:
        """The operation, as one of a bounded set. With the lock held."""
        if operation in self._by_operation:
            return operation
        if len(self._by_operation) >= OPERATIONS or not 0 < len(operation) <= LONGEST_OPERATION:
            return OTHER
        if not operation.isprintable():
            return OTHER
        self._by_operation[operation] = Histogram()
        return operation

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

    def errors(self) -> tuple[Failure, ...]:
        """The last errors by kind, the last one first; at most 50 kinds."""
        with self._lock:
            return self._failures.all()

    def snapshot(self) -> dict[str, Any]:
        """Everything, JSON-able: counters and gauges by name, per histogram `{"count", "sum", "max", "mean", "p50",
        "p95", "p99", "buckets"}`, and by operation `request_latency_ms_by_operation` (such a histogram each),
        `client_http_errors_by_operation` (`{operation: {class: count}}`) beside `client_http_errors_by_type`."""
        for name in list(self._sources):
            self._read(name)
        with self._lock:
            latencies = {name: histogram.to_dict() for name, histogram in self._latencies.items()}
            latencies["request_latency_ms"] = self._all_requests().to_dict()
            by_type: Counter[str] = Counter()
            by_operation: dict[str, dict[str, int]] = {}
            for (operation, error), number in self._errors.items():
                by_type[error] += number
                by_operation.setdefault(operation, {})[error] = number
            return {
                **self._counters,
                "client_http_errors_by_type": dict(by_type),
                "client_http_errors_by_operation": by_operation,
                **self._gauges,
                "active_requests": self._active,
                **latencies,
                "request_latency_ms_by_operation": {
                    name: histogram.to_dict() for name, histogram in self._by_operation.items() if histogram.count
                },
            }

    def _all_requests(self) -> Histogram:
        found = Histogram()
        for histogram in (self._latencies["request_latency_ms"], *self._by_operation.values()):
            found.merge(histogram)
        return found

    def _read(self, name: str) -> None:
        found = self._sources[name]()
        if found is not None:
            self.gauge(name, found)

    def after_fork(self) -> None:
        """In a forked child: a lock that another thread held there would never be released; its calls are not ours."""
        self._lock = threading.Lock()
        self._active = 0


def _is_a_name(error: str) -> bool:
    """Of a class; one that is made while the program runs may be called anything."""
    return len(error) <= LONGEST_OPERATION and error.isidentifier()
