"""Circuits: leave a server that fails alone for a while.

    state      | what happens to a call                      | moves to
    -----------+---------------------------------------------+--------------------------------------------------------
    closed     | passes                                      | open, at the n-th failure within the window
    open       | CircuitOpenError, at once                   | half_open, when the time is over and a call comes
    half_open  | one passes (the probe), the others are      | closed, after n successful probes
               | refused like in open                        | open for twice as long, at a failed probe

Rules:
* A success while closed clears the window: a server that answers most calls is no outage (with 20 % of 503 the
  circuit would otherwise open for ever).
* An outcome is success, failure or neutral; a neutral one (KeyboardInterrupt, a plugin's error) only frees the probe's
  place.
* Every move begins a new epoch; the outcome of a call that began in an older one is ignored. A slow call from before
  the outage neither closes an open circuit nor opens a closed one.
* Closed and healthy takes no lock. Listeners are called outside of it.

The class is the library's `CircuitBreaker` with these rules in place of its own: as it comes it has no window, lets all
callers in as probes, and counts a KeyboardInterrupt as a success. Its `with`, decorator, generator and async forms go
past the rules, so they are refused. The library imports asyncio, which most processes never need: it is loaded at the
first failure, and until then a circuit is a plain call.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NoReturn, TypeVar

from ..core.clock import Clock
from ..core.errors import CircuitOpenError
from ..core.events import CircuitStateChanged, Event
from ..core.record import Record, record
from ..core.settings import Settings
from .circuit_rules import PRESETS, WEBSOCKET, CircuitRules
from .deadline import is_over, nothing_sent
from .system_clock import SystemClock

T = TypeVar("T")

CLOSED = "closed"
OPEN = "open"
HALF_OPEN = "half_open"

MAX_CIRCUITS = 256
"""More names than that are a mistake (a name per user or per message), and would never be freed."""

Judge = Callable[[Exception], "bool | None"]
"""What an error means for the circuit: True a failure, False a success (the server did answer), None neither."""


def every_error(_: Exception) -> bool | None:
    """The judge of calls that bring none of their own: every error is a failure."""
    return True


def _tell_nobody(_: Event) -> None:
    """For circuits that nobody listens to."""


@record(frozen=True, slots=True)
class Counts(Record):
    """`failures` in the window; `successes` of probes, on the way to closing; times `opened`, calls `rejected`."""

    failures: int = 0
    successes: int = 0
    opened: int = 0
    rejected: int = 0


class _Rules:
    """The overrides; `_breaker_class` puts them before the library's class."""

    def __init__(self, name: str, rules: CircuitRules, clock: Clock, emit: Callable[[Event], None]) -> None:
        super().__init__(  # type: ignore[call-arg]  # the class behind this one is the library's
            name=name, failure_threshold=rules.failures, recovery_timeout=rules.open_max, expected_exception=Exception
        )
        self._rules = rules
        self._clock = clock
        self._emit = emit
        self._lock = threading.Lock()
        self._state = CLOSED
        self._epoch = 0
        self._failed_at: deque[float] = deque(maxlen=rules.failures)
        self._opened = 0.0
        self._open_for = 0.0
        self._next_open = rules.open_first
        self._probing = False
        self._successes = 0
        self._times_opened = 0
        self._rejected = 0
        self._last_failure: BaseException | None = None

    # ---- a call

    def call(self, func: Callable[..., T], *args: Any, judge: Judge = every_error) -> T:
        """Call it, unless the circuit is open: then CircuitOpenError."""
        if self._state == CLOSED:
            epoch, probe = self._epoch, False
        else:
            epoch, probe = self._enter()
        timeout = self._rules.timeout
        began = 0.0 if timeout is None else self._clock.monotonic()
        try:
            result = func(*args)
        except BaseException as error:
            verdict = None
            try:
                verdict = judge(error) if isinstance(error, Exception) else None
            finally:
                self.settle(epoch, error, verdict)
            raise
        if timeout is not None and self._clock.monotonic() - began > timeout:
            self.settle(epoch, TimeoutError(f"took longer than {timeout:g} s"), True)
        elif probe or self._failed_at:
            self.settle(epoch, None, False)
        return result

    def settle(self, epoch: int, error: BaseException | None, failed: bool | None) -> None:
        """A call that began in `epoch` ended."""
        with self._lock:
            if epoch != self._epoch or self._state == OPEN:
                return
            if failed:
                self._last_failure = error
                event = self._on_failure()
            elif failed is None:
                self._probing = False
                event = None
            else:
                event = self._on_success()
        if event is not None:
            self._emit(event)

    # ---- by hand

    def reset(self) -> None:
        """Close it and forget everything."""
        with self._lock:
            self._last_failure = None
            event = self._move(CLOSED)
        if event is not None:
            self._emit(event)

    def probe_now(self) -> None:
        """Its time is over: the next call is the probe."""
        with self._lock:
            if self._state == OPEN:
                self._open_for = 0.0

    def force_open(self, seconds: float | None = None) -> None:
        """Open it for `seconds` (None: the rules' `open_max`); then probes decide, as ever."""
        with self._lock:
            event = self._move(OPEN, self._rules.open_max if seconds is None else seconds)
        if event is not None:
            self._emit(event)

    # ---- reading

    @property
    def state(self) -> str:
        """closed, open or half_open (also when the time is over and no call came yet)."""
        state = self._state
        return HALF_OPEN if state == OPEN and self.open_remaining <= 0 else state

    @property
    def open_remaining(self) -> float:
        """Seconds that it stays open."""
        return self._opened + self._open_for - self._clock.monotonic()

    @property
    def failure_count(self) -> int:
        """Failures in the window."""
        return self.counts.failures

    @property
    def counts(self) -> Counts:
        """The figures."""
        with self._lock:
            since = self._clock.monotonic() - self._rules.window
            failures = sum(at >= since for at in self._failed_at)
            return Counts(failures, self._successes, self._times_opened, self._rejected)

    # ---- with the lock held

    def _on_failure(self) -> Event | None:
        if self._state == HALF_OPEN:
            return self._move(OPEN, self._next_open)
        now = self._clock.monotonic()
        self._failed_at.append(now)
        full = len(self._failed_at) == self._rules.failures
        if full and now - self._failed_at[0] <= self._rules.window:
            return self._move(OPEN, self._next_open)
        return None

    def _on_success(self) -> Event | None:
        if self._state == CLOSED:
            self._failed_at.clear()
            return None
        self._probing = False
        self._successes += 1
        return self._move(CLOSED) if self._successes >= self._rules.successes else None

    def _move(self, new: str, seconds: float = 0.0) -> Event | None:
        old, self._state = self._state, new
        self._epoch += 1
        self._probing = False
        self._successes = 0
        self._failed_at.clear()
        if new == OPEN:
            self._opened = self._clock.monotonic()
            self._open_for = seconds
            self._next_open = min(self._rules.open_max, self._next_open * 2)
            self._times_opened += 1
        elif new == CLOSED:
            self._next_open = self._rules.open_first
        if old == new:
            return None
        return CircuitStateChanged(circuit=self._name, old=old, new=new, retry_after=seconds)

    def _enter(self) -> tuple[int, bool]:
        """A call comes while the circuit is not closed: its epoch, and whether it is the probe. Takes the lock."""
        event = None
        with self._lock:
            if self._state == CLOSED:  # closed since we looked
                return self._epoch, False
            remaining = self.open_remaining
            if self._state == OPEN and remaining <= 0:
                event = self._move(HALF_OPEN)
            refused = self._state == OPEN or self._probing
            if refused:
                self._rejected += 1
            else:
                self._probing = True
            # While a probe is under way nobody knows how long; callers must not spin until then.
            retry_after = remaining if remaining > 0 else min(1.0, self._rules.open_first)
            epoch = self._epoch
        if event is not None:
            self._emit(event)
        if refused:
            raise CircuitOpenError(
                circuit=self._name, retry_after=retry_after, retry_at=self._clock.time() + retry_after
            )
        return epoch, True

    # ---- the library's other forms, which would go past the rules

    def __call__(self, wrapped: object) -> NoReturn:
        raise TypeError("a circuit is no decorator: use circuit.call(function, ...)")

    def __enter__(self) -> NoReturn:
        raise TypeError("a circuit is no context manager: use circuit.call(function, ...)")

    def __exit__(self, *exc: object) -> NoReturn:
        raise TypeError("a circuit is no context manager: use circuit.call(function, ...)")

    decorate = __call__

    def call_generator(self, func: object, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("a generator's failures come after the call: use circuit.call(function, ...)")

    call_async = call_async_generator = call_generator

    _name: str


@cache
def _breaker_class() -> type[Any]:
    from circuitbreaker import CircuitBreaker

    return type("Breaker", (_Rules, CircuitBreaker), {})


class Circuit:
    """One circuit, by name. Made by `Circuits`."""

    def __init__(self, name: str, rules: CircuitRules, clock: Clock, emit: Callable[[Event], None]) -> None:
        self.name = name
        self.rules = rules
        self._clock = clock
        self._emit = emit
        self._lock = threading.Lock()
        self._breaker: Any = None

    def call(self, function: Callable[..., T], /, *args: Any, is_failure: Judge = every_error) -> T:
        """Call `function(*args)` and return what it returns.

        is_failure: what an error of it means: True a failure, False a success (the other side did answer), None
        neither. Raises CircuitOpenError, at once, while the circuit is open; else what `function` raises.
        """
        breaker = self._breaker
        if breaker is None:
            if self.rules.timeout is None:
                try:
                    return function(*args)
                except Exception as error:
                    if is_failure(error):
                        self._made().settle(0, error, True)  # 0: every circuit begins in that epoch
                    raise
            breaker = self._made()
        return breaker.call(function, *args, judge=is_failure)  # type: ignore[no-any-return]

    @property
    def state(self) -> str:
        """closed, open or half_open."""
        return CLOSED if self._breaker is None else self._breaker.state

    @property
    def retry_after(self) -> float:
        """Seconds until a call is let through; 0 if it is not open."""
        if self._breaker is None or self._breaker.state != OPEN:
            return 0.0
        return max(0.0, float(self._breaker.open_remaining))

    @property
    def counts(self) -> Counts:
        """Failures in the window, successes of probes, times opened, calls rejected."""
        return Counts() if self._breaker is None else self._breaker.counts

    @property
    def last_failure(self) -> BaseException | None:
        """The last error that counted, or None."""
        return None if self._breaker is None else self._breaker.last_failure

    def reset(self) -> None:
        """Close it and forget its failures."""
        if self._breaker is not None:
            self._breaker.reset()

    def probe_now(self) -> None:
        """What opened it may be over: the next call is let through, as a probe. One that is not open stays as it is."""
        if self._breaker is not None:
            self._breaker.probe_now()

    def force_open(self, seconds: float | None = None) -> None:
        """Open it for `seconds` (None: as long as it may be open at most); then a probe decides, as ever."""
        self._made().force_open(seconds)

    @property
    def making(self) -> threading.Lock:
        """Held while what it needs is imported."""
        return self._lock

    def after_fork(self) -> None:
        """In a forked child: locks that other threads held there would never be released, their probes never end."""
        self._lock = threading.Lock()
        if self._breaker is not None:
            self._breaker._lock = threading.Lock()
            self._breaker._probing = False

    def __repr__(self) -> str:
        return f"<Circuit {self.name} {self.state}>"

    def _made(self) -> Any:
        with self._lock:
            if self._breaker is None:
                self._breaker = _breaker_class()(self.name, self.rules, self._clock, self._emit)
            return self._breaker


class Circuits:
    """The circuits of one client, by name: `circuits["api"]`. "api" and "auth" go by the settings, "websocket" by seed
    004; any other name is made when it is first asked for, by the preset of that name or else by "standard"."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        emit: Callable[[Event], None] = _tell_nobody,
        settings: Settings | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self._emit = emit
        self._lock = threading.Lock()
        server = CircuitRules() if settings is None else CircuitRules.of(settings)
        self._circuits: dict[str, Circuit] = {}
        for name, rules in (("api", server), ("auth", server), ("websocket", WEBSOCKET)):
            self.define(name, rules)

    def __getitem__(self, name: str) -> Circuit:
        circuit = self._circuits.get(name)
        return self.define(name, PRESETS.get(name, PRESETS["standard"])) if circuit is None else circuit

    def define(self, name: str, rules: CircuitRules) -> Circuit:
        """The circuit of that name, made by `rules` if it is new. Raises ValueError for too many names."""
        with self._lock:
            if name not in self._circuits:
                if len(self._circuits) >= MAX_CIRCUITS:
                    raise ValueError(
                        f"more than {MAX_CIRCUITS} circuits: name them by what they protect, not by caller"
                    )
                self._circuits[name] = Circuit(name, rules, self._clock, self._emit)
            return self._circuits[name]

    def names(self) -> list[str]:
        """The names of all circuits."""
        return sorted(self._circuits)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def state(self, name: str) -> str:
        """closed, open or half_open."""
        return self[name].state

    def counts(self, name: str) -> Counts:
        """Failures in the window, successes of probes, times opened, calls rejected."""
        return self[name].counts

    def reset(self, name: str) -> None:
        """Close a circuit and forget its failures."""
        self[name].reset()

    def call(self, name: str, function: Callable[..., T], /, *args: Any, is_failure: Judge = every_error) -> T:
        """Call `function(*args)` through the circuit of that name; see `Circuit.call`. Where nothing is left of the
        caller's deadline it is not called: ConnectTimeoutError, with the code "deadline"."""
        if is_over():
            raise nothing_sent()
        return self[name].call(function, *args, is_failure=is_failure)

    def open_names(self) -> list[str]:
        """The circuits that are not closed."""
        return [name for name in self.names() if self._circuits[name].state != CLOSED]

    @property
    def making(self) -> list[threading.Lock]:
        """Held while the library is imported: a fork waits for them."""
        return [circuit.making for circuit in list(self._circuits.values())]

    def after_fork(self) -> None:
        """In a forked child: fresh locks."""
        self._lock = threading.Lock()
        for circuit in self._circuits.values():
            circuit.after_fork()
