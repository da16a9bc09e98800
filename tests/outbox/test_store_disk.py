"""Disks that are full, read-only, or fail: said before acceptance, nothing accepted is lost, and draining goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chatsdk.core.errors import NotAcceptedError, OutboxFullError, StorageError
from chatsdk.core.store import Park, Selection
from tests.outbox.store_kit import LANE, NOW, ROOT, balanced, claimed, entry, open_directly


def run(code: str, *, wrap: tuple[str, ...] = ()) -> str:
    """Run Python in another process (one that may be limited for good); returns what it printed."""
    head = "import os, sys, resource, signal, pytest\nfrom tests.outbox.test_store_disk import *\n"
    done = subprocess.run(
        [*wrap, sys.executable, "-c", head + code], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def fill_until_refused(directory: Path) -> int:
    """Put until the disk is full. Returns how many messages were accepted."""
    store = open_directly(directory)
    accepted: list[str] = []
    with pytest.raises(OutboxFullError) as caught:  # noqa: PT012 - which put meets the end is not known
        for number in range(100_000):
            accepted.append(store.put(entry(f"{number} " + "x" * 2000)).row.key)
    assert "disk" in caught.value.message, caught.value
    assert caught.value.hint
    assert [row.key for row in store.list(Selection(limit=10**6))] == accepted
    balanced(store)
    store.close()
    return len(accepted)


def drain(directory: Path, expected: int) -> None:
    """Everything that was accepted goes out, though there is no room; afterwards there is room for new messages."""
    store = open_directly(directory)
    result = {"id": "m", "text": "x" * 2000}
    first = claimed(store, limit=1).rows[0]
    failed = Park(not_before=NOW, reason="offline", error={"message": "x" * 2000})  # takes room as well
    store.park(LANE, first.id, failed)
    while claim := store.claim(NOW, limit=1):
        rows = claim.rows
        while rows:
            rows = store.finish(LANE, rows[0].id, result, NOW, more=1)
    assert store.stats().delivered == expected
    balanced(store)
    store.sweep(NOW + 90_000)
    assert store.put(entry("after the flood")).created
    store.close()


def can_mount(tmp_path: Path) -> tuple[str, ...]:
    """How to run a command with a mount namespace of its own, or ()."""
    if shutil.which("unshare") is None:
        return ()
    for wrap in (("unshare", "-m"), ("unshare", "-rm")):
        probe = [*wrap, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
        if subprocess.run(probe, capture_output=True).returncode == 0:
            return wrap
    return ()


def test_full_disk(tmp_path: Path) -> None:
    """On a disk of 24 MB: refused before acceptance, all that was accepted is there, and goes out by the reserve."""
    wrap = can_mount(tmp_path)
    if not wrap:
        pytest.skip("cannot mount a small disk here")
    mount = f'mount -t tmpfs -o size=24m tmpfs {tmp_path} && exec "$0" "$@"'
    printed = run(
        f"state = Path({str(tmp_path)!r}) / 'state'; n = fill_until_refused(state); drain(state, n); print(n)",
        wrap=(*wrap, "sh", "-c", mount),
    )
    assert int(printed) > 1000


def test_no_room_for_the_file_itself(tmp_path: Path) -> None:
    """A disk with no room to begin with is a StorageError, not a crash, and leaves nothing half made."""
    wrap = can_mount(tmp_path)
    if not wrap:
        pytest.skip("cannot mount a small disk here")
    mount = f'mount -t tmpfs -o size=40k tmpfs {tmp_path} && exec "$0" "$@"'
    run(
        f"path = Path({str(tmp_path)!r}) / 'state'\n"
        "with pytest.raises(StorageError): open_directly(path)\n"
        "assert not (path / 'outbox.db').exists()\n",
        wrap=(*wrap, "sh", "-c", mount),
    )


def test_sqlite_says_full(tmp_path: Path) -> None:
    """SQLITE_FULL in a put is OutboxFullError and changes nothing; another operation then says StorageError."""
    store = open_directly(tmp_path / "state")
    first = store.put(entry("one"))
    connection = store._database.writer()
    connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').fetchone()[0]}")
    with pytest.raises(OutboxFullError, match="disk is full"):
        store.put(entry("x" * 100_000))
    claimed(store)
    error = {"message": "x" * 100_000}
    with pytest.raises(StorageError, match="disk is full") as caught:
        store.park(LANE, first.row.id, Park(not_before=NOW + 1, reason="offline", error=error))
    assert caught.value.code == "disk_full"
    assert store.lane_status(LANE).owned, "the lane is still ours: nothing happened"
    connection.execute("PRAGMA max_page_count = 1000000")
    store.park(LANE, first.row.id, Park(not_before=NOW + 1, reason="offline", error=error))
    assert store.put(entry("x" * 100_000)).created
    balanced(store)
    store.close()


def test_a_batch_on_a_full_disk(tmp_path: Path) -> None:
    """Messages that do not fit any more are refused one by one; those that were accepted beside them are there."""
    code = (
        "import threading\n"
        f"store = open_directly({str(tmp_path / 'state')!r})\n"
        "connection = store._database.writer()\n"
        "connection.execute('PRAGMA max_page_count = 60')\n"
        "accepted, refused = [], []\n"
        "def put(n):\n"
        "    for m in range(40):\n"
        "        try: accepted.append(store.put(entry('x' * 500 * (n + 1))).row.key)\n"
        "        except OutboxFullError: refused.append(1)\n"
        "threads = [threading.Thread(target=put, args=(n,)) for n in range(8)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "assert accepted and refused and len(accepted) + len(refused) == 320\n"
        "assert {row.key for row in store.list(Selection())} == set(accepted)\n"
        "balanced(store); store.close()\n"
    )
    run(code)


def test_file_size_limit(tmp_path: Path) -> None:
    """A write that fails half-way (RLIMIT_FSIZE: an I/O error) is refused, and nothing accepted is lost."""
    code = (
        f"store = open_directly({str(tmp_path / 'state')!r})\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))\n"
        "accepted = []\n"
        "with pytest.raises(NotAcceptedError) as caught:\n"
        "    for n in range(10_000): accepted.append(store.put(entry('x' * 300)).row.key)\n"
        "assert len(accepted) > 10 and caught.value.hint\n"
        "assert [row.key for row in store.list(Selection(limit=10_000))] == accepted\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "assert store.put(entry('again')).created\n"
        "balanced(store); store.close()\n"
    )
    run(code)
    store = open_directly(tmp_path / "state")
    assert store.stats().pending > 10
    store.close()


def as_nobody(work: object) -> int:
    """Run `work` in a child that is not root (root may write anywhere). Returns its exit code."""
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            work()  # type: ignore[operator]
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("name", [".", "outbox.db"])
def test_read_only(tmp_path: Path, name: str) -> None:
    """A directory or file that may not be written is a StorageError with a hint, and is left as it is."""
    state = tmp_path / "state"
    store = open_directly(state)
    store.put(entry("one"))
    store.close()
    target = state / name
    if os.geteuid() == 0:
        for parent in tmp_path.parents:
            if parent.stat().st_uid == 0 and parent != Path("/") and parent.stat().st_mode & 0o005 != 0o005:
                parent.chmod(parent.stat().st_mode | 0o055)
        tmp_path.chmod(0o755)
        for path in (state, *state.rglob("*")):
            os.chown(path, 65534, 65534)
    target.chmod(0o500 if target.is_dir() else 0o400)
    before = sorted(path.name for path in state.iterdir())

    def use() -> None:
        with pytest.raises(StorageError) as caught:
            open_directly(state).put(entry("two"))
        assert caught.value.hint

    try:
        assert as_nobody(use) == 0
    finally:
        target.chmod(0o700 if target.is_dir() else 0o600)
    assert "quarantined" not in " ".join(path.name for path in state.iterdir())
    assert set(before) <= {path.name for path in state.iterdir()}

    def read_again() -> None:
        again = open_directly(state)
        assert again.stats().pending == 1
        again.close()

    assert as_nobody(read_again) == 0


def test_names_used_by_other_processes() -> None:
    """What the limited processes above import is here."""
    assert (OutboxFullError, NotAcceptedError, Selection, signal) is not None
