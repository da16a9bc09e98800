"""How the client is, in one value: healthy, degraded, unhealthy or critical, and why. Pure: figures in, `Health` out.

    status    | calls that failed | mean latency | or
    ----------+-------------------+--------------+------------------------------------------------
    healthy   | < 10              | < 1 s        |
    degraded  | 10 to 50          | 1 to 2 s     | the network is OFFLINE, or messages are polled
    unhealthy | > 50              | > 2 s        | the outbox can't be read: nothing can be accepted
    critical  |                   |              | a circuit is open

The worst that holds counts. Calls are those of the last five minutes. The limits are those of seed 003; what it has no
word for, a network and a disk that are gone, stands in the last column. A circuit that is half open counts as open
until a probe succeeded, as it does for features. That of the websocket is not critical while polling stands in for it.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from ..core.record import Record, record
from ..core.store import Stats
from ..resilience.metrics import Recent
from .quality import NetworkMetrics, Quality

ERRORS = (10, 50)
"""Failed calls from which on it is degraded, and beyond which it is unhealthy."""

LATENCY_MS = (1000.0, 2000.0)
"""Mean latencies likewise."""

UNKNOWN = "unknown"


class Status(StrEnum):
    """The levels of seed 003, best first."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 (healthy) to 3 (critical): greater is worse."""
        return _RANKS[self]


_RANKS = {status: rank for rank, status in enumerate(Status)}


@record(frozen=True, slots=True, kw_only=True)
class Health(Record):
    """How the client is.

    status         healthy, degraded, unhealthy or critical
    reasons        why it is no better, for people, worst first; empty if there is nothing to say
    calls, errors  that went to the server in the last five minutes, and how many of them failed
    latency_ms     mean duration of those calls, None: there was none
    open_circuits  their names
    pending, dead  messages that wait in the outbox, and that died there; None: not known, this process has not used it
    oldest_age     seconds since the oldest message that waits was accepted, None: none waits, or not known
    outbox_error   why the outbox can't be read, "" if it can or was not asked
    connection     of realtime: CLOSED (never asked for, too), CONNECTING, CONNECTED, DISCONNECTED, RECONNECTING, FAILED
    polling        messages are fetched over HTTP, because the websocket cannot be had
    quality        of the network: EXCELLENT, GOOD, FAIR, POOR, OFFLINE, or "unknown" before anything was seen of it
    degradation    none, minor, moderate, severe or critical: what still works
    """

    status: Status
    reasons: tuple[str, ...]
    calls: int
    errors: int
    latency_ms: float | None
    open_circuits: tuple[str, ...]
    pending: int | None
    dead: int | None
    oldest_age: float | None
    outbox_error: str
    connection: str
    polling: bool
    quality: str
    degradation: str

    def to_dict(self) -> dict[str, object]:
        """JSON-able."""
        facts: dict[str, object] = {name: getattr(self, name) for name in self.__slots__}
        return {
            **facts,
            "status": self.status.value,
            "reasons": list(self.reasons),
            "open_circuits": list(self.open_circuits),
        }


def judge(
    recent: Recent,
    open_circuits: Collection[str],
    network: NetworkMetrics,
    *,
    outbox: Stats | None,
    outbox_error: str,
    connection: str,
    polling: bool = False,
    degradation: str,
    now: float,
) -> Health:
    """The health that these figures mean. outbox: None if it is not known; now: Unix time."""
    quality = _quality(network)
    latency = recent.latency_ms if recent.calls else None
    stood_in_for = ("websocket",) if polling else ()
    found = [(Status.CRITICAL, f"circuit {name} is open") for name in sorted(open_circuits) if name not in stood_in_for]
    if polling:
        found.append((Status.DEGRADED, "the websocket cannot be had: messages are polled"))
    if outbox_error:
        found.append((Status.UNHEALTHY, f"the outbox can't be read: {outbox_error}"))
    failed = f"{recent.errors} of {recent.calls} calls failed in the last 5 minutes"
    found.append((_by_limits(recent.errors, ERRORS), failed))
    found.append((_by_limits(latency or 0.0, LATENCY_MS), f"calls take {latency or 0.0:.0f} ms on average"))
    if quality == Quality.OFFLINE:
        found.append((Status.DEGRADED, network.reason.text or "the network is offline"))
    found = sorted((each for each in found if each[0] is not Status.HEALTHY), key=lambda each: -each[0].rank)
    return Health(
        status=found[0][0] if found else Status.HEALTHY,
        reasons=tuple(reason for _, reason in found),
        calls=recent.calls,
        errors=recent.errors,
        latency_ms=latency,
        open_circuits=tuple(sorted(open_circuits)),
        pending=None if outbox is None else outbox.pending,
        dead=None if outbox is None else outbox.dead,
        oldest_age=None if outbox is None or outbox.oldest is None else max(0.0, now - outbox.oldest),
        outbox_error=outbox_error,
        connection=connection,
        polling=polling,
        quality=quality,
        degradation=degradation,
    )


def _by_limits(value: float, limits: tuple[float, float]) -> Status:
    if value > limits[1]:
        return Status.UNHEALTHY
    return Status.HEALTHY if value < limits[0] else Status.DEGRADED


def _quality(network: NetworkMetrics) -> str:
    """The level, unless it is the one that a monitor begins with."""
    guessed = network.online and not network.samples and network.contact_age is None
    return UNKNOWN if guessed else network.quality.value
