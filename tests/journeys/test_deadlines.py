"""`with chat.deadline(...)`: everything inside ends in time, whatever the server does, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from chatsdk import ChatClient, InvalidArgument, Reason, State, StorageError, events
from chatsdk.core.errors import ChatError, ConnectTimeoutError, DeadlineExceeded
from chatsdk.devserver.process import DevServer
from tests.waiting import eventually

LIMIT = 0.4
SLACK = 1.5
"""Seconds: two cores are shared with other tests; what is looked for hangs for ten seconds or for ever."""

MESSAGE = "00000000-0000-7000-8000-00000000000f"

HOLDER = """
import fcntl, os, sys
fcntl.lockf(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX)
print("held", flush=True)
input()
"""

Connect = Callable[..., ChatClient]


@contextmanager
def at_most(seconds: float, at_least: float = 0.0) -> Iterator[None]:
    """What is inside takes that long."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert at_least <= took <= seconds + SLACK, took


CALLS: dict[str, Callable[[ChatClient, str], object]] = {
    "channels.list": lambda chat, channel: chat.channels.list(fresh=True),
    "channels.get": lambda chat, channel: chat.channels.get(channel, fresh=True),
    "channels.create": lambda chat, channel: chat.channels.create("a", key="a key that is long enough"),
    "members": lambda chat, channel: chat.channels.members(channel, fresh=True),
    "messages.list": lambda chat, channel: list(chat.messages.list(channel, fresh=True)),
    "messages.get": lambda chat, channel: chat.messages.get(channel, MESSAGE, fresh=True),
    "edit": lambda chat, channel: chat.messages.edit(channel, MESSAGE, "text"),
    "delete": lambda chat, channel: chat.messages.delete(channel, MESSAGE),
    "react": lambda chat, channel: chat.messages.react(channel, MESSAGE, "+1"),
    "mark_read": lambda chat, channel: chat.messages.mark_read(channel),
    "me": lambda chat, channel: chat.users.me(fresh=True),
    "health": lambda chat, channel: chat.call(chat._backend.health()),
}


def call_all(chat: ChatClient, channel: str) -> dict[str, tuple[str, bool]]:
    """Make each of the calls in a thread of its own and inside a deadline of its own: how it ended, and if in time."""

    def call(name: str) -> tuple[str, bool]:
        began = time.monotonic()
        try:
            with chat.deadline(LIMIT):
                CALLS[name](chat, channel)
        except ChatError as error:
            return type(error).__name__, LIMIT - 0.05 <= time.monotonic() - began <= LIMIT + SLACK
        return "done", False

    with ThreadPoolExecutor(len(CALLS)) as pool:
        return dict(zip(CALLS, pool.map(call, CALLS), strict=True))


def test_calls_end_in_time_when_the_server_is_silent(server: DevServer, connect: Connect, channel: str) -> None:
    """A server that takes the request and never answers: each kind of call is over with its deadline, and says so."""
    server.faults("stall")
    assert call_all(connect(), channel) == dict.fromkeys(CALLS, ("DeadlineExceeded", True))


def test_calls_end_in_time_when_nobody_is_there(connect: Connect, black_hole: str, channel: str) -> None:
    """An address where packets vanish: the same, and it is known that nothing was sent."""
    assert call_all(connect(black_hole), channel) == dict.fromkeys(CALLS, ("ConnectTimeoutError", True))


@pytest.mark.parametrize("kind", ["status", "reset", "drip"])
def test_retries_and_their_waits_are_inside(server: DevServer, connect: Connect, channel: str, kind: str) -> None:
    """Answers of 503, broken connections, one byte at a time: tries and waits together end in time."""
    chat = connect(retry_tries=1000)
    server.faults(kind, **({"status": 503} if kind == "status" else {"interval_s": 0.1} if kind == "drip" else {}))
    with at_most(LIMIT), chat.deadline(LIMIT), pytest.raises(ChatError):
        chat.channels.get(channel, fresh=True)
    chat.circuits.reset("api")


