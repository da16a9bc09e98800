"""The server, the network, or the way to it, is away for a while."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from chatsdk import ChatError, CircuitOpenError, events
from tests.faults.link import PORTAL, REFUSED, WELL
from tests.scenarios.crowd import Traffic
from tests.scenarios.scenario import Found, Scenario, arrived, seconds
from tests.scenarios.stage import Play, Stage

PROBES = 50
"""How often an open circuit is asked."""


def _outage(stage: Stage) -> Found:
    """The server is killed in the middle of the traffic, and comes back. While it is down, calls are made beside the
    sends: how soon do they know?"""
    down, settings = (3.0, {"circuit_open_first": 0.3}) if stage.short else (30.0, {})
    states: list[str] = []
    refused: list[float] = []
    with stage.play(Traffic(int((down + 2) / 0.2), 0.2, wait=0), listening=True, **settings) as play:
        play.chat.on(events.CircuitStateChanged, lambda event: states.append(event.new) if _is_api(event) else None)
        play.begin()
        play.wait(1.0)
        play.server.kill()
        began = time.monotonic()
        while time.monotonic() < began + down:
            took, error = _ask(play)
            if isinstance(error, CircuitOpenError) and len(refused) < PROBES:
                refused.append(took)
            play.wait(down / 2 / PROBES)
        play.server.start()
        played = play.end()
        state = play.chat.circuits["api"].state
        closed = play.until(lambda: _ask(play)[1] is None) < 60 and play.chat.circuits["api"].state == "closed"
    quick = median(refused) if refused else float("inf")
    return Found(
        played,
        f"opened, {'closed' if closed else state}, open: {seconds(quick)}; {arrived(played.ours)}",
        arrived(played.control),
        met="open" in states and closed and quick < 0.010,
        differs=played.control.delivered < played.control.wanted,
        figures={"open_answer_s": quick, "asked_open": len(refused), "states": states, "back_s": played.back_s},
    )


def _is_api(event: events.CircuitStateChanged) -> bool:
    return event.circuit == "api"


def _ask(play: Play) -> tuple[float, Exception | None]:
    """A call that is no message: seconds, and its error."""
    began = time.monotonic()
    try:
        play.chat.users.me(fresh=True)
    except ChatError as error:
        return time.monotonic() - began, error
    return time.monotonic() - began, None


def _airplane(stage: Stage) -> Found:
    """All connections end and no new one can be made; whoever sends goes on; then the network is back."""
    away = 2.0 if stage.short else 10.0
    with stage.play(Traffic(int((away + 1) / 0.1), 0.1, wait=0), listening=True) as play:
        play.begin()
        play.wait(0.5)
        play.proxy.set(REFUSED)
        play.proxy.reset()
        play.wait(away)
        waiting = play.chat.outbox.stats().pending
        played = play.end(WELL)
    return Found(
        played,
        f"{waiting} queued, sent {seconds(played.back_s)} after, in order",
        arrived(played.control),
        met=waiting > 0,
        differs=played.control.delivered < played.control.wanted,
        figures={"queued": waiting, "back_s": played.back_s},
    )


def _portal(stage: Stage) -> Found:
    """A sign-in page answers everything. A script takes it for success; and nobody's token may go to its host."""
    away = 2.0 if stage.short else 8.0
    reasons: set[str] = set()
    told: list[Any] = []
    with stage.play(Traffic(int((away + 1) / 0.1), 0.1, wait=0)) as play:
        play.chat.on(events.NetworkQualityChanged, told.append)
        play.begin()
        play.wait(0.3)
        play.proxy.set(PORTAL)
        play.proxy.reset()
        play.wait(away)
        metrics = play.chat.network.metrics()
        reasons |= {str(row.error.code) for row in play.chat.outbox.list() if row.error}
        waiting = play.chat.outbox.stats().pending
        visits = list(play.proxy.visits)
        played = play.end(WELL)
    named = metrics.reason == "captive_portal" and "captive_portal" in reasons
    leaked = sum(b"authorization" in visit.lower() for visit in visits)
    silent = played.control.lost
    return Found(
        played,
        f"{'named' if named else f'called {metrics.reason}'}, {waiting} queued; {arrived(played.ours)}",
        f"{arrived(played.control)}; {silent} taken for sent",
        met=named and waiting > 0 and not leaked,
        differs=silent > 0,
        figures={
            "queued": waiting,
            "reason": metrics.reason,
            "errors": sorted(reasons),
            "back_s": played.back_s,
            "visits": len(visits),
            "tokens_at_the_portal": leaked,
        },
    )


SCENARIOS = (
    Scenario("server down for 30 s", "circuit opens, closes; open < 10 ms", _outage),
    Scenario("airplane mode", "queued, sent when back, in order", _airplane),
    Scenario("captive portal", "named; nothing lost", _portal),
)
