"""The retry budget: keeps retries from multiplying an outage.

A bucket of tokens for the whole client. A retry takes some, a clean success (one that needed no retry) gives one back.
While most calls succeed the bucket is full and nobody notices it; when most fail it runs dry and calls fail at their
first error, so that a server in trouble gets little more than the traffic it would have anyway. The numbers are those
of the AWS SDKs' standard mode.
"""

from __future__ import annotations

import threading

from ..core.errors import ChatError

CAPACITY = 500
COST = 5
TIMEOUT_COST = 10
"""A time-out has kept the caller and the server busy for long already."""


class RetryBudget:
    """Thread-safe. `capacity`: tokens in a full bucket."""

    __slots__ = ("_capacity", "_lock", "_tokens")

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._tokens = capacity
        self._lock = threading.Lock()

    @property
    def tokens(self) -> int:
        """What is left."""
        return self._tokens

    def take(self, error: ChatError) -> bool:
        """Pay for one retry after `error`; False: there is not enough left, so do not retry."""
        cost = TIMEOUT_COST if isinstance(error, TimeoutError) else COST
        with self._lock:
            if self._tokens < cost:
                return False
            self._tokens -= cost
            return True

    def success(self) -> None:
        """A call succeeded at its first try."""
        if self._tokens < self._capacity:  # a full bucket costs no lock
            with self._lock:
                self._tokens = min(self._capacity, self._tokens + 1)

    def after_fork(self) -> None:
        """In a forked child: a lock that another thread held there would never be released."""
        self._lock = threading.Lock()
