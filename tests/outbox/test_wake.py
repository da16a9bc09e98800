"""Signals among processes cut a wait short, carry nothing, and cost those nothing who are not meant."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from chatsdk.core.store import Selection, State
from chatsdk.outbox import forks, wake
from chatsdk.outbox.wake import PAUSE, WakeFile
from tests.outbox.store_kit import Other
from tests.outbox.test_forks import blind, ended_well, in_child
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="inotify")

QUICK = 0.2
"""Seconds in which a signal must arrive; the looks that remain without one are longer apart in these tests."""

NEVER = 60.0
"""Seconds between two looks, where only a signal can be the reason that something was seen."""

OUTBOX = f"""
import random, time
from chatsdk.core.exchange import Response
from chatsdk.outbox import outbox as module
from chatsdk.outbox.wake import WakeFile
from chatsdk.resilience.system_clock import SystemClock
from tests.outbox.world import FakeBackend, a_request
module.LOOK = {NEVER}
def send(request):
    at = time.monotonic()
    time.sleep(slow)
    print("arrived", at, flush=True)
    return Response(status=201, body={{"id": request.key}})
slow = 0.0
outbox = module.Outbox(store, send, FakeBackend(), clock=SystemClock(), random=random.random, emit=lambda event: None,
    background=False, poll={NEVER})
"""

DRAINER = f"""
{OUTBOX}
import threading
stop = threading.Event()
drainer = threading.Thread(target=outbox.run_forever, args=(stop,))
drainer.start()
while store.wake_file._process._ear is None or store.wake_file._process._ear._inotify is None: time.sleep(0.005)
time.sleep(0.1)
say("ready")
"""

WAIT = "wake_file = store.wake_file\n"


class Heard:
    """Counts what was heard."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self) -> None:
        self.times.append(monotonic())

    def after(self, count: int) -> float:
        """Wait for one more than `count`; when it was heard."""
        eventually(lambda: len(self.times) > count)
        return self.times[count]


@pytest.fixture
def wake_file(tmp_path: Path) -> Iterator[WakeFile]:
    """This process's."""
    made = WakeFile(str(tmp_path))
    yield made
    made.close()
    eventually(lambda: not ears())
    assert not watches()


def ears() -> list[threading.Thread]:
    """Our threads."""
    return [each for each in threading.enumerate() if each.name == "chatsdk-outbox-wake"]


def watches(pid: int | str = "self") -> int:
    """Descriptors of inotify that a process has."""
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("anon_inode:")
        except FileNotFoundError:  # that of the listing
            continue
    return found


def listening(wake_file: WakeFile) -> Heard:
    """Somebody who delivers."""
    heard = Heard()
    wake_file.listen(heard)
    heard.after(0)
    return heard


# ---- work


def test_work_is_heard(wake_file: WakeFile, tmp_path: Path) -> None:
    """Each signal of another process, at once; the file is ours alone."""
    heard = listening(wake_file)
    other = Other(
        tmp_path,
        f"{WAIT}while listen():\n    say(time.monotonic())\n    wake_file.work()",
    )
    for _ in range(5):
        count = len(heard.times)
        other.tell("go")
        said = float(other.hear())
        assert heard.after(count) - said < QUICK
    other.end()
    assert (tmp_path / "wake").stat().st_mode & 0o777 == 0o600
    assert len(ears()) == watches() == 1


def test_nobody_listens(wake_file: WakeFile, tmp_path: Path) -> None:
    """A signal leaves no file, no descriptor, no thread."""
    wake_file.work()
    wake_file.result()
    assert not list(tmp_path.iterdir())
    assert not ears()
    assert not watches()


def test_a_storm_is_heard_now_and_then(wake_file: WakeFile, tmp_path: Path) -> None:
    """Thousands of signals are heard once in PAUSE, and after the last one once more."""
    heard = listening(wake_file)
    began = monotonic()
    while monotonic() - began < 10 * PAUSE:
        wake_file.work()
    last = monotonic()
    eventually(lambda: heard.times[-1] >= last)
    assert len(heard.times) <= (heard.times[-1] - began) / PAUSE + 3


