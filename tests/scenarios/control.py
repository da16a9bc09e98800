"""The same without the middleware: what a careful script does with `requests.post` and one `websocket-client`.

It raises where the server refuses, and it has a time-out. It has no retry, no outbox, no refresh and no reconnect: what
did not get through did not get through, and whoever wants it sent must call again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence

import requests
import websocket

from tests.chaos.listening.heard import Sight


class Script:
    """Sends a message by one POST. `timeout`: as long as ours has for a call."""

    def __init__(self, url: str, token: str, timeout: float) -> None:
        self._url, self._token, self._timeout = url, token, timeout

    def send(self, channel: str, text: str) -> str:
        """Send it, or raise. It has no key."""
        answer = requests.post(
            f"{self._url}/api/channels/{channel}/messages",
            json={"text": text},
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=self._timeout,
        )
        answer.raise_for_status()
        return "none"


class Ear:
    """Hears channels over one connection, until that is lost."""

    def __init__(self, url: str, token: str, channels: Sequence[str]) -> None:
        self.sights: list[Sight] = []
        wanted = "&".join(f"conversation_id={channel}" for channel in channels)
        self._socket = websocket.create_connection(
            f"ws{url.removeprefix('http')}/ws?{wanted}", header=[f"Authorization: Bearer {token}"], timeout=10
        )
        for _ in channels:
            assert json.loads(self._socket.recv())["type"] == "subscribed"
        self._socket.settimeout(None)
        self._thread = threading.Thread(target=self._hear, daemon=True)
        self._thread.start()

    @property
    def hears(self) -> bool:
        """Whether its connection is there still, as far as it knows."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End it."""
        self._socket.shutdown()  # type: ignore[no-untyped-call]
        self._thread.join(10)

    def _hear(self) -> None:
        try:
            while text := self._socket.recv():
                event = json.loads(text)
                if event["type"] == "message":
                    channel, seq = event["conversation_id"], event["sequence_number"]
                    self.sights.append(Sight(0, channel, event["id"], seq, False, event["text"]))
        except (OSError, websocket.WebSocketException):
            pass  # a script ends here
