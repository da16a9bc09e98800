"""Who can speak here: one token manager per user, made when the user is first needed.

A manager for a user other than the client's own asks only those sources that can give anybody's token (provider,
signer), or has what `replace` was given. Token file and command are told nothing of the user: they serve the client's
own one alone.

Theory. Users come and go by the thousand, so managers are kept like pages in a cache: the `users_kept` that were used
last. One that goes takes along what it knows, so which may go?

    nothing was given, nothing is wrong     goes: the sources give a token again
    a token was given (`as_user`, `connect_user`), a session is lost, a renewal failed
                                            goes only if no message of the user waits in the outbox: nothing but that
                                            manager could send it, or bring it on its way again
    a renewal is under way                  stays: it may be buying a pair
    of the client's own user                stays

What stays over is looked at again in its turn. And a manager that went is not gone while a view uses it: views hold
theirs, and `_alive` finds it. So the limit holds for idle users, memory is bounded by it plus the users whose messages
wait plus the views that somebody holds, and no message that was accepted loses the token that was given for it.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from random import random
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from .auth import PairStore, RenewalThreads, ServerTime, TokenManager, build_sources, read_claims
from .auth.sources import as_token
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

LOOK = 1.0
"""Seconds between two looks at the sources of lost sessions; they are asked at a pace of their own."""

TRIES = 8
"""Managers that are looked at, at most, when a new one wants room: what stays costs a look into the outbox."""


def check_user(user: str) -> str:
    """A user's id, by the rule of the setting `user`. Raises InvalidArgument."""
    kind = ROWS["user"].kind
    try:
        return str(kind.parse(user))
    except ValueError:
        raise InvalidArgument(f"a user's id must be {kind.allowed}") from None


class _Kept:
    """A manager among those used last, and how often it was used."""

    __slots__ = ("manager", "uses")

    def __init__(self, manager: TokenManager) -> None:
        self.manager = manager
        self.uses = 0


