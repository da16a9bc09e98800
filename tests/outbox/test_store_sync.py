"""Power cuts: what a call said is on disk when it returns, though SQLite is not asked to see to it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from chatsdk.core.errors import StorageError
from chatsdk.core.store import State
from chatsdk.outbox import database
from chatsdk.outbox.store import SQLiteStore
from tests.outbox.store_kit import LANE, NOW, balanced, claimed, entry, open_directly

pytestmark = pytest.mark.skipif(not database.SYNCS_LOG, reason="SQLite syncs by itself here")


class Disk:
    """What would be left after a power cut: the files as they were at the last fdatasync of the log."""

    def __init__(self, directory: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory, self.copy = directory, copy
        self.fails = False
        self._sync = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self.sync)

    def sync(self, descriptor: int) -> None:
        """In place of os.fdatasync."""
        log = self.directory / "outbox.db-wal"
        assert os.path.samestat(os.fstat(descriptor), log.stat()), "it is the log that must be synced"
        if self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._sync(descriptor)
        shutil.rmtree(self.copy, ignore_errors=True)
        self.copy.mkdir(0o700)
        for name in ("outbox.db", "outbox.db-wal"):
            shutil.copy(self.directory / name, self.copy / name)
            (self.copy / name).chmod(0o600)

    def after_a_power_cut(self) -> SQLiteStore:
        """The outbox as it would be found."""
        return open_directly(self.copy)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Watches the syncs of a store in tmp_path / "state"."""
    return Disk(tmp_path / "state", tmp_path / "copy", monkeypatch)


def state_of(disk: Disk, key: str | None) -> State | None:
    """What is known of a message after a power cut."""
    found = disk.after_a_power_cut()
    try:
        row = found.get(key=key)
        balanced(found)
        return None if row is None else row.state
    finally:
        found.close()
        shutil.rmtree(disk.copy)


def test_what_was_said_survives_a_power_cut(disk: Disk) -> None:
    """A put, a finish and a burial are on disk when they return."""
    store = open_directly(disk.directory)
    first, second = entry("first"), entry("second")
    store.put(first)
    assert state_of(disk, first.request.key) is State.QUEUED
    store.put(second)
    rows = claimed(store).rows
    store.finish(LANE, rows[0].id, {"id": "m"}, NOW, more=1)
    assert state_of(disk, first.request.key) is State.SENT
    store.bury(LANE, rows[1].id, "rejected", {}, NOW)
    assert state_of(disk, second.request.key) is State.DEAD
    store.close()


def test_a_known_key_is_answered_from_the_disk(disk: Disk) -> None:
    """Another process may have put it and not have synced it yet: who answers that it is known syncs it."""
    store = open_directly(disk.directory)
    message = entry()
    disk.fails = True
    with pytest.raises(StorageError) as caught:
        store.put(message)
    assert caught.value.code == "unsynced"
    assert caught.value.hint
    disk.fails = False
    assert state_of(disk, message.request.key) is None
    assert not store.put(message).created
    assert state_of(disk, message.request.key) is State.QUEUED
    store.close()


def test_a_claim_that_was_not_synced_is_given_back(disk: Disk) -> None:
    """The lane that the failing claim took does not stay with a process that knows nothing of it."""
    store = open_directly(disk.directory)
    store.put(entry())
    disk.fails = True
    with pytest.raises(StorageError):
        store.claim(NOW)
    disk.fails = False
    assert store.next_due(NOW) == NOW
    assert claimed(store).lane == LANE
    store.close()


def test_a_log_that_cannot_be_opened_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is accepted that could not be synced."""
    real = os.open

    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith("-wal"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError, match="-wal"):
        open_directly(tmp_path / "state").put(entry())
