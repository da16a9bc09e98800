"""`chat.connection`: how the realtime connection fares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..core.errors import ChatError
from ..core.protocols.states import ConnectionState

if TYPE_CHECKING:
    from ..realtime.realtime import Realtime
    from ..realtime.status import ConnectionMetrics


class ConnectionResource:
    """The connection of this client's (or view's) user. Looking at it opens nothing."""

    def __init__(self, realtime: Callable[[], Realtime]) -> None:
        self._realtime = realtime

    @property
    def state(self) -> ConnectionState:
        """CLOSED, CONNECTING, CONNECTED, DISCONNECTED, RECONNECTING or FAILED."""
        return self._realtime().connection.state

    @property
    def connected(self) -> bool:
        """The server has taken us."""
        return self.state is ConnectionState.CONNECTED

    @property
    def status_text(self) -> str:
        """A line for people: "Connected (45s)", "Reconnecting in 3s (attempt 2/10), messages are polled"."""
        return self._realtime().status_text

    @property
    def polling(self) -> bool:
        """The websocket cannot be had and HTTP works: messages are fetched over HTTP (setting `poll_interval`), the
        same ones in the same order; edits, reactions, typing and the like do not come. Ends by itself."""
        return self._realtime().polling

    @property
    def reconnect_in(self) -> float | None:
        """Seconds until the next try; None if none is waited for."""
        return self._realtime().connection.reconnect_in

    @property
    def error(self) -> ChatError | None:
        """Why it is not connected, as far as that is known."""
        return self._realtime().connection.error

    @property
    def subscriptions(self) -> Mapping[str, str]:
        """Each channel's state, by its id: waiting, subscribed, failed, ended."""
        return self._realtime().states()

    def metrics(self) -> ConnectionMetrics:
        """state, connected, reconnects, queued_messages, dropped_messages, connection_duration_ms, url, polling,
        polls."""
        return self._realtime().metrics()

    def watch(self, observer: Callable[[ConnectionState], object]) -> Callable[[], None]:
        """Call `observer` with the state, now and at each change; returns a function that ends that. It is called by
        the thread that reads, so it must not wait for anything."""
        return self._realtime().watch(observer)
