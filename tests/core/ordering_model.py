"""A server's channel and the wire to a listener, for the tests of `core.ordering`: what it has, what it publishes, what
gets lost on the way, and what must come out of an `Order` nevertheless."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from chatsdk.core.events import Event
from chatsdk.core.ordering import Delivery, Fetch, Locate, Order, Recover
from chatsdk.core.protocols.outputs import Position
from chatsdk.core.realtime_events import (
    ChangesMissed,
    Gap,
    MessageDeleted,
    MessageReceived,
    RealtimeEvent,
    TypingStarted,
)


def new(seq: int | None, offset: int | None = None, name: str | None = None) -> MessageReceived:
    """A message's event; its id is made from its seq."""
    return MessageReceived("bot", "c", {"seq": seq}, message_id=name or f"m{seq}", seq=seq, offset=offset)


def deleted(seq: int, offset: int | None = None) -> MessageDeleted:
    """The deletion of the message with that seq."""
    return MessageDeleted("bot", "c", {"deleted": seq}, message_id=f"m{seq}", offset=offset)


def typing(offset: int | None = None) -> TypingStarted:
    """Something without message and seq."""
    return TypingStarted("bot", "c", {"typing": offset}, offset=offset)


def shown(out: list[Delivery]) -> list[str]:
    """Deliveries in short: "5", "4 late", "-4" (deleted), "typing", "gap"."""
    return [_shown(event) for event, *_ in out]


def _shown(event: Event) -> str:
    if isinstance(event, MessageReceived):
        return f"{event.seq} late" if event.late else str(event.seq)
    if isinstance(event, MessageDeleted):
        return f"-{(event.message_id or '')[1:]}"
    return {TypingStarted: "typing", Gap: "gap", ChangesMissed: "changes"}[type(event)]


@dataclass
class Server:
    """A channel at the server. `recovery`: it keeps its publications and gives them again."""

    recovery: bool = True
    epoch: int = 1
    seq: int = 0
    listed: dict[int, str] = field(default_factory=dict)  # what since_seq shows
    outbox: list[tuple[str, int]] = field(default_factory=list)  # committed, not published
    history: list[tuple[int, str, int]] = field(default_factory=list)  # (offset, kind, seq), this epoch
    published: set[tuple[str, int]] = field(default_factory=set)

    def send(self, kind: str = "new") -> None:
        """Commit a message, a thread "reply" (which no list shows), or nothing but a typing signal."""
        if kind != "typing":
            self.seq += 1
            if kind == "new":
                self.listed[self.seq] = f"m{self.seq}"
        self.outbox.append((kind, self.seq))

    def delete(self, seq: int) -> None:
        self.outbox.append(("deleted", seq))

    def publish(self, at: int) -> RealtimeEvent:
        """One of what waits, in any order."""
        kind, seq = self.outbox.pop(at % len(self.outbox))
        self.published.add((kind, seq))
        offset = len(self.history) + 1
        self.history.append((offset, kind, seq))
        return self.event(offset, kind, seq)

    def event(self, offset: int, kind: str, seq: int) -> RealtimeEvent:
        if kind == "typing":
            return typing(offset)
        return deleted(seq, offset) if kind == "deleted" else new(seq, offset)

    def position(self) -> Position | None:
        return Position(len(self.history), str(self.epoch)) if self.recovery else None

    def reset(self) -> None:
        """Lose the history, as a restart does."""
        self.epoch += 1
        self.history = []


