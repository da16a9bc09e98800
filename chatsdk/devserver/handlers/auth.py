"""Connect, refresh, validate (contract, section 4.2), and health.

Rules: a refresh token is single use, and of many callers exactly one wins; it may come as bearer or as
`{"refreshToken"}` in the body (the original takes the first only). Unlike the original's, connect's tokens carry every
scope. The texts of refused refreshes tell a client whether it is final (contract, 15.1).
"""

from __future__ import annotations

from typing import Any

from chatsdk.devserver import gate, limits
from chatsdk.devserver.answers import Answer, ApiError, ok, refused
from chatsdk.devserver.checks import Form
from chatsdk.devserver.ids import iso
from chatsdk.devserver.routes import Operation
from chatsdk.devserver.settings import ALL_SCOPES
from chatsdk.devserver.tokens import TokenExpired, TokenInvalid
from chatsdk.devserver.world import Call

_SUGGESTIONS = {
    "MISSING_API_KEY": "Send the X-API-Key header with the key that the server printed",
    "INVALID_API_KEY": "The server prints its API key when it starts",
    "MISSING_REFRESH_TOKEN": "Send Authorization: Bearer <refresh token>",
    "REFRESH_TOKEN_EXPIRED": "Connect again",
    "INVALID_REFRESH_TOKEN": "The refresh token is damaged, used up or revoked: connect again",
}


def health(call: Call) -> Answer:
    return ok({"status": "ok", "timestamp": iso(call.now), "uptime": call.world.clock.seconds() - call.world.started})


def ready(call: Call) -> Answer:
    call.world.db.value("SELECT 1")
    return ok({"ready": True, "timestamp": iso(call.now), "checks": {"database": {"status": "ok"}}})


def connect(call: Call) -> Answer:
    _check_api_key(call, "MISSING_API_KEY", "INVALID_API_KEY")
    return ok(_connected(call))


def connect_dev(call: Call) -> Answer:
    """Connect without a key: this is a development server."""
    note = {"warning": "Development mode - API key not required", "apiKey": call.world.api_key}
    return ok({**_connected(call), "_dev": note})


def legacy_connect(call: Call) -> Answer:
    _check_api_key(call)
    form = call.form()
    user = form.string("userId", required=True, least=1, most=255)
    name = form.string("name", most=255)
    image, email, custom = form.string("image"), form.string("email", form="email"), form.mapping("custom")
    form.done()
    assert user is not None
    pair = _begin_session(call, user, name, image, {**(custom or {}), **({"email": email} if email else {})})
    shown = {"id": user, "name": name, "image": image}
    return ok(
        {
            **pair,
            "user": {key: value for key, value in shown.items() if value is not None},
            "expiresIn": int(call.world.settings.access_ttl),
        }
    )


def refresh(call: Call) -> Answer:
    pair = _rotated(call)
    return ok(
        {
            "token": pair["token"],
            "refreshToken": pair["refreshToken"],
            "expiresIn": int(call.world.settings.access_ttl),
            "_internal": {"wsToken": pair["wsToken"]},
        }
    )


def legacy_refresh(call: Call) -> Answer:
    try:
        pair = _rotated(call)
    except ApiError as error:
        message = error.answer.body["error"]["message"]
        raise refused(401, message) from None
    return ok({**pair, "expiresIn": int(call.world.settings.access_ttl)})


def validate(call: Call) -> Answer:
    token = _token_to_validate(call)
    try:
        claims = gate.verified(call.world, token, "access")
    except ApiError as error:
        message = error.answer.body["error"]["message"]
        # The original tells neither a refresh token nor a revoked one from a damaged one here.
        raise _not_valid("Token expired" if message == "Token expired" else "Invalid token") from None
    profile = call.world.people.profile(claims.user) or {}
    return ok(
        {
            "valid": True,
            "payload": _payload(claims.user, claims.app, claims.issued, claims.expires),
            "user": {key: profile[key] for key in ("id", "name", "image")},
        }
    )


def validate_ws(call: Call) -> Answer:
    try:
        claims = call.world.tokens.verify(_token_to_validate(call), ws=True)
    except TokenExpired:
        raise _not_valid("Token expired") from None
    except TokenInvalid:
        raise _not_valid("Invalid token") from None
    user = f"{claims.app}:{claims.user}"
    return ok({"valid": True, "payload": _payload(user, claims.app, claims.issued, claims.expires)})


def refresh_refused(code: str, message: str) -> ApiError:
    """A 401 as the refresh route says it."""
    body = {"error": {"code": code, "message": message, "suggestion": _SUGGESTIONS[code]}}
    return ApiError(Answer(401, body))


