"""The background threads, with real ones: they overlap, cover for each other, and end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic

import pytest

from chatsdk.outbox.threads import Threads
from tests.waiting import eventually

SOON = 5.0


class Work:
    """Jobs by hand: `serve` takes one and runs it; `due` is when the next one is worth while."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], object]] = []
        self.due: float | None = None
        self.looks = 0
        self.threads: Threads | None = None

    def serve(self) -> bool:
        self.looks += 1
        try:
            job = self.jobs.pop(0)
        except IndexError:
            return False
        assert self.threads is not None
        self.threads.cover()
        job()
        return True

    def delay(self) -> float | None:
        if self.jobs:
            return 0.0
        return None if self.due is None else self.due - monotonic()


@pytest.fixture
def work() -> Iterator[Work]:
    """Work and its threads, which are gone at the end."""
    work = Work()
    work.threads = Threads(work.serve, work.delay, limit=8, poll=0.2, linger=0.2)
    yield work
    assert work.threads.stop(SOON)
    assert not [each for each in threading.enumerate() if each.name.startswith("chatsdk-outbox-")]


def test_nothing_starts_by_itself(work: Work) -> None:
    """No thread before there is something to do; then daemons, with a name."""
    assert work.threads is not None
    assert work.threads.alive == 0
    seen: list[threading.Thread] = []
    work.jobs.append(lambda: seen.append(threading.current_thread()))
    work.threads.notify()
    eventually(lambda: seen)
    assert seen[0].daemon
    assert seen[0].name.startswith("chatsdk-outbox-")


def test_eight_jobs_overlap_and_no_ninth_thread_starts(work: Work) -> None:
    """As many jobs run at once as there may be threads; the next one waits for a free thread, and is not forgotten."""
    assert work.threads is not None
    together = threading.Barrier(9)
    done: list[int] = []
    work.jobs += [partial(together.wait, SOON) for _ in range(8)]
    work.jobs.append(lambda: done.append(1))
    work.threads.notify()
    eventually(lambda: together.n_waiting == 8)
    assert work.threads.alive == 8
    assert not done
    together.wait(SOON)
    eventually(lambda: done)


def test_a_job_that_hangs_delays_no_other(work: Work) -> None:
    """While one hangs, others that come or come due are done at once."""
    assert work.threads is not None
    release, done = threading.Event(), threading.Event()
    work.jobs.append(partial(release.wait, SOON))
    work.threads.notify()
    eventually(lambda: not work.jobs)
    began = monotonic()
    work.jobs.append(done.set)
    work.threads.notify()
    assert done.wait(SOON)
    assert monotonic() - began < 0.5
    done.clear()
    work.due = monotonic() + 0.05
    work.threads.due_sooner()
    work.jobs.append(done.set)  # it comes due while the first still hangs; nobody notifies
    assert done.wait(SOON)
    release.set()


def test_no_notification_is_lost(work: Work) -> None:
    """However the threads stand, each job is done without waiting for the poll."""
    assert work.threads is not None
    work.threads._poll = 60.0
    done = threading.Semaphore(0)
    for _ in range(300):
        work.jobs.append(done.release)
        work.threads.notify()
        assert done.acquire(timeout=SOON)
    for _ in range(300):
        work.jobs.append(done.release)
        work.threads.notify()
    for _ in range(300):
        assert done.acquire(timeout=SOON)


def test_news_between_looking_and_waiting(work: Work) -> None:
    """What is said just before the watcher falls asleep keeps it awake."""
    assert work.threads is not None
    work.threads._poll = 60.0
    done = threading.Event()
    threads = work.threads

    def late() -> float | None:
        if not done.is_set() and not work.jobs:
            work.jobs.append(done.set)
            threads.notify()
        return None

    threads._delay = late
    threads.notify()
    assert done.wait(SOON)


def test_many_lanes_woken_at_once_run_in_parallel(work: Work) -> None:
    """One `notify_all` is enough for all of them."""
    assert work.threads is not None
    work.threads._poll = 60.0
    work.threads.notify()
    eventually(lambda: work.looks)
    together = threading.Barrier(5)
    work.jobs += [partial(together.wait, SOON) for _ in range(4)]
    work.threads.notify_all()
    together.wait(SOON)


def test_what_others_put_is_found_by_looking(work: Work) -> None:
    """Nobody notifies: the watcher looks once a `poll`."""
    assert work.threads is not None
    work.threads.notify()
    eventually(lambda: work.looks)
    done = threading.Event()
    work.jobs.append(done.set)
    assert done.wait(SOON)


def test_spare_threads_end(work: Work) -> None:
    """When the work is done, the watcher stays and the others go."""
    assert work.threads is not None
    together = threading.Barrier(4)
    work.jobs += [partial(together.wait, SOON) for _ in range(4)]
    work.threads.notify()
    eventually(lambda: work.threads is not None and work.threads.alive >= 4)
    eventually(lambda: work.threads is not None and work.threads.alive == 1)


def test_an_exception_kills_no_thread(work: Work, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the thread goes on."""
    assert work.threads is not None

    def broken() -> None:
        raise RuntimeError("boom")

    done = threading.Event()
    with caplog.at_level(logging.ERROR):
        work.jobs += [broken, done.set]
        work.threads.notify()
        assert done.wait(SOON)
        eventually(lambda: "stumbled" in caplog.text)


def test_stop_is_bounded_and_starts_nothing(work: Work) -> None:
    """A job that hangs does not keep `stop` longer than its time; afterwards nothing new begins."""
    assert work.threads is not None
    release = threading.Event()
    work.jobs.append(partial(release.wait, SOON))
    work.threads.notify()
    eventually(lambda: not work.jobs)
    began = monotonic()
    assert not work.threads.stop(0.2)
    assert 0.15 < monotonic() - began < 1.0
    work.jobs.append(lambda: pytest.fail("it was started"))
    work.threads.notify()
    release.set()
    eventually(lambda: work.threads is not None and work.threads.alive == 0)
    assert work.jobs


def test_no_thread_where_the_system_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """ "can't start new thread" (or interpreter exit) is no error of the caller."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = Threads(lambda: False, lambda: None)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    threads.notify()
    assert threads.alive == 0