def test_each_hears_only_what_is_his(wake_file: WakeFile) -> None:
    """Who delivers is not woken by results, who waits is not woken by work."""
    works, results = listening(wake_file), Heard()
    with wake_file.waiting(results):
        count = len(works.times)
        wake_file.work()
        works.after(count)
    # nobody waits any more: what is written in the file is heard by nobody
    threading.Event().wait(2 * PAUSE)
    counts = len(works.times), len(results.times)
    with open(wake_file._path or "", "r+b") as file:
        file.write(b"\1")
    wake_file.work()
    works.after(counts[0])
    threading.Event().wait(2 * PAUSE)
    assert (len(works.times), len(results.times)) == (counts[0] + 1, counts[1])


# ---- results


def test_a_result_is_told_to_who_waits_elsewhere(wake_file: WakeFile, tmp_path: Path) -> None:
    """While a process waits it hears of results; before and afterwards the file is left alone."""
    (tmp_path / "wake").touch(0o600)
    other = Other(
        tmp_path,
        f"{WAIT}"
        "listen()\n"
        "with wake_file.waiting(lambda: os.write(1, f'{time.monotonic()}\\n'.encode())):\n"
        "    listen()\n"
        "say('over'); listen()",
    )
    wake_file.result()
    before = (tmp_path / "wake").stat().st_mtime_ns
    wake_file.result()
    assert (tmp_path / "wake").stat().st_mtime_ns == before
    other.tell()
    assert float(other.hear()) > 0, "it looks once when it begins to hear"
    for _ in range(3):
        threading.Event().wait(2 * PAUSE)
        now = monotonic()
        wake_file.result()
        assert float(other.hear()) - now < QUICK
    other.tell()
    assert other.hear() == "over"
    after = (tmp_path / "wake").stat().st_mtime_ns
    assert after > before
    wake_file.result()
    assert (tmp_path / "wake").stat().st_mtime_ns == after
    other.tell()
    other.end()


def test_who_waits_and_is_killed_waits_no_more(wake_file: WakeFile, tmp_path: Path) -> None:
    """The kernel takes its lock away."""
    other = Other(tmp_path, f"{WAIT}with wake_file.waiting(lambda: None):\n    say('waiting'); listen()")
    assert other.hear() == "waiting"
    wake_file.result()
    told = (tmp_path / "wake").stat().st_mtime_ns
    other.kill()
    wake_file.result()
    assert (tmp_path / "wake").stat().st_mtime_ns == told


def test_waiting_leaves_nothing_behind(wake_file: WakeFile) -> None:
    """However many wait, and how often: one thread meanwhile, none afterwards, and one descriptor."""
    before = len(os.listdir("/proc/self/fd"))
    looks = [Heard() for _ in range(10)]
    for _ in range(20):
        with wake_file.waiting(looks[0]), wake_file.waiting(looks[1]), wake_file.waiting(looks[0]):
            assert len([each for each in ears() if not each.daemon]) == 0
        eventually(lambda: not ears())
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert not wake_file._process._waiters


# ---- what happens to the file


@pytest.mark.parametrize("how", ["deleted", "replaced", "moved"])
def test_another_file(wake_file: WakeFile, tmp_path: Path, how: str) -> None:
    """The next `listen`, which comes within a second, hears the file that has the name then."""
    heard = listening(wake_file)
    path = tmp_path / "wake"
    if how == "deleted":
        path.unlink()
    elif how == "moved":
        path.rename(tmp_path / "away")
    else:
        (tmp_path / "new").touch(0o600)
        (tmp_path / "new").replace(path)
    with wake_file.waiting(heard):
        wake_file.listen(heard)
        threading.Event().wait(2 * PAUSE)
        eventually(lambda: watches() == 1)
        count = len(heard.times)
        wake_file.work()
        heard.after(count)
        other = Other(tmp_path, f"{WAIT}wake_file.result(); say(os.stat(store.directory + '/wake').st_mtime_ns)")
        assert int(other.hear()) > 0
        other.end()
        heard.after(count + 1)
    assert path.stat().st_mode & 0o777 == 0o600
    eventually(lambda: len(ears()) == watches() == 1)


