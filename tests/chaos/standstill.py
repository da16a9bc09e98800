"""Processes that stop with a lock in their hands, as SIGSTOP from outside would stop them just then."""

from __future__ import annotations

import os
import signal
from typing import Any

from chatsdk.plugin import CallNext, Middleware, Request, Response, Stage, hookimpl
from tests.chaos.history import Name, Notebook
from tests.chaos.one_user import client


def stands_still(job: dict[str, Any]) -> None:
    """Sends one message to each channel; on the way, when the row of the first is written and not committed, it
    stops."""
    from chatsdk.outbox import rows

    put = rows.put

    def put_and_stop(*arguments: Any) -> Any:
        found = put(*arguments)
        setattr(rows, "put", put)  # noqa: B010 - mypy: a function of another shape
        os.kill(os.getpid(), signal.SIGSTOP)
        return found

    setattr(rows, "put", put_and_stop)  # noqa: B010
    notes = Notebook(job["notes"])
    with client(job, background=True) as chat:
        for channel in job["channels"]:
            name = Name(channel, 0, 0, 0)
            notes.begun(name)
            notes.accepted(name, chat.send(channel, name.text, wait=0).key)


def stands_in_its_lane(job: dict[str, Any]) -> None:
    """Sends one message, and stops on the way to the server: the message's lane is its own."""
    notes = Notebook(job["notes"])
    # one worker: another one might be holding the file lock just then
    with client(job, background=True, workers=1, plugins=[_StopsOnce()]) as chat:
        name = Name(job["channels"][0], 0, 0, 0)
        notes.begun(name)
        notes.accepted(name, chat.send(name.channel, name.text).key)


class _StopsOnce:
    def __init__(self) -> None:
        self._stops = True

    @hookimpl
    def chatsdk_middleware(self) -> Middleware:
        """One layer, around each try."""
        return Middleware("stops-once", Stage.ATTEMPT, self._call)

    def _call(self, request: Request, call_next: CallNext) -> Response:
        if self._stops:
            self._stops = False
            os.kill(os.getpid(), signal.SIGSTOP)
        return call_next(request)


def stands_in_its_refresh(job: dict[str, Any]) -> None:
    """Reads once, with a token that has expired, and stops when it has the new pair and nobody else can have it."""
    from chatsdk.auth.pairs import PairStore

    save = PairStore.save

    def stop_and_save(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        save(*arguments)

    setattr(PairStore, "save", stop_and_save)  # noqa: B010
    with client(job, background=False, refresh_token=job["refresh"]) as chat:
        list(chat.channels.list())
