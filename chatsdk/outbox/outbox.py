"""The outbox as the client sees it: accept a message, wait for it, drain, close.

The store keeps rows and lanes, `worker` delivers, `threads` run it; here is who starts, wakes and ends what. There is
one way to deliver, `Worker.serve`, and three who call it: the background threads, `deliver_inline` (one-shot mode: the
caller's own thread, for one message), and `flush` (the caller's own thread, for all; beside the threads if there are
any).

Rules.
1. Nothing raises because the server is down. After a message was accepted, not even a broken disk makes `wait` raise.
2. Nothing is opened or started before it is needed; no thread in one-shot mode.
3. After a fork the child begins anew (`process.Process`), by pid, because not every server calls fork hooks: threads,
   waiters and lanes of the parent stay the parent's. The store looks after its own files.
4. `close` is bounded and idempotent. A try that does not end in time is left behind; its lane is given back, its row
   marked as uncertain.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from functools import partial
from math import inf

from ..core.backend import Backend
from ..core.clock import Clock, Random, Waitable
from ..core.errors import NotAcceptedError, StorageError
from ..core.events import Event
from ..core.exchange import Request, Response
from ..core.models import FlushReport
from ..core.store import Entry, Lane, LaneStatus, OutboxStore, Put, Reason, Row, Selection, State, Stats
from ..resilience.deadline import clamp
from . import forks, report
from .calls import Bound
from .process import Process
from .threads import POLL
from .verdict import MAX_STRIKES
from .wake import WakeFile
from .worker import Worker

SOON = 0.05
"""Seconds until a waiter reckons with delivery by another process."""

LOOK = 0.25
"""Seconds until a waiter asks the disk again what another process did and did not say; it doubles, up to POLL."""

CHECK = 5.0
"""Seconds between two looks of `run_forever` whether there are threads; an idle process should sleep."""

PATIENCE = 2.0
"""Seconds for which every try of a lane must have failed until `send` does not wait for it: less may be an accident, or
a server that starts again."""

STUCK_AFTER = 5
"""As many failures in a row take one to three seconds; it counts where another process made them."""

TOKENS_REFUSED = 2
"""Refused or missing tokens in a row after which `send` does not wait for a user's lanes."""

MARGIN = 0.1
"""The part of a budget, at most MARGIN_MAX seconds, in which no try is started any more: it could not end in time."""

MARGIN_MAX = 0.5

logger = logging.getLogger("chatsdk.outbox")


