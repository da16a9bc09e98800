"""Cursors survive restarts and kill -9, never run ahead of what was handled, and bad files are met in words."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chatsdk.core.errors import SettingsError
from chatsdk.realtime import cursor_file, cursor_records
from chatsdk.realtime.cursors import Cursor, Cursors
from tests.waiting import eventually

SOON = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file will be: in a directory that does not exist yet."""
    return tmp_path / "state" / "cursors"


@contextmanager
def opened(path: Path | None, *, limit: int = 1000) -> Iterator[Cursors]:
    """Cursors that are closed afterwards."""
    cursors = Cursors(path, limit=limit)
    try:
        yield cursors
    finally:
        cursors.close()


@contextmanager
def another_process(path: Path, *lines: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has `cursors` on the file, runs `lines`, says "ready" and waits until its stdin is closed."""
    code = "\n".join(
        [
            "import sys",
            "from chatsdk.realtime.cursors import Cursors",
            f"cursors = Cursors({str(path)!r})",
            *lines,
            "print('ready', flush=True)",
            "sys.stdin.read()",
        ]
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


# ---- kept


def test_what_was_set_is_there_after_a_restart(path: Path) -> None:
    """Numbers and epochs come back as they were, "not known" and 0 and "" apart."""
    wanted = {
        "both": Cursor(7, 9, "abcd"),
        "no seq": Cursor(None, 0, ""),
        "no offset": Cursor(0, None, None),
        "large": Cursor(2**64 - 2, 2**64 - 2, "é" * 19),
        "": Cursor(1, None, None),
        "\ud800": Cursor(1, 1, "e"),
    }
    with opened(path) as cursors:
        assert not os.path.exists(path), "nothing is opened before it is needed"
        for key, cursor in wanted.items():
            assert cursors.get(key) is None
            cursors.set(key, *cursor)
            assert cursors.get(key) == cursor
        assert cursors.owned
    with opened(path) as cursors:
        assert {key: cursors.get(key) for key in wanted} == wanted
        assert cursors.get("other") is None


def test_without_a_path_all_is_in_memory() -> None:
    """It works the same, and forgets."""
    with opened(None) as cursors:
        assert cursors.get("a") is None
        cursors.set("a", 1, 2, "e")
        cursors.set("a", 2, 3, "e")
        assert cursors.get("a") == Cursor(2, 3, "e")
        assert not cursors.owned


def test_files_are_private(path: Path) -> None:
    """Directory 0700, files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        with opened(path) as cursors:
            cursors.set("a", 1, 1, "e")
    finally:
        os.umask(before)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}


def test_what_does_not_fit_costs_no_position(path: Path) -> None:
    """A number beyond 8 bytes changes nothing; of a long epoch the seq alone is kept; neither raises."""
    with opened(path) as cursors:
        cursors.set("a", 5, 6, "e")
        for seq, offset in ((2**64, 7), (6, 2**70), (-5, 7), (6, -9)):
            cursors.set("a", seq, offset, "e")
            stored = cursors.get("a")
            assert stored is not None
            assert stored.seq is not None
            assert stored.offset is not None
            assert stored.seq <= 6
            assert stored.offset <= 7
        cursors.set("new", 2**64, 1, "e")
        assert cursors.get("new") is None
        for epoch in ("x" * 40, "\ud800"):
            cursors.set("b", 5, 6, epoch)
            cursors.set("b", 6, 7, epoch)
            assert cursors.get("b") == Cursor(6, None, None)


keys = st.sampled_from(["a", "b", "c", "d", "e", "f"])
numbers = st.none() | st.integers(0, 2**63)
epochs = st.none() | st.text(max_size=12)


