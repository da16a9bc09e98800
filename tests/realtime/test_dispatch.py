"""Handlers run in order per channel, never on the reader's thread, and none of them stops another channel."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from functools import partial
from time import monotonic
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatsdk.realtime.dispatch import Dispatch, Lane
from tests.waiting import eventually

SOON = 5.0


def handlers() -> list[threading.Thread]:
    """The threads of every dispatch."""
    return [each for each in threading.enumerate() if each.name.startswith("chatsdk-realtime-handler-")]


@pytest.fixture(autouse=True)
def _none_left() -> Any:
    """No test leaves a thread behind."""
    yield
    eventually(lambda: not handlers())


puts = st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 7)), max_size=5), max_size=30)


@settings(deadline=None, max_examples=60)
@given(puts, st.integers(1, 4), st.integers(1, 20), st.booleans())
def test_each_lane_gets_what_it_took_in_order(
    batches: list[list[tuple[int, int]]], workers: int, bound: int, resumes: bool
) -> None:
    """What was taken is handled once and in order, each event done after it; what was not is given back in order."""
    seen: list[tuple[int, int]] = []
    done: list[tuple[int, int]] = []
    drained: list[Lane[tuple[int, int]]] = []
    dispatch: Dispatch[tuple[int, int]] = Dispatch(
        seen.append, done=lambda lane, event: done.append(event), drained=drained.append, workers=workers, bound=bound
    )
    lanes = [dispatch.lane(str(number)) for number in range(5)]
    taken: list[list[int]] = [[] for _ in lanes]
    behind = [False] * len(lanes)
    count = 0
    for batch in batches:
        put: list[tuple[Lane[tuple[int, int]], list[tuple[int, int]]]] = []
        for number, size in batch:
            events = [(number, count + i) for i in range(size)]
            count += size
            put.append((lanes[number], events))
        given_back = [event for refusal in dispatch.put(put) for event in refusal.events]
        for number, lane in enumerate(lanes):
            sent = [event for to, events in put if to is lane for event in events]
            back = [event for event in given_back if event[0] == number]
            assert back == sent[len(sent) - len(back) :], "the newest are refused"
            assert not behind[number] or back == sent, "a lane that is behind takes nothing"
            behind[number] = behind[number] or bool(back)
            taken[number] += [event[1] for event in sent[: len(sent) - len(back)]]
        if resumes:
            for number, lane in enumerate(lanes):
                if behind[number]:
                    eventually(partial(drained.__contains__, lane))
                    drained.remove(lane)
                    dispatch.resume(lane)
                    behind[number] = False
    eventually(lambda: len(done) == sum(map(len, taken)))
    for number, wanted in enumerate(taken):
        assert [event for lane, event in seen if lane == number] == wanted
        assert [event for lane, event in done if lane == number] == wanted
    eventually(lambda: len(drained) == sum(behind))
    assert dispatch.close(SOON)


def test_nothing_is_started_before_it_is_needed_and_threads_end_when_idle() -> None:
    """No thread in the constructor; daemon threads with a name; and after a while without work there is none."""
    who: list[threading.Thread] = []
    dispatch: Dispatch[int] = Dispatch(lambda event: who.append(threading.current_thread()), linger=0.05)
    lane = dispatch.lane("a")
    assert not handlers()
    dispatch.put([(lane, [1])])
    eventually(lambda: who)
    assert who[0].daemon
    assert who[0].name.startswith("chatsdk-realtime-handler-")
    eventually(lambda: dispatch.threads == 0)
    dispatch.put([(lane, [2])])
    eventually(lambda: len(who) == 2)
    dispatch.close(SOON)


def test_handlers_that_block_hold_their_own_channel_only() -> None:
    """More blocked channels than workers: the others go on, without anything else being put; then threads end again."""
    free = threading.Event()
    seen: list[str] = []

    def handle(event: str) -> None:
        if event == "block":
            free.wait(SOON)
        seen.append(event)

    dispatch: Dispatch[str] = Dispatch(handle, workers=2, late=0.05, linger=0.1)
    blocked = [(dispatch.lane(f"b{number}"), ["block"]) for number in range(7)]
    others = [(dispatch.lane(f"o{number}"), ["go"]) for number in range(10)]
    began = monotonic()
    dispatch.put([*blocked, *others])
    eventually(lambda: seen.count("go") == 10)
    assert monotonic() - began < 1.0
    assert "block" not in seen
    assert dispatch.threads <= 2 + 7 + 1
    free.set()
    eventually(lambda: len(seen) == 17)
    eventually(lambda: dispatch.threads == 0)


def test_threads_have_a_limit() -> None:
    """With that many handlers blocked no further thread is started, and all goes on when they return."""
    free = threading.Event()
    dispatch: Dispatch[int] = Dispatch(lambda event: free.wait(SOON), workers=1, limit=3, late=0.01)
    dispatch.put([(dispatch.lane(str(number)), [number]) for number in range(8)])
    eventually(lambda: dispatch.threads == 3)
    eventually(lambda: dispatch.pending == 5)
    assert dispatch.threads == 3
    free.set()
    eventually(lambda: dispatch.pending == 0)
    assert dispatch.close(SOON)


def test_handlers_in_time_are_no_more_than_workers() -> None:
    """Handlers that take a moment run in as many threads at once as there are workers."""
    lock = threading.Lock()
    now = most = total = 0

    def handle(event: int) -> None:
        nonlocal now, most, total
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.005)
        with lock:
            now -= 1
            total += 1

    dispatch: Dispatch[int] = Dispatch(handle, workers=3, late=SOON)
    dispatch.put([(dispatch.lane(str(number)), [1, 2]) for number in range(12)])
    eventually(lambda: total == 24)
    assert most == 3
    dispatch.close(SOON)


def test_a_full_lane_refuses_and_says_when_it_was_drained() -> None:
    """Putting does not wait for the handler; the newest come back; after `drained` and `resume` it takes again."""
    free = threading.Event()
    seen: list[int] = []
    drained: list[Lane[int]] = []

    def handle(event: int) -> None:
        free.wait(SOON)
        seen.append(event)

    dispatch: Dispatch[int] = Dispatch(handle, drained=drained.append, bound=3)
    lane, other = dispatch.lane("a"), dispatch.lane("b")
    dispatch.put([(lane, [0])])
    eventually(lambda: dispatch.pending == 0)
    began = monotonic()
    refused = dispatch.put([(lane, [1, 2, 3, 4, 5]), (other, [9])])
    assert [(each.lane, list(each.events)) for each in refused] == [(lane, [4, 5])]
    for _ in range(100):
        assert [list(each.events) for each in dispatch.put([(lane, [6])])] == [[6]]
    assert monotonic() - began < 1.0, "it got its moment once, not a hundred times"
    assert dispatch.refused == 102
    assert not drained
    free.set()
    eventually(lambda: drained == [lane])
    assert [event for event in seen if event != 9] == [0, 1, 2, 3]
    assert dispatch.put([(lane, [7])]), "only its owner knows when it may go on"
    dispatch.resume(lane)
    assert not dispatch.put([(lane, [4, 5])])
    eventually(lambda: seen[-2:] == [4, 5])
    assert drained == [lane]
    dispatch.close(SOON)


def test_one_read_gives_full_lanes_one_moment_together() -> None:
    """Many full channels hold the reader no longer than one does."""
    free = threading.Event()
    dispatch: Dispatch[int] = Dispatch(lambda event: free.wait(SOON), workers=1, limit=1, bound=1)
    lanes = [dispatch.lane(str(number)) for number in range(100)]
    assert not dispatch.put([(lane, [1]) for lane in lanes])
    eventually(lambda: dispatch.pending == 99)
    began = monotonic()
    assert len(dispatch.put([(lane, [2, 3]) for lane in lanes])) == 100
    assert 0.01 < monotonic() - began < 1.0
    free.set()
    eventually(lambda: dispatch.pending == 0)
    assert dispatch.close(SOON)


def test_a_lane_that_merely_had_no_turn_yet_refuses_nothing() -> None:
    """A reader quicker than a quick handler does not make it fall behind."""
    count = 0

    def handle(event: int) -> None:
        nonlocal count
        count += 1

    dispatch: Dispatch[int] = Dispatch(handle, bound=100)
    lane = dispatch.lane("a")
    for _ in range(300):
        assert not dispatch.put([(lane, range(80))])
    eventually(lambda: count == 24_000)
    dispatch.close(SOON)


def test_a_handler_that_raises_is_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Its event is done, those after it are handled, other channels as well."""
    done: list[int] = []

    def handle(event: int) -> None:
        if event % 2:
            raise ValueError(event)

    dispatch: Dispatch[int] = Dispatch(handle, done=lambda lane, event: done.append(event))
    with caplog.at_level(logging.ERROR):
        dispatch.put([(dispatch.lane("a"), list(range(10))), (dispatch.lane("b"), list(range(10, 20)))])
        eventually(lambda: len(done) == 20)
    assert dispatch.raised == 10
    assert len(caplog.records) == 1
    dispatch.close(SOON)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_handler_may_end_the_program(error: BaseException) -> None:
    """SystemExit and KeyboardInterrupt are handed on; the event is done, so a restarted bot does not quit again."""
    leaving: list[BaseException] = []
    done: list[int] = []

    def handle(event: int) -> None:
        raise error

    def leave(error: BaseException) -> None:
        leaving.append(error)
        dispatch.close(0)

    dispatch: Dispatch[int] = Dispatch(handle, done=lambda lane, event: done.append(event), leaving=leave)
    dispatch.put([(dispatch.lane("a"), [1, 2, 3])])
    eventually(lambda: done)
    eventually(lambda: not dispatch.threads)
    assert leaving == [error]
    assert done == [1]
    assert dispatch.raised == 0


