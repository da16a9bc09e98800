"""The exchanges recorded from a real Centrifugo, played against the development server.

Every recorded command is sent as it was, and what comes back must be what the real server answered. Client ids and
epochs are the server's own (each recorded one stands for one of ours), versions and seconds of life may differ.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from chatsdk.devserver.process import DevServer
from tests.devserver.wsclient import PING, WsClient

PATH = "/connection/websocket"
TRANSCRIPTS = Path(__file__).parents[1] / "data" / "centrifugo-transcripts.jsonl"
RECORDED = {found["scenario"]: found for found in map(json.loads, TRANSCRIPTS.read_text().splitlines())}
IMPATIENT = (
    "ping, no pong",
    "connection token runs out, no refresh sent",
    "subscription token runs out, no sub_refresh sent",
)
"""Scenarios that took the real server up to a minute; here the same with short delays."""
BOB_COMES, BOB_GOES = "bob connects and subscribes", "bob's connection is cut"


@pytest.fixture(scope="module")
def patient() -> Iterator[DevServer]:
    """Give a server with the settings of the recording."""
    with DevServer(ping_interval=5, pong_timeout=2) as server:
        yield server


@pytest.fixture(scope="module")
def impatient() -> Iterator[DevServer]:
    """Give a server that loses patience soon."""
    with DevServer(
        ping_interval=0.3, pong_timeout=0.2, expired_close_delay=0.1, expired_unsubscribe_delay=0.1
    ) as server:
        yield server


class Player:
    """Plays one scenario. `known` maps recorded ids and epochs to the server's."""

    def __init__(self, server: DevServer, scenario: str) -> None:
        self.server, self.scenario = server, scenario
        self.known: dict[str, str] = {}
        self.client: WsClient | None = None
        self.others: list[WsClient] = []

    def play(self) -> None:
        if before := BEFORE.get(self.scenario):
            before(self)
        for number, step in enumerate(RECORDED[self.scenario]["steps"]):
            if missing := INSERTED.get((self.scenario, number)):
                missing(self)
            getattr(self, f"do_{step['do']}")(step)

    def close(self) -> None:
        for client in [*self.others, *([self.client] if self.client else [])]:
            client.sock.close()

    @property
    def ws(self) -> WsClient:
        assert self.client is not None
        return self.client

    def do_open(self, step: Any) -> None:
        if self.client is not None:
            self.client.sock.close()
        wanted = step.get("subprotocol")
        self.client = WsClient(self.server.port, PATH, {"Sec-WebSocket-Protocol": wanted} if wanted else {})
        assert (f"sec-websocket-protocol: {wanted}" in self.client.answer_headers) == bool(wanted)
        self.client.answer_pings = self.scenario != "ping, no pong"

    def do_send(self, step: Any) -> None:
        self.ws.send(*self.filled(step["commands"]))

    def do_send_raw(self, step: Any) -> None:
        text = step["text"]
        if text.endswith("characters)"):
            head, _, length = text.rpartition("... (")
            text = head + "d" * (int(length.split()[0]) - len(head))
        self.ws.send_text(text)

    def do_ws_ping(self, step: Any) -> None:
        self.ws.send_frame(PING, step["payload"].encode())

    def do_server_api(self, step: Any) -> None:
        answer = self.server.realtime.api(step["method"], **self.filled(step["body"]))
        self.same(answer, step["answer"])

    def do_server_stop(self, _: Any) -> None:
        # In the background, as the real one: its last words are the next step.
        process = self.server.process
        assert process is not None
        process.terminate()

    def do_server_start(self, _: Any) -> None:
        self.server.restart()

    def do_note(self, step: Any) -> None:
        if step["text"] == BOB_COMES:
            bob = WsClient(self.server.port, PATH)
            self.others.append(bob)
            stream = "chat:app:c21"
            bob.send({"id": 1, "connect": {"token": self.token("connect", {"sub": "app:bob"})}})
            token = self.token("subscribe", {"sub": "app:bob", "channel": stream})
            bob.send({"id": 2, "subscribe": {"channel": stream, "token": token}})
            bob.until(lambda message: message.get("id") == 2)
        else:
            assert step["text"] == BOB_GOES
            self.others.pop().sock.close()

    def do_receive(self, step: Any) -> None:
        heed_pings = self.scenario == "ping, no pong"
        expected = [message for message in step["messages"] if heed_pings or message != {}]
        seen: list[Any] = []
        while len(seen) < len(expected):
            message = self.next_message()
            if heed_pings or message != {}:
                seen.append(message)
        for got, recorded in zip(seen, expected, strict=True):
            self.same(got, recorded)
        if not any({"close", "lost"} & set(message) for message in seen):
            assert self.ws.nothing_comes(0.05)

    def next_message(self) -> Any:
        try:
            return self.ws.message()
        except OSError as error:
            if isinstance(error, TimeoutError):
                raise
            return {"lost": type(error).__name__}

    # Values

    def filled(self, value: Any) -> Any:
        """A recorded command with tokens signed for this server, and with its ids and epochs."""
        if isinstance(value, dict):
            if "$jwt" in value:
                return self.token(*value["$jwt"])
            return {name: self.filled(each) for name, each in value.items()}
        if isinstance(value, list):
            return [self.filled(each) for each in value]
        return self.known.get(value, value) if isinstance(value, str) else value

    def token(self, _: str, claims: dict[str, Any]) -> str:
        claims = dict(claims)
        if "raw" in claims:
            return str(claims["raw"])
        secret = claims.pop("secret", self.server.ws_secret)
        ends = int(time.time()) + claims.pop("ttl", 900)
        return jwt.encode({"sub": "app:alice", "exp": ends, **claims}, secret, "HS256")

    def same(self, got: Any, recorded: Any, name: str = "") -> None:
        """Compares, and learns which of our ids and epochs a recorded one stands for."""
        if name in ("epoch", "client") and recorded not in self.known:
            self.known[recorded] = got
            assert isinstance(got, str)
            assert got
        elif name == "presence" and isinstance(recorded, dict):
            self.same({self.known.get(key, key): value for key, value in got.items()}, self.filled_keys(recorded), "")
        elif isinstance(recorded, dict):
            assert isinstance(got, dict), (got, recorded)
            assert set(got) == set(recorded), (got, recorded)
            for key in recorded:
                self.same(got[key], recorded[key], key)
        elif isinstance(recorded, list):
            assert isinstance(got, list), (got, recorded)
            assert len(got) == len(recorded), (got, recorded)
            for mine, theirs in zip(got, recorded, strict=True):
                self.same(mine, theirs)
        elif name == "version":
            assert isinstance(got, str)
        elif name == "ttl":
            assert recorded - 2 <= got <= recorded
        elif name == "ping" and self.scenario in IMPATIENT:
            assert got == 1
        else:
            assert got == self.known.get(recorded, recorded) if isinstance(recorded, str) else got == recorded

    def filled_keys(self, value: dict[str, Any]) -> dict[str, Any]:
        return {self.known.get(key, key): each for key, each in value.items()}


