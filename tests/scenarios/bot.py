"""Who listens with chatsdk, and keeps what its handlers were given."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from chatsdk import ChatClient, events
from chatsdk.core.protocols.states import ConnectionState
from tests.chaos.listening.heard import Sight
from tests.waiting import eventually


class Bot:
    """A client that hears channels. `sights`, `gaps`: as the judge of listeners wants them; `states`: when its
    connection was in which state."""

    def __init__(self, url: str, token: str, channels: Sequence[str], **settings: Any) -> None:
        self.sights: list[Sight] = []
        self.gaps: list[str] = []
        self.states: list[tuple[float, ConnectionState]] = []
        self._channels = channels
        self.chat = ChatClient(url, token, discover=False, **settings)
        self.chat.on(events.MessageReceived, self._hear)
        self.chat.on(events.Gap, self._miss)

    def __enter__(self) -> Bot:
        self.chat.connection.watch(lambda state: self.states.append((time.monotonic(), state)))
        self.chat.subscribe(self._channels)
        eventually(lambda: self._subscribed, "subscribing", 20.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.chat.close(2.0)

    @property
    def _subscribed(self) -> bool:
        states = self.chat.connection.subscriptions
        return all(states.get(channel) == "subscribed" for channel in self._channels)

    def _hear(self, event: events.MessageReceived) -> None:
        seq = -1 if event.seq is None else event.seq
        sight = Sight(0, event.channel, event.message_id or "", seq, event.late, event.message.text or "")
        self.sights.append(sight)

    def _miss(self, gap: events.Gap) -> None:
        if gap.channel:  # what is for the user alone has no history, and no messages
            self.gaps.append(f"{gap.channel} {gap.reason}")

    @property
    def lost(self) -> int:
        """How often its connection was lost."""
        return [state for _, state in list(self.states)].count(ConnectionState.DISCONNECTED)

    def away(self) -> list[float]:
        """Seconds of each loss that is over, from when it was noticed until it was connected again."""
        found, since = [], None
        for at, state in list(self.states):
            if state is ConnectionState.DISCONNECTED and since is None:
                since = at
            elif state is ConnectionState.CONNECTED and since is not None:
                found.append(at - since)
                since = None
        return found
