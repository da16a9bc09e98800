"""A program under test: what it says goes to a file, and nothing of it outlives the test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

LIMIT_S = 20.0
"""What nothing here nearly takes."""


class Program:
    """A process with its children, in a session of their own."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], place: Path) -> None:
        self.out, self.errors = place / "out", place / "errors"
        with open(self.out, "wb") as out, open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=errors,
                env=dict(environment),
                cwd=place,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def until(self, holds: Callable[[], Any], what: str, limit: float = LIMIT_S) -> Any:
        """Wait until `holds()` gives something; fail when the limit is over or the program ended."""
        ends = time.monotonic() + limit
        while not (found := holds()):
            if time.monotonic() >= ends or self.process.poll() is not None:
                raise AssertionError(f"no {what}; code {self.process.poll()}\n{self.errors.read_text()[-4000:]}")
            time.sleep(0.01)
        return found

    def said(self, count: int) -> list[dict[str, Any]]:
        """The first `count` lines of JSON, once they are there."""

        def read() -> list[str]:
            lines = self.out.read_text().splitlines()
            return lines if len(lines) >= count else []

        return [json.loads(line) for line in self.until(read, f"{count} lines")[:count]]

    def end(self, number: signal.Signals | None = None, limit: float = LIMIT_S) -> tuple[int, float]:
        """Ask it to end, by closing its standard input and by a signal; its exit status, and the seconds it took."""
        began = time.monotonic()
        assert self.process.stdin is not None
        self.process.stdin.close()
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(limit), time.monotonic() - began


@contextlib.contextmanager
def running(command: Sequence[str], environment: Mapping[str, str], place: Path) -> Iterator[Program]:
    """Start a program; kill it and its children at the end, if they are still there."""
    program = Program(command, environment, place)
    try:
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.process.wait()
        if program.process.stdin is not None:
            program.process.stdin.close()
