"""Getting a user's next token: who is asked, in which order, and what the answers mean. One thread at a time.

1. The operator: if the place that the token came from has another one now, that wins over everything.
2. The refresh token, under the lock of the pair store. If another process refreshed meanwhile, its pair is taken. The
   new pair is on disk before it is returned, so before its first use.
3. If the answer says that the session is over (`refused`, the backend's word), the sources in order. Any other failure
   of the refresh is passed on: a server whose database is busy answers 401 to good tokens (contract, 15.1), and asking
   again later costs nothing.

The outcome is a value; `state` decides what follows from it. What goes into errors and logs is the type and the status
of a failure, never its text: a server may repeat in it what it was sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ..core.errors import StatusError, StorageError, TokenUnavailableError
from ..core.record import Record, record
from ..core.tokens import Secret, Token, TokenRequest
from .expiry import ServerTime, read_claims
from .pairs import PairStore, origin_of
from .sources import Source, as_token

log = logging.getLogger("chatsdk.auth")

Refresh = Callable[[str, float], Token]
"""`(refresh token, monotonic deadline) -> new pair`. Raises the errors of the transport and of statuses."""

Refused = Callable[[Any], bool]
"""`backend.refresh_refused`: does this body say that the session is over?"""

_REFUSING = (400, 401, 403)
"""Statuses whose body is asked for that."""


@record(frozen=True, slots=True)
class Held(Record):
    """A token and where it is from.

    origin     `origin_of` the configured token it began with
    source     which source gave that one
    how        how this token was got, for events and logs: the source's name, "refresh", "stored" or "shared"
    just_made  it was made when it was asked for
    """

    token: Token
    origin: str
    source: Source
    how: str
    just_made: bool


@record(frozen=True, slots=True)
class Renewed(Record):
    """There is another token."""

    held: Held


@record(frozen=True, slots=True)
class Failed(Record):
    """No answer that counts; ask again, `retry_after` seconds from now at the earliest. `what`: for logs and errors."""

    what: str
    retry_after: float = 0.0


@record(frozen=True, slots=True)
class NothingNewer(Record):
    """Everybody was asked and has nothing but what is known. `over`: the session of the token in use is over."""

    over: bool


Outcome = Renewed | Failed | NothingNewer


def token_id(access: Secret) -> str:
    """A hash by which a refused token is recognised."""
    return hashlib.sha256(b"chatsdk token\0" + access.reveal().encode("utf-8", "surrogatepass")).hexdigest()


class Renewer:
    """Asks for one user. Not thread-safe: the manager lets one thread in at a time."""

    def __init__(
        self,
        user: str,
        sources: Sequence[Source],
        *,
        server_time: ServerTime,
        refresh: Refresh | None,
        refused: Refused,
        pairs: PairStore | None,
    ) -> None:
        self._user = user
        self._sources = tuple(sources)
        self._server_time = server_time
        self._refresh = refresh
        self._refused = refused
        self._pairs = pairs
        self._over: set[str] = set()  # origins of sessions that ended; one a sign-in, so it stays small
        self._gave: dict[int, str] = {}  # which origin each source gave last
        self._unsaved = False
        self._warned = False

    def slow(self, held: Held | None) -> bool:
        """True if asking may take more than a moment."""
        return self._can_refresh(held) or not all(source.quick for source in self._sources)

    def adopt(self, token: Token, source: Source) -> Held:
        """What to use when `source` gives `token`: the pair that was kept for it, or the token itself."""
        origin = origin_of(token)
        self._over.discard(origin)
        kept = self._kept(origin)
        if kept is not None:
            return Held(kept, origin, source, "stored", just_made=False)
        return Held(token, origin, source, source.name, just_made=source.mints)

    def renew(self, held: Held | None, *, force: bool, refused: Collection[str], deadline: float) -> Outcome:
        """Another token than `held`, if there is one. `force`: the server refused that one; `refused`: `token_id`s of
        all that it refused lately. Never raises but for interrupts."""
        try:
            return self._renew(held, force=force, refused=refused, deadline=deadline)
        except Exception as error:
            return Failed(_told(error), getattr(error, "retry_after", None) or 0.0)

    def _renew(self, held: Held | None, *, force: bool, refused: Collection[str], deadline: float) -> Outcome:
        request = TokenRequest(self._user, force)
        if held is not None and held.source.changed():
            with contextlib.suppress(TokenUnavailableError):  # half written; it is asked again below or later
                token = held.source.get(request, self._server_time.now())
                if token is not None and origin_of(token) != held.origin:
                    return Renewed(self.adopt(token, held.source))
        if held is not None and self._can_refresh(held):
            outcome = self._by_refresh(held, refused, deadline)
            if outcome is not None:
                return outcome
            self._over.add(held.origin)
            log.info("the session of user %r is over: its refresh token was refused", self._user)
        return self._by_sources(held, request, refused)

    def _can_refresh(self, held: Held | None) -> bool:
        return (
            held is not None
            and self._refresh is not None
            and bool(held.token.refresh)
            and held.origin not in self._over
        )

    # ---- the sources

    def _by_sources(self, held: Held | None, request: TokenRequest, refused: Collection[str]) -> Outcome:
        failure = ""
        for index, source in enumerate(self._sources):
            now = self._server_time.now()
            try:
                token = source.get(request, now)
            except TokenUnavailableError as error:
                failure = failure or error.message
                continue
            if token is None:
                continue
            origin = origin_of(token)
            before, self._gave[index] = self._gave.get(index), origin
            known = held is not None and origin == held.origin
            if known or origin in self._over or token_id(token.access) in refused:
                continue
            if origin == before and _expired(token, now):  # used, replaced and ended since
                continue
            return Renewed(self.adopt(token, source))
        if failure:
            return Failed(failure)
        return NothingNewer(over=held is None or held.origin in self._over)

    # ---- the refresh token

    def _by_refresh(self, held: Held, refused: Collection[str], deadline: float) -> Outcome | None:
        """The outcome, or None if the session is over."""
        with contextlib.ExitStack() as stack:
            try:
                stored = self._lock(stack, deadline)
            except TimeoutError as error:
                return Failed(str(error))
            token = held.token
            kept = self._kept(held.origin) if stored and not self._unsaved else None
            if kept is not None and kept.access != token.access:
                if token_id(kept.access) not in refused and not _expired(kept, self._server_time.now()):
                    return Renewed(Held(kept, held.origin, held.source, "shared", just_made=False))
                token = kept if kept.refresh else token
            try:
                new = self._exchange(token, deadline)
            except StatusError as error:
                body = None if error.response is None else error.response.body
                if error.status in _REFUSING and self._refused(body):
                    return None
                raise
            # what is on disk may be used up now: then it must not be taken for another process's newer pair
            self._unsaved = self._pairs is not None and not (stored and self._keep(held.origin, new))
            return Renewed(Held(new, held.origin, held.source, "refresh", just_made=True))

    def _exchange(self, token: Token, deadline: float) -> Token:
        assert self._refresh is not None
        assert token.refresh is not None
        new = as_token(self._refresh(token.refresh.reveal(), deadline), "the answer to the refresh")
        if not new.access:
            raise TokenUnavailableError("the answer to the refresh holds no access token")
        # seed 001: an answer without a new refresh token leaves the old one in force
        return Token(new.access, new.ws or token.ws, new.refresh or token.refresh, new.expires_at)

    # ---- the store, which may be absent or broken: then the pair lives in memory only

    def _lock(self, stack: contextlib.ExitStack, deadline: float) -> bool:
        if self._pairs is None:
            return False
        try:
            stack.enter_context(self._pairs.lock(self._user, deadline))
        except StorageError as error:
            self._warn(error)
            return False
        return True

    def _kept(self, origin: str) -> Token | None:
        try:
            return None if self._pairs is None else self._pairs.load(self._user, origin)
        except StorageError as error:
            self._warn(error)
            return None

    def _keep(self, origin: str, token: Token) -> bool:
        assert self._pairs is not None
        try:
            self._pairs.save(self._user, origin, token)
        except StorageError as error:
            self._warn(error)
            return False
        return True

    def _warn(self, error: StorageError) -> None:
        if not self._warned:
            self._warned = True
            log.warning("the session of user %r will not survive this process: %s", self._user, error.message)


def _expired(token: Token, now: float) -> bool:
    claims = read_claims(token.access.reveal())
    ends = token.expires_at if claims.expires_at is None else claims.expires_at
    return ends is not None and now >= ends


def _told(error: Exception) -> str:
    """What may be said of a failure: nothing that the server or somebody's code put into words."""
    if isinstance(error, TokenUnavailableError):  # ours, see sources
        return error.message
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return f"the server answered {status} to the refresh"
    return f"the refresh failed: {type(error).__name__}"
