"""What the tests of tokens share: tokens that look like JWTs, a session server in memory, a manager on its stage.

None of the tokens is signed; no secret here opens anything.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from chatsdk.auth import PairStore, TokenManager
from chatsdk.auth.sources import Source, StaticToken
from chatsdk.core.clock import Clock
from chatsdk.core.errors import ChatError, Unauthorized
from chatsdk.core.events import Event
from chatsdk.core.exchange import Request, Response
from chatsdk.core.tokens import Token
from chatsdk.testing.clock import FakeClock

USER = "alice"


def part(claims: Any) -> str:
    """One part of a JWT."""
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()


def jwt_like(name: str, **claims: Any) -> str:
    """Text that reads like a JWT with these claims; `name` makes it unlike others."""
    return f"{part({'alg': 'none'})}.{part({**claims, 'jti': name})}.{part(name)}"


def bearer(token: Token) -> str:
    """The header that carries it."""
    return f"Bearer {token.access.reveal()}"


class Sessions:
    """A server's side of a session: refresh tokens are single use, and tokens live `life` seconds by `clock`."""

    def __init__(self, clock: Clock, life: float = 900.0, name: str = "s") -> None:
        self.clock, self.life, self.name = clock, life, name
        self.asked = 0
        self.answered = 0
        self.failing: list[Exception] = []  # raised one after the other, before the token is looked at
        self.before_answer: Callable[[], object] = lambda: None
        self._lock = threading.Lock()
        self.first = self._pair(0)
        self._valid = self._refresh_text(self.first)

    def refresh(self, refresh: str, deadline: float) -> Token:
        """What the backend's refresh does over the wire."""
        with self._lock:
            self.asked += 1
            if self.failing:
                raise self.failing.pop(0)
            if refresh != self._valid:
                raise unauthorized("Token has been revoked")
            self.answered += 1
            pair = self._pair(self.answered)
            self._valid = self._refresh_text(pair)
        self.before_answer()
        return pair

    def end(self) -> None:
        """End the session."""
        self._valid = ""

    def _pair(self, number: int) -> Token:
        now = self.clock.time()
        name = f"{self.name}{number}"
        access = jwt_like(name, iat=now, exp=now + self.life, user_id=USER)
        return Token(access, ws=f"{name}-ws", refresh=f"{name}-refresh")

    @staticmethod
    def _refresh_text(pair: Token) -> str:
        assert pair.refresh is not None
        return pair.refresh.reveal()


def unauthorized(message: str) -> Unauthorized:
    """A 401 with this message."""
    body = {"error": {"message": message}}
    return Unauthorized(message, status=401, response=Response(status=401, body=body))


def is_over(body: Any) -> bool:
    """The predicate of these tests: only a revoked token means the end."""
    return isinstance(body, dict) and body.get("error", {}).get("message") == "Token has been revoked"


class Stage:
    """A manager and what it does to its surroundings: events, wake-ups."""

    def __init__(
        self,
        *sources: Source,
        sessions: Sessions | None = None,
        clock: Clock | None = None,
        pairs: Path | None = None,
        background: bool = False,
        user: str = USER,
        **options: Any,
    ) -> None:
        self.clock: Any = clock or (sessions.clock if sessions else FakeClock())
        self.events: list[Event] = []
        self.woken: list[str] = []
        if sessions is not None:
            options = {"refresh": sessions.refresh, "refresh_refused": is_over, **options}
        self.manager = TokenManager(
            user,
            sources,
            clock=self.clock,
            random=lambda: 0.0,
            emit=self.events.append,
            on_token=self.woken.append,
            pair_store=None if pairs is None else PairStore(pairs, clock=self.clock),
            background=background,
            **options,
        )

    def sign(self, **facts: Any) -> str:
        """The Authorization of a fresh request."""
        return self.manager.authorize(request(**facts), False)["Authorization"]

    def refused(self, header: str, **facts: Any) -> str:
        """The Authorization after the server refused `header`."""
        signed = request(**facts).with_headers({"Authorization": header})
        return self.manager.authorize(signed, True)["Authorization"]

    def names(self) -> list[str]:
        """The events so far, by name, once no renewal is under way (its event leaves after its token is there)."""
        settle()
        return [event.NAME for event in self.events]


def settle() -> None:
    """Wait until the threads of all renewals have ended."""
    until = time.monotonic() + 20
    while any(thread.name == "chatsdk-token-renewal" for thread in threading.enumerate()):
        assert time.monotonic() < until
        threading.Event().wait(0.002)


def request(**facts: Any) -> Request:
    """Some request of the user's."""
    return Request(operation="messages.list", method="GET", path="/api/channels", user=USER, **facts)


def static(token: Token | str) -> StaticToken:
    """A configured token."""
    return StaticToken(token if isinstance(token, Token) else Token(token))


def together(count: int, act: Callable[[int], Any]) -> list[Any]:
    """Run `act` in `count` threads that begin at one moment; their results, an error as a value."""
    barrier = threading.Barrier(count)
    results: list[Any] = [None] * count

    def run(index: int) -> None:
        barrier.wait(10)
        try:
            results[index] = act(index)
        except (ChatError, AssertionError) as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return results


class Scripted:
    """A source that gives one thing after the other, the last one for ever. An exception is raised, None is none."""

    def __init__(self, *script: Any, name: str = "provider", quick: bool = True, mints: bool = True) -> None:
        self.name, self.quick, self.mints = name, quick, mints
        self.script: Sequence[Any] = script
        self.asked: list[bool] = []

    def get(self, wanted: Any, now: float) -> Token | None:
        """The next thing of the script."""
        given = self.script[min(len(self.asked), len(self.script) - 1)]
        self.asked.append(wanted.force)
        if isinstance(given, Exception):
            raise given
        return given if given is None or isinstance(given, Token) else Token(given)

    def changed(self) -> bool:
        """Never by itself."""
        return False
