"""What a connection shows of itself: figures, and a line for people."""

from __future__ import annotations

from math import ceil
from urllib.parse import urlsplit

from ..core.protocols.states import ConnectionState
from ..core.record import Record, record


@record(frozen=True, slots=True, kw_only=True)
class ConnectionMetrics(Record):
    """The figures of seed 004.

    state                   where it stands
    connected               whether that is CONNECTED
    reconnects              how often it was connected again after a loss
    queued_messages         fire-and-forget frames that wait for the connection
    dropped_messages        those that were given up, because too many waited
    connection_duration_ms  how long it has been connected, 0 if it is not
    url                     of the server, without query
    polling                 messages are fetched over HTTP meanwhile
    polls                   how often a channel was asked for so
    """

    state: ConnectionState
    connected: bool
    reconnects: int
    queued_messages: int
    dropped_messages: int
    connection_duration_ms: int
    url: str
    polling: bool = False
    polls: int = 0


def with_polling(text: str, polling: bool) -> str:
    """The line for people while messages are polled."""
    return f"{text}, messages are polled" if polling else text


def status_text(
    state: ConnectionState,
    *,
    connected_for: float = 0.0,
    reconnect_in: float | None = None,
    attempt: int = 0,
    limit: int | None = None,
    reason: str = "",
) -> str:
    """Such as "Connected (45s)", "Reconnecting in 3s (attempt 2/10)", "Failed: ..."; times in seconds."""
    tries = f"(attempt {attempt})" if limit is None else f"(attempt {attempt}/{limit})"
    match state:
        case ConnectionState.CONNECTED:
            return f"Connected ({_duration(connected_for)})"
        case ConnectionState.CONNECTING:
            return "Connecting..."
        case ConnectionState.DISCONNECTED:
            return f"Reconnecting in {ceil(reconnect_in or 0)}s {tries}"
        case ConnectionState.RECONNECTING:
            return f"Reconnecting... {tries}"
        case ConnectionState.FAILED:
            return f"Failed: {reason}" if reason else "Failed"
        case _:
            return "Not connected"


def shown_url(url: str) -> str:
    """A URL as people may see it: a query may hold a token."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else ""


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    return f"{whole // 3600}h {whole // 60 % 60}m"
