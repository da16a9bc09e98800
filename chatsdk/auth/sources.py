"""Where tokens come from: the protocol, and the two sources that only ask memory or a callable.

A source gives a token or None ("I have none"), and raises `TokenUnavailableError` if it may have one later. What it
gives is checked here (`as_token`): text that cannot stand in a header never gets near one. No message of a source holds
what it read, and what a callable raised is told by type and place only: an exception's text may quote a token.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, Protocol

from ..core.errors import TokenUnavailableError
from ..core.tokens import Secret, Token, TokenRequest
from .expiry import number

MAX_TEXT = 64 * 1024
"""Bytes that a token file or command may give; no real token comes near (headers end at 16 KiB, contract 15.39)."""


class Source(Protocol):
    """One place that tokens come from.

    name     for logs and events
    quick    it answers at once (memory, a small file), so nobody needs a thread to ask it
    mints    its tokens are made when it is asked, rather than kept somewhere
    """

    name: str
    quick: bool
    mints: bool

    def get(self, request: TokenRequest, now: float) -> Token | None:
        """A token; None if there is none to be had here. `now`: Unix time by the server's clock. Raises
        TokenUnavailableError."""
        ...

    def changed(self) -> bool:
        """True if what would be read now was not read yet. Cheap: asked every second or so."""
        ...


class StaticToken:
    """A token that was given once: an argument, a setting, an environment variable."""

    name = "static"
    quick = True
    mints = False

    def __init__(self, token: Token) -> None:
        self._token = as_token(token, "the configured token")

    def get(self, request: TokenRequest, now: float) -> Token | None:
        """The token, whether or not it still is any good."""
        return self._token

    def changed(self) -> bool:
        """Never."""
        return False


class TokenProvider:
    """A callable of the user's that returns a token as text or as a `Token`, or None. It may block."""

    name = "provider"
    quick = False
    mints = True

    def __init__(self, provide: Callable[[TokenRequest], str | Secret | Token | None]) -> None:
        self._provide = provide

    def get(self, request: TokenRequest, now: float) -> Token | None:
        """What the callable returns. Whatever it raises means "not now"."""
        failure = ""
        try:
            given = self._provide(request)
        except Exception as error:
            failure = _where(error)
        if failure:  # raised out here, so that no context drags the original's text along
            raise TokenUnavailableError(f"token_provider raised {failure}")
        return None if given is None else as_token(given, "what token_provider returned")

    def changed(self) -> bool:
        """A callable is asked when a token is needed, not watched."""
        return False


def _where(error: Exception) -> str:
    """`KeyError at accounts.py:31`: enough to find it, and nothing of what it says."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + place


def as_token(given: Any, what: str) -> Token:
    """`given` (text, Secret or Token) as a token that can be sent. Raises TokenUnavailableError naming `what` it was.

    The access token may be empty only where a refresh token can buy one.
    """
    if isinstance(given, str):
        given = given.strip()
    if isinstance(given, (str, Secret)):
        given = Token(given)
    if not isinstance(given, Token):
        raise TokenUnavailableError(f"{what} is a {type(given).__name__}, not a token (text or chatsdk.Token)")
    if not given.access and not given.refresh:
        raise TokenUnavailableError(f"{what} is empty")
    for secret in (given.access, given.ws, given.refresh):
        if secret is not None and not _fits_header(secret.reveal()):
            raise TokenUnavailableError(f"{what} holds characters that no token has (blanks, line breaks, non-ASCII)")
    return Token(given.access, given.ws or None, given.refresh or None, number(given.expires_at))


def _fits_header(text: object) -> bool:
    # RFC 6750 allows less; what matters is that nothing splits a header
    return isinstance(text, str) and len(text) <= MAX_TEXT and all("!" <= character <= "~" for character in text)
