"""Processes that send one message after another (`steady.py`), and what they say."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

from tests.waiting import eventually

SCRIPT = Path(__file__).with_name("steady.py")


class Steady:
    """A process that sends one message after another (`steady.py`)."""

    def __init__(self, environment: dict[str, str], name: str, channel: str, setup: str = "") -> None:
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), name, channel, setup],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            (self.refused if line.startswith("refused") else self.accepted).append(line.rstrip("\n"))

    def sends(self, more: int = 20) -> None:
        """Wait until it has sent some more."""
        aim = len(self.accepted) + more
        eventually(lambda: len(self.accepted) >= aim or self.process.poll() is not None, f"{more} more messages")
        assert self.process.poll() is None, self.end()

    def end(self) -> str:
        """Let it send the rest and end; returns what it complained of."""
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        self.process.stdin.close()
        said = self.process.stderr.read()
        self.process.wait(30)
        self._reader.join(10)
        self.process.stdout.close()  # type: ignore[union-attr]
        self.process.stderr.close()
        return said

    def kill(self) -> None:
        """SIGKILL."""
        self.process.send_signal(signal.SIGKILL)
        self.end()


def all_arrived(arrived: list[str], *processes: Steady) -> None:
    """Each message once, and each process's in its order."""
    for process in processes:
        name = process.accepted[0].split()[0]
        assert [text for text in arrived if text.split()[0] == name] == process.accepted
