"""What the tests of the protocols share: short ways to drive them, and the real server's book of rules."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from chatsdk.core.protocols.centrifugo import Centrifugo
from chatsdk.core.protocols.outputs import Output, Send
from chatsdk.core.tokens import Secret

TOKEN = Secret("a token")
CONNECTED = {"client": "c", "version": "v", "expires": True, "ttl": 900, "ping": 25, "pong": True}

Kind = TypeVar("Kind")


def frame(*messages: Any) -> bytes:
    """Messages as the server writes them, one a line."""
    return "\n".join(json.dumps(message, separators=(",", ":")) for message in messages).encode()


def commands(outputs: list[Output]) -> list[Any]:
    """What is sent, taken apart."""
    return [json.loads(line) for send in of(Send, outputs) for line in send.text.split("\n")]


def of(kind: type[Kind], outputs: list[Output]) -> list[Kind]:
    """The outputs of one kind."""
    return [output for output in outputs if isinstance(output, kind)]


def connected(now: float = 0.0, **facts: Any) -> Centrifugo:
    """A protocol whose connection is open since `now`."""
    protocol = Centrifugo()
    protocol.opened(TOKEN, now)
    protocol.receive(frame({"id": 1, "connect": {**CONNECTED, **facts}}), now)
    return protocol


def subscribed(stream: str = "chat:1", now: float = 0.0, **facts: Any) -> Centrifugo:
    """The same, and it hears a stream."""
    protocol = connected(now)
    (command,) = commands(protocol.subscribe(stream, TOKEN, None, now))
    protocol.receive(frame({"id": command["id"], "subscribe": {"expires": True, "ttl": 900, **facts}}), now)
    return protocol


class BadRequest(AssertionError):
    """The real server would have closed with 3501, or without a word, or refused a second subscription."""


class RuleBook:
    """One connection as the real server judges it: the recorded refusals, and its limits.

    `strict`: a subscription that stands or is asked for must not be asked for again; the server answers that with 105
    and goes on.
    """

    METHODS = frozenset(
        {
            *("connect", "subscribe", "unsubscribe", "publish", "presence", "presence_stats", "history", "rpc"),
            *("refresh", "sub_refresh"),
        }
    )

    def __init__(self, *, strict: bool = True) -> None:
        self.strict = strict
        self.asked_to_connect = False
        self.is_connected = False
        self.pings = 0
        self.ids: set[int] = set()
        self.under_way: dict[int, tuple[str, str]] = {}
        self.streams: set[str] = set()

    def sent(self, text: str) -> None:
        """Judge a frame. Raises BadRequest."""
        self._need(len(text.encode()) < 65_536, "a frame over 64 KiB")
        for line in text.split("\n"):
            try:
                message = json.loads(line)
            except ValueError:
                raise BadRequest(f"no JSON: {line!r}") from None
            self._need(isinstance(message, dict), "no object")
            if message == {}:
                self._need(self.pings > 0, "a pong without a ping")
                self.pings -= 1
            else:
                self._command(message)

    def _command(self, message: dict[str, Any]) -> None:
        number = message.pop("id", None)
        self._need(type(number) is int and number > 0, "no id")
        self._need(not self.strict or number not in self.ids, "an id twice")
        self._need(len(message) == 1, "not one method")
        ((method, params),) = message.items()
        self._need(method in self.METHODS, "an unknown method")
        self._need(isinstance(params, dict), "parameters that are no object")
        if method == "connect":
            self._need(not self.asked_to_connect, "connect twice")
            self.asked_to_connect = True
        else:
            self._need(self.is_connected, "a command before connect")
        if method in ("connect", "refresh", "sub_refresh") or "token" in params:
            self._need(bool(params.get("token")), "an empty token")
        channel = params.get("channel", "")
        self._need(bool(channel) or method in ("connect", "refresh", "rpc"), "an empty channel")
        self._need(method != "publish" or "data" in params, "nothing published")
        if method == "subscribe" and self.strict:
            self._need(params.get("recoverable") is True, "recovery impossible")
            asked = ("subscribe", channel) in self.under_way.values()
            self._need(channel not in self.streams and not asked, "subscribed twice")
        self.ids.add(number)
        self.under_way[number] = (method, channel)

    def answered(self, message: dict[str, Any]) -> None:
        """Note what the server says."""
        if message == {}:
            self.pings += 1
        method, channel = self.under_way.pop(message.get("id", 0), ("", ""))
        fine = "error" not in message
        if method == "connect" and fine:
            self.is_connected = True
            self.streams.update(message["connect"].get("subs", {}))
        elif method == "subscribe" and (fine or message["error"].get("code") == 105):
            self.streams.add(channel)
        elif method == "unsubscribe":
            self.streams.discard(channel)
        push = message.get("push", {})
        if "unsubscribe" in push:
            self.streams.discard(push.get("channel"))
        if "subscribe" in push:
            self.streams.add(push.get("channel"))

    @staticmethod
    def _need(fine: bool, otherwise: str) -> None:
        if not fine:
            raise BadRequest(otherwise)
