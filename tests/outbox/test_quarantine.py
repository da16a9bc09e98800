"""A file that is no good is kept and replaced, loudly; a good one that cannot be used now is never touched."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from chatsdk.core.errors import KeyReusedError, SettingsError, StorageError
from chatsdk.core.events import Event, OutboxQuarantined
from chatsdk.core.store import Lane, Selection, State
from chatsdk.outbox import quarantine, schema, trouble
from tests.outbox.store_kit import LANE, NOW, Other, balanced, claimed, entry, open_directly

ROWS = 400


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory with a closed outbox: two results, three dead letters, the rest waiting in two lanes."""
    store = open_directly(tmp_path / "state")
    for number in range(ROWS):
        store.put(entry(f"text {number} " + "x" * 200, Lane("alice", f"channel-{number % 2}"), f"key-{number}"))
    claim = claimed(store, limit=1)
    rows = claim.rows
    for number in range(5):
        if number < 2:
            rows = store.finish(claim.lane, rows[0].id, {"id": "m"}, NOW, more=1)
        else:
            rows = store.bury(claim.lane, rows[0].id, "rejected", {"code": "x"}, NOW, more=1)
    store.close()
    return tmp_path / "state"


def kept(state: Path) -> list[Path]:
    """The database files that were set aside."""
    return sorted(path for path in state.glob("outbox.db.quarantined-*") if not path.name.endswith(("-wal", "-shm")))


def header(path: Path) -> None:
    """Overwrite the beginning of the file."""
    with path.open("r+b") as file:
        file.write(b"this is not a database, is it?" * 10)


def empty(path: Path) -> None:
    """Truncate the file to nothing."""
    path.write_bytes(b"")


def half(path: Path) -> None:
    """Cut the file in two."""
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)


def foreign(path: Path) -> None:
    """Put another program's database in its place."""
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks(url)")
        connection.execute("INSERT INTO bookmarks VALUES('precious')")
        connection.commit()
    path.chmod(0o600)


