"""From a WebSocket handshake to a session, or to a refusal with HTTP's words.

Rules: faults come first (`ws_refuse`, `ws_silent`). A page of another origin is refused: on `/connection/websocket` any
`Origin` is, as the real server does unless its operator allowed it; on `/ws` pages of this machine pass. A client of
`/ws` must show its token here; Centrifugo's clients do that with their first command.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from wsproto.events import Request

from chatsdk.devserver.answers import ApiError, refused, thrown
from chatsdk.devserver.delivery import json_bytes
from chatsdk.devserver.faults import Happening
from chatsdk.devserver.gate import INVALID_HINT, MISSING_HINT, USER_HINT, expired, verified
from chatsdk.devserver.realtime.centrifugo import CentrifugoSession
from chatsdk.devserver.realtime.connection import Connection, Session
from chatsdk.devserver.realtime.plain import PlainSession
from chatsdk.devserver.settings import is_loopback
from chatsdk.devserver.tokens import Claims, TokenExpired, TokenInvalid, peek
from chatsdk.devserver.world import World

CENTRIFUGO_PATH = "/connection/websocket"
PLAIN_PATH = "/ws"
SUBPROTOCOL = "centrifuge-json"


class Upgrader:
    """What stands at the door of one server."""

    def __init__(self, world: World) -> None:
        self.world = world

    def __call__(self, connection: Connection, request: Request) -> None:
        path, _, query_string = request.target.partition("?")
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.extra_headers}
        query = parse_qs(query_string, keep_blank_values=True)
        try:
            if not self._stopped_by_fault(connection, path, _token(headers, query)):
                subprotocol = SUBPROTOCOL if path == CENTRIFUGO_PATH and SUBPROTOCOL in request.subprotocols else None
                connection.accept(self._session(connection, path, headers, query), subprotocol)
        except ApiError as refusal:
            answer = refusal.answer
            connection.reject(answer.status, json_bytes(answer.body), dict(answer.headers))

    def _session(
        self, connection: Connection, path: str, headers: Mapping[str, str], query: Mapping[str, list[str]]
    ) -> Session:
        world, origin = self.world, headers.get("origin")
        if path == CENTRIFUGO_PATH:
            if origin is not None:
                raise refused(403, "This origin is not allowed: a backend sends none")
            return CentrifugoSession(world.hub, connection, world.tokens)
        if path != PLAIN_PATH:
            raise thrown(404, "Not Found")
        if origin is not None and not is_loopback(urlsplit(origin).hostname or ""):
            raise refused(403, "This origin is not allowed")
        claims = self._claims(_token(headers, query))
        if query.get("user_id", [claims.user])[0] != claims.user:
            raise refused(403, "The token is another user's", "FORBIDDEN")
        wanted = query.get("conversation_id", [])
        return PlainSession(world.hub, connection, world.rooms, claims.user, claims.expires, wanted)

    def _claims(self, token: str | None) -> Claims:
        """Those of a good access or websocket token; 401 otherwise."""
        if token is None:
            raise thrown(401, "Missing authorization", MISSING_HINT)
        try:
            claims = self.world.tokens.verify(token, ws=True)
        except TokenExpired:
            raise expired() from None
        except TokenInvalid:
            claims = verified(self.world, token, "access")
        if claims.app != self.world.app:
            raise thrown(401, "Invalid token", INVALID_HINT)
        if not self.world.people.exists(claims.user):
            raise thrown(401, "Token user not found", USER_HINT)
        return claims

    def _stopped_by_fault(self, connection: Connection, path: str, token: str | None) -> bool:
        faults = self.world.faults
        if not faults.rules:
            return False
        user: Any = peek(token).get("user_id") if token else None
        happening = Happening("upgrade", "websocket" if path == CENTRIFUGO_PATH else path.strip("/"), user=user)
        rule = faults.judge_happening(happening, time.monotonic())
        if rule is None:
            return False
        if rule.spec["kind"] == "ws_silent":
            connection.ignore()
            return True
        retry_after = rule.spec.get("retry_after")
        headers = {} if retry_after is None else {"retry-after": str(retry_after)}
        body = rule.spec.get("body", {"error": {"message": "The upgrade was refused"}})
        connection.reject(int(rule.spec.get("status", 503)), json_bytes(body), headers)
        return True


def _token(headers: Mapping[str, str], query: Mapping[str, list[str]]) -> str | None:
    value = headers.get("authorization", "")
    if value.startswith("Bearer "):
        return value[7:].strip() or None
    return query.get("token", [""])[0] or None