def test_a_link_in_its_place(wake_file: WakeFile, tmp_path: Path) -> None:
    """Whoever puts a link there has it neither followed nor written to; nobody raises."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    os.utime(target, (1, 1))
    heard = listening(wake_file)
    (tmp_path / "wake").unlink()
    (tmp_path / "wake").symlink_to(target)
    for _ in range(2):
        wake_file.listen(heard)
        wake_file.work()
        wake_file.result()
        with wake_file.waiting(heard):
            wake_file.result()
    assert target.read_bytes() == b"precious"
    assert target.stat().st_mtime == 1
    eventually(lambda: not ears())


def test_no_directory(tmp_path: Path) -> None:
    """It was removed under us: the looks remain."""
    gone = WakeFile(str(tmp_path / "gone"))
    gone.work()
    gone.result()
    gone.listen(print)
    with gone.waiting(print):
        pass
    gone.leave(print, 1.0)
    gone.close()
    assert not ears()


# ---- no inotify


def _no_library() -> Callable[[], Any]:
    raise ImportError("no module named inotify_simple")


def _no_more() -> Callable[[], Any]:
    def make() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    return make


@pytest.mark.parametrize("broken", [_no_library, _no_more])
def test_without_inotify(
    wake_file: WakeFile, monkeypatch: pytest.MonkeyPatch, broken: Callable[[], Callable[[], Any]]
) -> None:
    """The library is missing, or the user has no instance left: nothing raises, it is not tried each second, and when
    there is some again it works."""
    tries = []
    real = wake._import

    def tried() -> Callable[[], Any]:
        tries.append(1)
        return broken()

    monkeypatch.setattr(wake, "_import", tried)
    heard = Heard()
    for _ in range(5):
        wake_file.listen(heard)
        eventually(lambda: not ears())
    with wake_file.waiting(heard):
        wake_file.result()
    assert len(tries) == 1
    assert not watches()
    monkeypatch.setattr(wake, "_import", real)
    wake_file._process._not_before = 0.0  # half a minute later
    wake_file.listen(heard)
    heard.after(0)


def test_no_thread_left(wake_file: WakeFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that refuses a thread is none that stops anything."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    wake_file.listen(print)
    wake_file.listen(print)
    assert not ears()


# ---- the end, and forks


def test_leaving_ends_the_thread(wake_file: WakeFile) -> None:
    """The last one that leaves, and a second time does no harm; what it took is given back."""
    first, second = listening(wake_file), Heard()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        wake_file.listen(first)
        wake_file.listen(second)
        wake_file.leave(first, 5.0)
        assert len(ears()) == 1
        began = monotonic()
        wake_file.leave(second, 5.0)
        wake_file.leave(second, 5.0)
        assert not ears()
        assert monotonic() - began < 1.0
    assert len(os.listdir("/proc/self/fd")) < before
    count = len(first.times)
    wake_file.work()
    assert len(first.times) == count


@pytest.mark.parametrize("fork", [os.fork, blind], ids=["hooks", "blind"])
def test_a_forked_child(wake_file: WakeFile, fork: Callable[[], int], tmp_path: Path) -> None:
    """It drops the parent's descriptors, hears by itself, and neither its listening nor its end changes anything for
    the parent, who still waits and hears."""
    with wake_file.waiting(heard := Heard()):
        heard.after(0)
        threading.Event().wait(2 * PAUSE)

        def child() -> None:
            wake_file.forget()
            assert watches() == 0
            mine = Heard()
            wake_file.listen(mine)
            mine.after(0)
            assert watches() == 1
            wake_file.result()  # the parent waits
            wake_file.leave(mine, 5.0)
            wake_file.close()
            assert watches() == 0

        count = len(heard.times)
        assert ended_well(in_child(fork, child))
        heard.after(count)
        threading.Event().wait(2 * PAUSE)
        count = len(heard.times)
        other = Other(tmp_path, f"{WAIT}wake_file.result()")
        other.end()
        heard.after(count)


def test_a_fork_waits_for_the_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another thread imports the library meanwhile: the child can still listen."""
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        with wake._importing:
            begun.set()
            go_on.wait(10)

    thread = threading.Thread(target=slow)
    thread.start()
    begun.wait(10)
    threading.Timer(0.1, go_on.set).start()

    def child() -> None:
        made = WakeFile(str(tmp_path))
        listening(made)
        made.close()

    assert ended_well(in_child(os.fork, child))
    assert go_on.is_set()
    thread.join(10)


