"""Evidence of a run of the demo in which all was well, to be spoilt by tests."""

from __future__ import annotations

from typing import Any

from chatsdk.cli.demo.checker import Evidence, Kill
from chatsdk.cli.demo.notes import Name, Notes
from chatsdk.cli.demo.plan import EXPECTED_FAULTS

NAMES = [Name(run, channel, n) for run in (1, 2) for channel in (0, 1) for n in (0, 1, 2)]


def evidence(arrivals: list[Name] | None = None, **changes: Any) -> Evidence:
    """A run in which everything went well, but for `changes`; `arrivals` are the stored messages."""
    stored = NAMES if arrivals is None else arrivals
    facts: dict[str, Any] = {
        "notes": Notes(begun=set(NAMES), accepted=dict.fromkeys(NAMES, "key")),
        "messages": [{"text": name.text(), "key": str(number)} for number, name in enumerate(stored)],
        "attempts": [
            {"outcome": "stored", "result": "stored", "status": 201},
            {"outcome": "fault:reply_lost", "result": "stored", "status": None},
        ],
        "faults": dict.fromkeys(EXPECTED_FAULTS, 2),
        "kills": [Kill("server", 3), Kill("sender", 3)],
        "outbox": {
            "accepted": len(NAMES),
            "delivered": len(NAMES),
            "dead": 0,
            "pending": 0,
            "discarded": 0,
        },
    }
    return Evidence(**{**facts, **changes})
