"""A development server for the whole folder, and the command line as its users call it: a process of its own."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chatsdk.cli.main import main
from chatsdk.devserver.process import DevServer

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 60.0


@dataclass(frozen=True)
class Ended:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object that it printed."""
        return json.loads(self.out)


@dataclass
class Shell:
    """Runs `chatsdk ...` with an environment of its own; what no command may ever print is in `canaries`."""

    environ: dict[str, str]
    canaries: list[str] = field(default_factory=list)

    def __call__(self, *arguments: str, stdin: str | bytes | None = None, **environ: str | None) -> Ended:
        """Run it to its end; without `stdin`, standard input is empty. `environ`: what is changed; None removes."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        ended = subprocess.run(
            [sys.executable, "-m", "chatsdk", *arguments],
            input=data or b"",
            capture_output=True,
            env=self.environment(environ),
            timeout=TIMEOUT,
            check=False,
        )
        found = Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
        for canary in [*self.canaries, *(value for name, value in environ.items() if value and "TOKEN" in name)]:
            assert canary not in found.out + found.err
        assert "Traceback" not in found.err, found.err
        return found

    def start(self, *arguments: str, **environ: str | None) -> subprocess.Popen[str]:
        """Start it and do not wait."""
        return subprocess.Popen(
            [sys.executable, "-m", "chatsdk", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(environ),
        )

    def here(self, *arguments: str, stdin: str | bytes = b"") -> Ended:
        """Run it in this process, for what needs no process of its own: it is ten times as quick."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name, value in self.environ.items():
                patch.setenv(name, value)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
            code = main(arguments)
        return Ended(code, out.getvalue(), err.getvalue())

    def environment(self, changes: dict[str, str | None]) -> dict[str, str]:
        merged = {**os.environ, "PYTHONPATH": str(ROOT), **self.environ, **changes}
        return {name: value for name, value in merged.items() if value is not None}


@pytest.fixture(scope="session")
def _server() -> Iterator[DevServer]:
    with DevServer() as server:
        yield server


@pytest.fixture
def server(_server: DevServer) -> Iterator[DevServer]:
    """The server, without faults."""
    yield _server
    if _server.pid is None:
        _server.start()
    _server.clear_faults()


@pytest.fixture
def channel(server: DevServer) -> str:
    """A new channel of alice's."""
    return server.channel("alice")


@pytest.fixture
def chatsdk(server: DevServer, tmp_path: Path) -> Shell:
    """The command line as alice has it, with a state directory of her own."""
    environ = {
        "CHATSDK_URL": server.url,
        "CHATSDK_TOKEN": server.tokens["alice"],
        "CHATSDK_STATE_DIR": str(tmp_path / "state"),
    }
    return Shell(environ, canaries=[*server.tokens.values(), server.secret])


@pytest.fixture
def nowhere() -> Iterator[str]:
    """The URL of a port at which nobody listens, and nobody will while the test runs."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


@pytest.fixture
def texts(server: DevServer, channel: str) -> Callable[[], list[str]]:
    """What the server holds of the channel, in order."""
    return lambda: [str(each["text"]) for each in server.log()["messages"] if each["channel"] == channel]


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> Ended:
    """Ask a process to end, and say how it did."""
    process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT)
    return Ended(process.returncode, out, err)
