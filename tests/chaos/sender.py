"""The sending process that is killed: `python sender.py`, a template that is forked for each run.

Starting an interpreter costs ten times what a run costs, so the template imports once what a run needs and then forks:
the child has everything that "after the imports" means, and opens and starts everything else itself. The template
itself opens nothing and has one thread. It is told what to do by lines on standard input, strictly in turn:

    {job}  -> a child is forked, which waits; answer: its process id
    go     -> the child runs; answer when it has ended: its exit status (-9: killed)

Jobs are the functions below, and those imported, by their names; `notes` is where a job says what it attempted and what
was acknowledged.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from chatsdk import ChatClient, StorageError
from tests.chaos.crowd import crowd
from tests.chaos.history import Name, Notebook
from tests.chaos.one_user import client
from tests.chaos.refreshing import lists_channels, sends_one
from tests.chaos.standstill import stands_in_its_lane, stands_in_its_refresh, stands_still

THREADS = 4
CHILD_S = 20.0
"""Seconds that a forked child may take; it takes a fraction of one."""


def one_shot(job: dict[str, Any]) -> None:
    """`rounds` messages, turn by turn to each channel, by two clients one after the other: first open, close with a
    checkpoint, and open again. Each message is sent before `send` returns, but every third is only put into the outbox,
    so that a kill also meets messages that wait."""
    notes = Notebook(job["notes"])
    middle = job["rounds"] * 2 // 3
    for part in (range(middle), range(middle, job["rounds"])):
        with client(job, background=False) as chat:
            for n in part:
                name = Name(job["channels"][n % len(job["channels"])], 0, 0, n)
                notes.begun(name)
                notes.accepted(name, chat.send(name.channel, name.text, wait=0 if n % 3 == 0 else None).key)
    with client(job, background=False) as chat:
        chat.outbox.flush(20)


def boastful(job: dict[str, Any]) -> None:
    """The mutant: it says "accepted" before `send` returned. The checker must find out."""
    notes = Notebook(job["notes"])
    with client(job, background=False) as chat:
        for n in range(job["rounds"]):
            name = Name(job["channels"][0], 0, 0, n)
            notes.begun(name)
            key = f"00000000-0000-4000-8000-{random.getrandbits(48):012x}"
            notes.accepted(name, key)
            chat.send(name.channel, name.text, key=key)
        chat.outbox.flush(20)


def recover(job: dict[str, Any]) -> None:
    """The next run: delivers what is left, and writes the outbox's own accounting into `answer`."""
    with client(job, background=False) as chat:
        chat.outbox.flush(job.get("flush", 30))
        stats = chat.outbox.stats()
    facts = {name: getattr(stats, name) for name in ("accepted", "delivered", "dead", "pending", "discarded")}
    Path(job["answer"]).write_text(json.dumps(facts))


def threaded(job: dict[str, Any]) -> None:
    """Several threads send to all channels, as fast as they can, until they are killed; some wait for delivery. What an
    earlier run left is counted into `answer`, and goes out meanwhile."""
    notes = Notebook(job["notes"])
    dice = random.Random(job["seed"])
    with client(job, background=True) as chat:
        with open(job["answer"], "a") as answer:
            answer.write(f"{chat.outbox.stats().pending}\n")
        threads = [
            threading.Thread(target=_send_all, args=(chat, notes, job, sender, dice.random()))
            for sender in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _send_all(chat: ChatClient, notes: Notebook, job: dict[str, Any], sender: int, seed: float) -> None:
    dice = random.Random(seed)
    for n in range(job["most"]):
        name = Name(dice.choice(job["channels"]), sender, job["run"], n)
        notes.begun(name)
        while True:
            try:
                receipt = chat.send(name.channel, name.text, wait=dice.choice((0, 0, 0, 0.05)))
                break
            except StorageError:  # not accepted: nothing happened, so the same message may be sent again
                continue
        notes.accepted(name, receipt.key)


def forking(job: dict[str, Any]) -> None:
    """Several threads send, and meanwhile the process is forked at random moments; each child sends with the client
    that it inherited, waits, and leaves. A child that hangs (on a lock that some thread held when it was forked) is an
    error."""
    notes = Notebook(job["notes"])
    dice = random.Random(job["seed"])
    with client(job, background=True) as chat:
        threads = [
            threading.Thread(target=_send_all, args=(chat, notes, job, sender, dice.random()))
            for sender in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        children = []
        for number in range(job["forks"]):
            time.sleep(dice.uniform(0, 0.03))  # the experiment itself: when the fork comes
            child = os.fork()
            if child == 0:
                _child(chat, notes, job, THREADS + number)
            children.append(child)
        for thread in threads:
            thread.join()
        ends = time.monotonic() + CHILD_S
        for child in children:
            while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
                if time.monotonic() > ends:
                    os.kill(child, signal.SIGABRT)  # it says on standard error where its threads are
                    raise RuntimeError("a forked child hangs")
                time.sleep(0.01)
            if ended[1]:
                raise RuntimeError("a forked child failed")


def _child(chat: ChatClient, notes: Notebook, job: dict[str, Any], sender: int) -> None:
    status = 1
    try:
        faulthandler.enable()
        _send_all(chat, notes, {**job, "most": 3}, sender, sender)
        chat.close()
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def modules(job: dict[str, Any]) -> None:
    """A whole run of both kinds, to say which modules one needs."""
    one_shot(job)
    threaded({**job, "seed": 0, "run": 1, "most": 1})
    # what has no spec was put there by a compiled module, and comes with it
    found = sorted(name for name, module in sys.modules.items() if getattr(module, "__spec__", None))
    Path(job["answer"]).write_text(json.dumps(found))


JOBS = {
    job.__name__: job
    for job in (
        *(one_shot, boastful, recover, threaded, forking, modules),
        *(crowd, lists_channels, sends_one, stands_still, stands_in_its_lane, stands_in_its_refresh),
    )
}


def _run(job: dict[str, Any], go: int) -> None:
    """In the child: wait for the word, do the job, leave without the template's belongings."""
    status = 1
    try:
        os.read(go, 1)
        JOBS[job["job"]](job)
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def main() -> None:
    """Fork a child for each job, one at a time."""
    while line := sys.stdin.readline():
        job = json.loads(line)
        if job["job"] == "import":
            for name in json.loads(Path(job["answer"]).read_text()):
                with contextlib.suppress(ImportError):  # one too few costs a few more points, and nothing else
                    importlib.import_module(name)
            print("done", flush=True)
            continue
        mine, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(theirs)
            _run(job, mine)
        os.close(mine)
        print(child, flush=True)
        if sys.stdin.readline():
            with contextlib.suppress(BrokenPipeError):  # it was killed before it heard the word
                os.write(theirs, b"g")
        os.close(theirs)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