def _check_api_key(call: Call, missing: str | None = None, wrong: str | None = None) -> None:
    key = call.headers.get("x-api-key")
    if key == call.world.api_key:
        return
    code, message = (missing, "Missing API key") if key is None else (wrong, "Invalid API key")
    if code is None:
        raise refused(401, message)
    raise refused(401, message, code, suggestion=_SUGGESTIONS[code])


def _connected(call: Call) -> dict[str, Any]:
    form = call.form()
    user = form.string("userId", required=True, least=1, most=255, empty_message="userId is required")
    name = form.string("displayName", most=255)
    avatar = _avatar(form)
    email, metadata = form.string("email", form="email"), form.mapping("metadata")
    form.done()
    assert user is not None
    shown = {**(metadata or {}), **({"email": email} if email else {})}
    pair = _begin_session(call, user, name, avatar, shown)
    return {
        "user": {"id": user, "displayName": name if name is not None else user, "avatar": avatar, "metadata": shown},
        "token": pair["token"],
        "refreshToken": pair["refreshToken"],
        "expiresIn": int(call.world.settings.access_ttl),
        "_internal": {"wsToken": pair["wsToken"]},
    }


def _avatar(form: Form) -> str | None:
    if form.fields.get("avatar") == "":
        return None
    return form.string("avatar", form="url")


def _begin_session(
    call: Call, user: str, name: str | None, image: str | None, custom: dict[str, Any]
) -> dict[str, str]:
    world = call.world
    with world.db.transaction():
        world.people.upsert(user, name, image, custom, call.now)
        session = world.sessions.begin(user, call.now + int(world.settings.refresh_ttl * 1000))
    return world.token_pair(user, ALL_SCOPES, session)


def _rotated(call: Call) -> dict[str, str]:
    token = gate.bearer(call)
    if token is None and isinstance(call.body, dict) and isinstance(call.body.get("refreshToken"), str):
        token = call.body["refreshToken"] or None
    if token is None:
        raise refresh_refused("MISSING_REFRESH_TOKEN", "Missing refresh token")
    world = call.world
    try:
        claims = gate.verified(world, token, "refresh")
    except ApiError as error:
        message = error.answer.body["error"]["message"]
        if message == "Token expired":
            raise refresh_refused("REFRESH_TOKEN_EXPIRED", "Refresh token expired") from None
        raise refresh_refused("INVALID_REFRESH_TOKEN", message) from None
    if claims.jti is None:
        raise refresh_refused("INVALID_REFRESH_TOKEN", "Invalid token")
    if not world.sessions.use_up(claims.jti, call.now):
        raise refresh_refused("INVALID_REFRESH_TOKEN", "Token has been revoked")
    return world.token_pair(claims.user, claims.scopes, claims.session)


def _token_to_validate(call: Call) -> str:
    token = gate.bearer(call)
    if token is None:
        body = {"valid": False, "error": {"message": "Missing token", "hint": gate.MISSING_HINT}}
        raise ApiError(Answer(401, body))
    return token


def _not_valid(message: str) -> ApiError:
    hint = gate.EXPIRED_HINT if message == "Token expired" else gate.INVALID_HINT
    return ApiError(Answer(401, {"valid": False, "error": {"message": message, "hint": hint}}))


def _payload(user: str, app: str, issued: int, expires: int) -> dict[str, Any]:
    return {"userId": user, "appId": app, "issuedAt": iso(issued * 1000), "expiresAt": iso(expires * 1000)}


OPERATIONS = (
    Operation("health", "GET", "/health", health, public=True),
    Operation("ready", "GET", "/ready", ready, public=True),
    Operation("connect", "POST", "/api/auth/connect", connect, limit=limits.CONNECT, public=True),
    Operation("connect_dev", "POST", "/api/auth/connect-dev", connect_dev, limit=limits.CONNECT, public=True),
    Operation("refresh", "POST", "/api/auth/refresh", refresh, limit=limits.REFRESH, public=True),
    Operation("legacy_connect", "POST", "/tokens", legacy_connect, limit=limits.CONNECT, public=True),
    Operation("legacy_refresh", "POST", "/tokens/refresh", legacy_refresh, limit=limits.REFRESH, public=True),
    Operation("validate", "GET", "/tokens/validate", validate, limit=limits.VALIDATE, public=True),
    Operation("validate_ws", "GET", "/tokens/validate-ws", validate_ws, limit=limits.VALIDATE, public=True),
)
