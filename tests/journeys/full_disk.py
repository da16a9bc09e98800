"""Sends on a disk that fills up: `python full_disk.py STORY STATE CHANNEL...`, where STATE is a small disk of its own.

What happened is printed as lines of JSON; a line of standard input lets the story go on. `Ballast` is what somebody
else keeps on the same disk.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from chatsdk import ChatClient, ChatError, OutboxFullError, State, StorageError
from tests.waiting import eventually

SIZES = (2000, 10, 1000)
MANY = 10_000


class Ballast:
    """A file that takes all the room there is."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._path = directory / "ballast"

    def grow(self) -> None:
        """Take what is left, to the last byte."""
        with self._path.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    def remove(self) -> None:
        """Give it back."""
        self._path.unlink()


class Story:
    """One client, and what it was told."""

    def __init__(self, state: Path, channels: list[str]) -> None:
        self.ballast = Ballast(state)
        self.state = state / "state"
        self.channels = channels
        self.accepted: list[tuple[str, str]] = []
        self.refused: list[tuple[str, str]] = []
        self.hints: set[str] = set()
        self._numbers = itertools.count()

    def open(self) -> ChatClient:
        """A client with the environment's settings."""
        return ChatClient(state_dir=str(self.state), discover=False)

    def send(self, chat: ChatClient, size: int = 100) -> bool:
        """Send something new and do not wait; True if it was accepted."""
        number = next(self._numbers)
        what = self.channels[number % len(self.channels)], f"{number} ".ljust(size, "x")
        try:
            chat.send(*what, wait=0)
        except OutboxFullError as error:
            self.hints.add(error.hint)
            self.refused.append(what)
            return False
        self.accepted.append(what)
        return True

    def fill(self, chat: ChatClient) -> None:
        """Send until the disk takes no more, not even small ones."""
        for size in SIZES:
            assert any(not self.send(chat, size) for _ in range(MANY)), "the disk takes everything"

    def say(self, **facts: Any) -> None:
        """Tell the test, and wait until it says go on."""
        told = {"accepted": self.accepted, "refused": self.refused, "hints": sorted(self.hints), **facts}
        print(json.dumps(told), flush=True)
        sys.stdin.readline()


def own_messages(story: Story) -> None:
    """Nothing else is on the disk: messages that cannot leave fill it. They leave, and there is room again."""
    chat = story.open()
    story.fill(chat)
    story.say()
    eventually(lambda: chat.outbox.stats().pending == 0, "draining on a full disk")
    eventually(lambda: story.send(chat, 2000), "sending after the flood")
    eventually(lambda: chat.outbox.stats().pending == 0, "delivery after the flood")
    chat.close()
    story.say(free=room(story.state))


def somebody_else(story: Story) -> None:
    """Somebody else fills the disk while messages wait. They leave without any room; nothing new is accepted until
    that somebody tidies up."""
    chat = story.open()
    for _ in range(300):
        assert story.send(chat, 1000)
    story.ballast.grow()
    story.fill(chat)
    story.say()
    eventually(lambda: chat.outbox.stats().pending == 0, "draining on a full disk")
    story.ballast.grow()
    full = room(story.state)
    story.fill(chat)
    story.ballast.remove()
    eventually(lambda: story.send(chat, 2000), "sending when there is room")
    eventually(lambda: chat.outbox.stats().pending == 0, "delivery when there is room")
    reserves = [path.stat().st_size for path in story.state.glob("*/*/reserve")]
    chat.close()
    story.say(free=full, reserves=reserves)


def new_process(story: Story) -> None:
    """The client is closed, the disk is full, and another one is to send what waits, as cron has it."""
    with ChatClient(state_dir=str(story.state), discover=False, background=False) as chat:
        for _ in range(300):
            assert story.send(chat, 1000)
    story.ballast.grow()
    story.say(free=room(story.state))
    with ChatClient(state_dir=str(story.state), discover=False, background=False) as chat:
        report = chat.outbox.flush(20)
    story.say(sent=report.sent, queued=report.queued)


def nothing_there(story: Story) -> None:
    """There is no outbox yet, and no room to make one; when there is, the same client works."""
    story.ballast.grow()
    chat = story.open()
    try:
        chat.send(story.channels[0], "0", wait=0)
    except StorageError as error:
        said = error.to_dict()
    story.ballast.remove()
    assert chat.send(story.channels[0], "1").wait(10).state is State.SENT
    story.accepted.append((story.channels[0], "1"))
    story.refused.append((story.channels[0], "0"))
    chat.close()
    story.say(error=said)


def read_only(story: Story) -> None:
    """The file system is read-only before there is an outbox, then with messages in one; at last it is not."""
    disk = story.ballast.directory
    errors = []

    def refused(chat: ChatClient) -> None:
        try:
            chat.send(story.channels[0], "refused", wait=0)
        except ChatError as error:
            errors.append(error.to_dict())

    _remount(disk, "ro")
    early = story.open()
    refused(early)
    _remount(disk, "rw")
    assert story.send(early)
    early.close()
    with ChatClient(state_dir=str(story.state), discover=False, background=False) as chat:
        assert all(story.send(chat) for _ in range(3))
    _remount(disk, "ro")
    chat = story.open()
    refused(chat)
    _remount(disk, "rw")
    assert story.send(chat)
    eventually(lambda: chat.outbox.stats().pending == 0, "delivery when it can be written")
    chat.close()
    story.refused.append((story.channels[0], "refused"))
    story.say(errors=errors)


def _remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def room(path: Path) -> int:
    """Free bytes."""
    facts = os.statvfs(path)
    return facts.f_bavail * facts.f_frsize


def main(story: str, state: str, *channels: str) -> None:
    """Tell one story."""
    stories = (own_messages, somebody_else, new_process, nothing_there, read_only)
    {each.__name__: each for each in stories}[story](Story(Path(state), list(channels)))


if __name__ == "__main__":
    main(*sys.argv[1:])
