"""What `chatsdk status` looks at, as one JSON-able value. What is not known is None or "unknown", never 0.

Two clients look, so that nothing is delivered by looking: one that has threads (websocket, probes) and never opens the
outbox, and one that reads the outbox and has no threads.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...config import state_directory
from ...core.errors import ChatError, SettingsError
from ...core.plain_text import excerpt
from ...core.protocols.states import ConnectionState
from ...core.store import Lane, LaneStatus, Row, Selection, State, Stats
from ...outbox.schema import FILE
from ...resilience.failures import LONGEST_MESSAGE, LONGEST_WORD
from .words import why

if TYPE_CHECKING:
    from ...client import ChatClient

ROWS = 100
"""Messages that are looked at, the oldest of those that wait; they show the lanes that are stuck."""

DEAD = 20
LANES = 8
ERRORS = 10
ASKED_LANES = 32
"""Lanes whose status is asked for, of those that the messages belong to."""

Facts = dict[str, Any]


class Since:
    """Since when the connection is as it is; monotonic times. A try to connect again is no change for the better."""

    def __init__(self) -> None:
        self._up: bool | None = None
        self._at: float | None = None

    def note(self, connected: bool, now: float) -> float | None:
        """Seconds for which it has been (not) connected, as far as that was seen; None: it never changed."""
        if self._up is None:
            self._up = connected
        elif self._up != connected:
            self._up, self._at = connected, now
        return None if self._at is None else now - self._at


def look(watcher: ChatClient, keeper: ChatClient, now: float, since: Since | None = None) -> Facts:
    """Everything, as it is now. watcher: has the connection and the network; keeper: has the outbox; now: Unix time."""
    outbox, lanes, noted = _outbox(keeper, now)
    aliases = {channel: alias for alias, channel in keeper.settings.channels.items()}
    health = watcher.health()
    return {
        "at": now,
        "server": watcher.settings.url,
        "user": watcher.user,
        "connection": _connection(watcher, since),
        "network": _network(watcher),
        "outbox": outbox,
        "lanes": [{**lane, "alias": aliases.get(lane["channel"])} for lane in lanes],
        "circuits": _circuits(watcher),
        "features": _features(watcher),
        "health": {
            "status": health.status.value,
            "reasons": list(health.reasons),
            "calls": health.calls,
            "errors": health.errors,
            "latency_ms": health.latency_ms,
        },
        "errors": [
            *({"where": "here", **failure.to_dict()} for failure in watcher.errors()[:ERRORS]),
            *noted,
        ],
    }


def error_facts(error: ChatError | None) -> Facts | None:
    """An error as JSON has it."""
    return None if error is None else {"code": error.code, "message": error.message, "hint": error.hint}


def stats_of(chat: ChatClient) -> Stats:
    """What is in the outbox. One that is not there yet is empty, and not made: it would be the onlooker's. Raises
    SettingsError, StorageError."""
    return chat.outbox.stats() if _is_there(chat) else Stats()


def _is_there(chat: ChatClient) -> bool:
    try:
        os.lstat(state_directory(chat.settings) / FILE)
    except FileNotFoundError:
        return False
    except (OSError, SettingsError):
        pass  # whoever opens it says that better
    return True


def _connection(chat: ChatClient, since: Since | None) -> Facts:
    connection = chat.connection
    metrics = connection.metrics()
    up_for = metrics.connection_duration_ms / 1000 if metrics.connected else None
    seen = None if since is None else since.note(metrics.connected, time.monotonic())
    return {
        "state": str(metrics.state),
        "connected": metrics.connected,
        "since": seen if up_for is None else up_for,
        "reconnects": metrics.reconnects,
        "reconnect_in": connection.reconnect_in,
        "url": metrics.url,
        "text": connection.status_text,
        "error": error_facts(connection.error),
    }


def _network(chat: ChatClient) -> Facts:
    metrics = chat.network.metrics()
    facts = metrics.to_dict()
    if metrics.online and metrics.contact_age is None:  # no answer yet, and too few failures to say that none will come
        facts |= {"quality": "unknown", "symbol": "", "label": "Unknown"}
    if not metrics.samples:
        facts |= {"loss": None, "loss_low": None, "loss_high": None}
    return {**facts, "reason_text": metrics.reason.text}


def _circuits(chat: ChatClient) -> Facts:
    circuits = chat.circuits
    return {
        name: {
            "state": circuits.state(name),
            "retry_in": circuits[name].retry_after if circuits.state(name) == "open" else None,
            "opened": circuits.counts(name).opened,
        }
        for name in circuits
    }


def _features(chat: ChatClient) -> Facts:
    verdict = chat.features.verdict()
    return {
        "level": verdict.level.value,
        "effect": verdict.level.effect,
        "reasons": list(verdict.reasons),
        "off": dict(verdict.off),
    }


# ---- the outbox


def _outbox(chat: ChatClient, now: float) -> tuple[Facts, list[Facts], list[Facts]]:
    """The figures, the lanes that are worst, and the errors that messages keep."""
    nothing: Facts = dict.fromkeys(
        ("queued", "dead", "oldest", "oldest_age", "reason", "why", "next_attempt_at", "next_in", "due_for", "sending")
    )
    try:
        if not _is_there(chat):
            return {**nothing, "queued": 0, "dead": 0, "lanes": 0, "error": None}, [], []
        outbox = chat._parts.outbox()
        stats = outbox.stats()
        waiting = outbox.list(Selection(states=(State.QUEUED,), limit=ROWS)) if stats.pending else ()
        dead = outbox.list(Selection(states=(State.DEAD,), limit=DEAD)) if stats.dead else ()
        lanes = _lanes(waiting, outbox.store.lane_status, now, complete=len(waiting) < ROWS)
        reason = outbox.reason(waiting[0]) if waiting else None
        status = outbox.store.lane_status(waiting[0].lane) if waiting else LaneStatus()
    except ChatError as error:
        return {**nothing, "lanes": None, "error": error.message}, [], []
    due = stats.next_attempt_at
    facts = {
        "queued": stats.pending,
        "dead": stats.dead,
        "lanes": stats.lanes,
        "oldest": stats.oldest,
        "oldest_age": None if stats.oldest is None else max(0.0, now - stats.oldest),
        "reason": None if reason is None else str(reason),
        "why": why(str(reason or ""), status.owned) if waiting else None,
        "next_attempt_at": due,
        "next_in": None if due is None else max(0.0, due - now),
        "due_for": max((lane["due_for"] for lane in lanes if lane["due_for"]), default=None),
        "sending": any(lane["sending"] for lane in lanes) if waiting else None,
        "error": None,
    }
    return facts, lanes[:LANES], [*_noted("waiting", waiting), *_noted("dead", dead)][:ERRORS]


def _lanes(rows: Sequence[Row], status_of: Callable[[Lane], LaneStatus], now: float, *, complete: bool) -> list[Facts]:
    """The lanes of these messages, worst first: most failures in a row, then longest waiting."""
    counted: Counter[Lane] = Counter(row.lane for row in rows)
    first: dict[Lane, Row] = {}
    for row in rows:
        first.setdefault(row.lane, row)
    known = [(lane, status_of(lane)) for lane in list(first)[:ASKED_LANES]]
    known.sort(key=lambda each: (-each[1].failures, first[each[0]].id))
    return [
        {
            "user": lane.user,
            "channel": lane.channel,
            "waiting": counted[lane],
            "more": not complete,
            "oldest_age": max(0.0, now - first[lane].created_at),
            "failures": status.failures,
            "tries": first[lane].attempts,
            "reason": status.reason or first[lane].reason or None,
            "next_in": max(0.0, status.not_before - now),
            "due_for": None if status.owned else max(0.0, now - max(status.not_before, first[lane].created_at)),
            "sending": status.owned,
        }
        for lane, status in known
    ]


def _noted(where: str, rows: Sequence[Row]) -> list[Facts]:
    """The errors that these messages keep, by kind: what another process met is seen there. When, they do not say."""
    found: dict[tuple[Any, ...], Facts] = {}
    for row in rows:
        if row.error is None:
            continue
        facts = _short(row.error)
        kind = row.request.operation, facts["error"], facts["code"], facts["status"]
        known = found.setdefault(
            kind,
            {
                "where": where,
                "operation": row.request.operation,
                **facts,
                "count": 0,
                "first_at": None,
                "last_at": None,
                "correlation_id": excerpt(row.request.correlation_id, LONGEST_WORD),
            },
        )
        known["count"] += 1
    # a circuit that is open says less than what opened it
    return sorted(found.values(), key=lambda each: (each["error"] == "CircuitOpenError", -each["count"]))


def _short(error: Mapping[str, Any]) -> Facts:
    status = error.get("status")
    return {
        "error": excerpt(str(error.get("type", "")), LONGEST_WORD),
        "code": excerpt(str(error.get("code", "")), LONGEST_WORD),
        "status": status if isinstance(status, int) else None,
        "message": excerpt(str(error.get("message", "")), LONGEST_MESSAGE),
    }


# ---- what is a change


def signature(facts: Facts) -> Any:
    """What makes two looks different: everything but what time alone changes, and numbers that go up while nothing
    else happens."""
    connection, outbox = facts["connection"], facts["outbox"]
    trying = (str(ConnectionState.DISCONNECTED), str(ConnectionState.RECONNECTING))
    return (
        ("LOST" if connection["state"] in trying else connection["state"], connection["reconnects"]),
        connection["error"],
        [facts["network"][name] for name in ("quality", "reason")],
        [outbox[name] for name in ("queued", "dead", "oldest", "reason", "error")],
        sorted((lane["user"], lane["channel"], lane["reason"] or "") for lane in facts["lanes"]),
        {name: each["state"] for name, each in facts["circuits"].items()},
        facts["features"],
        facts["health"]["status"],
        sorted(
            (each["where"], each["operation"], each["error"], each["code"], each["status"] or 0)
            for each in facts["errors"]
        ),
    )
