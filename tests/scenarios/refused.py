"""The server is there, and says no for a while: the token has expired, or there was too much."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tests.faults.link import slow
from tests.scenarios.crowd import Traffic
from tests.scenarios.scenario import Found, Scenario, arrived, seconds
from tests.scenarios.stage import Stage

RETRY_AFTER_S = 1
ROUNDED_S = 0.002
"""The server writes down when a request came, to the millisecond."""


def _expiry(stage: Stage) -> Found:
    """Tokens expire while requests are under way. The server counts how many refreshes are asked of it. They expire
    some seconds apart: a new token that is refused within one is taken for a server in trouble, and not replaced at
    once."""
    times, apart = (1, 1.0) if stage.short else (4, 3.0)
    with stage.play(Traffic(int((times * apart + 1.0) / 0.1), 0.1), refresh_token="") as play:
        counter = play.server.faults("latency", operation="refresh", user=play.alice, ms=0)
        hit = []
        play.begin(slow(0.05))
        for _ in range(times):
            play.wait(apart)
            hit.append(play.server.faults("expire_tokens", operation="send"))
        played = play.end()
        fired = {rule["id"]: rule["fired"] for rule in play.server.fault_rules()}
    refreshes = fired[counter]
    return Found(
        played,
        f"{times} expired, {refreshes} refreshed; {arrived(played.ours)}",
        arrived(played.control),
        met=refreshes == times and sum(fired[rule] for rule in hit) > 0,
        differs=played.control.delivered < played.control.wanted,
        figures={"expired": times, "refreshes": refreshes, "refused": sum(fired[rule] for rule in hit)},
    )


def _limits(stage: Stage) -> Found:
    """One channel of each crowd is refused with a Retry-After, another one without."""
    told, untold = (2, 4) if stage.short else (8, 6)
    with stage.play(Traffic(30 if stage.short else 120, 0.05)) as play:
        for channels in (play.ours, play.theirs):
            limited = {"operation": "send", "status": 429}
            play.server.faults("status", **limited, channel=channels[0], times=told, retry_after=RETRY_AFTER_S)
            play.server.faults("status", **limited, channel=channels[1], times=untold)
        play.begin()
        played = play.end()
        early = _early(played.attempts, play.ours[0])
        early_without = _early(played.attempts, play.theirs[0])
        waits = _waits(played.attempts, play.ours[1], untold)
    grows = len(waits) == untold and waits[-1] > 2 * waits[0]
    return Found(
        played,
        f"{told + untold} x 429, {early} asked too early, waits {' '.join(map(seconds, waits))}",
        f"{arrived(played.control)}, {early_without} asked too early",
        met=early == 0 and grows,
        differs=played.control.delivered < played.control.wanted and early_without > 0,
        figures={"early": early, "early_without": early_without, "waits_s": waits, "back_s": played.back_s},
    )


def _early(attempts: Sequence[dict[str, Any]], channel: str) -> int:
    """Tries in a channel that came before the time that the server had named."""
    free, early = 0.0, 0
    for each in attempts:
        if each["channel"] == channel:
            early += each["at"] < free
            if each["outcome"] == "fault:status":
                free = each["at"] + (RETRY_AFTER_S - ROUNDED_S) * 1000
    return early


def _waits(attempts: Sequence[dict[str, Any]], channel: str, times: int) -> list[float]:
    """Seconds between the first tries in a channel, of which so many were refused."""
    ats = [each["at"] / 1000 for each in attempts if each["channel"] == channel]
    return [later - earlier for earlier, later in pairwise(ats[: times + 1])]


SCENARIOS = (
    Scenario("token expires in a request", "one refresh, nothing lost", _expiry),
    Scenario("429, too many requests", "waits as told, backs off", _limits),
)
