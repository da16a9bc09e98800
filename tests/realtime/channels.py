"""A chat server's channels as the subscriptions see them, and a stage to play them on: real order, dispatch, cursors
and backend; the protocol, the HTTP side and the time are played by hand."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from chatsdk.core.chatsdk_backend import ChatSDKBackend
from chatsdk.core.events import Event
from chatsdk.core.exchange import Call, Request, Response, status_error
from chatsdk.core.ordering import Delivery
from chatsdk.core.protocols.outputs import Close, Opened, Output, Position, Published, Subscribed
from chatsdk.core.realtime_events import Gap, MessageReceived, RealtimeEvent, SubscriptionStateChanged
from chatsdk.core.tokens import Secret
from chatsdk.realtime.cursors import Cursors
from chatsdk.realtime.dispatch import Dispatch, Lane
from chatsdk.realtime.subscription import ChannelLane
from chatsdk.realtime.subscriptions import Subscriptions

APP = "00000000-0000-4000-8000-00000000000a"
WAIT = 10.0
"""Seconds until a test gives up waiting."""


def channel_id(number: int) -> str:
    """The id of a test's channel."""
    return str(UUID(int=number, version=4))


def stream_name(channel: str) -> str:
    return f"chat:{APP}:{channel}"


def message_json(channel: str, seq: int, text: str = "") -> dict[str, Any]:
    """A message as the server tells it."""
    return {
        "id": str(UUID(int=(UUID(channel).int << 20 | seq) % (1 << 128), version=4)),
        "cid": channel,
        "seq": seq,
        "text": text or f"text {seq}",
        "type": "regular",
        "createdAt": f"2026-11-22T10:{seq // 60000 % 60:02}:{seq // 1000 % 60:02}.{seq % 1000:03}Z",
        "user": {"id": "alice", "name": "Alice"},
        "userId": "alice",
    }


def message_new(channel: str, seq: int, offset: int | None = None, epoch: str | None = None) -> Published:
    """Its publication."""
    data = {"type": "message.new", "payload": {"channelId": channel, "message": message_json(channel, seq)}}
    return Published(stream_name(channel), data, offset, epoch)


def message_deleted(channel: str, seq: int, offset: int | None = None) -> Published:
    payload = {"channelId": channel, "messageId": message_json(channel, seq)["id"]}
    return Published(stream_name(channel), {"type": "message.deleted", "payload": payload}, offset)


class Chat:
    """The HTTP side. `messages`: by channel, what since_seq shows."""

    def __init__(self) -> None:
        self.messages: dict[str, list[dict[str, Any]]] = {}
        self.newest: dict[str, int] = {}
        self.requests: list[Request] = []
        self.refusals: deque[tuple[str, int, Mapping[str, str]]] = deque()  # (operation, status, headers), each once
        self.always: dict[str, int] = {}  # operation -> status

    def send(self, channel: str, *seqs: int) -> None:
        """Store messages."""
        self.messages.setdefault(channel, []).extend(message_json(channel, seq) for seq in seqs)
        self.newest[channel] = max([self.newest.get(channel, 0), *seqs])

    def count(self, operation: str) -> int:
        return sum(request.operation == operation for request in self.requests)

    def ask(self, call: Call[Any]) -> Any:
        """Do a call."""
        request = call.request
        self.requests.append(request)
        for refusal in self.refusals:
            if refusal[0] == request.operation:
                self.refusals.remove(refusal)
                raise status_error(Response(status=refusal[1], headers=refusal[2]), request_id="r", now=0.0)
        if request.operation in self.always:
            raise status_error(Response(status=self.always[request.operation]), request_id="r", now=0.0)
        return call.parse(Response(status=200, body=self.answer(request)))

    def answer(self, request: Request) -> Any:
        if request.operation == "realtime.subscription_token":
            return {"token": f"token-{len(self.requests)}", "expiresIn": 900}
        assert request.operation == "messages.list", request
        assert request.fresh, "a backfill must not be answered from a cache"
        channel = urlsplit(request.path).path.split("/")[3]
        return self.page(channel, request.query)

    def page(self, channel: str, query: Mapping[str, str]) -> dict[str, Any]:
        """As the server does: `since_seq` by seq, else by time, the newest `limit`."""
        listed = sorted(self.messages.get(channel, []), key=lambda each: int(each["seq"]))
        limit = int(query["limit"])
        if "since_seq" in query:
            found = [each for each in listed if int(each["seq"]) > int(query["since_seq"])][:limit]
        else:
            if "before" in query:
                ids = [each["id"] for each in listed]
                listed = listed[: ids.index(query["before"])]
            found = listed[-limit:]
        return {"messages": found, "maxSeq": str(self.newest.get(channel, 0)), "hasMore": len(found) == limit}


class Errands:
    """Errands that are run when the test says so, in its own thread."""

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], None]] = deque()

    def run(
        self,
        work: Callable[[], Any],
        answered: Callable[[Any], object],
        failed: Callable[[BaseException], object],
        *,
        quick: bool = False,
    ) -> bool:
        def errand() -> None:
            try:
                result = work()
            except Exception as error:
                failed(error)
            else:
                answered(result)

        self.waiting.append(errand)
        return True


class Protocol:
    """What was asked of the realtime server."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Position | None]] = []
        self.renewed: list[str | None] = []
        self.left: list[str] = []
        self.done: list[str] = []

    def subscribe(self, stream: str, token: Secret | None, position: Position | None, now: float) -> list[Output]:
        self.done.append("subscribe")
        self.asked.append((stream, "" if token is None else token.reveal(), position))
        return []

    def unsubscribe(self, stream: str, now: float) -> list[Output]:
        self.done.append("unsubscribe")
        self.left.append(stream)
        return []

    def renew(self, stream: str | None, token: Secret, now: float) -> list[Output]:
        self.renewed.append(stream)
        return []


class Clock:
    """Time that stands still."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_800_000_000.0 + self.now

    def wait(self, event: Any, timeout: float) -> bool:
        raise AssertionError("nothing here waits")


