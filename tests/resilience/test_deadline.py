"""Deadlines around a stretch of code: nesting, whom they bind, what is left."""

from __future__ import annotations

import asyncio
import contextvars
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import chatsdk
from chatsdk.core.errors import ConnectTimeoutError
from chatsdk.plugin import Deadline
from chatsdk.resilience.circuits import Circuits
from chatsdk.resilience.deadline import OURS, bounded, clamp, current, is_over, nothing_sent
from chatsdk.testing.clock import FakeClock

SECONDS = st.floats(0, 100, allow_nan=False)


@given(st.lists(st.tuples(SECONDS, SECONDS), max_size=8))
def test_of_nested_ones_the_earliest_counts(steps: list[tuple[float, float]]) -> None:
    """However they are nested and whatever time passes between: what is left is the least of what each one leaves."""
    clock = FakeClock(monotonic=0.0)
    ends: list[float] = []
    with ExitStack() as stack:
        outer: list[Deadline | None] = [current()]
        for seconds, passes in steps:
            given_ = stack.enter_context(bounded(seconds, clock))
            ends.append(clock.monotonic() + seconds)
            outer.append(current())
            assert current() is given_
            clock.advance(passes)
            left = max(0.0, min(ends) - clock.monotonic())
            assert given_.remaining() == pytest.approx(left, abs=1e-9)
            assert clamp(None) == pytest.approx(left, abs=1e-9)
            assert clamp(50.0) == pytest.approx(min(50.0, left), abs=1e-9)
            assert is_over() == (given_.remaining() <= 0)
    assert current() is None


@given(st.lists(SECONDS, min_size=1, max_size=6), st.integers(0, 5))
def test_each_one_ends_with_its_block(seconds: list[float], raises_at: int) -> None:
    """Also where the block is left by an error: then the one around it counts again."""
    clock = FakeClock()
    seen: list[Deadline | None] = []

    def enter(rest: list[float]) -> None:
        before = current()
        if rest:
            with bounded(rest[0], clock):
                enter(rest[1:])
        elif raises_at % 2:
            raise KeyError
        seen.append(before)
        assert current() is before

    try:
        enter(seconds)
    except KeyError:
        assert raises_at % 2
    assert current() is None


def test_without_one_nothing_is_bound() -> None:
    """What was asked for is what there is."""
    assert (clamp(3.0), clamp(None), current(), is_over()) == (3.0, None, None, False)


def test_clocks_may_differ() -> None:
    """Two clients with clocks of their own: what is left is compared, not the moments."""
    early, late = FakeClock(monotonic=5.0), FakeClock(monotonic=1e6)
    with bounded(10, late), bounded(20, early):
        assert clamp(None) == 10
        late.advance(4)
        assert clamp(None) == 6
    with bounded(20, early), bounded(10, late):
        assert clamp(None) == 10


def thread(work: Callable[[], object], name: str, context: contextvars.Context | None = None) -> list[Any]:
    """What `work` returns in a thread of that name, which was handed a context or not."""
    results: list[Any] = []
    run = work if context is None else lambda: context.run(work)
    made = threading.Thread(target=lambda: results.append(run()), name=name)
    made.start()
    made.join(10)
    return results


def test_whom_it_binds() -> None:
    """The context: what `asyncio.to_thread` runs, and no thread that is merely started inside."""
    clock = FakeClock()

    async def elsewhere() -> object:
        with bounded(5, clock):
            return await asyncio.to_thread(clamp, None)

    assert asyncio.run(elsewhere()) == 5
    with bounded(5, clock):
        assert thread(lambda: clamp(None), "any") == [None]
        assert thread(lambda: clamp(None), "any", contextvars.copy_context()) == [5]


def test_threads_of_ours_are_bound_by_nobodys() -> None:
    """Not even where Python hands its context to a new thread; but by one that is opened there (a handler's code)."""
    clock = FakeClock()

    def handler() -> tuple[float | None, float | None, float | None]:
        before = clamp(None)
        with bounded(3, clock):
            return before, clamp(None), thread(lambda: clamp(None), "other", contextvars.copy_context())[0]

    with bounded(5, clock):
        assert thread(handler, "chatsdk-outbox-1", contextvars.copy_context()) == [(None, 3, 3)]


def test_threads_of_ours_have_such_names() -> None:
    """All that the package starts, but for the command line's own scripts and the server."""
    package = Path(chatsdk.__file__).parent
    started = [
        (file.name, match[0])
        for file in package.rglob("*.py")
        if not {"devserver", "demo"} & set(file.relative_to(package).parts)
        for match in re.finditer(r"threading\.Thread\(.*?daemon=", file.read_text(encoding="utf-8"), re.DOTALL)
    ]
    assert len(started) >= 10
    unnamed = [(file, code) for file, code in started if f'"{OURS}' not in code and "name=name" not in code]
    assert unnamed == []


def test_tasks_do_not_share_it() -> None:
    """Two tasks of one thread: each has its own."""
    clock = FakeClock()

    async def task(seconds: float) -> float | None:
        with bounded(seconds, clock):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return clamp(None)

    async def both() -> list[float | None]:
        return list(await asyncio.gather(task(3), task(7)))

    assert asyncio.run(both()) == [3, 7]


def test_a_generator_may_be_closed_elsewhere() -> None:
    """One that was left in the middle is closed by whom it meets: that does no harm."""
    clock = FakeClock()

    def generator() -> Iterator[int]:
        with bounded(5, clock):
            yield 1

    def begin() -> Iterator[int]:
        made = generator()
        next(made)
        return made

    made = contextvars.copy_context().run(begin)
    made.close()  # type: ignore[attr-defined]
    assert current() is None


def test_a_circuit_is_not_asked_when_nothing_is_left() -> None:
    """`circuits.call` begins nothing then, and it counts for nothing."""
    circuits = Circuits()
    with bounded(0, FakeClock()), pytest.raises(ConnectTimeoutError) as caught:
        circuits.call("mine", lambda: pytest.fail("called"))
    assert caught.value.code == "deadline"
    assert circuits.counts("mine").failures == 0
    assert circuits.call("mine", lambda: 1) == 1


def test_the_error_says_what_to_do() -> None:
    """It is known that nothing happened, and that asking again is safe."""
    error = nothing_sent("an id")
    assert (error.code, error.retryable, error.maybe_done, error.request_id) == ("deadline", True, False, "an id")
    assert isinstance(error, TimeoutError)
    assert "chat.deadline" in error.hint
