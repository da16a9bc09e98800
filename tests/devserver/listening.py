"""Raw clients of the server's realtime side, subscribed and ready."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chatsdk.devserver.process import DevServer
from tests.devserver.wsclient import WsClient

PATH = "/connection/websocket"


@contextmanager
def listening(server: DevServer, user: str, *streams: str, **wish: Any) -> Iterator[WsClient]:
    """A Centrifugo client that hears these streams. `wish` goes into each subscribe: recoverable, recover, ..."""
    with WsClient(server.port, PATH) as client:
        client.send({"id": 1, "connect": {"token": server.session(user)["wsToken"]}})
        assert "connect" in client.message()
        for number, stream in enumerate(streams, 2):
            subscribe(server, client, user, stream, number, **wish)
        yield client


def subscribe(server: DevServer, client: WsClient, user: str, stream: str, number: int, **wish: Any) -> dict[str, Any]:
    """Subscribes, lets one's own join pass, and returns the reply."""
    token = server.subscription_token(stream, user)
    client.send({"id": number, "subscribe": {"channel": stream, "token": token, **wish}})
    reply: dict[str, Any] = client.until(lambda message: message.get("id") == number)[-1]
    if stream.startswith(("chat:", "plain:")) and "subscribe" in reply:
        client.until(lambda message: "join" in message.get("push", {}))
    return reply


@contextmanager
def plainly(server: DevServer, user: str, *channels: str) -> Iterator[WsClient]:
    """A client of the plain protocol that hears these channels."""
    query = "&".join(f"conversation_id={channel}" for channel in channels)
    with WsClient(server.port, f"/ws?{query}", {"Authorization": f"Bearer {server.mint(user)}"}) as client:
        for channel in channels:
            assert client.message() == {"type": "subscribed", "conversation_id": channel}
        yield client


def numbers(client: WsClient, count: int, seconds: float = 10.0) -> list[int]:
    """The data of the next publications, so many of them."""
    found: list[int] = []
    while len(found) < count:
        push = client.message(seconds).get("push", {})
        if "pub" in push:
            found.append(push["pub"]["data"])
    return found


def offsets(client: WsClient, count: int) -> list[int]:
    """The offsets of the next publications."""
    found: list[int] = []
    while len(found) < count:
        push = client.message().get("push", {})
        if "pub" in push:
            found.append(push["pub"]["offset"])
    return found
