"""Who is calling, and may they: from the headers to a user, or to the 401 or 403 that the contract has for it.

Rules (contract, sections 2, 4.1 and 15.42): the scheme is `Bearer`, compared with case; a bearer wins over an API key;
after signature and times come type, app, user, session and the list of used-up tokens, in this order.
"""

from __future__ import annotations

from chatsdk.devserver.answers import ApiError, thrown
from chatsdk.devserver.ids import canonical_uuid
from chatsdk.devserver.tokens import Claims, TokenExpired, TokenInvalid
from chatsdk.devserver.world import Call, World

MISSING_HINT = "Send Authorization: Bearer <access token>; X-API-Key opens the token routes only"
INVALID_HINT = "The token is damaged, was signed with another secret, or is not an access token"
EXPIRED_HINT = "Get a new token from POST /api/auth/refresh"
TYPE_HINT = "User routes take access tokens; a refresh token goes to POST /api/auth/refresh"
USER_HINT = "Call POST /api/auth/connect first: it makes the user"


def bearer(call: Call) -> str | None:
    """The token of the Authorization header, or None."""
    value = call.headers.get("authorization", "")
    return value[7:].strip() or None if value.startswith("Bearer ") else None


def admit(call: Call) -> None:
    """Sets `call.user`, or raises 401 or 403."""
    token = bearer(call)
    if token is None:
        if "x-api-key" in call.headers:
            raise thrown(401, "Invalid API key", "This route takes a user's bearer token")
        raise thrown(401, "Missing authorization", MISSING_HINT)
    claims = verified(call.world, token, "access")
    call.user = claims.user
    scope = call.operation.scope
    if scope and scope not in (claims.scopes or ()):
        raise thrown(403, f"Token scope required: {scope}")


def verified(world: World, token: str, kind: str) -> Claims:
    """The claims of a token of this kind whose user and session still stand; raises 401 with the contract's text."""
    try:
        claims = world.tokens.verify(token)
    except TokenExpired:
        raise expired() from None
    except TokenInvalid:
        raise thrown(401, "Invalid token", INVALID_HINT) from None
    if claims.kind != kind:
        raise thrown(401, "Invalid token type", TYPE_HINT)
    if canonical_uuid(claims.app) is None:
        raise thrown(401, "Invalid token", INVALID_HINT)
    if claims.app != world.app or not world.people.exists(claims.user):
        raise thrown(401, "Token user not found", USER_HINT)
    if claims.session is not None:
        _check_session(world, claims.session)
    if claims.jti is not None and world.sessions.is_revoked(claims.jti):
        raise thrown(401, "Token has been revoked")
    return claims


def expired() -> ApiError:
    return thrown(401, "Token expired", EXPIRED_HINT)


def _check_session(world: World, session: str) -> None:
    if canonical_uuid(session) is None:
        raise thrown(401, "Invalid token", INVALID_HINT)
    row = world.sessions.find(session)
    if row is None:
        raise thrown(401, "Token session not found")
    if row["revoked"]:
        raise thrown(401, "Token session has been revoked")
    if row["expires"] <= world.clock.milliseconds():
        raise expired()
