"""Dedup: one question, one call; never an old answer after a change, never a message less."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from chatsdk.core.errors import ChatError, DeadlineExceeded, NotFound, NotSentError, OutcomeUnknownError
from chatsdk.core.exchange import Request, Response
from chatsdk.middleware import dedup as module
from chatsdk.middleware.dedup import Dedup, chatsdk_middleware
from chatsdk.plugin import Stage
from tests.pipeline.kit import LIMIT, Client, FakeClock, Script, edit, read, send
from tests.waiting import eventually


def make(clock: Any = None, **settings: Any) -> tuple[Dedup, Any]:
    clock = clock or FakeClock()
    layer = chatsdk_middleware(Client(clock, **settings))
    assert layer.stage is Stage.DEDUP
    return layer.call, clock  # type: ignore[return-value]


class Slow:
    """The end of a chain that answers when it is told to: each call gets a response of its own, or raises."""

    def __init__(self, outcome: BaseException | None = None) -> None:
        self.outcome = outcome
        self.gate = threading.Event()
        self.inside = threading.Event()
        self.seen: list[Request] = []

    def __call__(self, request: Request) -> Response:
        self.seen.append(request)
        number = len(self.seen)
        self.inside.set()
        assert self.gate.wait(LIMIT)
        if self.outcome is not None:
            raise self.outcome
        return Response(status=200, body={"call": number})


class Callers:
    """Threads that make calls, and what each got."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.threads: list[threading.Thread] = []

    def start(self, call: Callable[[], Any]) -> None:
        def run() -> None:
            try:
                self.results.append(call())
            except BaseException as error:
                self.results.append(error)

        thread = threading.Thread(target=run)
        self.threads.append(thread)
        thread.start()

    def join(self) -> list[Any]:
        for thread in self.threads:
            thread.join(LIMIT)
            assert not thread.is_alive()
        return self.results


def waiting(dedup: Dedup, number: int) -> Callable[[], bool]:
    """Whether so many callers wait for somebody's flight."""

    def check() -> bool:
        flights = [*dedup._reads.values(), *dedup._writes.values()]
        conditions: list[Any] = [getattr(flight.done, "_cond", None) for flight in flights]
        return sum(len(condition._waiters) for condition in conditions if condition) >= number

    return check


# ---- the cache


@pytest.mark.parametrize(("operation", "seconds"), [("channels.get", 30.0), ("messages.list", 5.0)])
def test_reads_are_cached_by_operation(operation: str, seconds: float) -> None:
    """Channels for 30 s, messages for 5; then they are asked for again."""
    dedup, clock = make()
    end = Script(Response(status=200, body={"n": 1}), Response(status=200, body={"n": 2}))
    assert dedup(read(operation), end).from_cache is False
    clock.now += seconds - 0.01
    cached = dedup(read(operation), end)
    assert (cached.body, cached.from_cache) == ({"n": 1}, True)
    clock.now += 0.02
    assert dedup(read(operation), end).body == {"n": 2}


@pytest.mark.parametrize("operation", ["health", "users.me", "search", "presence.get"])
def test_other_reads_are_not_cached(operation: str) -> None:
    """A health check that came from a cache would prove nothing."""
    dedup, _ = make()
    end = Script(Response(status=200))
    dedup(read(operation), end)
    dedup(read(operation), end)
    assert len(end.seen) == 2


def test_ttl_settings_are_obeyed_up_to_five_minutes() -> None:
    """0 turns the cache off; nothing lives longer than 5 minutes."""
    off, _ = make(dedup_message_ttl=0.0)
    end = Script(Response(status=200))
    off(read(), end)
    off(read(), end)
    assert len(end.seen) == 2
    long, clock = make(dedup_message_ttl=86400.0)
    long(read(), end)
    clock.now += 299
    long(read(), end)
    assert len(end.seen) == 3
    clock.now += 2
    long(read(), end)
    assert len(end.seen) == 4


