"""How long a client is without its messages: its connection is cut, the server restarts, the peer falls silent.

The development server in a process of its own, the client here, `reconnect = "fast"`. A cut is followed at once by a
message from somebody else, which nobody hears live: what is measured is the time until its handler has it, so until
the client noticed, connected, subscribed and fetched what it missed. The clock starts before the cut is asked for, so
asking for it and sending the message are within the figure.

    cuts        CUTS, in turn by RST, by FIN, and by a close frame; both protocols
    restarts    kill -9, and a new process on the same port and data; from the moment that it accepts connections
    half-open   the socket stays and nothing comes any more; from the moment that the server stops, what it takes
                longer than the heartbeat's interval and time-out together
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count as counter

from chatsdk import ChatClient, events
from chatsdk.devserver.process import DevServer

from .report import Row, Series, goal, measured, percentile

BENCH = "reconnect"
CUTS = 200
RESTARTS = 20
SILENCES = 5
HEARTBEAT, HEARTBEAT_TIMEOUT = 1.0, 0.5
TIMEOUT = 30.0

PROTOCOLS = {"centrifugo": "Centrifugo", "json": "plain frames"}


class Listener:
    """A client of Alice in the channel that every server has, and what it has heard."""

    def __init__(self, server: DevServer, protocol: str) -> None:
        self._server = server
        self._changed = threading.Condition()
        self._heard: dict[str, float] = {}
        self._lost: list[float] = []
        self._subscribed = threading.Event()
        self._numbers = counter()
        self._state = tempfile.mkdtemp(prefix="bench-reconnect-")
        self._chat = ChatClient(
            server.url,
            server.tokens["alice"],
            user="alice",
            ws_token=server.ws_tokens["alice"],
            ws_url=server.ws_url if protocol == "centrifugo" else server.plain_url,
            realtime=protocol,
            reconnect="fast",
            heartbeat=HEARTBEAT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            state_dir=self._state,
            discover=False,
        )
        self._chat.on(events.MessageReceived, self._on_message)
        self._chat.on(events.Disconnected, self._on_loss)
        self._chat.on(events.SubscriptionStateChanged, self._on_state)

    def __enter__(self) -> Listener:
        self._chat.subscribe(self._server.channel_id)
        if not self._subscribed.wait(TIMEOUT):
            raise TimeoutError("the channel was not subscribed")
        self.hear(self.say())
        return self

    def __exit__(self, *exc: object) -> None:
        self._chat.close()
        shutil.rmtree(self._state, ignore_errors=True)

    def say(self) -> str:
        """Bob sends a message; its text. Raises OSError."""
        text = f"message {next(self._numbers)}"
        request = urllib.request.Request(
            f"{self._server.url}/api/channels/{self._server.channel_id}/messages",
            json.dumps({"text": text}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._server.tokens['bob']}"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=TIMEOUT) as answer:
            answer.read()
        return text

    def hear(self, text: str) -> float:
        """When the handler had it (perf_counter)."""
        with self._changed:
            if not self._changed.wait_for(lambda: text in self._heard, TIMEOUT):
                raise TimeoutError(f"{text!r} did not come")
            return self._heard[text]

    def loss(self, number: int) -> float:
        """When the connection was noticed to be lost for the `number`-th time, from 0."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._lost) > number, TIMEOUT):
                raise TimeoutError("the loss was not noticed")
            return self._lost[number]

    @property
    def losses(self) -> int:
        """How often the connection was lost."""
        return len(self._lost)

    def _on_message(self, event: events.MessageReceived) -> None:
        with self._changed:
            self._heard[event.message.text or ""] = time.perf_counter()
            self._changed.notify_all()

    def _on_state(self, event: events.SubscriptionStateChanged) -> None:
        if event.channel == self._server.channel_id and event.state == "subscribed":
            self._subscribed.set()

    def _on_loss(self, event: events.Disconnected) -> None:
        with self._changed:
            self._lost.append(time.perf_counter())
            self._changed.notify_all()


