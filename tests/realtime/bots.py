"""A listener of the development server over real sockets: connection, subscriptions, handlers and cursors; and somebody
who writes."""

from __future__ import annotations

import http.client
import json
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from chatsdk import ChatClient
from chatsdk.auth import read_payload
from chatsdk.core.backoff import Backoff
from chatsdk.core.chatsdk_backend import ChatSDKBackend
from chatsdk.core.events import Event
from chatsdk.core.realtime_events import Gap, MessageReceived, SubscriptionStateChanged
from chatsdk.core.tokens import Secret
from chatsdk.devserver.process import DevServer
from chatsdk.realtime.realtime import Kind, Realtime, Workshop

WAIT = 30.0
QUICK = Backoff(tries=0, first=0.02, factor=1.5, cap=0.2, low=0.5, high=1.0)
"""Reconnects of tests."""


class Bot:
    """bob (or another user), who listens. `seen`: the seqs of each channel, as the handlers saw them."""

    def __init__(
        self,
        server: DevServer,
        state: Path,
        *,
        user: str = "bob",
        kind: Kind = "centrifugo",
        cursors: Path | None = None,
        on_message: Callable[[MessageReceived], object] | None = None,
        **options: Any,
    ) -> None:
        self.server = server
        self.changed = threading.Condition()
        self.events: list[Event] = []
        self.seen: dict[str, list[int]] = defaultdict(list)
        self.late: list[int] = []
        self.states: dict[str, str] = {}
        self.on_event: Callable[[Event], object] = lambda _: None
        self.client = ChatClient(server.url, server.tokens[user], user=user, state_dir=str(state), discover=False)
        self.workshop = Workshop(self.handle, cursors, on_message=on_message)
        token = server.tokens[user] if kind == "json" else server.session(user)["wsToken"]
        self.realtime = Realtime(
            user,
            server.ws_url if kind == "centrifugo" else server.plain_url,
            ChatSDKBackend(),
            self.workshop,
            ask=lambda call: self.client.call(call, fresh=True),
            kind=kind,
            ws_token=lambda _: Secret(token),
            claims=lambda secret: read_payload(secret.reveal()) if kind == "centrifugo" else {},
            headers=None if kind == "centrifugo" else lambda _: {"Authorization": f"Bearer {token}"},
            reconnect=[QUICK],
            **options,
        )

    def handle(self, event: Event) -> None:
        self.on_event(event)
        with self.changed:
            self.events.append(event)
            if isinstance(event, MessageReceived):
                assert event.seq is not None
                self.seen[event.channel].append(event.seq)
                if event.late:
                    self.late.append(event.seq)
            elif isinstance(event, SubscriptionStateChanged):
                self.states[event.channel] = event.state
            self.changed.notify_all()

    def hear(self, *channels: str, since: int | None = None) -> None:
        """Subscribe, and wait until they are heard."""
        self.realtime.subscribe(channels, since)
        assert self.realtime.connect(WAIT)
        self.wait_for(lambda: all(self.states.get(channel) == "subscribed" for channel in channels))

    def wait_for(self, true: Callable[[], object], seconds: float = WAIT) -> None:
        end = time.monotonic() + seconds
        with self.changed:
            while not true():
                left = end - time.monotonic()
                assert left > 0, (
                    f"waited in vain: {self.realtime.connection.status_text}, states {self.states}, "
                    f"seen { ({each: seqs[-10:] for each, seqs in self.seen.items()}) }"
                )
                self.changed.wait(min(left, 0.5))

    def wait_for_seqs(self, channel: str, count: int) -> None:
        """Until so many messages of the channel were seen."""
        self.wait_for(lambda: len(self.seen[channel]) >= count)

    def gaps(self) -> list[Gap]:
        return [event for event in self.events if isinstance(event, Gap) and event.channel]

    def __enter__(self) -> Bot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.realtime.close(5.0)
        self.workshop.close(5.0)
        self.client.close()


class Writer:
    """alice, over one connection."""

    def __init__(self, server: DevServer) -> None:
        self.server = server
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)

    def request(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.server.tokens['alice']}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body)
        self.connection.request(method, path, data, headers if body is not None else {**headers, "Content-Type": ""})
        answer = self.connection.getresponse()
        text = answer.read()
        assert answer.status < 300, (answer.status, text)
        return json.loads(text)

    def send(self, channel: str, texts: Iterable[str]) -> list[dict[str, Any]]:
        path = f"/api/channels/{channel}/messages"
        return [self.request("POST", path, {"text": text, "clientMsgId": str(uuid.uuid4())}) for text in texts]

    def write(self, channel: str, count: int, between: Callable[[int], object] = lambda _: None) -> None:
        """Send so many, and do something after each."""
        for number in range(count):
            self.send(channel, [f"text {number}"])
            between(number)
