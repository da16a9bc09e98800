"""Lock files that are deleted or exchanged while they are in use, and file systems that have no locks."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chatsdk.core.errors import SettingsError, StorageError
from chatsdk.outbox.files import FileLock
from chatsdk.outbox.owners import Owners
from chatsdk.resilience.system_clock import SystemClock
from tests.outbox.store_kit import Other, open_directly


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The lock's file."""
    (tmp_path / "state").mkdir(0o700)
    return tmp_path / "state" / "write.lock"


@pytest.fixture
def lock(path: Path) -> Iterator[FileLock]:
    """The lock, which was had and given back once."""
    made = FileLock(str(path), SystemClock())
    made.acquire(soon())
    made.release()
    yield made
    made.close()


def soon() -> float:
    """A deadline that nothing free misses."""
    return time.monotonic() + 2.0


def excludes_another_process(directory: Path) -> bool:
    """Another process that comes now cannot have the lock."""
    other = Other(
        directory,
        "try:\n    store._file_lock.acquire(0)\nexcept StorageError:\n    say('locked')\nelse:\n    say('had')\n",
        preamble="from chatsdk.core.errors import StorageError",
    )
    said = other.hear()
    other.end()
    return said == "locked"


@pytest.mark.parametrize("how", ["deleted", "exchanged", "with its directory"])
def test_the_file_of_the_name_is_locked(how: str, lock: FileLock, path: Path) -> None:
    """Whatever became of the file that was locked before: who has the lock keeps newcomers out."""
    open_directly(path.parent).close()
    if how == "with its directory":
        shutil.rmtree(path.parent)
    elif how == "exchanged":
        path.with_name("another").touch(0o600)
        os.replace(path.with_name("another"), path)
    else:
        path.unlink()
    lock.acquire(soon())
    assert path.exists()
    if how != "with its directory":  # a newcomer would have to make the outbox first, and wait
        assert excludes_another_process(path.parent)
    lock.release()


def test_deleted_while_we_wait(lock: FileLock, path: Path) -> None:
    """Who got a lock whose file lost its name meanwhile takes the one that has the name."""
    holder = Other(path.parent, "store._file_lock.acquire(time.monotonic() + 5); say('held'); listen()")
    assert holder.hear() == "held"
    path.unlink()
    second = Other(path.parent, "store._file_lock.acquire(time.monotonic() + 5); say('held'); listen()")
    assert second.hear() == "held"
    with pytest.raises(StorageError, match="another process holds"):
        lock.acquire(time.monotonic() + 0.2)  # first one's file, then the second one's
    holder.kill()
    with pytest.raises(StorageError, match="another process holds"):
        lock.acquire(time.monotonic() + 0.2)
    second.kill()
    lock.acquire(soon())
    lock.release()


def test_a_link_is_an_error_that_passes(lock: FileLock, path: Path, tmp_path: Path) -> None:
    """In use it is a StorageError, for nothing is wrong with the settings; what it points to is not made."""
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="symbolic link") as caught:
        lock.acquire(soon())
    assert caught.value.hint
    assert not (tmp_path / "elsewhere").exists()
    path.unlink()
    lock.acquire(soon())
    lock.release()


def no_locks(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """From now on no file can be locked or unlocked."""

    def lockf(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.lockf", lockf)


def test_no_locks_from_the_beginning(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a matter of settings, and the hint names the one; giving back what was never had does no harm."""
    no_locks(monkeypatch, errno.ENOLCK)
    lock = FileLock(str(path), SystemClock())
    with pytest.raises(SettingsError, match="no locks") as caught:
        lock.acquire(soon())
    assert "CHATSDK_STATE_DIR" in caught.value.hint
    lock.release()
    lock.close()


def test_no_locks_any_more(lock: FileLock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that forgot how to lock for a while is a StorageError; a lock that cannot be given back is dropped."""
    lock.acquire(soon())
    no_locks(monkeypatch, errno.ENOLCK)
    lock.release()
    with pytest.raises(StorageError, match="cannot lock"):
        lock.acquire(soon())
    monkeypatch.undo()
    lock.acquire(soon())
    lock.release()


# ---- owners


def test_an_owner_without_a_file_becomes_somebody_new(tmp_path: Path) -> None:
    """Others take it for dead, so it must not go on as the same."""
    mine, theirs = Owners(str(tmp_path)), Owners(str(tmp_path))
    before = mine.claim_id()
    assert mine.claim_id() == before
    (tmp_path / before).unlink()
    after = mine.claim_id()
    assert after != before
    assert os.listdir(tmp_path) == [after]
    assert not mine.is_alive(before)
    assert not theirs.is_alive(before)
    mine.close()
    assert os.listdir(tmp_path) == []


def test_a_link_is_no_owner(tmp_path: Path) -> None:
    """Whose file was replaced by a link is as dead as one whose file is gone, and its lanes do not wait for ever."""
    mine, theirs = Owners(str(tmp_path / "owners")), Owners(str(tmp_path / "owners"))
    before = mine.claim_id()
    (tmp_path / "owners" / before).unlink()
    (tmp_path / "owners" / before).symlink_to(tmp_path / "elsewhere")
    assert not theirs.is_alive(before)
    assert mine.claim_id() != before
    theirs.sweep()
    mine.close()
    assert not (tmp_path / "elsewhere").exists()