def test_a_whole_series_of_calls_is_inside(server: DevServer, connect: Connect, channel: str) -> None:
    """Not each call, all of them together: here a loop over slow pages, which is cut off in the middle."""
    chat = connect()
    server.faults("latency", ms=200)
    done: list[object] = []

    def page_for_ever() -> None:
        while True:
            done.append(list(chat.messages.list(channel, limit=1, fresh=True)))

    with at_most(LIMIT), chat.deadline(LIMIT) as deadline, pytest.raises(ChatError):
        page_for_ever()
    assert 1 <= len(done) <= 3
    assert deadline.expired
    assert chat.channels.get(channel, fresh=True).id == channel, "the deadline outlived its block"


def test_with_nothing_left_nothing_is_sent(server: DevServer, connect: Connect, channel: str) -> None:
    """A direct call raises at once, by a code of its own, and the server hears nothing; neither is it an outage."""
    chat = connect()
    chat.channels.get(channel)
    before = server.requests()[-1]["number"]
    with chat.deadline(0):
        for name, call in CALLS.items():
            with at_most(0.1), pytest.raises(ConnectTimeoutError) as caught:
                call(chat, channel)
            assert caught.value.code == "deadline", name
            assert not caught.value.maybe_done
        with pytest.raises(ConnectTimeoutError, match="before anything was sent"):
            chat.circuits.call("my-service", lambda: pytest.fail("it was called"))
        assert chat.features.run("mine", lambda: chat.users.me(fresh=True), lambda: "instead") == "instead"
    with pytest.raises(ConnectTimeoutError, match="before anything was sent"):
        chat.call(chat._backend.health(), timeout=0)
    assert server.requests(before) == []
    assert chat.circuits.open_names() == []
    assert chat.health().status == "healthy"


def test_nested_ones_and_time_outs(server: DevServer, connect: Connect, channel: str) -> None:
    """The earliest counts, whether it stands outside, inside, or is the call's own time-out."""
    chat = connect()
    server.faults("stall")
    for outer, inner, own in ((LIMIT, 60, 60), (60, LIMIT, 60), (60, 60, LIMIT), ("ai", LIMIT, "heavy")):
        call = chat._backend.get_channel(chat.user, channel)
        with at_most(LIMIT, LIMIT - 0.05), pytest.raises(DeadlineExceeded):
            with chat.deadline(outer), chat.deadline(inner):  # type: ignore[arg-type]
                chat.call(call, timeout=own, fresh=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), 1e12, True, "2", "slow", None, [1]])
def test_what_is_no_time(connect: Connect, nowhere: str, wrong: Any) -> None:
    """Said at once, for a deadline before it is entered, and named."""
    chat = connect(nowhere)
    with pytest.raises(InvalidArgument, match="quick, standard, heavy, ai"):
        chat.deadline(wrong)
    if wrong is not None:
        with pytest.raises(ValueError, match="must be seconds"):
            chat.call(chat._backend.health(), timeout=wrong)


# ---- sending


def test_a_send_is_accepted_and_waits_no_longer(
    server: DevServer, connect: Connect, channel: str, texts: Callable[[str], list[str]]
) -> None:
    """It is durable all the same, QUEUED when the time is over, and goes out by the client's own threads."""
    chat = connect(timeout=2)
    rule = server.faults("stall", operation="send")
    with at_most(LIMIT), chat.deadline(LIMIT):
        receipt = chat.send(channel, "one", wait=60)
        assert receipt.wait(60) is receipt
        assert receipt.wait() is receipt
    assert receipt.state is State.QUEUED
    with at_most(0.2), chat.deadline(0):
        second = chat.send(channel, "two", wait=60)
        assert second.state is State.QUEUED
        assert chat.outbox.flush(60).queued == 2
    server.clear_faults(rule)
    assert second.wait(20).state is State.SENT, "a thread of ours was bound by a caller's deadline"
    assert texts(channel) == ["one", "two"]


