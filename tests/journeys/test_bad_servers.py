"""Whatever answers in the server's place, a call ends in time with a typed error, and a message is delivered later."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from chatsdk import (
    CaptivePortalError,
    ChatClient,
    ChatError,
    InvalidResponseError,
    OutcomeUnknownError,
    RateLimited,
    Reason,
    ServerError,
    State,
    Unauthorized,
)
from chatsdk.devserver.process import DevServer

TIMEOUT_S = 1.0
GIGABYTE = 2**30
MOST_MEMORY_KB = 400_000
"""Some tries one after the other hold 16 MiB (`max_response_bytes`) and a copy; a gigabyte would show."""

FAULTS: dict[str, tuple[dict[str, Any], type[ChatError]]] = {
    "html": ({"kind": "html"}, CaptivePortalError),
    "redirect elsewhere": ({"kind": "redirect", "location": "http://portal.invalid/login"}, CaptivePortalError),
    "garbage": ({"kind": "garbage"}, InvalidResponseError),
    "empty": ({"kind": "garbage", "body": ""}, InvalidResponseError),
    "not about this": ({"kind": "garbage", "body": "[1, 2]"}, InvalidResponseError),
    "nested": ({"kind": "garbage", "body": "[" * 100_000}, InvalidResponseError),
    "huge": ({"kind": "huge", "size": GIGABYTE}, OutcomeUnknownError),
    "gzip bomb": ({"kind": "gzip_bomb", "size": GIGABYTE // 8}, OutcomeUnknownError),
    "drip": ({"kind": "drip", "interval_s": 0.2}, OutcomeUnknownError),
    "truncated": ({"kind": "truncated"}, OutcomeUnknownError),
    "reset": ({"kind": "reset"}, OutcomeUnknownError),
    "hang": ({"kind": "stall"}, OutcomeUnknownError),
    "401": ({"kind": "unauthorized"}, Unauthorized),
    "429": ({"kind": "status", "status": 429, "retry_after": 0.1}, RateLimited),
    "500 with HTML": ({"kind": "status", "status": 500, "body": "<html>"}, ServerError),
    "599": ({"kind": "status", "status": 599}, ServerError),
}


@pytest.mark.parametrize("name", FAULTS)
def test_bad_answers_cost_no_message(
    name: str,
    server: DevServer,
    connect: Callable[..., ChatClient],
    channel: str,
    texts: Callable[[str], list[str]],
) -> None:
    """Direct calls raise an error that says what to do; a send is QUEUED and delivered when the server is well."""
    fault, expected = FAULTS[name]
    chat = connect(timeout=TIMEOUT_S, retry_tries=2)
    chat.send(channel, "before")
    threads = _threads()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kind = fault["kind"]
    server.faults(operation=["get_channel", "send"], **fault)
    began = time.monotonic()
    with pytest.raises(expected) as caught:
        chat.channels.get(channel, fresh=True)
    assert time.monotonic() - began < TIMEOUT_S * 1.5, "the deadline did not hold"
    assert caught.value.hint
    receipt = chat.send(channel, f"during {kind}", wait=0.3)
    assert receipt.state is State.QUEUED
    assert threads <= _threads(), "a thread died"
    server.clear_faults()
    chat.circuits["api"].reset()
    chat.outbox.flush(10)
    assert receipt.wait(10).state is State.SENT
    assert texts(channel) == ["before", f"during {kind}"]
    assert threads <= _threads(), "a thread died"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MOST_MEMORY_KB


def test_reply_that_is_lost_makes_no_second_message(
    server: DevServer, connect: Callable[..., ChatClient], channel: str, texts: Callable[[str], list[str]]
) -> None:
    """The message is stored, its answer lost, and the next try finds it: one message, and the receipt shows it."""
    server.faults("reply_lost", operation="send", times=3)
    receipt = connect().send(channel, "once", wait=10)
    assert (receipt.state, receipt.attempts) == (State.SENT, 4)
    assert receipt.message is not None
    assert receipt.message.text == "once"
    assert texts(channel) == ["once"]


def test_server_that_asks_for_patience_gets_it(
    server: DevServer, connect: Callable[..., ChatClient], channel: str, texts: Callable[[str], list[str]]
) -> None:
    """429 with Retry-After: no try before its time, not even after a wake, and other channels are not held up."""
    other = server.channel("alice")
    chat = connect()
    chat.send(channel, "before")
    server.faults("status", operation="send", channel=channel, status=429, retry_after=2, times=1)
    began = time.time()
    receipt = chat.send(channel, "later", wait=0.3)
    assert (receipt.state, receipt.reason) == (State.QUEUED, Reason.RATE_LIMITED)
    refused = _tries(server, channel)[-1]["at"] / 1000
    assert chat.send(other, "meanwhile").state is State.SENT
    chat.connect_user("alice", server.mint("alice"))  # wakes what may be woken
    at_once = time.monotonic()
    assert chat.send(channel, "behind", wait=1).state is State.QUEUED
    assert time.monotonic() - at_once < 0.5, "it waited for a lane that could not be served in time"
    assert receipt.wait(10).state is State.SENT
    tries = [each["at"] / 1000 for each in _tries(server, channel) if each["at"] / 1000 > refused]
    assert began <= refused
    assert min(tries) - refused > 1.9
    chat.outbox.flush(5)
    assert texts(channel) == ["before", "later", "behind"]


def _tries(server: DevServer, channel: str) -> list[dict[str, Any]]:
    return [each for each in server.log()["attempts"] if each["channel"] == channel]


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("chatsdk")}
