"""Features that fall back instead of failing: `features.run("search", ask_the_server, look_locally)`.

Rules.
1. Where there is no fallback, the primary is always called: its own error says best what is wrong.
2. With one, it answers at once while the feature is off (its circuit is open, the network is OFFLINE, somebody said
   so), and when the primary fails for a reason that is not the caller's: connections, time-outs, 5xx, 429, an open
   circuit. A wrong argument, a missing right and a bug in the primary surface: a fallback would hide them.
3. A feature that is off is tried again by itself: its circuit lets a probe through, and while OFFLINE, or where whoever
   said that it is off asked for it (`recheck`), one call every `RECHECK` seconds goes to the primary. So is also
   `is_available`: whether a call would go to the primary now.
4. What the primary did before it failed is not undone: a fallback that does the same thing again needs a key.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec, TypeVar

from ..core.clock import Clock
from ..core.errors import ChatError, CircuitOpenError
from ..core.events import Event
from ..resilience.circuits import OPEN, Circuits
from ..resilience.deadline import is_over
from ..resilience.import_lock import ImportLock
from ..resilience.system_clock import SystemClock
from .degradation import BUILT_IN, Feature, Level, Verdict, judge
from .quality import Quality
from .tries import PATIENT

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F")

RECHECK = 10.0
"""Seconds between two tries of what is off: the pace of the idle probe."""

MAX_FEATURES = 256
"""More names than that are a mistake (a name per user or per message)."""

_importing = ImportLock()


def is_outage(error: Exception) -> bool:
    """The rule of what falls back: nobody's mistake, and worth another try later."""
    if isinstance(error, ChatError):
        return error.retryable or isinstance(error, (CircuitOpenError, ConnectionError))
    return isinstance(error, (OSError, TimeoutError)) and not isinstance(error, _LOCAL)


_LOCAL = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
"""OSErrors that are no outage of anything."""


def _nobody(_: Event) -> None:
    """For features whose events nobody wants."""


def _uncounted(_: str) -> None:
    """For features whose fallbacks nobody counts."""


