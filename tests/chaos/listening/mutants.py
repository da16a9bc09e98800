"""Clients that break one rule each: what the checker must find out. A mutant is made in a process that does nothing
else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _itself() -> None:
    """The client as it is."""


def _no_recovery() -> None:
    """After a loss it goes on with what comes, and never asks for what it missed."""
    from chatsdk.core.ordering import Order
    from chatsdk.realtime.backfill import History, Page

    def nowhere(order: Order) -> None:
        return None

    def nothing(history: History, channel: str, seq: int) -> Page:
        return Page((), False, 0)

    _put(Order, "position", nowhere)
    _put(History, "after", nothing)


def _no_dedup() -> None:
    """What is known to be a repetition is delivered all the same."""
    from chatsdk.core.ordering import Order

    def careless(name: str) -> None:
        original = getattr(Order, name)

        def deliver(order: Order, event: Any, *rest: Any) -> None:
            before = order.duplicates
            original(order, event, *rest)
            if order.duplicates > before:
                order._deliver(event, rest[-1])

        _put(Order, name, deliver)

    for name in ("_by_offset", "_message"):
        careless(name)


def _no_order() -> None:
    """Everything is delivered as it comes."""
    from chatsdk.core.ordering import Order

    def take(order: Order, these: Any, now: float, out: list[Any]) -> None:
        for event in these:
            if (event.message_id or "") not in order.ids:
                order.ids.add(event.message_id or "")
                if event.seq is not None:
                    order.seq = max(order.seq or 0, event.seq)
                out.append((event, order.seq, None, ""))

    _put(Order, "take", take)


def _no_quiet_check() -> None:
    """A quiet channel is never looked up."""
    from chatsdk.realtime.subscriptions import Subscriptions

    def check(subscriptions: Subscriptions, now: float) -> None:
        subscriptions._quiet.due = None

    _put(Subscriptions, "_check_the_quiet", check)


def _early_cursor() -> None:
    """What a thread takes is stored as handled before the first handler begins."""
    from chatsdk.realtime.dispatch import Dispatch

    original = Dispatch._serve

    def serve(dispatch: Any, lane: Any) -> None:
        if lane.taken:
            dispatch._done(lane, lane.taken[-1])
        original(dispatch, lane)

    _put(Dispatch, "_serve", serve)


def _no_cursor() -> None:
    """It never stores where it stands."""
    from chatsdk.realtime.cursors import Cursors

    def forget(cursors: Cursors, key: str, *position: Any) -> None:
        return None

    _put(Cursors, "set", forget)


def _put(where: type, name: str, what: Callable[..., Any]) -> None:
    setattr(where, name, what)


MUTANTS: dict[str, Callable[[], None]] = {
    "": _itself,
    "no_recovery": _no_recovery,
    "no_dedup": _no_dedup,
    "no_order": _no_order,
    "no_quiet_check": _no_quiet_check,
    "early_cursor": _early_cursor,
    "no_cursor": _no_cursor,
}
