"""How a bad network is, as values; `proxy` carries them out."""

from __future__ import annotations

from dataclasses import dataclass

SLICE_S = 0.05
"""A narrow way passes on what it may in so many seconds at a time."""


@dataclass(frozen=True, slots=True)
class Way:
    """One direction.

    latency    seconds that every byte takes
    jitter     seconds that it may take more or less
    bandwidth  bytes a second, of each connection; None: any
    drip       seconds before each single byte; 0: no dripping
    cut_after  bytes of a connection after which it is reset; None: never
    swallow    bytes are taken and come nowhere, and nothing that follows them in this connection: TCP skips no bytes
    hold       bytes wait until this is over: no signal for a moment, and TCP sends again what was not acknowledged
    """

    latency: float = 0.0
    jitter: float = 0.0
    bandwidth: float | None = None
    drip: float = 0.0
    cut_after: int | None = None
    swallow: bool = False
    hold: bool = False

    @property
    def piece(self) -> int | None:
        """Bytes that go at a time; None: as they come."""
        if self.drip:
            return 1
        return None if self.bandwidth is None else max(1, int(self.bandwidth * SLICE_S))


@dataclass(frozen=True, slots=True)
class Link:
    """Both directions, seen from the client, and the door.

    door    open; refuse: nobody listens; portal: every request is answered by a sign-in page, by 200 and by a redirect
            in turn
    loss    share of the exchanges that are lost: half of them on the way up, half on the way back
    silent  share of the lost ones that end in silence; the others are reset
    """

    up: Way = Way()
    down: Way = Way()
    door: str = "open"
    loss: float = 0.0
    silent: float = 0.0


WELL = Link()
BLACK_HOLE = Link(up=Way(swallow=True), down=Way(swallow=True))
NO_ANSWERS = Link(down=Way(swallow=True))
"""One-way loss: requests arrive, answers do not."""
NO_SIGNAL = Link(up=Way(hold=True), down=Way(hold=True))
REFUSED = Link(door="refuse")
PORTAL = Link(door="portal")


def slow(round_trip: float, jitter: float = 0.0, bandwidth: float | None = None) -> Link:
    """A round trip of so many seconds, give or take `jitter`."""
    way = Way(latency=round_trip / 2, jitter=jitter / 2, bandwidth=bandwidth)
    return Link(up=way, down=way)
