"""Who runs the handlers: a few threads, one event after the other in each lane, never the thread that reads.

Theory. A lane is a channel's queue. It is in one of three states. *Idle*: nothing waits. *Ready*: something waits, and
the lane stands once in the line of those that want a thread. *At work*: one thread has taken all that waited and hands
it to the handler; what comes meanwhile waits, and afterwards the lane goes to the end of the line. So events of a lane
never overtake each other, and threads are told once a read, not once an event.

Rules.
1. Reading never waits for handlers. A lane holds `bound` events beside those at work; one that is full gets GRACE to
   move, once, and then refuses its newest: it is *behind*, and refuses everything until its owner says `resume`. Once
   it has handled what it took, the owner is told (`drained`), and can fetch what was refused.
2. `done` is called after each event's handler returned or raised, before the next one begins: what it stores is true at
   any moment, and a killed process repeats at most the event at which it was killed.
3. At most `workers` lanes are at work, not counting those that have been so for `late` seconds: a handler that blocks
   holds its own lane and, for that long, one thread. With `limit` threads blocked nothing moves until one returns.
4. Threads are started when they are needed and end after `linger` seconds without work: who is idle wakes nobody.
5. What a handler raises is logged once a kind and counted; SystemExit and KeyboardInterrupt are somebody's wish to end
   the program and given to `leaving`. In both cases the event is done: a bot that was told to quit would otherwise be
   told again at each start.
6. A forked child begins without threads and without what waited: its parent handles that. Found out by pid.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from time import monotonic  # threads run in real time, whatever clock is injected
from typing import Any, Generic, NamedTuple, TypeVar

from ..resilience.per_process import PerProcess

E = TypeVar("E")

BOUND = 1000
"""Events that wait in a lane at most; as many may be at work besides."""

WORKERS = 4
LIMIT = 32
"""Threads: usually, and at most where handlers block."""

LATE = 1.0
"""Seconds after which a lane at work does not count any more, so that another thread takes its place."""

LINGER = 10.0
"""Seconds until a thread without work ends."""

GRACE = 0.05
"""Seconds that the full lanes of one read get to move, once until they were drained. It is for quick handlers that
merely had no turn of the interpreter yet (its switch interval is 5 ms, in which a reader fills a lane): fetching again
what they would have taken in a moment costs far more. A server closes readers that pause for many seconds."""

log = logging.getLogger("chatsdk.realtime")


class Lane(Generic[E]):
    """A channel's queue. Made by `Dispatch.lane`, kept by the owner; all but `key` belongs to the dispatch."""

    __slots__ = ("began", "behind", "home", "key", "queue", "scheduled", "taken", "then")

    def __init__(self, key: str) -> None:
        self.key = key
        self.home: _Here[E] | None = None  # the process in which it is used
        self.reset()

    def reset(self) -> None:
        """Nothing waits, nothing is at work."""
        self.queue: list[E] = []
        self.taken: list[E] = []
        self.then: list[Callable[[], object]] = []  # to be called when it is idle
        self.scheduled = False  # it is in line or at work
        self.behind = False
        self.began = 0.0


class Refused(NamedTuple):
    """What a full lane did not take: its newest, in order."""

    lane: Lane[Any]
    events: Sequence[Any]


