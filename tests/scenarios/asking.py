"""Without duplicate calls: eight parts of an application that ask for the same things at their own times, with the
layer that answers a question once, and without it (`dedup_*` = 0: the settings' way to have none).

Each part shows what an app's screen shows (the channels, one of them with its members, its newest messages, who is
there, who I am), over and over, a quarter to half a second apart, at times that a seed decides, and never all at once
by arrangement. The server takes 30 ms for an answer, as a network would, and its record says how often it was asked.

Saving is worth nothing if answers are wrong, so meanwhile

* every answer is compared with that of the control: the same, to the last field;
* a reader that writes sees its own messages and edits in its very next question, ten times over, while the others ask;
* what somebody else writes is seen as soon as the cache's time (`dedup_message_ttl`) is over.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from chatsdk import ChatClient
from chatsdk.core.models import Model
from chatsdk.devserver.process import DevServer

from .report import Row

PARTS = 8
SCREENS = 20
PAUSE_S = (0.25, 0.5)
LATENCY_MS = 30
WRITES = 10
SAVED = 0.5
"""What the seeds ask for: half of the requests (000)."""

SLACK_S = 2.0
"""What a machine under load may add to a time."""

NO_DEDUP = {"dedup_window": 0.0, "dedup_channel_ttl": 0.0, "dedup_message_ttl": 0.0}

Answers = dict[str, list[Any]]


@dataclass
class Asked:
    """What came of a run. `answers`: all that a question was answered with, in any order, each once."""

    requests: int
    answers: Answers = field(default_factory=dict)


def screen(chat: ChatClient, channel: str) -> Iterator[tuple[str, Any]]:
    """The questions of a screen, one after the other, with their answers."""
    yield "channels.list", _plain(chat.channels.list())
    yield "channels.get", _plain(chat.channels.get(channel))
    yield "messages.list", _plain(list(chat.messages.list(channel, limit=50)))
    yield "channels.members", _plain(chat.channels.members(channel))
    yield "presence.get", _plain(chat.presence.get(channel))
    yield "users.me", _plain(chat.users.me())


def _plain(answer: Any) -> Any:
    return answer.to_dict() if isinstance(answer, Model) else [each.to_dict() for each in answer]


def ask(server: DevServer, channel: str, screens: int, seed: int, **settings: Any) -> Asked:
    """All parts ask for so many screens, each in its thread."""
    count = server.faults("latency", ms=LATENCY_MS)
    asked, lock, failed = Asked(0), threading.Lock(), list[BaseException]()
    with tempfile.TemporaryDirectory() as state, closing(_client(server, state, **settings)) as chat:

        def take_part(number: int) -> None:
            pauses, never = random.Random(seed * PARTS + number), threading.Event()
            try:
                for _ in range(screens):
                    never.wait(pauses.uniform(*PAUSE_S))
                    for question, answer in screen(chat, channel):
                        with lock:
                            known = asked.answers.setdefault(question, [])
                            if answer not in known:
                                known.append(answer)
            except BaseException as error:
                failed.append(error)

        _together([partial(take_part, number) for number in range(PARTS)])
        if failed:
            raise failed[0]
    asked.requests = next(rule["seen"] for rule in server.fault_rules() if rule["id"] == count)
    server.clear_faults(count)
    return asked


def stale_reads(server: DevServer, channel: str) -> int:
    """How often a writer did not see what it had just written or edited, while others ask the same."""
    stale, over = 0, threading.Event()
    with tempfile.TemporaryDirectory() as state, closing(_client(server, state)) as chat:

        def others() -> None:
            while not over.is_set():
                list(chat.messages.list(channel, limit=50))

        def newest() -> str | None:
            return next(chat.messages.list(channel, limit=50)).text

        def write() -> None:
            nonlocal stale
            try:
                for number in range(WRITES):
                    message = chat.send(channel, f"written {number}", wait=30.0).message
                    assert message is not None
                    stale += newest() != f"written {number}"
                    chat.messages.edit(channel, message.id, f"edited {number}")
                    stale += newest() != f"edited {number}"
            finally:
                over.set()

        _together([write, others, others, others])
    return stale


def seen_after(server: DevServer, channel: str) -> tuple[float, float]:
    """Seconds until a reader, which asks all the time, sees what somebody else wrote just after it had asked; and the
    cache's time."""
    with tempfile.TemporaryDirectory() as state, tempfile.TemporaryDirectory() as other:
        with closing(_client(server, state)) as chat, closing(_client(server, other, "bob")) as bob:
            list(chat.messages.list(channel, limit=50))
            bob.send(channel, "from bob", wait=30.0)
            began, ttl = time.monotonic(), chat.settings.dedup_message_ttl
            while next(chat.messages.list(channel, limit=50)).text != "from bob":
                if time.monotonic() > began + ttl + 30.0:
                    break
                threading.Event().wait(0.02)
            return time.monotonic() - began, ttl


def row(screens: int = SCREENS, seed: int = 1) -> Row:
    """Do all of it, and the line of the table."""
    with DevServer() as server:
        channel = server.channel("alice", "bob", name="the screen's")
        with tempfile.TemporaryDirectory() as state, closing(_client(server, state)) as chat:
            for number in range(20):
                chat.send(channel, f"message {number}", wait=30.0)
        ours = ask(server, channel, screens, seed)
        control = ask(server, channel, screens, seed, **NO_DEDUP)
        stale = stale_reads(server, channel)
        after, ttl = seen_after(server, channel)
    same = ours.answers == control.answers and all(len(answers) == 1 for answers in ours.answers.values())
    saved = 1 - ours.requests / control.requests
    right = ("the same answers" if same else "OTHER ANSWERS", "own writes seen" if not stale else f"{stale} STALE")
    return Row(
        "without duplicate calls: requests",
        f"-{SAVED:.0%}",
        f"-{saved:.0%} ({ours.requests}; {', '.join(right)})",
        f"{control.requests}",
        saved >= SAVED and same and not stale and after <= ttl + SLACK_S,
        {"ours": ours.requests, "without": control.requests, "same": same, "stale": stale, "others_seen_after": after},
    )


def _client(server: DevServer, state: str, user: str = "alice", **settings: Any) -> ChatClient:
    return ChatClient(server.url, server.tokens[user], user=user, state_dir=state, discover=False, **settings)


def _together(work: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
