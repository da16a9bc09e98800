"""No secret in any sink: logs at DEBUG, reprs, exceptions with their tracebacks, events, pickles, warnings, files.

Everything that can be secret holds the canary, every way of failing is walked, then all that came out is searched.
"""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatsdk.auth import PairStore, SignedTokens, TokenManager, build_sources
from chatsdk.auth.renewal import Held, Renewed
from chatsdk.auth.sources import StaticToken
from chatsdk.core.errors import ChatError, ServerError
from chatsdk.core.exchange import Response
from chatsdk.core.tokens import Secret, Token, TokenRequest
from chatsdk.testing.clock import FakeClock
from tests.auth.kit import USER, is_over, jwt_like, request, unauthorized

CANARY = "hush-" + str(4711)  # never in one piece in this file, whose lines tracebacks show


class Sink:
    """Collects whatever came out."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def add(self, *things: Any) -> None:
        """Everything that can be made of these things."""
        for thing in things:
            self.texts += [str(thing), repr(thing), f"{thing}", f"{thing!r:>40}"]

    def error(self, act: Callable[[], Any]) -> None:
        """Run `act`; if it raises, keep all that the error can say, also after a pickle."""
        try:
            act()
        except ChatError as error:
            self.add(error, error.to_dict(), vars(error), pickle.loads(pickle.dumps(error)))
            self.texts += traceback.format_exception(error)

    def events(self, event: Any) -> None:
        """An event, also as JSON and pickled."""
        self.add(event, event.to_dict(), pickle.loads(pickle.dumps(event)))
        self.texts.append(json.dumps(event.to_dict()))

    def check(self) -> None:
        """None of it holds the word."""
        assert self.texts
        found = [text for text in self.texts if CANARY in text]
        assert found == []


@pytest.fixture
def sink(caplog: pytest.LogCaptureFixture) -> Sink:
    """A sink; the logs are at DEBUG."""
    caplog.set_level(logging.DEBUG)
    return Sink()


def secret_jwt(name: str, clock: FakeClock, life: float) -> str:
    """A token whose signature holds the word as it stands."""
    return jwt_like(name, iat=clock.time(), exp=clock.time() + life, user_id="mallory") + CANARY


def test_no_secret_comes_out_of_a_managers_life(
    sink: Sink, caplog: pytest.LogCaptureFixture, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A session with every kind of source and failure, to its end and back, says no token anywhere."""
    clock = FakeClock()
    (tmp_path / "token").write_text(f'{{"token": "{CANARY} broken"')
    (tmp_path / "token").chmod(0o644)

    def provide(wanted: TokenRequest) -> Any:
        raise ValueError(f"{CANARY}-provider")

    def wrong_provide(wanted: TokenRequest) -> Any:
        return f"{CANARY} with blanks"

    answers: list[Any] = [
        ServerError(f"{CANARY} said the server", status=500, code=CANARY, hint=CANARY),
        RuntimeError(CANARY),
        unauthorized(f"Invalid {CANARY}"),
        Token(f"{CANARY}\n"),
        {"token": CANARY},
        Token(secret_jwt("second", clock, 900), ws=f"{CANARY}-ws", refresh=f"{CANARY}-refresh-2"),
        unauthorized("Token has been revoked"),
    ]

    def refresh(secret: str, deadline: float) -> Token:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    sources = build_sources(
        clock=clock,
        token=secret_jwt("first", clock, 900),
        ws_token=f"{CANARY}-ws",
        refresh_token=f"{CANARY}-refresh",
        token_provider=provide,
        token_file=tmp_path / "token",
        token_command=["/bin/sh", "-c", f"echo {CANARY}; echo {CANARY} >&2; exit 3", CANARY],
    )
    store = PairStore(tmp_path / "tokens", clock=clock)
    manager = TokenManager(
        USER,
        sources,
        clock=clock,
        random=lambda: 0.0,
        emit=sink.events,
        refresh=refresh,
        refresh_refused=is_over,
        pair_store=store,
        background=False,
    )
    for _ in range(10):
        signed = request().with_headers(_headers(manager) or {"Authorization": f"Bearer {CANARY}"})
        sink.error(lambda signed=signed: manager.authorize(signed, True))  # type: ignore[misc]
        sink.error(lambda: manager.authorize(request(), False))
        sink.add(manager, signed, *vars(manager).values(), *vars(manager._state).values())
        clock.advance(100)
    assert answers == []
    for given in (f"{CANARY} blank", f"{CANARY}\r\nX: 1"):
        sink.error(lambda given=given: manager.replace(given))  # type: ignore[misc]
    manager.replace(Token(f"{CANARY}-brought", refresh=f"{CANARY}-refresh-3"))
    for source in (*sources, *build_sources(clock=clock, token_provider=wrong_provide), SignedTokens("k" * 32, "a")):
        sink.error(lambda source=source: source.get(TokenRequest(USER), 0.0))  # type: ignore[misc]
        sink.add(source)
    (tmp_path / "tokens").chmod(0o755)
    sink.error(lambda: store.save(USER, "o", Token(CANARY)))
    sink.error(lambda: store.load(USER, "o"))
    sink.texts += [caplog.text, *capfd.readouterr(), *(str(path) for path in tmp_path.rglob("*"))]
    sink.texts += [str(vars(record)) for record in caplog.records]
    assert len(caplog.records) > 5
    sink.check()


def _headers(manager: TokenManager) -> Any:
    try:
        return manager.authorize(request(), False)
    except ChatError:
        return None


def test_no_secret_comes_out_of_values(sink: Sink) -> None:
    """Tokens, requests, outcomes and signers hide what they hold, and refuse to be pickled or made JSON."""
    token = Token(CANARY, CANARY, Secret(CANARY))
    held = Held(token, "origin", StaticToken(token), "static", just_made=False)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        signer = SignedTokens(CANARY, "app-1", ws_secret=CANARY)
    response = Response(status=200, body={"ok": True})
    sink.add(token, held, Renewed(held), signer, vars(signer), response, *warned)
    for thing in (token, Secret(CANARY), held, signer):
        for leak in (pickle.dumps, copy.deepcopy, json.dumps):
            with pytest.raises(TypeError) as caught:
                leak(thing)
            sink.add(caught.value)
    sink.check()


def test_the_search_finds_what_is_there(sink: Sink) -> None:
    """The check above can fail: a secret that is revealed is found."""
    sink.add(Secret(CANARY).reveal())
    with pytest.raises(AssertionError):
        sink.check()


def test_text_becomes_secret_at_once() -> None:
    """`Token("...")` holds Secrets from the first moment, keeps them, and cannot be changed."""
    token = Token("a", ws="w", refresh=Secret("r"), expires_at=5.0)
    assert token == Token(Secret("a"), Secret("w"), Secret("r"), 5.0)
    assert [type(part) for part in (token.access, token.ws, token.refresh)] == [Secret] * 3
    with pytest.raises(AttributeError):
        token.access = Secret("b")  # type: ignore[misc]
