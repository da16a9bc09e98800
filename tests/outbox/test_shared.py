"""One store a process and directory, shared and counted."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from chatsdk.core.errors import SettingsError, StorageError
from chatsdk.core.events import Event, OutboxQuarantined
from chatsdk.outbox import shared
from chatsdk.outbox.shared import open_store
from chatsdk.outbox.store import SQLiteStore
from chatsdk.resilience.system_clock import SystemClock
from tests.outbox.store_kit import Other, claimed, entry

CLOCK = SystemClock()


def test_clients_share(tmp_path: Path) -> None:
    """Two clients of one directory, by different names of it, have one store; the last close() closes it."""
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    first = open_store(tmp_path / "state", clock=CLOCK)
    second = open_store(str(tmp_path / "link" / "." / "state"), clock=CLOCK)
    row = first.put(entry()).row
    assert second.get(id=row.id) == row
    claim = claimed(first)  # type: ignore[arg-type]
    assert second.claim(2e9) is None
    first.close()
    first.close()
    assert second.lane_status(claim.lane).owned, "one close() is one client's"
    assert second.put(entry()).created
    second.close()
    with pytest.raises(StorageError, match="closed"):
        second.put(entry())
    third = open_store(tmp_path / "state", clock=CLOCK)
    assert third.stats().pending == 2
    third.close()


def test_directories_do_not_share(tmp_path: Path) -> None:
    """Another directory is another store."""
    first, second = (open_store(tmp_path / name, clock=CLOCK) for name in "ab")
    first.put(entry())
    assert second.stats().pending == 0
    first.close()
    second.close()


def test_a_failed_opening_counts_nothing(tmp_path: Path) -> None:
    """A directory that could not be opened can be opened once it is repaired."""
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(SettingsError):
        open_store(tmp_path / "state", clock=CLOCK)
    (tmp_path / "state").chmod(0o700)
    store = open_store(tmp_path / "state", clock=CLOCK)
    store.close()
    assert str(tmp_path / "state") not in shared._open


def test_everybody_hears(tmp_path: Path) -> None:
    """Each client that is open is told what happens to the file; one that is closed is not."""
    heard: dict[str, list[Event]] = {"a": [], "b": [], "c": []}
    clients = {name: open_store(tmp_path / "state", clock=CLOCK, emit=events.append) for name, events in heard.items()}
    clients["a"].put(entry())
    clients["b"].close()
    other = Other(
        tmp_path / "state",
        "store.close(); open(sys.argv[0] if False else store._database.path, 'wb').close(); say('emptied')",
    )
    assert other.hear() == "emptied"
    other.end()
    store: SQLiteStore = clients["a"]._store  # type: ignore[attr-defined]
    store._database.discard()
    assert clients["a"].put(entry()).created
    assert {name: [type(event) for event in events] for name, events in heard.items()} == {
        "a": [OutboxQuarantined],
        "b": [],
        "c": [OutboxQuarantined],
    }
    clients["a"].close()
    clients["c"].close()


def test_opened_from_many_threads(tmp_path: Path) -> None:
    """Threads that open at the same time get one store."""
    found: list[object] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        found.append(open_store(tmp_path / "state", clock=CLOCK))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(each._store) for each in found}) == 1  # type: ignore[attr-defined]
    for each in found:
        each.close()  # type: ignore[attr-defined]
    assert str(tmp_path / "state") not in shared._open


def test_light_to_import(tmp_path: Path) -> None:
    """Importing `shared` loads neither sqlite3 nor persistqueue: the first client that opens an outbox does."""
    import subprocess

    code = "import sys, chatsdk.outbox.shared\nprint({'sqlite3', 'persistqueue'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
