"""The director of the demo: starts the processes, breaks things, kills and restarts, and gathers the evidence.

Nothing here waits for a fixed time to hope: an act ends when its messages were accepted and its faults have struck, a
kill comes when messages wait, and the end is an empty outbox. One hard limit bounds it all. What is counted comes from
three independent places: the sending process's record, the outbox's own accounting, and the server's log.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ...client import ChatClient
from ...core.clock import Clock
from .checker import Evidence, Kill, Verdict, judge
from .notes import Notes, read_notes
from .plan import CHANNELS, DWELL, HARD_LIMIT, Act, acts

if TYPE_CHECKING:
    from ...devserver.process import DevServer

POLL = 0.1
"""Seconds between two looks at what is going on."""
DOWN = 0.8
"""Seconds that the killed server stays away, at least."""
USER = "alice"
RUNS, KILLED, LEFT = "runs", "killed", "left"


class DemoFailedError(Exception):
    """The demo could not be carried out; the text says why."""


@dataclass(frozen=True)
class Snapshot:
    """What is going on. `act` counts from 1, 0 before the first; `elapsed` in seconds; `server` and `sender` are
    "runs", "killed" or "left"."""

    act: int = 0
    acts: int = 0
    title: str = ""
    elapsed: float = 0.0
    messages: int = 0
    accepted: int = 0
    stored: int = 0
    pending: int = 0
    attempts: int = 0
    server: str = RUNS
    sender: str = RUNS
    faults: dict[str, int] = field(default_factory=dict)


class Display(Protocol):
    """What shows it."""

    def say(self, elapsed: float, text: str) -> None:
        """Something happened."""
        ...

    def show(self, snapshot: Snapshot) -> None:
        """How things stand."""
        ...


class Story:
    """One run. `play` does it all; `end` leaves no process behind, whatever happened."""

    def __init__(
        self,
        directory: Path,
        server: DevServer,
        display: Display,
        clock: Clock,
        *,
        messages: int,
        seed: int,
        fresh_keys: bool = False,
    ) -> None:
        self._directory = directory
        self._server = server
        self._display = display
        self._clock = clock
        self._messages = messages
        self._acts = acts(seed)
        self._fresh_keys = fresh_keys
        self._began = clock.monotonic()
        self._wakeup = threading.Event()  # never set: waiting on it is how time passes
        self._sender: subprocess.Popen[str] | None = None
        self._runs = 0
        self._channels: list[str] = []
        self._chat: ChatClient | None = None
        self._faults: Counter[str] = Counter()
        self._kills: list[Kill] = []
        self._now = Snapshot(acts=len(self._acts), messages=messages)

    # ---- the whole

    def play(self) -> Verdict:
        """Act after act, then the end. Raises DemoFailedError."""
        self._open()
        for number, act in enumerate(self._acts, 1):
            self._set(act=number, title=act.title)
            self._say(f"act {number} of {len(self._acts)}: {act.title}")
            self._play(act, last=number == len(self._acts))
        self._set(title="no more trouble; waiting until the outbox is empty")
        self._say(f"no more trouble; {self._stats()['pending']} still wait in the outbox")
        self._until("the outbox to be empty", lambda: self._stats()["pending"] == 0)
        self._send_away()
        log = self._server.log()
        evidence = Evidence(
            notes=self._notes(),
            messages=log["messages"],
            attempts=log["attempts"],
            faults=dict(self._faults),
            kills=self._kills,
            outbox=self._stats(),
        )
        self._say("comparing the server's log with what was accepted")
        return judge(evidence)

    def end(self) -> None:
        """Kill what still runs."""
        if self._sender is not None:
            self._sender.kill()
            self._sender.communicate()
            self._sender = None
        if self._chat is not None:
            self._chat.close(0.0)
        self._server.stop()

    # ---- acts

    def _play(self, act: Act, *, last: bool) -> None:
        for rule in act.rules:
            self._server.faults(**rule)
        wanted = self._messages if last else self._accepted() + round(self._messages * act.share)
        self._order(wanted - self._accepted(), act.pace)
        if act.kill:
            self._until("messages to wait in the outbox", lambda: self._stats()["pending"] >= CHANNELS)
            (self._kill_server if act.kill == "server" else self._kill_sender)(act, wanted)
        self._until("the messages to be accepted", lambda: self._accepted() >= wanted)
        self._until("the faults to strike", self._all_struck)
        enough = self._clock.monotonic() + DWELL
        self._until(
            "messages to be delivered", lambda: self._stats()["pending"] == 0 or self._clock.monotonic() >= enough
        )
        self._count_faults()
        self._server.clear_faults()

    def _kill_server(self, act: Act, wanted: int) -> None:
        self._count_faults()
        self._server.kill()
        self._set(server=KILLED)
        self._killed("server")
        back = self._clock.monotonic() + DOWN
        before = self._accepted()
        self._until(
            "the server's absence to be felt",
            lambda: self._clock.monotonic() >= back and self._accepted() >= min(wanted, before + CHANNELS),
        )
        self._server.restart()
        self._set(server=RUNS)
        self._say(f"server: started again; meanwhile {self._accepted() - before} more messages were accepted")
        for rule in act.rules:  # they died with it
            self._server.faults(**rule)

    def _kill_sender(self, act: Act, wanted: int) -> None:
        assert self._sender is not None
        self._sender.send_signal(signal.SIGKILL)
        self._sender.communicate()
        self._sender = None
        self._set(sender=KILLED)
        self._killed("sender")
        self._start_sender()
        self._say("sending process: started again; it goes on with what the dead one left")
        self._order(wanted - self._accepted(), act.pace)

    def _killed(self, who: str) -> None:
        pending = self._stats()["pending"]
        self._kills.append(Kill(who, pending))
        name = "server" if who == "server" else "sending process"
        self._say(f"{name}: SIGKILL, while {pending} messages waited in the outbox")

    # ---- the processes

    def _open(self) -> None:
        self._server.start()
        self._say(f"server: started, {self._server.url}")
        self._channels = [self._server.channel(USER, name=f"demo {number}") for number in range(CHANNELS)]
        self._chat = ChatClient(
            self._server.url,
            user=USER,
            config=str(self._empty_config()),
            state_dir=str(self._directory / "state"),
            background=False,
            discover=False,
            exit_timeout=0.0,
        )
        self._start_sender()
        self._say(f"sending process: started, {CHANNELS} threads, {CHANNELS} channels")

    def _empty_config(self) -> Path:
        """A settings file that says nothing, so that the user's own does not take part."""
        path = self._directory / "config.toml"
        path.touch()
        return path

    def _start_sender(self) -> None:
        self._runs += 1
        command = [sys.executable, "-m", "chatsdk.cli.demo.sending", "--notes", str(self._notes_path)]
        command += ["--run", str(self._runs)] + [word for each in self._channels for word in ("--channel", each)]
        if self._fresh_keys:
            command.append("--fresh-keys")
        with self._log_path.open("ab") as log:
            self._sender = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                env=self._environment(),
                start_new_session=True,  # a Ctrl-C is ours; it ends when its standard input does
            )
        self._set(sender=RUNS)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CHATSDK_")}
        here = str(Path(__file__).resolve().parents[3])
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join([here, *filter(None, [kept.get("PYTHONPATH")])]),
            "CHATSDK_URL": self._server.url,
            "CHATSDK_TOKEN": self._server.tokens[USER],
            "CHATSDK_USER": USER,
            "CHATSDK_CONFIG": str(self._empty_config()),
            "CHATSDK_STATE_DIR": str(self._directory / "state"),
        }

    def _order(self, messages: int, pace: float) -> None:
        """Let so many messages be sent, spread over the channels."""
        each, rest = divmod(max(0, messages), CHANNELS)
        counts = [each + (number < rest) for number in range(CHANNELS)]
        self._tell(" ".join(["send", str(pace), *map(str, counts)]))

    def _send_away(self) -> None:
        self._tell("quit")
        assert self._sender is not None
        sender, self._sender = self._sender, None
        try:
            sender.communicate(timeout=max(1.0, self._left()))
        except subprocess.TimeoutExpired:
            sender.kill()
            sender.communicate()
            raise DemoFailedError("the sending process did not leave when it was asked to") from None
        self._set(sender=LEFT)
        self._say("sending process: done, and left")

    def _tell(self, line: str) -> None:
        assert self._sender is not None
        assert self._sender.stdin is not None
        try:
            self._sender.stdin.write(line + "\n")
            self._sender.stdin.flush()
        except BrokenPipeError:
            self._check_sender()
            raise

    def _check_sender(self) -> None:
        if self._sender is not None and self._sender.poll() is not None:
            tail = self._log_path.read_text(errors="replace").strip().splitlines()[-3:]
            raise DemoFailedError("the sending process ended by itself: " + " | ".join(tail))

    # ---- looking

    @property
    def _notes_path(self) -> Path:
        return self._directory / "accepted.log"

    @property
    def _log_path(self) -> Path:
        return self._directory / "sender.log"

    def _notes(self) -> Notes:
        return read_notes(self._notes_path)

    def _accepted(self) -> int:
        return len(self._notes().accepted)

    def _stats(self) -> dict[str, int]:
        assert self._chat is not None
        stats = self._chat.outbox.stats()
        return {name: getattr(stats, name) for name in ("accepted", "delivered", "dead", "pending", "discarded")}

    def _all_struck(self) -> bool:
        """Every rule that strikes for certain has done so; if nothing is under way any more, none will."""
        sure = [rule for rule in self._server.fault_rules() if rule.get("times")]
        return all(rule["fired"] >= rule["times"] for rule in sure) or self._stats()["pending"] == 0

    def _count_faults(self) -> None:
        """Add up how often each rule struck; they are forgotten by the server right after."""
        self._faults += self._struck()
        self._set(faults=dict(self._faults))

    def _struck(self) -> Counter[str]:
        """How often each kind of fault struck since the rules were set; a status counts under its number."""
        struck: Counter[str] = Counter()
        for rule in self._server.fault_rules():
            struck[str(rule["status"]) if rule["kind"] == "status" else rule["kind"]] += rule["fired"]
        return struck

    def _until(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for something to happen, and show how things stand meanwhile."""
        while not condition():
            if self._left() <= 0:
                raise DemoFailedError(f"gave up after {HARD_LIMIT:.0f} s, waiting for {what}")
            self._check_sender()
            self._look()
            self._clock.wait(self._wakeup, POLL)
        self._look()

    def _left(self) -> float:
        return self._began + HARD_LIMIT - self._clock.monotonic()

    def _look(self) -> None:
        stats = self._stats()
        facts: dict[str, Any] = {
            "accepted": self._accepted(),
            "pending": stats["pending"],
            "stored": stats["delivered"],
        }
        if self._now.server == RUNS:
            state = self._server.state()
            faults = dict(self._faults + self._struck())
            facts |= {"stored": state["messages"], "attempts": state["attempts"], "faults": faults}
        self._set(**facts)

    def _set(self, **facts: Any) -> None:
        self._now = replace(self._now, elapsed=self._clock.monotonic() - self._began, **facts)
        self._display.show(self._now)

    def _say(self, text: str) -> None:
        self._display.say(self._clock.monotonic() - self._began, text)
