"""Disks that are full or read-only: what was accepted is delivered, what was refused was refused before."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chatsdk.devserver.process import DevServer
from tests.outbox.test_store_disk import can_mount

FULL_DISK = Path(__file__).with_name("full_disk.py")


class Elsewhere:
    """A process on a small disk of its own."""

    def __init__(self, wrap: tuple[str, ...], directory: Path, megabytes: int, environment: dict[str, str]) -> None:
        self._mount = f'mount -t tmpfs -o size={megabytes}m,mode=755 tmpfs {directory} && exec "$0" "$@"'
        self._wrap, self._directory, self._environment = wrap, directory, environment
        self._process: subprocess.Popen[str] | None = None

    def tell(self, story: str, *arguments: str) -> dict[str, Any]:
        """Begin a story of `full_disk.py`; returns what it says first."""
        script = [sys.executable, str(FULL_DISK), story, str(self._directory), *arguments]
        self._process = subprocess.Popen(
            [*self._wrap, "sh", "-c", self._mount, *script],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.hear()

    def hear(self) -> dict[str, Any]:
        """What it says next."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            raise AssertionError(self._process.stderr.read()[-3000:])
        found: dict[str, Any] = json.loads(line)
        return found

    def go_on(self) -> dict[str, Any]:
        """Let it go on; returns what it says then."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.hear()

    def end(self) -> None:
        """End it, whatever became of it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


@pytest.fixture
def small_disk(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[[int], Elsewhere]]:
    """Makes processes that have so many megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    wrap = can_mount(place)
    if not wrap:
        pytest.skip("cannot mount a small disk here: neither root nor unprivileged user namespaces")
    made: list[Elsewhere] = []

    def make(megabytes: int) -> Elsewhere:
        made.append(Elsewhere(wrap, place, megabytes, environment))
        return made[-1]

    yield make
    for each in made:
        each.end()


def arrived_as_accepted(server: DevServer, said: dict[str, Any]) -> None:
    """The server has exactly what was accepted, once, in the order of acceptance in each channel."""
    accepted = [tuple(each) for each in said["accepted"]]
    channels = {channel for channel, _ in accepted}
    arrived = [(each["channel"], str(each["text"])) for each in server.log()["messages"] if each["channel"] in channels]
    for channel in channels:
        mine = [text for where, text in accepted if where == channel]
        assert [text for where, text in arrived if where == channel] == mine
    assert not {tuple(each) for each in said["refused"]} & set(arrived)


def test_full_of_our_own(server: DevServer, small_disk: Callable[[int], Elsewhere]) -> None:
    """An outage lasts until the disk is full of messages. All that were accepted arrive, and sending works again
    without anybody's help."""
    channels = [server.channel("alice") for _ in range(2)]
    server.faults("status", operation="send", status=503)
    disk = small_disk(12)
    said = disk.tell("own_messages", *channels)
    assert len(said["accepted"]) > 500
    assert len(said["refused"]) >= 3
    assert all("disk" in hint for hint in said["hints"]), said["hints"]
    server.clear_faults()
    arrived_as_accepted(server, disk.go_on())


def test_full_of_somebody_elses(server: DevServer, small_disk: Callable[[int], Elsewhere]) -> None:
    """Without a byte of room messages are refused, but those that wait still leave; with room again, all is well."""
    channels = [server.channel("alice") for _ in range(2)]
    server.faults("status", operation="send", status=503)
    disk = small_disk(16)
    disk.tell("somebody_else", *channels)
    server.clear_faults()
    said = disk.go_on()
    assert said["free"] == 0
    assert said["reserves"] == [5 << 20], "the room for the next time"
    arrived_as_accepted(server, said)


def test_full_before_the_process_began(server: DevServer, small_disk: Callable[[int], Elsewhere]) -> None:
    """A process that begins on a full disk (a cron job's flush) sends what waits."""
    channels = [server.channel("alice") for _ in range(2)]
    disk = small_disk(16)
    assert disk.tell("new_process", *channels)["free"] == 0
    said = disk.go_on()
    assert (said["sent"], said["queued"]) == (300, 0)
    arrived_as_accepted(server, said)


def test_full_before_there_was_an_outbox(server: DevServer, small_disk: Callable[[int], Elsewhere]) -> None:
    """No room for the outbox itself: refused with a hint; with room, the same client works."""
    said = small_disk(16).tell("nothing_there", server.channel("alice"))
    assert said["error"]["hint"]
    arrived_as_accepted(server, said)


def test_read_only(server: DevServer, small_disk: Callable[[int], Elsewhere]) -> None:
    """With and without an outbox: a typed error with a hint before anything is accepted; once it can be written again,
    the same client sends, and what waited leaves."""
    said = small_disk(16).tell("read_only", server.channel("alice"))
    assert [each["type"] for each in said["errors"]] == ["SettingsError", "StorageError"]
    assert "CHATSDK_STATE_DIR" in said["errors"][0]["hint"]
    assert "mounted" in said["errors"][1]["hint"]
    arrived_as_accepted(server, said)
