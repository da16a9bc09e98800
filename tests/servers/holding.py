"""A program that forks while another thread holds a lock of ours, once for every lock there is: `python holding.py WAY
CHANNEL`. A fork with hooks may wait for a lock, which is then let go; what it does not wait for stays held.

Locks are found, not listed: every lock, condition and event that hangs at an object or a module of the client or of a
library under it.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from chatsdk import ChatClient, StorageError
from tests.servers.forking import bare_fork

OURS = ("chatsdk", "persistqueue", "urllib3", "requests", "circuitbreaker", "pluggy")
LOCKS = (type(threading.Lock()), type(threading.RLock()))
LET_GO_S = 0.2
CHILD_S = 5.0


def parts_of(owner: object) -> Iterator[tuple[str, Any]]:
    """What hangs at an object or a module, by name."""
    yield from list(getattr(owner, "__dict__", {}).items())
    for cls in type(owner).__mro__:
        for name in getattr(cls, "__slots__", ()):
            if hasattr(owner, name):
                yield name, getattr(owner, name)


def all_locks() -> dict[str, Any]:
    """Every lock by a name."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for owner in gc.get_objects():
        where: object = owner.__name__ if isinstance(owner, ModuleType) else type(owner).__module__
        if not isinstance(where, str) or where.partition(".")[0] not in OURS:
            continue
        label = where if isinstance(owner, ModuleType) else f"{where}.{type(owner).__name__}"
        for name, value in parts_of(owner):
            for each in value if isinstance(value, list) else [value]:
                lock = getattr(each, "_cond", each)  # an event has a condition, a condition has a lock
                lock = getattr(lock, "_lock", lock) if isinstance(lock, threading.Condition) else lock
                if isinstance(lock, LOCKS) and id(lock) not in seen:
                    seen.add(id(lock))
                    found[f"{label}.{name} {len(found)}"] = lock
    return found


def hold(locks: list[Any], held: threading.Event, forked: threading.Event, done: threading.Event) -> None:
    """In a thread of its own: hold locks while the main thread forks."""
    taken = [lock for lock in locks if lock.acquire(timeout=1.0)]
    held.set()
    if forked.wait(LET_GO_S):
        done.wait(CHILD_S)
    for lock in taken:
        lock.release()


def child(chat: ChatClient, channel: str, name: str) -> None:
    """Send, by a client whose lock nobody will ever release; does not return."""
    began = time.monotonic()
    try:
        state = str(chat.send(channel, name, wait=CHILD_S).state)
    except StorageError as error:
        state = error.message
    except BaseException as error:
        state = repr(error)
    os.write(1, (json.dumps({"lock": name, "state": state, "took": time.monotonic() - began}) + "\n").encode())
    os._exit(0)


def fork_while_held(chat: ChatClient, channel: str, way: str, name: str, locks: list[Any]) -> None:
    """One fork, and what became of the child."""
    held, forked, done = threading.Event(), threading.Event(), threading.Event()
    thread = threading.Thread(target=hold, args=(locks, held, forked, done))
    thread.start()
    held.wait()
    pid = bare_fork() if way == "bare" else os.fork()
    if pid == 0:
        child(chat, channel, name)
    forked.set()
    ends = time.monotonic() + CHILD_S
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > ends:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            print(json.dumps({"lock": name, "state": "it hangs", "took": CHILD_S}), flush=True)
            break
        time.sleep(0.005)
    done.set()
    thread.join()


def main(way: str, channel: str) -> None:
    """Hold each lock once, and then all at once."""
    if way == "bare":
        master = os.getpid()
        sys.modules["uwsgi"] = SimpleNamespace(masterpid=lambda: master)  # type: ignore[assignment]
    chat = ChatClient(workers=2)
    assert chat.send(channel, "first").delivered
    chat.users.me()
    for name, lock in all_locks().items():
        fork_while_held(chat, channel, way, name, [lock])
    fork_while_held(chat, channel, way, "all", list(all_locks().values()))
    print(json.dumps({"lock": "", "state": str(chat.send(channel, "last").state), "took": 0.0}), flush=True)
    chat.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
