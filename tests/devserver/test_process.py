"""The server as a process: it starts, dies and comes back; what was answered is still there."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from chatsdk.devserver.process import DevServer, ServerDidNotStart
from chatsdk.devserver.server import Ready, RemoteNotAllowed, describe, run
from chatsdk.devserver.settings import GENERAL_CHANNEL_ID, ServerSettings
from tests.devserver.caller import call, send


def test_kill_and_restart_keep_everything(tmp_path: Path) -> None:
    """After kill -9 the same port, secret and tokens; messages, keys and used refresh tokens are remembered."""
    with DevServer(tmp_path / "dev.db") as server:
        port, secret, token = server.port, server.secret, server.tokens["alice"]
        key = str(uuid.uuid4())
        assert send(server, "before", key).status == 201
        session = server.session("alice")
        fresh = call(server, "POST", "/api/auth/refresh", token=session["refreshToken"]).body["refreshToken"]
        server.kill()
        assert server.pid is None
        server.restart()
        assert (server.port, server.secret, server.channel_id) == (port, secret, GENERAL_CHANNEL_ID)
        assert send(server, "before", key, token=token).status == 200
        assert [message["text"] for message in server.log()["messages"]] == ["before"]
        assert call(server, "POST", "/api/auth/refresh", token=session["refreshToken"]).status == 401
        assert call(server, "POST", "/api/auth/refresh", token=fresh).status == 200


def test_kill_under_load_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    """Killed among many sends, twice: what was answered is there once, retries too, and seqs have no gap."""
    with DevServer(tmp_path / "dev.db") as server:
        for _ in range(2):
            answered, tried = _send_until_killed(server)
            assert answered, "the kill came before any answer"
            server.restart()
            logged = [message["key"] for message in server.log()["messages"]]
            assert answered <= set(logged)
            for key in tried - answered:
                assert send(server, "again", key).status in (200, 201)
        messages = server.log()["messages"]
        assert len({message["key"] for message in messages}) == len(messages)
        assert [message["seq"] for message in messages] == list(range(1, len(messages) + 1))
        ordinals = [attempt["ordinal"] for attempt in server.log()["attempts"]]
        assert len(set(ordinals)) == len(ordinals)


def _send_until_killed(server: DevServer) -> tuple[set[str], set[str]]:
    """Sends with three threads, kills the server once thirty were answered; returns answered and tried keys."""
    answered: set[str] = set()
    tried: set[str] = set()
    enough = threading.Event()

    def sender() -> None:
        while True:
            key = str(uuid.uuid4())
            tried.add(key)
            try:
                status = send(server, "load", key).status
            except (OSError, http.client.HTTPException):
                return
            assert status == 201
            answered.add(key)
            if len(answered) >= 30:
                enough.set()

    threads = [threading.Thread(target=sender) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert enough.wait(20)
    server.kill()
    for thread in threads:
        thread.join(20)
    return answered, tried


def test_server_dies_with_its_parent(tmp_path: Path) -> None:
    """A test process that is killed leaves no server behind."""
    code = (
        "import os, sys\n"
        "from chatsdk.devserver.process import DevServer\n"
        "server = DevServer().start()\n"
        "print(server.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    ends = time.monotonic() + 10
    while _lives(pid):
        assert time.monotonic() < ends, "the server outlived its parent"
        threading.Event().wait(0.02)


def test_server_can_outlive_its_parent() -> None:
    """With die_with_parent=False it goes on: a demo kills the client's process, not the server."""
    code = (
        "from chatsdk.devserver.process import DevServer\n"
        "server = DevServer(die_with_parent=False).start()\n"
        "print(server.pid, server.port, flush=True)\n"
        "import os; os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=_environment(), timeout=30
    )
    pid, port = map(int, done.stdout.split())
    try:
        server = DevServer(port=port)
        server.url = f"http://127.0.0.1:{port}"
        assert server.state()["messages"] == 0
    finally:
        os.kill(pid, signal.SIGKILL)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # dead, and nobody has asked for its status yet


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_stop_is_orderly_and_repeatable() -> None:
    """stop() ends the server; again, or before any start, it does nothing."""
    server = DevServer()
    server.stop()
    server.start()
    pid = server.pid
    assert pid is not None
    server.stop()
    server.stop()
    assert not _lives(pid)


