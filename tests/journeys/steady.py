"""Sends one message after another until it is told to stop: `python steady.py NAME CHANNEL [SETUP]`.

Each accepted text is printed, and "refused ..." for what was not; the end of standard input ends it, after it has sent
what waits. SETUP is Python that runs first, with the SDK imported.
"""

from __future__ import annotations

import sys
import threading

from chatsdk import ChatClient, NotAcceptedError
from tests.waiting import eventually

PACE_S = 0.005


def main(name: str, channel: str, setup: str = "") -> None:
    """Send until told."""
    exec(setup, {})
    told = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        told.set()

    threading.Thread(target=listen, daemon=True).start()
    number = 0
    with ChatClient() as chat:
        while not told.wait(PACE_S):
            text = f"{name} {number}"
            number += 1
            try:
                chat.send(channel, text, wait=0)
            except NotAcceptedError as error:
                print(f"refused {text} {error}", flush=True)
            else:
                print(text, flush=True)
        eventually(lambda: chat.outbox.stats().pending == 0, "delivery of the rest")


if __name__ == "__main__":
    main(*sys.argv[1:])
