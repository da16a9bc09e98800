"""The demo itself, as people run it, and its control."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Ended, Shell, end

LIMIT = 100.0
ARGUMENTS = ("demo", "--messages", "120", "--seed", "7")


@pytest.fixture(scope="module")
def runs() -> Iterator[tuple[Ended, Ended]]:
    """The demo and its control, side by side, because each mostly waits."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "chatsdk", *ARGUMENTS, *more],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for more in ((), ("--break-idempotency",))
    ]
    ended = []
    for process in started:
        out, err = process.communicate(timeout=LIMIT)
        ended.append(Ended(process.returncode, out, err))
    yield ended[0], ended[1]
    for process in started:
        process.kill()


def _figures(ended: Ended) -> dict[str, str]:
    return dict(re.findall(r"^(\S.*?) {2,}(\S.*)$", ended.out, re.MULTILINE))


def test_the_demo_keeps_its_promise(runs: tuple[Ended, Ended]) -> None:
    """Nothing lost, duplicated or out of order through every kind of trouble; both processes were killed; exit 0."""
    ended, _ = runs
    assert ended.code == 0, ended.out + ended.err
    told = _figures(ended)
    assert (told["lost"], told["duplicated"], told["out of order"]) == ("0", "0", "0")
    assert told["accepted (send returned)"] == "120"
    assert int(told["delivered (in the server's log)"]) >= 120
    for kind in ("latency", "drop", "503", "429", "reply_lost"):
        assert kind in told["faults met"]
    assert re.fullmatch(r"server with [1-9]\d* waiting, sender with [1-9]\d* waiting", told["kills (SIGKILL)"])
    assert float(told["attempts per message"]) > 1
    assert ended.out.count("SIGKILL, while") == 2
    assert "exactly once, and in order" in ended.out


def test_the_control_is_found_out(runs: tuple[Ended, Ended]) -> None:
    """Without idempotency each lost reply is a duplicate: the same demo must say so and fail."""
    _, ended = runs
    assert ended.code == 1, ended.out + ended.err
    told = _figures(ended)
    assert int(told["duplicated"]) > 0
    assert told["lost"] == "0"
    assert re.search(r"FAILED: \d+ delivered twice", ended.out)
    assert "exactly once" not in ended.out


def test_no_token_is_shown(runs: tuple[Ended, Ended]) -> None:
    """Nothing that looks like one, on either stream."""
    for ended in runs:
        assert "eyJ" not in ended.out + ended.err


def test_an_interrupted_demo_leaves_nothing_behind(chatsdk: Shell, tmp_path: Path) -> None:
    """Ctrl-C: exit 130, no process and no file is left."""
    process = chatsdk.start("demo", TMPDIR=str(tmp_path))
    assert process.stdout is not None
    for line in process.stdout:
        if "act 2" in line:
            break
    assert _processes_that_name(tmp_path), "the sending process should be at work"
    ended = end(process, signal.SIGINT)
    assert ended.code == 130
    assert "Traceback" not in ended.err
    assert list(tmp_path.iterdir()) == []
    assert _processes_that_name(tmp_path) == []


def _processes_that_name(path: Path) -> list[str]:
    """The command lines of this machine's processes in which a path stands."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            found.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if str(path) in line]
