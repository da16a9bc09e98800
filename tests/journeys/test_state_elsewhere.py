"""Where a state directory lies and who wrote it: two profiles, no home, no locks, and other versions of the SDK."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from chatsdk import ChatClient, SettingsError, State
from chatsdk.devserver.process import DevServer
from tests.journeys.senders import Steady, all_arrived

HERE = Path(__file__).parent

Connect = Callable[..., ChatClient]
Texts = Callable[[str], list[str]]
Start = Callable[..., Steady]


def place(state_dir: Path, profile: str = "default") -> Path:
    """The one outbox below a state directory."""
    (found,) = state_dir.glob(f"*/{profile}")
    return found


# ---- profiles, homes, file systems


def test_two_profiles(connect: Connect, server: DevServer, channel: str, state_dir: Path, texts: Texts) -> None:
    """Each has an outbox of its own in the same state directory: keys, locks and closing of one are nothing to the
    other."""
    server.faults("status", operation="send", status=503)
    chats = {name: connect(profile=name, close_timeout=0.2) for name in ("day", "night")}
    receipts = {name: chat.send(channel, name, wait=0) for name, chat in chats.items()}
    assert {
        name: [each.message or each.to_dict()["text"] for each in chat.outbox.list()] for name, chat in chats.items()
    } == {
        "day": ["day"],
        "night": ["night"],
    }
    chats["day"].close()
    server.clear_faults()
    assert receipts["night"].wait(10).state is State.SENT
    assert texts(channel) == ["night"]
    again = connect(profile="day")
    assert again.outbox.flush(10).sent == 1
    assert texts(channel) == ["night", "day"]
    assert place(state_dir, "day") != place(state_dir, "night")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user without an entry")
def test_no_home_and_no_entry(environment: dict[str, str], channel: str, tmp_path: Path, texts: Texts) -> None:
    """A container's arbitrary user: without a state directory an error that names the variable; with one all works."""
    state = Path(tempfile.mkdtemp())
    try:
        ended = subprocess.run(
            [sys.executable, str(HERE / "homeless.py"), channel, str(tmp_path), str(state)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        without, with_ = map(json.loads, ended.stdout.splitlines())
    finally:
        shutil.rmtree(state)
    assert without["type"] == "SettingsError"
    assert "home" in without["message"]
    assert "CHATSDK_STATE_DIR" in without["hint"]
    assert with_ == {"state": "SENT"}
    assert texts(channel) == ["warm", "with"]


@pytest.mark.parametrize("code", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_a_file_system_without_locks(
    code: str, environment: dict[str, str], server: DevServer, channel: str, state_dir: Path
) -> None:
    """Refused by the call that opens the outbox, with what to do; nothing was accepted."""
    ended = subprocess.run(
        [sys.executable, "-c", _WITHOUT_LOCKS, code, channel],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert said["type"] == "SettingsError"
    assert "lock" in said["message"]
    assert str(state_dir) in said["message"]
    assert "CHATSDK_STATE_DIR" in said["hint"]
    assert not [each for each in server.log()["messages"] if each["channel"] == channel]


_WITHOUT_LOCKS = """
import errno, fcntl, json, os, sys
def lockf(*_):
    number = getattr(errno, sys.argv[1])
    raise OSError(number, os.strerror(number))
fcntl.lockf = lockf
from chatsdk import ChatClient, ChatError
with ChatClient() as chat:
    try: chat.send(sys.argv[2], "text")
    except ChatError as error: print(json.dumps(error.to_dict()))
"""


# ---- other versions


_LATER_VERSION = """
from chatsdk.outbox import schema
head, tail = schema.CREATE_TABLE.rsplit("finished_at REAL", 1)
schema.CREATE_TABLE = f"{head}finished_at REAL, priority INTEGER NOT NULL DEFAULT 7, note TEXT{tail}"
schema.CREATE_REST = (
    *[each.replace("PRIMARY KEY(user", "weight REAL DEFAULT 1.5, PRIMARY KEY(user") for each in schema.CREATE_REST],
    "ALTER TABLE counters ADD COLUMN expired INTEGER NOT NULL DEFAULT 0",
    "CREATE TABLE receipts(id INTEGER PRIMARY KEY, what TEXT)",
    f"CREATE INDEX by_priority ON {schema.TABLE}(priority) WHERE status < 2",
    f"CREATE TRIGGER noted AFTER INSERT ON {schema.TABLE} BEGIN"
    f" UPDATE {schema.TABLE} SET note = 'n' WHERE _id = new._id; END",
)
"""


def test_the_version_after_this_one(
    connect: Connect, start: Start, channel: str, state_dir: Path, texts: Texts
) -> None:
    """A file that the next version made, with columns, tables and indexes of its own: both work on it at once, and what
    the other one keeps there stays."""
    later = start("later", channel, _LATER_VERSION)
    now = start("now", channel)
    later.sends()
    now.sends()
    assert (later.end(), now.end()) == ("", "")
    all_arrived(texts(channel), later, now)
    with connect() as chat:
        assert chat.send(channel, "again").state is State.SENT
    with closing(sqlite3.connect(place(state_dir) / "outbox.db")) as connection:
        rows = connection.execute("SELECT priority, note FROM ack_queue_outbox").fetchall()
    assert len(rows) > 40
    assert set(rows) == {(7, "n")}


def test_a_version_that_is_too_new_comes_while_we_run(
    connect: Connect, server: DevServer, channel: str, state_dir: Path, texts: Texts
) -> None:
    """An upgrade of the file under a running client does not disturb it; whoever opens it afterwards is refused, and
    the file stays as it is."""
    chat = connect()
    chat.send(channel, "before")
    with closing(sqlite3.connect(place(state_dir) / "outbox.db")) as connection:
        connection.execute("ALTER TABLE ack_queue_outbox ADD COLUMN priority INTEGER NOT NULL DEFAULT 7")
        connection.execute("PRAGMA user_version = 2")
    assert chat.send(channel, "after").state is State.SENT
    chat.close()
    with pytest.raises(SettingsError, match="format 2"):
        connect().send(channel, "refused")
    assert texts(channel) == ["before", "after"]
    assert not list(place(state_dir).glob("*quarantined*"))
