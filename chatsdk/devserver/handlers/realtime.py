"""Subscription tokens (contract, 11.2)."""

from __future__ import annotations

from chatsdk.devserver import limits
from chatsdk.devserver.answers import Answer, ok, thrown
from chatsdk.devserver.ids import canonical_uuid
from chatsdk.devserver.realtime.rooms import NoSuchRoom, NotAMember
from chatsdk.devserver.routes import Operation
from chatsdk.devserver.world import Call

TOKEN_TTL_S = 900
_MEMBER_HINT = "Join the channel first or check that the user has access"
_UNKNOWN_HINT = "The requested resource does not exist or you do not have access to it"
_ADMIN_HINT = "This action requires admin privileges"


def subscription_token(call: Call) -> Answer:
    """A token for one stream, for 15 minutes."""
    form = call.form()
    stream = form.string("channel", required=True, least=1, most=255)
    form.done()
    assert stream is not None
    _check_stream(call, stream)
    claims = {"channel": stream, "jti": None}
    token = call.world.mint(call.user, "ws", TOKEN_TTL_S, None, None, claims)
    return ok({"token": token, "expiresIn": TOKEN_TTL_S})


def _check_stream(call: Call, stream: str) -> None:
    """400, 403 or 404 where the caller may not hear a stream, in the order and words of the original."""
    namespace, *rest = stream.split(":")
    if not rest:
        raise thrown(400, "Invalid realtime channel")
    if rest[0] != call.world.app:
        raise thrown(403, "Realtime channel belongs to another app")
    if namespace == "chat":
        _check_chat(call, rest[1:])
    elif namespace == "user":
        # The original splits a user id with a colon as well, and so refuses its own user.
        if ":".join(rest[1:]) != call.user:
            raise thrown(403, "Cannot subscribe to another user channel")
    elif namespace == "app":
        raise thrown(403, "App realtime channel requires admin access", _ADMIN_HINT)
    elif namespace == "workspace":
        raise thrown(403, "Not a member of this workspace", _MEMBER_HINT)
    else:
        raise thrown(403, "Realtime channel namespace is not allowed")


def _check_chat(call: Call, parts: list[str]) -> None:
    if len(parts) != 1:
        raise thrown(400, "Invalid chat channel")
    channel = canonical_uuid(parts[0])
    # Only the canonical spelling: what is published to the channel is published under that one.
    if channel is None or channel != parts[0]:
        raise thrown(400, "Invalid chat channel")
    try:
        call.world.rooms.admit(call.user, channel)
    except NoSuchRoom:
        raise thrown(404, "Channel not found", _UNKNOWN_HINT) from None
    except NotAMember:
        raise thrown(403, "Not a member of this channel", _MEMBER_HINT) from None


OPERATIONS = (
    Operation(
        "subscription_token",
        "POST",
        "/api/realtime/subscription-token",
        subscription_token,
        "chat:read",
        limits.SUBSCRIPTION_TOKEN,
    ),
)