@pytest.mark.parametrize(
    "other",
    [
        {"user": "bob"},
        {"path": "/api/y"},
        {"query": {"limit": "5"}},
        {"headers": {"X-Tenant": "2"}},
        {"method": "HEAD"},
    ],
)
def test_different_questions_have_different_answers(other: dict[str, Any]) -> None:
    """Another user, path, query, header or method is another question."""
    dedup, _ = make()
    end = Script(Response(status=200))
    dedup(read(), end)
    dedup(read(**other), end)
    assert len(end.seen) == 2


def test_order_of_the_query_does_not_matter() -> None:
    """a=1&b=2 is b=2&a=1."""
    dedup, _ = make()
    end = Script(Response(status=200))
    dedup(read(query={"a": "1", "b": "2"}), end)
    dedup(read(query={"b": "2", "a": "1"}), end)
    assert len(end.seen) == 1


def test_fresh_goes_past_and_renews() -> None:
    """Who asks for a fresh answer gets one, and so does who asks next."""
    dedup, _ = make()
    end = Script(Response(status=200, body=1), Response(status=200, body=2))
    dedup(read(), end)
    assert dedup(read(fresh=True), end).body == 2
    assert dedup(read(), end).body == 2
    assert len(end.seen) == 2


def test_errors_are_not_cached() -> None:
    """The next call asks again."""
    dedup, _ = make()
    end = Script(NotFound(status=404), Response(status=200))
    with pytest.raises(NotFound):
        dedup(read(), end)
    assert dedup(read(), end).status == 200


def test_invalidate_by_operation() -> None:
    """`channels.*` forgets channels and leaves messages; without a pattern everything goes."""
    dedup, _ = make()
    end = Script(Response(status=200))
    for operation in ("channels.get", "channels.list", "messages.list"):
        dedup(read(operation, path=f"/{operation}"), end)
    assert dedup.invalidate("channels.*") == 2
    assert dedup.invalidate("channels.*") == 0
    dedup(read("messages.list", path="/messages.list"), end)
    assert len(end.seen) == 3
    assert dedup.invalidate() == 1


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """By entries and by bytes; what is too large for its share is not kept at all."""
    dedup, _ = make()

    def ask(path: str, size: int) -> None:
        dedup(read(path=path), Script(Response(status=200, headers={"content-length": str(size)})))

    for number in range(module.MAX_ENTRIES + 10):
        ask(f"/{number}", 10)
    assert len(dedup._cache.entries) == module.MAX_ENTRIES
    ask("/big", module.MAX_ENTRY_BYTES + 1)
    ask("/odd", -1)
    for number in range(200):
        ask(f"/large/{number}", module.MAX_ENTRY_BYTES)
    assert dedup._cache.size <= module.MAX_BYTES
    end = Script(Response(status=200))
    dedup(read(path="/big"), end)
    assert len(end.seen) == 1
    dedup.invalidate()
    assert (dedup._cache.size, dedup._cache.by_channel) == (0, {})


# ---- mutations and the cache


@pytest.mark.parametrize(
    "mutation", [send(), send(single_try=True), edit(channel="c"), send(operation="messages.read")]
)
@pytest.mark.parametrize("failure", [None, OutcomeUnknownError(), NotSentError()])
def test_a_mutation_makes_its_channel_forgotten(mutation: Request, failure: ChatError | None) -> None:
    """Also one whose outcome is unknown. Lists that are about no single channel go too, other channels stay."""
    dedup, _ = make()
    end = Script(Response(status=200))
    for channel in ("c", "d", ""):
        dedup(read(channel=channel, path=f"/{channel}"), end)
    try:
        dedup(mutation, Script(failure or Response(status=201)))
    except ChatError as error:
        assert error is failure  # noqa: PT017 - some of them raise, some do not
    for channel in ("c", "d", ""):
        dedup(read(channel=channel, path=f"/{channel}"), end)
    assert [request.channel for request in end.seen[3:]] == ["c", ""]


