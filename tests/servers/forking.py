"""A program that starts its client, forks, and sends in every process: `python forking.py WAY LEAVE GO CHANNEL...`.

The first channel is the parent's, the others are its children's, one each. Every process says by a line of JSON on
standard output that it has sent. The children go on when the file GO is there: they send without waiting and leave.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import sys
import time
from types import SimpleNamespace
from typing import Any

from chatsdk import ChatClient

ROWS = 20

chat: ChatClient | None = None


def say(**facts: Any) -> None:
    """One line at once: several processes write to one pipe."""
    os.write(1, (json.dumps({"pid": os.getpid(), **facts}) + "\n").encode())


def child(channel: str, leave: str, go: str) -> None:
    """Send with the client that was inherited, or with one of this process's own."""
    global chat
    began = time.monotonic()
    if chat is None:
        chat = ChatClient()
    receipt = chat.send(channel, "child first")
    took = time.monotonic() - began
    chat.users.me()  # by a connection of this process, also if another one was quicker to deliver
    say(what="child", took=took, state=str(receipt.state))
    while not os.path.exists(go):
        time.sleep(0.01)
    for n in range(3):
        chat.send(channel, f"child {n}", wait=0)
    if leave == "close":
        chat.close()


def bare_fork() -> int:
    """As uWSGI does it: no hook of Python's runs."""
    return int(ctypes.PyDLL(None).fork())  # PyDLL keeps the interpreter's lock, so the child has it


def main(way: str, leave: str, go: str, *channels: str) -> None:
    """The parent."""
    global chat
    if way == "bare":
        master = os.getpid()
        sys.modules["uwsgi"] = SimpleNamespace(masterpid=lambda: master)  # type: ignore[assignment]
    chat = ChatClient()
    if leave != "cold":  # else its thread is still importing what it needs when this one forks
        assert chat.send(channels[0], "parent first").delivered
    for n in range(ROWS):
        chat.send(channels[0], f"parent {n}", wait=0)  # most of them wait when it forks
    children: list[Any] = []
    for channel in channels[1:]:
        if way in ("os.fork", "bare"):
            pid = os.fork() if way == "os.fork" else bare_fork()
            if pid == 0:
                child(channel, leave, go)
                sys.exit(0)
            children.append(pid)
        else:
            context: Any = multiprocessing.get_context(way)
            process = context.Process(target=child, args=(channel, leave, go))
            process.start()
            children.append(process)
    chat.send(channels[0], "parent last")
    chat.users.me()
    say(what="parent")
    codes = []
    for each in children:
        if isinstance(each, int):
            codes.append(os.waitstatus_to_exitcode(os.waitpid(each, 0)[1]))
        else:
            each.join()
            codes.append(each.exitcode)
    say(what="joined", codes=codes)
    sys.stdin.readline()
    chat.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
