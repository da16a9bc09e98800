"""How the network is, as the client knows it: the shell around `estimate`.

Every HTTP try and every heartbeat comes in by `sample`; that is all that a client pays for which nobody watches (about
a microsecond, no thread). While somebody watches, an idle client asks the server every ten seconds (`probing`), and
the system tells when its network comes and goes (`link`). Whoever watches is told by another thread (`telling`).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from math import inf
from time import monotonic  # closing is limited in real time, whatever clock is injected
from typing import TYPE_CHECKING

from ..core.clock import Clock
from ..core.events import Event
from ..resilience.import_lock import ImportLock
from ..resilience.process_lock import ProcessLock
from ..resilience.system_clock import SystemClock
from .estimate import WINDOW, Estimate
from .probing import Prober
from .quality import NetworkMetrics, Quality
from .telling import BACKLOG, Observer, Teller
from .tries import UNREACHABLE

if TYPE_CHECKING:
    from .link import LinkWatch

INTERVAL = 10.0
"""Seconds between two probes of an idle client (seeds 000 and 001)."""

_importing = ImportLock()


def _nobody(_: Event) -> None:
    """For a monitor whose events nobody wants."""


def _nothing() -> None:
    """For a monitor of which nothing waits for the network."""


class NetworkMonitor:
    """Thread-safe.

    emit        told of each change, as `NetworkQualityChanged`
    probe       asks the server once, so that samples come; None: there is no probe
    restored    called when there is contact again, or a network: what waits for it need not wait any longer
    watching    called when somebody begins to watch: what has a connection open can tell from now on how it fares
    watch_link  have the system tell when its network comes and goes; no use for a server on this machine
    background  False: no threads (one-shot mode): whoever brings a sample tells of the change, and nothing is probed
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        emit: Callable[[Event], object] = _nobody,
        probe: Callable[[], object] | None = None,
        restored: Callable[[], object] = _nothing,
        watching: Callable[[], object] = _nothing,
        watch_link: bool = True,
        background: bool = True,
        interval: float = INTERVAL,
        window: int = WINDOW,
    ) -> None:
        self._clock = clock or SystemClock()
        self._monotonic = self._clock.monotonic
        self._emit = emit
        self._restored = restored
        self._watching = watching
        self._lock = threading.Lock()
        self._changing = ProcessLock()
        self._pid = os.getpid()
        self._estimate = Estimate(self._monotonic(), window=window)
        self._last: float | None = None
        self._probe_trusted = False
        self._probe_failed_at: float | None = None
        self._network_since = -inf
        self._version = 0
        self._news: deque[tuple[int, Quality, NetworkMetrics]] = deque(maxlen=BACKLOG)
        self._observers: tuple[Observer[NetworkMetrics], ...] = ()
        self._closed = False
        self._teller = Teller(background=background)
        self._waker = Teller(background=background)  # beside the other one: who watches may block that
        self._prober = (
            Prober(probe, lambda: self._last, interval=interval, clock=self._clock)
            if probe is not None and background
            else None
        )
        self._watch_link = watch_link and background
        self._link: LinkWatch | None = None

    # ---- what happens

    def sample(self, latency: float | None, ok: bool = True, size: int = 0, reason: str = "") -> None:
        """A try or a heartbeat ended.

        latency  seconds until the whole answer was there, None: not known
        ok       the server answered, whatever it said; False: nobody did, or somebody else
        size     bytes of the answer's body
        reason   of one that is not ok: captive_portal, content_filter or rewriting_proxy, where somebody else answered
        """
        now = self._monotonic()
        with self._lock:
            self._last = now
            estimate = self._estimate
            if not (estimate.answered(now, latency, size) if ok else estimate.failed(now, reason)):
                return
            back = self._note()
        self._spread(back)

    def probed(self, latency: float | None, ok: bool = True, size: int = 0, reason: str = "") -> None:
        """A probe ended; as `sample`.

        Where calls are answered but the probe is not (its URL is missing, slow, or somebody's page), it says nothing
        of the network until it was answered once; that it found no connection always counts."""
        with self._lock:
            if ok:
                self._probe_trusted, self._probe_failed_at = True, None
            elif reason != UNREACHABLE:
                heard, failed = self._estimate.heard_at, self._probe_failed_at
                if failed is not None and heard is not None and heard > failed:
                    self._probe_trusted = False
                self._probe_failed_at = self._monotonic()
                if not self._probe_trusted and heard is not None and heard >= self._network_since:
                    return
        self.sample(latency, ok, size, reason)

    def dropped(self) -> None:
        """An open connection broke."""
        with self._lock:
            self._estimate.dropped(self._monotonic())

    def network(self, there: bool) -> None:
        """The system has no network; or it has one, again or another one."""
        now = self._monotonic()
        with self._lock:
            self._network_since = now
            changed = self._estimate.network_changed(now) if there else self._estimate.network_lost(now)
            if changed:
                self._note()
        if changed or there:
            self._spread(there)
        if there and self._prober is not None:
            self._prober.hurry()

    # ---- reading

    @property
    def quality(self) -> Quality:
        """The level; GOOD before anything is known."""
        return self._estimate.quality

    @property
    def latency(self) -> float | None:
        """Milliseconds, the median of the last answers; None: not known."""
        with self._lock:
            return self._estimate.latency

    @property
    def reason(self) -> str:
        """Why the quality is no better, "" if there is nothing to say; `.text` says it to people."""
        return self._estimate.reason

    def metrics(self) -> NetworkMetrics:
        """All figures."""
        with self._lock:
            return self._estimate.metrics(self._monotonic())

    # ---- watching

    def watch(self, observer: Callable[[NetworkMetrics], object]) -> Callable[[], None]:
        """Call `observer` with the figures, now and whenever the level or its reason changes; returns a function that
        ends that. One that raises is reported once; one that blocks holds up other observers, and nothing else."""
        if self._pid != os.getpid():
            self.after_fork()
        entry = Observer(observer)
        with self._lock:
            self._observers = (*self._observers, entry)
            version, metrics = self._version, self._estimate.metrics(self._monotonic())

        def end() -> None:
            entry.ended = True
            with self._lock:
                self._observers = tuple(each for each in self._observers if each is not entry)
            self._adapt()

        self._watching()
        self._adapt()
        try:
            entry.tell(version, metrics)
        except BaseException:  # Ctrl-C: whoever watches gets no way to end it
            end()
            raise
        return end

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return bool(self._observers)

    def close(self, timeout: float = 0.0) -> None:
        """Stop all threads, and wait for them at most `timeout` seconds. Idempotent; samples may still come."""
        self._closed = True
        self._adapt()
        end = monotonic() + timeout
        for part in (self._prober, self._link, self._waker, self._teller):
            if part is not None and timeout > 0:
                part.join(max(0.0, end - monotonic()))

    # ---- forks

    def after_fork(self) -> None:
        """In a forked child: fresh locks, no samples, no threads. Those who watched are told of changes; probes go on
        with the next who watches."""
        with self._changing:
            if self._pid == os.getpid():
                return
            self._lock = threading.Lock()
            self._estimate.forget()  # another thread may have been in the middle of a sample
            self._news.clear()
            self._teller.after_fork()
            self._waker.after_fork()
            for part in (self._prober, self._link):
                if part is not None:
                    part.after_fork()
            for observer in self._observers:
                observer.after_fork()
            self._pid = os.getpid()

    # ---- the rest

    def _adapt(self) -> None:
        """Threads while somebody watches, none otherwise."""
        with self._changing:
            wanted = bool(self._observers) and not self._closed
            if wanted and self._watch_link and self._link is None:
                with _importing:
                    self._link = LinkWatch(self.network)
            for part in (self._prober, self._link):
                if part is not None:
                    part.start() if wanted else part.stop()

    def _note(self) -> bool:
        """Remember what changed: contact is back, or not. With the lock held, so that news is in order."""
        self._version += 1
        old, metrics = self._estimate.old, self._estimate.metrics(self._monotonic())
        self._news.append((self._version, old, metrics))
        return old is Quality.OFFLINE and metrics.quality is not Quality.OFFLINE

    def _spread(self, back: bool) -> None:
        """Have what changed told. With no lock held."""
        if self._pid != os.getpid():
            news = list(self._news)[-1:]  # ours; what was there before is the parent's
            self.after_fork()
            self._news.extend(news)
        if back:
            self._waker.put(self._restored)
        self._teller.put(self._tell)

    def _tell(self) -> None:
        with _importing:
            from ..core.network_events import NetworkQualityChanged
        try:
            version, old, metrics = self._news.popleft()
        except IndexError:  # there is none, or it was the parent's
            return
        for observer in self._observers:
            observer.tell(version, metrics)
        self._emit(
            NetworkQualityChanged(
                quality=metrics.quality,
                old=old,
                reason=metrics.reason,
                latency=metrics.latency_ms,
                loss=metrics.loss,
            )
        )
