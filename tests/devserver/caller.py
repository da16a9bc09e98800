"""A raw client for tests of the server: standard library only, nothing of the SDK, no help with anything."""

from __future__ import annotations

import http.client
import json
import socket
import uuid
from dataclasses import dataclass
from typing import Any

from chatsdk.devserver.process import DevServer


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: Any
    raw: bytes


def call(
    server: DevServer,
    method: str,
    path: str,
    body: Any = None,
    *,
    user: str | None = None,
    token: str | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 10.0,
) -> Reply:
    """One request on a connection of its own, as a well-known user, with a token, or as nobody."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    try:
        sent = dict(headers or {})
        if user is not None or token is not None:
            sent["Authorization"] = f"Bearer {token or server.tokens[str(user)]}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        connection.request(method, path, data, sent)
        answer = connection.getresponse()
        raw = answer.read()
        found = {name.lower(): value for name, value in answer.getheaders()}
        is_json = raw and found.get("content-type", "").startswith("application/json")
        try:
            parsed = json.loads(raw) if is_json else None
        except ValueError:
            parsed = None
        return Reply(answer.status, found, parsed, raw)
    finally:
        connection.close()


def send(
    server: DevServer,
    text: str,
    key: str | None = None,
    *,
    user: str = "alice",
    channel: str | None = None,
    token: str | None = None,
    timeout: float = 10.0,
) -> Reply:
    """Sends a message to the channel `general`, with a new key where none is given."""
    body = {"text": text, "clientMsgId": key or str(uuid.uuid4())}
    path = f"/api/channels/{channel or server.channel_id}/messages"
    return call(server, "POST", path, body, user=user, token=token, timeout=timeout)


def send_bytes(server: DevServer, key: str, text: str = "raw") -> bytes:
    """The bytes of a send, for tests that speak to the socket themselves."""
    body = json.dumps({"text": text, "clientMsgId": key})
    head = [
        f"POST /api/channels/{server.channel_id}/messages HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        f"Authorization: Bearer {server.tokens['alice']}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, "", body]).encode()


def exchange(server: DevServer, data: bytes, timeout: float = 10.0) -> bytes:
    """Sends bytes on a new connection and returns all that comes until the server closes it."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as connection:
        connection.sendall(data)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received
