"""What `chatsdk status` may see: all well, an outage, nothing known, and what somebody hostile made of it."""

from __future__ import annotations

from typing import Any

AT = 1_700_000_000.0

UNKNOWN: dict[str, Any] = {
    "at": AT,
    "server": "http://chat.example",
    "user": "alice",
    "connection": {
        "state": "CONNECTING",
        "connected": False,
        "since": None,
        "reconnects": 0,
        "reconnect_in": None,
        "url": "ws://chat.example/connection/websocket",
        "text": "Connecting...",
        "error": None,
    },
    "network": {
        "quality": "unknown",
        "symbol": "",
        "label": "Unknown",
        "reason": "",
        "reason_text": "",
        "samples": 0,
        "latency_ms": None,
        "latency_p95_ms": None,
        "loss": None,
        "loss_low": None,
        "loss_high": None,
        "quality_age": 1.0,
        "contact_age": None,
    },
    "outbox": {
        "queued": 0,
        "dead": 0,
        "lanes": 0,
        "oldest": None,
        "oldest_age": None,
        "reason": None,
        "why": None,
        "next_attempt_at": None,
        "next_in": None,
        "due_for": None,
        "sending": None,
        "error": None,
    },
    "lanes": [],
    "circuits": {name: {"state": "closed", "retry_in": None, "opened": 0} for name in ("api", "auth", "websocket")},
    "features": {"level": "none", "effect": "", "reasons": [], "off": {}},
    "health": {"status": "healthy", "reasons": [], "calls": 0, "errors": 0, "latency_ms": None},
    "errors": [],
}

WELL: dict[str, Any] = {
    **UNKNOWN,
    "connection": {**UNKNOWN["connection"], "state": "CONNECTED", "connected": True, "text": "Connected (45s)"},
    "network": {
        **UNKNOWN["network"],
        "quality": "EXCELLENT",
        "symbol": "●●●",
        "label": "Excellent",
        "samples": 12,
        "latency_ms": 3.2,
        "latency_p95_ms": 7.0,
        "loss": 0.0,
        "loss_low": 0.0,
        "loss_high": 0.2,
        "quality_age": 130.0,
        "contact_age": 2.0,
    },
}


def lane(number: int, **facts: Any) -> dict[str, Any]:
    return {
        "user": "alice",
        "channel": f"{number:08d}-0000-7000-8000-00000000cafe",
        "alias": None,
        "waiting": 3,
        "more": False,
        "oldest_age": 80.0,
        "failures": 9 - number,
        "tries": 4,
        "reason": "offline",
        "next_in": 4.2,
        "due_for": 0.0,
        "sending": False,
        **facts,
    }


def failure(where: str, **facts: Any) -> dict[str, Any]:
    return {
        "where": where,
        "operation": "messages.send",
        "error": "ServerError",
        "code": "server_error",
        "status": 503,
        "count": 12,
        "first_at": AT - 60,
        "last_at": AT - 3,
        "correlation_id": "c",
        "message": "the database is busy, and has been for as long as anybody can remember",
        **facts,
    }


OUTAGE: dict[str, Any] = {
    **WELL,
    "connection": {
        **UNKNOWN["connection"],
        "state": "DISCONNECTED",
        "since": 21.0,
        "reconnects": 2,
        "reconnect_in": 3.0,
        "text": "Reconnecting in 3s (attempt 16)",
        "error": {"code": "connect", "message": "no connection to chat.example: Connection refused", "hint": "wait"},
    },
    "network": {
        **WELL["network"],
        "quality": "OFFLINE",
        "symbol": "✕",
        "label": "Offline",
        "reason": "captive_portal",
        "reason_text": "the network wants a sign-in: open a web page in a browser",
        "loss": 1 / 3,
    },
    "outbox": {
        **UNKNOWN["outbox"],
        "queued": 22,
        "dead": 1,
        "lanes": 8,
        "oldest": AT - 80,
        "oldest_age": 80.0,
        "reason": "circuit_open",
        "why": "the circuit is open (server failed)",
        "next_attempt_at": AT + 4.2,
        "next_in": 4.2,
        "due_for": 0.0,
        "sending": False,
    },
    "lanes": [lane(number) for number in range(8)],
    "circuits": {
        **UNKNOWN["circuits"],
        "api": {"state": "open", "retry_in": 11.4, "opened": 2},
        "websocket": {"state": "half_open", "retry_in": None, "opened": 1},
    },
    "features": {
        "level": "severe",
        "effect": "error",
        "reasons": ["offline", "circuit api", "circuit websocket"],
        "off": {"search": "offline", "presence": "offline", "realtime": "offline"},
    },
    "health": {
        "status": "critical",
        "reasons": ["circuit api is open", "120 of 130 calls failed in the last 5 minutes", "the network is offline"],
        "calls": 130,
        "errors": 120,
        "latency_ms": 900.0,
    },
    "errors": [
        *(failure("here", operation=f"operation{number}") for number in range(6)),
        failure("waiting", first_at=None, last_at=None),
        failure("dead", error="Forbidden", code="forbidden", status=403, count=1, first_at=None, last_at=None),
    ],
}

NASTY = "\x1b[2J\r\n\u202e漢字漢字漢字漢字漢字 e\u0301\u0301 \U0001f600 " + "x" * 300

HOSTILE: dict[str, Any] = {
    **OUTAGE,
    "server": "http://" + "a" * 200,
    "user": NASTY,
    "connection": {
        **OUTAGE["connection"],
        "state": "FAILED",
        "text": NASTY,
        "error": {"code": NASTY, "message": NASTY[::-1], "hint": NASTY},
    },
    "lanes": [lane(number, user=NASTY, channel=NASTY, reason=NASTY) for number in range(8)],
    "circuits": {NASTY + str(number): OUTAGE["circuits"]["api"] for number in range(20)},
    "features": {**OUTAGE["features"], "off": {f"{NASTY}{number}": NASTY for number in range(10)}},
    "errors": [failure("here", operation=NASTY, error=NASTY, code=NASTY, message=NASTY) for _ in range(10)],
}
