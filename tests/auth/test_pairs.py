"""The kept pair: whole or not at all, only for the token it came from, and one refresh over all processes."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatsdk.auth import PairStore
from chatsdk.auth.pairs import origin_of
from chatsdk.core.errors import StorageError, TokenExpiredError, TokenUnavailableError
from chatsdk.core.tokens import Secret, Token
from chatsdk.resilience.system_clock import SystemClock
from chatsdk.testing.clock import FakeClock
from tests.auth.kit import USER, Scripted, Sessions, Stage, bearer, static, together

PAIR = Token("access", ws="ws", refresh="refresh", expires_at=5.0)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where pairs are kept; not made yet."""
    return tmp_path / "state" / "tokens"


@pytest.fixture
def store(directory: Path) -> PairStore:
    """A store under `directory`."""
    return PairStore(directory, clock=SystemClock())


def keep(store: PairStore, user: str = USER, origin: str = "o", token: Token = PAIR) -> None:
    """Save under the lock, as it is meant."""
    with store.lock(user, time.monotonic() + 10):
        store.save(user, origin, token)


def test_kept_pair_comes_back(store: PairStore, directory: Path) -> None:
    """Saved for user and origin, found for both and for no other; nothing is made before the first save."""
    assert store.load(USER, "o") is None
    assert not directory.exists()
    keep(store)
    keep(store, "bob", token=Token("b"))
    assert store.load(USER, "o") == PAIR
    assert store.load("bob", "o") == Token("b")
    assert store.load(USER, "another") is None
    assert store.load("carol", "o") is None


def test_files_are_private(store: PairStore, directory: Path) -> None:
    """Directory 0700, files 0600, whatever the umask; the user's name is in no file name."""
    before = os.umask(0)
    try:
        keep(store)
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}
    assert not any(USER in path.name for path in directory.iterdir())
    assert sorted(path.suffix for path in directory.iterdir()) == [".json", ".lock"]


def test_what_is_not_ours_is_refused(store: PairStore, directory: Path, tmp_path: Path) -> None:
    """Open permissions and links, of folder or file, are StorageError; what a link leads to is not touched."""
    keep(store)
    (path,) = directory.glob("*.json")
    path.chmod(0o644)
    with pytest.raises(StorageError, match="can be used by others"):
        store.load(USER, "o")
    elsewhere = tmp_path / "elsewhere"
    path.replace(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(StorageError):
        store.load(USER, "o")
    keep(store, token=Token("new"))  # takes the link's place
    assert "refresh" in elsewhere.read_text()
    assert store.load(USER, "o") == Token("new")
    directory.chmod(0o750)
    with pytest.raises(StorageError, match="chmod"):
        store.load(USER, "o")
    directory.chmod(0o700)
    directory.rename(tmp_path / "moved")
    directory.symlink_to(tmp_path / "moved")
    with pytest.raises(StorageError, match="link"):
        store.load(USER, "o")
    with pytest.raises(StorageError, match="link"):
        keep(store)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_works_as_the_owner(store: PairStore, directory: Path) -> None:
    """Root leaves files that belong to the directory's owner; a file of a third one is refused."""
    directory.parent.mkdir()
    os.chown(directory.parent, 65534, 65534)
    keep(store)
    assert {path.stat().st_uid for path in (directory, *directory.iterdir())} == {65534}
    (path,) = directory.glob("*.json")
    os.chown(path, 1234, 1234)
    with pytest.raises(StorageError, match="another user"):
        store.load(USER, "o")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    st.binary(max_size=60)
    | st.dictionaries(
        st.sampled_from(["version", "user", "origin", "access", "refresh"]),
        st.sampled_from([1, "o", USER, None, [], 1e999]),
    ).map(lambda kept: json.dumps(kept).encode())
)
def test_junk_is_no_pair(store: PairStore, directory: Path, junk: bytes) -> None:
    """Whatever stands in the file, it is a pair for this user and origin or None; the next save replaces it."""
    keep(store)
    (path,) = directory.glob("*.json")
    path.write_bytes(junk)
    kept = store.load(USER, "o")
    assert kept is None or bool(kept.access)
    keep(store)
    assert store.load(USER, "o") == PAIR