def _publish_150(player: Player) -> None:
    stream = "chat:app:c12"
    for number in range(150):
        answer = player.server.realtime.api("publish", channel=stream, data={"i": number})
    player.known["exWQRkBx"] = answer["result"]["epoch"]


def _subscribe_to_130(player: Player) -> None:
    for number in range(2, 132):
        stream = f"chat:app:many{number}"
        token = player.token("subscribe", {"channel": stream})
        player.ws.send({"id": number, "subscribe": {"channel": stream, "token": token}})
    replies = player.ws.until(lambda message: message.get("id") == 129)
    assert [reply["id"] for reply in replies if "subscribe" in reply] == list(range(2, 130))
    assert "join" in player.ws.message()["push"]


def _publish_400_unread(player: Player) -> None:
    for number in range(400):
        player.server.realtime.api("publish", channel="chat:app:c23", data={"i": number, "x": "y" * 20_000})
    came = player.ws.until(lambda message: "close" in message)
    received = [message for message in came if "push" in message]
    # The real server got 254 through: what its queue and the kernel's buffers held.
    assert [message["push"]["pub"]["data"]["i"] for message in received] == list(range(len(received)))
    assert 50 < len(received) < 400
    player.ws._messages.append(came[-1])


BEFORE: dict[str, Callable[[Player], None]] = {
    "recover: history no longer reaches back (150 published, 100 kept)": _publish_150,
}
INSERTED: dict[tuple[str, int], Callable[[Player], None]] = {
    ("more than 128 channels on one connection", 3): _subscribe_to_130,
    ("slow reader: 400 publications of 20 kB, not read", 5): _publish_400_unread,
}
"""Steps that the recording leaves out, before the step of this number."""


@pytest.mark.parametrize("scenario", [name for name in RECORDED if name not in IMPATIENT and "SIGTERM" not in name])
def test_transcript(patient: DevServer, scenario: str) -> None:
    """The development server answers each recorded command as the real Centrifugo did."""
    _play(patient, scenario)


@pytest.mark.parametrize("scenario", IMPATIENT)
def test_transcript_of_what_takes_long(impatient: DevServer, scenario: str) -> None:
    """Missing pongs and tokens that run out have the recorded consequences, after the delays of the settings."""
    _play(impatient, scenario)


def test_transcript_of_a_restart() -> None:
    """SIGTERM closes with 3001; with its memory gone the server has another epoch, and recovery fails as recorded."""
    with DevServer(ping_interval=5, pong_timeout=2) as server:
        _play(server, "server stops (SIGTERM), starts anew with an empty history; recovery asked")


def test_all_transcripts_are_played() -> None:
    """None of the 56 recorded exchanges is left out."""
    assert len(RECORDED) == 56
    assert {key for key, _ in INSERTED} | set(BEFORE) | set(IMPATIENT) <= set(RECORDED)


def _play(server: DevServer, scenario: str) -> None:
    player = Player(server, scenario)
    try:
        player.play()
    finally:
        player.close()
