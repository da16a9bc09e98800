"""What a token file holds and a token command prints, as a token. Pure.

Either the access token alone, as text, or a JSON object: `token` (or `accessToken`, `access_token`), and where there
are any `refreshToken` / `refresh_token`, `wsToken` / `ws_token` (also under `_internal`, so that an answer of the
server can be saved as it is), `expiresAt` / `expires_at` (Unix time).
"""

from __future__ import annotations

import json
from typing import Any

from ..core.errors import TokenUnavailableError
from ..core.tokens import Token
from .expiry import number
from .sources import as_token


def parse(data: bytes, what: str) -> Token | None:
    """The token, or None if there is nothing but blanks. Raises TokenUnavailableError, which names `what` it was."""
    text: str | None = None
    try:
        text = data.decode("utf-8-sig").strip()
        fields = json.loads(text) if text.startswith("{") else None
    except (ValueError, RecursionError):
        fields = ()
    if text is None or fields == ():  # raised out here: a JSON error carries the text that it could not read
        raise TokenUnavailableError(f"{what} is neither a token nor a JSON object with one")
    if fields is None:
        return as_token(text, what) if text else None
    inner = fields.get("_internal")
    token = Token(
        _text(fields, "token", "accessToken", "access_token") or "",
        _text(fields, "wsToken", "ws_token") or (_text(inner, "wsToken") if isinstance(inner, dict) else None),
        _text(fields, "refreshToken", "refresh_token"),
        number(fields.get("expiresAt", fields.get("expires_at"))),
    )
    return as_token(token, what)


def _text(fields: dict[str, Any], *names: str) -> str | None:
    for name in names:
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value
    return None
