"""The three questions that delivery asks the server, each bounded in time; an error is an answer too.

Every one goes through the whole pipeline as a single try: for a message of the outbox the lane is the retry.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from ..core.backend import Backend
from ..core.clock import Clock
from ..core.exchange import Request, Response
from ..core.record import Record, record
from ..core.store import Row
from .verdict import Delivered, Outcome

HEALTH_TIMEOUT = 5.0
"""Seconds for the question whether the server is well (at most the timeout of a try)."""


@record(frozen=True, slots=True)
class Bound(Record):
    """How long somebody waits, in monotonic time: no try starts at `start_by` or later, and none lasts beyond `end`."""

    start_by: float = inf
    end: float = inf


UNBOUND = Bound()


class Calls:
    """What `Worker` asks of the server. `last_success`: monotonic time of its last good answer to anybody."""

    def __init__(
        self,
        send: Callable[[Request], Response],
        backend: Backend,
        clock: Clock,
        timeout: float,
        last_success: Callable[[], float | None],
    ) -> None:
        self._send = send
        self._backend = backend
        self._clock = clock
        self._timeout = timeout
        self._last_success = last_success

    def deliver(self, row: Row, bound: Bound) -> Outcome:
        """Send the message."""
        try:
            request = row.request.replace(
                deadline=self._deadline(self._timeout, bound), attempt=row.attempts + 1, single_try=True
            )
            return Delivered(self._backend.sent_message(row.request, self._send(request)))
        except Exception as error:
            return error

    def look_up(self, row: Row, bound: Bound) -> Outcome:
        """Ask whether the server has it."""
        try:
            call = self._backend.settle(row.request)
            deadline = self._deadline(self._timeout, bound)
            return Delivered(
                call.parse(self._send(call.request.replace(deadline=deadline, single_try=True, fresh=True)))
            )
        except Exception as error:
            return error

    def server_well(self, since: float, bound: Bound) -> bool:
        """Another request succeeded since then (monotonic time); where there was none, a health check decides."""
        last = self._last_success()
        if last is not None and last > since:
            return True
        try:
            call = self._backend.health()
            deadline = self._deadline(min(self._timeout, HEALTH_TIMEOUT), bound)
            return call.parse(self._send(call.request.replace(deadline=deadline, single_try=True, fresh=True))).ok
        except Exception:
            return False  # whatever it is, it is no sign of health

    def _deadline(self, timeout: float, bound: Bound) -> float:
        return min(self._clock.monotonic() + timeout, bound.end)
