"""The judge of health: figures in, a verdict out. And the gauge of what waits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core.store import Stats
from chatsdk.network.estimate import Estimate
from chatsdk.network.health import Health, Status, judge
from chatsdk.network.quality import NetworkMetrics, Quality
from chatsdk.resilience.metrics import Metrics, Recent


def _network(*, answers: int = 0, network: bool = True) -> NetworkMetrics:
    estimate = Estimate(0.0)
    for number in range(answers):
        estimate.answered(float(number), 0.01, 0)
    if not network:
        estimate.network_lost(100.0)
    return estimate.metrics(100.0)


def _judge(calls: int = 100, errors: int = 0, ms: float = 20.0, circuits: tuple[str, ...] = (), **more: Any) -> Health:
    given: dict[str, Any] = {
        "outbox": None,
        "outbox_error": "",
        "connection": "CLOSED",
        "degradation": "none",
        "now": 1000.0,
        **more,
    }
    network = given.pop("network", None) or _network(answers=5)
    return judge(Recent(calls, errors, ms), circuits, network, **given)


@pytest.mark.parametrize(
    ("errors", "status"),
    [(0, "healthy"), (9, "healthy"), (10, "degraded"), (50, "degraded"), (51, "unhealthy"), (100, "unhealthy")],
)
def test_by_failed_calls(errors: int, status: str) -> None:
    """Fewer than 10 are healthy, 10 to 50 degraded, more unhealthy; a status that is not healthy has its reason."""
    health = _judge(errors=errors)
    assert health.status == status
    said = f"{errors} of 100 calls failed in the last 5 minutes"
    assert health.reasons == (() if status == "healthy" else (said,))


@pytest.mark.parametrize(
    ("ms", "status"),
    [(999.9, "healthy"), (1000.0, "degraded"), (2000.0, "degraded"), (2000.1, "unhealthy")],
)
def test_by_latency(ms: float, status: str) -> None:
    """Below a second is healthy, one to two degraded, more unhealthy."""
    assert _judge(ms=ms).status == status


def test_no_calls_have_no_latency() -> None:
    """Nothing happened lately: that is healthy, and there is no latency to show."""
    health = _judge(calls=0, ms=0.0)
    assert (health.status, health.reasons, health.latency_ms) == ("healthy", (), None)


def test_polling_stands_in_for_the_websocket() -> None:
    """Messages come: degraded, and said; without it the websocket's circuit is critical like any other."""
    health = _judge(circuits=("websocket",), polling=True)
    assert (health.status, health.polling) == (Status.DEGRADED, True)
    assert health.reasons == ("the websocket cannot be had: messages are polled",)
    assert health.open_circuits == ("websocket",)
    assert _judge(circuits=("api", "websocket"), polling=True).status is Status.CRITICAL
    assert _judge(circuits=("websocket",)).status is Status.CRITICAL


def test_an_open_circuit_is_critical() -> None:
    """Whatever else holds; all that is wrong is named, the worst first."""
    health = _judge(errors=12, circuits=("search", "api"))
    assert health.status is Status.CRITICAL
    assert health.open_circuits == ("api", "search")
    assert health.reasons == (
        "circuit api is open",
        "circuit search is open",
        "12 of 100 calls failed in the last 5 minutes",
    )


def test_no_network_is_degraded_and_no_disk_unhealthy() -> None:
    """What the seeds have no word for is not healthy either."""
    offline = _judge(network=_network(answers=5, network=False))
    assert (offline.status, offline.quality) == ("degraded", Quality.OFFLINE)
    assert "no network" in offline.reasons[0]
    broken = _judge(outbox_error="disk I/O error")
    assert (broken.status, broken.reasons) == ("unhealthy", ("the outbox can't be read: disk I/O error",))


def test_quality_is_unknown_before_anything_was_seen() -> None:
    """The level that a monitor begins with is a guess; what was seen is not, also after it was forgotten."""
    assert _judge(network=_network()).quality == "unknown"
    assert _judge(network=_network(answers=30)).quality == "EXCELLENT"
    assert _judge(network=_network(network=False)).quality == "OFFLINE"


def test_the_outbox_is_shown() -> None:
    """What waits, what died and since when; a clock that was set back makes no negative age."""
    health = _judge(outbox=Stats(pending=3, dead=2, oldest=940.0))
    assert (health.pending, health.dead, health.oldest_age, health.status) == (3, 2, 60.0, "healthy")
    assert _judge(outbox=Stats(pending=1, oldest=2000.0)).oldest_age == 0.0
    unknown = _judge(outbox=None)
    assert (unknown.pending, unknown.dead, unknown.oldest_age) == (None, None, None)


@given(
    errors=st.integers(0, 200),
    ms=st.floats(0, 10_000),
    circuits=st.lists(st.sampled_from(["api", "auth", "websocket"]), unique=True),
    disk=st.sampled_from(["", "broken"]),
)
def test_worse_figures_never_make_it_better(errors: int, ms: float, circuits: list[str], disk: str) -> None:
    """Each figure by itself can only make the status worse; it is JSON-able whatever holds."""
    here = _judge(200, errors, ms, tuple(circuits), outbox_error=disk)
    alone = (_judge(200, errors), _judge(ms=ms), _judge(circuits=tuple(circuits)), _judge(outbox_error=disk))
    assert here.status.rank == max(each.status.rank for each in alone)
    assert bool(here.reasons) == (here.status is not Status.HEALTHY)
    assert json.loads(json.dumps(here.to_dict()))["status"] == here.status


def test_a_gauge_that_is_read_when_it_is_asked_for() -> None:
    """Value and snapshot ask its source each time; where that cannot say, the last value stands."""
    metrics = Metrics()
    answers: list[float | None] = [4, None, 7]
    metrics.gauge_from("pending_sync_items", lambda: answers.pop(0))
    assert metrics.value("pending_sync_items") == 4
    assert metrics.value("pending_sync_items") == 4
    assert metrics.snapshot()["pending_sync_items"] == 7


def test_the_store_says_at_once_what_waits_or_nothing(tmp_path: Path) -> None:
    """It counts; while another reader holds the file, and when it is closed, it says nothing rather than wait."""
    from chatsdk.core.exchange import Request
    from chatsdk.core.store import Entry
    from chatsdk.outbox.store import SQLiteStore
    from chatsdk.resilience.system_clock import SystemClock

    store = SQLiteStore(tmp_path / "outbox", clock=SystemClock())
    assert store.pending() == 0
    request = Request(operation="messages.send", method="POST", path="/x", user="alice", channel="c", key="k" * 8)
    store.put(Entry(request=request, created_at=1.0, ttl=60.0))
    assert store.pending() == store.stats().pending == 1
    with store._database.mutex:
        assert store.pending() is None
    assert store.pending() == 1
    store.close()
    assert store.pending() is None
