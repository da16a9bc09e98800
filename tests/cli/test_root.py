"""Root's command line works as the owner of the outbox, and leaves nothing of its own there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from chatsdk.config import server_name
from chatsdk.devserver.process import DevServer
from tests.cli.conftest import Shell, end
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() != 0, reason="only root can become somebody else"
)

Texts = Callable[[], list[str]]
OWNER, ANOTHER = 54321, 54322
"""Users without an entry in the user database, as in many a container."""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody may pass through; pytest's own may not be."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def theirs(open_directory: Path, chatsdk: Shell) -> Path:
    """The state directory of OWNER's, which the command line is to use."""
    path = open_directory / "state"
    path.mkdir(0o700)
    os.chown(path, OWNER, OWNER)
    chatsdk.environ["CHATSDK_STATE_DIR"] = str(path)
    return path


def owners(directory: Path) -> set[tuple[int, int]]:
    """User and group of all that is in a directory, and of itself."""
    return {(path.lstat().st_uid, path.lstat().st_gid) for path in (directory, *directory.rglob("*"))}


def test_all_files_are_the_owners(chatsdk: Shell, theirs: Path, channel: str, server: DevServer, texts: Texts) -> None:
    """Sending, queueing, looking, flushing, retrying: whatever root does first, each file belongs to the owner."""
    sent = chatsdk("send", channel, "one", "--json")
    assert (sent.code, sent.json["state"]) == (0, "SENT")
    assert sent.err == f"chatsdk: working as user {OWNER}, who owns {theirs}\n"
    server.kill()
    assert chatsdk("send", channel, "two", "--wait", "0.2s").code == 75  # a claimed lane: there is an owners/ now
    assert chatsdk("send", channel, "three", "--no-wait").code == 0
    (place,) = theirs.glob("*/default")
    assert {each.name for each in place.iterdir()} >= {"outbox.db", "write.lock", "reserve", "owners"}
    assert owners(theirs) == {(OWNER, OWNER)}
    assert [each["text"] for each in chatsdk("outbox", "list", "--json").json["messages"]] == ["two", "three"]
    assert chatsdk("outbox", "discard", "3").out == "1 discarded\n"
    assert owners(theirs) == {(OWNER, OWNER)}


def test_an_outage_is_survived_as_the_owner(
    chatsdk: Shell, theirs: Path, channel: str, server: DevServer, texts: Texts
) -> None:
    """What was queued is sent by a flush of root's, or by a drainer that root started."""
    server.faults("status", operation="send", status=503)
    assert chatsdk("send", channel, "one", "--wait", "0.1s").code == 75
    server.clear_faults()
    assert chatsdk("outbox", "flush", "--budget", "20s").code == 0
    drainer = chatsdk.start("outbox", "run")
    eventually(lambda: f"Uid:\t{OWNER}\t{OWNER}\t{OWNER}" in Path(f"/proc/{drainer.pid}/status").read_text())
    status = Path(f"/proc/{drainer.pid}/status").read_text()
    assert f"Gid:\t{OWNER}\t{OWNER}\t{OWNER}" in status
    assert f"Groups:\t{OWNER}" in status
    chatsdk("send", channel, "two", "--no-wait")
    eventually(lambda: texts() == ["one", "two"])
    assert end(drainer, signal.SIGTERM).code == 0
    assert owners(theirs) == {(OWNER, OWNER)}


def test_where_nothing_is_yet(chatsdk: Shell, theirs: Path, channel: str) -> None:
    """Directories that have to be made belong to who owns the nearest one that there is."""
    chatsdk.environ["CHATSDK_STATE_DIR"] = str(theirs / "deep" / "state")
    assert chatsdk("send", channel, "text").code == 0
    assert list(theirs.glob("deep/state/*/default/outbox.db"))
    assert owners(theirs) == {(OWNER, OWNER)}


def test_roots_own_outbox(chatsdk: Shell, channel: str, tmp_path: Path) -> None:
    """Where nobody else is concerned nothing is said, and the files are root's."""
    assert chatsdk("send", channel, "text").err == ""
    assert owners(tmp_path / "state") == {(0, os.getegid())}


def test_settings_are_roots(chatsdk: Shell, theirs: Path, open_directory: Path, channel: str) -> None:
    """The file of settings is read before, so it may be root's alone."""
    file = open_directory / "config.toml"
    file.write_text(f'token = "{chatsdk.environ["CHATSDK_TOKEN"]}"\n')
    file.chmod(0o600)
    assert chatsdk("send", channel, "text", "--config", str(file), CHATSDK_TOKEN=None).code == 0


def test_a_link_is_not_followed(chatsdk: Shell, theirs: Path, open_directory: Path, channel: str) -> None:
    """The owner of what a link points to is not whom root becomes; the link is refused."""
    chatsdk("send", channel, "text")
    (place,) = theirs.glob("*/default")
    elsewhere = open_directory / "elsewhere"
    elsewhere.mkdir()
    os.chown(elsewhere, ANOTHER, ANOTHER)
    shutil.rmtree(place)
    place.symlink_to(elsewhere)
    os.chown(place, OWNER, OWNER, follow_symlinks=False)
    ended = chatsdk("send", channel, "text")
    assert ended.code == 78
    assert "is a link" in ended.err
    assert list(elsewhere.iterdir()) == []


def test_files_of_two_owners_are_refused(chatsdk: Shell, theirs: Path, channel: str) -> None:
    """A file that somebody else put into the owner's directory is refused, as it is for the owner."""
    chatsdk("send", channel, "text")
    (place,) = theirs.glob("*/default")
    os.chown(place / "outbox.db", ANOTHER, ANOTHER)
    ended = chatsdk("send", channel, "text")
    assert ended.code == 78
    assert str(ANOTHER) in ended.err


def test_all_outboxes_of_several_owners(
    chatsdk: Shell, open_directory: Path, channel: str, server: DevServer, nowhere: str
) -> None:
    """`outbox list --all` looks into each as its owner, and is root again for the next one."""
    base = open_directory / "shared"
    base.mkdir()
    chatsdk.environ["CHATSDK_STATE_DIR"] = str(base)
    for url, owner in ((server.url, OWNER), (nowhere, ANOTHER)):
        below = base / server_name(url)
        below.mkdir(0o700)
        os.chown(below, owner, owner)
        assert chatsdk("send", channel, f"of {owner}", "--no-wait", CHATSDK_URL=url).code == 0
    found = chatsdk("outbox", "list", "--all", "--json")
    assert found.code == 0, found.err
    assert {each["text"] for each in found.json["messages"]} == {f"of {OWNER}", f"of {ANOTHER}"}
    assert owners(base / server_name(server.url)) == {(OWNER, OWNER)}
    assert owners(base / server_name(nowhere)) == {(ANOTHER, ANOTHER)}


def test_root_that_may_not(chatsdk: Shell, theirs: Path, channel: str) -> None:
    """In a container without the right to become somebody else: 78, what to do, and nothing is left behind."""
    if shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv to take the right away with")
    without = ("setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid")
    ended = subprocess.run(
        [*without, sys.executable, "-m", "chatsdk", "send", channel, "text"],
        env=chatsdk.environment({}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 78, ended.stderr
    assert f"belongs to user {OWNER}" in ended.stderr
    assert "run the command as that user" in ended.stderr
    assert list(theirs.iterdir()) == []