def test_typing_and_presence_touch_nothing() -> None:
    """They are frequent, and change nothing that is cached."""
    dedup, _ = make()
    end = Script(Response(status=200))
    dedup(read(channel="c"), end)
    for operation in ("typing", "presence.set"):
        dedup(edit(operation=operation, channel="c"), end)
    assert dedup(read(channel="c"), end).from_cache is True


def test_a_read_that_a_mutation_overtook_is_not_kept() -> None:
    """It may be older than the change: neither the cache nor who asks afterwards gets it."""
    dedup, _ = make()
    callers, slow = Callers(), Slow()
    callers.start(lambda: dedup(read(channel="c"), slow))
    assert slow.inside.wait(LIMIT)
    dedup(send(), Script(Response(status=201)))
    later = Script(Response(status=200, body="new"))
    assert dedup(read(channel="c"), later).body == "new"
    slow.gate.set()
    assert callers.join()[0].body == {"call": 1}
    assert dedup(read(channel="c"), later).body == "new"


# ---- in flight


def test_reads_in_flight_share_one_call() -> None:
    """Ten components that ask at once are one request; each gets the answer."""
    dedup, _ = make(clock=Client().clock)
    callers, slow = Callers(), Slow()
    for _ in range(10):
        callers.start(lambda: dedup(read("users.me"), slow))
    eventually(waiting(dedup, 9))
    slow.gate.set()
    results = callers.join()
    assert len(slow.seen) == 1
    assert [response.body for response in results] == [{"call": 1}] * 10
    assert sorted(response.from_cache for response in results) == [False] + [True] * 9


def test_a_read_that_flies_too_long_is_not_waited_for() -> None:
    """After the window (1 s) who asks gets a call of his own."""
    dedup, clock = make()
    callers, slow = Callers(), Slow()
    callers.start(lambda: dedup(read("users.me"), slow))
    assert slow.inside.wait(LIMIT)
    clock.now += 1.01
    assert dedup(read("users.me"), Script(Response(status=200, body="mine"))).body == "mine"
    slow.gate.set()
    callers.join()


def test_a_fresh_read_does_not_join() -> None:
    """It may have to see what happened since the other one began."""
    dedup, _ = make()
    callers, slow = Callers(), Slow()
    callers.start(lambda: dedup(read(), slow))
    assert slow.inside.wait(LIMIT)
    assert dedup(read(fresh=True), Script(Response(status=200, body="mine"))).body == "mine"
    slow.gate.set()
    callers.join()


@pytest.mark.parametrize(
    ("failure", "calls"),
    [(NotFound(status=404), 1), (DeadlineExceeded(), 2), (KeyboardInterrupt(), 2), (ValueError(), 2)],
)
def test_who_shares_a_failing_read(failure: BaseException, calls: int) -> None:
    """An answer of the server is shared; that somebody else had no time or was interrupted is no answer."""
    dedup, _ = make(clock=Client().clock)
    callers, slow = Callers(), Slow(failure)
    callers.start(lambda: dedup(read("users.me"), slow))
    assert slow.inside.wait(LIMIT)
    callers.start(lambda: dedup(read("users.me"), slow))
    eventually(waiting(dedup, 1))
    slow.gate.set()
    results = callers.join()
    assert len(slow.seen) == calls
    assert [type(result) for result in results] == [type(failure)] * 2
    assert (calls == 1) is (results[0] is not results[1])  # a shared error is a copy


def test_waiting_for_another_call_ends_at_the_deadline() -> None:
    """Who shares a call has his own deadline."""
    dedup, clock = make(clock=Client().clock)
    callers, slow = Callers(), Slow()
    callers.start(lambda: dedup(read("users.me"), slow))
    assert slow.inside.wait(LIMIT)
    with pytest.raises(DeadlineExceeded):
        dedup(read("users.me", deadline=clock.monotonic() + 0.05), slow)
    slow.gate.set()
    callers.join()


def like(**facts: Any) -> Request:
    return edit(**{"operation": "messages.react", "channel": "c", "repeatable": True, "body": {"emoji": "👍"}, **facts})