def test_save_is_whole_or_not_at_all(store: PairStore, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that fails on a full disk leaves the old pair, and no rest of the new one."""
    keep(store)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            keep(store, token=Token("hush-hush"))
    assert store.load(USER, "o") == PAIR
    assert not any(b"hush" in path.read_bytes() for path in directory.iterdir())


def test_rest_of_a_crash_is_cleared_away(store: PairStore, directory: Path) -> None:
    """A temporary file that a kill left behind is gone after the next save."""
    keep(store)
    (path,) = directory.glob("*.json")
    path.with_suffix(".tmp").write_text("half")
    keep(store, token=Token("new"))
    assert store.load(USER, "o") == Token("new")
    assert not list(directory.glob("*.tmp"))


def test_origin_depends_on_every_part() -> None:
    """Another access, websocket or refresh token is another origin; where one ends and the next begins counts."""
    tokens = [Token("a"), Token("b"), Token("a", "w"), Token("a", None, "w"), Token("aw"), Token("a", "w", "r")]
    assert len({origin_of(token) for token in tokens}) == len(tokens)
    assert origin_of(Token("a", expires_at=1.0)) == origin_of(Token(Secret("a")))


# ---- the lock


def test_lock_is_for_one_thread(store: PairStore, directory: Path) -> None:
    """Threads and stores of one process take turns, per user; waiting ends at the deadline."""
    inside: list[int] = []
    most: list[int] = []

    def turn(index: int) -> None:
        with PairStore(directory, clock=SystemClock()).lock(USER, time.monotonic() + 20):
            inside.append(index)
            most.append(len(inside))
            threading.Event().wait(0.002)
            inside.remove(index)

    together(8, turn)
    assert most == [1] * 8
    with store.lock(USER, time.monotonic() + 10), store.lock("bob", time.monotonic() + 10):
        with pytest.raises(TimeoutError):
            with PairStore(directory, clock=FakeClock()).lock(USER, 1_001.0):
                pytest.fail("two hold one lock")
    with store.lock(USER, time.monotonic()):
        pass


def run_child(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process of its own that runs this code."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )


def test_lock_of_a_killed_process_is_free(store: PairStore, directory: Path) -> None:
    """A process that is killed inside the lock blocks nobody; while it lives it does."""
    child = run_child(
        """
        import sys, time
        from chatsdk.auth import PairStore
        from chatsdk.resilience.system_clock import SystemClock
        with PairStore(sys.argv[1], clock=SystemClock()).lock("alice", time.monotonic() + 10):
            print("held", flush=True)
            sys.stdin.read()
            time.sleep(60)
        """,
        str(directory),
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(TimeoutError):
            with store.lock(USER, time.monotonic() + 0.1):
                pytest.fail("two hold one lock")
        child.send_signal(signal.SIGKILL)
        with store.lock(USER, time.monotonic() + 10):
            pass


# ---- with the manager


def test_pair_is_on_disk_before_its_first_use(directory: Path) -> None:
    """When the new token is handed out, the file has it; a client that starts then goes on with it."""
    sessions = Sessions(FakeClock())
    first = Stage(static(sessions.first), sessions=sessions, pairs=directory)
    second = first.refused(first.sign())
    assert Stage(static(sessions.first), sessions=sessions, pairs=directory).sign() == second
    third = Stage(static(sessions.first), sessions=sessions, pairs=directory).refused(second)
    assert third not in (second, bearer(sessions.first))
    assert sessions.asked == 2


def test_fresh_token_from_the_operator_wins(directory: Path) -> None:
    """Once another token is configured, what was kept for the old one is not used any more."""
    sessions = Sessions(FakeClock())
    stage = Stage(static(sessions.first), sessions=sessions, pairs=directory)
    stage.refused(stage.sign())
    other = Sessions(sessions.clock, name="other")
    fresh = Stage(static(other.first), sessions=other, pairs=directory)
    assert fresh.sign() == bearer(other.first)
    assert Stage(static(other.first), sessions=other, pairs=directory).refused(fresh.sign()) != bearer(other.first)


def test_kill_between_rotation_and_commit(directory: Path) -> None:
    """The server rotated, we died before the pair was kept: the session is over, and the next source is asked."""
    sessions = Sessions(FakeClock())

    class Killed(BaseException):
        pass

    def die() -> None:
        raise Killed

    sessions.before_answer = die
    stage = Stage(static(sessions.first), sessions=sessions, pairs=directory)
    with pytest.raises(Killed):
        stage.refused(stage.sign())
    sessions.before_answer = lambda: None
    alone = Stage(static(sessions.first), sessions=sessions, pairs=directory)
    with pytest.raises(TokenExpiredError):
        alone.refused(alone.sign())
    source = Scripted("from-provider")
    helped = Stage(static(sessions.first), source, sessions=sessions, pairs=directory)
    assert helped.refused(helped.sign()) == "Bearer from-provider"


def test_lost_answer_is_seen_by_the_interrupted(directory: Path) -> None:
    """An interrupt inside a refresh leaves no flight behind: the manager can go on."""
    sessions = Sessions(FakeClock())
    stage = Stage(static(sessions.first), sessions=sessions, pairs=directory)
    header = stage.sign()

    def interrupt() -> None:
        raise KeyboardInterrupt

    sessions.before_answer = interrupt
    with pytest.raises(KeyboardInterrupt):
        stage.refused(header)
    stage.clock.advance(1)
    with pytest.raises(TokenExpiredError):
        stage.refused(header)


def test_unwritable_store_costs_no_token(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If pairs cannot be kept, refreshing goes on in memory, warned of once; the used-up pair on disk is not taken."""
    sessions = Sessions(FakeClock())
    stage = Stage(static(sessions.first), sessions=sessions, pairs=directory)
    header = stage.refused(stage.sign())
    directory.chmod(0o755)
    assert Stage(static("other"), clock=stage.clock, pairs=directory).sign() == "Bearer other"
    caplog.clear()
    for _ in range(3):
        stage.clock.advance(100)
        new = stage.refused(header)
        assert new != header
        header = new
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    directory.chmod(0o700)
    stage.clock.advance(100)
    assert stage.refused(header) != header
    assert Stage(static(sessions.first), sessions=sessions, pairs=directory).sign() == stage.sign()


def test_full_disk_costs_no_token(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair that cannot be written is used in memory; the next one that can be is kept again."""
    sessions = Sessions(FakeClock())
    stage = Stage(static(sessions.first), sessions=sessions, pairs=directory)
    header = stage.refused(stage.sign())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    for broken in (True, True, False):
        with monkeypatch.context() as patch:
            if broken:
                patch.setattr(os, "fsync", full)
            stage.clock.advance(100)
            new = stage.refused(header)
        assert new != header
        kept = Stage(static(sessions.first), sessions=sessions, pairs=directory).sign()
        assert (kept == new) is not broken
        header = new


def test_pair_of_another_client_that_is_refused_too(directory: Path) -> None:
    """Another client's newer pair whose token is refused as well is refreshed on, not served and not an end."""
    sessions = Sessions(FakeClock())
    one, two = (Stage(static(sessions.first), sessions=sessions, pairs=directory) for _ in range(2))
    old = two.sign()
    second = one.refused(one.sign())
    one.clock.advance(100)
    shared = two.refused(old)
    assert (shared, sessions.asked) == (second, 1)
    third = two.refused(shared)
    assert sessions.asked == 2
    one.clock.advance(100)
    fourth = one.refused(second)
    assert (fourth, sessions.asked) == (third, 2)
    fifth = one.refused(fourth)
    one.clock.advance(1000)  # what the one kept has ended too, by its exp; its refresh token is the one that counts
    assert two.sign() not in (third, fifth)
    assert (sessions.asked, two.manager.lost) == (4, False)


def test_busy_lock_is_waited_for_until_the_deadline(store: PairStore, directory: Path) -> None:
    """While another process refreshes for longer than one can wait, it is TokenUnavailableError, and no second try."""
    sessions = Sessions(FakeClock())
    stage = Stage(static(sessions.first), sessions=sessions, pairs=directory)
    header = stage.sign()
    with store.lock(USER, time.monotonic() + 10):
        with pytest.raises(TokenUnavailableError, match="holds the lock"):
            stage.refused(header)
    stage.clock.advance(1)
    assert sessions.asked == 0
    assert stage.refused(header) != header


def test_many_clients_refresh_once(directory: Path) -> None:
    """Eight clients on one directory meet one refused token: one refreshes, the others find its pair."""
    sessions = Sessions(SystemClock())
    stages = [Stage(static(sessions.first), sessions=sessions, pairs=directory) for _ in range(8)]
    headers = together(8, lambda index: stages[index].refused(stages[index].sign()))
    assert len(set(headers)) == 1
    assert sessions.asked == 1


PROCESS = """
import json, os, sys, time
from pathlib import Path
from chatsdk.auth import PairStore, TokenManager
from chatsdk.auth.sources import StaticToken
from chatsdk.core.exchange import Request
from chatsdk.core.tokens import Token
from chatsdk.resilience.system_clock import SystemClock

directory, counter = sys.argv[1:]

def refresh(secret, deadline):
    # the server: one line for each refresh it was asked for
    descriptor = os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, (secret + "\\n").encode())
    os.close(descriptor)
    return Token("new", refresh="refresh-1")

clock = SystemClock()
manager = TokenManager(
    "alice", [StaticToken(Token("old", refresh="refresh-0"))], clock=clock, random=lambda: 0.0, emit=lambda event: None,
    refresh=refresh, pair_store=PairStore(directory, clock=clock),
)
request = Request(operation="x", method="GET", path="/").with_headers({"Authorization": "Bearer old"})
manager.token()
print("ready", flush=True)
sys.stdin.readline()
print(manager.authorize(request, True)["Authorization"], flush=True)
"""


def test_many_processes_refresh_once(directory: Path, tmp_path: Path) -> None:
    """Four processes that share a state directory meet one refused token at once: the server sees one refresh."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(directory), str(tmp_path / "asked")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )
        for _ in range(4)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate(timeout=60)[0].splitlines() for child in children]
    assert [lines[-1] for lines in said] == ["Bearer new"] * 4
    assert (tmp_path / "asked").read_text() == "refresh-0\n"
