"""Drives `sender.py` from a test: one template process, one child at a time, each killed or left to its end."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Template:
    """A template process. `errors`: where its children's tracebacks go."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.errors = directory / "errors"
        with self.errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("sender.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                # no module is compiled while writes are counted
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
            )

    def __enter__(self) -> Template:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=30)

    def learn(self, **job: Any) -> None:
        """Import what a whole run needs; `job` is one."""
        assert self.run("modules", answer=str(self.directory / "modules"), **job) == 0, self.errors.read_text()
        self.learn_from(self)

    def learn_from(self, other: Template) -> None:
        """Import what another template has found out."""
        assert self._ask({"job": "import", "answer": str(other.directory / "modules")}) == "done"

    def fork(self, name: str, **job: Any) -> int:
        """Make a child for a job, which waits; returns its process id."""
        return int(self._ask({"job": name, **job}))

    def go(self) -> None:
        """Let the child run."""
        self._say("go")

    def end(self) -> int:
        """Wait for the child's end; its exit status."""
        return int(self._hear())

    def run(self, name: str, **job: Any) -> int:
        """All three."""
        self.fork(name, **job)
        self.go()
        return self.end()

    def _ask(self, job: dict[str, Any]) -> str:
        self._say(json.dumps(job))
        return self._hear()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the template ended: {self.errors.read_text()}"
        return line.strip()
