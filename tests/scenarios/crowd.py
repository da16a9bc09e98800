"""Who sends: threads that do the same work, whatever they send with, and note what they saw of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.history import Name, Notebook, read_notes
from tests.scenarios.outcome import Outcome, outcome

THREADS = 2
"""Senders of each crowd."""

JOIN_S = 60.0
"""Seconds until a call ends, whatever hinders it."""


@dataclass(frozen=True)
class Traffic:
    """How much is sent: `messages` by each sender, one every `every` seconds, the next one at once where that is late.
    `wait`: as in `send`."""

    messages: int
    every: float = 0.0
    wait: float | None = None


class Crowd:
    """Threads that send, and what they note. `send(channel, text)` gives the key, or raises."""

    def __init__(self, send: Callable[[str, str], str], channels: Sequence[str], traffic: Traffic, notes: Path) -> None:
        self._send, self._channels, self._traffic, self._path = send, channels, traffic, notes
        self._notes = Notebook(notes)
        self._enough = threading.Event()
        self.took: list[float] = []
        self._threads = [threading.Thread(target=self._work, args=(number,), daemon=True) for number in range(THREADS)]

    def start(self) -> None:
        """Begin."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> bool:
        """Whether somebody still sends."""
        return any(thread.is_alive() for thread in self._threads)

    def join(self, *, stop: bool = False) -> None:
        """Wait until all is sent. `stop`: it is over, nothing more is to be begun."""
        if stop:
            self._enough.set()
        for thread in self._threads:
            thread.join(JOIN_S)
            assert not thread.is_alive(), "a call does not end"

    def _work(self, sender: int) -> None:
        for number in range(self._traffic.messages):
            if self._enough.wait(max(0.0, self._began + number * self._traffic.every - time.monotonic())):
                return
            name = Name(self._channels[(sender + number) % len(self._channels)], sender, 0, number)
            self._notes.begun(name)
            began = time.monotonic()
            try:
                key = self._send(name.channel, name.text)
            except Exception:
                self._notes.failed(name)  # whatever it raised, the caller saw an error
            else:
                self.took.append(time.monotonic() - began)
                self._notes.accepted(name, key)

    def outcome(self, log: Sequence[dict[str, Any]], **facts: Any) -> Outcome:
        """What became of its messages, by the server's record of its channels."""
        return outcome(THREADS * self._traffic.messages, read_notes(self._path), log, self.took, **facts)
