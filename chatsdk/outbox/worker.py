"""One turn of delivery: claim a lane, try its first row, carry out the verdict, go on while it goes well.

Theory. `verdict` decides; this file only fetches what a decision needs (time, the server's answer, whether the server
is well otherwise) and carries the decision out as *one* operation of the store. Events follow the commit.

Rules.
1. One try per row and turn; a row that failed parks its lane, and the store holds the waiting.
2. A turn ends after `BATCH` rows or `SHARE` seconds, so that every lane gets its share.
3. What the disk would not take is a debt (see `debts`); the lane stays ours meanwhile, so nobody sends that row again.
4. A lane that was lost to another process is dropped without a word: that process decides now.
5. Whatever raises, the thread goes on; the lane is parked as if a plugin had failed.

`turn` is a method and takes the time; `threads` calls it in the background, `Outbox` in the caller's thread, and a
simulation by hand.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from math import inf

from ..core.backend import Backend
from ..core.backoff import LANE
from ..core.clock import Clock, Random
from ..core.errors import PluginError, StorageError
from ..core.events import Event
from ..core.exchange import Request, Response
from ..core.record import Record, record
from ..core.store import Claim, Lane, LaneLostError, LaneStatus, OutboxStore, Park, Reason, Row, State
from . import report
from .calls import UNBOUND, Bound, Calls
from .debts import Debts
from .knowledge import TICK, Lanes, Users
from .verdict import (
    MAX_STRIKES,
    Bury,
    Decision,
    Delivered,
    Facts,
    Finish,
    Outcome,
    ParkAll,
    ParkUser,
    PauseUser,
    Send,
    Settle,
    Waiting,
    before,
    is_our_fault,
    settled,
    verdict,
)

BATCH = 50
"""Rows of one lane in one turn."""

SHARE = 1.0
"""Seconds after which a turn takes no further row of its lane."""

AGAIN = 0.2
"""Seconds until a lane is looked at again that another thread has in its hands."""

TRIES_KEPT = 10_000
"""Rows whose last try's end is remembered, at most."""

logger = logging.getLogger("chatsdk.outbox")


@record(frozen=True, slots=True)
class Turn(Record):
    """What a turn did (`lane`: whose rows it served, None if none was due) and when the next one is worth while (Unix
    time; None: nothing waits)."""

    lane: Lane | None
    next_due: float | None


def _nothing(*_: object) -> None:
    """Nobody listens."""


