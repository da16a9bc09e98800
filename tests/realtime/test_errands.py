"""What may block runs beside the connection: bounded, each answered once, and nothing waits behind it for ever."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

import pytest

from chatsdk.realtime.errands import Errands
from tests.waiting import eventually

SOON = 5.0


class Answers:
    """What came back."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.errors: list[BaseException] = []

    def run(self, errands: Errands, work: Callable[[], Any], *, quick: bool = False) -> bool:
        return errands.run(work, self.results.append, self.errors.append, quick=quick)


@pytest.fixture
def answers() -> Any:
    """Answers; at the end no thread is left."""
    yield Answers()
    eventually(lambda: not [each for each in threading.enumerate() if each.name.startswith("chatsdk-realtime-errand-")])


def test_each_errand_is_answered_once(answers: Answers) -> None:
    """A result goes to `answered`, an exception of any kind to `failed`, whatever those before it did."""
    errands = Errands(linger=0.05)

    def work(number: int) -> int:
        if number % 5 == 0:
            raise SystemExit(number)
        if number % 3 == 0:
            raise ValueError(number)
        return number

    for number in range(100):
        assert answers.run(errands, partial(work, number))
    eventually(lambda: len(answers.results) + len(answers.errors) == 100)
    failed = {number for number in range(100) if number % 5 == 0 or number % 3 == 0}
    assert {error.args[0] for error in answers.errors} == failed
    assert set(answers.results) == set(range(100)) - failed
    eventually(lambda: errands.threads == 0)


def test_threads_are_few_and_started_late(answers: Answers) -> None:
    """None in the constructor, at most `workers` of a kind however much waits, and none when nothing does."""
    errands = Errands(2, linger=0.05)
    assert errands.threads == 0
    free = threading.Event()
    for _ in range(20):
        answers.run(errands, lambda: free.wait(SOON))
    assert errands.threads == 2
    free.set()
    eventually(lambda: len(answers.results) == 20)
    eventually(lambda: errands.threads == 0)


def test_the_quick_line_does_not_wait_for_the_other(answers: Answers) -> None:
    """With 128 errands waiting behind two that block, the connection's own token comes at once."""
    errands = Errands(2, linger=0.05)
    free = threading.Event()
    for _ in range(128):
        answers.run(errands, lambda: free.wait(SOON))
    answers.run(errands, lambda: "token", quick=True)
    eventually(lambda: answers.results == ["token"])
    free.set()
    eventually(lambda: len(answers.results) == 129)


def test_an_answer_that_raises_stops_nothing(answers: Answers, caplog: pytest.LogCaptureFixture) -> None:
    """The thread goes on with the next errand, and it is logged."""
    errands = Errands(1, linger=0.05)

    def refuse(result: object) -> None:
        raise RuntimeError("closed")

    errands.run(lambda: 1, refuse, refuse)
    answers.run(errands, lambda: 2)
    eventually(lambda: answers.results == [2])
    assert [each.levelname for each in caplog.records] == ["ERROR"]


def test_close_is_bounded_and_late_answers_are_ignored(answers: Answers) -> None:
    """What waits is forgotten, what runs is left behind, and nothing is taken any more."""
    errands = Errands(1)
    free = threading.Event()
    began = threading.Event()
    ended = threading.Event()

    def slow() -> str:
        began.set()
        free.wait(SOON)
        ended.set()
        return "late"

    answers.run(errands, slow)
    answers.run(errands, lambda: "never")
    assert began.wait(SOON)
    start = monotonic()
    assert not errands.close(0.05)
    assert monotonic() - start < 1.0
    free.set()
    assert ended.wait(SOON)
    assert errands.close(SOON)
    eventually(lambda: errands.threads == 0)
    assert answers.results == []
    assert not answers.run(errands, lambda: "after")


def test_an_errand_may_close(answers: Answers) -> None:
    """It does not wait for itself."""
    errands = Errands()
    closed: list[bool] = []
    answers.run(errands, lambda: closed.append(errands.close(SOON)))
    eventually(lambda: closed == [True])


FORK = """
import os, threading
from chatsdk.realtime.errands import Errands

errands, free, got = Errands(1), threading.Event(), []
errands.run(lambda: free.wait(10), got.append, got.append)
errands.run(lambda: "parent", got.append, got.append)
pid = os.fork()
if pid == 0:
    assert errands.threads == 0
    assert errands.run(lambda: "child", got.append, got.append)
    while not got:
        pass
    assert got == ["child"], got
    assert errands.close(5)
    os._exit(42)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
free.set()
while len(got) < 2:
    pass
assert got == [True, "parent"], got
assert errands.close(5)
"""


def test_a_forked_child_begins_with_nothing() -> None:
    """What waits when a process forks is done by the parent; the child has threads of its own."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=30)
