"""What happens to a state directory while it is in use, or between two uses: nothing accepted is lost, nothing comes
twice."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from chatsdk import ChatClient, NotAcceptedError, State
from chatsdk.core.clock import Waitable
from chatsdk.devserver.process import DevServer
from chatsdk.resilience.system_clock import SystemClock
from tests.journeys.senders import Steady, all_arrived
from tests.waiting import eventually

HOUR = 3600.0

Connect = Callable[..., ChatClient]
Texts = Callable[[str], list[str]]
Start = Callable[..., Steady]


def place(state_dir: Path) -> Path:
    """The one outbox below a state directory."""
    (found,) = state_dir.glob("*/default")
    return found


# ---- removed, restored


def test_directory_removed_under_us(
    connect: Connect, start: Start, channel: str, state_dir: Path, texts: Texts, caplog: pytest.LogCaptureFixture
) -> None:
    """`rm -rf` of the whole state directory in the middle of everything: said loudly, and what is sent from then on
    arrives, from this process and from a new one."""
    chat = connect()
    assert chat.send(channel, "before").state is State.SENT
    with caplog.at_level(logging.ERROR, "chatsdk"):
        shutil.rmtree(state_dir, ignore_errors=True)  # it may be made anew before that has finished
        assert chat.send(channel, "after").wait(10).state is State.SENT
    assert any("vanished" in record.getMessage() for record in caplog.records)
    other = start("other", channel)
    other.sends()
    assert all(chat.send(channel, f"me {n}").wait(10).state is State.SENT for n in range(20))
    assert other.end() == ""
    all_arrived(texts(channel), other)
    assert [text for text in texts(channel) if text.startswith("me")] == [f"me {n}" for n in range(20)]
    assert {path.stat().st_mode & 0o077 for path in state_dir.rglob("*")} == {0}


def test_restored_from_a_copy(
    connect: Connect, start: Start, server: DevServer, channel: str, state_dir: Path, texts: Texts, tmp_path: Path
) -> None:
    """A copy that was made of an outbox in use, while a process had lanes, is put back later: what it holds that was
    delivered meanwhile is sent again, absorbed by its key, and counted as delivered."""
    rule = server.faults("status", operation="send", status=503)
    sender = start("first", channel)
    sender.sends(30)
    copied = list(sender.accepted)
    shutil.copytree(state_dir, tmp_path / "copy", copy_function=shutil.copy2)
    server.clear_faults(rule)
    assert sender.end() == ""
    arrived = texts(channel)
    assert arrived == sender.accepted
    shutil.rmtree(state_dir)
    shutil.copytree(tmp_path / "copy", state_dir, copy_function=shutil.copy2)
    assert any(place(state_dir).glob("owners/*")), "the copy names an owner that is dead"
    with connect() as chat:
        pending = chat.outbox.stats().pending
        assert pending >= len(copied) - 1
        report = chat.outbox.flush(10)
        assert (report.queued, report.dead, report.sent) == (0, 0, pending)
        assert chat.send(channel, "new").state is State.SENT
        stats = chat.outbox.stats()
        assert stats.accepted == stats.delivered
    assert texts(channel) == [*arrived, "new"]


def test_exchanged_for_a_copy_while_in_use(
    connect: Connect, server: DevServer, channel: str, state_dir: Path, texts: Texts, tmp_path: Path
) -> None:
    """The copy is put in place under a running client: it goes on with that one."""
    server.faults("status", operation="send", status=503)
    with connect(close_timeout=0) as chat:
        chat.send(channel, "in the copy", wait=0)
    shutil.copytree(state_dir, tmp_path / "copy")
    server.clear_faults()
    chat = connect(sweep_interval=0.5)
    assert chat.send(channel, "not in it").state is State.SENT
    new, used = tmp_path / "new", place(state_dir)
    shutil.copytree(place(tmp_path / "copy"), new)
    for number in count():
        os.rename(used, tmp_path / f"old-{number}")
        try:
            os.rename(new, used)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # the client was quicker, and made one of its own
    assert chat.send(channel, "after").wait(10).state is State.SENT
    assert chat.outbox.flush(10).queued == 0
    assert texts(channel) == ["in the copy", "not in it", "after"]


# ---- lock files


@pytest.mark.parametrize("what", ["write.lock", "owners/*", "all"])
def test_files_deleted_while_in_use(what: str, start: Start, channel: str, state_dir: Path, texts: Texts) -> None:
    """Deleted again and again under two processes, which then have different files by the same name: nothing is lost,
    nothing comes twice, and each process's order holds. "all": everything but the messages."""
    first, second = start("first", channel), start("second", channel)
    patterns = ["write.lock", "owners/*", "wake", "reserve"] if what == "all" else [what]
    for _ in range(5):
        for path in [path for pattern in patterns for path in place(state_dir).glob(pattern)]:
            path.unlink(missing_ok=True)
        first.sends(5)
        second.sends(5)
    assert (first.end(), second.end()) == ("", "")
    assert first.refused == second.refused == []
    all_arrived(texts(channel), first, second)


