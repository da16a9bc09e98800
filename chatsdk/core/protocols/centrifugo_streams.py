"""The streams of one open Centrifugo connection: who is asked for, heard, left.

    a stream          | happens                             | then
    ------------------+-------------------------------------+--------------------------------------------------------
    -                 | subscribe                           | ASKED
    ASKED             | answered                            | HEARD: `Subscribed`, then what was missed
                      | refused                             | -: `SubscribeFailed` (105 "already subscribed": HEARD)
                      | unsubscribe                         | ASKED still, LEAVING as soon as it is answered
    HEARD             | subscribe                           | `Subscribed` once more, and nothing is sent
                      | unsubscribe                         | LEAVING
                      | push `unsubscribe`                  | -: `Unsubscribed`
    LEAVING           | answered                            | -, or ASKED if it is wished for again

So there is never more than one command for a stream under way, and never a second subscription.

Recovery is asked for twice. `recoverable` goes with every subscribe, or the server gives no position; `recover` with
`offset` and `epoch` goes with those that have a position. The `offset` of a recovered answer is the one that we sent,
so the position is then the last publication's. Where the server permits no recovery it answers neither offset nor
epoch: `Subscribed(recovered=False, position=None)`, and what was missed has to be fetched elsewhere.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, TypeAlias

from ..tokens import Secret
from .centrifugo_codes import ALREADY_SUBSCRIBED, Error, on_unsubscribe
from .centrifugo_commands import Commands
from .centrifugo_read import Object, read_subscription
from .outputs import Output, Position, Send, Subscribed, SubscribeFailed
from .renewals import Renewals


class Step(IntEnum):
    """Where a stream stands."""

    ASKED = 0
    HEARD = 1
    LEAVING = 2


class Wish(NamedTuple):
    """What to subscribe with as soon as that may be sent."""

    token: Secret | None
    position: Position | None


class Stream:
    """One stream. `recovering`: it was asked for with a position; `leave`: as soon as it is answered; `wish`: to be
    asked for again as soon as it is left."""

    __slots__ = ("by_server", "leave", "name", "recovering", "step", "wish")

    def __init__(self, name: str, step: Step, *, recovering: bool = False, by_server: bool = False) -> None:
        self.name = name
        self.step = step
        self.recovering = recovering
        self.by_server = by_server
        self.leave = False
        self.wish: Wish | None = None


About: TypeAlias = Stream | None
"""What a command is about; None: the connection."""


class Streams:
    """All of them. `known`: by name."""

    __slots__ = ("_commands", "_renewals", "known")

    def __init__(self, commands: Commands[About], renewals: Renewals) -> None:
        self._commands = commands
        self._renewals = renewals
        self.known: dict[str, Stream] = {}

    def is_heard(self, stream: Stream) -> bool:
        """Whether it is that very subscription that stands."""
        return self.known.get(stream.name) is stream and stream.step is Step.HEARD

    # ---- wishes

    def subscribe(self, name: str, wish: Wish, now: float) -> list[Output]:
        """Ask for a stream, now or as soon as that is possible."""
        known = self.known.get(name)
        if known is None:
            return self._ask(name, wish, now)
        if known.step is Step.HEARD:
            return [Subscribed(name, asked=wish.position is not None, by_server=known.by_server)]
        if known.step is Step.LEAVING:
            known.wish = wish
        known.leave = False
        return []

    def unsubscribe(self, name: str, now: float) -> list[Output]:
        """Leave a stream, now or as soon as that is possible."""
        known = self.known.get(name)
        if known is None:
            return []
        if known.step is Step.HEARD:
            return self._leave(known, now)
        known.leave, known.wish = known.step is Step.ASKED, None
        return []

    def _ask(self, name: str, wish: Wish, now: float) -> list[Output]:
        params: Object = {"channel": name, "recoverable": True}
        if wish.token:
            params["token"] = wish.token.reveal()
        if wish.position is not None:
            params |= {"recover": True, "offset": wish.position.offset, "epoch": wish.position.epoch}
        stream = Stream(name, Step.ASKED, recovering=wish.position is not None)
        try:
            text = self._commands.make("subscribe", params, stream, now)
        except ValueError as error:
            return [SubscribeFailed(name, 0, str(error))]
        self.known[name] = stream
        return [Send(text)]

    def _leave(self, stream: Stream, now: float) -> list[Output]:
        stream.step, stream.leave = Step.LEAVING, False
        self._renewals.forget(stream.name)
        return [Send(self._commands.make("unsubscribe", {"channel": stream.name}, stream, now))]

    # ---- what the server says; of complaints the text is returned too

    def subscribed(self, stream: Stream, result: Object, now: float) -> tuple[list[Output], str]:
        """The server took us in."""
        if stream.leave:
            return self._leave(stream, now), ""
        stream.step = Step.HEARD
        self._renewals.granted(stream.name, result, now)
        return read_subscription(stream.name, result, asked=stream.recovering)

    def refused(self, stream: Stream, error: Error, now: float) -> list[Output]:
        """It did not."""
        if error.code == ALREADY_SUBSCRIBED:
            return self.subscribed(stream, {}, now)[0]
        del self.known[stream.name]
        return [] if stream.leave else [error.refusal(stream.name)]

    def left(self, stream: Stream, now: float) -> list[Output]:
        """We are out."""
        del self.known[stream.name]
        return [] if stream.wish is None else self._ask(stream.name, stream.wish, now)

    def ended(self, name: str, value: Object) -> list[Output]:
        """The server put us out. While a command of ours is under way, its answer decides instead."""
        stream = self.known.get(name)
        if stream is None or stream.step is not Step.HEARD:
            return []
        del self.known[name]
        self._renewals.forget(name)
        return [on_unsubscribe(name, value)]

    def begun(self, name: str, value: Object) -> tuple[list[Output], str]:
        """The server subscribed us by itself."""
        if name in self.known:
            return [], ""
        self.known[name] = Stream(name, Step.HEARD, by_server=True)
        return read_subscription(name, value, by_server=True)
