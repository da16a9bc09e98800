"""Centrifugo's view of tokens: what a bad one leads to, and what a reply tells of a good one's life.

Rules: signature and times are looked at, then whose token it is and what for; nothing else. An expired token may be
replaced (109), so may a badly signed one for a subscription (103); a connection's is the end (3500), and so is one for
another stream or user.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chatsdk.devserver.clock import DevClock
from chatsdk.devserver.realtime.commands import (
    INVALID_TOKEN,
    PERMISSION_DENIED,
    TOKEN_EXPIRED,
    Disconnected,
    Refused,
)
from chatsdk.devserver.tokens import TokenExpired, TokenInvalid, Tokens


def connection_claims(tokens: Tokens, token: str) -> Mapping[str, Any]:
    """The claims of a connection's token. Raises `Refused` or `Disconnected`."""
    try:
        return tokens.realtime_claims(token)
    except TokenExpired:
        raise Refused(*TOKEN_EXPIRED) from None
    except TokenInvalid:
        raise Disconnected(*INVALID_TOKEN) from None


def subscription_claims(tokens: Tokens, token: Any, stream: str, user: str) -> Mapping[str, Any]:
    """The claims of a token for this stream and user. Raises `Refused` or `Disconnected`."""
    if not isinstance(token, str) or not token:
        raise Refused(*PERMISSION_DENIED)
    try:
        claims = tokens.realtime_claims(token)
    except TokenExpired:
        raise Refused(*TOKEN_EXPIRED) from None
    except TokenInvalid:
        raise Refused(*PERMISSION_DENIED) from None
    if claims.get("channel") != stream or claims.get("sub") != user:
        raise Disconnected(*INVALID_TOKEN)
    return claims


def life(expires: float, clock: DevClock) -> dict[str, Any]:
    """`expires` and `ttl` (whole seconds) of a reply; empty for a token without an end (0)."""
    return {"expires": True, "ttl": max(0, int(expires - int(clock.seconds())))} if expires else {}