class Outbox:
    """The outbox of one client.

    store         any `core.store.OutboxStore`; whoever opened it closes it, after `close`
    send          the pipeline, `Request -> Response`
    users         whose messages this client can authorise (None: anybody's)
    lost          whether a user's session is lost for good
    circuit_open  seconds until the server's circuit lets a call through; 0 if it is not open
    last_success  monotonic time of the server's last good answer to anybody, None if there was none
    background    deliver in threads, at most `workers`; else only in `deliver_inline`, `flush` and `run_forever`
    timeout       seconds for one try; ttl: for dead letters retried by hand
    poll          seconds between two looks for what other processes put (they may also say so: `look`)
    """

    def __init__(
        self,
        store: OutboxStore,
        send: Callable[[Request], Response],
        backend: Backend,
        *,
        clock: Clock,
        random: Random,
        emit: Callable[[Event], None],
        users: Callable[[], Collection[str] | None] = lambda: None,
        lost: Callable[[str], bool] = lambda _: False,
        circuit_open: Callable[[], float] = lambda: 0.0,
        last_success: Callable[[], float | None] = lambda: None,
        background: bool = True,
        workers: int = 8,
        timeout: float = 10.0,
        ttl: float = 86400.0,
        max_strikes: int = MAX_STRIKES,
        sweep_interval: float = 30.0,
        poll: float = POLL,
    ) -> None:
        self.store = store
        self._background = background
        self._clock = clock
        self._emit = report.quietly(emit)
        self._lost = lost
        self._circuit_open = circuit_open
        self._ttl = ttl
        self._poll = poll
        self._workers = workers
        self._wake_file: WakeFile = getattr(store, "wake_file", None) or WakeFile(None)
        self._closed = False
        self._make_worker = partial(
            Worker,
            store,
            send,
            backend,
            clock=clock,
            random=random,
            emit=emit,
            users=users,
            last_success=last_success,
            timeout=timeout,
            max_strikes=max_strikes,
            sweep_interval=sweep_interval,
        )
        self._processes: dict[int, Process] = {}

    @property
    def _here(self) -> Process:
        pid = os.getpid()
        try:
            return self._processes[pid]
        except KeyError:
            # setdefault is atomic; a lock might have been held by another thread when the parent forked
            new = Process(
                self._make_worker,
                self._clock,
                self._wake_file,
                self._circuit_open,
                limit=self._workers,
                poll=self._poll,
            )
            here = self._processes.setdefault(pid, new)
            for other in list(self._processes):
                if other != pid:
                    self._processes.pop(other, None)
            return here

    @property
    def background(self) -> bool:
        """This process delivers in threads."""
        return self._background and not forks.is_bare_master()

    @background.setter
    def background(self, wanted: bool) -> None:
        self._background = wanted

    # ---- in

    def accept(self, request: Request, ttl: float) -> Put:
        """Make a message durable; once this returns it cannot be lost. `ttl`: seconds it may wait for delivery.

        Raises KeyReusedError, OutboxFullError, StorageError, and NotAcceptedError after `close`: then nothing happened.
        """
        if self._closed:
            raise NotAcceptedError("the client is closed", hint="make a new client")
        here = self._here
        stamp = here.worker.lanes.stamp
        put = self.store.put(Entry(request=request, created_at=self._clock.time(), ttl=ttl))
        here.worker.lanes.learn(put.row.lane, put.lane, stamp, self._clock.monotonic())
        try:
            if put.created:
                report.queued(self._emit, put.row)
        finally:  # a handler may want to leave; the message is accepted all the same
            if self.background and put.row.state is State.QUEUED:
                here.put(put.row.lane)
        return put

    # ---- waiting

    def wait(self, id: int | str, timeout: float | None = None, *, until_stuck: bool = False) -> Row | None:
        """Wait until a message (row id, or key) is SENT or DEAD, at most `timeout` seconds (None: for ever) and not
        beyond the caller's deadline, and return its row as it is then; None if it is not known (any more).
        `until_stuck`: or until `stuck` says that waiting is of no use. Never raises for the server or the disk."""
        timeout = clamp(timeout)
        end = inf if timeout is None else self._clock.monotonic() + timeout
        here = self._here
        known = None if isinstance(id, int) else self._read(id)
        if not isinstance(id, int):
            if known is None:
                return None
            id = known.id
        with ExitStack() as stack:
            waiter = stack.enter_context(here.waiters.wait_for(id))
            row, pause, told = self._read(id), SOON, False
            while row is not None and row.state is State.QUEUED and waiter.row is None:
                waiter.lane = row.lane
                left = end - self._clock.monotonic()
                if left <= 0 or self._closed or here.worker.is_mine(row.lane):
                    break
                if until_stuck and self.stuck(row.lane, wait=left) is not None:
                    break
                if self._clock.wait(waiter.event, min(pause, left)):
                    waiter.event.clear()
                else:
                    pause = LOOK if pause == SOON else min(pause * 2, max(LOOK, self._poll))
                if waiter.row is None:
                    if not told and min(pause, left) > SOON and not here.delivers(row.lane):
                        stack.enter_context(here.waiting())  # before the look at the row
                        told = True
                    row = self._read(id, row)
            return waiter.row or row

    def stuck(self, lane: Lane, *, wait: float, status: LaneStatus | None = None) -> Reason | None:
        """Why a lane will not be served within `wait` seconds, or None if it may be. Asks neither disk nor network.
        `status`: what `accept` said, if this process knows nothing newer."""
        worker, now = self._here.worker, self._clock.time()
        known = worker.lanes.status(lane) or status or LaneStatus()
        delay = max(0.0, known.not_before - now)
        user_waits = worker.users.waits(lane.user, self._clock.monotonic())
        if user_waits > wait or self._lost(lane.user):
            return Reason.AUTH
        if delay > wait:
            return _reason(known.reason) or Reason.UNCERTAIN
        if worker.is_mine(lane):
            return Reason.BEHIND_OTHERS
        if not self.background:
            return None  # the caller tries by itself
        if worker.users.failures(lane.user) >= TOKENS_REFUSED:
            return Reason.AUTH
        if self._circuit_open() > wait:
            return Reason.CIRCUIT_OPEN
        if worker.disk_failing:
            return Reason.DISK
        failing = worker.lanes.failing_for(lane, self._clock.monotonic())
        return _reason(known.reason) if failing >= PATIENCE or known.failures >= STUCK_AFTER else None

    def reason(self, row: Row) -> Reason | None:
        """Why a row is still QUEUED, or why it is DEAD; None if there is nothing to say."""
        if row.state is State.SENT:
            return None
        if row.reason:
            return _reason(row.reason)
        lane = row.lane
        if self._lost(lane.user) or self._here.worker.users.waits(lane.user, self._clock.monotonic()):
            return Reason.AUTH
        try:
            first = self.store.list(Selection(states=(State.QUEUED,), user=lane.user, channel=lane.channel, limit=1))
        except StorageError:
            return Reason.DISK
        return Reason.BEHIND_OTHERS if first and first[0].id != row.id else None

    # ---- delivery in the caller's thread

    def deliver_inline(self, id: int | str, timeout: float) -> Row | None:
        """Deliver a message in the calling thread, and what stands before it in its lane, for at most `timeout`
        seconds. Returns its row, still QUEUED if the lane must wait longer than that; None if it is not known."""
        here, bound = self._here, self._bound(timeout)
        while True:
            row = self._read(id)
            if row is None or row.state is not State.QUEUED or self._closed:
                return row
            if here.serve(only=row.lane, bound=bound):
                continue
            if self._lost(row.request.user) or here.worker.is_mine(row.lane):
                return row
            delay = self._lane_delay(here.worker, row.lane)
            if self._clock.monotonic() + delay >= bound.start_by:
                return row
            self._clock.wait(here.closing, delay)

    def _lane_delay(self, worker: Worker, lane: Lane) -> float:
        """Seconds until it makes sense to try a lane again that was not served just now."""
        try:
            status = self.store.lane_status(lane)
        except StorageError:
            status = LaneStatus()
        parked = status.not_before - self._clock.time()
        delay = max(parked, worker.users.waits(lane.user, self._clock.monotonic()), worker.held)
        return max(delay, LOOK / 5)  # another process has it: look again soon

    def flush(self, budget: float | None = None, *, start_threads: bool = True) -> FlushReport:
        """Deliver what waits: in the calling thread, and in the background threads if this client has any. Ends when
        nothing is left, when what is left may not be tried within `budget` seconds, or when those are over (None: when
        nothing is due now). Raises StorageError if the disk cannot say what is left."""
        here, bound = self._here, self._bound(budget)
        sent, dead = here.sent, here.dead
        if start_threads and self.background:
            here.threads.notify_all()
        while not self._closed:
            if here.serve(bound=bound):
                continue
            now, monotonic = self._clock.time(), self._clock.monotonic()
            turns = here.worker.turns  # before the look at what is due: a thread may take it at any moment
            busy = here.worker.busy
            due = here.worker.next_due(now)
            busy = busy or here.worker.turns != turns
            delay = inf if due is None else due - now
            worth_it = delay <= 0 if budget is None else monotonic + delay < bound.start_by
            if monotonic >= bound.end or not (worth_it or busy):
                break
            pause = min(max(delay, LOOK / 5) if worth_it else inf, bound.end - monotonic, self._poll)
            if busy:
                here.wait_for_move(min(pause, LOOK))
            else:
                self._clock.wait(here.closing, pause)
        return self._report(here.sent - sent, here.dead - dead)

    def drain_at_exit(self, limit: float) -> FlushReport:
        """Deliver in the calling thread for at most `limit` seconds, starting no thread, and say what is left."""
        return self.flush(limit, start_threads=False) if limit > 0 else self._report(0, 0)

    def run_forever(self, stop: Waitable) -> None:
        """Deliver in threads until `stop` is set or the outbox is closed."""
        self._here.listen()
        while not self._closed:
            if not self._here.threads.alive:  # not yet, or the system had none left
                self.start()
            if self._clock.wait(stop, CHECK if self._here.threads.alive else POLL):
                return

    # ---- starting and waking

    def start(self) -> None:
        """Start delivering in the background what lies here, also in one-shot mode."""
        if not self._closed:
            self._here.threads.notify()

    def look(self) -> None:
        """Another process put or delivered something: have threads and waiters look now."""
        here = self._here
        here.waiters.look()
        if self.background or here.threads.alive:
            here.threads.notify_all()

    def leave_to_others(self) -> None:
        """This process does not deliver what it accepted: have one do it that does, if there is any."""
        self._wake_file.work()

    def wake(self, *, user: str | None = None, lane: Lane | None = None) -> int:
        """Try at once what is parked, but for what the server asked to wait for (Retry-After). `user`: has a new token,
        also one whose session was lost; `lane`: only that. Returns how many lanes were parked."""
        here = self._here
        woken = here.worker.wake(user=user, lane=lane)
        here.probing.over()
        self.look()
        return woken

    def pause(self, user: str) -> None:
        """Do not try this user's messages until `resume`."""
        here = self._here
        here.worker.users.pause(user)
        here.waiters.look()

    def resume(self, user: str) -> None:
        """Try this user's messages again; the same as `wake(user=...)`."""
        self.wake(user=user)

    # ---- by hand

    def get(self, *, id: int | None = None, key: str | None = None) -> Row | None:
        """One row in any state, or None. Raises StorageError."""
        return self.store.get(id=id, key=key)

    def list(self, selection: Selection) -> Sequence[Row]:
        """Rows by id, ascending. Raises StorageError."""
        return self.store.list(selection)

    def stats(self) -> Stats:
        """Loss accounting. Raises StorageError."""
        return self.store.stats()

    def pending(self) -> int | None:
        """How many messages wait, for a gauge; None if that cannot be said now. A store that has no quick way to say it
        (`pending`) is asked for its stats."""
        quick: Callable[[], int | None] | None = getattr(self.store, "pending", None)
        try:
            return self.store.stats().pending if quick is None else quick()
        except Exception as error:  # a store may be anybody's, and whoever reads a gauge is in the middle of something
            logger.debug("the outbox could not be counted: %s", error)
            return None

    def retry(self, ids: Collection[int]) -> int:
        """Send dead letters again: they go to their lanes' ends, with their keys, and are looked for at the server
        first. Returns how many. Raises StorageError."""
        count = self.store.retry(ids, self._clock.time(), self._ttl)
        if count:
            self._wake_file.work()
        if count and self.background and not self._closed:
            self._here.threads.notify_all()
        return count

    def discard(self, ids: Collection[int]) -> int:
        """Give up dead letters and waiting messages (but not one that is on its way). Returns how many. Raises
        StorageError."""
        count = self.store.discard(ids, self._clock.time())
        self._here.waiters.look()
        if count:
            self._wake_file.result()
        return count

    # ---- the end

    def close(self, timeout: float) -> bool:
        """Accept and claim nothing more, let tries under way end for at most `timeout` seconds, and give back all
        lanes. Idempotent. True if nothing was left in the middle."""
        self._closed = True
        return self._here.close(max(0.0, timeout))

    # ---- inside

    def _bound(self, seconds: float | None) -> Bound:
        seconds = clamp(seconds)
        if seconds is None:
            return Bound()
        now = self._clock.monotonic()
        return Bound(now + seconds - min(MARGIN_MAX, seconds * MARGIN), now + seconds)

    def _read(self, id: int | str, otherwise: Row | None = None) -> Row | None:
        """A row, None if it is not known, `otherwise` if the disk cannot say."""
        try:
            return self.store.get(key=id) if isinstance(id, str) else self.store.get(id=id)
        except StorageError as error:
            logger.debug("the outbox could not be read: %s", error)
            return otherwise

    def _report(self, sent: int, dead: int) -> FlushReport:
        stats = self.store.stats()
        return FlushReport(
            sent=sent,
            dead=dead,
            queued=stats.pending,
            oldest_age=None if stats.oldest is None else max(0.0, self._clock.time() - stats.oldest),
            next_attempt_at=stats.next_attempt_at,
        )


def _reason(text: str) -> Reason | None:
    return Reason(text) if text else None
