"""Carries out a storm: a server, senders and a bot in processes of their own, and everything that goes wrong."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chatsdk.devserver.process import DevServer
from tests.chaos.listening.heard import Notes, Verdict, judge
from tests.chaos.listening.senders import Connection
from tests.chaos.listening.weather import Event, strike
from tests.chaos.monkey import whole_log

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).parent
CHANNELS = 20
SENDERS = 6
BOT = "bot"

POLL_S = 0.2
"""How long the bot's websocket is away until its channels are polled, and how often each is."""

PROTOCOLS = ("centrifugo", "centrifugo-without-recovery", "json")

LOOK_S = 0.01
"""How often it is looked how far everybody is."""

READY_S = 30.0
"""Seconds until a bot that was started hears all its channels."""

SETTLE_S = 0.7
"""Seconds after the last message was heard in which nothing may come any more. More than a window of messages that are
shuffled is held, and than the longest delay that may be left."""

AT_WORK = 0.7
"""Of the kills of a bot, how many wait until it hears a channel; the others come when they come, also while it starts.
"""

LAST_WORDS = 3
"""Channels whose last message is never published: only a look over HTTP finds it."""


@dataclass(frozen=True)
class Terms:
    """How a storm is to be. `slow`, `stall_every`, `stall_s`, `fidget_s`: see `bot`; 0: never. `token_s`: seconds that
    the bot's tokens last. `patience`: seconds without anything new after which a bot is taken not to hear any more."""

    protocol: str = "centrifugo"
    messages: int = 3000
    control: str = ""
    quiet_check: float = 1.0
    slow: float = 0.01
    stall_every: int = 0
    stall_s: float = 0.0
    fidget_s: float = 0.0
    token_s: float = 5.0
    patience: float = 20.0


def start(*command: str | Path, job: dict[str, Any], errors: Path) -> subprocess.Popen[bytes]:
    """A process that dies with this one, and its job."""
    with errors.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdin=subprocess.PIPE,
            stderr=file,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(job).encode() + b"\n")
    process.stdin.flush()
    return process


def end(process: subprocess.Popen[bytes], number: signal.Signals, seconds: float = 15.0) -> int:
    """Send a signal and wait; the exit code. One that has ended already gives its own."""
    process.send_signal(number)
    try:
        return process.wait(seconds)
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


@contextmanager
def serving(directory: Path, protocol: str) -> Iterator[DevServer]:
    """A server whose data outlive its kills."""
    options: dict[str, Any] = {
        "ping_interval": 2.0,
        "pong_timeout": 1.5,
        "expired_close_delay": 1.0,
        "expired_unsubscribe_delay": 1.0,
    }
    if protocol == "centrifugo-without-recovery":
        options["no_recovery"] = True
    with DevServer(directory / "server.db", **options) as server:
        yield server