class Listener:
    """One order, fed by a wire that loses, repeats and disorders."""

    def __init__(self, server: Server, order: Order) -> None:
        self.server = server
        self.order = order
        self.now = 0.0
        self.connected = False
        self.polled = False
        self.wire: list[RealtimeEvent] = []
        self.questions: list[tuple[int, list[MessageReceived], int]] = []  # answers that are under way
        self.out: list[Delivery] = []
        self.delivered: list[tuple[str, int]] = []
        self.gaps = 0
        self.wrong: list[str] = []
        self.start = server.seq
        self.base = 0
        self.given_up: set[int] = set()
        self.before = order.mark()
        self.refusing: int | None = None  # from that delivery of the next batch on

    # ---- what may happen

    def join(self) -> None:
        order, server, asked = self.order, self.server, self.order.position()
        there = server.position()
        self.connected, self.wire = True, []
        if asked and there and asked.epoch == there.epoch and asked.offset <= there.offset:
            order.rejoined(True, asked, self.now, self.out)
            self.wire = [server.event(*kept) for kept in server.history if kept[0] > asked.offset]
        else:
            self.base = there.offset if there else 0  # edits and replies below are lost for good
            order.rejoined(False, there, self.now, self.out)
        self.after()

    def cut(self) -> None:
        self.connected, self.wire, self.polled = False, [], False

    def poll(self) -> None:
        """Nothing is heard, and HTTP is asked."""
        order = self.order
        if order.seq is None:
            self.start = self.server.seq  # it begins now
        order.check(self.now)
        if not self.polled:
            self.polled = True
            order.unheard(self.out)
        self.after()

    def forbid(self) -> None:
        """The oldest question that is under way gets a no that is not believed."""
        turn, _, _ = self.questions.pop(0)
        self.order.unasked(turn, self.now, self.out)
        self.after()

    def publish(self, at: int) -> None:
        event = self.server.publish(at)
        if self.connected:
            self.wire.append(event)

    def receive(self, count: int) -> None:
        batch, self.wire = self.wire[:count], self.wire[count:]
        self.given_up |= self.order._missing
        self.order.take(batch, self.now, self.out)
        self.after()

    def answer(self, fail: bool = False) -> None:
        """The oldest question that is under way is answered."""
        turn, events, newest = self.questions.pop(0)
        if fail:
            self.order.unfilled(turn, "not allowed", self.now, self.out)
        else:
            half = len(events) // 2
            if half:
                self.order.filled(turn, events[:half], True, newest, self.now, self.out)
            self.order.filled(turn, events[half:], False, newest, self.now, self.out)
        self.after()

    def drain(self) -> None:
        """The handlers have caught up."""
        self.order.drained(self.now, self.out)
        self.after()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = self.order.next_due()
        if due is not None and due <= self.now:
            self.order.due(self.now, self.out)
            self.after()

    def calm_down(self) -> None:
        """Everything that is under way arrives, and the quiet check finds the rest."""
        self.refusing = None
        for _ in range(50):
            self.drain()
            if not self.connected:
                self.join()
            while self.server.outbox:
                self.publish(0)
            self.receive(len(self.wire))
            while self.questions:
                self.answer()
            self.pass_time(1.0)
        self.order.check(self.now)
        self.after()
        while self.questions:
            self.answer()

    # ---- what is looked at each time

    def after(self) -> None:
        out, self.out = self.out, []
        if self.refusing is not None and out:
            room = min(self.refusing, len(out) - 1)
            self.refusing = None
            self.order.refused(out[room:], out[room - 1][1:] if room else self.before)
            out = out[:room]
        for event, seq, offset, epoch in out:
            self.see(event)
            self.judge(seq, offset, epoch)
        self.before = self.order.mark()
        wishes, self.order.wishes = self.order.wishes, []
        for wish in wishes:
            if isinstance(wish, Fetch):
                listed = [new(seq) for seq in sorted(self.server.listed) if seq > wish.after]
                self.questions.append((wish.turn, listed, self.server.seq))  # as of now; it arrives later
            elif isinstance(wish, Locate):
                self.order.located(self.server.seq, self.now, self.out)
            else:
                assert isinstance(wish, Recover)
                if self.connected:
                    self.join()

    def see(self, event: Event) -> None:
        if isinstance(event, Gap):
            self.gaps += 1
        elif isinstance(event, MessageReceived):
            assert event.seq is not None
            if ("new", event.seq) in self.delivered:
                self.wrong.append(f"{event.seq} twice")
            if not event.late and any(kind == "new" and seq > event.seq for kind, seq in self.delivered):
                self.wrong.append(f"{event.seq} out of order")
            self.delivered.append(("new", event.seq))
        elif isinstance(event, MessageDeleted):
            self.delivered.append(("deleted", int((event.message_id or "")[1:])))

    def judge(self, seq: int | None, offset: int | None, epoch: str) -> None:
        """A mark is true: who begins there misses nothing."""
        have = set(self.delivered)
        if seq is not None and self.gaps == 0:
            missing = [each for each in self.server.listed if self.start < each <= seq and ("new", each) not in have]
            if missing:
                self.wrong.append(f"mark {seq} is above {missing}")
        if offset is not None and self.gaps == 0 and epoch == str(self.server.epoch):
            for place, kind, number in self.server.history:
                told = kind == "typing" or (("new" if kind == "reply" else kind), number) in have
                lost = kind != "new" and (place <= self.base or place in self.given_up | self.order._missing)
                if place <= offset and number > self.start and not told and not lost:
                    self.wrong.append(f"mark offset {offset} is above {kind} {number} at {place}")

    def verdict(self) -> list[str]:
        """What is wrong, after `calm_down`."""
        have = set(self.delivered)
        missing = [seq for seq in self.server.listed if seq > self.start and ("new", seq) not in have]
        return self.wrong + ([f"missing {missing}"] if missing and not self.gaps else [])

    def waiting(self) -> int:
        order = self.order
        return len(order._ahead) + len(order._held) + sum(map(len, order._orphans.values()))


def play(listener: Listener, random: Random, steps: int) -> list[str]:
    """A random story; what came out wrong."""
    server = listener.server
    if random.random() < 0.8:
        listener.join()
    else:
        listener.poll()
    for _ in range(steps):
        move = random.random()
        if move < 0.35:
            server.send(random.choice(["new", "new", "new", "reply", "typing"]))
        elif move < 0.40 and server.listed:
            server.delete(random.choice(list(server.listed)))
        elif move < 0.65 and server.outbox:
            listener.publish(random.choice([0, 0, 0, random.randrange(5)]))
        elif move < 0.85:
            wire = listener.wire
            if wire and random.random() < 0.1:
                del wire[random.randrange(len(wire))]
            if wire and random.random() < 0.1:
                wire.insert(random.randrange(len(wire) + 1), random.choice(wire))
            if len(wire) > 1 and random.random() < 0.1:
                random.shuffle(wire)
            listener.receive(random.randint(1, 5))
        elif move < 0.90:
            listener.pass_time(random.choice([0.05, 0.2, 0.4]))
        elif move < 0.95 and listener.questions:
            listener.answer()
        elif move < 0.97:
            listener.cut()
        elif move < 0.975:
            listener.refusing = random.randrange(3)
        elif move < 0.985:
            listener.drain()
        elif not listener.connected:
            if random.random() < 0.3:
                server.reset()
            listener.join()
        if not listener.connected and random.random() < 0.1:
            if listener.questions and random.random() < 0.2:
                listener.forbid()
            else:
                listener.poll()
        if listener.waiting() > 3 * 50 + 200:
            listener.wrong.append(f"{listener.waiting()} wait")
    listener.calm_down()
    return listener.verdict()
