"""What a handler can reach: the server's parts (`World`) and the request at hand (`Call`).

Rules: a `Call` parses its body and query when they are first asked for, so that a request which is refused for its
token or its rate never pays for that, and is refused for the right reason.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl

from chatsdk.devserver.answers import ApiError, thrown
from chatsdk.devserver.checks import Form, parse_body
from chatsdk.devserver.clock import DevClock
from chatsdk.devserver.faults import FaultBook
from chatsdk.devserver.ids import canonical_uuid
from chatsdk.devserver.limits import RateLimiter
from chatsdk.devserver.realtime.events import Events
from chatsdk.devserver.realtime.hub import Hub
from chatsdk.devserver.realtime.rooms import Rooms
from chatsdk.devserver.routes import Operation
from chatsdk.devserver.settings import ALL_SCOPES, APP_ID, GENERAL_CHANNEL_ID, WELL_KNOWN_USERS, ServerSettings
from chatsdk.devserver.store.channels import Channels
from chatsdk.devserver.store.database import Database
from chatsdk.devserver.store.log import Attempt, Log
from chatsdk.devserver.store.messages import Messages
from chatsdk.devserver.store.people import People
from chatsdk.devserver.store.sessions import Sessions
from chatsdk.devserver.tokens import Tokens

CONTROL = "/__dev__/"
"""What the paths of the control routes begin with."""

KEPT = 1000
"""Requests that `Recent` keeps."""


class Recent:
    """The last requests, as they came, for who wants to see what a client sends. Neither query, body nor token."""

    def __init__(self) -> None:
        self.requests: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def begin(self, call: Call, method: str, path: str) -> dict[str, Any]:
        """Note a request; whoever answers it adds the status. Control routes are not noted."""
        seen = {
            "number": call.world.requests,
            "operation": call.operation.name,
            "method": method,
            "path": path,
            "request_id": call.headers.get("x-request-id"),
            "timeout": call.headers.get("x-request-timeout"),
            "fault": call.fault,
            "status": None,
        }
        if not path.startswith(CONTROL):
            self.requests.append(seen)
        return seen


@dataclass
class World:
    """All parts of one server. Made by `server.build_world`."""

    settings: ServerSettings
    db: Database
    clock: DevClock
    tokens: Tokens
    api_key: str
    faults: FaultBook
    limits: RateLimiter
    people: People
    sessions: Sessions
    channels: Channels
    messages: Messages
    log: Log
    hub: Hub
    events: Events
    rooms: Rooms
    started: float
    ordinal: int
    requests: int = 0
    recent: Recent = field(default_factory=Recent)

    def token_pair(self, user: str, scopes: tuple[str, ...] | None, session: str | None) -> dict[str, str]:
        """A fresh access, refresh and websocket token of one session."""
        settings = self.settings
        return {
            "token": self.mint(user, "access", settings.access_ttl, scopes, session),
            "refreshToken": self.mint(user, "refresh", settings.refresh_ttl, scopes, session),
            "wsToken": self.mint(user, "ws", settings.access_ttl, scopes, session),
        }

    def mint(
        self,
        user: str,
        kind: str,
        ttl: float,
        scopes: tuple[str, ...] | None = ALL_SCOPES,
        session: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """A token, made known to the fault book (it tells tokens made before a cutoff from later ones)."""
        token = self.tokens.mint(user, kind, ttl, scopes, session, extra)
        if self.faults.rules and kind == "access":
            claims = self.tokens.verify(token) if ttl > 0 else None
            if claims is not None and claims.jti is not None:
                self.faults.minted(claims.jti, claims.issued)
        return token

    def furnish(self) -> None:
        """Makes the first users and their channel where they are missing. Call it inside a transaction."""
        now = self.clock.milliseconds()
        for user, name in WELL_KNOWN_USERS:
            if not self.people.exists(user):
                self.people.upsert(user, name, None, {}, now)
        if self.channels.find(GENERAL_CHANNEL_ID) is None:
            owner, *others = (user for user, _ in WELL_KNOWN_USERS)
            self.channels.create("group", owner, others, now, channel=GENERAL_CHANNEL_ID, name="general")

    @property
    def app(self) -> str:
        return APP_ID


@dataclass
class Call:
    """One request on its way through. `user` and `scopes` are set once the token was found good; `until`: monotonic
    time until which the caller waits, if he said so."""

    world: World
    operation: Operation
    params: Mapping[str, str]
    query_string: str
    headers: Mapping[str, str]
    raw_body: bytes
    address: str
    ordinal: int
    until: float | None = None
    fault: str | None = None
    user: str = ""
    answer_headers: dict[str, str] = field(default_factory=dict)
    attempt_recorded: bool = False

    @cached_property
    def query(self) -> dict[str, str]:
        pairs = parse_qsl(self.query_string, keep_blank_values=True)
        return dict(reversed(pairs))  # of a repeated parameter the first counts

    @cached_property
    def body(self) -> Any:
        return parse_body(self.headers.get("content-type", ""), self.raw_body)

    def form(self) -> Form:
        return Form(self.body)

    def uuid(self, name: str) -> str:
        """A path parameter that must be a UUID, in canonical form; 400 otherwise (the original answers 500)."""
        found = canonical_uuid(self.params[name])
        if found is None:
            raise thrown(400, f"'{name}' must be a UUID")
        return found

    @property
    def now(self) -> int:
        return self.world.clock.milliseconds()

    def attempt(self, user: str | None) -> Attempt:
        """This request as a try to send. Reads key and channel as far as they can be read."""
        try:
            body = self.body
        except ApiError:
            body = {}
        key = body.get("clientMsgId") if isinstance(body, dict) else None
        channel = self.params.get("channel")
        return Attempt(
            ordinal=self.ordinal,
            at=self.now,
            operation=self.operation.name,
            key=(canonical_uuid(key) or key) if isinstance(key, str) and key else None,
            channel=None if channel is None else canonical_uuid(channel) or channel,
            user=user,
            fault=self.fault,
        )