def stripped(path: Path) -> None:
    """Drop one of our tables."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE lanes")
        connection.commit()


def text(path: Path) -> None:
    """Put something that never was a database in its place."""
    path.write_text("hello")


@pytest.mark.parametrize("damage", [header, empty, foreign, stripped, text], ids=lambda damage: damage.__name__)
def test_a_file_that_is_no_outbox(state: Path, damage: object, caplog: pytest.LogCaptureFixture) -> None:
    """It is renamed and kept as it was, an ERROR and an event say so, and a new outbox works."""
    damage(state / "outbox.db")  # type: ignore[operator]
    before = (state / "outbox.db").read_bytes()
    events: list[Event] = []
    with caplog.at_level(logging.ERROR, "chatsdk.outbox"):
        store = open_directly(state, emit=events.append)
    (aside,) = kept(state)
    saved = ROWS - 2 if damage is stripped else 0
    assert [type(event) for event in events] == [OutboxQuarantined]
    event = events[0]
    assert isinstance(event, OutboxQuarantined)
    assert (event.path, event.salvaged) == (str(aside), saved)
    assert event.error
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert str(aside) in caplog.text
    assert store.stats().pending + store.stats().dead == saved
    assert store.put(entry()).created
    balanced(store)
    store.close()
    if damage is not stripped:
        assert aside.read_bytes() == before
    assert aside.stat().st_mode & 0o777 == 0o600
    assert list(state.glob("*.draft*")) == list(state.glob("*.new")) == []


def damage_page(path: Path, page: int) -> None:
    """Overwrite one page in the middle."""
    with path.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xa5" * 4096)


def table_pages(path: Path) -> list[int]:
    """Leaf pages of the table of messages, by number from 0."""
    pages = []
    with path.open("rb") as file:
        data = file.read()
    for page in range(1, len(data) // 4096):
        # 13: a leaf of a table; ours hold rows of some 700 bytes
        if data[page * 4096] == 13 and b"channel-" in data[page * 4096 : page * 4096 + 4096]:
            pages.append(page)
    return pages


def test_salvage(state: Path) -> None:
    """Rows before and after a bad page are saved with their ids, keys and order; pending ones become uncertain."""
    pages = table_pages(state / "outbox.db")
    assert len(pages) > 20
    damage_page(state / "outbox.db", pages[len(pages) // 2])
    events: list[Event] = []
    store = open_directly(state, emit=events.append)
    refusals = []
    for number in range(ROWS):  # an opening looks at no page of rows; to meet the bad one, touch all
        try:
            store.put(entry("other", key=f"key-{number}"))
        except (StorageError, KeyReusedError) as error:
            refusals.append(type(error))
    assert refusals.count(StorageError) == 1
    assert events, "the damage was found"
    event = events[0]
    assert isinstance(event, OutboxQuarantined)
    found = [row for row in store.list(Selection(limit=10_000)) if row.request.body["text"] != "other"]
    assert len(found) == event.salvaged
    lost = {f"key-{n}" for n in range(ROWS)} - {row.key for row in found}
    assert 2 <= len(lost) < 20, "two results, which are not saved, and one page"
    for row in found:
        number = int(row.key.removeprefix("key-"))
        assert row.id == number + 1
        assert row.request.body["text"].startswith(f"text {number} ")
        assert row.uncertain == (row.state is State.QUEUED)
    assert sum(row.state is State.DEAD for row in found) == 3
    assert store.put(entry("new")).row.id > ROWS
    balanced(store)
    claim = claimed(store, limit=1000)
    assert [row.id for row in claim.rows] == sorted(row.id for row in claim.rows)
    store.close()


def test_damage_is_met_by_two_threads(state: Path) -> None:
    """Damage found while several threads write is one quarantine, and all go on afterwards."""
    for page in table_pages(state / "outbox.db"):
        damage_page(state / "outbox.db", page)
    events: list[Event] = []
    store = open_directly(state, emit=events.append)
    done: list[int] = []

    def put(number: int) -> None:
        for attempt in range(20):
            with contextlib.suppress(StorageError):
                done.append(store.put(entry(f"{number} {attempt}", Lane("bob", str(number)))).row.id)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept(state)) == len(events) == 1
    assert len(done) >= 70
    assert {row.id for row in store.list(Selection(limit=10_000))} >= set(done)
    balanced(store)
    store.close()


def test_a_cut_file(state: Path) -> None:
    """Half a file: what is readable is saved, sooner or later, and no row is invented."""
    half(state / "outbox.db")
    store = open_directly(state)
    with contextlib.suppress(StorageError):
        store.put(entry())
    with contextlib.suppress(StorageError):
        store.claim(NOW)
    store.put(entry())
    assert len(kept(state)) == 1
    assert {row.key for row in store.list(Selection(limit=10_000)) if row.key.startswith("key-")} <= {
        f"key-{number}" for number in range(ROWS)
    }
    balanced(store)
    store.close()


def test_a_log_without_its_file(state: Path) -> None:
    """A write-ahead log whose file is gone is set aside too: SQLite would play it into the new file."""
    (state / "outbox.db").rename(state.parent / "elsewhere")
    (state / "outbox.db-wal").write_bytes(b"x" * 5000)
    (state / "outbox.db-wal").chmod(0o600)
    store = open_directly(state)
    assert store.stats().pending == 0
    store.put(entry())
    store.close()
    assert [path.name[-4:] for path in state.glob("*quarantined*")] == ["-wal"]


def test_a_newer_version_is_refused_and_left_alone(state: Path) -> None:
    """A file of a newer version is good: nothing is renamed, nothing is written, both versions are named."""
    with contextlib.closing(sqlite3.connect(state / "outbox.db")) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    before = (state / "outbox.db").read_bytes()
    with pytest.raises(SettingsError, match=f"format {schema.VERSION + 1}, this version of chatsdk knows 1"):
        open_directly(state)
    assert (state / "outbox.db").read_bytes() == before
    assert kept(state) == []


def test_a_version_that_grows_while_open(state: Path) -> None:
    """A newer version may upgrade the file while an old process has it open; what it adds does not disturb."""
    store = open_directly(state)
    with contextlib.closing(sqlite3.connect(state / "outbox.db")) as connection:
        connection.execute("ALTER TABLE `ack_queue_outbox` ADD COLUMN priority INTEGER NOT NULL DEFAULT 0")
        connection.execute("ALTER TABLE lanes ADD COLUMN region TEXT")
        connection.commit()
    assert store.put(entry()).created
    claim = claimed(store)
    store.finish(claim.lane, claim.rows[0].id, None, NOW)
    balanced(store)
    store.close()
    open_directly(state).close()


@pytest.mark.parametrize(
    "code",
    [
        "SQLITE_BUSY",
        "SQLITE_FULL",
        "SQLITE_IOERR_READ",
        "SQLITE_READONLY",
        "SQLITE_CANTOPEN",
        "SQLITE_PERM",
        "SQLITE_ERROR",
    ],
)
def test_what_is_no_damage(code: str) -> None:
    """A lock, a full disk, I/O and permissions say nothing about the file."""
    error = sqlite3.OperationalError("x")
    error.sqlite_errorcode = getattr(sqlite3, code)
    assert not trouble.is_damage(error)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT_INDEX
    assert trouble.is_damage(error)


def test_a_locked_file_is_not_damaged(state: Path) -> None:
    """Another program that holds the file gives StorageError; afterwards everything is as before."""
    store = open_directly(state, lock_timeout=0.2)
    with contextlib.closing(sqlite3.connect(state / "outbox.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="another program holds") as caught:
            store.put(entry("refused"))
        assert caught.value.code == "locked"
        assert store.stats().pending == ROWS - 5, "reading goes on"
        other.execute("ROLLBACK")
    assert store.put(entry()).created
    assert kept(state) == []
    store.close()


def test_another_process_replaces_the_file(state: Path) -> None:
    """A process that has the old file open notices, and goes on with the new one: nothing accepted is lost."""
    store = open_directly(state)
    store.put(entry("before"))
    other = Other(
        state,
        "import chatsdk.outbox.quarantine as q\n"
        "q.is_sound = lambda path: False\n"
        "def work(tx):\n"
        "    import sqlite3\n"
        "    error = sqlite3.DatabaseError('malformed'); error.sqlite_errorcode = 11\n"
        "    raise error\n"
        "try: store._write(work)\n"
        "except Exception as error: say(error.code)\n"
        "say(store.stats().pending)\n"
        "listen(); store.put(entry('theirs')); say('put'); listen()\n",
    )
    assert other.hear() == "damaged"
    assert other.hear() == str(ROWS - 4)
    assert len(kept(state)) == 1
    assert store.put(entry("mine")).created
    assert store.stats().pending == ROWS - 3
    other.tell()
    assert other.hear() == "put"
    assert store.stats().pending == ROWS - 2
    other.tell()
    other.end()
    assert store.put(entry("last")).created
    store.close()
    again = open_directly(state)
    assert again.stats().pending == ROWS - 1
    balanced(again)
    again.close()


def test_the_file_vanishes(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody removes the files of a running client: said loudly, and what is accepted from then on is kept."""
    store = open_directly(state)
    for path in state.glob("outbox.db*"):
        path.unlink()
    with caplog.at_level(logging.ERROR, "chatsdk.outbox"):
        assert store.put(entry()).created
    assert "vanished" in caplog.text
    assert store.stats().pending == 1
    store.close()
    again = open_directly(state)
    assert again.stats().pending == 1
    again.close()