def test_double_tap_shares_one_call_and_one_result() -> None:
    """Two taps on a reaction are one request, and both succeed."""
    dedup, _ = make(clock=Client().clock)
    callers, slow = Callers(), Slow()
    for _ in range(3):
        callers.start(lambda: dedup(like(), slow))
    eventually(waiting(dedup, 2))
    slow.gate.set()
    assert [response.status for response in callers.join()] == [200, 200, 200]
    assert len(slow.seen) == 1


def test_double_tap_shares_the_error_too() -> None:
    """Each caller gets an error of his own, that says the same."""
    dedup, _ = make(clock=Client().clock)
    callers, slow = Callers(), Slow(OutcomeUnknownError("broke"))
    callers.start(lambda: dedup(like(), slow))
    assert slow.inside.wait(LIMIT)
    callers.start(lambda: dedup(like(), slow))
    eventually(waiting(dedup, 1))
    slow.gate.set()
    one, two = callers.join()
    assert (type(one), type(two), one.message, two.message) == (
        OutcomeUnknownError,
        OutcomeUnknownError,
        "broke",
        "broke",
    )
    assert one is not two
    assert len(slow.seen) == 1


def test_interrupted_mutation_leaves_the_other_caller_uncertain() -> None:
    """A Ctrl-C in one thread is not the other's; but nobody knows what happened."""
    dedup, _ = make(clock=Client().clock)
    callers, slow = Callers(), Slow(KeyboardInterrupt())
    callers.start(lambda: dedup(like(), slow))
    assert slow.inside.wait(LIMIT)
    callers.start(lambda: dedup(like(), slow))
    eventually(waiting(dedup, 1))
    slow.gate.set()
    assert sorted(type(result).__name__ for result in callers.join()) == ["KeyboardInterrupt", "OutcomeUnknownError"]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (send(), send(key="k2", body={"text": "hello", "clientMsgId": "k2"})),
        (edit(channel="c"), edit(channel="c")),
        (send(single_try=True), send(single_try=True)),
        (like(), like(user="bob")),
        (like(), like(body={"emoji": "❤"})),
        (like(), like(path="/api/other")),
    ],
    ids=["two messages", "not repeatable", "outbox rows", "two users", "two emoji", "two messages' reactions"],
)
def test_what_is_not_the_same_is_not_shared(first: Request, second: Request) -> None:
    """Two sends with different keys are two messages, whatever they say; an edit twice is two edits."""
    dedup, _ = make(clock=Client().clock)
    callers, slow = Callers(), Slow()
    callers.start(lambda: dedup(first, slow))
    assert slow.inside.wait(LIMIT)
    callers.start(lambda: dedup(second, slow))
    eventually(lambda: len(slow.seen) == 2)
    slow.gate.set()
    assert len(callers.join()) == 2


@pytest.mark.parametrize("between", [like(method="DELETE"), edit(channel="c")], ids=["unlike", "edit"])
def test_like_unlike_like_are_three_calls(between: Request) -> None:
    """The last one must not share the first one's call, which went out before the other: it would end unliked."""
    dedup, _ = make(clock=Client().clock)
    callers, slow = Callers(), Slow()
    for request in (like(), between, like()):
        slow.inside.clear()
        callers.start(partial(dedup, request, slow))
        assert slow.inside.wait(LIMIT)
    slow.gate.set()
    callers.join()
    assert len(slow.seen) == 3


def test_many_threads_never_see_an_answer_that_is_older_than_their_write() -> None:
    """Writers raise a number and read it back, over one cache: what they read is never lower than what they wrote."""
    dedup, _ = make(clock=Client().clock)
    stored, lock, stale = [0], threading.Lock(), []

    def server(request: Request) -> Response:
        with lock:
            if not request.is_read:
                stored[0] += 1
            return Response(status=200, body=stored[0])

    def run(user: str) -> None:
        for _ in range(300):
            wrote = dedup(edit(channel="c", user=user), server).body
            if dedup(read(channel="c"), server).body < wrote:
                stale.append(wrote)

    threads = [threading.Thread(target=run, args=(f"u{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stale == []