def test_the_outboxs_tries_have_their_own_time(server: DevServer, connect: Connect, channel: str) -> None:
    """A message that was accepted inside a deadline is tried for as long as ever: each try says how long it waits."""
    chat = connect(timeout=4)
    before = server.requests()[-1]["number"]
    with chat.deadline(0.05):
        receipt = chat.send(channel, "text")
    assert receipt.wait(10).state is State.SENT
    (told,) = [each["timeout"] for each in server.requests(before) if each["operation"] == "send"]
    assert 3.5 < float(told) <= 4


def test_one_shot_mode_is_bound_as_well(server: DevServer, connect: Connect, channel: str) -> None:
    """Where the caller's own thread delivers, its deadline bounds the try, the flush, and what the server is told."""
    chat = connect(background=False)
    rule = server.faults("stall", operation="send")
    before = server.requests()[-1]["number"]
    with at_most(LIMIT), chat.deadline(LIMIT):
        receipt = chat.send(channel, "text", wait=60)
        assert chat.outbox.flush(60).sent == 0
        assert chat.outbox.flush().sent == 0
    assert (receipt.state, receipt.reason) == (State.QUEUED, Reason.UNCERTAIN)
    told = [float(each["timeout"]) for each in server.requests(before) if each["operation"] == "send"]
    assert told
    assert max(told) <= LIMIT
    server.clear_faults(rule)
    with chat.deadline(10):
        assert chat.outbox.flush(5).sent == 1


def test_the_outboxs_lock_is_not_waited_for_longer(connect: Connect, nowhere: str, channel: str) -> None:
    """Another process holds the file: not accepted, and that is said when the time is over, not after lock_timeout."""
    chat = connect(nowhere, lock_timeout=30)
    chat.send(channel, "first", wait=0)
    lock = next(Path(chat.settings.state_dir).rglob("write.lock"))
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        results: list[object] = []

        def send(limit: float) -> None:
            began = time.monotonic()
            try:
                with chat.deadline(limit):
                    results.append(chat.send(channel, "text"))
            except StorageError as error:
                results.append((error.code, time.monotonic() - began < limit + SLACK))

        # several, because only one of them waits for the file: the others wait for that one
        threads = [threading.Thread(target=send, args=(limit,)) for limit in (0.0, 0.3, 0.4, 0.5)]
        with at_most(0.5):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
        holder.communicate(b"\n", timeout=10)
    assert results == [("locked", True)] * 4
    assert chat.send(channel, "last", wait=0).state is State.QUEUED
    assert chat.outbox.stats().pending == 2, "what was not accepted is there"


# ---- realtime


def test_waiting_for_realtime_is_inside(connect: Connect, black_hole: str) -> None:
    """`connect(wait=)`, a loop over events and `run_forever` end with the deadline."""
    chat = connect(black_hole)
    with at_most(LIMIT, LIMIT - 0.05), chat.deadline(LIMIT):
        assert chat.connect(wait=60) is False
        assert list(chat.events()) == []
        assert list(chat.events(events.MessageReceived, timeout=60)) == []
        chat.run_forever()
    with at_most(LIMIT, LIMIT - 0.05), chat.deadline(LIMIT):
        chat.run_forever()


def test_a_loop_over_events_that_keep_coming_ends(connect: Connect, nowhere: str) -> None:
    """Also where the next one is always there already."""
    chat = connect(nowhere)
    with at_most(LIMIT, LIMIT - 0.05), chat.deadline(LIMIT), chat.events(events.RetryScheduled) as stream:
        event = events.RetryScheduled(operation="x", attempt=1, delay=0.0, error=None, correlation_id="", key=None)
        chat._parts.emit(event)
        seen = 0
        for _ in stream:
            seen += 1
            chat._parts.emit(event)
    assert seen > 1


