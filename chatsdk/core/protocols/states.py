"""The states of a realtime connection (seed 004), as a table.

    state         | what it means                               | may become
    --------------+---------------------------------------------+--------------------------------------------------
    CLOSED        | not asked for, or ended by us               | CONNECTING
    CONNECTING    | the first try since it was asked for        | CONNECTED, DISCONNECTED, FAILED, CLOSED
    CONNECTED     | the server takes us, heartbeats are due     | DISCONNECTED, FAILED, CLOSED
    DISCONNECTED  | lost; the next try is being waited for      | RECONNECTING, FAILED, CLOSED
    RECONNECTING  | a further try                               | CONNECTED, DISCONNECTED, FAILED, CLOSED
    FAILED        | given up: the last try failed, or the       | CONNECTING, CLOSED
                  | server said to stay away (seed 004: ERROR)  |

Whoever drives a connection moves only along this table; a move that is not in it is a mistake and raises.
"""

from __future__ import annotations

from enum import StrEnum


class ConnectionState(StrEnum):
    """Where a connection stands."""

    CLOSED = "CLOSED"
    CONNECTING = "CONNECTING"
    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"
    RECONNECTING = "RECONNECTING"
    FAILED = "FAILED"


_S = ConnectionState

MOVES: dict[ConnectionState, frozenset[ConnectionState]] = {
    _S.CLOSED: frozenset({_S.CONNECTING}),
    _S.CONNECTING: frozenset({_S.CONNECTED, _S.DISCONNECTED, _S.FAILED, _S.CLOSED}),
    _S.CONNECTED: frozenset({_S.DISCONNECTED, _S.FAILED, _S.CLOSED}),
    _S.DISCONNECTED: frozenset({_S.RECONNECTING, _S.FAILED, _S.CLOSED}),
    _S.RECONNECTING: frozenset({_S.CONNECTED, _S.DISCONNECTED, _S.FAILED, _S.CLOSED}),
    _S.FAILED: frozenset({_S.CONNECTING, _S.CLOSED}),
}


def move(old: ConnectionState, new: ConnectionState) -> ConnectionState:
    """`new`, if the table has that move. Raises ValueError."""
    if new not in MOVES[old]:
        raise ValueError(f"a connection does not go from {old} to {new}")
    return new
