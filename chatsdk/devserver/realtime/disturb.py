"""Faults of publications: lost, twice, late, out of order. Decided by the fault book, carried out here.

The same four are made at two places, told apart by their names: `event_*` breaks an event of the API before its stream
has it, so offsets show nothing (the real server's queue loses, delays, repeats and reorders); `pub_*` breaks a
publication on its way to the clients, so offsets jump and the history has it. A rule with `user` breaks it for that
user's connections only (`pub_*`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from chatsdk.devserver.faults import FaultBook, Happening, Rule

T = TypeVar("T")
DEFAULT_WINDOW = 4
HOLD_S = 0.2
"""How long an incomplete window of a reordering waits for more."""


class Sink(Protocol[T]):  # type: ignore[misc]
    """Where undisturbed items go; `only`/`without`: the user who alone, or alone not, gets it."""

    def __call__(self, item: T, /, *, only: str | None = None, without: str | None = None) -> None: ...


@dataclass
class _Window(Generic[T]):
    """Items that are held to be shuffled."""

    items: list[T] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


class Disturbance(Generic[T]):
    """One place where items can be broken. `moment`: what the fault book calls it, "event" or "publication"."""

    def __init__(self, moment: str, book: FaultBook, sink: Sink[T]) -> None:
        self._moment, self._book, self._sink = moment, book, sink
        self._windows: dict[int, _Window[T]] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing can happen here now."""
        return not self._book.rules

    def strikes(self, stream: str, data: Any) -> bool:
        """Whether some rule is about this item. Throws no dice."""
        return not self.idle and self._book.concerns(self._happening(stream, data), time.monotonic())

    def put(self, item: T, stream: str, data: Any) -> None:
        """Passes an item on, or breaks it."""
        rule = self._book.judge_happening(self._happening(stream, data), time.monotonic())
        if rule is None:
            self._sink(item)
            return
        user = rule.spec.get("user")
        if user is not None:
            self._sink(item, without=user)
        kind = rule.spec["kind"].partition("_")[2]
        if kind == "duplicate":
            for _ in range(1 + rule.spec.get("copies", 1)):
                self._sink(item, only=user)
        elif kind == "delay":
            asyncio.get_running_loop().call_later(rule.delay_s(), lambda: self._sink(item, only=user))
        elif kind == "reorder":
            self._hold(item, rule, user)

    def _hold(self, item: T, rule: Rule, user: str | None) -> None:
        window = self._windows.setdefault(rule.id, _Window())
        window.items.append(item)
        if len(window.items) >= rule.spec.get("window", DEFAULT_WINDOW):
            self._release(rule, user)
        elif window.timer is None:
            window.timer = asyncio.get_running_loop().call_later(HOLD_S, self._release, rule, user)

    def _release(self, rule: Rule, user: str | None) -> None:
        window = self._windows.pop(rule.id, None)
        if window is None:
            return
        if window.timer is not None:
            window.timer.cancel()
        rule.dice.shuffle(window.items)
        for item in window.items:
            self._sink(item, only=user)

    def _happening(self, stream: str, data: Any) -> Happening:
        payload = data.get("payload") if isinstance(data, Mapping) else None
        message = payload.get("message") if isinstance(payload, Mapping) else None
        text = message.get("text") if isinstance(message, Mapping) else None
        kind = data.get("type") if isinstance(data, Mapping) else None
        return Happening(
            moment=self._moment,
            operation=kind if isinstance(kind, str) else "",
            channel=stream,
            text=text if isinstance(text, str) else None,
        )
