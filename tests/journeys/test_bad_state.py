"""A state directory that can't be trusted or used is refused with a hint; a damaged file costs nothing readable."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from chatsdk import ChatClient, SettingsError, State, events
from chatsdk.devserver.process import DevServer

UNPRIVILEGED = Path(__file__).with_name("unprivileged.py")
NOBODY = 65534


def refused(chat: ChatClient, channel: str) -> SettingsError:
    """The first send raises SettingsError, which says what to do."""
    with pytest.raises(SettingsError) as caught:
        chat.send(channel, "text")
    assert caught.value.hint
    return caught.value


def own(state_dir: Path) -> Path:
    """The one outbox directory below a state directory."""
    (found,) = state_dir.glob("*/default")
    return found


def test_directory_that_is_a_file(connect: Callable[..., ChatClient], channel: str, tmp_path: Path) -> None:
    """And one below a file."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert str(tmp_path / "file") in str(refused(connect(state_dir=str(path)), channel))


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_directory_that_others_may_write(
    mode: int, connect: Callable[..., ChatClient], channel: str, state_dir: Path
) -> None:
    """The hint is the command that closes it, after which the same client works."""
    connect().send(channel, "before")
    own(state_dir).chmod(mode)
    chat = connect()
    assert f"chmod 700 {own(state_dir)}" in refused(chat, channel).hint
    own(state_dir).chmod(0o700)
    assert chat.send(channel, "after").state is State.SENT


@pytest.mark.parametrize("what", ["outbox.db", "wake", "."])
def test_link_in_place_of_ours(what: str, connect: Callable[..., ChatClient], channel: str, state_dir: Path) -> None:
    """A link would let somebody else choose what we write: refused, not followed."""
    with connect() as chat:
        chat.send(channel, "before")
    path = own(state_dir) if what == "." else own(state_dir) / what
    if what == "outbox.db":
        path = next(own(state_dir).glob("*.db"))
    elsewhere = state_dir / "elsewhere"
    os.rename(path, elsewhere) if path.exists() else elsewhere.write_text("")
    path.symlink_to(elsewhere)
    assert "link" in str(refused(connect(), channel))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_directory_of_somebody_else(connect: Callable[..., ChatClient], channel: str, state_dir: Path) -> None:
    """Whose it is is said."""
    with connect() as chat:
        chat.send(channel, "before")
    os.chown(own(state_dir), NOBODY, NOBODY)
    assert str(NOBODY) in str(refused(connect(), channel))
    os.chown(own(state_dir), 0, 0)
    os.chown(next(own(state_dir).glob("*.db")), NOBODY, NOBODY)
    assert str(NOBODY) in str(refused(connect(), channel))


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody may pass through; pytest's own may not be."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    for below in path.rglob("*"):
        below.chmod(0o700)
    shutil.rmtree(path)


@pytest.mark.parametrize("mode", [0o500, 0o000], ids=["read only", "unreadable"])
@pytest.mark.parametrize("which", ["the directory", "the outbox"])
def test_directory_without_permission(
    which: str, mode: int, environment: dict[str, str], channel: str, open_directory: Path, tmp_path: Path
) -> None:
    """Before there is an outbox, and when there is one: a typed error with a hint, not a traceback of the disk."""
    ended = subprocess.run(
        [sys.executable, str(UNPRIVILEGED), channel, str(tmp_path), str(open_directory), which, str(mode)],
        env=environment,
        stdout=subprocess.PIPE,
        timeout=30,
        check=True,
    )
    said = json.loads(ended.stdout)
    assert said["type"] in ("SettingsError", "StorageError"), said
    assert said["hint"]
    assert str(open_directory) in said["message"]


def test_file_of_a_newer_version(
    connect: Callable[..., ChatClient],
    server: DevServer,
    channel: str,
    state_dir: Path,
    texts: Callable[[str], list[str]],
) -> None:
    """It is refused and left as it is; what waits in it goes out as soon as a client understands it."""
    server.faults("status", operation="send", status=503)
    with connect(close_timeout=0) as chat:
        chat.send(channel, "waits", wait=0)
    (file,) = own(state_dir).glob("*.db")
    with closing(sqlite3.connect(file)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute("PRAGMA user_version = 999")
    before = file.read_bytes()
    assert "999" in str(refused(connect(), channel))
    assert file.read_bytes() == before
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    server.clear_faults()
    with connect() as chat:
        chat.send(channel, "next")
    assert texts(channel) == ["waits", "next"]


@pytest.mark.parametrize("damage", ["header", "empty", "noise", "middle", "foreign"])
def test_file_that_is_damaged(
    damage: str,
    connect: Callable[..., ChatClient],
    server: DevServer,
    channel: str,
    state_dir: Path,
    texts: Callable[[str], list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is kept beside a new one, said loudly, and the client works; what can still be read of it is delivered, at
    most once and in order."""
    server.faults("status", operation="send", status=503)
    with connect(close_timeout=0) as chat:
        for n in range(200):
            chat.send(channel, f"{n} {'x' * 500}", wait=0)
    server.clear_faults()
    (file,) = own(state_dir).glob("*.db")
    _damage(file, damage)
    chat = connect()
    seen: list[events.OutboxQuarantined] = []
    chat.on(events.OutboxQuarantined, seen.append)
    with caplog.at_level(logging.ERROR, "chatsdk"):
        # damage that only a later read meets is found by a thread, after some messages have gone
        assert chat.send(channel, "new").wait(10).state is State.SENT
    arrived = [int(text.split()[0]) for text in texts(channel) if text != "new"]
    if damage == "middle" and not seen:  # the page was one that nothing needs
        assert arrived == list(range(200))
        return
    (event,) = seen
    assert Path(event.path).exists()
    assert any("quarantine" in record.getMessage() or event.path in record.getMessage() for record in caplog.records)
    assert sorted(set(arrived)) == arrived
    assert len(arrived) >= event.salvaged - (damage == "middle")  # "new" may have been among them
    assert texts(channel)[-1] == "new"


def _damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "header":
        content[:100] = b"\0" * 100
    elif how == "empty":
        content = bytearray()
    elif how == "noise":
        content = bytearray(b"noise" * 1000)
    elif how == "middle":
        start = len(content) // 4096 // 2 * 4096
        content[start : start + 4096] = b"\xa5" * 4096
    else:
        content = bytearray()
        file.unlink()
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE notes (text)")
            connection.commit()
        file.chmod(0o600)
        return
    file.write_bytes(content)
