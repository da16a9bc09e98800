"""The state directory: who may own it, how files come to be, and the lock among processes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chatsdk.core.errors import SettingsError, StorageError
from chatsdk.outbox import files
from chatsdk.outbox.files import FileLock, Reserve
from chatsdk.resilience.system_clock import SystemClock
from tests.outbox.store_kit import Other, entry, open_directly
from tests.waiting import eventually

CLOCK = SystemClock()


def mode(path: Path) -> int:
    """Permission bits."""
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes(tmp_path: Path, umask: int) -> None:
    """Whatever the umask: directories 0700, files 0600, also those that SQLite makes."""
    before = os.umask(umask)
    try:
        store = open_directly(tmp_path / "deep" / "state")
        store.put(entry())
        store.claim(2e9)
        found = list((tmp_path / "deep").rglob("*"))
        assert {path.name for path in found} >= {"outbox.db", "outbox.db-wal", "outbox.db-shm", "write.lock", "reserve"}
        for path in [tmp_path / "deep", *found]:
            assert mode(path) == (0o700 if path.is_dir() else 0o600), path
        store.close()
    finally:
        os.umask(before)


@pytest.mark.parametrize("name", ["outbox.db", "outbox.db-wal", "outbox.db-shm", "write.lock"])
def test_symbolic_links_are_refused(tmp_path: Path, name: str) -> None:
    """A link in place of one of our files is refused, and what it points to is not touched."""
    state = tmp_path / "state"
    state.mkdir(0o700)
    if name != "outbox.db":
        open_directly(state).close()
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (state / name).unlink(missing_ok=True)
    (state / name).symlink_to(target)
    with pytest.raises(SettingsError, match="symbolic link"):
        open_directly(state)
    assert target.read_bytes() == b"precious"


def test_a_linked_directory_is_refused_but_not_its_parents(tmp_path: Path) -> None:
    """Our directory may not be a link; what lies above it may."""
    (tmp_path / "real").mkdir()
    (tmp_path / "parent").symlink_to(tmp_path / "real", target_is_directory=True)
    open_directly(tmp_path / "parent" / "state").close()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "state", target_is_directory=True)
    with pytest.raises(SettingsError, match="symbolic link"):
        open_directly(tmp_path / "link")


@pytest.mark.parametrize(("name", "bits"), [(".", 0o770), (".", 0o702), ("outbox.db", 0o620), ("write.lock", 0o602)])
def test_what_others_may_write_is_refused(tmp_path: Path, name: str, bits: int) -> None:
    """Group or world writable: refused, with the command that repairs it."""
    state = tmp_path / "state"
    open_directly(state).close()
    (state / name).chmod(bits)
    with pytest.raises(SettingsError, match="others may write") as caught:
        open_directly(state)
    assert "chmod" in caught.value.hint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", [".", "outbox.db", "write.lock"])
def test_foreign_owners_are_refused(tmp_path: Path, name: str) -> None:
    """A directory or file of another user is refused, also by root."""
    state = tmp_path / "state"
    open_directly(state).close()
    os.chown(state / name, 65534, -1)
    with pytest.raises(SettingsError, match="belongs to user id 65534"):
        open_directly(state)


@pytest.mark.parametrize("name", [".", "outbox.db"])
def test_wrong_kinds_are_refused(tmp_path: Path, name: str) -> None:
    """A file in place of the directory, a directory in place of the file."""
    state = tmp_path / "state"
    if name == ".":
        state.write_text("x")
    else:
        (state / name).mkdir(parents=True, mode=0o700)
    with pytest.raises(SettingsError):
        open_directly(state)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """No place for the state directory is a SettingsError that names the variable."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(SettingsError, match="CHATSDK_STATE_DIR"):
        open_directly(tmp_path / "file" / "state")


# ---- the lock


