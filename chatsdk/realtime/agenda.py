"""What the thread that reads has to do besides: what others handed in, and what is due at a time; and what it has done
by others, because it may block. What comes of that is handed in as well."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

from .errands import Errands

Job = Callable[[float], object]
"""Called with the time (monotonic)."""


class Agenda:
    """`hand_in` is for any thread, all else for the one that reads. wake: has that thread call `work` soon."""

    def __init__(self, errands: Errands, wake: Callable[[], object]) -> None:
        self._errands = errands
        self._wake = wake
        self._inbox: deque[Job] = deque()
        self._later: list[tuple[float, int, Job]] = []
        self._number = count()

    def hand_in(self, job: Job) -> None:
        """Have it run in the thread that reads; where there is none, as soon as there is one."""
        self._inbox.append(job)
        self._wake()

    def at(self, when: float, job: Job) -> None:
        """Have it run then."""
        heappush(self._later, (when, next(self._number), job))

    def errand(
        self,
        work: Callable[[], Any],
        answered: Callable[[Any, float], object],
        failed: Callable[[BaseException, float], object],
    ) -> bool:
        """Have `work` done elsewhere; what comes of it is told in the thread that reads. False: it will not be done."""
        return self._errands.run(
            work,
            lambda answer: self.hand_in(lambda now: answered(answer, now)),
            lambda error: self.hand_in(lambda now: failed(error, now)),
        )

    def next_due(self) -> float | None:
        """When to call `work`, at the latest."""
        if self._inbox:
            return float("-inf")
        return self._later[0][0] if self._later else None

    def work(self, now: float) -> None:
        """Everything that was handed in up to now, and that is due."""
        for _ in range(len(self._inbox)):
            self._inbox.popleft()(now)
        while self._later and self._later[0][0] <= now:
            heappop(self._later)[2](now)