def test_handlers_may_use_the_store(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event comes when nothing is held: a handler that sends a message does not hang, nor does a logging one."""
    monkeypatch.setattr(quarantine, "is_sound", lambda path: False)
    sent: list[int] = []

    def heard(event: Event) -> None:
        sent.append(store.put(entry("from a handler")).row.id)

    store = open_directly(state, emit=heard)

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            sent.append(store.put(entry("from a logging handler")).row.id)

    def fail(tx: object) -> None:
        error = sqlite3.DatabaseError("malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    handler = Handler()
    logging.getLogger("chatsdk.outbox").addHandler(handler)
    try:
        with pytest.raises(StorageError, match="damaged"):
            store._write(fail)
    finally:
        logging.getLogger("chatsdk.outbox").removeHandler(handler)
    assert len(sent) == 2
    balanced(store)
    store.close()


def test_killed_in_the_middle_of_a_quarantine(state: Path) -> None:
    """A crash after the old file was set aside and before the new one is in place loses no salvage."""
    damage_page(state / "outbox.db", table_pages(state / "outbox.db")[3])
    other = Other(
        state,
        "import chatsdk.outbox.quarantine as q\n"
        "aside = q.set_aside\n"
        "def die(*a):\n"
        "    aside(*a); say('dying'); os.kill(os.getpid(), 9)\n"
        "q.set_aside = die\n"
        f"for n in range({ROWS}):\n"
        "    try: store.put(entry('other', key=f'key-{n}'))\n"
        "    except Exception as error: pass\n",
    )
    assert other.hear() == "dying"
    other.kill()
    assert not (state / "outbox.db").exists()
    store = open_directly(state)
    assert store.stats().pending > ROWS - 25
    balanced(store)
    store.close()


def test_lanes_of_salvaged_rows(state: Path) -> None:
    """Salvaged rows go out: their lanes stand in the table."""
    stripped(state / "outbox.db")
    store = open_directly(state)
    lanes = {claimed(store, limit=1).lane for _ in range(2)}
    assert lanes == {Lane("alice", "channel-0"), Lane("alice", "channel-1")}
    assert LANE not in lanes
    store.close()