@dataclass
class Storm:
    """`forecast`: what is to go wrong. `carried_out`: what went wrong so far."""

    directory: Path
    server: DevServer
    terms: Terms
    seed: int
    forecast: Sequence[Event]
    say: Callable[[str], None] = print
    carried_out: Counter[str] = field(default_factory=Counter)
    figures: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.channels = [self.server.channel(BOT, "alice", "bob") for _ in range(CHANNELS)]
        self.notes = Notes(self.directory / "notes")
        self._errors = self.directory / "errors"
        self._count = self.directory / "count"
        self._calm_file = self.directory / "calm"
        self._answer = self.directory / "answer"
        self._began = time.monotonic()
        self._starts = 0
        self._bot: subprocess.Popen[bytes] | None = None
        self._sending: subprocess.Popen[bytes] | None = None

    def work(self, seconds: float) -> Verdict:
        """The whole of it. Sending takes at most `seconds`; then the rest of the storm is called off."""
        try:
            self._start_bot()
            self._wait_until_all_are_heard()
            self._began = time.monotonic()
            self._start_sending()
            self._blow(self._began + seconds)
            self._calm()
            self._last_words()
            log = self._log()
            self._wait_for(log)
            self._end_bot()
        finally:
            for process in (self._bot, self._sending):
                if process is not None:
                    end(process, signal.SIGKILL)
        self.notes.read()
        return judge(self.notes.sights, log, self.notes.gaps)

    @property
    def sent(self) -> int:
        """Messages that the server accepted."""
        return self._count.stat().st_size if self._count.exists() else 0

    @property
    def errors(self) -> str:
        """What the bot wrote to its standard error."""
        return self._errors.read_text(errors="replace")

    # ---- the storm

    def _blow(self, ends: float) -> None:
        assert self._sending is not None
        coming = list(self.forecast)
        while self._sending.poll() is None and time.monotonic() < ends:
            while coming and coming[0].at <= self.sent:
                self._carry_out(coming.pop(0))
            assert self._bot is None or self._bot.poll() is None, f"the bot ended by itself: {self.errors}"
            time.sleep(LOOK_S)
        if self._sending.poll() is None:
            end(self._sending, signal.SIGKILL)
            self.say(f"{self._elapsed()}  called off after {self.sent} messages")

    def _carry_out(self, event: Event) -> None:
        self.say(f"{self._elapsed()}  {event} ({self.sent} accepted)")
        self.carried_out[event.what] += 1
        if event.what == "server killed":
            self.server.kill()
            time.sleep(event.seconds)
            self.server.start()
        elif event.what == "bot killed":
            assert self._bot is not None
            if random.Random(event.seed).random() < AT_WORK:
                self._wait_until_something_is_heard()
            ended = end(self._bot, signal.SIGKILL)
            assert ended == -signal.SIGKILL, f"the bot ended by itself: {self.errors}"
            time.sleep(event.seconds)
            self._start_bot()
        elif event.what in ("server stopped", "bot stopped"):
            process = self.server.process if event.what == "server stopped" else self._bot
            assert process is not None
            process.send_signal(signal.SIGSTOP)
            time.sleep(event.seconds)
            process.send_signal(signal.SIGCONT)
        else:
            strike(event, self.server.realtime, self.server.faults)

    def _calm(self) -> None:
        self._calm_file.touch()
        self.server.clear_faults()
        self.say(f"{self._elapsed()}  calm after {self.sent} messages and {self.carried_out.total()} events")

    def _last_words(self) -> None:
        self.server.realtime.drop(queue=True, text_contains="last word")
        voice = Connection(self.server.port, self.server.mint("alice"))
        dice = random.Random(self.seed)
        for channel in self.channels[:LAST_WORDS]:
            key = f"00000000-0000-4000-8000-{dice.getrandbits(48):012x}"
            assert voice.send(channel, key, "last word"), "the server does not take a message in peace"
        voice.close()

    def _log(self) -> list[dict[str, Any]]:
        ours = set(self.channels)
        return [message for message in whole_log(self.server) if message["channel"] in ours]

    # ---- the others

    def _start_bot(self) -> None:
        self._starts += 1
        job = {
            "url": self.server.url,
            "ws_url": self.server.plain_url if self.terms.protocol == "json" else self.server.ws_url,
            "user": BOT,
            "token_s": self.terms.token_s,
            "realtime": self.terms.protocol.partition("-")[0],
            "state": str(self.directory / "state"),
            "notes": str(self.directory / "notes"),
            "answer": str(self._answer),
            "channels": self.channels,
            "control": self.terms.control,
            "quiet_check": self.terms.quiet_check,
            "poll_interval": POLL_S,
            "slow": self.terms.slow,
            "stall_every": self.terms.stall_every,
            "stall_s": self.terms.stall_s,
            "fidget_s": self.terms.fidget_s,
            "calm": str(self._calm_file),
            "seed": self.seed,
            "run": self._starts,
        }
        self._bot = start("-m", "tests.chaos.listening.bot", job=job, errors=self._errors)

    def _start_sending(self) -> None:
        job = {
            "port": self.server.port,
            "tokens": [self.server.mint(("alice", "bob")[number % 2], ttl=1e6) for number in range(SENDERS)],
            "channels": self.channels,
            "messages": self.terms.messages,
            "count": str(self._count),
            "seed": self.seed,
        }
        self._sending = start("-S", HERE / "senders.py", job=job, errors=self._errors)

    def _end_bot(self) -> None:
        assert self._bot is not None
        ended = end(self._bot, signal.SIGTERM)
        assert ended == 0, f"the bot ended with {ended}: {self.errors}"
        self.figures = json.loads(self._answer.read_text())

    # ---- waiting

    def _wait_until_all_are_heard(self) -> None:
        ends = time.monotonic() + READY_S
        while list(self.notes.read().states.values()).count("subscribed") < CHANNELS:
            assert self._bot is not None
            assert self._bot.poll() is None, self.errors
            assert time.monotonic() < ends, f"subscribed are {self.notes.states}: {self.errors}"
            time.sleep(LOOK_S)

    def _wait_until_something_is_heard(self) -> None:
        """By the newest bot; not for ever, for it may have to wait for its server."""
        ends = time.monotonic() + READY_S / 3
        while not (self.notes.sights and self.notes.sights[-1].run == self._starts):
            if time.monotonic() > ends:
                return
            time.sleep(LOOK_S)
            self.notes.read()

    def _wait_for(self, log: Sequence[dict[str, Any]]) -> None:
        """Until the bot has heard everything and nothing more comes, or nothing new has come for a while."""
        wanted = {(message["channel"], message["key"]) for message in log}
        heard, since = -1, time.monotonic()
        while True:
            self.notes.read()
            now = time.monotonic()
            if len(self.notes.sights) != heard:
                heard, since = len(self.notes.sights), now
            complete = wanted <= self.notes.ids
            if now - since > (SETTLE_S if complete else self.terms.patience):
                self.say(f"{self._elapsed()}  {'all' if complete else 'NOT all'} was heard, {now - since:.1f} s ago")
                return
            time.sleep(LOOK_S)

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._began:8.3f} s"
