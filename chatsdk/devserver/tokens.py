"""Tokens: making them and finding out what is wrong with one (contract, section 4.1).

Rules: HS256 with `kid`; `aud` and `iss` must fit; a token ends at `exp` to the second, without tolerance; `nbf` must
have come, `iat` may lie in the future. This module knows signatures and claims only; whether the user, the session or
the token itself still stands is the gate's business (`gate.py`).
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from chatsdk.devserver.clock import DevClock

ISSUER = "chatsdk-api"
AUDIENCE = "chatsdk-client"
KEY_ID = "local-dev-key"


class TokenExpired(Exception):
    """Well made, but past its end."""


class TokenInvalid(Exception):
    """Not a token of this server."""


@dataclass(frozen=True)
class Claims:
    """What the server uses of a verified token. `scopes` is None where the token carries none."""

    user: str
    app: str
    kind: str | None
    scopes: tuple[str, ...] | None
    session: str | None
    jti: str | None
    issued: int
    expires: int


@dataclass(frozen=True)
class Tokens:
    """Makes and verifies the tokens of one app. The two secrets are kept apart: a websocket token opens no route."""

    secret: str
    ws_secret: str
    app: str
    clock: DevClock

    def mint(
        self,
        user: str,
        kind: str,
        ttl: float,
        scopes: Sequence[str] | None,
        session: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> str:
        """A signed token; `kind`: access, refresh or ws. `extra` adds or replaces claims (None takes one away)."""
        now = int(self.clock.seconds())
        claims: dict[str, Any] = {
            "sub": f"{self.app}:{user}",
            "user_id": user,
            "app_id": self.app,
            "iss": ISSUER,
            "aud": AUDIENCE,
            "iat": now,
            "nbf": now,
            "exp": now + int(ttl),
            "jti": str(uuid.uuid4()),
        }
        if kind != "ws":
            claims["type"] = kind
        if scopes is not None:
            claims["scopes"] = list(scopes)
        if session is not None:
            claims["sid"] = session
        claims = {key: value for key, value in {**claims, **(extra or {})}.items() if value is not None}
        key = self.ws_secret if kind == "ws" else self.secret
        return jwt.encode(claims, key, algorithm="HS256", headers={"kid": KEY_ID})

    def verify(self, token: str, *, ws: bool = False) -> Claims:
        """The claims of a good token; raises `TokenExpired` or `TokenInvalid`."""
        claims = _decode(token, self.ws_secret if ws else self.secret)
        now = self.clock.seconds()
        expires, starts = claims.get("exp"), claims.get("nbf", 0)
        if not isinstance(expires, int) or not isinstance(starts, int | float) or starts > now:
            raise TokenInvalid
        if expires <= now:
            raise TokenExpired
        user, app = claims.get("user_id"), claims.get("app_id")
        if not isinstance(user, str) or not isinstance(app, str):
            raise TokenInvalid
        return Claims(
            user=user,
            app=app,
            kind=claims.get("type"),
            scopes=_scopes(claims),
            session=claims.get("sid"),
            jti=claims.get("jti"),
            issued=int(claims.get("iat", 0)),
            expires=expires,
        )

    def realtime_claims(self, token: str) -> Mapping[str, Any]:
        """The claims of a connection or subscription token as Centrifugo looks at it: signature and times, nothing
        else. Raises `TokenExpired` or `TokenInvalid`."""
        claims = _signed(token, self.ws_secret)
        now, expires, starts = self.clock.seconds(), claims.get("exp", 0), claims.get("nbf", 0)
        if not isinstance(expires, int | float) or not isinstance(starts, int | float) or starts > now:
            raise TokenInvalid
        if 0 < expires <= now:
            raise TokenExpired
        return claims


@functools.lru_cache(maxsize=4096)
def _signed(token: str, key: str) -> Mapping[str, Any]:
    try:
        return jwt.decode(
            token,
            key,
            algorithms=["HS256"],
            options={
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_sub": False,
                "verify_aud": False,
                "verify_iss": False,
                "verify_jti": False,
            },
        )
    except jwt.PyJWTError:
        raise TokenInvalid from None


@functools.lru_cache(maxsize=4096)
def _decode(token: str, key: str) -> Mapping[str, Any]:
    # The signature of a token never changes, its times are looked at on every use: so this much may be remembered.
    try:
        return jwt.decode(
            token,
            key,
            algorithms=["HS256"],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_sub": False},
        )
    except jwt.PyJWTError:
        raise TokenInvalid from None


def peek(token: str) -> Mapping[str, Any]:
    """The claims of a token whose signature is not looked at; empty where it is none. Decides nothing but faults."""
    try:
        return jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError:
        return {}


def _scopes(claims: Mapping[str, Any]) -> tuple[str, ...] | None:
    found = claims.get("scopes", claims.get("scp"))
    if isinstance(found, str):
        return tuple(found.split())
    return tuple(str(scope) for scope in found) if isinstance(found, list) else None
