"""The order of one channel: what came, in any order, goes out complete, in order and once. Pure; time is an argument.

Theory. Two numbers say where something belongs. The *offset* is the publication's place in its stream: the realtime
server counts without holes, so a hole means that something got lost or is still on its way. The *seq* is the message's
place in its channel: messages are published out of that order (parallel senders, a backlog), thread replies and purged
messages leave holes for ever, and only `since_seq` over HTTP tells one from the other. So events pass two gates:

    publications -> by offset (any event)  -> by seq (messages); edits and the like behind their message -> deliveries

Rules.
1. A hole is held for `hold` seconds. Then the order wishes for what is missing: by offset a recovery (`Recover`) where
   the server has one, else, and by seq, a backfill (`Fetch`), once. What a backfill does not bring is no loss.
2. A lower seq that comes after higher ones is delivered, flagged `late`, if it was not delivered before.
3. An event about a message that was not seen waits for it, then for one backfill, and is then delivered anyway.
4. What has neither message nor seq waits for nothing but a hole in the offsets.
5. Everything that waits is bounded. Beyond the bound the newest is dropped, and fetched again by another backfill.
6. What cannot be had any more is told: a `Gap` takes its place among the deliveries.
7. Each delivery carries the position that may be stored once it was handled: everything up to `seq` and `offset` was
   delivered before it or with it, or is known not to be. While a backfill is owed no offset is safe: a recovery
   from it would skip what the backfill was to bring.

The quick way (`take`): the next offset, the next seq, nothing waits. Everything else is the slow way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import NamedTuple, TypeAlias

from .events import Event
from .protocols.outputs import Position
from .realtime_events import ChangesMissed, Gap, MessageReceived, RealtimeEvent

HOLD = 0.3
"""Seconds that a hole is held (DESIGN 7)."""

WINDOW = 1000
"""Message ids that are known at least, so that a repetition is found out."""

BOUND = 1000
"""Events that wait at most, at each gate."""

ORPHANS = 200
"""Events that wait for their message at most."""

HOLES = 10_000
"""Missing seqs that are remembered, so that one that comes late after all is told from a repetition."""

Mark: TypeAlias = tuple[int | None, int | None, str]
"""(seq, offset, epoch): where one stands; None: not known."""

Delivery: TypeAlias = tuple[Event, int | None, int | None, str]
"""(event, seq, offset, epoch): an event, and the mark that may be stored once it was handled."""


class Fetch(NamedTuple):
    """All messages with a seq above `after` are wanted, by `filled`; `turn` goes back with the answer."""

    after: int
    turn: int


class Locate(NamedTuple):
    """The channel's newest seq is wanted, by `located`."""


class Recover(NamedTuple):
    """The stream is to be heard anew, from this position on; then `rejoined`."""

    position: Position


Wish: TypeAlias = Fetch | Locate | Recover


