"""gunicorn and uWSGI with two workers: whether the application is loaded in the master or in each worker, workers send
at once on their own sockets, what the master had accepted is sent once, and ends lose nothing and wait for nobody."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from chatsdk import ChatClient
from chatsdk.devserver.process import DevServer
from tests.servers.proc import share_nothing
from tests.servers.running import Program, running
from tests.servers.web import ask, ask_all, listens

ROWS = 5  # as in app.py, which is for web servers to import
WORKERS = 2
AT_ONCE_S = 1.0
END_S = 3.0
"""What the end of a server may take that has nothing to wait for, on a busy machine."""

BIN = Path(sys.executable).parent


def gunicorn(place: Path, *more: str) -> list[str]:
    """The command of a server that listens at `place/web`."""
    command = [sys.executable, "-m", "gunicorn", "tests.servers.app:application", "--bind", f"unix:{place}/web"]
    return [*command, "--workers", str(WORKERS), "--no-control-socket", "--graceful-timeout", "5", *more]


def uwsgi(place: Path, *more: str) -> list[str]:
    """As `gunicorn`."""
    command = [_uwsgi(), "--http-socket", f"{place}/web", "--module", "tests.servers.app", "--master", "--die-on-term"]
    home = ["--virtualenv", sys.prefix] if sys.prefix != sys.base_prefix else []
    return [*command, "--processes", str(WORKERS), "--enable-threads", "--need-app", *home, *more]


def _uwsgi() -> str:
    found = shutil.which("uwsgi", path=f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip("there is no uwsgi here: `pip install uwsgi` builds one where there is a C compiler")
    return found


SERVERS = {
    "gunicorn": lambda place: gunicorn(place),
    "gunicorn-preload": lambda place: gunicorn(place, "--preload"),
    "uwsgi": lambda place: uwsgi(place),
    "uwsgi-lazy-apps": lambda place: uwsgi(place, "--lazy-apps"),
    "uwsgi-afterfork": lambda place: uwsgi(place, "--py-call-osafterfork"),
    "uwsgi-hooks": lambda place: uwsgi(place, "--py-call-uwsgi-fork-hooks"),
}
"""uWSGI calls none of Python's hooks, or only that of the child, or its own choice of them."""

PRELOADED = {"gunicorn-preload", "uwsgi", "uwsgi-afterfork", "uwsgi-hooks"}


def served(command: list[str], environment: dict[str, str], place: Path) -> AbstractContextManager[Program]:
    """The server, which ends with the test."""
    return running(command, {**environment, "CHATSDK_EXIT_TIMEOUT": "0"}, place)


def left_behind(environment: dict[str, str]) -> int:
    """Deliver what is still in the outbox, as the next run does; how many were."""
    url, token, state = (environment[f"CHATSDK_{name}"] for name in ("URL", "TOKEN", "STATE_DIR"))
    with ChatClient(url, token, state_dir=state, discover=False, background=False) as chat:
        report = chat.outbox.flush(10)
        assert report.queued == report.dead == 0
        return report.sent


@pytest.mark.parametrize("name", SERVERS)
def test_workers_send_at_once(
    name: str,
    server: DevServer,
    place: Path,
    environment: dict[str, str],
    channel: str,
    texts: Callable[..., list[str]],
) -> None:
    """The client starts where the application is loaded; every worker sends within a second, shares no socket and no
    lock with another process, and what was accepted while loading is sent once and in order."""
    asked = server.channel("alice", "bob")
    with served(SERVERS[name](place), {**environment, "CHAT_START": "1"}, place) as program:
        program.until(lambda: listens(place / "web"), "listening server")
        answers, sent = ask_all(place / "web", asked, WORKERS)
        assert {each["state"] for each in answers} == {"SENT"}
        assert max(each["took"] for each in answers) < AT_ONCE_S
        workers = {each["pid"] for each in answers}
        assert program.pid not in workers
        share_nothing([*workers, program.pid] if name in PRELOADED else workers, server.port)
        loads = 1 if name in PRELOADED else WORKERS
        wanted = ["loaded first", *(f"loaded {n}" for n in range(ROWS))]
        program.until(lambda: len(texts(channel)) >= loads * len(wanted), "delivery of what was accepted while loading")
        code, _ = program.end(signal.SIGTERM)
        assert code == 0, program.errors.read_text()
    assert sorted(texts(asked)) == sorted(sent)
    assert sorted(texts(channel)) == sorted(loads * wanted)
    if loads == 1:
        assert texts(channel) == wanted
    assert left_behind(environment) == 0


@pytest.mark.parametrize("name", ["gunicorn", "uwsgi"])
def test_workers_that_end_wait_for_nobody(
    name: str, server: DevServer, place: Path, environment: dict[str, str], texts: Callable[..., list[str]]
) -> None:
    """With `exit_timeout` 0 a chat that hangs delays no worker's end; what was accepted goes out with the next run."""
    asked = server.channel("alice", "bob")
    server.faults("latency", operation="send", ms=30_000)
    with served(SERVERS[name](place), environment, place) as program:
        program.until(lambda: listens(place / "web"), "listening server")
        assert ask(place / "web", channel=asked, text="left", wait=0)["state"] == "QUEUED"
        code, took = program.end(signal.SIGTERM)
        assert code == 0, program.errors.read_text()
        assert took < END_S
    server.clear_faults()
    assert left_behind(environment) == 1
    assert texts(asked) == ["left"]


@pytest.mark.parametrize("name", ["gunicorn", "uwsgi"])
def test_workers_that_close_their_client(
    name: str, server: DevServer, place: Path, environment: dict[str, str], texts: Callable[..., list[str]]
) -> None:
    """`close()` in the hook that a server calls when a worker ends delivers what the worker had accepted."""
    hook = {
        "gunicorn": ["--config", "python:tests.servers.gunicorn_conf"],
        "uwsgi": ["--import", "tests.servers.uwsgi_hook"],
    }
    asked = server.channel("alice", "bob")
    with served([*SERVERS[name](place), *hook[name]], environment, place) as program:
        program.until(lambda: listens(place / "web"), "listening server")
        ask(place / "web", channel=asked, text="first", wait=10)
        server.faults("latency", operation="send", ms=300)
        for n in range(3):
            ask(place / "web", channel=asked, text=f"left {n}", wait=0)
        code, _ = program.end(signal.SIGTERM)
        assert code == 0, program.errors.read_text()
        found = texts(asked)
    assert sorted(found) == ["first", "left 0", "left 1", "left 2"]
    assert left_behind(environment) == 0