def test_a_deleted_lock_is_one_again(connect: Connect, start: Start, channel: str, state_dir: Path) -> None:
    """Processes that use different files by the lock's name would not keep each other out: each notices at its next
    write."""
    other = start("other", channel)
    chat = connect()
    chat.send(channel, "before", wait=0)
    lock = place(state_dir) / "write.lock"
    lock.unlink()
    chat.send(channel, "after", wait=0)
    other.sends(3)
    facts = lock.stat()
    for pid in (os.getpid(), other.process.pid):
        assert (facts.st_dev, facts.st_ino) in _open_files(pid)
    other.end()


def _open_files(pid: int) -> set[tuple[int, int]]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            facts = link.stat()
        except OSError:
            continue
        found.add((facts.st_dev, facts.st_ino))
    return found


def test_a_lock_replaced_by_a_link(connect: Connect, channel: str, state_dir: Path, texts: Texts) -> None:
    """It is not followed: refused before acceptance, with a hint, by who has it open and by who comes; when the link is
    gone the same client works again by itself."""
    chat = connect()
    chat.send(channel, "before")
    lock, precious = place(state_dir) / "write.lock", state_dir / "precious"
    precious.write_text("precious")
    lock.unlink()
    lock.symlink_to(precious)
    with pytest.raises(NotAcceptedError, match="link") as caught:
        chat.send(channel, "refused", wait=0)
    assert caught.value.hint
    lock.unlink()
    assert chat.send(channel, "after").wait(10).state is State.SENT
    assert precious.read_text() == "precious"
    assert texts(channel) == ["before", "after"]


# ---- the clock


class Jumping(SystemClock):
    """A clock whose wall time somebody sets."""

    offset = 0.0

    def time(self) -> float:
        return super().time() + self.offset

    def wait(self, event: Waitable, timeout: float) -> bool:
        return super().wait(event, timeout)


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["ahead", "back"])
def test_the_clock_jumps_an_hour(
    jump: float, connect: Connect, server: DevServer, channel: str, texts: Texts, state_dir: Path
) -> None:
    """While messages wait, with a token of 30 minutes: nothing dies, nothing waits for the clock, and receipts keep
    their word."""
    clock = Jumping()
    chat = connect(clock=clock, sweep_interval=0.2, token=server.mint("alice", ttl=1800))
    assert chat.send(channel, "0").state is State.SENT
    server.kill()
    receipts = [chat.send(channel, f"{n}", wait=0) for n in range(1, 4)]
    eventually(lambda: chat.outbox.get(receipts[0].id).attempts, "a try that failed")
    clock.offset = jump
    began = time.monotonic()
    receipts.append(chat.send(channel, "4", wait=0.2))
    assert time.monotonic() - began < 2, "a wait is not measured by the wall"
    server.restart()
    assert [receipt.wait(10).state for receipt in receipts] == [State.SENT] * 4
    assert chat.send(channel, "5").state is State.SENT
    clock.offset = 0.0
    assert chat.send(channel, "6").state is State.SENT
    assert texts(channel) == [f"{n}" for n in range(7)]
    chat.close()
    assert connect().outbox.stats().dead == 0
