"""The manager under any order of events: time, requests, refusals, outages, the end of a session, a new sign-in.

Whatever happened, the manager raises nothing but its two errors, asks at a pace, is lost only if the session really is
over, and once the trouble ends it gives a token that lives.
"""

from __future__ import annotations

import contextlib
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from chatsdk.core.errors import NotSentError, TokenExpiredError, TokenUnavailableError
from chatsdk.testing.clock import FakeClock
from tests.auth.kit import Sessions, Stage, bearer, static, unauthorized


class Life(RuleBasedStateMachine):
    """One user's tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.sessions = Sessions(self.clock)
        self.configured = bearer(self.sessions.first)
        self.stage = Stage(static(self.sessions.first), sessions=self.sessions)
        self.stage.manager.observe_skew(0.0)
        self.began = self.clock.monotonic()
        self.down = False
        self.over = False
        self.seen: list[str] = []
        self.sign_ins = 0

    def ask(self, refused: str | None) -> str | None:
        """A request, signed; None if there is no token for it."""
        self.sessions.failing = [NotSentError("x"), unauthorized("Invalid refresh token")] * 50 if self.down else []
        with contextlib.suppress(TokenUnavailableError, TokenExpiredError):
            header = self.stage.sign() if refused is None else self.stage.refused(refused)
            assert header.startswith("Bearer ")
            if header not in self.seen:
                self.seen.append(header)
            return header
        return None

    @rule(seconds=st.sampled_from([0.1, 1, 5, 60, 290, 600, 1000]))
    def pass_time(self, seconds: float) -> None:
        """Time passes."""
        self.clock.advance(seconds)

    @rule()
    def sign(self) -> None:
        """A request: it never gets a token that was replaced, but for the configured one if that is all there is."""
        header = self.ask(None)
        assert header in (None, self.seen[-1] if self.seen else None, self.configured)

    @rule(back=st.integers(1, 4))
    def refuse(self, back: int) -> None:
        """The server refuses one of the last tokens."""
        if self.seen:
            self.ask(self.seen[-min(back, len(self.seen))])

    @rule()
    def outage(self) -> None:
        """Refreshing begins to fail, or ends to."""
        self.down = not self.down

    @rule()
    def end(self) -> None:
        """The session ends on the server."""
        self.sessions.end()
        self.over = True

    @rule()
    def look_again(self) -> None:
        """The outbox's sweep."""
        self.stage.manager.recheck()

    @precondition(lambda self: self.over)
    @rule()
    def sign_in(self) -> None:
        """The user signs in again."""
        self.sign_ins += 1
        self.sessions = Sessions(self.clock, name=f"in{self.sign_ins}-")
        self.stage.manager._renewer._refresh = self.sessions.refresh
        self.stage.manager.replace(self.sessions.first)
        self.over, self.began = False, self.clock.monotonic()

    @invariant()
    def lost_only_if_over(self) -> None:
        """No outage and no refusal makes it lost."""
        assert self.over or not self.stage.manager.lost

    @invariant()
    def asked_at_a_pace(self) -> None:
        """A second allows four tries at the very most, and a refusal one more."""
        assert self.sessions.asked <= 2 + 4 * (self.clock.monotonic() - self.began) + len(self.seen)

    @invariant()
    def told_once(self) -> None:
        """Every loss is told once: never two in a row without a new token between them."""
        names = self.stage.names()
        assert ("auth:token_expired", "auth:token_expired") not in pairwise(names)

    def teardown(self) -> None:
        """The trouble ends: a minute later there is a token that lives, or the session is over and said to be."""
        self.down = False
        self.clock.advance(120)
        header = self.ask(None)
        header = self.ask(header) if header is not None else None
        if self.over:
            self.clock.advance(2000)
            for _ in range(3):
                header = self.ask(header or self.ask(None))
                self.clock.advance(120)
            assert self.stage.manager.lost
        else:
            assert header is not None
            ends = self.stage.manager.token().expires_at
            assert ends is None or ends > self.clock.time()
            assert not self.stage.manager.lost


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
