"""What a user sees of one message: receipts, keys, events, in this process and in others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from chatsdk import ChatClient, Reason, State, events
from chatsdk.devserver.process import DevServer
from tests.waiting import eventually

SEND = """
import sys
from chatsdk import ChatClient
with ChatClient() as chat:
    receipt = chat.send(sys.argv[1], sys.argv[2], key=sys.argv[3])
    print(receipt.key, receipt.state, flush=True)
"""


def test_receipt_from_queued_to_sent(
    server: DevServer, connect: Callable[..., ChatClient], channel: str, texts: Callable[[str], list[str]]
) -> None:
    """A receipt is live: QUEUED with a reason while the server is down, SENT with the stored message afterwards."""
    server.kill()
    chat = connect()
    receipt = chat.send(channel, "hello", wait=0)
    eventually(lambda: receipt.attempts)
    assert (receipt.state, receipt.delivered, receipt.reason) == (State.QUEUED, False, Reason.OFFLINE)
    error = receipt.error
    assert error is not None
    assert error.hint
    assert receipt.to_dict()["message"] is None
    future = receipt.future()
    server.restart()
    assert future.result(10) is receipt
    assert (receipt.state, receipt.delivered, receipt.reason) == (State.SENT, True, None)
    message = receipt.message
    assert message is not None
    assert (message.text, message.key) == ("hello", receipt.key)
    assert json.loads(json.dumps(receipt.to_dict()))["state"] == "SENT"
    assert chat.outbox.get(receipt.id).state is State.SENT
    assert chat.outbox.get(receipt.key).id == receipt.id
    assert texts(channel) == ["hello"]


def test_events_of_a_message(server: DevServer, connect: Callable[..., ChatClient], channel: str) -> None:
    """Queued, failed, retried, sent: by class and by the seeds' names, until unsubscribed."""
    chat = connect()
    names: list[str] = []
    sent: list[events.MessageSent] = []
    chat.on(events.MessageEvent, lambda event: names.append(event.NAME))

    @chat.on("message:sent")
    def remember(event: events.MessageSent) -> None:
        sent.append(event)

    gone: list[events.Event] = []
    unsubscribe = chat.on(events.Event, gone.append)
    unsubscribe()
    server.faults("status", operation="send", status=503, times=1)
    receipt = chat.send(channel, "hello", wait=10)
    eventually(lambda: sent)
    assert names == ["message:queued", "message:failed", "message:sent"]
    assert (sent[0].key, sent[0].state, sent[0].channel, sent[0].user) == (receipt.key, "SENT", channel, "alice")
    assert sent[0].at == pytest.approx(time.time(), abs=60)
    assert gone == []


def test_same_key_is_the_same_message_in_every_process(
    connect: Callable[..., ChatClient], environment: dict[str, str], channel: str, texts: Callable[[str], list[str]]
) -> None:
    """Two processes and two threads send one key at the same time: one message, one key, one receipt."""
    command = [sys.executable, "-c", SEND, channel, "paid", "order 7"]
    others = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    chat = connect()
    with ThreadPoolExecutor(2) as pool:
        receipts = list(pool.map(lambda _: chat.send(channel, "paid", key="order 7"), range(2)))
    said = {other.communicate(timeout=30)[0].strip() for other in others}
    assert said == {f"{receipts[0].key} SENT"}
    assert len({(receipt.id, receipt.key) for receipt in receipts}) == 1
    assert texts(channel) == ["paid"]
    assert chat.outbox.stats().accepted == 1


def test_wait_sees_what_another_process_delivers(
    server: DevServer, connect: Callable[..., ChatClient], environment: dict[str, str], channel: str
) -> None:
    """A client that only puts into the outbox learns from its receipt what another process did."""
    quiet = connect(background=False)
    receipt = quiet.send(channel, "hello", wait=0)
    drain = "from chatsdk import ChatClient\nwith ChatClient() as chat: chat.outbox.flush(10)"
    other = subprocess.Popen([sys.executable, "-c", drain], env=environment)
    assert receipt.wait(20).state is State.SENT
    assert receipt.attempts == 1
    assert other.wait(20) == 0


