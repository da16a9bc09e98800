"""One store a process and directory, however many clients use it.

A kernel lock belongs to the whole process: two stores on one directory would take each other's locks away. So clients
share one, it is counted, and the last `close()` closes it. The first one's limits hold; everybody is told its events.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from ..core.store import OutboxStore
    from .store import SQLiteStore

_lock = threading.Lock()
_open: dict[str, tuple[SQLiteStore, int]] = {}

_OTHER_HALF = "persistqueue.async_queue"


class SharedStore:
    """One client's share of a store: the store's verbs, and a `close()` of its own, which is idempotent."""

    def __init__(self, store: SQLiteStore, emit: Any) -> None:
        self._store = store
        self._emit = emit
        self._closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def close(self) -> None:
        """The last one closes the store."""
        with _lock:
            if self._closed:
                return
            self._closed = True
            directory = self._store.directory
            store, count = _open[directory]
            if self._emit in store.listeners:
                store.listeners.remove(self._emit)
            if count > 1:
                _open[directory] = store, count - 1
                return
            del _open[directory]
            store.close()


def open_store(directory: str | os.PathLike[str], **options: Any) -> OutboxStore:
    """The store of `directory`; `options` as for `SQLiteStore`. Close it when done. Raises SettingsError,
    StorageError."""
    store_class = _import_store()
    path = os.path.abspath(directory)
    path = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    emit = options.get("emit")
    with _lock:
        known = _open.get(path)
        if known is None:
            store = store_class(path, **options)
            _open[path] = store, 1
        else:
            store, count = known
            if emit is not None:
                store.listeners.append(emit)
            _open[path] = store, count + 1
    # it has every verb of the store, by __getattr__
    return cast("OutboxStore", SharedStore(store, emit))


def _import_store() -> type[SQLiteStore]:
    """Import what is heavy: sqlite3 and persistqueue. That one imports asyncio for its other half, to find only then
    that aiofiles is missing; where it is, we say so first, and spare a short process a tenth of its time. What it logs
    while it is imported (a choice of pickles, extras that nobody needs) would only puzzle our users."""
    new = "persistqueue" not in sys.modules
    hidden = new and find_spec("aiofiles") is None
    log = logging.getLogger("persistqueue")
    quiet = new and log.level == logging.NOTSET  # else the application has said what it wants
    if hidden:
        sys.modules[_OTHER_HALF] = None  # type: ignore[assignment]  # the import system's way to say: there is none
    if quiet:
        log.setLevel(logging.WARNING)
    try:
        from .store import SQLiteStore
    finally:
        if quiet:
            log.setLevel(logging.NOTSET)
        if hidden:
            sys.modules.pop(_OTHER_HALF, None)
    return SQLiteStore


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
