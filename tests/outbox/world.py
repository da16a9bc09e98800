"""A chat server, a backend and an outbox in one thread and in simulated time, for the tests of delivery."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any

from chatsdk.core import errors
from chatsdk.core.events import Event
from chatsdk.core.exchange import Call, Request, Response, status_error
from chatsdk.core.identity import uuid7
from chatsdk.core.models import Health, Message
from chatsdk.core.settings import Settings
from chatsdk.core.store import Entry, Row, State, Stats
from chatsdk.middleware.breaker import Breaker
from chatsdk.outbox.worker import Turn, Worker
from chatsdk.resilience.circuits import Circuits
from chatsdk.testing.clock import FakeClock
from chatsdk.testing.memory_store import MemoryStore

Fault = Callable[[Request], "Response | Exception | None"]
"""What goes wrong with a request: an answer, an error, or None (nothing)."""


def a_request(channel: str = "general", text: str = "hello", *, user: str = "alice", key: str = "") -> Request:
    """A message as `FakeBackend.send_message` makes it."""
    return FakeBackend().send_message(user, channel, text, key=key or uuid7(0, os.urandom(10)))


def an_error(status: int, *, retry_after: float | None = None) -> errors.StatusError:
    """What the pipeline raises for an answer."""
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return status_error(Response(status=status, headers=headers), request_id="r", now=0.0)


class FakeBackend:
    """As much of a backend as delivery needs."""

    name = "fake"

    def send_message(self, user: str, channel: str, text: str, *, key: str) -> Request:
        return Request(
            operation="messages.send",
            method="POST",
            path=f"/channels/{channel}/messages",
            body={"text": text, "clientMsgId": key},
            user=user,
            channel=channel,
            key=key,
            correlation_id=f"c-{key}",
        )

    def sent_message(self, request: Request, response: Response) -> Message:
        if not isinstance(response.body, dict) or response.body.get("id") != request.key:
            raise errors.InvalidResponseError("not about this message")
        return Message(id=response.body["id"], channel_id=request.channel, seq=response.body.get("seq"))

    def settle(self, request: Request) -> Call[Message]:
        question = Request(
            operation="messages.get",
            method="GET",
            path=f"/channels/{request.channel}/messages/{request.key}",
            user=request.user,
            channel=request.channel,
        )
        return Call(question, lambda response: self.sent_message(request, response))

    def health(self) -> Call[Health]:
        return Call(
            Request(operation="health", method="GET", path="/health"),
            lambda response: Health(status=response.body["status"]),
        )


class FakeServer:
    """Keeps messages by key, once, in the order in which they came; each request takes `latency` seconds."""

    def __init__(self, clock: FakeClock, latency: float = 0.03) -> None:
        self.clock = clock
        self.latency = latency
        self.faults: list[Fault] = []  # before the request is heard
        self.reply_lost: Callable[[Request], bool] = lambda request: False
        self.messages: dict[str, int] = {}
        self.log: list[tuple[str, str, str]] = []  # user, channel, key
        self.asked: list[Request] = []
        self.last_success: float | None = None

    def __call__(self, request: Request) -> Response:
        self.asked.append(request)
        self.clock.advance(self.latency)
        for fault in self.faults:
            wrong = fault(request)
            if isinstance(wrong, Exception):
                raise wrong
            if wrong is not None:
                return wrong
        response = self.answer(request)
        if self.reply_lost(request):
            raise errors.DeadlineExceeded("no answer in time")
        if response.status >= 400:
            raise status_error(response, request_id=request.correlation_id, now=self.clock.time())
        self.last_success = self.clock.monotonic()
        return response

    def answer(self, request: Request) -> Response:
        """What a server without faults answers."""
        if request.operation == "health":
            return Response(status=200, body={"status": "ok"})
        if request.operation == "messages.get":
            key = request.path.rpartition("/")[2]
            if key not in self.messages:
                return Response(status=404, body={"error": {"message": "no such message"}})
            return Response(status=200, body={"id": key, "seq": self.messages[key]})
        assert request.key is not None
        if request.key in self.messages:
            return Response(status=200, body={"id": request.key, "seq": self.messages[request.key], "duplicate": True})
        self.messages[request.key] = len(self.messages) + 1
        self.log.append((request.user, request.channel, request.key))
        return Response(status=201, body={"id": request.key, "seq": self.messages[request.key]})

    def tries(self, key: str) -> int:
        """How often a message was sent here."""
        return sum(request.key == key for request in self.asked)


def through_the_breaker(send: Callable[[Request], Response], circuits: Circuits) -> Callable[[Request], Response]:
    """The pipeline as far as delivery in an outage is concerned: the circuit around every try."""
    client: Any = SimpleNamespace(circuits=circuits, clock=circuits._clock, settings=Settings())
    layer = Breaker(client)
    return lambda request: layer(request, send)


class World:
    """A server, a store and a worker that share one clock. Every step checks the books."""

    def __init__(self, *, seed: int = 1, breaker: bool = True, store: Any = None, **options: Any) -> None:
        self.clock = FakeClock()
        self.random = random.Random(seed)
        self.server = FakeServer(self.clock)
        self.store: Any = store or MemoryStore(self.clock)
        self.backend = FakeBackend()
        self.events: list[Event] = []
        self.accepted: list[Row] = []
        self.circuits = Circuits(clock=self.clock)
        self.send = through_the_breaker(self.server, self.circuits) if breaker else self.server
        self.options = options
        self.worker = self.make_worker(self.store)

    def make_worker(self, store: Any, **options: Any) -> Worker:
        """Another process's worker, if `store` is a peer."""
        known: dict[str, Any] = {
            "clock": self.clock,
            "random": self.random.random,
            "emit": self.events.append,
            "last_success": lambda: self.server.last_success,
        }
        backend: Any = self.backend
        return Worker(store, lambda request: self.send(request), backend, **{**known, **self.options, **options})

    def put(self, channel: str = "general", text: str = "hello", *, user: str = "alice", ttl: float = 86400.0) -> Row:
        """Accept a message."""
        key = uuid7(self.clock.time(), self.random.randbytes(10))
        request = self.backend.send_message(user, channel, text, key=key)
        row: Row = self.store.put(Entry(request=request, created_at=self.clock.time(), ttl=ttl)).row
        self.accepted.append(row)
        return row

    def turn(self) -> Turn:
        """One turn now."""
        turn = self.worker.turn(self.clock.time())
        self.check()
        return turn

    def run(self, seconds: float, *, puts: Collection[tuple[float, Callable[[], object]]] = ()) -> None:
        """Let time pass, with turns as they come due; `puts`: what happens after how many seconds."""
        end = self.clock.time() + seconds
        todo = sorted(((self.clock.time() + at, do) for at, do in puts), key=lambda each: each[0])
        while self.clock.time() < end:
            while todo and todo[0][0] <= self.clock.time():
                todo.pop(0)[1]()
            turn = self.turn()
            due = end if turn.next_due is None else turn.next_due
            following = min(due, end, todo[0][0] if todo else end)
            self.clock.advance(max(0.0, following - self.clock.time()))

    def drain(self, limit: float = 7 * 86400.0) -> None:
        """Until nothing waits, for at most `limit` simulated seconds."""
        end = self.clock.time() + limit
        while self.stats.pending:
            assert self.clock.time() < end, f"still waiting: {self.stats}"
            due = self.turn().next_due
            self.clock.advance(max(0.0, (self.clock.time() if due is None else due) - self.clock.time()))

    @property
    def stats(self) -> Stats:
        """The books."""
        stats: Stats = self.store.stats()
        return stats

    def row(self, row: Row) -> Row:
        """A row as it is now."""
        found: Row | None = self.store.get(id=row.id)
        assert found is not None
        return found

    def states(self) -> dict[State, int]:
        """How many of the accepted messages are in which state."""
        states = [self.row(row).state for row in self.accepted]
        return {state: states.count(state) for state in State}

    def heard(self, kind: type[Event]) -> list[Any]:
        """Events of a class."""
        return [event for event in self.events if isinstance(event, kind)]

    def check(self) -> None:
        """accepted = delivered + dead + pending + discarded."""
        stats = self.stats
        assert stats.accepted == stats.delivered + stats.dead + stats.pending + stats.discarded, stats

    def judge(self) -> None:
        """Nothing lost, nothing twice, nothing both delivered and dead, order kept in every lane."""
        self.check()
        assert len(set(self.server.log)) == len(self.server.log)
        there = {key for _, _, key in self.server.log}
        for row in map(self.row, self.accepted):
            assert not (row.state is State.DEAD and row.key in there), f"delivered and dead: {row}"
            assert not (row.state is State.SENT and row.key not in there), f"SENT, but not there: {row}"
        place = {row.key: row.id for row in self.accepted}
        for lane in {row.lane for row in self.accepted}:
            order = [place[key] for user, channel, key in self.server.log if (user, channel) == lane]
            assert order == sorted(order), f"out of order in {lane}"
