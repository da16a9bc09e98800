"""Tokens that a backend signs itself, for each of its users, with the secret it shares with the chat server.

For servers, never for a program on a user's machine: whoever has the secret can be everybody. The claims are those of
the ChatSDK server (contract, section 4.1). `iat` and `nbf` are the server's time as far as it is known, because the
server allows no tolerance: a token from a clock that runs ahead would be refused until its time has come.
"""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Callable, Sequence

from ..core.errors import SettingsError
from ..core.tokens import Secret, Token, TokenRequest

SCOPES = (
    "chat:read",
    "chat:write",
    "channel:create",
    "reaction:write",
    "typing:write",
    "upload:write",
    "search:read",
)
"""Every scope there is; without scopes a token opens no chat route (contract, facts 1 and 2)."""

MIN_SECRET = 32
"""Bytes; RFC 7518 section 3.2 wants an HS256 key as long as the hash."""


class SignedTokens:
    """Signs tokens for any user: `ChatClient(signed_tokens=SignedTokens(secret, app_id))`.

    secret      the server's JWT_SECRET
    app_id      the app's id (a UUID)
    scopes      what the tokens allow
    ws_secret   the server's CENTRIFUGO_TOKEN_SECRET; without it there is no token for the websocket
    ttl         seconds that a token lives (15 minutes, as the server's own)
    issuer, audience, kid   as the server is configured: JWT_ISSUER, JWT_AUDIENCE, JWT_KEY_ID

    Also a `token_provider`: calling it with a `TokenRequest` gives a `Token`. Raises SettingsError for empty secrets
    and a ttl under one second; warns of secrets shorter than 32 bytes.
    """

    name = "signed"
    quick = True
    mints = True

    def __init__(
        self,
        secret: str | Secret,
        app_id: str,
        scopes: Sequence[str] = SCOPES,
        ws_secret: str | Secret | None = None,
        ttl: float = 900.0,
        issuer: str = "chatsdk-api",
        audience: str = "chatsdk-client",
        kid: str = "local-dev-key",
        *,
        time: Callable[[], float] = time.time,
    ) -> None:
        self._secret = Secret(secret)
        self._ws_secret = None if ws_secret is None else Secret(ws_secret)
        self._app_id = app_id
        self._scopes = (scopes,) if isinstance(scopes, str) else tuple(scopes)
        self._ttl = int(ttl)
        self._issuer, self._audience, self._kid = issuer, audience, kid
        self._time = time
        if self._ttl < 1:
            raise SettingsError("ttl is the number of seconds that a token lives, at least 1")
        for name, value in (("secret", self._secret), ("ws_secret", self._ws_secret)):
            if value is None:
                continue
            if not value:
                raise SettingsError(f"SignedTokens: {name} is empty")
            if len(value.reveal().encode()) < MIN_SECRET:
                warnings.warn(f"SignedTokens: {name} is shorter than {MIN_SECRET} bytes", stacklevel=2)

    def __repr__(self) -> str:
        return f"SignedTokens(app_id={self._app_id!r}, ttl={self._ttl})"

    def __call__(self, request: TokenRequest) -> Token:
        """A fresh token by this machine's clock."""
        return self.get(request, self._time())

    def get(self, request: TokenRequest, now: float) -> Token:
        """A fresh token for `request.user`, issued at `now` (Unix time by the server's clock)."""
        issued = int(now)
        claims = {
            "sub": f"{self._app_id}:{request.user}",
            "user_id": request.user,
            "app_id": self._app_id,
            "iss": self._issuer,
            "aud": self._audience,
            "iat": issued,
            "nbf": issued,
            "exp": issued + self._ttl,
            "scopes": list(self._scopes),
        }
        access = self._sign({**claims, "type": "access"}, self._secret)
        ws = None if self._ws_secret is None else self._sign(claims, self._ws_secret)
        return Token(access, ws, expires_at=float(issued + self._ttl))

    def changed(self) -> bool:
        """A signature is made when a token is needed."""
        return False

    def _sign(self, claims: dict[str, object], secret: Secret) -> Secret:
        import jwt  # 6 ms, and only backends that sign need it

        claims = {**claims, "jti": str(uuid.uuid4())}
        return Secret(jwt.encode(claims, secret.reveal(), algorithm="HS256", headers={"kid": self._kid}))
