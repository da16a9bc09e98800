"""A whole client that listens to a development server, and keeps what it was told."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from chatsdk import ChatClient, events
from chatsdk.core.protocols.states import ConnectionState
from chatsdk.devserver.process import DevServer
from tests.waiting import eventually

LIMIT = 15.0
"""Seconds after which something that should happen is taken not to happen."""

PROTOCOLS = ("centrifugo", "json")


class Listener:
    """bob, or another `user`, who listens. `events`: what his handlers were given; `states`: what an observer of his
    connection saw."""

    def __init__(
        self, server: DevServer, directory: Path, protocol: str = "centrifugo", *, user: str = "bob", **options: Any
    ) -> None:
        given = {
            "ws_token": server.session(user)["wsToken"],
            "state_dir": str(directory),
            "realtime": protocol,
            "discover": False,
            "reconnect": "fast",
            **options,
        }
        self.protocol = protocol
        self.chat = ChatClient(server.url, server.mint(user), **given)
        self.events: list[events.Event] = []
        self.states: list[ConnectionState] = []
        self.chat.on(events.Event, self.events.append)
        self.chat.connection.watch(self.states.append)

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.chat.close(2.0)

    def hear(self, *channels: str, **options: Any) -> Listener:
        """Subscribe, and wait until they are heard."""
        self.chat.subscribe(channels, **options)
        eventually(lambda: all(self.chat.connection.subscriptions[channel] == "subscribed" for channel in channels))
        return self

    def texts(self, channel: str) -> list[str | None]:
        """The messages of a channel, as they came."""
        return [event.message.text for event in self.received(channel)]

    def received(self, channel: str) -> list[events.MessageReceived]:
        return [event for event in self.of(events.MessageReceived) if event.channel == channel]

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of a class."""
        return [event for event in list(self.events) if isinstance(event, kind)]
