"""Somebody is on the way: in a tunnel, and from one network to another while something is being sent."""

from __future__ import annotations

from tests.faults.link import BLACK_HOLE, NO_SIGNAL, REFUSED, WELL, slow
from tests.scenarios.crowd import Traffic
from tests.scenarios.scenario import Found, Scenario, arrived, seconds
from tests.scenarios.stage import Stage


def _subway(stage: Stage) -> Found:
    """A second without and a second with network: bytes wait, vanish, or connections end, in turn."""
    ride = 5.0 if stage.short else 24.0
    settings = {"timeout": 1.0} if stage.short else {}
    with stage.play(Traffic(int(ride / 0.1), 0.1, wait=0), listening=True, **settings) as play:
        play.begin(slow(0.04, 0.02))
        play.proxy.flap([NO_SIGNAL, BLACK_HOLE, REFUSED], 1.0)
        play.wait(ride)
        played = play.end(WELL)
        away = play.bot.lost if play.bot else 0
    return Found(
        played,
        f"{arrived(played.ours)}, {seconds(played.back_s)} after the ride",
        f"{arrived(played.control)}, {played.control.errors / played.control.wanted:.0%} errors",
        met=played.ours.share >= 0.999,
        differs=played.control.delivered < played.control.wanted or played.control.errors > 0,
        figures={"back_s": played.back_s, "connection_lost": away, "seconds": ride},
    )


def _hand_off(stage: Stage) -> Found:
    """The client gets another address while sends are under way, twice: first its old connections are reset, as a
    system does that takes the old network down; then they die in silence."""
    leg = 0.8 if stage.short else 5.0
    settings = {"timeout": 2.0} if stage.short else {}
    with stage.play(Traffic(int(leg * 3 / 0.1), 0.1, wait=0), listening=True, **settings) as play:
        play.begin(slow(0.06, 0.02))
        for address, silent in (("127.0.0.2", False), ("127.0.0.3", True)):
            play.wait(leg)
            died = play.proxy.new_address(address, silent=silent)
            assert died, "nothing was under way"
        play.wait(leg)
        played = play.end()
        sources = set(play.proxy.sources)
    return Found(
        played,
        f"{arrived(played.ours)}, {seconds(played.back_s)} after",
        f"{arrived(played.control)}, {played.control.errors / played.control.wanted:.0%} errors",
        met=played.ours.share >= 0.999 and len(sources) == 3,
        differs=played.control.delivered < played.control.wanted or played.control.errors > 0,
        figures={"back_s": played.back_s, "addresses": sorted(sources)},
    )


SCENARIOS = (
    Scenario("subway, 1 s on, 1 s off", ">= 99.9 % arrive", _subway),
    Scenario("Wi-Fi to mobile in mid-send", ">= 99.9 % arrive", _hand_off),
)
