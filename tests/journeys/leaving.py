"""A script that sends without waiting and leaves at once, in the way that is named: `python leaving.py WAY CHANNEL`."""

from __future__ import annotations

import os
import signal
import sys

from chatsdk import ChatClient


def leave(way: str) -> None:
    """End the program."""
    if way == "SystemExit":
        raise SystemExit(3)
    if way == "exception":
        raise RuntimeError("the program's own mistake")
    if way == "ctrl-c":
        signal.raise_signal(signal.SIGINT)
    if way == "sigterm":
        signal.raise_signal(signal.SIGTERM)
    if way == "_exit":
        os._exit(4)


def main(way: str, channel: str) -> None:
    """Send three messages; not even the client is closed."""
    chat = ChatClient()
    for n in range(3):
        chat.send(channel, f"{way} {n}", wait=False)
    print("sent", flush=True)
    leave(way)


if __name__ == "__main__":
    main(*sys.argv[1:])