def test_close_is_inside(server: DevServer, connect: Connect, channel: str) -> None:
    """A client that is closed inside a deadline does not wait for what is under way any longer; nothing is lost."""
    chat = connect(close_timeout=30)
    rule = server.faults("stall", operation="send")
    chat.send(channel, "text", wait=0)
    with at_most(LIMIT), chat.deadline(LIMIT):
        chat.close()
    server.clear_faults(rule)
    later = connect()
    assert later.outbox.flush(10).queued == 0
    assert [message.text for message in later.messages.list(channel)] == ["text"]


# ---- whom it binds


def test_it_goes_along_to_thread_and_to_no_other(server: DevServer, connect: Connect, channel: str) -> None:
    """`asyncio.to_thread` is the caller's own work; a thread that is started inside is not."""
    chat = connect()
    server.faults("latency", ms=1000 * (LIMIT + 0.3))

    async def story() -> object:
        with chat.deadline(LIMIT):
            return await asyncio.to_thread(chat.channels.get, channel, fresh=True)

    with pytest.raises(DeadlineExceeded):
        asyncio.run(story())
    results: list[object] = []
    with chat.deadline(LIMIT):
        thread = threading.Thread(target=lambda: results.append(chat.channels.get(channel, fresh=True).id))
        thread.start()
        thread.join(20)
    assert results == [channel]


def test_all_views_and_clients_are_bound(server: DevServer, connect: Connect, channel: str) -> None:
    """It is the code's, not the client's."""
    chat = connect()
    other = connect(state_dir=chat.settings.state_dir + "-other")
    bob = chat.as_user("bob", server.tokens["bob"])
    server.faults("stall")
    for each in (bob, other):
        with at_most(LIMIT), chat.deadline(LIMIT), pytest.raises(DeadlineExceeded):
            each.channels.get(channel, fresh=True)


def test_a_refresh_is_waited_for_no_longer_and_goes_on(server: DevServer, connect: Connect, channel: str) -> None:
    """The session's renewal is done for all: a caller with little time leaves it, and the next one has its token."""
    session = server.session("alice", ttl=1000)
    chat = connect(token=session["token"], refresh_token=session["refreshToken"])
    chat.channels.get(channel)
    server.faults("expire_tokens", operation="get_channel")
    slow = server.faults("latency", operation=["refresh"], ms=1000 * (LIMIT + 0.5))
    with at_most(LIMIT), chat.deadline(LIMIT), pytest.raises(ChatError):
        chat.channels.get(channel, fresh=True)
    assert chat.channels.get(channel, fresh=True).id == channel
    server.clear_faults(slow)
    refreshes = [each for each in server.requests() if each["operation"] == "refresh"]
    assert [each["status"] for each in refreshes[-1:]] == [200]
    assert float(refreshes[-1]["timeout"]) > LIMIT + 0.5, "the refresh had a caller's deadline"


# ---- what the server is told


def test_the_server_is_told_how_much_is_left(server: DevServer, connect: Connect, channel: str) -> None:
    """X-Request-Timeout shrinks from try to try, is never negative, and is on every request."""
    chat = connect(retry_first=0.1, retry_tries=50)
    before = server.requests()[-1]["number"]
    server.faults("status", operation="get_channel", status=503, times=4)
    with chat.deadline(5):
        chat.channels.get(channel, fresh=True)
    tries = [float(each["timeout"]) for each in server.requests(before) if each["operation"] == "get_channel"]
    assert len(tries) == 5
    assert all(0 < later < earlier <= 5 for earlier, later in pairwise(tries))
    assert all(earlier - later >= 0.05 for earlier, later in pairwise(tries)), "the waits are not in it"
    chat.send(channel, "text")
    assert all(float(each["timeout"]) > 0 for each in server.requests(before))
    assert b"Timeout" not in b"".join(
        _bytes(path) for path in Path(chat.settings.state_dir).rglob("*") if path.is_file()
    ), "it was stored"


