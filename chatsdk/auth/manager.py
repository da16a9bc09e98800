"""One user's token: served at once while it is good, renewed once for all who need it, never in a loop.

    the token is        a caller gets                                       meanwhile
    good                it                                                  -
    due                 it                                                  one renewal, if none is under way
    expired by its exp  the outcome of the one renewal                      all wait for it, until their deadlines
    refused by a 401    the same                                            the same
    not there yet       the same                                            the same
    lost                TokenExpiredError, and no request is made           -

* Single flight: a renewal is a `_Flight`. It runs in a thread of `renewal_threads` where it may take time, because a
  refresh that a caller's short deadline cut off could lose the answer, and with it the session. Where threads are not
  wanted (`background=False`) or cannot be had (at exit), the one who needs it runs it.
* A 401 for a token that is not the current one any more just gets the current one. So of eight threads that meet one
  expired token, one refreshes.
* A renewal that fails is tried again after a back-off; until then those who need it get TokenUnavailableError. A token
  that the server has not refused, or that should still be good by its `exp`, is served all the same.
* If nobody has anything newer and the session is not over, the token in use is served again, also to the one who was
  refused: **the same header back means "there is nothing better", and the 401 is the answer**.
* A token that was made because the one before was refused, and is refused at once too, is not renewed again before
  1 s, 2 s, 4 s ... 60 s have passed: the 401 is the answer.
* Lost: the session is over, or the token's end has passed by the server's clock and the server refused it, and no
  source has another one. That is told once, by TokenExpired. `replace`, a changed token file and `recheck` end it.

Events and callbacks leave after the lock is released. After a fork the child has a fresh lock and no renewal under way.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ..core.clock import Clock, Random
from ..core.errors import TokenUnavailableError
from ..core.events import Event, TokenExpired, TokenRefreshed
from ..core.exchange import Request
from ..core.tokens import Secret, Token, TokenRequest
from ..resilience.process_lock import ProcessLock
from .expiry import REFRESH_BEFORE, ServerTime, read_claims
from .pairs import PairStore, origin_of
from .renewal import Failed, Held, NothingNewer, Outcome, Refresh, Refused, Renewed, Renewer
from .renewal_threads import RenewalThreads
from .sources import Source, StaticToken, as_token
from .state import Need, TokenState

log = logging.getLogger("chatsdk.auth")

WATCH = 1.0
"""Seconds between two looks at a token file."""

TIMEOUT = 10.0
"""Seconds that a refresh may take, and that a caller without a deadline waits."""


class _Flight:
    """One renewal under way, and the event that those wait for who need it."""

    def __init__(self, held: Held | None, force: bool, refused: frozenset[str]) -> None:
        self.held = held
        self.force = force
        self.refused = refused
        self.done = threading.Event()


class TokenManager:
    """The token of `user`. Thread-safe; `authorize` is all that the pipeline needs.

    sources          where tokens come from, in order; see `build_sources`
    refresh          `(refresh token, monotonic deadline) -> Token`, raises the SDK's errors
    refresh_refused  does the body of a refused refresh say that the session is over?
    pair_store       keeps rotated pairs over restarts; in memory only without it
    server_time      shared by the managers of one server
    on_token         called with the user when there is a token again after trouble, or a new one by `replace`
    refresh_before   seconds ahead of its end at which a token is refreshed
    timeout          seconds that a refresh may take
    background       False: no threads, renewals run in the calling thread
    threads          where renewals run else; shared by the managers of one client
    check_user       warn of tokens that name another user; False where `user` is only a stand-in for "whoever this is"
    """

    def __init__(
        self,
        user: str,
        sources: Sequence[Source],
        *,
        clock: Clock,
        random: Random,
        emit: Callable[[Event], None],
        refresh: Refresh | None = None,
        refresh_refused: Refused = lambda _body: False,
        pair_store: PairStore | None = None,
        server_time: ServerTime | None = None,
        on_token: Callable[[str], None] | None = None,
        refresh_before: float = REFRESH_BEFORE,
        timeout: float = TIMEOUT,
        background: bool = True,
        threads: RenewalThreads | None = None,
        check_user: bool = True,
    ) -> None:
        self.user = user
        self._sources = tuple(sources)
        self._clock = clock
        self._random = random
        self._emit = emit
        self._on_token = on_token
        self._timeout = timeout
        self._threads = (threads or RenewalThreads()) if background else None
        self._check_user = check_user
        self._server_time = server_time or ServerTime(clock)
        self._renewer = Renewer(
            user,
            self._sources,
            server_time=self._server_time,
            refresh=refresh,
            refused=refresh_refused,
            pairs=pair_store,
        )
        self._next_watch = 0.0
        self._mutex = threading.Lock()
        self._pid = os.getpid()
        self._flight: _Flight | None = None  # under the lock, as is the state
        self._state = TokenState(user, self._server_time, before=refresh_before)

    def __repr__(self) -> str:
        return f"TokenManager(user={self.user!r}, lost={self.lost})"

    # ---- what others call

    def authorize(self, request: Request, force: bool = False) -> Mapping[str, str]:
        """The headers that sign `request`. `force`: the server refused those that it carries.

        Waits for a renewal where one is needed, until `request.deadline`. Gives back the refused header if there is
        nothing better. Raises TokenUnavailableError (later, perhaps) and TokenExpiredError (lost).
        """
        refused: str | None = None
        if force:
            refused = request.headers.get("Authorization", "").removeprefix("Bearer ")
            current = self._state.current
            if not refused and current is not None:  # an unsigned copy of the request: the current token is meant
                refused = current.token.access.reveal()
        token = self._serve(refused, request.deadline)
        return {"Authorization": f"Bearer {token.access.reveal()}"}

    def token(self, *, refused: Token | None = None, deadline: float | None = None) -> Token:
        """The current token, with the websocket's. `refused`: the one that a server just refused; `deadline`:
        monotonic. Raises as `authorize` does."""
        return self._serve(None if refused is None else refused.access.reveal(), deadline)

    @property
    def lost(self) -> bool:
        """True if there is no token and none to be had until somebody brings one."""
        return self._state.lost

    @property
    def renewing(self) -> bool:
        """True while a renewal is under way."""
        return self._flight is not None

    @property
    def disposable(self) -> bool:
        """True if another manager with the same sources would do as well: no token was brought by `replace`, and
        nothing is under way or wrong."""
        current = self._state.current
        brought = current is not None and all(current.source is not source for source in self._sources)
        return not (brought or self.renewing or self._state.in_trouble)

    def replace(self, token: Token | str | Secret, *, again: bool = True) -> None:
        """Use this token from now on (the user signed in again). Raises TokenUnavailableError if it is no token.

        The token that the session in use began with changes nothing, because what that was refreshed to is newer.
        `again`: but where that session is in trouble, it is tried once more."""
        given = as_token(token, "the token")
        current = self._state.current
        known = current is not None and current.origin == origin_of(given)
        if not known or (again and self._state.in_trouble):
            self._take(given, StaticToken(given))

    def recheck(self) -> None:
        """If the session is lost, ask the sources whether one has a token now. Cheap otherwise; call it now and then
        (the outbox's sweep), because nobody sends for a user whose session is lost."""
        self._watch()
        with self._lock():
            now = self._clock.monotonic()
            ready = self._state.lost and self._flight is None and now >= self._state.not_before
            flight = self._take_off(Need.MISSING) if ready else None
        if flight is not None:
            self._launch(flight, now + self._timeout, urgent=False)

    def observe_skew(self, seconds: float) -> None:
        """Server time minus ours, as an answer's Date header has it."""
        self._server_time.observe(seconds)

    def close(self, timeout: float = TIMEOUT) -> None:
        """Wait for a renewal that is under way, so that its pair is kept, but for `timeout` seconds at most."""
        with self._lock():
            flight = self._flight
        if flight is not None:
            self._clock.wait(flight.done, timeout)

    # ---- serving

    def _serve(self, refused: str | None, deadline: float | None) -> Token:
        until = self._clock.monotonic() + self._timeout if deadline is None else deadline
        self._watch()
        while True:
            with self._lock():
                state, now = self._state, self._clock.monotonic()
                if state.lost:
                    raise state.expired_error()
                need = state.need(refused, now)
                current = state.current
                if current is not None and need is Need.NONE:
                    return current.token
                flight, mine = self._flight, False
                if flight is None:
                    if not state.may_renew(need, now):
                        return state.best(need, refused)
                    flight, mine = self._take_off(need), True
            if mine and not self._launch(flight, until, urgent=need is not Need.SOON):
                continue
            if current is not None and need is Need.SOON:
                return current.token
            if not self._clock.wait(flight.done, max(until - self._clock.monotonic(), 0.0)):
                raise TokenUnavailableError(f"no token for user {self.user!r} in time: its renewal is still under way")

    # ---- renewing

    def _take_off(self, need: Need) -> _Flight:
        force = need is Need.REFUSED or self._state.lost
        self._flight = _Flight(self._state.current, force, self._state.refused_ids)
        return self._flight

    def _launch(self, flight: _Flight, until: float, *, urgent: bool) -> bool:
        """Run a renewal: True if in a thread, False if it is done. `urgent`: somebody waits for it."""
        if (
            self._threads is not None
            and self._renewer.slow(flight.held)
            and self._threads.run(partial(self._fly, flight), urgent=urgent)
        ):
            return True
        self._fly(flight, until)
        return False

    def _fly(self, flight: _Flight, deadline: float | None = None) -> None:
        outcome: Outcome = Failed("its renewal was interrupted")
        try:
            if deadline is None:  # in a thread, which may have come late
                deadline = self._clock.monotonic() + self._timeout
            outcome = self._renewer.renew(flight.held, force=flight.force, refused=flight.refused, deadline=deadline)
        finally:
            self._land(flight, outcome)

    def _land(self, flight: _Flight, outcome: Outcome) -> None:
        event: Event | None = None
        wake = False
        with self._lock():
            if self._flight is flight:  # else somebody brought a token meanwhile, and this came too late
                self._flight = None
                if isinstance(outcome, Renewed):
                    wake = self._state.in_trouble
                    event = self._install(outcome.held)
                else:
                    event = self._fail(outcome)
        flight.done.set()
        self._tell(event, wake)

    def _install(self, held: Held) -> Event | None:
        first = self._state.current is None and not self._state.lost
        self._state.install(held, self._clock.monotonic(), self._random())
        claimed = read_claims(held.token.access.reveal()).user if self._check_user else None
        if claimed is not None and claimed != self.user:
            log.warning("the token for user %r (%s) says that it is of user %r", self.user, held.how, claimed)
        if first:
            return None
        log.info("user %r has a new token (%s)", self.user, held.how)
        ends = self._state.schedule.expires_at
        return TokenRefreshed(at=self._clock.time(), user=self.user, source=held.how, expires_at=ends)

    def _fail(self, outcome: Failed | NothingNewer) -> Event | None:
        state = self._state
        failing, was_lost = state.failure is not None, state.lost
        state.fail(outcome, self._clock.monotonic(), self._random())
        if isinstance(outcome, Failed) and not failing:  # one line an outage
            log.warning("no new token for user %r, trying again: %s", self.user, outcome.what)
        if not state.lost or was_lost or state.current is None:  # without any token no session can have ended
            return None
        log.error("user %r has lost the session; messages stay queued until there is a new token", self.user)
        return TokenExpired(at=self._clock.time(), user=self.user, error=state.expired_error())

    # ---- tokens that come by themselves

    def _watch(self) -> None:
        """Take the new content of the file that the token came from; any file's, if there is no token."""
        if self._clock.monotonic() < self._next_watch:
            return
        with self._lock():
            now, state = self._clock.monotonic(), self._state
            if now < self._next_watch:  # another thread looks already
                return
            self._next_watch = now + WATCH
            current = state.current
            everywhere = state.lost or (current is None and state.failures > 0)
        sources = self._sources if everywhere else () if current is None else (current.source,)
        for source in sources:
            if source.changed() and self._take_changed(source, current):
                return

    def _take_changed(self, source: Source, current: Held | None) -> bool:
        try:
            token = source.get(TokenRequest(self.user), self._server_time.now())
        except TokenUnavailableError as error:
            log.warning("user %r keeps the token in use: %s", self.user, error.message)
            return False
        if token is None or (current is not None and origin_of(token) == current.origin):
            return False
        self._take(token, source)
        return True

    def _take(self, token: Token, source: Source) -> None:
        held = self._renewer.adopt(token, source)
        with self._lock():
            flight, self._flight = self._flight, None
            event = self._install(held)
            self._state.forgive()
        if flight is not None:
            flight.done.set()
        self._tell(event, wake=True)

    def _tell(self, event: Event | None, wake: bool) -> None:
        if event is not None:
            self._emit(event)
        if wake and self._on_token is not None:
            try:
                self._on_token(self.user)
            except Exception as error:  # the token is there all the same; the outbox looks again by itself
                log.warning("waking the lanes of user %r failed: %s", self.user, type(error).__name__)

    # ---- the lock

    def _lock(self) -> threading.Lock:
        if self._pid != os.getpid():
            self._after_fork()
        return self._mutex

    def _after_fork(self) -> None:
        # A child begins with one thread, but a server that forks without the hooks may start more before this runs.
        with _forking:
            if self._pid != os.getpid():
                self._mutex = threading.Lock()  # the old one may be held by a thread that is not here
                self._flight = None
                self._pid = os.getpid()


_forking = ProcessLock()
"""Held for a few instructions, once per manager and child."""
