"""The clock, deadlines and the retry budget."""

from __future__ import annotations

import threading
import time

from chatsdk.core.clock import Clock
from chatsdk.core.errors import DeadlineExceeded, NotSentError
from chatsdk.resilience.budget import CAPACITY, RetryBudget
from chatsdk.resilience.deadline import Deadline
from chatsdk.resilience.system_clock import SystemClock
from tests.pipeline.kit import FakeClock


def test_system_clock() -> None:
    """It is the system's time, and its wait ends when the event is set."""
    clock: Clock = SystemClock()
    assert abs(clock.monotonic() - time.monotonic()) < 1
    assert abs(clock.time() - time.time()) < 1
    event = threading.Event()
    assert clock.wait(event, 0.001) is False
    event.set()
    assert clock.wait(event, 60) is True


def test_deadline() -> None:
    """What is left shrinks, ends at zero, and limits what others may take."""
    clock = FakeClock()
    deadline = Deadline.after(10, clock)
    assert (deadline.remaining(), deadline.clamp(3), deadline.clamp(30)) == (10, 3, 10)
    clock.now += 10
    assert (deadline.remaining(), deadline.expired, deadline.clamp(3)) == (0, True, 0)
    clock.now += 10
    assert deadline.remaining() == 0
    never = Deadline.after(None, clock)
    assert (never.expired, never.clamp(3)) == (False, 3)


def test_budget_runs_dry_and_fills_up() -> None:
    """A hundred retries, or fifty after time-outs; each clean success gives one back; never more than full."""
    budget = RetryBudget()
    assert sum(budget.take(NotSentError()) for _ in range(200)) == 100
    assert budget.tokens == 0
    for _ in range(9):
        budget.success()
    assert not budget.take(DeadlineExceeded())
    assert budget.take(NotSentError())
    for _ in range(2 * CAPACITY):
        budget.success()
    assert budget.tokens == CAPACITY
    assert sum(budget.take(DeadlineExceeded()) for _ in range(200)) == 50


def test_budget_in_a_forked_child() -> None:
    """A lock that was held when the process forked does not hold the child."""
    budget = RetryBudget(10)
    budget._lock.acquire()
    budget.after_fork()
    assert budget.take(NotSentError())
