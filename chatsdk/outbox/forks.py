"""The stores of this process, and what a fork does to them.

A directory is opened once in a process: a kernel lock belongs to the process, and two stores would take each other's
away. Before a fork each store stands still and closes its file (see `database`); afterwards parent and child go on,
each with locks of its own.

uWSGI's master loads the application and then forks its workers without any of Python's hooks. A thread of ours that was
in the middle of something would leave them an outbox that is busy for ever, so there the master has none
(`is_bare_master`): it delivers in the calling thread, and what it leaves the workers deliver.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from typing import Protocol

from ..core.errors import SettingsError


class Forkable(Protocol):
    """A store, as a fork sees it."""

    directory: str

    def before_fork(self) -> None: ...

    def after_fork_in_parent(self) -> None: ...

    def after_fork_in_child(self) -> None: ...


_lock = threading.Lock()
_stores: weakref.WeakValueDictionary[str, Forkable] = weakref.WeakValueDictionary()


def enter(store: Forkable) -> None:
    """The store is open from now on. Raises SettingsError if its directory is open already."""
    with _lock:
        if store.directory in _stores:
            raise SettingsError(
                f"{store.directory} is open in this process already", hint="chatsdk.outbox.shared.open_store shares it"
            )
        _stores[store.directory] = store


def leave(store: Forkable) -> None:
    """The store is closed."""
    with _lock:
        if _stores.get(store.directory) is store:
            del _stores[store.directory]


def is_bare_master() -> bool:
    """This process is the master of uWSGI, which forks without hooks."""
    uwsgi = sys.modules.get("uwsgi")  # there inside of uWSGI only
    return uwsgi is not None and uwsgi.masterpid() == os.getpid()


def _before() -> None:
    _lock.acquire()
    for store in list(_stores.values()):
        store.before_fork()


def _in_parent() -> None:
    for store in list(_stores.values()):
        store.after_fork_in_parent()
    _lock.release()


def _in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for store in list(_stores.values()):
        store.after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
