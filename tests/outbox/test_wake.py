"""Signals among processes cut a wait short, and carry nothing."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from chatsdk.core.clock import Waitable
from chatsdk.outbox.wake import Wake
from chatsdk.resilience.system_clock import SystemClock
from tests.outbox.store_kit import Other


class Clock:
    """Time passes when somebody waits; `during` runs meanwhile."""

    def __init__(self) -> None:
        self.now = 100.0
        self.during: list[object] = []
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def wait(self, event: Waitable, timeout: float) -> bool:
        self.waits.append(timeout)
        self.now += timeout
        if self.during:
            self.during.pop(0)()  # type: ignore[operator]
        return event.is_set()


def test_nobody_signals(tmp_path: Path) -> None:
    """Without a signal the wait lasts as long as asked, in looks of a second."""
    clock = Clock()
    assert not Wake(str(tmp_path), clock).wait(threading.Event(), 2.5)
    assert clock.waits == [1.0, 1.0, 0.5]


def test_a_signal(tmp_path: Path) -> None:
    """The first signal (which makes the file) and each later one end a wait; a signal is heard once."""
    clock = Clock()
    mine, theirs = Wake(str(tmp_path), clock), Wake(str(tmp_path), SystemClock())
    for _ in range(3):
        clock.during = [theirs.signal]
        before = clock.now
        assert not mine.wait(threading.Event(), 60.0)
        assert clock.now - before == 1.0
        time.sleep(0.01)  # a file system's clock ticks every few milliseconds
    before = clock.now
    assert not mine.wait(threading.Event(), 3.0)
    assert clock.now - before == 3.0
    assert (tmp_path / "wake").stat().st_mode & 0o777 == 0o600


def test_the_event(tmp_path: Path) -> None:
    """The own event ends the wait at once."""
    event = threading.Event()
    event.set()
    clock = Clock()
    assert Wake(str(tmp_path), clock).wait(event, 60.0)
    assert clock.waits == [1.0]


def test_a_signal_never_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file cannot be made the others wait a little longer."""
    Wake(str(tmp_path / "nowhere"), SystemClock()).signal()
    (tmp_path / "wake").symlink_to(tmp_path / "target")
    Wake(str(tmp_path), SystemClock()).signal()
    assert not (tmp_path / "target").exists()


def test_another_process(tmp_path: Path) -> None:
    """A real signal from a real process arrives within the second."""
    wake = Wake(str(tmp_path / "state"), SystemClock())
    code = (
        "from chatsdk.outbox.wake import Wake\n"
        "wake = Wake(store.directory, SystemClock())\n"
        "say('ready'); listen(); wake.signal(); say('done'); listen()"
    )
    other = Other(tmp_path / "state", code)
    assert other.hear() == "ready"
    other.tell()
    started = time.monotonic()
    assert not wake.wait(threading.Event(), 20.0)
    assert time.monotonic() - started < 5.0
    assert other.hear() == "done"
    other.tell()
    other.end()