# ---- in an outbox


def test_a_drainer_is_woken(tmp_path: Path) -> None:
    """A process without a worker puts, another one sends at once, and the first one's wait ends at once; neither would
    look by itself for a minute."""
    drainer = Other(tmp_path, f"{DRAINER}\nlisten(); stop.set(); outbox.close(5); drainer.join(); store.close()")
    assert drainer.hear() == "ready"
    one_shot = Other(
        tmp_path,
        f"{OUTBOX}\n"
        "while listen():\n"
        "    row = outbox.accept(a_request(), 3600.0).row\n"
        "    put = time.monotonic()\n"
        "    outbox.leave_to_others()\n"
        "    found = outbox.wait(row.id, 20.0)\n"
        "    say(put, time.monotonic(), found.state)\n",
    )
    for _ in range(5):
        one_shot.tell("go")
        arrived = float(drainer.hear().split()[1])
        put, known, state = one_shot.hear().split()
        assert state == "SENT"
        assert arrived - float(put) < QUICK
        assert float(known) - float(put) < 2 * QUICK
        threading.Event().wait(2 * PAUSE)
    one_shot.end()
    drainer.tell()
    drainer.end()


def test_a_slow_delivery_is_told_at_once(tmp_path: Path) -> None:
    """The wait has lasted when the result comes: the process that delivered says so."""
    drainer = Other(
        tmp_path, f"{DRAINER}\nslow = 0.4\nlisten(); stop.set(); outbox.close(5); drainer.join(); store.close()"
    )
    assert drainer.hear() == "ready"
    one_shot = Other(
        tmp_path,
        f"{OUTBOX}\n"
        "row = outbox.accept(a_request(), 3600.0).row\n"
        "outbox.leave_to_others()\n"
        "say(outbox.wait(row.id, 20.0).state, time.monotonic())\n",
    )
    arrived = float(drainer.hear().split()[1])
    state, known = one_shot.hear().split()
    assert state == "SENT"
    assert 0.3 < float(known) - arrived < 0.4 + 2 * QUICK
    one_shot.end()
    drainer.tell()
    drainer.end()


def test_a_retry_and_a_discard_by_hand_are_told(tmp_path: Path) -> None:
    """The drainer sends what was retried elsewhere; who waits for what was given up elsewhere learns it."""
    hand = Other(
        tmp_path,
        f"{OUTBOX}\n"
        "row = outbox.accept(a_request(), 3600.0).row\n"
        "claim = store.claim(time.time())\n"
        "store.bury(claim.lane, row.id, 'rejected', None, time.time())\n"
        "store.release(claim.lane)\n"
        "other = outbox.accept(a_request('other'), 3600.0).row\n"
        "store.claim(time.time()); say(row.id, other.id)\n"
        "listen(); say(outbox.retry([row.id]), time.monotonic())\n"
        "listen(); store.release(other.lane); say(outbox.discard([other.id]), time.monotonic())\n"
        "listen(); store.close()",
    )
    _, other_id = hand.hear().split()
    drainer = Other(tmp_path, f"{DRAINER}\nlisten(); stop.set(); outbox.close(5); drainer.join(); store.close()")
    assert drainer.hear() == "ready"
    hand.tell()
    count, told = hand.hear().split()
    assert count == "1"
    assert float(drainer.hear().split()[1]) - float(told) < QUICK
    drainer.tell()  # else it might be quicker than who gives up
    drainer.end()
    waiting = Other(
        tmp_path,
        f"{OUTBOX}\n"
        "import threading\n"
        f"waits = threading.Thread(target=lambda: say(outbox.wait({other_id}, 20.0), time.monotonic()))\n"
        "waits.start()\n"
        "while not store.wake_file._process._waiters: time.sleep(0.005)\n"
        "time.sleep(0.1); say('waiting'); waits.join()",
    )
    assert waiting.hear() == "waiting"
    hand.tell()
    count, told = hand.hear().split()
    assert count == "1"
    state, known = waiting.hear().split()
    assert state == "None", "nobody knows it any more"
    assert float(known) - float(told) < QUICK
    for each in (waiting, hand):
        each.tell()
        each.end()