def test_done_comes_before_the_next_event() -> None:
    """At any moment at most one event of a lane was begun and is not done."""
    steps: list[tuple[str, int]] = []
    dispatch: Dispatch[int] = Dispatch(
        lambda event: steps.append(("begun", event)), done=lambda lane, event: steps.append(("done", event))
    )
    dispatch.put([(dispatch.lane("a"), [1, 2, 3])])
    eventually(lambda: len(steps) == 6)
    assert steps == [(what, event) for event in (1, 2, 3) for what in ("begun", "done")]
    dispatch.close(SOON)


def test_what_cannot_be_stored_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A `done` that raises is logged once, and the events go on."""
    seen: list[int] = []

    def done(lane: Lane[int], event: int) -> None:
        raise OSError("disk")

    dispatch: Dispatch[int] = Dispatch(seen.append, done=done)
    dispatch.put([(dispatch.lane("a"), [1, 2, 3])])
    eventually(lambda: dispatch.raised == 3)
    assert seen == [1, 2, 3]
    assert len([each for each in caplog.records if each.levelno == logging.ERROR]) == 1
    dispatch.close(SOON)


def test_a_handler_may_put_and_close() -> None:
    """Putting from inside a handler works, even into its own full lane; closing from there is bounded."""
    seen: list[int] = []
    closed: list[bool] = []

    def handle(event: int) -> None:
        seen.append(event)
        if event == 1:
            dispatch.put([(lane, [2, 3]), (other, [4])])
            assert [list(each.events) for each in dispatch.put([(lane, [5])])] == [[5]]
        if event == 3:
            closed.append(dispatch.close(0.05))

    dispatch: Dispatch[int] = Dispatch(handle, bound=2)
    lane, other = dispatch.lane("a"), dispatch.lane("b")
    dispatch.put([(lane, [1])])
    eventually(lambda: closed)
    assert sorted(seen) == [1, 2, 3, 4]
    assert closed == [True]
    assert dispatch.raised == 0


def test_close_is_bounded_and_leaves_the_rest_not_done() -> None:
    """A handler that blocks does not hold `close`; what waited, and what was taken with it, is never begun."""
    free = threading.Event()
    began = threading.Event()
    seen: list[int] = []
    done: list[int] = []

    def handle(event: int) -> None:
        seen.append(event)
        began.set()
        free.wait(SOON)

    dispatch: Dispatch[int] = Dispatch(handle, done=lambda lane, event: done.append(event), workers=1)
    lane = dispatch.lane("a")
    dispatch.put([(lane, [1, 2, 3]), (dispatch.lane("b"), [11])])
    assert began.wait(SOON)
    dispatch.put([(lane, [4])])
    start = monotonic()
    assert not dispatch.close(0.05)
    assert monotonic() - start < 1.0
    free.set()
    assert dispatch.close(SOON)
    eventually(lambda: dispatch.threads == 0)
    assert (seen, done) == ([1], [1])
    assert dispatch.put([(lane, [5])]) == []
    assert dispatch.threads == 0


def test_dropping_ends_a_lane_after_the_event_at_hand() -> None:
    """What waits in a lane that nobody wants any more is forgotten, not done; others and later ones are handled."""
    free = threading.Event()
    began = threading.Event()
    done: list[int] = []

    def handle(event: int) -> None:
        began.set()
        free.wait(SOON)

    dispatch: Dispatch[int] = Dispatch(handle, done=lambda lane, event: done.append(event))
    lane = dispatch.lane("a")
    dispatch.put([(lane, [1, 2])])
    assert began.wait(SOON)
    dispatch.put([(lane, [3])])
    dispatch.drop(lane)
    dispatch.put([(lane, [4])])
    free.set()
    eventually(lambda: done == [1, 4])
    dispatch.close(SOON)


FORK = """
import os, threading
from chatsdk.realtime.dispatch import Dispatch