class Features:
    """Thread-safe.

    circuits  a feature's calls go through the circuit that it names
    quality   how the network is now
    emit      told of `FeatureStateChanged` and `DegradationChanged`; call `refresh` when a circuit or the quality
              moved, and while it is `ailing` after each call: a probe that came back moves no circuit yet
    count     called with "fallbacks_used_total" for each fallback
    """

    def __init__(
        self,
        circuits: Circuits,
        quality: Callable[[], Quality],
        *,
        clock: Clock | None = None,
        emit: Callable[[Event], object] = _nobody,
        count: Callable[[str], object] = _uncounted,
        features: Iterable[Feature] = BUILT_IN,
    ) -> None:
        self._circuits = circuits
        self._quality = quality
        self._monotonic = (clock or SystemClock()).monotonic
        self._emit = emit
        self._count = count
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._changes: deque[tuple[Verdict, Verdict]] = deque()
        self._features = {feature.name: feature for feature in features}
        self._reported: dict[str, str] = {}
        self._by_trying: set[str] = set()
        self._rechecked: dict[str, float] = {}
        self._told = Verdict(Level.NONE, (), {})
        self.ailing = False
        """Something was told to be off, or the level to be worse than none."""

    # ---- using features

    def run(
        self,
        name: str,
        primary: Callable[[], T],
        fallback: Callable[[], F] | None = None,
        *,
        is_failure: Callable[[Exception], bool] = is_outage,
    ) -> T | F:
        """What `primary()` returns; where the feature is off, or `primary` fails by an outage, what `fallback()` does.

        is_failure: which errors of the primary are outages. Raises every other error of it, what the fallback raises,
        and ValueError for too many names.
        """
        feature = self._get(name)
        if fallback is None:
            return self._primary(feature, primary, is_failure)
        if self._allowed(feature, claim=True):
            try:
                return self._primary(feature, primary, is_failure)
            except Exception as error:
                if not is_failure(error) and not isinstance(error, CircuitOpenError):
                    raise
        self._count("fallbacks_used_total")
        return fallback()

    def with_fallback(
        self,
        name: str,
        fallback: Callable[P, F] | None = None,
        *,
        is_failure: Callable[[Exception], bool] = is_outage,
    ) -> Callable[[Callable[P, T]], Callable[P, T | F]]:
        """`run` as a decorator of the primary; the fallback is called with the same arguments."""

        def decorate(primary: Callable[P, T]) -> Callable[P, T | F]:
            @wraps(primary)
            def call(*args: P.args, **kwargs: P.kwargs) -> T | F:
                instead = None if fallback is None else lambda: fallback(*args, **kwargs)
                return self.run(name, lambda: primary(*args, **kwargs), instead, is_failure=is_failure)

            return call

        return decorate

    def is_available(self, name: str) -> bool:
        """Whether a call would go to the primary now. A name that was never used is available."""
        feature = self._features.get(name)
        return feature is None or self._allowed(feature, claim=False)

    # ---- saying what there is

    def add(self, feature: Feature) -> None:
        """Declare a feature, or declare it anew. One that is only used is a moderate one with a circuit of its name.
        Raises ValueError for too many."""
        with self._lock:
            if feature.name not in self._features and len(self._features) >= MAX_FEATURES:
                raise ValueError(f"more than {MAX_FEATURES} features: name them by what they do, not by caller")
            self._features[feature.name] = feature
        self.refresh()

    def report(self, name: str, available: bool, reason: str = "", *, recheck: bool = False) -> None:
        """Say that a feature is off (and why), or there again. `recheck`: only another try will tell, so one is let
        through now and then."""
        self._get(name)
        with self._lock:
            if available:
                self._reported.pop(name, None)
                self._by_trying.discard(name)
            else:
                self._reported[name] = reason
                if recheck:
                    self._by_trying.add(name)
                    self._rechecked[name] = self._monotonic()
        self.refresh()

    # ---- reading

    @property
    def level(self) -> Level:
        """none, minor, moderate, severe or critical; `.effect` says what a page should show."""
        return self.verdict().level

    def verdict(self) -> Verdict:
        """The level, why it is that, and the features that are off."""
        with self._lock:
            return self._judge()

    def states(self) -> dict[str, str]:
        """Each feature by name: "" if it works, else why not."""
        off = self.verdict().off
        return {name: off.get(name, "") for name in sorted(self._features)}

    def refresh(self) -> None:
        """A circuit or the quality may have moved: tell what that changes."""
        with self._lock:
            old, new = self._told, self._judge()
            self._told = new
            self.ailing = bool(new.off) or new.level is not Level.NONE
            if old.level is not new.level or old.off.keys() != new.off.keys():
                self._changes.append((old, new))
        # told in order: whoever has something to tell while another thread tells leaves it to that one
        while self._changes and self._telling.acquire(blocking=False):
            try:
                while self._changes:
                    self._tell(*self._changes.popleft())
            finally:
                self._telling.release()

    def after_fork(self) -> None:
        """In a forked child: a lock that another thread held there would never be released."""
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._changes.clear()

    # ---- the rest

    def _judge(self) -> Verdict:
        circuits = self._circuits
        # one that is half open is not well before a probe came back; after that, nobody may call for long
        opened = {name for name in circuits.open_names() if not circuits.counts(name).successes}
        return judge(self._quality(), opened, self._features.values(), self._reported)

    def _tell(self, old: Verdict, new: Verdict) -> None:
        with _importing:
            from ..core.network_events import DegradationChanged, FeatureStateChanged
        for name in sorted(old.off.keys() ^ new.off.keys()):
            reason = new.off.get(name, "")
            self._emit(FeatureStateChanged(feature=name, available=name not in new.off, reason=reason))
        if old.level is not new.level:
            self._emit(DegradationChanged(level=new.level, old=old.level, effect=new.level.effect, reasons=new.reasons))

    def _get(self, name: str) -> Feature:
        feature = self._features.get(name)
        if feature is None:
            feature = Feature(name=name, circuit=name)
            self.add(feature)
        return feature

    def _primary(self, feature: Feature, primary: Callable[[], T], is_failure: Callable[[Exception], bool]) -> T:
        if feature.circuit is None:
            return primary()
        began = self._monotonic()
        try:
            return self._circuits.call(
                feature.circuit, primary, is_failure=lambda error: self._counts(error, is_failure, began)
            )
        finally:
            if self.ailing:
                self.refresh()

    def _counts(self, error: Exception, is_failure: Callable[[Exception], bool], began: float) -> bool | None:
        """What an error means for the feature's circuit. Another circuit's, or the network's, is no news of it; nor is
        one at the end of a caller's deadline that left it hardly any time."""
        if isinstance(error, TimeoutError) and is_over() and self._monotonic() - began < PATIENT:
            return None
        if not is_failure(error):
            return None if isinstance(error, CircuitOpenError) else False
        return None if isinstance(error, CircuitOpenError) or self._quality() is Quality.OFFLINE else True

    def _allowed(self, feature: Feature, *, claim: bool) -> bool:
        """Whether the primary should be called."""
        reported = feature.name in self._reported
        if reported and feature.name not in self._by_trying:
            return False
        if feature.circuit is not None and self._circuits.state(feature.circuit) == OPEN:
            return False
        if not reported and (feature.offline or self._quality() is not Quality.OFFLINE):
            return True
        now = self._monotonic()
        with self._lock:
            last = self._rechecked.get(feature.name)
            due = last is None or now - last >= RECHECK
            if due and claim:
                self._rechecked[feature.name] = now
            return due