def test_a_short_process_pays_nothing(tmp_path: Path) -> None:
    """One that sends and ends has neither thread nor library, in either mode."""
    code = (
        f"{OUTBOX}\nimport threading\n"
        "for background in (False, True):\n"
        "    outbox.background = background\n"
        "    row = outbox.accept(a_request(), 3600.0).row\n"
        "    found = outbox.wait(row.id, 5.0) if background else outbox.deliver_inline(row.id, 5.0)\n"
        "    assert found.state == 'SENT', found\n"
        "assert 'inotify_simple' not in sys.modules\n"
        "assert not [each for each in threading.enumerate() if 'wake' in each.name]\n"
        "assert not os.path.exists(store.directory + '/wake')\n"
        "outbox.close(5); store.close()"
    )
    Other(tmp_path, code).end()


def test_the_master_of_uwsgi_has_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It forks without hooks: a wait looks for itself there."""
    monkeypatch.setattr(forks, "is_bare_master", lambda: True)
    other = Other(
        tmp_path,
        f"{OUTBOX}\n"
        "import threading\n"
        "module.forks.is_bare_master = lambda: True\n"
        "row = outbox.accept(a_request(), 3600.0).row\n"
        "outbox.wait(row.id, 0.3)\n"
        "assert 'inotify_simple' not in sys.modules\n"
        "assert not [each for each in threading.enumerate() if 'wake' in each.name]\n",
    )
    other.end()


def test_closing_is_bounded_and_ends_the_thread(tmp_path: Path) -> None:
    """`close` of an outbox that listened leaves no thread and no descriptor; another client's on the same store is not
    touched."""
    Other(
        tmp_path,
        f"{OUTBOX}\nimport threading\n"
        "def names(): return sorted(each.name for each in threading.enumerate() if 'wake' in each.name)\n"
        "second = module.Outbox(store, send, FakeBackend(), clock=SystemClock(), random=random.random,\n"
        "    emit=lambda event: None, background=False, poll=1.0)\n"
        "outbox._here.listen(); second._here.listen()\n"
        "assert names() == ['chatsdk-outbox-wake'], names()\n"
        "began = time.monotonic(); assert outbox.close(5.0); assert outbox.close(5.0)\n"
        "assert names() == ['chatsdk-outbox-wake']\n"
        "second.close(5.0); store.close()\n"
        "assert not names() and time.monotonic() - began < 2.0\n",
    ).end()


def test_without_signals_the_looks_remain(tmp_path: Path) -> None:
    """A drainer that hears nothing (no inotify) sends within its look all the same."""
    from tests.outbox.store_kit import open_directly

    code = (
        f"{OUTBOX}\nimport threading\n"
        "from chatsdk.outbox import wake\n"
        "def missing(): raise ImportError('inotify_simple')\n"
        "wake._import = missing\n"
        "outbox = module.Outbox(store, send, FakeBackend(), clock=SystemClock(), random=random.random,\n"
        "    emit=lambda event: None, background=False, poll=0.3)\n"
        "stop = threading.Event()\n"
        "drainer = threading.Thread(target=outbox.run_forever, args=(stop,)); drainer.start()\n"
        "time.sleep(0.2); say('ready')\n"
        "listen(); stop.set(); outbox.close(5); drainer.join(); store.close()"
    )
    drainer = Other(tmp_path, code)
    assert drainer.hear() == "ready"
    from tests.outbox.store_kit import entry

    store = open_directly(tmp_path)
    store.put(entry())
    assert drainer.hear().startswith("arrived")
    eventually(lambda: [row.state for row in store.list(Selection(states=tuple(State)))] == [State.SENT])
    store.close()
    drainer.tell()
    drainer.end()