class Worker:
    """Delivers the rows of one store.

    send          the pipeline; one try, because the request says `single_try`
    users         whose lanes this client can authorise (None: anybody's)
    last_success  monotonic time of this server's last good answer to anybody (None: there was none)
    timeout       seconds for one try
    on_fate       called with a row that was delivered or died, after the commit
    on_wait       called with a lane that was parked, after the commit
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
        last_success: Callable[[], float | None] = lambda: None,
        timeout: float = 10.0,
        max_strikes: int = MAX_STRIKES,
        sweep_interval: float = 30.0,
        on_fate: Callable[[Row], None] = _nothing,
        on_wait: Callable[[Lane], None] = _nothing,
    ) -> None:
        self._store = store
        self._calls = Calls(send, backend, clock, timeout, last_success)
        self._clock = clock
        self._random = random
        self._emit = report.quietly(emit)
        self._allowed = users
        self._max_strikes = max_strikes
        self._sweep_interval = sweep_interval
        self._on_fate = on_fate
        self._on_wait = on_wait
        self.users = Users()
        self.lanes = Lanes()
        self._lock = threading.Lock()
        self._stopping = False
        self._serving: dict[Lane, Row | None] = {}  # the row that is out, if one is
        self._threads: dict[Lane, int] = {}  # who serves it
        self._left: set[Lane] = set()  # served still (handlers run), but given back by the last commit
        self._begun = self._ended = 0  # turns
        self._last_try: dict[int, float] = {}  # when a row's last try ended, monotonic
        self._debts = Debts()
        self._held_until = -inf  # the circuit is open
        self._disk_until = -inf  # the store failed
        self._disk_failures = 0
        self._swept = -inf
        self._blamed: set[str] = set()

    # ---- for whoever drives it

    def turn(self, now: float) -> Turn:
        """Serve one lane that is due at `now` (Unix time). Raises no Exception."""
        lane = self.serve(now)
        return Turn(lane, now if lane is not None else self.next_due(now))

    def serve(
        self,
        now: float,
        *,
        only: Lane | None = None,
        bound: Bound = UNBOUND,
        claimed: Callable[[Lane], None] = _nothing,
    ) -> Lane | None:
        """As `turn`, without looking ahead; returns the lane that was served.

        only: that lane or none; claimed: called when a lane was claimed, before anything of it is sent."""
        monotonic = self._clock.monotonic()
        if self._stopping or monotonic >= bound.start_by or self.held:
            return None
        with self._lock:
            self._begun += 1
        try:
            return self._turn(now, monotonic, only, bound, claimed)
        finally:
            with self._lock:
                self._ended += 1

    def _turn(
        self, now: float, monotonic: float, only: Lane | None, bound: Bound, claimed: Callable[[Lane], None]
    ) -> Lane | None:
        try:
            self._debts.pay()
            skip = self.users.unavailable(monotonic)
            claim = self._store.claim(now, limit=1, lane=only, users=self._allowed(), skip_users=skip)
        except Exception as error:
            self._disk_failed(error)
            return None
        self._disk_failures = 0
        if claim is not None:
            self._serve(claim, bound, claimed)
        self._sweep(now)
        return None if claim is None else claim.lane

    def next_due(self, now: float) -> float | None:
        """When a turn is worth while next (Unix time; `now`: at once; None: nothing waits)."""
        monotonic = self._clock.monotonic()
        try:
            skip = self.users.unavailable(monotonic)
            due = self._store.next_due(now, users=self._allowed(), skip_users=skip)
        except Exception as error:
            self._disk_failed(error)
            due = now
        user_due = self.users.next_due(monotonic)
        if user_due is not None:
            due = min(inf if due is None else due, now + user_due - monotonic)
        sweep_due = monotonic - self._swept >= self._sweep_interval
        if self._debts or (sweep_due and due is not None):
            due = now  # what waits may wait for nothing: the clock was set back, an owner died
        return None if due is None else max(due, now + self.held)

    @property
    def held(self) -> float:
        """Seconds until anything at all is claimed: the circuit is open, or the disk fails. 0: now."""
        left = max(self._held_until, self._disk_until) - self._clock.monotonic()
        return left if left > TICK else 0.0

    @property
    def disk_failing(self) -> bool:
        """The store failed the last time it was asked."""
        return self._disk_failures > 0

    @property
    def busy(self) -> bool:
        """A lane is being served, or about to be claimed."""
        return bool(self._serving) or self._begun != self._ended

    def is_mine(self, lane: Lane) -> bool:
        """The calling thread serves this lane (it runs a handler): it would wait for itself."""
        return self._threads.get(lane) == threading.get_ident()

    @property
    def turns(self) -> int:
        """Turns begun so far. Not busy, and none begun since: then nothing of what the store said has changed by us."""
        return self._begun

    def wake(self, *, user: str | None = None, lane: Lane | None = None) -> int:
        """Let what is parked be tried at once, but for what Retry-After parked. Returns how many lanes."""
        self._held_until = -inf
        if lane is None:
            self.users.wake(user)
        self.lanes.wake(user=user, lane=lane)
        try:
            return self._store.wake(user=user, lane=lane)
        except StorageError as error:
            logger.warning("parked messages could not be woken, they go out a little later: %s", error)
            return 0

    def stop(self) -> None:
        """Claim nothing more, and serve no further row."""
        self._stopping = True

    def abandon(self) -> None:
        """Give back the lanes whose try did not end in time: their first rows may have arrived. Call after `stop`."""
        with self._lock:
            left = dict(self._serving)
        for lane, row in left.items():
            self._give_back(lane, row)
        try:
            self._debts.pay()
        except Exception as error:
            logger.warning("the outbox could not note what became of some messages; they are tried again: %s", error)

    # ---- a lane

    def _serve(self, claim: Claim, bound: Bound, claimed: Callable[[Lane], None]) -> None:
        lane, rows, failures = claim.lane, claim.rows, claim.failures
        started, served = self._clock.monotonic(), 0
        with self._lock:
            twice = lane in self._serving
            if not twice:
                self._serving[lane] = None
                self._threads[lane] = threading.get_ident()
        if twice:
            self._wait_for_other(claim)
            return
        try:
            claimed(lane)
            ours = bool(rows)
            while rows:
                row = rows[0]
                monotonic = self._clock.monotonic()
                if self._stopping or monotonic >= bound.start_by:
                    break
                served += 1
                last = served >= BATCH or monotonic - started >= SHARE
                rows = self._first_row(row, failures, bound, more=0 if last else 1)
                failures = 0
            if rows or not ours:
                self._give_back(lane)
        except LaneLostError:
            logger.debug("channel %s belongs to another process now", lane.channel)
        except Exception:
            logger.exception("delivery failed unexpectedly; the messages of channel %s wait", lane.channel)
            self._give_back(lane, self._serving.get(lane) or next(iter(rows), None), self._backoff(failures))
        except BaseException:  # Ctrl-C in the caller's thread
            self._give_back(lane, self._serving.get(lane))
            raise
        finally:
            with self._lock:
                if self._threads.get(lane) == threading.get_ident():  # once given back, another thread may have it
                    self._threads.pop(lane)
                    self._serving.pop(lane, None)
                    self._left.discard(lane)

    def _wait_for_other(self, claim: Claim) -> None:
        """Another thread is still at this lane: others took us for dead (our owner's file was deleted) and gave it
        back since. That thread finds it lost; its row may have arrived."""
        park = Park(not_before=self._clock.time() + AGAIN, reason=Reason.UNCERTAIN.value, uncertain=True)
        pay = partial(self._store.park, claim.lane, claim.rows[0].id if claim.rows else None, park)
        try:
            pay()
        except LaneLostError:
            return
        except Exception as error:
            self._disk_failed(error)
            self._debts.add(pay)

    def _first_row(self, row: Row, failures: int, bound: Bound, more: int) -> Sequence[Row]:
        """Do what is due for the first row of a lane; returns the next one if the lane is still ours."""
        step = before(row, self._clock.time())
        if isinstance(step, Bury):
            return self._carry_out(row, step, failures, more)
        if isinstance(step, Settle):
            answer = self._calls.look_up(row, bound)
            decision = settled(row, step.reason, answer, self._facts(row, failures))
            if not isinstance(decision, Send):
                self._blame(row, answer)
                return self._carry_out(row, decision, failures, more)
        started = self._clock.monotonic()
        self._mark(row.lane, row)
        report.tried(row)
        outcome = self._calls.deliver(row, bound)
        well = False
        if getattr(outcome, "status", 0) == 500:
            well = self._calls.server_well(self._last_try.get(row.id, started), bound)
        self._remember_try(row)
        self._blame(row, outcome)
        rows = self._carry_out(row, verdict(row, outcome, self._facts(row, failures, well)), failures, more)
        self._mark(row.lane, None)
        return rows

    def _mark(self, lane: Lane, row: Row | None) -> None:
        """`row` is out (None: nothing is). Raises LaneLostError if `abandon` gave the lane away meanwhile."""
        with self._lock:
            if lane not in self._serving:
                raise LaneLostError
            self._serving[lane] = row

    def _remember_try(self, row: Row) -> None:
        if len(self._last_try) >= TRIES_KEPT:
            self._last_try.clear()
        self._last_try[row.id] = self._clock.monotonic()

    def _facts(self, row: Row, failures: int, server_well: bool = False) -> Facts:
        return Facts(
            now=self._clock.time(),
            random=self._random(),
            failures=failures,
            user_failures=self.users.failures(row.request.user),
            server_well=server_well,
            max_strikes=self._max_strikes,
        )

    def _blame(self, row: Row, outcome: Outcome) -> None:
        """A fault of a plugin, or of ours, is one ERROR record, not one a try."""
        if isinstance(outcome, Delivered) or not is_our_fault(outcome):
            return
        who = f"plugin {outcome.plugin!r}" if isinstance(outcome, PluginError) else "something unexpected"
        if who not in self._blamed:
            self._blamed.add(who)
            # not its text: a foreign exception's may hold anything, a token for one
            cause = type(outcome.__cause__ or outcome).__name__
            logger.error(
                "%s (%s) stops messages; they wait, and none is lost", who, cause, extra=report.correlation(row)
            )

    # ---- the store

    def _carry_out(self, row: Row, decision: Decision, failures: int, more: int) -> Sequence[Row]:
        with self._lock:
            if row.lane not in self._serving:
                raise LaneLostError  # the try outlived close(), which gave the lane back
        try:
            rows = self._commit(row, decision, 0 if self._stopping else more)
        except StorageError as error:
            self._disk_failed(error)
            pay = partial(self._or_release, row.lane, partial(self._commit, row, decision, 0))
            self._debts.add(pay, partial(self._after, row, decision, failures))
            return ()
        with self._lock:
            if row.lane in self._serving:
                self._serving[row.lane] = None
                if not rows:
                    self._left.add(row.lane)
        self._after(row, decision, failures)
        return rows

    def _commit(self, row: Row, decision: Decision, more: int) -> Sequence[Row]:
        now = self._clock.time()
        if isinstance(decision, Finish):
            result = decision.message.to_dict()
            return self._store.finish(row.lane, row.id, result, now, attempts=decision.attempts, more=more)
        if isinstance(decision, Bury):
            reason, error = decision.reason.value, decision.error
            return self._store.bury(row.lane, row.id, reason, error, now, attempts=decision.attempts, more=more)
        self._store.park(row.lane, row.id, _park(decision))
        return ()

    def _give_back(self, lane: Lane, row: Row | None = None, delay: float | None = None) -> None:
        """Leave a lane without a verdict. `row`: it may have arrived; `delay`: something is wrong with it."""
        with self._lock:
            if lane not in self._serving:
                return
            del self._serving[lane]
            if lane in self._left:
                self._left.discard(lane)
                return  # somebody else may have it by now
        pay: Callable[[], object] = partial(self._store.release, lane)
        if row is not None:
            park = Park(not_before=self._clock.time(), reason=Reason.UNCERTAIN.value, uncertain=True)
            if delay is not None:
                park = replace(park, not_before=park.not_before + delay, reason=Reason.PLUGIN.value, failures=1)
            pay = partial(self._or_release, lane, partial(self._store.park, lane, row.id, park))
        try:
            pay()
        except LaneLostError:
            return
        except Exception as error:
            self._disk_failed(error)
            self._debts.add(pay)

    def _or_release(self, lane: Lane, pay: Callable[[], object]) -> None:
        """`pay` for a lane that we serve no longer. LaneLostError also says that its row met its fate already, by a
        commit that was interrupted, or that failed when all of it was written; then the lane may be ours still."""
        try:
            pay()
        except LaneLostError:
            with self._lock:
                anew = lane in self._serving
            if not anew:  # or it is in another thread's hands
                self._store.release(lane)
            raise

    def _sweep(self, now: float) -> None:
        monotonic = self._clock.monotonic()
        with self._lock:
            if monotonic - self._swept < self._sweep_interval:
                return
            self._swept = monotonic
        try:
            self._store.sweep(now)
        except Exception as error:  # what is too old is forgotten the next time
            logger.warning("the outbox could not be swept: %s", error)

    def _disk_failed(self, error: Exception) -> None:
        """The store raised: wait a little before it is asked again. One record an outage."""
        with self._lock:
            self._disk_until = self._clock.monotonic() + self._backoff(self._disk_failures)
            self._disk_failures += 1
            first = self._disk_failures == 1
        if first:
            known = isinstance(error, StorageError)
            logger.error("the outbox cannot be used, delivery waits: %s", error, exc_info=not known)

    def _backoff(self, failures: int) -> float:
        return LANE.delay(failures + 1, self._random())

    # ---- afterwards

    def _after(self, row: Row, decision: Decision, failures: int) -> None:
        """Remember and tell what was committed."""
        now = self._clock.time()
        if isinstance(decision, Finish | Bury):
            self._last_try.pop(row.id, None)
            self.lanes.succeeded(row.lane)
            done = replace(row, attempts=row.attempts + decision.attempts, settle="", reason="", finished_at=now)
            if isinstance(decision, Finish):
                self.users.succeeded(row.request.user)
                self._held_until = -inf
                done = replace(done, state=State.SENT, result=decision.message.to_dict())
                report.sent(self._emit, done, decision.message, now)
            else:
                done = replace(done, state=State.DEAD, reason=decision.reason.value, error=decision.error)
                report.died(self._emit, done, now)
            self._on_fate(done)
            return
        park, monotonic = _park(decision), self._clock.monotonic()
        if isinstance(decision, ParkUser):
            self.users.park(row.request.user, monotonic + decision.delay)
        elif isinstance(decision, PauseUser):
            self.users.pause(row.request.user)
        elif isinstance(decision, ParkAll):
            self._held_until = monotonic + decision.delay
        status = LaneStatus(not_before=park.not_before, reason=park.reason, failures=failures + park.failures)
        self.lanes.failed(row.lane, status, park.wakeable, monotonic)
        report.waits(self._emit, row, park, now)
        self._on_wait(row.lane)


def _park(decision: Waiting) -> Park:
    return decision if isinstance(decision, Park) else decision.park