class Stage:
    """Subscriptions, and everything around them."""

    def __init__(self, *, bound: int = 1000, cursors: Cursors | None = None, **options: Any) -> None:
        self.chat = Chat()
        self.clock = Clock()
        self.errands = Errands()
        self.protocol = Protocol()
        self.cursors = cursors or Cursors(None)
        self.seen: list[Event] = []
        self._changed = threading.Condition()
        self.gate = threading.Event()  # handlers wait for it
        self.gate.set()
        self.dispatch: Dispatch[Delivery] = Dispatch(
            self._handle, done=self._done, drained=self._drained, bound=bound, linger=0.5
        )
        self.connected = False
        self.posted: deque[Any] = deque()
        options = {"listen_own": False, "claims": lambda: {"app_id": APP}, "random": lambda: 0.5, **options}
        self.subscriptions = Subscriptions(
            "bot",
            ChatSDKBackend(),
            post=self.posted.append,
            ask=self.chat.ask,
            dispatch=self.dispatch,
            errands=self.errands,  # type: ignore[arg-type]
            cursors=self.cursors,
            clock=self.clock,
            **options,
        )

    # ---- handlers

    def _handle(self, delivery: Delivery) -> None:
        self.gate.wait(WAIT)
        with self._changed:
            self.seen.append(delivery[0])
            self._changed.notify_all()

    def _done(self, lane: Lane[Delivery], delivery: Delivery) -> None:
        _, seq, offset, epoch = delivery
        if seq is not None or offset is not None:
            self.cursors.set(lane.key, seq, offset, epoch or None)

    @staticmethod
    def _drained(lane: Lane[Delivery]) -> None:
        assert isinstance(lane, ChannelLane)
        lane.drained(lane.owner)

    def wait_for(self, true: Callable[[], object]) -> None:
        """Until the handlers have seen enough."""
        end = time.monotonic() + WAIT
        with self._changed:
            while not true():
                assert time.monotonic() < end, f"waited in vain; seen: {self.shown()[-20:]}"
                self._changed.wait(0.02)
                if self.posted:  # a lane was drained
                    self._changed.release()
                    try:
                        self.settle()
                    finally:
                        self._changed.acquire()

    def shown(self, channel: str | None = None) -> list[str]:
        """What handlers saw: seqs of messages, names of other events, states."""
        shown = []
        for event in self.seen:
            if channel is not None and getattr(event, "channel", None) != channel:
                continue
            if isinstance(event, MessageReceived):
                shown.append(f"{event.seq}{' late' if event.late else ''}")
            elif isinstance(event, SubscriptionStateChanged):
                shown.append(event.state)
            else:
                shown.append(event.NAME)
        return shown

    def expect(self, *shown: str, channel: str | None = None) -> None:
        """The handlers see exactly this."""
        self.wait_for(lambda: len(self.shown(channel)) >= len(shown))
        assert self.shown(channel) == list(shown)

    def events(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.seen if isinstance(event, kind)]

    def gaps(self) -> list[Gap]:
        return self.events(Gap)

    def received(self) -> list[RealtimeEvent]:
        return self.events(RealtimeEvent)

    # ---- the thread that reads

    def take(self, *outputs: Output) -> None:
        self.subscriptions.take(outputs, self.clock.now)
        self.settle()

    def settle(self, errands: bool = True) -> None:
        """Until there is nothing to do right now."""
        while True:
            due = self.subscriptions.next_due()
            if self.posted or (due is not None and due <= self.clock.now):
                self.posted.clear()
                if self.connected:
                    self.subscriptions.work(self.protocol, self.clock.now)  # type: ignore[arg-type]
                else:
                    self.subscriptions.work_without(self.clock.now)
            elif errands and self.errands.waiting:
                self.errands.waiting.popleft()()
            else:
                return

    def pass_time(self, seconds: float, step: float = 0.05) -> None:
        """Let time go by."""
        end = self.clock.now + seconds
        while self.clock.now < end:
            due = self.subscriptions.next_due()
            soonest = self.clock.now + step if due is None else max(due, self.clock.now + step)
            self.clock.now = min(end, soonest)
            self.settle()

    def open(self) -> None:
        self.connected = True
        self.take(Opened("c"))

    def lose(self) -> None:
        self.connected = False
        self.take(Close(1006, "gone"))

    def begin_blocked(self, channel: str, *seqs: int, **options: Any) -> None:
        """A channel with so many messages in it, wanted while no websocket can be had."""
        self.chat.send(channel, *seqs)
        self.subscriptions.subscribe(channel, **options)
        self.settle()

    def join(self, channel: str, *, offset: int | None = None, epoch: str = "e", recovered: bool = False) -> None:
        """The server's yes to the last wish for that channel."""
        position = None if offset is None else Position(offset, epoch)
        self.take(Subscribed(stream_name(channel), recovered, position, recovered))

    def begin(self, channel: str, *seqs: int) -> None:
        """A channel with so many messages in it, heard."""
        self.chat.send(channel, *seqs)
        self.subscriptions.subscribe(channel)
        if not self.connected:
            self.open()
        self.settle()
        self.join(channel, offset=len(seqs))

    def close(self) -> None:
        self.gate.set()
        self.dispatch.close(WAIT)