class Ids:
    """The last ids, at least `size` of them: two generations, so that forgetting costs nothing."""

    __slots__ = ("new", "old", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.new: set[str] = set()
        self.old: set[str] = set()

    def add(self, name: str) -> None:
        if len(self.new) >= self.size:
            self.old, self.new = self.new, set()
        self.new.add(name)

    def discard(self, name: str) -> None:
        self.new.discard(name)
        self.old.discard(name)

    def __contains__(self, name: str) -> bool:
        return name in self.new or name in self.old


class Order:
    """One channel's order. Every method that may deliver appends to `out`; what it wishes for stands in `wishes`, from
    where the caller takes it. `seq` None: not known where we stand (0: before the first message)."""

    __slots__ = (
        "_again",
        "_ahead",
        "_ahead_due",
        "_anchor",
        "_asked_at",
        "_base",
        "_bound",
        "_fill_top",
        "_handled",
        "_heap",
        "_held",
        "_high",
        "_hold",
        "_holes",
        "_joined",
        "_missing",
        "_orphans",
        "_other_lost",
        "_owing",
        "_recover_later",
        "_recovered_at",
        "_recovering",
        "_resumed",
        "_safe",
        "_seqs_lost",
        "_start",
        "_strangers",
        "_waiting",
        "calm",
        "channel",
        "duplicates",
        "epoch",
        "filling",
        "ids",
        "ordered",
        "seq",
        "stopped",
        "top",
        "turn",
        "user",
        "wishes",
    )

    def __init__(
        self,
        user: str,
        channel: str,
        mark: Mark = (None, None, ""),
        *,
        ordered: bool = True,
        hold: float = HOLD,
        window: int = WINDOW,
        bound: int = BOUND,
    ) -> None:
        self.user = user
        self.channel = channel
        self.ordered = ordered  # its messages carry a seq, and can be fetched by it
        self._hold = hold
        self._bound = bound
        self.wishes: list[Wish] = []
        self.duplicates = 0
        # by offset
        self.seq, self.top, self.epoch = mark
        self._base = 0 if self.top is not None else -1  # offsets below it were never looked at; -1: set by the first
        self._safe = self.top
        self._owing = False  # a backfill is owed, so no offset is safe
        self._anchor = self.top  # where publications are complete from, while one is
        self._ahead: dict[int, RealtimeEvent] = {}  # beyond a hole
        self._ahead_due = 0.0
        self._missing: set[int] = set()  # offsets given up, which may come after all
        self._recovering = False  # beyond a hole, but what is missing will come again
        self._recover_later = False
        self._recovered_at = -1  # where that was asked for the last time because of a hole
        self._joined = False
        self._resumed = self.top is not None  # an earlier process heard it
        # by seq
        self.ids = Ids(window)
        self._start = self.seq or 0  # what is not above it is told apart by id only
        self._handled = self._start  # and up to here all that a list shows was handled by an earlier process
        self._held: dict[int, tuple[RealtimeEvent, float]] = {}
        self._heap: list[int] = []  # the seqs of `_held`
        self._holes: set[int] = set()
        self._orphans: dict[str, list[RealtimeEvent]] = {}
        self._waiting: dict[str, float] = {}  # since when, for each message that is waited for; oldest first
        self._strangers = Ids(window)  # messages that were waited for in vain
        # the backfill that is under way
        self.filling = False
        self._again = False  # another one has to follow, for what the first may have come too early
        self.turn = 0
        self._asked_at = 0.0
        self._fill_top = 0
        # handlers that fell behind
        self.stopped = False
        self._other_lost = False  # something was dropped that no backfill brings
        self._seqs_lost: set[int] = set()  # messages were, which a backfill brings unless they are thread replies
        self._high = 0  # highest seq that was taken before we had to go back
        self.calm = True

    # ---- what came

    def take(self, events: Sequence[RealtimeEvent], now: float, out: list[Delivery]) -> None:
        """Publications, as they came."""
        if not self.calm:
            self._slowly(events, now, out)
            return
        ids = self.ids
        new, old = ids.new, ids.old
        seq, top, epoch = self.seq, self.top, self.epoch
        for at, event in enumerate(events):
            offset = event.offset
            if (
                event.__class__ is MessageReceived
                and seq is not None
                and event.seq == seq + 1
                and (offset == top if top is None else offset == top + 1 or offset is None)
                and (name := event.message_id) not in new
                and name not in old
                and len(new) < ids.size
            ):
                seq += 1
                if offset is not None:
                    top = offset
                new.add(name)  # type: ignore[arg-type]  # a message has an id
                out.append((event, seq, top, epoch))
                continue
            self.seq, self.top, self._safe = seq, top, top
            if not self._slowly((event,), now, out):
                self._slowly(events[at + 1 :], now, out)
                return
            seq, top, epoch = self.seq, self.top, self.epoch
            new, old = ids.new, ids.old
        self.seq, self.top, self._safe = seq, top, top

    def due(self, now: float, out: list[Delivery]) -> None:
        """The time of `next_due` has come."""
        if self.stopped:
            return
        begun = len(out)
        if self._ahead and not self._recovering and self._ahead_due <= now:
            self._mind_hole(now, out)
        if not self.filling:
            if self._held and self._held[self._lowest()][1] <= now:
                self._ask(now)
            elif self._waiting and next(iter(self._waiting.values())) + self._hold <= now:
                if self.seq is None:
                    self._give_up_waiting(now - self._hold, now, out)
                else:
                    self._ask(now)
        self._settle(out, begun)

    def next_due(self) -> float | None:
        """When to call `due`."""
        if self.calm or self.stopped:
            return None
        times = []
        if self._ahead and not self._recovering:
            times.append(self._ahead_due)
        if not self.filling:
            if self._held:
                times.append(self._held[self._lowest()][1])
            if self._waiting:
                times.append(next(iter(self._waiting.values())) + self._hold)
        return min(times, default=None)

    # ---- the connection

    def position(self) -> Position | None:
        """From where on to hear the stream, if the server can begin there."""
        return Position(self.top, self.epoch) if self.top is not None and self.epoch else None

    def mark(self) -> Mark:
        """What may be stored now, if everything delivered was handled."""
        return self.seq, None if self._owing else self._safe, self.epoch

    def rejoined(self, recovered: bool, position: Position | None, now: float, out: list[Delivery]) -> None:
        """The stream is heard (again). `recovered`: what was missed comes as publications; `position`: from where on
        they come, where the server says."""
        begun = len(out)
        again, self._joined = self._joined, True
        self._recovering = self._recover_later = False
        if recovered:
            self._ahead.clear()  # comes again
            if not self.stopped:
                self._other_lost = False
                self._seqs_lost.clear()
            if (self._owing or self.filling) and not self.stopped:
                self.filling = False  # one that is under way may wait for a next try, or be refused by what was between
                self._ask(now)
        else:
            for offset in sorted(self._ahead):
                self._by_seq(self._ahead.pop(offset), now, out)
            self.top, self.epoch = (position.offset, position.epoch) if position else (None, "")
            self._base = 0 if position else -1
            self._missing.clear()
            self._safe = self._anchor = self.top
            if self.seq is not None:
                self._owing = True
                self.filling = False  # one that is under way may have looked too early
                if again or self._resumed:
                    self._deliver(ChangesMissed(user=self.user, channel=self.channel, after=self.seq), out)
                if not self.stopped:
                    self._ask(now)
            else:
                if again:
                    self._gap("the connection was lost, and what came meanwhile cannot be fetched", out)
                if self.ordered:
                    self.wishes.append(Locate())
            if self._other_lost and not self.stopped:
                self._gap("the handlers fell behind, and what came meanwhile cannot be fetched", out)
        self._settle(out, begun)

    def located(self, newest: int | None, now: float, out: list[Delivery]) -> None:
        """The answer to `Locate`; None: its messages carry no seq, or nobody knows."""
        if self.seq is not None or self.stopped:
            return
        begun = len(out)
        if newest is None:
            self.ordered = False
        else:
            self.seq = self._start = newest
        self._settle(out, begun)

    def check(self, now: float) -> None:
        """See over HTTP whether there is something that was never published, or that nobody publishes to us for now."""
        if self.stopped or self.filling:
            return
        if self.seq is not None:
            self._ask(now)
            self._settle([], 0)
        elif self.ordered:
            self.wishes.append(Locate())

    def unheard(self, out: list[Delivery]) -> None:
        """The stream cannot be heard for now, and what is committed will be looked for by `check` until `rejoined`: of
        what is published besides nothing is told."""
        self._joined = True
        self._deliver(ChangesMissed(user=self.user, channel=self.channel, after=self.seq, ongoing=True), out)

    @property
    def whole(self) -> bool:
        """Nothing of what was missed is still to come."""
        return not (self.filling or self._owing or self._recovering or self.stopped)

    # ---- backfills

    def filled(
        self, turn: int, events: Iterable[RealtimeEvent], more: bool, newest: int, now: float, out: list[Delivery]
    ) -> None:
        """One page of the answer to `Fetch`, in order of seq; `more`: another one follows. `newest`: the channel's
        highest seq as the server knows it, 0 if it does not say."""
        if turn != self.turn or not self.filling:
            return
        begun = len(out)
        for event in events:
            if event.seq is not None and self.seq is not None and event.seq > self.seq:
                self._advance(event.seq - 1, out)
                held = self._held.pop(event.seq, None)
                self._next(event if held is None else held[0], event.seq, out)
            else:
                self._message(event, now, out)
        if not more:
            self._end_of_fill(newest, now, out)
        self._settle(out, begun)

    def unfilled(self, turn: int, reason: str, now: float, out: list[Delivery]) -> None:
        """`Fetch` failed for good: tell it and go on."""
        if turn != self.turn or not self.filling:
            return
        begun = len(out)
        self._gap(reason, out)
        self._fill_top = max(self._held, default=self._fill_top)
        self._end_of_fill(0, now, out)
        self._settle(out, begun)

    def unasked(self, turn: int, now: float, out: list[Delivery]) -> None:
        """`Fetch` cannot be done for now, and nothing is lost by that: who comes back to the channel asks again."""
        if turn == self.turn and self.filling:
            self.filling = False
            self._settle(out, len(out))

    # ---- handlers that fall behind

    def refused(self, refused: Sequence[Delivery], mark: Mark) -> None:
        """Nobody took these; the last one taken left off at `mark`. From now on everything is dropped until
        `drained`."""
        if self.stopped:
            return
        self.stopped, self.filling = True, False
        self.turn += 1
        self.wishes.clear()
        lowest, self.top, epoch = mark
        if lowest is None and self.seq is not None:
            lowest = self._start  # it became known within this batch
        self._high = max(self._high, lowest or 0)
        if self._owing or self.top is None or epoch != self.epoch:  # what a backfill brought is among the refused
            self.top, self._owing = self._anchor, lowest is not None
        for event, *_ in refused:
            if isinstance(event, RealtimeEvent):
                self._lose(event)
                if event.__class__ is MessageReceived:
                    self.ids.discard(event.message_id or "")
                    if event.seq is not None and lowest is not None:
                        lowest = min(lowest, event.seq - 1)
        waiting = [*self._ahead.values(), *(event for event, _ in self._held.values())]
        for event in (*waiting, *(event for events in self._orphans.values() for event in events)):
            self._lose(event)
        self.seq = lowest
        self._start = min(self._start, lowest or 0)
        self._handled = min(self._handled, self._start)
        self._holes = {hole for hole in self._holes if lowest is not None and hole <= lowest}
        for kept in (self._ahead, self._held, self._heap, self._orphans, self._waiting, self._missing):
            kept.clear()
        self._again = self._recovering = self._recover_later = False
        self._safe = self.top
        self.calm = False

    def drained(self, now: float, out: list[Delivery]) -> None:
        """All that was taken is handled: go on where it was refused."""
        if not self.stopped:
            return
        begun = len(out)
        self.stopped = False
        position = self.position()
        if position is not None:
            self._recover(position)
        else:
            self.top, self._anchor, self._base = None, None, -1
            self._owing = self.seq is not None
            if self._other_lost or self.seq is None:
                self._gap("the handlers fell behind, and what came meanwhile cannot be fetched", out)
            if self.seq is not None:
                self._ask(now)
        self._settle(out, begun)

    # ---- the slow way: by offset

    def _slowly(self, events: Iterable[RealtimeEvent], now: float, out: list[Delivery]) -> bool:
        """True if nothing waits afterwards."""
        if self.stopped:
            for event in events:
                self._lose(event)
            return False
        begun = len(out)
        for event in events:
            self._by_offset(event, now, out)
        self._settle(out, begun)
        return self.calm

    def _by_offset(self, event: RealtimeEvent, now: float, out: list[Delivery]) -> None:
        offset, top = event.offset, self.top
        if offset is None:
            self._by_seq(event, now, out)
        elif top is None:
            if self._base < 0:
                self._base = offset  # earlier ones may come later: they were not seen
            self.top = offset
            self._by_seq(event, now, out)
        elif offset == top + 1:
            self.top = offset
            self._by_seq(event, now, out)
            while (following := self._ahead.pop(self.top + 1, None)) is not None:
                self.top += 1
                self._by_seq(following, now, out)
            self._ahead_due = now + self._hold
        elif offset > top:
            if offset in self._ahead:
                self.duplicates += 1
                return
            if not self._ahead:
                self._ahead_due = now + self._hold
            if len(self._ahead) < self._bound:
                self._ahead[offset] = event
            else:
                if not self._recovering:
                    self._mind_hole(now, out)
                if self._recovering:
                    self._lose(event)
                else:
                    self._by_offset(event, now, out)
        elif offset in self._missing or offset < self._base:
            self._missing.discard(offset)
            self._by_seq(event, now, out)
        elif self._is_news(event):  # the stream is counted anew, and nobody said so
            self.rejoined(False, None, now, out)
            self._by_offset(event, now, out)
        else:
            self.duplicates += 1

    def _is_news(self, event: RealtimeEvent) -> bool:
        """A message that cannot have come before, although its offset has."""
        seq, stand = event.seq, self.seq
        if event.__class__ is not MessageReceived or seq is None or stand is None or seq <= stand:
            return False
        return seq not in self._held and (event.message_id or "") not in self.ids

    def _mind_hole(self, now: float, out: list[Delivery]) -> None:
        """Publications are missing, and did not come in time."""
        position = self.position()
        if position is not None and self._recovered_at != position.offset:
            self._recovered_at = position.offset  # once: if it is still missing then, the server does not have it
            self._recover(position)
            return
        self._owing, self._anchor = self.seq is not None, self._safe
        while self._ahead and self.top is not None:
            first = min(self._ahead)
            self._missing.update(range(max(self.top + 1, first - self._bound), first))
            self.top = first - 1
            while (event := self._ahead.pop(self.top + 1, None)) is not None:
                self.top += 1
                self._by_seq(event, now, out)
        if len(self._missing) > 2 * self._bound:
            self._missing = set(sorted(self._missing)[-self._bound :])
        if self.seq is None:
            self._gap("publications are missing, and the server cannot give them again", out)
        else:
            self._ask(now)

    def _recover(self, position: Position) -> None:
        self._recovering = True
        self.wishes.append(Recover(position))

    # ---- the slow way: by seq

    def _by_seq(self, event: RealtimeEvent, now: float, out: list[Delivery]) -> None:
        if event.__class__ is MessageReceived:
            self._message(event, now, out)
        elif not event.refers or self._is_known(event):
            self._deliver(event, out)
        else:
            name = event.message_id or ""
            self._orphans.setdefault(name, []).append(event)
            self._waiting.setdefault(name, now)
            while sum(map(len, self._orphans.values())) > ORPHANS:
                self._release(next(iter(self._waiting)), out)

    def _is_known(self, event: RealtimeEvent) -> bool:
        name = event.message_id
        if name is None or name in self.ids or name in self._strangers:
            return True
        return event.seq is not None and self.seq is not None and event.seq <= self.seq

    def _message(self, event: RealtimeEvent, now: float, out: list[Delivery]) -> None:
        seq, stand = event.seq, self.seq
        if (event.message_id or "") in self.ids:
            self.duplicates += 1
        elif seq is None:
            self._came(event, out)
        elif stand is None:
            self._start = seq
            self._next(event, seq, out)
        elif seq == stand + 1:
            self._next(event, seq, out)
            self._follow(out)
        elif seq > stand:
            self._keep(seq, event, now)
        elif (seq <= self._start and not self._was_handled(event, seq)) or seq in self._holes:
            self._holes.discard(seq)
            self._came(event.flagged_late(), out)
        else:
            self.duplicates += 1

    def _was_handled(self, event: RealtimeEvent, seq: int) -> bool:
        """An earlier process handled it: seqs are committed in order (contract, 12), so who stood at a later one had
        all that a list shows before that. Replies are in no list: of these nobody knows."""
        if seq > self._handled:
            return False
        message = event.facts.get("message")
        return message is not None and message.parent_id is None

    def _keep(self, seq: int, event: RealtimeEvent, now: float) -> None:
        """It waits for those before it."""
        if seq in self._held:
            self.duplicates += 1
            return
        if len(self._held) >= self._bound:
            if self.epoch and event.offset is not None and event.offset == self.top:
                self.top -= 1  # as if it had not come: it comes again after the backfill
                self._recovering = self._recover_later = True
            else:
                self._owing = True
                self._lose(event)
            self._ask(now)
            return
        self._held[seq] = event, now + self._hold
        heappush(self._heap, seq)

    def _lowest(self) -> int:
        """The lowest seq that is held."""
        while self._heap[0] not in self._held:
            heappop(self._heap)
        return self._heap[0]

    def _next(self, event: RealtimeEvent, seq: int, out: list[Delivery]) -> None:
        """It is the next; what lies between will not be waited for."""
        if self.seq is not None and seq > self.seq + 1:
            self._holes.update(range(max(self.seq + 1, seq - HOLES), seq))
            if len(self._holes) > 2 * HOLES or seq - self.seq > HOLES:
                kept = sorted(self._holes)[-HOLES:]
                self._holes = set(kept)
                self._start = max(self._start, kept[0] - 1)
        self.seq = seq
        if (event.message_id or "") in self.ids:  # it came before, at another place
            self.duplicates += 1
            return
        self._came(event.flagged_late() if seq < self._high else event, out)

    def _came(self, event: RealtimeEvent, out: list[Delivery]) -> None:
        name = event.message_id or ""
        self.ids.add(name)
        self._deliver(event, out)
        if name in self._waiting:
            self._release(name, out)

    def _follow(self, out: list[Delivery]) -> None:
        """Those that are no longer beyond a hole."""
        while self.seq is not None and (held := self._held.pop(self.seq + 1, None)) is not None:
            self._next(held[0], self.seq + 1, out)

    def _advance(self, to: int, out: list[Delivery]) -> None:
        """Nothing up to `to` will be waited for any more."""
        while self._held and (seq := self._lowest()) <= to:
            self._next(self._held.pop(seq)[0], seq, out)

    def _release(self, name: str, out: list[Delivery]) -> None:
        """Deliver what waited for a message."""
        self._waiting.pop(name)
        if name not in self.ids:
            self._strangers.add(name)
        for event in self._orphans.pop(name):
            self._deliver(event, out)

    def _give_up_waiting(self, since: float, now: float, out: list[Delivery]) -> None:
        """Deliver what waits since then or longer, if its message is not even held."""
        if not self._waiting:
            return
        held = {event.message_id for event, _ in self._held.values()}
        for name in [name for name, began in self._waiting.items() if began <= since]:
            if name in held:
                del self._waiting[name]
                self._waiting[name] = now  # the message has its own time
            else:
                self._release(name, out)

    # ---- backfills

    def _ask(self, now: float) -> None:
        if self.filling:
            self._again = True
            return
        if self.seq is None:
            return
        self.filling = True
        self._again = False
        self.turn += 1
        self._asked_at = now
        self._fill_top = max(self._held, default=self.seq)
        self.wishes.append(Fetch(self.seq, self.turn))

    def _end_of_fill(self, newest: int, now: float, out: list[Delivery]) -> None:
        """Whatever was committed when we asked is known now: what came before that is held by no hole any more."""
        self.filling = False
        self._advance(min(self._fill_top, newest) if newest else self._fill_top, out)
        self._follow(out)
        if newest:  # a seq that the server itself has not reached: deliver it, believe nothing of it
            for seq in sorted(seq for seq in self._held if newest < seq <= self._fill_top):
                self._came(self._held.pop(seq)[0], out)
        self._give_up_waiting(self._asked_at, now, out)
        if self._seqs_lost and not self._recover_later:
            if not self._seqs_lost.isdisjoint(self._holes):
                self._gap("thread replies were dropped, and no list shows them", out)
            self._seqs_lost.clear()
        self._owing = self._owing and self._again
        if self._again:
            self._ask(now)
        elif self._recover_later and (position := self.position()) is not None:
            self._recover_later = False
            self._recover(position)

    # ---- out

    def _deliver(self, event: Event, out: list[Delivery]) -> None:
        out.append((event, self.seq, None if self._owing else self._safe, self.epoch))

    def _lose(self, event: RealtimeEvent) -> None:
        """It is dropped; what comes again by recovery or backfill is found out later."""
        if event.__class__ is MessageReceived and event.seq is not None and len(self._seqs_lost) < HOLES:
            self._seqs_lost.add(event.seq)
        elif not event.fleeting:
            self._other_lost = True

    def _gap(self, reason: str, out: list[Delivery]) -> None:
        self._other_lost = False
        self._deliver(Gap(user=self.user, channel=self.channel, after=self.seq, reason=reason), out)

    def _settle(self, out: list[Delivery], begun: int) -> None:
        """The end of a batch: its last delivery may carry the new offset, those before it the old one."""
        self.calm = not (
            self._ahead or self._held or self._waiting or self._owing or self._recovering or self.stopped
        ) and (self.seq is None or self.seq >= self._high)
        if not self.calm and self._heap and not self._held:
            self._heap.clear()
        safe = self.top
        if safe is not None and (self._held or self._orphans):
            waiting = [event for event, _ in self._held.values()]
            waiting += [event for events in self._orphans.values() for event in events]
            safe = min([safe, *(event.offset - 1 for event in waiting if event.offset is not None)])
        self._safe = safe
        if len(out) > begun and not self._owing:
            event, seq, _, _ = out[-1]
            out[-1] = (event, seq, safe, self.epoch)