class Restarts(RuleBasedStateMachine):
    """Random positions and restarts against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "state" / "cursors"
        self.cursors = Cursors(self.path)
        self.model: dict[str, Cursor] = {}

    @rule(key=keys, seq=numbers, offset=numbers, epoch=epochs)
    def set(self, key: str, seq: int | None, offset: int | None, epoch: str | None) -> None:
        self.cursors.set(key, seq, offset, epoch)
        if not cursor_records.fits(epoch):
            offset = epoch = None
        self.model[key] = Cursor(seq, offset, epoch)

    @rule()
    def restart(self) -> None:
        self.cursors.close()
        self.cursors = Cursors(self.path)

    @invariant()
    def agrees(self) -> None:
        for key in "abcdef":
            wanted = self.model.get(key)
            if wanted is not None and wanted.seq is None and wanted.offset is None:
                wanted = None
            assert self.cursors.get(key) == wanted

    def teardown(self) -> None:
        self.cursors.close()
        self.directory.cleanup()


TestRestarts = Restarts.TestCase
TestRestarts.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


# ---- killed


WRITER = """
import sys
from chatsdk.realtime.cursors import Cursors
cursors = Cursors(sys.argv[1])
begin = [cursors.get(f"channel {n}") for n in range(5)]
step = 1 + max((each.seq for each in begin if each), default=0)
print("ready", flush=True)
out = sys.stdout
while True:
    epoch = f"epoch {step // 50}"
    for n in range(5):
        cursors.set(f"channel {n}", step, step * 2, epoch)
    out.write(f"{step}\\n")
    out.flush()
    step += 1
"""


def test_kill_9_loses_no_position_and_none_runs_ahead(path: Path, tmp_path: Path) -> None:
    """A writer is killed at random moments, also while it changes epochs: what it had set before it said so is there,
    nothing is beyond what it was setting, and seq, offset and epoch belong together or the older one is there."""
    chance = random.Random(5)
    for _ in range(12):
        said = tmp_path / "said"
        with open(said, "wb") as out:
            process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=out)
        eventually(partial(_has_text, said))
        threading.Event().wait(chance.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        # the last line may be half a line, and cannot be told from a whole one without its end
        step = int(said.read_bytes().rpartition(b"\n")[0].rpartition(b"\n")[2])
        with opened(path) as cursors:
            for n in range(5):
                stored = cursors.get(f"channel {n}")
                assert stored is not None, "a position was lost"
                assert stored.seq in (step, step + 1, step + 2)
                assert stored.offset in (stored.seq * 2, stored.seq * 2 - 2)
                assert stored.epoch == f"epoch {stored.offset // 2 // 50}"


def _has_text(path: Path) -> bool:
    return path.stat().st_size > 6


BOT = """
import os, sys
from chatsdk.realtime.cursors import Cursors
from chatsdk.realtime.dispatch import Dispatch
cursors = Cursors(sys.argv[1])
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
last = int(sys.argv[3])
def handle(event):
    os.write(log, b"%d %d\\n" % event)
def done(lane, event):
    cursors.set(lane.key, event[1], None, None)
dispatch = Dispatch(handle, done=done)
lanes = [dispatch.lane(str(n)) for n in range(4)]
at = []
for lane in lanes:
    cursor = cursors.get(lane.key)
    at.append(cursor.seq + 1 if cursor else 1)
while min(at) <= last:
    batch = []
    for n, lane in enumerate(lanes):
        if at[n] <= last:
            batch.append((lane, [(n, seq) for seq in range(at[n], min(at[n] + 30, last + 1))]))
    for lane, events in dispatch.put(batch):
        n = events[0][0]
        at[n] = events[0][1] - 30
        while dispatch.pending:
            pass
        dispatch.resume(lane)
    at = [each + 30 for each in at]
while any(cursors.get(lane.key).seq != last for lane in lanes):
    pass
