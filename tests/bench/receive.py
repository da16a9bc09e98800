"""How fast publications are read: bytes of a socket to a handler, in order, each once, its place stored.

Every reader is a process of its own, and all are sent the same stream by the same publisher, which is never what they
wait for: 200 bytes of JSON a publication, twenty channels in turn. What counts is the CPU time that the whole process
takes for them, its threads and the system's part included, from the moment the stream flows until the last handler
returned; beside it, what passed on the clock. Readers take turns.

    chatsdk              heartbeats, order, dedup, handler pool, cursors on disk; the handler sees to it that each
                         message is the one after the last
    websockets           its blocking client without compression, and json.loads
    websocket-client     recv() as it comes, and json.loads; it gets a fifth of the stream
    centrifuge-python    a handler that counts

Centrifugo puts one publication into a frame, and up to sixteen into each when a queue has built up. The first is
promised; of the second, where centrifuge-python's cost of a frame is shared by all in it, the figures are just shown.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from itertools import count as counter
from pathlib import Path
from typing import Any

from .publisher import APP, CHANNELS, PATH, USER, Publisher, channel_id, go, stream_name
from .report import Row, Series, goal, measured, ratios

BENCH = "receive"
COUNT = 100_000
SLOW_PART = 5
"""websocket-client gets a part of the stream only."""

TIMEOUT = 120.0

CHATSDK, WEBSOCKETS, RECV, CENTRIFUGE = (
    "chatsdk",
    "websockets, blocking",
    "websocket-client, recv()",
    "centrifuge-python",
)
STREAMS: Mapping[str, tuple[str, ...]] = {
    "plain": (CHATSDK, WEBSOCKETS, RECV),
    "one": (CHATSDK, CENTRIFUGE),
    "sixteen": (CHATSDK, CENTRIFUGE),
}
TITLES = {
    "plain": "plain frames",
    "one": "Centrifugo, one publication a frame",
    "sixteen": "Centrifugo, sixteen publications a frame",
}
_NEEDS = {WEBSOCKETS: "websockets", CENTRIFUGE: "centrifuge"}
_ROOT = Path(__file__).resolve().parents[2]


# ---- in the process that is measured


class Stopwatch:
    """Seconds of CPU of this process, and on the clock, from `start` to `stop`."""

    def start(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        now = time.perf_counter(), time.process_time()
        self.wall, self.cpu = (later - sooner for later, sooner in zip(now, self._began, strict=True))


def by_chatsdk(port: int, stream: str, count: int, channels: int, watch: Stopwatch) -> None:
    """Through the whole client, from the socket to a handler."""
    import jwt

    from chatsdk import ChatClient, events

    claims: dict[str, Any] = {"sub": USER, "exp": int(time.time()) + 900}
    if stream != "plain":
        claims["app_id"] = APP
    token = jwt.encode(claims, "of the bench, thirty-two bytes long", algorithm="HS256")
    last: defaultdict[str, int] = defaultdict(int)
    disorder: list[str] = []
    number, subscribed = counter(1), counter(1)
    all_subscribed, all_seen = threading.Event(), threading.Event()
    names = [channel_id(each) for each in range(channels)]
    state = tempfile.mkdtemp(prefix="bench-receive-")
    try:
        with ChatClient(
            f"http://127.0.0.1:{port}",
            token,
            user=USER,
            ws_token=token,
            ws_url=f"ws://127.0.0.1:{port}{PATH}",
            realtime="json" if stream == "plain" else "centrifugo",
            state_dir=state,
            discover=False,
        ) as chat:

            @chat.on(events.SubscriptionStateChanged)
            def look(event: events.SubscriptionStateChanged) -> None:
                if event.state == "subscribed" and next(subscribed) == channels:
                    all_subscribed.set()

            @chat.on(events.MessageReceived)
            def handle(event: events.MessageReceived) -> None:
                seq = event.seq or 0
                if seq != last[event.channel] + 1:
                    disorder.append(f"{seq} after {last[event.channel]}")
                last[event.channel] = seq
                if next(number) == count:
                    all_seen.set()

            chat.subscribe(names)
            if not all_subscribed.wait(TIMEOUT):
                raise TimeoutError("not subscribed to all channels")
            watch.start()
            go(port, stream)
            if not all_seen.wait(TIMEOUT):
                raise TimeoutError(f"{sum(last.values())} of {count} publications came")
            watch.stop()
    finally:
        shutil.rmtree(state, ignore_errors=True)
    if disorder or sum(last.values()) != count:
        raise AssertionError(f"{sum(last.values())} of {count} publications came; in disorder: {disorder[:9]}")


def by_websockets(port: int, stream: str, count: int, channels: int, watch: Stopwatch) -> None:
    from websockets.sync.client import connect

    with connect(f"ws://127.0.0.1:{port}{PATH}", compression=None) as websocket:
        watch.start()
        go(port, stream)
        for _ in range(count):
            json.loads(websocket.recv())
        watch.stop()
        websocket.socket.close()  # it would read the rest of the stream first


def by_recv(port: int, stream: str, count: int, channels: int, watch: Stopwatch) -> None:
    import websocket

    connection = websocket.create_connection(f"ws://127.0.0.1:{port}{PATH}")
    watch.start()
    go(port, stream)
    for _ in range(count):
        json.loads(connection.recv())
    watch.stop()


def by_centrifuge(port: int, stream: str, count: int, channels: int, watch: Stopwatch) -> None:
    from centrifuge import Client, SubscriptionEventHandler

    async def token(*_: Any) -> str:
        return "t"

    async def listen() -> None:
        left, done = count, asyncio.Event()

        class Handler(SubscriptionEventHandler):  # type: ignore[misc]
            async def on_publication(self, ctx: Any) -> None:
                nonlocal left
                left -= 1
                if not left:
                    done.set()

        client = Client(f"ws://127.0.0.1:{port}{PATH}", get_token=token)
        await client.connect()
        for number in range(channels):
            subscription = client.new_subscription(stream_name(channel_id(number)), Handler(), get_token=token)
            await subscription.subscribe()
            await subscription.ready()
        watch.start()
        await asyncio.to_thread(go, port, stream)
        await asyncio.wait_for(done.wait(), TIMEOUT)
        watch.stop()
        await client.disconnect()

    asyncio.run(listen())


_READERS: Mapping[str, Callable[[int, str, int, int, Stopwatch], None]] = {
    CHATSDK: by_chatsdk,
    WEBSOCKETS: by_websockets,
    RECV: by_recv,
    CENTRIFUGE: by_centrifuge,
}


def _read(reader: str, port: int, stream: str, count: int, channels: int) -> dict[str, float]:
    watch = Stopwatch()
    _READERS[reader](port, stream, count, channels, watch)
    return {"cpu": count / watch.cpu, "wall": count / watch.wall}


# ---- in the one that measures


def read(publisher: Publisher, reader: str, stream: str) -> dict[str, float]:
    """Publications a second of CPU ("cpu"), and on the clock ("wall"), of one process."""
    count = publisher.count // SLOW_PART if reader == RECV else publisher.count
    arguments = [reader, str(publisher.port), stream, str(count), str(publisher.channels)]
    done = subprocess.run(
        [sys.executable, "-m", f"{__package__}.receive", *arguments], cwd=_ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{reader} failed on {stream}:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(rounds: int = 9, *, count: int = COUNT, channels: int = CHANNELS) -> Iterator[Row]:
    """Measure; about a minute and a half."""
    turns = [(stream, reader) for stream, readers in STREAMS.items() for reader in readers]
    found: dict[tuple[str, str], list[dict[str, float]]] = {turn: [] for turn in turns}
    with Publisher(count, channels) as publisher:
        for number in range(rounds):
            first = number % len(turns)
            for stream, reader in turns[first:] + turns[:first]:
                if reader not in _NEEDS or find_spec(_NEEDS[reader]) is not None:
                    found[stream, reader].append(read(publisher, reader, stream))

    @cache
    def series(stream: str, reader: str, what: str) -> Series:
        return [each[what] for each in found[stream, reader]] or [None] * rounds

    for what, unit in (("cpu", "per CPU second"), ("wall", "per second")):
        for stream, readers in STREAMS.items():
            figures = {reader: series(stream, reader, what) for reader in readers}
            yield from measured(BENCH, f"publications read {unit}, {TITLES[stream]}", figures, "/s")
    for stream, reader, times in (
        ("plain", WEBSOCKETS, 1.2),
        ("plain", RECV, 5.0),
        ("one", CENTRIFUGE, 1.3),
    ):
        metric = f"chatsdk over {reader}, {TITLES[stream]}"
        ours, theirs = series(stream, CHATSDK, "cpu"), series(stream, reader, "cpu")
        yield goal(BENCH, metric, ratios(ours, theirs), times, at_least=True)


if __name__ == "__main__":
    print(json.dumps(_read(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))), flush=True)
    os._exit(0)  # some readers would read the rest of the stream first
