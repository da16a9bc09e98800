"""When the oldest message that waits was accepted, found without looking at all that wait.

Theory. Ids only grow, and no row waits again under an id that was delivered or died: one that is retried by hand gets a
new id. So the lowest id that waits never falls, as long as the file is the same, and a look begins where the last one
ended. Mostly that row still waits: one look. What was delivered since is passed over, a bounded number of rows; where
more lies between (a long backlog was sent while nobody asked), each lane is asked for its first row, once.

No index serves this: it would be one more page to write for each message that comes and goes.
"""

from __future__ import annotations

import sqlite3

from .schema import TABLE

PASSED_OVER = 1000
"""Rows that a look passes over before it asks the lanes: about as quick as asking two hundred lanes."""

# NOT INDEXED: by id alone, whatever the planner thinks of the partial indexes
_NEXT = (
    f"SELECT _id, timestamp FROM (SELECT _id, timestamp, status FROM {TABLE} NOT INDEXED WHERE _id >= ? "
    "ORDER BY _id LIMIT ?) WHERE status < 2 LIMIT 1"
)
_OF_LANES = (
    f"SELECT min((SELECT min(_id) FROM {TABLE} t WHERE t.user = lanes.user AND t.channel = lanes.channel "
    "AND t.status < 2)) FROM lanes"
)


class Oldest:
    """What is known of one file. Not thread-safe: whoever holds the connection to read with may use it."""

    def __init__(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._id = 0  # nothing below it waits

    def accepted_at(self, connection: sqlite3.Connection) -> float | None:
        """Unix time at which the oldest waiting row was accepted, None if none waits."""
        if connection is not self._connection:  # the file was opened again, and may be another one
            self._connection, self._id = connection, 0
        found = connection.execute(_NEXT, (self._id, PASSED_OVER)).fetchone()
        if found is None:
            (first,) = connection.execute(_OF_LANES).fetchone()
            if first is None:
                return None
            found = connection.execute(f"SELECT _id, timestamp FROM {TABLE} WHERE _id = ?", (first,)).fetchone()
        self._id = int(found[0])
        return float(found[1])
