"""The websocket is cut while messages come in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

from tests.scenarios.crowd import Traffic
from tests.scenarios.scenario import Found, Scenario, seconds
from tests.scenarios.stage import NEVER, Play, Stage

LIMIT_S = 2.0
CUTS: tuple[Callable[[Play], object], ...] = (
    lambda play: play.proxy.reset(),
    lambda play: play.proxy.hang_up(),
    lambda play: play.server.realtime.cut(code=1012, reason="restart"),
)
"""By the network, rudely and politely, and by the server."""


def _cut(stage: Stage) -> Found:
    """Every connection is cut, again and again, while both crowds send; the listeners are to hear everything."""
    cuts, pause = (3, 1.0) if stage.short else (12, 1.5)
    with stage.play(Traffic(int(cuts * pause / 0.05), 0.05, wait=0), listening=True) as play:
        assert play.bot is not None
        bot = play.bot
        play.begin()
        for number in range(cuts):
            play.wait(pause)
            lost = bot.lost
            CUTS[number % len(CUTS)](play)
            play.until(partial(lambda before: bot.lost > before, lost), 5.0)
        played = play.end()
        play.until(lambda: len(bot.away()) >= cuts, 5.0)
        away = bot.away()
    typical, worst = (median(away), max(away)) if away else (NEVER, NEVER)
    ours, control = played.ours, played.control
    return Found(
        played,
        f"back in {seconds(typical)}, worst {seconds(worst)}; {_heard(ours.missed, ours.hearable)}",
        f"never back; {_heard(control.missed, control.hearable)}",
        met=len(away) >= cuts and typical < LIMIT_S,
        differs=control.missed > 0,
        figures={"cuts": cuts, "away_s": away},
    )


def _heard(missed: int, hearable: int) -> str:
    return "all heard" if not missed else f"{missed / max(1, hearable):.0%} not heard"


SCENARIOS = (Scenario("websocket is cut", "back in < 2 s, nothing missed", _cut),)