class Users:
    """The token managers of one client.

    pairs     where rotated token pairs are kept (None: nowhere)
    on_token  called with a user who has a token again, or whose lost session was forgotten
    waiting   does a message of this user wait in the outbox? Asked without a lock held
    """

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
        waiting: Callable[[str], bool] = lambda _: False,
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
        self._waiting = waiting
        self._locks: dict[int, threading.Lock] = {}  # by process: a forked child must not meet a held one
        self._kept: OrderedDict[str, _Kept] = OrderedDict()  # under the lock, as are the next two; used last is last
        self._alive: WeakValueDictionary[str, TokenManager] = WeakValueDictionary()
        self._allowed: frozenset[str] | None = None
        self._next_look = 0.0
        self._pair_store: PairStore | None = None
        self._threads = RenewalThreads()
        self._server_time = ServerTime(clock)
        self.default = self._find_default()

    def _find_default(self) -> str:
        settings = self._settings
        if settings.user:
            return settings.user
        claimed = read_claims(settings.token.reveal()).user if settings.token else None
        try:
            return check_user(claimed) if claimed else NOBODY
        except InvalidArgument:  # nobody checked what the token says
            return NOBODY

    @property
    def serves_anybody(self) -> bool:
        """Tokens can be had for users who were not named before."""
        return self._provider is not None or self._signed is not None

    @property
    def _own_sources(self) -> bool:
        """The settings say where the tokens of the client's own user come from."""
        settings = self._settings
        return any((settings.token, settings.refresh_token, settings.token_file, settings.token_command))

    def allowed(self) -> Collection[str] | None:
        """Whose messages this client can deliver; None: anybody's. The outbox asks before each turn, so it must be
        cheap: the same object as long as nothing changed. Once a second the sources of those who lost their session are
        asked again, because nobody sends for such a user."""
        now = self._clock.monotonic()
        if now >= self._next_look:
            self._next_look = now + LOOK
            for manager in self._managers():
                if manager.lost:
                    manager.recheck()
            self._allowed = None  # a manager that went leaves no word
        if self.serves_anybody:
            return None
        allowed = self._allowed
        if allowed is None:
            with self._lock:
                own = [self.default] if self._own_sources else []
                allowed = self._allowed = frozenset([*(manager.user for manager in self._managers()), *own])
        return allowed

    def authorize(self, request: Request, force: bool) -> Mapping[str, str]:
        """Headers that sign a request; see `TokenManager.authorize`."""
        return self.manager(request.user).authorize(request, force) if request.user else {}

    def manager(self, user: str) -> TokenManager:
        """The token manager of a user, made if there is none. Raises SettingsError if nobody here has any token."""
        manager = self._get(user, brought=False)
        self._make_room(user)
        return manager

    def find(self, user: str) -> TokenManager | None:
        """The token manager of a user, if there is one."""
        return self._alive.get(user)

    def replace(self, user: str, token: str | Token, *, again: bool = True) -> TokenManager:
        """Use this token for `user` from now on; see `TokenManager.replace`. Hold on to the manager that is returned
        as long as somebody may speak with this token. Raises TokenUnavailableError if it is no token."""
        given = as_token(token, "the token")
        manager = self._get(user, brought=True)
        manager.replace(given, again=again)
        self.keep(user)
        return manager

    def keep(self, user: str) -> None:
        """A token was given to this user, or a message accepted: whoever holds the manager may let go of it now."""
        with self._lock:
            self._use(user)
        self._make_room(user)

    def server_now(self) -> float:
        """Unix time by the server's clock."""
        return self._server_time.now()

    def observe_skew(self, seconds: float) -> None:
        """Server time minus ours, from an answer's Date header."""
        self._server_time.observe(seconds)

    def lost(self, user: str) -> bool:
        """A user's session is lost for good, or there never was one: nobody here can speak for this user."""
        manager = self._alive.get(user)
        if manager is not None:
            return manager.lost
        return not (self.serves_anybody or (user == self.default and self._own_sources))

    def close(self, timeout: float) -> None:
        """Wait for renewals under way, so that their pairs are kept, but for `timeout` seconds at most."""
        end = self._clock.monotonic() + timeout
        for manager in self._managers():
            manager.close(max(0.0, end - self._clock.monotonic()))

    def after_fork(self) -> None:
        """In a forked child: what another thread was in the middle of there is never finished."""
        self._alive = WeakValueDictionary({manager.user: manager for manager in self._managers()})

    # ---- keeping

    @property
    def _lock(self) -> threading.Lock:
        pid = os.getpid()  # not every server that forks says so
        return self._locks.get(pid) or self._locks.setdefault(pid, threading.Lock())

    def _managers(self) -> list[TokenManager]:
        found = (reference() for reference in self._alive.valuerefs())
        return [manager for manager in found if manager is not None]

    def _get(self, user: str, *, brought: bool) -> TokenManager:
        with self._lock:
            kept = self._use(user)
            if kept is None:
                manager = self._alive[user] = self._make(user, brought=brought)
                kept = self._kept[user] = _Kept(manager)
                self._allowed = None
            return kept.manager

    def _use(self, user: str) -> _Kept | None:
        """With the lock held: what is kept of a user, as used just now."""
        kept = self._kept.get(user)
        if kept is None:
            manager = self._alive.get(user)
            if manager is None:
                return None
            kept = self._kept[user] = _Kept(manager)
        kept.uses += 1
        self._kept.move_to_end(user)
        return kept

    def _make_room(self, newest: str) -> None:
        """Let go of what was not used for the longest time and may go, but not of the `newest` user's."""
        limit = self._settings.users_kept
        for _ in range(TRIES):
            if len(self._kept) <= limit:  # mostly, and not worth the lock
                return
            with self._lock:
                if len(self._kept) <= limit:
                    return
                user, kept = next(iter(self._kept.items()))
                self._kept.move_to_end(user)
                if user in (self.default, newest) or kept.manager.renewing:
                    continue
                if kept.manager.disposable:
                    del self._kept[user]
                    continue
                uses = kept.uses
            if not self._waiting(user):
                with self._lock:
                    if self._kept.get(user) is not kept or kept.uses != uses:  # a message came while we looked
                        continue
                    del self._kept[user]
                if kept.manager.lost:  # nobody asks for a token any more: the outbox must not wait for one
                    self._on_token(user)

    def _make(self, user: str, *, brought: bool) -> TokenManager:
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
        if not sources and user == self.default and not brought and not self._kept:
            raise SettingsError(
                "there is no token",
                code="missing",
                hint="set CHATSDK_TOKEN, CHATSDK_TOKEN_FILE or CHATSDK_TOKEN_COMMAND, or give token=, token_provider=",
            )
        if self._pair_store is None:
            directory = self._pairs()
            self._pair_store = None if directory is None else PairStore(directory, clock=self._clock)
        return TokenManager(
            user,
            sources,
            clock=self._clock,
            random=random,
            emit=self._emit,
            refresh=lambda secret, deadline: self._refresh(user, secret, deadline),
            refresh_refused=self._refused,
            pair_store=self._pair_store,
            server_time=self._server_time,
            on_token=self._on_token,
            refresh_before=settings.refresh_before,
            timeout=settings.timeout,
            background=settings.background,
            threads=self._threads,
            check_user=user != NOBODY,
        )
