"""Tokens: where they come from, when they are renewed, and where a rotated pair survives a restart.

    sources    static token, provider, file, command, signer: one file each, one protocol (`sources.Source`)
    expiry     reads `exp` as a hint, learns the server's clock, says when a token is due
    pairs      the pair that a refresh bought, in the state directory, with a lock over threads and processes
    renewal    one renewal: refresh token first, then the sources; its outcome is a value
    renewal_threads   the few threads in which renewals of all users run
    manager    one `TokenManager` per user: serves, decides, single flight, events

The auth middleware and realtime are given a manager's methods and know nothing of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..core.tokens import Secret, Token, TokenRequest
from .expiry import ServerTime, read_claims, read_payload
from .manager import TokenManager
from .pairs import PairStore
from .renewal_threads import RenewalThreads
from .signed import SignedTokens
from .sources import Source, StaticToken, TokenProvider
from .token_file import TokenFile

if TYPE_CHECKING:
    import os

    from ..core.clock import Clock

__all__ = [
    "PairStore",
    "RenewalThreads",
    "ServerTime",
    "SignedTokens",
    "Source",
    "TokenManager",
    "build_sources",
    "read_claims",
    "read_payload",
]


def build_sources(
    *,
    clock: Clock,
    token: str | Secret | Token | None = None,
    ws_token: str | Secret | None = None,
    refresh_token: str | Secret | None = None,
    token_provider: Callable[[TokenRequest], str | Secret | Token | None] | None = None,
    token_file: str | os.PathLike[str] | None = None,
    token_command: Sequence[str] = (),
    signed: SignedTokens | None = None,
) -> tuple[Source, ...]:
    """The sources of one user in the order in which they are asked: the configured token (or refresh token alone),
    provider, file, command, signer. Empty values count as not set. Raises SettingsError, and TokenUnavailableError for
    a configured token that cannot be sent."""
    sources: list[Source] = []
    if isinstance(token, Token):
        sources.append(StaticToken(token))
    elif token or refresh_token:
        sources.append(StaticToken(Token(token or "", ws_token or None, refresh_token or None)))
    if token_provider is not None:
        # a signer that is given as a provider is the same thing, but knows the server's time
        sources.append(token_provider if isinstance(token_provider, SignedTokens) else TokenProvider(token_provider))
    if token_file:
        sources.append(TokenFile(token_file))
    if token_command:
        from .token_command import TokenCommand  # the import of subprocess costs more than the rest of this package

        sources.append(TokenCommand(token_command, clock=clock))
    if signed is not None:
        sources.append(signed)
    return tuple(sources)
