"""The process that listens, and is killed: `python -m tests.chaos.listening.bot`. It reads its job, one line of JSON,
from standard input, and dies with that; SIGTERM ends it politely, and it leaves its figures in the file `answer`.

A handler takes its time now and then, so that a kill meets it at work. The handler of the first channel, where most
messages are, stops for seconds now and then, so that its channel falls behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import threading
import urllib.request
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from chatsdk import ChatClient, ConnectionFailedError, events
from chatsdk.core.tokens import Token, TokenRequest
from tests.chaos.listening.heard import Notebook
from tests.chaos.listening.mutants import MUTANTS

SLOW_S = 0.004
"""Seconds that a handler that takes its time takes before its note, and again after it."""


def listen(job: dict[str, Any]) -> None:
    """Hear all channels until SIGTERM. `control`: which mutant to be, or ""; `slow`: the share of messages for which a
    handler takes its time; `stall_every`: seqs between those for which the first channel's stops for `stall_s`."""
    MUTANTS[job["control"]]()
    notes, dice, never = Notebook(job["notes"]), random.Random(job["seed"]), threading.Event()
    stalls_at = job["stall_every"]
    with ChatClient(
        job["url"],
        token_provider=partial(_token, job),
        user=job["user"],
        ws_url=job["ws_url"],
        realtime=job["realtime"],
        state_dir=job["state"],
        discover=False,
        quiet_check=job["quiet_check"],
        poll_interval=job["poll_interval"],
        heartbeat=1.0,
        heartbeat_timeout=1.0,
    ) as chat:

        @chat.on(events.MessageReceived)
        def hear(event: events.MessageReceived) -> None:
            slow = dice.random() < job["slow"]
            if slow:
                never.wait(SLOW_S)
            notes.saw(event.channel, event.message_id or "", event.seq, event.late, event.message.text or "")
            if slow:
                never.wait(SLOW_S)
            if stalls_at and event.channel == job["channels"][0] and event.seq and event.seq % stalls_at == 0:
                never.wait(job["stall_s"])

        @chat.on(events.Gap)
        def miss(event: events.Gap) -> None:
            if event.channel:  # what is for the user alone has no history
                notes.gap(event.channel, f"after {event.after}: {event.reason}")

        @chat.on(events.SubscriptionStateChanged)
        def follow(event: events.SubscriptionStateChanged) -> None:
            notes.state(event.channel, event.state)

        notes.begins(job["run"])
        chat.subscribe(job["channels"])
        if job["fidget_s"]:
            threading.Thread(target=_fidget, args=(chat, job), daemon=True).start()
        chat.run_forever()
        figures = {**asdict(chat.connection.metrics()), "subscriptions": chat.connection.subscriptions}
    Path(job["answer"]).write_text(json.dumps(figures))


def _token(job: dict[str, Any], _: TokenRequest) -> Token:
    """A fresh one, which does not last."""
    wish = json.dumps({"user": job["user"], "ttl": job["token_s"], "refresh": True}).encode()
    request = urllib.request.Request(f"{job['url']}/__dev__/token", wish, {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
        found = json.load(answer)
    return Token(found["token"], found["wsToken"])


def _fidget(chat: ChatClient, job: dict[str, Any]) -> None:
    """Once all channels are heard and until it is calm, somebody leaves some now and then, and comes back."""
    dice, never = random.Random(job["seed"]), threading.Event()
    while set(chat.connection.subscriptions.values()) != {"subscribed"}:
        never.wait(0.05)
    with contextlib.suppress(ConnectionFailedError):  # closed
        while not os.path.exists(job["calm"]):
            never.wait(dice.uniform(0, 2 * job["fidget_s"]))
            some = dice.sample(job["channels"], dice.randint(1, 3))
            chat.unsubscribe(some)
            never.wait(dice.choice((0, 0, 0.001, 0.05)))
            chat.subscribe(some)


def _die_with_standard_input() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    given = json.loads(sys.stdin.readline())
    threading.Thread(target=_die_with_standard_input, daemon=True).start()
    listen(given)
