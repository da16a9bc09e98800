"""Processes whose token has expired, while their session has not; and what they say came of it."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

from chatsdk import ChatError, events
from tests.chaos.history import Name, Notebook
from tests.chaos.one_user import client


def lists_channels(job: dict[str, Any]) -> None:
    """One read, which takes a refresh first. Writes "ok", or which error it was, into `answer`. With `lockless` it is
    the mutant that takes no lock."""
    if job.get("lockless"):
        _take_no_lock()
    with client(job, background=job.get("background", False), refresh_token=job["refresh"]) as chat:
        try:
            list(chat.channels.list())
            said = "ok"
        except ChatError as error:
            said = f"{type(error).__name__} {error.code}: {error.hint}"
    Path(job["answer"]).write_text(said)


def sends_one(job: dict[str, Any]) -> None:
    """The next run sends one message and writes what it was told into `answer`: the receipt's state and reason, the
    events about the session and what was logged as an error; and, where it was not sent, its state after the operator
    brought the token `fresh`."""
    notes = Notebook(job["notes"])
    name = Name(job["channels"][0], 0, 0, 0)
    told: list[str] = []
    logged: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("chatsdk").addHandler(handler)
    with client(job, background=False, refresh_token=job["refresh"]) as chat:
        chat.on(events.TokenExpired, lambda event: told.append(type(event).__name__))
        notes.begun(name)
        receipt = chat.send(name.channel, name.text, wait=5)
        notes.accepted(name, receipt.key)
        first = receipt.state.value, receipt.reason
        if receipt.state.value != "SENT":
            chat.connect_user(chat.user, job["fresh"])
            chat.outbox.flush(5)
        answer = {"first": first, "told": told, "logged": logged, "last": receipt.state.value}
    Path(job["answer"]).write_text(json.dumps(answer))


def _take_no_lock() -> None:
    from chatsdk.auth.pairs import PairStore

    setattr(PairStore, "lock", lambda *_: contextlib.nullcontext())  # noqa: B010 - mypy: a method
