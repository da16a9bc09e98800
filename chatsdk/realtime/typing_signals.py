"""Typing signals: shown to others at once or not at all.

Nobody waits for one, and none is worth a second try: they go through a short queue (the newest wins, the oldest is
dropped and counted), sent by a thread that lives while somebody types. Others are not told with every key: a user who
goes on typing is told of again after REPEAT seconds, and one who falls silent for AUTO_STOP seconds has stopped, also
when the program forgot to say so.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable

from ..core.clock import Clock
from ..core.errors import ChatError

AUTO_STOP = 6.0
"""Seconds after the last `start` at which it is over."""

REPEAT = 3.0
"""Seconds after which a repeated `start` is sent again."""

MAX_WAITING = 100
"""Signals that wait at most (seed 004: 100 in the transient queue, the oldest dropped)."""

log = logging.getLogger("chatsdk.realtime")

_Who = tuple[str, str]


class _Typist:
    """Somebody who types: when others were told last, and when that is over."""

    __slots__ = ("ends", "told")

    def __init__(self, told: float, ends: float) -> None:
        self.told = told
        self.ends = ends


class TypingSignals:
    """`start` and `stop` by (user, channel). `send(user, channel, typing)` may block and may raise ChatError."""

    def __init__(self, send: Callable[[str, str, bool], object], clock: Clock) -> None:
        self._send = send
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._waiting: OrderedDict[_Who, bool] = OrderedDict()
        self._typing: dict[_Who, _Typist] = {}
        self._thread: threading.Thread | None = None
        self._closed = False
        self.dropped = 0
        """Signals that were given up: too many waited, or the server could not be told."""

    def start(self, user: str, channel: str) -> None:
        """They type, for AUTO_STOP seconds if nothing more is said. Returns at once."""
        now = self._clock.monotonic()
        self._here()
        with self._lock:
            if self._closed:
                return
            typist = self._typing.get((user, channel))
            if typist is None:
                self._typing[user, channel] = _Typist(now, now + AUTO_STOP)
                self._put((user, channel), True)
                return
            typist.ends = now + AUTO_STOP
            if now - typist.told >= REPEAT:
                typist.told = now
                self._put((user, channel), True)

    def stop(self, user: str, channel: str) -> None:
        """They stopped. Returns at once; for somebody who does not type it does nothing."""
        self._here()
        with self._lock:
            if self._typing.pop((user, channel), None) is not None:
                self._put((user, channel), False)

    @property
    def queued(self) -> int:
        """Signals that wait."""
        return len(self._waiting)

    def close(self, timeout: float) -> None:
        """Say that nobody types any more, within `timeout` seconds."""
        self._here()
        with self._lock:
            self._closed = True
            for who in list(self._typing):
                del self._typing[who]
                self._put(who, False)
            thread = self._thread
            self._changed.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _here(self) -> None:
        if self._pid != os.getpid():  # a forked child: thread and lock are the parent's, and so are the typists
            self._begin()

    def _put(self, who: _Who, typing: bool) -> None:
        """With the lock held."""
        self._waiting.pop(who, None)
        self._waiting[who] = typing
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popitem(last=False)
            self.dropped += 1
        self._changed.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="chatsdk-realtime-typing", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter ends, or the system has no thread left
                self._thread = None
                self.dropped += len(self._waiting)
                self._waiting.clear()

    def _run(self) -> None:
        while True:
            with self._lock:
                self._changed.clear()
                self._stop_the_silent()
                if not self._waiting and not self._typing:
                    self._thread = None
                    return
                signal = self._waiting.popitem(last=False) if self._waiting else None
                ends = min((typist.ends for typist in self._typing.values()), default=0.0)
            if signal is None:
                self._clock.wait(self._changed, max(0.0, ends - self._clock.monotonic()))
                continue
            (user, channel), typing = signal
            try:
                self._send(user, channel, typing)
            except ChatError as error:
                self.dropped += 1
                log.debug("a typing signal was dropped: %s", error)
            except Exception:
                self.dropped += 1
                log.exception("a typing signal could not be sent")

    def _stop_the_silent(self) -> None:
        now = self._clock.monotonic()
        for who in [who for who, typist in self._typing.items() if typist.ends <= now]:
            del self._typing[who]
            self._put(who, False)
