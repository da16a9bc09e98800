"""A client that does what it is told by lines on standard input, and says how it is: for stories of processes that are
stopped. `python sleeper.py CHANNEL ...`; settings come from the environment.

    send N       N messages to each channel, without waiting; answers how many there are now
    first TEXT   one message to the first channel, as `send` waits by itself; answers seconds and state
    state        answers how it is
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from chatsdk import ChatClient, events


def main(*channels: str) -> None:
    """Until standard input ends."""
    heard: list[str] = []
    levels: list[str] = []
    breaks: list[bool] = []
    with ChatClient() as chat:
        chat.on(events.MessageReceived, lambda event: heard.append(event.message.text or ""))
        chat.on(events.Disconnected, lambda event: breaks.append(event.reconnecting))
        chat.network.watch(lambda metrics: levels.append(f"{metrics.quality} {metrics.reason}".strip()))
        chat.subscribe(channels)
        chat.connect(10)
        count = 0
        for line in sys.stdin:
            word, _, rest = line.strip().partition(" ")
            answer: dict[str, Any] = {}
            if word == "send":
                for _ in range(int(rest)):
                    for channel in channels:
                        chat.send(channel, f"{count}", wait=0)
                    count += 1
            elif word == "first":
                began = time.monotonic()
                receipt = chat.send(channels[0], rest)
                answer = {"seconds": time.monotonic() - began, "state": receipt.state}
            stats, metrics = chat.outbox.stats(), chat.network.metrics()
            answer |= {
                "count": count,
                "pending": stats.pending,
                "dead": stats.dead,
                "heard": list(heard),
                "levels": list(levels),
                "breaks": list(breaks),
                "connection": chat.connection.state.value,
                "lost": metrics.loss * metrics.samples,
                "drops": metrics.drops,
                "quality": metrics.quality,
                "latency": metrics.latency_ms,
            }
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
