"""One history: who sent what from which state directory, and what came of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatsdk.devserver.process import DevServer
from tests.chaos.history import Verdict, judge, read_notes
from tests.chaos.template import Template


@dataclass(frozen=True)
class Run:
    """One history: a state directory, its channels, and the notes of those who sent there."""

    directory: Path
    server: DevServer
    channels: tuple[str, ...]

    @property
    def notes(self) -> Path:
        return self.directory / "notes"

    @property
    def claims(self) -> Path:
        return self.directory / "claims"

    @property
    def answer(self) -> Path:
        return self.directory / "answer"

    @property
    def job(self) -> dict[str, Any]:
        return {
            "url": self.server.url,
            "token": self.server.tokens["alice"],
            "state": str(self.directory / "state"),
            "notes": str(self.notes),
            "channels": self.channels,
        }

    def recover(self, template: Template, *, seconds: float = 30) -> dict[str, int]:
        """The next run, which delivers what is left within `seconds`; the outbox's accounting after it."""
        ended = template.run("recover", answer=str(self.answer), flush=seconds, **self.job)
        assert ended == 0, template.errors.read_text()
        stats: dict[str, int] = json.loads(self.answer.read_text())
        assert stats["pending"] == stats["dead"] == stats["discarded"] == 0, stats
        assert stats["accepted"] == stats["delivered"], stats
        for file in self.directory.glob("state/**/*.db"):
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return stats

    def judge(self, log: Iterable[dict[str, Any]]) -> Verdict:
        """Compare the notes, and the trace of claims if there is one, with the server's log."""
        claims = self.claims.read_text().splitlines() if self.claims.exists() else ()
        ours = [message for message in log if message["channel"] in self.channels]
        return judge(read_notes(self.notes), ours, claims)


def make_run(tmp_path: Path, server: DevServer, number: int, *, channels: int = 2) -> Run:
    """A run with a directory and channels of its own."""
    directory = tmp_path / f"run-{number}"
    directory.mkdir()
    return Run(directory, server, tuple(server.channel("alice") for _ in range(channels)))