"""


def test_a_bot_killed_at_random_skips_nothing_and_repeats_only_what_was_at_work(path: Path, tmp_path: Path) -> None:
    """Handler pool and cursors together: with each kill at most one event of a channel comes twice, in order."""
    chance = random.Random(7)
    seen = tmp_path / "seen"
    last, kills, finished = 20_000, 0, False
    seen.write_bytes(b"")
    while not finished:
        before = seen.stat().st_size
        process = subprocess.Popen([sys.executable, "-c", BOT, str(path), str(seen), str(last)])
        eventually(lambda process=process, before=before: process.poll() is not None or seen.stat().st_size > before)  # type: ignore[misc]
        if kills < 10:
            threading.Event().wait(chance.random() * 0.03)
            process.kill()
        finished = process.wait() == 0
        kills += not finished
    assert kills >= 3, "it was quicker than its killer"
    reached = [0, 0, 0, 0]
    repeats = [0, 0, 0, 0]
    for line in seen.read_text().splitlines():
        lane, seq = map(int, line.split())
        assert seq in (reached[lane], reached[lane] + 1), f"{reached[lane]} was followed by {seq}"
        repeats[lane] += seq == reached[lane]
        reached[lane] = seq
    assert reached == [last] * 4
    assert max(repeats) <= kills


class Words(list[int]):
    """A file as words, and what it looked like after each store."""

    def __init__(self, buffer: bytes) -> None:
        super().__init__(memoryview(buffer).cast("Q"))
        self.states = [bytes(buffer)]

    def __setitem__(self, index: object, word: object) -> None:
        super().__setitem__(index, word)  # type: ignore[call-overload]
        self.states.append(b"".join(each.to_bytes(8, sys.byteorder) for each in self))


class Bytes(bytearray):
    """A file, and what it looked like after each byte of a longer store."""

    states: list[bytes]

    def __setitem__(self, where: object, data: object) -> None:
        assert isinstance(where, slice)
        assert isinstance(data, bytes)
        for index, byte in enumerate(data):
            super().__setitem__(where.start + index, byte)
            self.states.append(bytes(self))


small = st.integers(0, 1000)


@given(small, small, small, small)
def test_a_kill_between_any_two_stores_repeats_and_never_skips(seq: int, offset: int, more: int, further: int) -> None:
    """Whatever prefix of the stores of a `set` is in the file, each number is the old one or the new one."""
    buffer = bytearray(cursor_records.SIZE)
    cursor_records.write_record(buffer, 0, cursor_records.hash_of("a"), 1, "old", seq, offset)
    words = Words(bytes(buffer))
    cursor_records.write_numbers(words, 0, seq + more, offset + further)  # type: ignore[arg-type]
    assert len(words.states) == 5
    for state in words.states:
        read = cursor_records.read_record(state, 0)
        assert read is not None
        assert read.seq in (seq, seq + more)
        assert read.offset in (offset, offset + further)


def test_a_kill_while_the_epoch_changes_keeps_a_whole_position() -> None:
    """Whatever is in the file by then: all of the old position, or all of the new one."""
    size = cursor_records.SIZE
    hash = cursor_records.hash_of("a")
    buffer = Bytes(2 * size)
    buffer.states = []
    cursor_records.write_record(buffer, 0, hash, 1, "old", 7, 70)
    buffer.states = [bytes(buffer)]
    cursor_records.write_record(buffer, size, hash, 2, "new", 8, 3)
    buffer.states.append(bytes(buffer))
    cursor_records.erase(buffer, 0)
    assert len(buffer.states) > size
    for state in buffer.states:
        found = [read for at in (0, size) if (read := cursor_records.read_record(state, at))]
        assert found, "neither the old position nor the new one"
        youngest = max(found, key=lambda each: each.generation)
        assert (youngest.seq, youngest.offset, youngest.epoch) in {(7, 70, "old"), (8, 3, "new")}


@given(small, small, st.integers(80, 111), st.integers(0, 255))
def test_a_damaged_number_repeats_and_never_skips(seq: int, offset: int, at: int, byte: int) -> None:
    """Any one byte of the numbers may be anything: nothing is read that lies beyond what was set."""
    buffer = bytearray(cursor_records.SIZE)
    cursor_records.write_record(buffer, 0, cursor_records.hash_of("a"), 1, "e", seq, offset)
    buffer[at] = byte
    read = cursor_records.read_record(buffer, 0)
    assert read is not None
    assert (read.seq or 0) <= seq
    assert (read.offset or 0) <= offset


@pytest.mark.parametrize("old_first", [True, False])
def test_of_two_records_the_younger_one_counts(path: Path, old_first: bool) -> None:
    """What a kill in the middle of a change of epoch leaves behind, for the owner and for who looks at its file."""
    size, hash = cursor_records.SIZE, cursor_records.hash_of("a")
    content = bytearray(cursor_records.header() + bytes(2 * size))
    old, new = (size, 2 * size) if old_first else (2 * size, size)
    cursor_records.write_record(content, old, hash, 2, "old", 1, 1)
    cursor_records.write_record(content, new, hash, 5, "new", 2, 2)
    path.parent.mkdir(mode=0o700)
    path.write_bytes(content)
    path.chmod(0o600)
    assert cursor_file.read_file(str(path))[hash].epoch == "new"
    with opened(path) as cursors:
        assert cursors.get("a") == Cursor(2, 2, "new")
    with opened(path) as cursors:
        cursors.set("a", 3, 3, "newer")
        assert cursors.get("a") == Cursor(3, 3, "newer")
    with opened(path) as cursors:
        assert cursors.get("a") == Cursor(3, 3, "newer")


def test_epochs_leave_nothing_behind(path: Path) -> None:
    """However often a server begins anew, the file does not grow."""
    with opened(path) as cursors:
        cursors.set("b", 1, 1, "e")
        for n in range(300):
            cursors.set("a", n, n, str(n))
        size = path.stat().st_size
        assert size == cursor_file.GROWTH
    with opened(path) as cursors:
        assert (cursors.get("a"), cursors.get("b")) == (Cursor(299, 299, "299"), Cursor(1, 1, "e"))


# ---- many channels


def test_the_file_grows_and_no_channel_is_lost(path: Path) -> None:
    """A thousand channels, in a file that is as large as they need."""
    with opened(path) as cursors:
        for n in range(1000):
            cursors.set(str(n), n, n, "e")
            cursors.set(str(n), n + 1, n, "e")
    assert 1000 * cursor_records.SIZE < path.stat().st_size < 300_000
    with opened(path) as cursors:
        for n in range(1000):
            assert cursors.get(str(n)) == Cursor(n + 1, n, "e")


def test_the_channel_not_asked_for_the_longest_makes_room(path: Path) -> None:
    """A full file forgets channels of earlier runs, the oldest first, and none that is in use; what it has no room for
    is kept in memory; a new epoch needs no room."""
    for run in range(5):
        with opened(path, limit=4) as cursors:
            if run == 4:
                assert cursors.get("channel 0") == Cursor(0, 0, "e")  # in use again
            cursors.set(f"channel {run}", run, run, "e")
            assert cursors.get(f"channel {run}") == Cursor(run, run, "e")
    with opened(path, limit=4) as cursors:
        found = [cursors.get(f"channel {run}") for run in range(5)]
        assert [run for run in range(5) if found[run]] == [0, 2, 3, 4]
        for run in (0, 2, 3, 4):
            for epoch in ("e2", "e3"):
                cursors.set(f"channel {run}", 10, run, epoch)
        cursors.set("one more", 1, 1, "e")
        assert cursors.get("one more") == Cursor(1, 1, "e")
    with opened(path, limit=4) as cursors:
        assert [cursors.get(f"channel {run}") for run in (0, 2, 3, 4)] == [Cursor(10, n, "e3") for n in (0, 2, 3, 4)]
        assert cursors.get("one more") is None


def test_a_full_disk_is_met_in_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the file cannot grow new channels are kept in memory, old ones in the file, and nothing is raised."""
    with opened(path) as cursors:
        cursors.set("old", 1, 1, "e")

        def full(descriptor: int, data: bytes, at: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(cursor_file, "_write", full)
        for n in range(300):
            cursors.set(str(n), n, n, "e")
        cursors.set("old", 2, 2, "e2")
        assert all(cursors.get(str(n)) == Cursor(n, n, "e") for n in range(300))
        assert caplog.records
    with opened(path) as cursors:
        assert cursors.get("0") == Cursor(0, 0, "e")
        assert cursors.get("299") is None
        assert cursors.get("old") in (Cursor(1, 1, "e"), Cursor(2, 2, "e2"))


# ---- several


def test_a_second_process_begins_where_the_first_is_and_takes_over(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says once that it is not the owner, keeps its own positions, and owns the file once the first is killed."""
    with another_process(path, "cursors.set('a', 5, 50, 'e')", "cursors.set('b', 1, 10, 'e')") as first:
        with opened(path) as second:
            assert second.get("a") == Cursor(5, 50, "e")
            assert second.get("c") is None
            second.set("a", 6, 60, "e")
            second.set("c", 1, 1, "e")
            assert not second.take_over()
            assert second.get("a") == Cursor(6, 60, "e")
            assert len(caplog.records) == 1
            first.kill()
            first.wait()
            assert second.take_over()
            second.set("c", 2, 2, "e")
    with opened(path) as third:
        assert [third.get(key) for key in "abc"] == [Cursor(6, 60, "e"), Cursor(1, 10, "e"), Cursor(2, 2, "e")]


def test_a_second_client_in_the_process_does_not_break_the_first_ones_lock(path: Path) -> None:
    """Its coming and going leaves the file to the first, also for other processes; after that it may have it."""
    with opened(path) as first:
        first.set("a", 1, 1, "e")
        with opened(path) as second:
            assert second.get("a") == Cursor(1, 1, "e")
            assert not second.owned
        with another_process(path, "cursors.get('a')", "assert not cursors.owned"):
            pass
    with opened(path) as third:
        assert third.take_over()


FORK = """
import os, sys
from chatsdk.realtime.cursors import Cursor, Cursors
cursors = Cursors(sys.argv[1])
cursors.set("a", 1, 1, "e")
pid = os.fork()
if pid == 0:
    assert cursors.get("a") == Cursor(1, 1, "e")
    assert not cursors.owned
    cursors.set("a", 9, 9, "e")
    cursors.set("b", 9, 9, "f")
    assert cursors.get("b") == Cursor(9, 9, "f")
    cursors.close()
    os._exit(42)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
assert cursors.owned
cursors.set("c", 1, 1, "e")
assert cursors.get("a") == Cursor(1, 1, "e")
assert cursors.get("b") is None
"""


def test_a_forked_child_leaves_the_file_to_its_parent(path: Path) -> None:
    """What the child sets is its own, and the parent goes on owning the file."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK, str(path)], check=True, timeout=30)
    with opened(path) as cursors:
        assert [cursors.get(key) for key in "abc"] == [Cursor(1, 1, "e"), None, Cursor(1, 1, "e")]


def test_what_is_set_after_closing_does_not_reach_the_file(path: Path) -> None:
    """A handler that ends late changes nothing that belongs to the next owner."""
    with opened(path) as cursors:
        cursors.set("a", 1, 1, "e")
    cursors.set("a", 2, 2, "e")
    cursors.set("b", 2, 2, "e")
    with opened(path) as others:
        assert others.get("a") == Cursor(1, 1, "e")
        assert others.get("b") is None


# ---- bad files


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_file_of_any_bytes_is_survived(data: st.DataObject) -> None:
    """Cut off, overwritten or garbage: opening never raises, a position is never beyond what was set, and it works
    again afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "state" / "cursors"
        with opened(path) as cursors:
            for n in range(20):
                cursors.set(str(n), n + 100, n, f"e{n}")
        whole = path.read_bytes()
        kind = data.draw(st.sampled_from(["cut", "garbage", "heads", "end"]))
        if kind == "cut":
            path.write_bytes(whole[: data.draw(st.integers(0, 25 * cursor_records.SIZE))])
        elif kind == "garbage":
            path.write_bytes(data.draw(st.binary(max_size=1000)))
        elif kind == "end":
            path.write_bytes(whole + data.draw(st.binary(max_size=300)))
        else:
            changed = bytearray(whole)
            for n, at, byte in data.draw(
                st.lists(st.tuples(st.integers(1, 20), st.integers(0, 67), st.integers(0, 255)), max_size=20)
            ):
                changed[n * cursor_records.SIZE + at] = byte
            path.write_bytes(changed)
        with opened(path) as cursors:
            for n in range(20):
                stored = cursors.get(str(n))
                if stored is not None:
                    assert stored.epoch == f"e{n}"
                    assert (stored.seq or 0) <= n + 100
                    assert (stored.offset or 0) <= n
                cursors.set(str(n), n + 200, n, "f")
        with opened(path) as cursors:
            assert [cursors.get(str(n)) for n in range(20)] == [Cursor(n + 200, n, "f") for n in range(20)]


def test_a_foreign_file_is_put_aside_and_kept(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its bytes are still there under another name, an ERROR says so, and a new file is begun."""
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"somebody's diary\n" * 100)
    with opened(path) as cursors:
        assert cursors.get("a") is None
        cursors.set("a", 1, 1, "e")
    assert (path.parent / "cursors.damaged").read_bytes() == b"somebody's diary\n" * 100
    assert [each.levelname for each in caplog.records] == ["ERROR"]
    with opened(path) as cursors:
        assert cursors.get("a") == Cursor(1, 1, "e")


def test_a_newer_versions_file_is_left_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is neither read nor changed, and said once; cursors are in memory."""
    with opened(path) as cursors:
        cursors.set("a", 1, 1, "e")
    newer = path.read_bytes().replace(cursor_records.MAGIC, b"chatsdk cursors 2\n", 1)
    path.write_bytes(newer)
    with opened(path) as cursors:
        assert cursors.get("a") is None
        cursors.set("a", 2, 2, "e")
        assert cursors.get("a") == Cursor(2, 2, "e")
        assert cursors.get("b") is None
    assert path.read_bytes() == newer
    assert len(caplog.records) == 1


@pytest.mark.parametrize("name", ["cursors", "cursors.lock"])
@pytest.mark.parametrize("trap", ["link", "writable", "pipe", "directory"])
def test_files_that_cannot_be_trusted_are_refused(path: Path, name: str, trap: str) -> None:
    """A link, a file that others may write, or no file: SettingsError from `get`, each time; `set` never raises."""
    path.parent.mkdir(mode=0o700)
    target = path.parent / name
    if trap == "link":
        (path.parent / "elsewhere").write_bytes(b"")
        target.symlink_to(path.parent / "elsewhere")
    elif trap == "writable":
        target.write_bytes(b"")
        target.chmod(0o666)
    elif trap == "pipe":
        os.mkfifo(target, 0o600)
    else:
        target.mkdir(mode=0o700)
    with opened(path) as cursors:
        for _ in range(2):
            with pytest.raises(SettingsError):
                cursors.get("a")
        cursors.set("a", 1, 1, "e")


def test_a_directory_that_others_may_write_is_refused(path: Path) -> None:
    """Whoever may write the directory may exchange the file."""
    path.parent.mkdir()
    path.parent.chmod(0o777)
    with opened(path) as cursors, pytest.raises(SettingsError):
        cursors.get("a")


def test_a_disk_that_cannot_be_used_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where no directory can be made cursors are in memory, with one warning."""
    (tmp_path / "file").write_bytes(b"")
    with opened(tmp_path / "file" / "state" / "cursors") as cursors:
        for n in range(5):
            assert cursors.get(str(n)) is None
            cursors.set(str(n), n, n, "e")
            assert cursors.get(str(n)) == Cursor(n, n, "e")
    assert len(caplog.records) == 1


# ---- speed


def test_a_set_costs_a_microsecond_or_so(path: Path) -> None:
    """No lock, no system call: far from what a write to a file would cost."""
    with opened(path) as cursors:
        cursors.set("a", 0, 0, "e")
        best = float("inf")
        for _ in range(5):
            began = monotonic()
            for n in range(2000):
                cursors.set("a", n, n, "e")
            best = min(best, (monotonic() - began) / 2000)
    assert best < 5e-6