@contextmanager
def _server() -> Iterator[DevServer]:
    """On disk, so that it comes back as it was."""
    folder = tempfile.mkdtemp(prefix="bench-reconnect-server-")
    try:
        with DevServer(os.path.join(folder, "data.sqlite")) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def cuts(protocol: str, times: int) -> list[float]:
    """Seconds of each cut, until what was sent meanwhile was handled."""
    found = []
    with _server() as server, Listener(server, protocol) as listener:
        for number in range(times):
            losses = listener.losses
            began = time.perf_counter()
            if number % 3 == 2:
                struck = server.realtime.cut("alice", code=3001 if protocol == "centrifugo" else 1001)
            else:
                struck = server.realtime.cut("alice", how=("rst", "fin")[number % 3])
            if struck != 1:
                raise AssertionError(f"{struck} connections were cut")
            found.append(listener.hear(listener.say()) - began)
            listener.loss(losses)
    return found


def restarts(protocol: str, times: int) -> list[float]:
    """Seconds of each restart, from the new process's first accepted connection until a message was handled."""
    found = []
    with _server() as server, Listener(server, protocol) as listener:
        for _ in range(times):
            server.kill()
            accepting = _Accepting(server.port)
            server.start()
            text = listener.say()
            found.append(listener.hear(text) - accepting.since())
    return found


class _Accepting(threading.Thread):
    """Sees when a port accepts connections."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._since = 0.0
        self.start()

    def run(self) -> None:
        until = time.perf_counter() + TIMEOUT
        while time.perf_counter() < until:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
            except OSError:
                time.sleep(0.001)
            else:
                self._since = time.perf_counter()
                return

    def since(self) -> float:
        """perf_counter."""
        self.join()
        if not self._since:
            raise TimeoutError("the server does not accept connections")
        return self._since


def silences(times: int) -> list[float]:
    """Seconds past interval and time-out of the heartbeat, until a silent peer was taken for lost (plain frames, where
    both are the client's)."""
    found = []
    with _server() as server, Listener(server, "json") as listener:
        for number in range(times):
            listener.hear(listener.say())
            time.sleep(HEARTBEAT * number / times)  # somewhere between two heartbeats
            losses = listener.losses
            if not server.realtime.half_open("alice"):  # the one before may be among them still
                raise AssertionError("nobody is connected")
            began = time.perf_counter()
            found.append(listener.loss(losses) - began - HEARTBEAT - HEARTBEAT_TIMEOUT)
            listener.hear(listener.say())
    return found


def run(rounds: int = 9, *, cut: int = CUTS, restarted: int = RESTARTS, silent: int = SILENCES) -> Iterator[Row]:
    """Measure, once whatever the rounds; about three minutes."""
    after_cuts = {title: cuts(protocol, cut) for protocol, title in PROTOCOLS.items()}
    after_restarts = {title: restarts(protocol, restarted) for protocol, title in PROTOCOLS.items()}
    past: Series = silences(silent)
    yield from measured(BENCH, f"{cut} cuts, until caught up", after_cuts, "s")
    yield from measured(BENCH, f"{restarted} restarts, from accepting until caught up", after_restarts, "s")
    yield from measured(BENCH, "half-open peer noticed, past heartbeat and time-out", {PROTOCOLS["json"]: past}, "s")
    for title, values in after_cuts.items():
        yield goal(BENCH, f"cut until caught up, s, p50, {title}", [percentile(values, 0.5)], 0.3)
        yield goal(BENCH, f"cut until caught up, s, p99, {title}", [percentile(values, 0.99)], 1.0)
    for title, values in after_restarts.items():
        yield goal(BENCH, f"restart until caught up, s, p99, {title}", [percentile(values, 0.99)], 2.0)
    yield goal(BENCH, "half-open peer noticed, s past heartbeat and time-out, at most", [max(past)], 0.1)  # type: ignore[type-var]