def test_ready_file_and_json(tmp_path: Path) -> None:
    """The ready file holds what --json prints, complete and for the owner only."""
    ready_file = tmp_path / "ready.json"
    with DevServer(ready_file=ready_file) as server:
        ready = json.loads(ready_file.read_text())
        assert (ready["url"], ready["pid"]) == (server.url, server.pid)
        assert set(ready["tokens"]) == {"alice", "bob"}
        assert stat.S_IMODE(ready_file.stat().st_mode) == 0o600


def test_text_for_people() -> None:
    """What serve prints can be copied: address, tokens of two users, the channel; never the signing secret."""
    ready = Ready(
        url="http://127.0.0.1:1",
        host="127.0.0.1",
        port=1,
        pid=1,
        app_id="a",
        api_key="k",
        secret="the-secret",
        ws_secret="the-other",
        channel_id=GENERAL_CHANNEL_ID,
        tokens={"alice": "t1", "bob": "t2"},
        ws_tokens={},
    )
    text = describe(ready)
    assert all(part in text for part in ("http://127.0.0.1:1", "t1", "t2", "general", GENERAL_CHANNEL_ID))
    assert "the-secret" not in text
    assert "the-other" not in text


def test_second_server_on_one_file_is_refused(tmp_path: Path) -> None:
    """Two servers never share a data file: the second one does not start, the first goes on."""
    with DevServer(tmp_path / "dev.db") as first:
        assert send(first, "mine").status == 201
        with pytest.raises(ServerDidNotStart):
            DevServer(tmp_path / "dev.db").start()
        assert len(first.log()["messages"]) == 1


@pytest.mark.parametrize("foreign", ["text", "database"])
def test_foreign_file_is_refused_and_left_alone(tmp_path: Path, foreign: str) -> None:
    """A file of another program is not touched."""
    path = tmp_path / "theirs.db"
    if foreign == "text":
        path.write_text("not a database, but long enough to be looked at as one\n" * 40)
    else:
        with contextlib.closing(sqlite3.connect(path)) as theirs:
            theirs.execute("CREATE TABLE important (value)")
            theirs.commit()
    with pytest.raises(ServerDidNotStart):
        DevServer(path).start()
    if foreign == "text":
        assert path.read_text().startswith("not a database")
    else:
        with contextlib.closing(sqlite3.connect(path)) as theirs:
            assert [row[0] for row in theirs.execute("SELECT name FROM sqlite_master")] == ["important"]


def test_data_file_is_private(tmp_path: Path) -> None:
    """The file holds signing secrets: only its owner may read it or its companions."""
    with DevServer(tmp_path / "dev.db") as server:
        send(server, "x")
        for path in tmp_path.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_remote_host_must_be_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    """A host that others can reach is refused, and allowed only with a loud warning."""
    with pytest.raises(RemoteNotAllowed):
        run(ServerSettings(host="192.0.2.1"))
    with caplog.at_level(logging.WARNING), pytest.raises(OSError):  # the address is not this machine's
        run(ServerSettings(host="192.0.2.1", allow_remote=True))
    assert "LISTENS ON 192.0.2.1" in caplog.text


def test_process_needs_no_server_library() -> None:
    """Importing DevServer loads neither the server's extra nor any other part of the SDK."""
    code = (
        "import sys, chatsdk.devserver.process\n"
        "heavy = {'starlette', 'uvicorn', 'jwt', 'requests', 'sqlite3'} & set(sys.modules)\n"
        "ours = [name for name in sys.modules if name.startswith('chatsdk.') and 'devserver' not in name]\n"
        "assert not heavy and not ours, (heavy, ours)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=_environment(), timeout=30)
