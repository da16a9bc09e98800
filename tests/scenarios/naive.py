"""The control of the battery saver: the clients of seeds 000, 001 and 004 as their prose has them, and no more.

A monitor that asks `/health` every ten seconds (000's and 001's), a websocket whose heartbeat is 30 s (004's), and a
queue that sends every pending message again every 30 s, as long as there is one (000's), without a circuit. Each
interval is a timer of its own, as there. Connections are kept alive between requests where the server does so, and what
is pending is held in memory: a control that is cheaper than what it stands for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from time import monotonic

import requests
import websocket

HEALTH_S = 10.0
RETRY_S = 30.0
HEARTBEAT_S = 30.0
"""Seconds between two of each (seeds 000, 001, 004)."""

TIMEOUT_S = 10.0
"""For a request: as long as ours may take."""


class Every:
    """Something done every so many seconds, for the first time when they are over."""

    def __init__(self, seconds: float, chore: Callable[[], object]) -> None:
        self._seconds = seconds
        self._chore = chore
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """No more of it."""
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        due = monotonic() + self._seconds
        while not self._ended.wait(max(0.0, due - monotonic())):
            due += self._seconds
            self._chore()


class NaiveQueue:
    """Sends what is pending again and again, and asks how the server is. `faster`: how many times as fast."""

    def __init__(self, url: str, token: str, faster: float) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"
        self.pending: list[tuple[str, dict[str, str]]] = []
        self._timers = [Every(HEALTH_S / faster, self.ask), Every(RETRY_S / faster, self.retry_all)]

    def ask(self) -> None:
        """How the server is."""
        self._try("GET", "/health", None)

    def retry_all(self) -> None:
        """Each of them, one after the other."""
        self.pending = [message for message in self.pending if not self._try("POST", *message)]

    def close(self) -> None:
        """The end."""
        for timer in self._timers:
            timer.end()

    def _try(self, method: str, path: str, body: dict[str, str] | None) -> bool:
        try:
            return self._session.request(method, self._url + path, json=body, timeout=TIMEOUT_S).ok
        except requests.RequestException:
            return False


class NaiveBot(NaiveQueue):
    """The same with nothing to send, and a plain websocket that it listens to."""

    def __init__(self, url: str, ws_url: str, token: str, faster: float, heard: Callable[[object], object]) -> None:
        super().__init__(url, token, faster)
        self._socket = websocket.create_connection(ws_url, header=[f"Authorization: Bearer {token}"], timeout=TIMEOUT_S)
        self._socket.settimeout(None)
        self._heard = heard
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._timers.append(Every(HEARTBEAT_S / faster, self._beat))

    def listen(self, channels: list[str]) -> None:
        """Subscribe."""
        for channel in channels:
            self._socket.send(json.dumps({"type": "subscribe", "conversation_id": channel}))

    def close(self) -> None:
        """The end."""
        super().close()
        self._socket.close()

    def _beat(self) -> None:
        self._socket.send('{"type":"ping"}')

    def _read(self) -> None:
        try:
            while frame := self._socket.recv():
                said = json.loads(frame)
                if said.get("type") != "pong":
                    self._heard(said)
        except (OSError, websocket.WebSocketException):
            return