def test_the_lock_is_taken_within_the_time(tmp_path: Path) -> None:
    """A lock that another process holds is refused at the deadline, and had as soon as it is free."""
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()",
            str(path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    path.chmod(0o600)
    lock = FileLock(str(path), CLOCK)
    started = time.monotonic()
    with pytest.raises(StorageError, match="another process holds"):
        lock.acquire(started + 0.3)
    assert 0.3 <= time.monotonic() - started < 0.5
    with pytest.raises(StorageError):
        lock.acquire(started)  # in the past: one look
    holder.communicate(b"\n")
    lock.acquire(time.monotonic() + 1)
    lock.release()
    lock.release()
    lock.close()


@pytest.mark.parametrize(("my_turn", "brisk"), [(False, files.TURN_POLL), (True, files.POLL)])
def test_polling_is_brisk_then_patient(my_turn: bool, brisk: float, tmp_path: Path) -> None:
    """Every 1 ms, or every 30 us for who is next, for 100 ms; then every 20 ms."""
    asked: list[float] = []

    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

        def time(self) -> float:
            return self.now

        def wait(self, event: object, timeout: float) -> bool:
            asked.append(timeout)
            self.now += timeout
            return False

    lock = FileLock(str(tmp_path / "lock"), Clock())
    lock._descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    refuse = pytest.MonkeyPatch()
    refuse.setattr(files, "try_lock", lambda descriptor, *, size, start=0: my_turn and start == 1)
    try:
        with pytest.raises(StorageError):
            lock.acquire(1.0)
    finally:
        refuse.undo()
        lock.close()
    patient = round(files.PATIENT_AFTER / brisk)
    assert set(asked[: patient - 1]) == {brisk}
    assert set(asked[patient + 2 : -1]) == {0.02}
    assert len(asked) < patient + 50


def test_processes_alternate(tmp_path: Path) -> None:
    """A process that gives the lock back and wants it again at once does not keep it from another one that waits."""
    greedy = (
        "say('go')\n"
        "while True:\n"
        "    store._file_lock.acquire(time.monotonic() + 5)\n"
        "    end = time.monotonic() + 0.002\n"
        "    while time.monotonic() < end: pass\n"
        "    store._file_lock.release()\n"
    )
    others = [Other(tmp_path / "state", greedy) for _ in range(2)]
    for other in others:
        assert other.hear() == "go"
    lock = FileLock(str(tmp_path / "state" / "write.lock"), CLOCK)
    waits = []
    for _ in range(30):
        started = time.monotonic()
        lock.acquire(started + 5)
        waits.append(time.monotonic() - started)
        lock.release()
    for other in others:
        other.kill()
    lock.close()
    assert sorted(waits)[15] < 0.1


def test_a_stopped_waiter_stops_nobody(tmp_path: Path) -> None:
    """A process that was stopped while it waited holds the turn, but nobody insists on that for ever."""
    lock = FileLock(str(tmp_path / "state" / "write.lock"), CLOCK)
    code = "say('waiting')\nstore._file_lock.acquire(time.monotonic() + 60)\n"
    open_directly(tmp_path / "state").close()
    lock.acquire(time.monotonic() + 1)
    other = Other(tmp_path / "state", code)
    assert other.hear() == "waiting"
    descriptor = lock._descriptor
    assert descriptor is not None

    def turn_is_taken() -> bool:
        if not files.try_lock(descriptor, size=1, start=1):
            return True
        files.unlock(descriptor, size=1, start=1)
        return False

    eventually(turn_is_taken)
    other.stop()
    lock.release()
    started = time.monotonic()
    lock.acquire(started + 2.0)
    assert time.monotonic() - started < 1.0
    other.kill()
    lock.close()


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    """SIGKILL frees the lock at once."""
    other = Other(tmp_path / "state", "store._file_lock.acquire(time.monotonic() + 5); say('held'); listen()")
    assert other.hear() == "held"
    lock = FileLock(str(tmp_path / "state" / "write.lock"), CLOCK)
    with pytest.raises(StorageError):
        lock.acquire(time.monotonic() + 0.05)
    other.kill()
    lock.acquire(time.monotonic() + 1)
    lock.close()


# ---- the reserve


def test_reserve(tmp_path: Path) -> None:
    """It takes real room, once; it can be spent once and made again; where there is no room there is none."""
    reserve = Reserve(str(tmp_path / "reserve"), 1 << 20)
    assert not reserve.exists()
    assert reserve.make()
    assert reserve.make()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 1 << 20
    assert reserve.spend()
    assert not reserve.spend()
    assert not Reserve(str(tmp_path / "nowhere" / "reserve")).make()
    assert not Reserve(str(tmp_path / "huge"), 1 << 60).make()
    assert os.listdir(tmp_path) == []
