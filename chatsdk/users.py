"""Who can speak here: one token manager per user, made when the user is first heard of.

A manager for a user other than the client's own asks only those sources that can give anybody's token: provider,
command (which is told nothing of the user and so serves the default one alone), signer, or what `replace` was given.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from random import random
from typing import TYPE_CHECKING, Any

from .auth import PairStore, ServerTime, TokenManager, build_sources, read_claims
from .core.clock import Clock
from .core.errors import InvalidArgument, SettingsError
from .core.events import Event
from .core.exchange import Request
from .core.settings import ROWS, Settings
from .core.tokens import Token

if TYPE_CHECKING:
    from .auth import SignedTokens

NOBODY = "me"
"""The user of lanes and caches where neither a setting nor the token names one."""


def check_user(user: str) -> str:
    """A user's id, by the rule of the setting `user`. Raises InvalidArgument."""
    kind = ROWS["user"].kind
    try:
        return str(kind.parse(user))
    except ValueError:
        raise InvalidArgument(f"a user's id must be {kind.allowed}") from None


class Users:
    """The token managers of one client."""

    def __init__(
        self,
        settings: Settings,
        *,
        provider: Callable[..., Any] | None,
        signed: SignedTokens | None,
        clock: Clock,
        emit: Callable[[Event], None],
        refresh: Callable[[str, str, float], Token],
        refresh_refused: Callable[[Any], bool],
        pairs: Callable[[], Path | None],
        on_token: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._provider = provider
        self._signed = signed
        self._clock = clock
        self._emit = emit
        self._refresh = refresh
        self._refused = refresh_refused
        self._pairs = pairs
        self._on_token = on_token
        self._lock = threading.Lock()
        self._managers: dict[str, TokenManager] = {}
        self._server_time = ServerTime(clock)
        self.default = self._find_default()

    def _find_default(self) -> str:
        settings = self._settings
        if settings.user:
            return settings.user
        token = settings.token
        return (read_claims(token.reveal()).user if token else None) or NOBODY

    @property
    def serves_anybody(self) -> bool:
        """Tokens can be had for users who were not named before."""
        return self._provider is not None or self._signed is not None

    def allowed(self) -> Collection[str] | None:
        """Whose messages this client can deliver; None: anybody's. The outbox asks before each turn, which is when
        sources that lost their session are asked again: nobody sends for such a user."""
        for manager in list(self._managers.values()):
            if manager.lost:
                manager.recheck()
        return None if self.serves_anybody else self._known()

    def _known(self) -> Collection[str]:
        settings = self._settings
        sources = (settings.token, settings.refresh_token, settings.token_file, settings.token_command)
        with self._lock:
            return {*self._managers, *([self.default] if any(sources) else [])}

    def authorize(self, request: Request, force: bool) -> Mapping[str, str]:
        """Headers that sign a request; see `TokenManager.authorize`."""
        return self.manager(request.user).authorize(request, force) if request.user else {}

    def manager(self, user: str) -> TokenManager:
        """The token manager of a user."""
        manager = self._managers.get(user)
        if manager is None:
            with self._lock:
                manager = self._managers.get(user)
                if manager is None:
                    manager = self._managers[user] = self._make(user)
        return manager

    def replace(self, user: str, token: str | Token) -> None:
        """Use this token for `user` from now on."""
        self.manager(user).replace(token)

    def server_now(self) -> float:
        """Unix time by the server's clock."""
        return self._server_time.now()

    def observe_skew(self, seconds: float) -> None:
        """Server time minus ours, from an answer's Date header."""
        self._server_time.observe(seconds)

    def lost(self, user: str) -> bool:
        """A user's session is lost for good, or there never was one: nobody here can speak for this user."""
        manager = self._managers.get(user)
        if manager is not None:
            return manager.lost
        return not self.serves_anybody and user not in self._known()

    def close(self, timeout: float) -> None:
        """Wait for renewals under way, so that their pairs are kept."""
        for manager in list(self._managers.values()):
            manager.close(timeout)

    def after_fork(self) -> None:
        """In a forked child: a lock that another thread held there would never be released."""
        self._lock = threading.Lock()

    def _make(self, user: str) -> TokenManager:
        settings = self._settings
        own: dict[str, Any] = {}
        if user == self.default:
            own = {
                "token": settings.token,
                "ws_token": settings.ws_token,
                "refresh_token": settings.refresh_token,
                "token_file": settings.token_file,
                "token_command": settings.token_command,
            }
        sources = build_sources(clock=self._clock, token_provider=self._provider, signed=self._signed, **own)
        if not sources and user == self.default and not self._managers:
            raise SettingsError(
                "there is no token",
                code="missing",
                hint="set CHATSDK_TOKEN, CHATSDK_TOKEN_FILE or CHATSDK_TOKEN_COMMAND, or give token=, token_provider=",
            )
        directory = self._pairs()
        return TokenManager(
            user,
            sources,
            clock=self._clock,
            random=random,
            emit=self._emit,
            refresh=lambda secret, deadline: self._refresh(user, secret, deadline),
            refresh_refused=self._refused,
            pair_store=None if directory is None else PairStore(directory, clock=self._clock),
            server_time=self._server_time,
            on_token=self._on_token,
            refresh_before=settings.refresh_before,
            timeout=settings.timeout,
            background=settings.background,
            check_user=user != NOBODY,
        )
