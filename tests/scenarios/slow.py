"""Slow networks, and one that loses half of what is said.

A latency is that of a round trip. A script pays it twice for each message, because it connects anew each time; ours
keeps its connections.
"""

from __future__ import annotations

from typing import Any

from tests.faults.link import Link, slow
from tests.scenarios.crowd import Traffic
from tests.scenarios.scenario import Found, Scenario, arrived, seconds
from tests.scenarios.stage import Stage

BETTER = 0.9
"""Ours must take at most so much of the script's time for all messages, for a difference to be one."""

ROAMING = slow(0.55, 0.25, bandwidth=16_000)
"""300 to 800 ms, and 128 kbit/s."""


def _slow(stage: Stage, link: Link, messages: int, limit: float) -> Found:
    """Senders that wait for each message. The figure is the median: one number of the machine's own must not decide."""
    with stage.play(Traffic(messages)) as play:
        play.begin(link)
        play.until(lambda: not play.busy)
        played = play.end()
    ours, control = played.ours, played.control
    return Found(
        played,
        f"{seconds(ours.typical)}, worst {seconds(ours.worst)}",
        f"{seconds(control.typical)}, worst {seconds(control.worst)}",
        met=ours.typical < limit,
        differs=sum(ours.took) < BETTER * sum(control.took),
        figures={"median_s": ours.typical, "worst_s": ours.worst, "without_median_s": control.typical},
    )


def _lossy(stage: Stage) -> Found:
    """Half of all exchanges fail, half of these after the server has done what it was asked; one in ten in silence."""
    settings: dict[str, Any] = {"circuit_open_first": 0.2, "circuit_open_max": 2.0} if stage.short else {}
    with stage.play(Traffic(15 if stage.short else 60), timeout=1.0, **settings) as play:
        play.begin(Link(loss=0.5, silent=0.1))
        play.until(lambda: not play.busy)
        played = play.end()
        lost, tries = play.proxy.lost, len(played.attempts)
    ours, control = played.ours, played.control
    return Found(
        played,
        f"{arrived(ours)}, {ours.errors} errors",
        f"{arrived(control)}, {control.errors / control.wanted:.0%} errors",
        met=ours.share >= 0.99,
        differs=control.delivered < control.wanted and control.errors > 0,
        figures={"tries_arrived": tries, "lost_up": lost[0], "lost_back": lost[1]},
    )


SCENARIOS = (
    Scenario(
        "slow network, 500 ms", "send < 2 s", lambda stage: _slow(stage, slow(0.5), 4 if stage.short else 12, 2.0)
    ),
    Scenario(
        "slow network, 2000 +- 500 ms",
        "send < 5 s",
        lambda stage: _slow(stage, slow(2.0, 0.5), 2 if stage.short else 4, 5.0),
    ),
    Scenario(
        "roaming, 300..800 ms, 128 kbit/s",
        "send < 5 s",
        lambda stage: _slow(stage, ROAMING, 4 if stage.short else 15, 5.0),
    ),
    Scenario("50 % of exchanges lost", ">= 99 % arrive", _lossy),
)
