"""The outbox file as persistqueue opens it: the only file that imports persistqueue.

`OutboxQueue` is its `SQLiteAckQueue` with our table: its way of opening, naming and serialising, its columns and status
codes. As it comes, that class is neither safe for several processes nor able to express keys, delays or order; so what
it would do to the table is done by `store` instead, and verbs that would do harm refuse by name.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from typing import Any, NoReturn
from urllib.parse import quote

from persistqueue import SQLiteAckQueue
from persistqueue.serializers import json as json_serializer

from ..core.errors import SettingsError
from . import quarantine, schema
from .database import SYNCS_LOG, leak

WAL_KEPT = 16 << 20
"""Bytes that the write-ahead log keeps on disk after a burst."""


def _refuse(verb: str, instead: str) -> Any:
    def refused(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise TypeError(f"SQLiteAckQueue.{verb} would break the outbox's accounting; use {instead}")

    refused.__name__ = verb
    return refused


class OutboxQueue(SQLiteAckQueue):
    """Two connections to an outbox file, by persistqueue's conventions. Counts and `queue()` tell the truth of the
    table; what would change a row refuses with TypeError. Raises Unusable, SettingsError, sqlite3.Error."""

    _SQL_CREATE = schema.CREATE_TABLE

    def __init__(self, directory: str, file: str = schema.FILE, *, new: bool = False, timeout: float = 2.0) -> None:
        self._pid = os.getpid()
        self._new = new
        super().__init__(
            directory,
            auto_resume=False,
            name=schema.QUEUE_NAME,
            multithreading=True,
            timeout=timeout,
            serializer=json_serializer,
            db_file_name=file,
        )
        getter, putter = self._opened()
        self.reader: sqlite3.Connection = getter
        self.writer: sqlite3.Connection = putter
        self.reader.execute("PRAGMA query_only = ON")

    def _new_db_connection(self, path: str, multithreading: bool, timeout: float) -> sqlite3.Connection:
        file = os.path.join(path, self.db_file_name)
        connection = sqlite3.connect(
            f"file:{quote(file)}?mode=rw",  # never makes the file: that is `Database`'s business
            uri=True,
            timeout=timeout,
            isolation_level=None,
            check_same_thread=not multithreading,
            cached_statements=256,
        )
        try:
            if self._new:
                connection.execute("PRAGMA synchronous = OFF")  # a draft, which `Database` syncs when it is whole
            else:
                quarantine.judge(connection, file)
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise SettingsError(
                    f"the file system of {path} cannot do write-ahead logging",
                    hint="put the state directory on a local disk (CHATSDK_STATE_DIR)",
                )
            if not self._new:
                # FULL would sync the log inside of COMMIT, while all other processes wait for the file lock
                connection.execute(f"PRAGMA synchronous = {'NORMAL' if SYNCS_LOG else 'FULL'}")
            for pragma in ("fullfsync = ON", f"journal_size_limit = {WAL_KEPT}"):
                connection.execute(f"PRAGMA {pragma}")
        except BaseException:
            connection.close()
            raise
        return connection

    # ---- true

    @property
    def total(self) -> int:
        """Pending rows, of all processes."""
        return self._count()

    @total.setter
    def total(self, value: int) -> None:
        """The table counts; persistqueue's own number is not kept."""

    def _count(self) -> int:
        if self._new or not self._opened():
            return 0
        return int(self._opened()[0].execute("SELECT pending FROM counters").fetchone()[0])

    def _ack_count_via_status(self, status: str) -> int:
        # a number in the text, not a parameter: only so the partial indexes are used
        query = f"SELECT count(*) FROM {schema.TABLE} WHERE status = {int(status)}"
        return int(self._opened()[0].execute(query).fetchone()[0])

    def _opened(self) -> Sequence[Any]:
        """The connections that there are; persistqueue has None for what is not open yet."""
        return [each for each in (getattr(self, "_getter", None), getattr(self, "_putter", None)) if each is not None]

    def __del__(self) -> None:
        if os.getpid() != self._pid:
            leak(*self._opened())
            return
        for each in self._opened():
            each.close()

    # ---- refused

    put: Any = _refuse("put", "SQLiteStore.put")
    get: Any = _refuse("get", "SQLiteStore.claim")
    get_nowait: Any = _refuse("get_nowait", "SQLiteStore.claim")
    ack: Any = _refuse("ack", "SQLiteStore.finish")
    ack_failed: Any = _refuse("ack_failed", "SQLiteStore.bury")
    nack: Any = _refuse("nack", "SQLiteStore.park or release")
    update: Any = _refuse("update", "SQLiteStore.park; what was accepted never changes")
    task_done: Any = _refuse("task_done", "SQLiteStore.finish")
    full: Any = _refuse("full", "SQLiteStore.stats and the limits it was opened with")
    resume_unack_tasks: Any = _refuse("resume_unack_tasks", "SQLiteStore.sweep, which frees the lanes of the dead only")
    clear_acked_data: Any = _refuse("clear_acked_data", "SQLiteStore.sweep")
    shrink_disk_usage: Any = _refuse("shrink_disk_usage", "sqlite3's VACUUM while no process has the outbox open")
