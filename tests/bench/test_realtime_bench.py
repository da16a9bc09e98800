"""The benches of receiving, reconnecting and idling: that they run, name their subjects and goals, and find what their
names say. What they find is hardly judged here: tests run on busy machines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from . import idle, publisher, receive, reconnect
from .publisher import Publisher
from .report import Goal, Measured, table


def test_readers_are_measured_on_the_same_stream() -> None:
    """Each reader takes its turns on each stream, and ours is not slower than the others by an order of magnitude; that
    all came, in order, its process has checked itself."""
    pytest.importorskip("websockets")
    pytest.importorskip("centrifuge")
    rows = list(receive.run(1, count=4_000, channels=4))
    figures = [row for row in rows if isinstance(row, Measured)]
    goals = [row for row in rows if isinstance(row, Goal)]
    assert {row.subject for row in figures} == {
        "chatsdk", "websockets, blocking", "websocket-client, recv()", "centrifuge-python"
    }  # fmt: skip
    assert len(figures) == 2 * (3 + 2 + 2)
    assert all(row.value is not None and row.value > 0 for row in figures)
    assert [(row.goal, row.at_least) for row in goals] == [(1.2, True), (5, True), (1.3, True)]
    assert all(row.ratio is not None and row.ratio > 0.1 for row in goals)
    assert all(row.subject in table(rows) for row in figures)


def test_a_reader_that_misses_something_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: of a stream that ends early our reader says so, instead of how quick it was."""
    monkeypatch.setattr(receive, "TIMEOUT", 0.5)
    with Publisher(400, 4) as short, pytest.raises(TimeoutError, match="of 401 publications"):
        receive.by_chatsdk(short.port, "plain", 401, 4, receive.Stopwatch())


@pytest.mark.parametrize("stream", ["plain", "one", "sixteen"])
def test_publications_have_the_size_that_is_said(stream: str) -> None:
    """200 bytes of JSON each, in frames that hold as many as they should."""
    data = publisher.encoded(32, 4)[stream]
    texts, position = [], 0
    while position < len(data):
        assert data[position : position + 2] == b"\x81\x7e"
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        texts.append(data[position + 4 : position + 4 + length].decode())
        position += 4 + length
    assert [text.count("\n") + 1 for text in texts] == {"plain": [1] * 32, "one": [1] * 32, "sixteen": [16] * 2}[stream]
    if stream == "plain":
        assert {len(text) for text in texts} == {publisher.SIZE}


def test_reconnects_are_measured() -> None:
    """Cuts of all kinds, a restart and a silent peer: both protocols come back and have what they missed."""
    rows = list(reconnect.run(1, cut=3, restarted=1, silent=1))
    figures = [row for row in rows if isinstance(row, Measured)]
    goals = [row for row in rows if isinstance(row, Goal)]
    assert [row.subject for row in figures] == ["Centrifugo", "plain frames"] * 2 + ["plain frames"]
    assert [row.goal for row in goals] == [0.3, 1, 0.3, 1, 2, 2, 0.1]
    assert all(row.ratio is not None and row.ratio < 10 for row in goals)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_idling_is_measured() -> None:
    """Wake-ups, CPU time, and what reconnects leave behind, of both protocols."""
    rows = list(idle.run(1, seconds=0.5, reconnects=2, warm=1, settle=0.5))
    figures = [row for row in rows if isinstance(row, Measured)]
    goals = [row for row in rows if isinstance(row, Goal)]
    assert len(figures) == 2 * 2 + 3 * 2
    assert all(row.value is not None and row.value >= 0 for row in figures)
    assert [row.goal for row in goals] == [2, 0.2, 2, 0.2, 0, 0, 1, 0, 0, 1]
    assert all(row.met is not None for row in goals)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
def test_what_a_busy_process_does_is_seen() -> None:
    """The control of the books that are read: a process that wakes a thousand times is seen to."""
    code = "import time\nfor _ in range(1000): time.sleep(0.0001)\nprint(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        found: Any = idle.look(busy.pid)
        assert found.switches >= 1000
        assert found.cpu > 0
        assert found.threads == len(list(Path(f"/proc/{busy.pid}/task").iterdir())) == 1
        assert busy.stdin is not None
        busy.stdin.write(b"\n")
        busy.stdin.flush()
