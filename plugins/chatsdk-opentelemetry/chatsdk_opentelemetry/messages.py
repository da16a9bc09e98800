"""The spans of messages that are under way: one from `send` until the message is delivered or dead, over all its tries.

A message outlives the call that sent it, and may wait for hours. So a span here is ended
* when the message is sent or dead;
* after MAX_AGE seconds, as QUEUED: one that is never ended is never seen. Later tries are its children all the same;
* when more than MAX_OPEN are open (the oldest first);
* when the client is closed that had it in its hands, and when the process ends.
One whose message was never stored (somebody refused it) is forgotten and never seen.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry.trace import NonRecordingSpan, Span

from chatsdk.plugin import PluginClient

MAX_AGE = 60.0
"""Seconds."""

MAX_OPEN = 1000
"""Messages; as many again are remembered after their span was ended."""


@dataclass(slots=True)
class _Entry:
    span: Span
    began: float
    stored: bool
    client: weakref.ref[PluginClient] | None


class Messages:
    """Spans by the message's key. `monotonic`: time in seconds. What is to be ended is handed to the caller: ending a
    span takes as long as the application's exporter takes, and no lock is held meanwhile. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._open: OrderedDict[str, _Entry] = OrderedDict()
        self._ended: OrderedDict[str, Span] = OrderedDict()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget)

    def find(self, key: str) -> Span | None:
        """The message's span; of one that was ended, its context."""
        with self._lock:
            entry = self._open.get(key)
            return self._ended.get(key) if entry is None else entry.span

    def add(self, key: str, span: Span, client: PluginClient | None = None) -> Span:
        """A message's span; if there is one already, that one. client: that delivers it, from the outbox; None: it is
        not stored yet."""
        stored, whose = client is not None, None if client is None else weakref.ref(client)
        with self._lock:
            return self._open.setdefault(key, _Entry(span, self._monotonic(), stored, whose)).span

    def stored(self, key: str, client: PluginClient) -> Span | None:
        """This client put the message into the outbox. Returns its span, if that is open."""
        with self._lock:
            entry = self._open.get(key)
            if entry is None:
                return None
            entry.stored, entry.client = True, weakref.ref(client)
            return entry.span

    def end(self, key: str) -> Span | None:
        """The message is delivered or dead. Returns its span, if that is to be ended."""
        with self._lock:
            self._ended.pop(key, None)
            entry = self._open.pop(key, None)
            return None if entry is None else entry.span

    def overdue(self) -> list[Span]:
        """The spans that are to be ended although their messages wait."""
        due: list[Span] = []
        with self._lock:
            oldest = self._monotonic() - MAX_AGE
            while self._open:
                key = next(iter(self._open))
                entry = self._open[key]
                if entry.began > oldest and len(self._open) <= MAX_OPEN:
                    break
                del self._open[key]
                if entry.stored:
                    self._ended[key] = _context(entry.span)
                    due.append(entry.span)
            self._limit_ended()
        return due

    def left_by(self, client: PluginClient) -> list[Span]:
        """This client was closed: the spans that are to be ended although their messages wait. Somebody else delivers
        them, perhaps in this process: later tries are their children all the same."""
        with self._lock:
            left = [key for key, entry in self._open.items() if entry.client is not None and entry.client() is client]
            spans = [self._open.pop(key).span for key in left]
            self._ended.update({key: _context(span) for key, span in zip(left, spans, strict=True)})
            self._limit_ended()
        return spans

    def rest(self) -> list[Span]:
        """The process ends: what is to be ended now."""
        with self._lock:
            left, self._open = self._open, OrderedDict()
        return [entry.span for entry in left.values() if entry.stored]

    def _limit_ended(self) -> None:
        while len(self._ended) > MAX_OPEN:
            self._ended.popitem(last=False)

    def _forget(self) -> None:
        """In a forked child: these messages are the parent's to tell of."""
        self._lock = threading.Lock()
        self._open, self._ended = OrderedDict(), OrderedDict()


def _context(span: Span) -> Span:
    """What is left of an ended span: whose child the next try is."""
    return NonRecordingSpan(span.get_span_context())