def _bytes(path: Path) -> bytes:
    # by another process: to close a file here would take this process's locks on it away
    return subprocess.run(["cat", path], stdout=subprocess.PIPE, check=True).stdout


def test_the_server_does_nothing_for_who_has_gone(
    server: DevServer, connect: Connect, channel: str, texts: Callable[[str], list[str]]
) -> None:
    """An edit whose time is over before the server comes to it is not made, though it had arrived."""
    chat = connect()
    receipt = chat.send(channel, "text", wait=10)
    message = receipt.message
    assert message is not None
    before = server.requests()[-1]["number"]
    slow = server.faults("latency", operation="edit", ms=1000 * (LIMIT + 0.2))
    with chat.deadline(LIMIT), pytest.raises(DeadlineExceeded):
        chat.messages.edit(channel, message.id, "changed")

    def ended() -> Any:
        return [each for each in server.requests(before) if each["status"] is not None]

    (edit,) = eventually(ended)
    assert (edit["operation"], edit["status"]) == ("edit", 408)
    server.clear_faults(slow)
    assert chat.messages.get(channel, message.id, fresh=True).text == "text"


# ---- presets


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"health": 5, "get_channel": 10, "search": 10, "channel_presence": 5}),
        ({"timeout": 7}, {"health": 7, "get_channel": 7, "search": 7, "channel_presence": 7}),
        ({"timeouts": "ai"}, {"health": 45, "get_channel": 45, "search": 45, "channel_presence": 45}),
        ({"timeouts": "standard"}, {"health": 10, "get_channel": 10, "search": 10, "channel_presence": 10}),
    ],
    ids=str,
)
def test_each_operation_has_its_time(
    server: DevServer, connect: Connect, channel: str, options: dict[str, Any], expected: dict[str, float]
) -> None:
    """By its kind, where nobody set `timeout`; what the call says comes first in any case."""
    chat = connect(**options)
    before = server.requests()[-1]["number"]
    chat.call(chat._backend.health())
    chat.channels.get(channel)
    chat.messages.search("text")
    chat.presence.get(channel)
    told = {each["operation"]: float(each["timeout"]) for each in server.requests(before)}
    for operation, seconds in expected.items():
        assert seconds - 2 < told[operation] <= seconds, operation
    before = server.requests()[-1]["number"]
    chat.call(chat._backend.health(), timeout="heavy")
    with chat.deadline("quick"):
        chat.messages.search("text", fresh=True)
    first, second = (float(each["timeout"]) for each in server.requests(before))
    assert 28 < first <= 30
    assert 3 < second <= 5


def test_a_presets_connect_time_counts(connect: Connect, black_hole: str) -> None:
    """A connection that is not made in the preset's time is given up and, where that helps, tried again."""
    chat = connect(black_hole, retry_tries=1)
    with at_most(3, 2.9), pytest.raises(ConnectTimeoutError):
        chat.call(chat._backend.health())
    quick = connect(black_hole, retry_tries=1, connect_timeout=0.3)
    with at_most(0.3, 0.25), pytest.raises(ConnectTimeoutError):
        quick.call(quick._backend.health(), timeout="ai")


# ---- who is impatient


def test_impatient_callers_open_no_circuit(server: DevServer, connect: Connect, channel: str) -> None:
    """A server that takes 0.3 s is well, whatever callers with 0.05 s think of it; one that is silent for a second is
    not."""
    chat = connect()
    rule = server.faults("latency", operation="get_channel", ms=300)
    for _ in range(8):
        with chat.deadline(0.05), pytest.raises(ChatError):
            chat.channels.get(channel, fresh=True)
    assert chat.circuits.state("api") == "closed"
    assert chat.circuits.counts("api").failures == 0
    assert chat.send(channel, "text").state is State.SENT
    server.clear_faults(rule)
    server.faults("stall", operation="get_channel")
    with chat.deadline(1.2), pytest.raises(DeadlineExceeded):
        chat.channels.get(channel, fresh=True)
    assert chat.circuits.counts("api").failures == 1