def test_order_in_each_channel_with_threads_and_faults(
    server: DevServer, connect: Callable[..., ChatClient], texts: Callable[[str], list[str]]
) -> None:
    """Four threads, four channels, all kinds of trouble: a channel holds each thread's messages once and in order."""
    for number, (kind, more) in enumerate(
        [("status", {"status": 503}), ("reply_lost", {}), ("reset", {}), ("drop", {}), ("truncated", {})]
    ):
        server.faults(kind, operation="send", probability=0.04, seed=number, **more)
    server.faults("latency", operation="send", ms=2, jitter_ms=5)
    server.faults("status", operation="send", status=429, retry_after=0.1, probability=0.02, seed=9)
    chat = connect(timeout=2)
    channels = [server.channel("alice") for _ in range(4)]

    def talk(thread: int) -> None:
        for n in range(25):
            for channel in channels:
                chat.send(channel, f"{thread}.{n}", wait=False)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(talk, range(4)))
    eventually(lambda: chat.outbox.stats().delivered > 200)
    server.clear_faults()
    chat.circuits["api"].reset()
    report = chat.outbox.flush(20)
    assert (report.queued, report.dead) == (0, 0)
    for channel in channels:
        arrived = texts(channel)
        assert len(arrived) == 100
        for thread in range(4):
            assert [text for text in arrived if text.startswith(f"{thread}.")] == [f"{thread}.{n}" for n in range(25)]
    struck = server.state()["faults_struck"]
    assert {"reply_lost", "reset", "status"} <= struck.keys(), struck
    stats = chat.outbox.stats()
    assert (stats.accepted, stats.delivered) == (400, 400)


def test_user_without_a_token_makes_nobody_wait(
    server: DevServer, connect: Callable[..., ChatClient], channel: str, texts: Callable[[str], list[str]]
) -> None:
    """A view of a user without a token: QUEUED with the reason `auth`, at once; a token brings it on its way."""
    chat = connect()
    carol = chat.as_user("carol")
    began = time.monotonic()
    receipt = carol.send(server.channel("carol"), "hello")
    assert time.monotonic() - began < 1
    assert (receipt.state, receipt.reason) == (State.QUEUED, Reason.AUTH)
    assert chat.send(channel, "not held up").state is State.SENT
    chat.as_user("carol", token=server.mint("carol"))
    assert receipt.wait(10).state is State.SENT


def test_forked_child_and_its_parent_both_send(
    server: DevServer, connect: Callable[..., ChatClient], channel: str, texts: Callable[[str], list[str]]
) -> None:
    """A fork in the middle of sending: the parent's messages are neither lost nor doubled, the child sends its own."""
    server.faults("latency", operation="send", ms=50)
    chat = connect()
    chat.send(channel, "first")
    receipts = [chat.send(channel, f"parent {n}", wait=0) for n in range(5)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks with threads; that is the story
        child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if chat.send(channel, "child", wait=10).state is State.SENT else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert [receipt.wait(10).state for receipt in receipts] == [State.SENT] * 5
    assert chat.send(channel, "last").state is State.SENT
    arrived = texts(channel)
    assert sorted(arrived) == sorted(["first", "child", "last", *(f"parent {n}" for n in range(5))])
    assert [text for text in arrived if text.startswith("parent")] == [f"parent {n}" for n in range(5)]


def test_first_blocking_call_on_an_event_loop_warns_once(environment: dict[str, str], channel: str) -> None:
    """It names asyncio.to_thread and points at the caller's line; in a thread, and without a loop, nothing is said."""
    script = f"""
import asyncio, warnings
from chatsdk import ChatClient
warnings.simplefilter("always")
chat = ChatClient()
async def main():
    with warnings.catch_warnings(record=True) as caught:
        await asyncio.to_thread(chat.send, {channel!r}, "in a thread")
        assert not caught, caught[0]
        chat.send({channel!r}, "on the loop")
        chat.channels.get({channel!r})
        chat.send({channel!r}, "again")
    print(len(caught), caught[0].category.__name__, "to_thread" in str(caught[0].message), caught[0].filename)
with warnings.catch_warnings(record=True) as caught:
    chat.send({channel!r}, "without a loop")
assert not caught
asyncio.run(main())
chat.close()
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True, timeout=30, check=True
    )
    assert ended.stdout.split() == ["1", "RuntimeWarning", "True", "<string>"]


def test_client_that_is_never_used_leaves_no_trace(server: DevServer, connect: Callable[..., ChatClient]) -> None:
    """Making a client opens no file and starts no thread, and it can be dropped or closed."""
    before = set(threading.enumerate())
    chat = connect()
    assert not os.path.exists(chat.settings.state_dir)
    chat.close()
    chat.close()
    assert set(threading.enumerate()) == before
