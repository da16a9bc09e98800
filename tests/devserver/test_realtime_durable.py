"""What the realtime side keeps: in a data file everything but presence, in memory nothing."""

from __future__ import annotations

import http.client
import signal
import sqlite3
import threading
from pathlib import Path

import pytest

from chatsdk.devserver.process import DevServer
from chatsdk.devserver.store.database import SCHEMA, SCHEMA_VERSION, Database, DataFileError
from tests.devserver.caller import send
from tests.devserver.listening import listening, offsets, subscribe
from tests.devserver.wsclient import WsClient


def position(server: DevServer, stream: str) -> dict[str, object]:
    found: dict[str, object] = server.realtime.overview()["streams"][stream]
    return found


def test_killed_server_keeps_epoch_and_history(tmp_path: Path) -> None:
    """kill -9: the same epoch, the same offsets, and what was missed is recovered."""
    with DevServer(tmp_path / "data.db") as server:
        stream = server.stream()
        with listening(server, "bob", stream, recoverable=True) as bob:
            send(server, "one")
            epoch = bob.message()["push"]["pub"]["epoch"]
        for text in ("two", "three"):
            send(server, text)
        server.kill()
        server.start()
        assert position(server, stream) == {"offset": 3, "epoch": epoch}
        with listening(server, "bob") as bob:
            reply = subscribe(server, bob, "bob", stream, 2, recoverable=True, recover=True, offset=1, epoch=epoch)
            told = reply["subscribe"]
            assert told["recovered"] is True
            texts = [each["data"]["payload"]["message"]["text"] for each in told["publications"]]
            assert texts == ["two", "three"]
            send(server, "four")
            assert offsets(bob, 1) == [4]


def test_no_kill_parts_a_message_from_its_event(tmp_path: Path) -> None:
    """Killed at any moment of a stream of sends, the server has an event for every message that it accepted."""
    with DevServer(tmp_path / "data.db", history_size=10_000) as server:
        for turn in range(4):
            sender = threading.Thread(target=_send_until_killed, args=(server,))
            sender.start()
            before = server.state()["messages"]
            while server.state()["messages"] < before + 20:
                pass
            server.kill()
            sender.join(20)
            server.start()
            accepted = [message["key"] for message in server.log()["messages"]]
            kept = server.realtime.api("history", channel=server.stream(), limit=-1)["result"]["publications"]
            published = [each["data"]["payload"]["message"]["id"] for each in kept]
            assert published == accepted, turn
            assert [each["offset"] for each in kept] == list(range(1, len(kept) + 1))


def _send_until_killed(server: DevServer) -> None:
    for number in range(10_000):
        try:
            send(server, str(number))
        except (OSError, http.client.HTTPException):  # killed before, or in the middle of an answer
            return


def test_memory_forgets() -> None:
    """In memory a restart is a new epoch, and recovery from before fails."""
    with DevServer() as server:
        stream = server.stream()
        with listening(server, "bob", stream, recoverable=True) as bob:
            send(server, "one")
            epoch = bob.message()["push"]["pub"]["epoch"]
        server.restart()
        with listening(server, "bob") as bob:
            told = subscribe(server, bob, "bob", stream, 2, recoverable=True, recover=True, offset=1, epoch=epoch)
        assert told["subscribe"]["epoch"] != epoch
        assert "recovered" not in told["subscribe"]
        assert told["subscribe"]["was_recovering"] is True


def test_without_recovery_as_the_real_setup() -> None:
    """no_recovery: `chat` gives no position and replays nothing, though publications carry offsets."""
    with DevServer(no_recovery=True) as server:
        stream = server.stream()
        send(server, "one")
        with listening(server, "bob") as bob:
            told = subscribe(server, bob, "bob", stream, 2, recoverable=True, recover=True, offset=0, epoch="")
            assert set(told["subscribe"]) == {"expires", "ttl", "was_recovering"}
            send(server, "two")
            assert offsets(bob, 1) == [2]


def test_history_is_bounded() -> None:
    """So many publications are kept as the setting says, and not one less reaches back."""
    with DevServer(history_size=10) as server:
        stream = server.stream()
        server.realtime.publish(stream, *range(100))
        kept = server.realtime.api("history", channel=stream, limit=-1)["result"]["publications"]
        assert [each["offset"] for each in kept] == list(range(91, 101))
        epoch = position(server, stream)["epoch"]
        for offset, recovered in ((89, False), (90, True)):
            with listening(server, "bob") as bob:
                wish = {"recoverable": True, "recover": True, "offset": offset, "epoch": epoch}
                told = subscribe(server, bob, "bob", stream, 2, **wish)["subscribe"]
                assert told.get("recovered", False) is recovered
                assert len(told.get("publications", ())) == (10 if recovered else 0)


def test_reset_ends_connections_and_epochs() -> None:
    """A reset closes every connection with 3001 and begins new epochs."""
    with DevServer() as server:
        send(server, "one")
        epoch = position(server, server.stream())["epoch"]
        with listening(server, "bob") as bob:
            server.reset()
            assert bob.message() == {"close": 3001, "reason": "shutdown"}
        send(server, "two")
        assert position(server, server.stream())["epoch"] != epoch


def test_data_file_of_the_version_before(tmp_path: Path) -> None:
    """A file from before there were streams is taken over, with all that is in it."""
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as old:
        old.executescript(SCHEMA + "PRAGMA user_version = 1;")
        old.execute("INSERT INTO settings VALUES ('secret', 'kept')")
    old.close()
    database = Database(str(path))
    assert database.setting("secret", "new") == "kept"
    assert database.value("SELECT count(*) FROM publications") == 0
    assert database.value("PRAGMA user_version") == SCHEMA_VERSION
    database.close()
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    newer.close()
    with pytest.raises(DataFileError):
        Database(str(path))


def test_server_that_stops_does_not_wait_for_deaf_clients() -> None:
    """Clients that never answer the close frame, or are half open, do not hold up the server's end."""
    with DevServer() as server, listening(server, "bob"), listening(server, "alice"):
        server.realtime.half_open("alice")
        with WsClient(server.port, "/connection/websocket"):
            process = server.process
            assert process is not None
            server.stop()
            assert process.returncode == -signal.SIGTERM  # not SIGKILL, which `stop` falls back on