class _Here(Generic[E]):
    """The threads of one process, and what waits for them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.to_work = threading.Condition(self.lock)  # threads without work wait here
        self.moved = threading.Condition(self.lock)  # a lane was taken, or handed back
        self.ready: deque[Lane[E]] = deque()
        self.working: set[Lane[E]] = set()
        self.threads: set[threading.Thread] = set()
        self.started = 0
        self.idle = 0
        self.watchers = 0  # who waits at `moved`
        self.patience = 0.0  # until when this put waits for full lanes; 0: it did not yet
        self.closing = False


def _nothing(*_: object) -> None:
    """Nobody wants to know."""


def _log_leaving(error: BaseException) -> None:
    log.error("a handler raised %s; nobody here can end the program", type(error).__name__)


class Dispatch(Generic[E]):
    """Runs `handle(event)` for what is put, in order per lane.

    handle   called with each event, in a thread of its own
    done     called with (lane, event) after each, in the same thread; it should be quick
    drained  called with a lane that was behind and has handled all it took, in a handler thread
    leaving  called with a SystemExit or KeyboardInterrupt that a handler raised, in its thread
    """

    def __init__(
        self,
        handle: Callable[[E], object],
        *,
        done: Callable[[Lane[E], E], object] = _nothing,
        drained: Callable[[Lane[E]], object] = _nothing,
        leaving: Callable[[BaseException], object] = _log_leaving,
        workers: int = WORKERS,
        limit: int = LIMIT,
        bound: int = BOUND,
        late: float = LATE,
        linger: float = LINGER,
    ) -> None:
        self._handle = handle
        self._done = done
        self._drained = drained
        self._leaving = leaving
        self._workers = workers
        self._limit = limit
        self._bound = bound
        self._late = late
        self._linger = linger
        self._process: PerProcess[_Here[E]] = PerProcess(self._make)
        self._blamed: set[type[BaseException]] = set()
        self._closed = False
        self.raised = 0
        """How many handlers raised."""
        self.refused = 0
        """How many events were refused."""

    # ---- from outside

    def lane(self, key: str) -> Lane[E]:
        """A lane of its own for one channel."""
        return Lane(key)

    def put(self, batch: Iterable[tuple[Lane[E], Sequence[E]]]) -> list[Refused]:
        """Hand over what one read brought: lanes, and in order what is for each. Never waits longer than GRACE.

        Gives back what was refused, which is nearly always nothing. After `close` nothing is taken nor refused.
        """
        here = self._process.get()
        refused: list[Refused] = []
        bound = self._bound
        with here.lock:
            if here.closing:
                return refused
            here.patience = 0.0
            ready = here.ready
            for lane, events in batch:
                if lane.home is not here:
                    lane.reset()
                    lane.home = here
                if lane.behind or len(lane.queue) + len(events) > bound:
                    events = self._fit(here, lane, events, refused)
                    if not events:
                        continue
                lane.queue += events
                if not lane.scheduled:
                    lane.scheduled = True
                    ready.append(lane)
            if ready:
                self._call(here)
        return refused

    def resume(self, lane: Lane[E]) -> None:
        """Take again what is put into a lane that was behind: to be called once its position is back where it refused,
        in the thread that puts."""
        lane.behind = False

    def drop(self, lane: Lane[E]) -> None:
        """Forget what waits in a lane, not done. The event whose handler runs is the last one."""
        here = self._process.get()
        with here.lock:
            if lane.home is here:
                lane.queue.clear()
                lane.taken.clear()  # ends the loop over it

    def when_idle(self, lane: Lane[E], function: Callable[[], object]) -> None:
        """Call `function` once nothing of the lane waits or is at work: now, or in a handler thread."""
        here = self._process.get()
        with here.lock:
            if lane.home is here and lane.scheduled:
                lane.then.append(function)
                return
        function()

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return len(self._process.get().threads)

    @property
    def pending(self) -> int:
        """How many events wait; those that a thread has taken are not counted."""
        here = self._process.get()
        with here.lock:
            return sum(len(lane.queue) for lane in (*here.ready, *here.working))

    def close(self, timeout: float) -> bool:
        """Begin with no further event, and wait at most `timeout` seconds for handlers that run; True if all returned.

        What waits is left not done: its cursor stands before it, so it comes again at the next start. A handler may
        call this: it does not wait for itself.
        """
        end = monotonic() + timeout
        self._closed = True
        here = self._process.known()
        if here is None:
            return True  # it was never used in this process
        me = threading.current_thread()
        with here.lock:
            here.closing = True
            for lane in (*here.ready, *here.working):
                lane.queue.clear()
                lane.taken.clear()  # ends the loop over it
            here.ready.clear()
            here.to_work.notify_all()
            own = 1 if me in here.threads else 0
            here.watchers += 1
            try:
                return here.moved.wait_for(lambda: len(here.working) <= own, max(0.0, end - monotonic()))
            finally:
                here.watchers -= 1

    # ---- with the lock held

    def _fit(self, here: _Here[E], lane: Lane[E], events: Sequence[E], refused: list[Refused]) -> Sequence[E]:
        """What of `events` a full lane takes."""
        if not lane.behind:
            self._wait_for_room(here, lane, len(events))
            if here.closing:
                return ()
        room = 0 if lane.behind else max(0, self._bound - len(lane.queue))
        if room >= len(events):
            return events
        lane.behind = True
        refused.append(Refused(lane, events[room:]))
        self.refused += len(events) - room
        return events[:room]

    def _wait_for_room(self, here: _Here[E], lane: Lane[E], wanted: int) -> None:
        if threading.current_thread() in here.threads:
            return  # a handler would wait for itself
        if here.ready:
            self._call(here)
        now = monotonic()
        here.patience = here.patience or now + GRACE
        here.watchers += 1
        try:
            here.moved.wait_for(
                lambda: not lane.queue or len(lane.queue) + wanted <= self._bound, max(0.0, here.patience - now)
            )
        finally:
            here.watchers -= 1

    def _call(self, here: _Here[E]) -> None:
        """A lane is ready: have a thread look. One is enough: it calls the next. If none may take more, it waits for
        its turn."""
        if here.idle:
            here.to_work.notify()
        elif len(here.working) == len(here.threads) < self._limit:
            self._start(here)

    def _start(self, here: _Here[E]) -> None:
        here.started += 1
        name = f"chatsdk-realtime-handler-{here.started}"
        thread = threading.Thread(target=self._run, args=(here,), name=name, daemon=True)
        here.threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:  # the interpreter is shutting down, or the system has no thread left
            here.threads.discard(thread)
            log.debug("no thread could be started: %s", error)

    def _may_take(self, here: _Here[E], now: float) -> float:
        """Seconds until one more lane may be taken; 0 or less: now."""
        if len(here.working) < self._workers:
            return 0.0
        began = sorted(lane.began for lane in here.working)
        return began[len(began) - self._workers] + self._late - now

    # ---- the threads

    def _run(self, here: _Here[E]) -> None:
        try:
            while (lane := self._take(here)) is not None:
                self._serve(lane)
                for function in self._hand_back(here, lane):
                    self._call_safely(function)
        finally:
            here.threads.discard(threading.current_thread())

    def _take(self, here: _Here[E]) -> Lane[E] | None:
        """The next lane, all that waits in it taken; None: end this thread."""
        with here.lock:
            idle_since = monotonic()
            while not here.closing:
                now = monotonic()
                if here.ready:
                    pause = self._may_take(here, now)
                    if pause <= 0.0:
                        return self._begin(here, here.ready.popleft(), now)
                else:
                    pause = idle_since + self._linger - now
                    if pause <= 0.0:
                        break
                here.idle += 1
                here.to_work.wait(pause)
                here.idle -= 1
            here.threads.discard(threading.current_thread())  # now, so that a put does not count on it
            return None

    def _begin(self, here: _Here[E], lane: Lane[E], now: float) -> Lane[E]:
        lane.taken, lane.queue = lane.queue, []
        lane.began = now
        here.working.add(lane)
        if here.watchers:
            here.moved.notify_all()
        if here.ready:
            self._call(here)
        return lane

    def _serve(self, lane: Lane[E]) -> None:
        handle, done = self._handle, self._done
        for event in lane.taken:
            try:
                handle(event)
            except BaseException as error:
                self._blame(error)
            try:
                done(lane, event)
            except BaseException as error:
                self._blame(error)

    def _hand_back(self, here: _Here[E], lane: Lane[E]) -> Sequence[Callable[[], object]]:
        """What is to be called now: where the lane is idle, whoever waits for that, and its owner if it was behind."""
        with here.lock:
            lane.taken = []
            here.working.discard(lane)
            lane.scheduled = bool(lane.queue) and not here.closing
            if lane.scheduled:
                here.ready.append(lane)
            if here.watchers:
                here.moved.notify_all()
            if lane.scheduled or here.closing:
                return ()
            then, lane.then = lane.then, []
            return [partial(self._drained, lane), *then] if lane.behind else then

    def _call_safely(self, function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            self._blame(error)

    def _blame(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            try:
                self._leaving(error)
                return
            except BaseException as another:
                error = another
        self.raised += 1
        if type(error) not in self._blamed:
            self._blamed.add(type(error))
            log.error(
                "a realtime handler raised %s; more of the kind are counted only", type(error).__name__, exc_info=error
            )

    # ---- the process

    def _make(self) -> _Here[E]:
        here: _Here[E] = _Here()
        here.closing = self._closed
        return here
