"""What the scenarios are played on: a development server in a process of its own, the fault proxy before it, and two
crowds that do the same work through it at the same time: one sends with chatsdk, the other one without.

Both have the same number of threads, messages, channels and time-outs, and suffer the same network; each has users and
channels of its own, so that the server's record tells them apart.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatsdk import ChatClient
from chatsdk.devserver.process import DevServer
from tests.chaos.monkey import whole_log
from tests.faults.link import WELL, Link
from tests.faults.proxy import FaultProxy
from tests.scenarios.bot import Bot
from tests.scenarios.control import Ear, Script
from tests.scenarios.crowd import Crowd, Traffic
from tests.scenarios.outcome import Outcome

CHANNELS = 4
"""Channels of each crowd; all its senders send to all of them."""

SETTLE_S = 100.0
"""Seconds after a scenario in which all of ours must be delivered. A lane, and an open circuit, wait a minute at most.
"""

LATE_S = 20.0
"""Seconds that a script may take which hung in its calls, after ours is done."""

HEAR_S = 20.0
"""Seconds until what was delivered must be heard."""

QUIET_S = 0.3
"""Seconds after the last message was heard in which nothing may come any more."""

HEARTBEAT = {"heartbeat": 1.0, "heartbeat_timeout": 1.0}
"""In place of the seeds' 30 s and 10 s; the server's own pings come once a second."""

STEP_S = 0.01
NEVER = float("inf")


@contextmanager
def serving(directory: Path) -> Iterator[DevServer]:
    """A server that comes back as it was when it is killed."""
    with DevServer(directory / "server.db", ping_interval=1.0, pong_timeout=0.8) as server:
        yield server


class NotHere(Exception):
    """A scenario that cannot be played on this machine; the text says why."""


class Stage:
    """Server, directory, dice and scale of a run of scenarios. `short`: all of it is scaled down, alike for both."""

    def __init__(self, server: DevServer, directory: Path, *, short: bool, seed: int = 0) -> None:
        self.server, self.directory, self.short, self.seed = server, directory, short, seed
        self._numbers = itertools.count()

    @contextmanager
    def play(self, traffic: Traffic, *, listening: bool = False, **settings: Any) -> Iterator[Play]:
        """Both crowds, ready to begin, behind a proxy that is well. `listening`: somebody listens to each of them.
        `settings` are those of the client that sends; its time-out is the script's as well. Whatever happens, all of
        it is ended."""
        with ExitStack() as stack:
            yield Play(self, stack, traffic, listening, settings, next(self._numbers))


@dataclass(frozen=True)
class Played:
    """What became of both crowds. `back_s`: seconds from the end of the scenario until all of ours was delivered;
    `attempts`: the server's record of all tries to send."""

    ours: Outcome
    control: Outcome
    back_s: float
    attempts: Sequence[dict[str, Any]]


class Play:
    """A scenario in the making: `begin`, then what is to happen to `proxy` and `server`, then `end`. `ours`, `theirs`:
    the channels of the two crowds."""

    def __init__(
        self, stage: Stage, stack: ExitStack, traffic: Traffic, listening: bool, settings: dict[str, Any], number: int
    ) -> None:
        server = self.server = stage.server
        stack.callback(server.clear_faults)
        stack.callback(server.start)
        directory = stage.directory / f"scenario-{number}"
        directory.mkdir()
        self._position = max((each["position"] for each in whole_log(server)), default=0)
        self._ordinal = server.state()["ordinal"]
        self.proxy = stack.enter_context(FaultProxy(server.port, seed=stage.seed))
        self.alice, bob, self.carol, dave = (f"{name}-{number}" for name in ("alice", "bob", "carol", "dave"))
        self.ours = [server.channel(self.alice, bob) for _ in range(CHANNELS)]
        self.theirs = [server.channel(self.carol, dave) for _ in range(CHANNELS)]
        given = {"token": server.mint(self.alice), "state_dir": str(directory / "alice"), **settings}
        if "refresh_token" in settings:  # made for whoever it is that plays
            session = server.session(self.alice)
            given |= {"token": session["token"], "refresh_token": session["refreshToken"]}
        self.chat = stack.enter_context(closing(ChatClient(self.proxy.url, discover=False, **given)))
        self.bot: Bot | None = None
        self.ear: Ear | None = None
        if listening:
            session = server.session(bob)
            facts = {"user": bob, "ws_token": session["wsToken"], "state_dir": str(directory / "bob"), **HEARTBEAT}
            self.bot = Bot(self.proxy.url, session["token"], self.ours, timeout=self.timeout, **facts)
            stack.enter_context(self.bot)
            self.ear = stack.enter_context(closing(Ear(self.proxy.url, server.mint(dave), self.theirs)))
        script = Script(self.proxy.url, server.mint(self.carol), self.timeout)

        def send(channel: str, text: str) -> str:
            return self.chat.send(channel, text, wait=traffic.wait).key

        self._crowd = Crowd(send, self.ours, traffic, directory / "ours")
        self._control = Crowd(script.send, self.theirs, traffic, directory / "theirs")

    @property
    def timeout(self) -> float:
        """Seconds that a call may take, with chatsdk and without."""
        return self.chat.settings.timeout

    def begin(self, link: Link = WELL) -> None:
        """The network is so from now on, and both crowds begin to send."""
        self.proxy.set(link)
        self._crowd.start()
        self._control.start()

    @property
    def busy(self) -> bool:
        """Whether ours still sends."""
        return self._crowd.busy

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def until(self, true: Callable[[], object], seconds: float = SETTLE_S) -> float:
        """Wait until it is true; seconds that took, or NEVER if it did not come true in time."""
        began = time.monotonic()
        while not true():
            if time.monotonic() - began > seconds:
                return NEVER
            time.sleep(STEP_S)
        return time.monotonic() - began

    def end(self, link: Link | None = None) -> Played:
        """Wait until all of ours is delivered and heard, and judge. `link`: how the network is from now on."""
        if link is not None:
            self.proxy.set(link)
        ended = time.monotonic()
        self._crowd.join()
        self.until(lambda: self.chat.outbox.stats().pending == 0)
        back = time.monotonic() - ended
        self.until(lambda: not self._control.busy, LATE_S)
        self._control.join(stop=True)
        log = self.server.log(since=self._position, attempts_since=self._ordinal)
        ours = [each for each in log["messages"] if each["channel"] in self.ours]
        theirs = [each for each in log["messages"] if each["channel"] in self.theirs]
        return Played(
            ours=self._crowd.outcome(ours, keys=True, dead=self.chat.outbox.stats().dead, **self._heard(ours)),
            control=self._control.outcome(theirs, keys=False, sights=list(self.ear.sights) if self.ear else None),
            back_s=back,
            attempts=log["attempts"],
        )

    def _heard(self, log: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What the bot heard, once it has heard everything and nothing more comes."""
        if (bot := self.bot) is None:
            return {}
        self.until(lambda: len(bot.sights) >= len(log), HEAR_S)
        time.sleep(QUIET_S)
        return {"sights": list(bot.sights), "gaps": list(bot.gaps)}