seen, free = [], threading.Event()
def handle(event):
    if event == 1:
        free.wait(10)
    seen.append(event)

dispatch = Dispatch(handle)
lane = dispatch.lane("a")
dispatch.put([(lane, [1, 2])])
while dispatch.pending:
    pass
dispatch.put([(lane, [3])])
pid = os.fork()
if pid == 0:
    seen.clear()
    assert dispatch.threads == 0
    dispatch.put([(lane, [7])])
    while not seen:
        pass
    assert seen == [7], seen
    assert dispatch.close(5)
    os._exit(42)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42
free.set()
while len(seen) < 3:
    pass
assert seen == [1, 2, 3], seen
assert dispatch.close(5)
"""


def test_a_forked_child_handles_only_what_is_put_there() -> None:
    """What waits when a process forks is handled by the parent, once; the child begins with threads of its own."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=30)


def test_who_waits_for_an_idle_lane_is_called_after_its_handlers() -> None:
    """At once where nothing is at work, also in a lane that was never used; else once the last event is done."""
    gate, called, done = threading.Event(), list[str](), list[int]()
    dispatch: Dispatch[int] = Dispatch(lambda _: gate.wait(SOON), done=lambda lane, event: done.append(event))
    lane = dispatch.lane("a")
    dispatch.when_idle(lane, lambda: called.append("unused"))
    assert called == ["unused"]
    dispatch.put([(lane, [1, 2])])
    dispatch.when_idle(lane, lambda: called.append(f"after {done}"))
    dispatch.when_idle(lane, lambda: 1 / 0)  # is logged, and stops nobody
    dispatch.when_idle(lane, lambda: called.append("too"))
    assert called == ["unused"]
    gate.set()
    eventually(lambda: len(called) == 3)
    assert called == ["unused", "after [1, 2]", "too"]
    dispatch.when_idle(lane, lambda: called.append("again"))
    assert called[-1] == "again"
    dispatch.close(SOON)
