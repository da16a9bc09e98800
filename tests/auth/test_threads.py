"""The manager with real threads and the real clock: one renewal for all, nobody waits who need not, forks."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from chatsdk.auth.sources import TokenProvider
from chatsdk.core.errors import NotSentError, ServerError, TokenExpiredError, TokenUnavailableError
from chatsdk.core.tokens import Token, TokenRequest
from chatsdk.resilience.system_clock import SystemClock
from tests.auth.kit import (
    USER,
    Scripted,
    Sessions,
    Stage,
    bearer,
    jwt_like,
    request,
    settle,
    static,
    together,
    unauthorized,
)

CLOCK = SystemClock()


def stage_of(sessions: Sessions, *more: object, background: bool = True, **options: object) -> Stage:
    """A manager with threads for this session."""
    sources = [static(sessions.first), *more]
    return Stage(*sources, sessions=sessions, background=background, **options)  # type: ignore[arg-type]


def hold(there: threading.Event, go: threading.Event) -> None:
    """Say that one is there, and stay until told to go."""
    there.set()
    go.wait(20)


@pytest.mark.parametrize("background", [True, False])
def test_eight_threads_one_refresh(background: bool) -> None:
    """Eight threads meet one expired token: the server sees exactly one refresh, and all get its token."""
    sessions = Sessions(CLOCK)
    stage = stage_of(sessions, background=background)
    header = stage.sign()
    headers = together(8, lambda index: stage.refused(header))
    assert len(set(headers)) == 1
    assert headers[0] != header
    assert (sessions.asked, stage.names()) == (1, ["auth:token_refreshed"])


def test_slow_refresh_is_waited_for() -> None:
    """While the one refresh hangs in the network, all who need it wait, and those who come later wait with them."""
    sessions, go, there = Sessions(CLOCK), threading.Event(), threading.Event()
    sessions.before_answer = lambda: hold(there, go)
    stage = stage_of(sessions)
    header = stage.sign()

    def act(index: int) -> str:
        if index == 7:
            assert there.wait(20)
            threading.Timer(0.05, go.set).start()
        return stage.refused(header) if index % 2 else stage.sign()

    headers = together(8, act)
    assert sessions.asked == 1
    assert {headers[index] for index in (1, 3, 5, 7)} == {stage.sign()}


def test_early_refresh_delays_nobody() -> None:
    """While a refresh ahead of the end hangs, every request goes out at once with the token in use."""
    sessions, go = Sessions(CLOCK, life=900), threading.Event()
    sessions.first = Token(
        jwt_like("old", iat=time.time() - 700, exp=time.time() + 200), refresh=sessions.first.refresh
    )
    sessions.before_answer = lambda: go.wait(20)
    stage = stage_of(sessions)
    began = time.monotonic()
    assert together(8, lambda index: stage.sign()) == [bearer(sessions.first)] * 8
    assert time.monotonic() - began < 5
    go.set()
    stage.manager.close()
    assert stage.sign() != bearer(sessions.first)
    assert sessions.asked == 1


def test_short_deadline_does_not_cut_the_refresh_off() -> None:
    """A caller whose deadline passes gets TokenUnavailableError in time; the refresh goes on, and its pair is used."""
    sessions, go = Sessions(CLOCK), threading.Event()
    sessions.before_answer = lambda: go.wait(20)
    stage = stage_of(sessions)
    header = stage.sign()
    began = time.monotonic()
    with pytest.raises(TokenUnavailableError, match="under way"):
        stage.refused(header, deadline=began + 0.1)
    assert time.monotonic() - began < 5
    go.set()
    assert stage.refused(header) != header
    assert sessions.asked == 1


def test_refresh_fails_three_times_then_works() -> None:
    """Eight threads that keep asking through three failures see TokenUnavailableError only, then one new token."""
    sessions = Sessions(CLOCK)
    sessions.failing = [ServerError("x", status=503), NotSentError("x"), unauthorized("Invalid refresh token")]
    stage = stage_of(sessions)
    header = stage.sign()

    def act(index: int) -> str:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            try:
                return stage.refused(header)
            except TokenUnavailableError:
                threading.Event().wait(0.01)
        raise AssertionError("no token in 30 s")

    headers = together(8, act)
    assert len(set(headers)) == 1
    assert sessions.asked == 4
    assert stage.names() == ["auth:token_refreshed"]


def test_lost_is_told_once_to_all() -> None:
    """Eight threads meet the end of a session: one refresh, one event, TokenExpiredError for each."""
    sessions = Sessions(CLOCK)
    stage = stage_of(sessions)
    header = stage.sign()
    sessions.end()
    errors = together(8, lambda index: stage.refused(header))
    assert {type(error) for error in errors} == {TokenExpiredError}
    assert len({id(error) for error in errors}) == 8  # each its own: tracebacks do not grow together
    assert (sessions.asked, stage.names()) == (1, ["auth:token_expired"])


def test_replace_beats_a_hanging_refresh() -> None:
    """A token that a user brings while a refresh hangs is used at once, and the late answer does not undo it."""
    sessions, go, there = Sessions(CLOCK), threading.Event(), threading.Event()
    sessions.before_answer = lambda: hold(there, go)
    stage = stage_of(sessions)
    header = stage.sign()

    def act(index: int) -> str:
        if index == 0:
            assert there.wait(20)
            stage.manager.replace("brought")
        return stage.refused(header)

    assert together(2, act) == ["Bearer brought"] * 2
    go.set()
    settle()
    assert stage.sign() == "Bearer brought"


def test_first_token_of_a_slow_provider() -> None:
    """Eight threads that begin with nothing ask a slow provider once."""
    asked: list[TokenRequest] = []

    def provide(wanted: TokenRequest) -> str:
        asked.append(wanted)
        threading.Event().wait(0.05)
        return "provided"

    stage = Stage(TokenProvider(provide), clock=CLOCK, background=True)
    assert together(8, lambda index: stage.sign()) == ["Bearer provided"] * 8
    assert asked == [TokenRequest(USER, False)]


def test_hanging_provider_holds_nobody_beyond_the_deadline() -> None:
    """A provider that never returns costs each caller its deadline, and the next caller too, in one thread."""
    go = threading.Event()
    stage = Stage(TokenProvider(lambda wanted: str(go.wait(20))), clock=CLOCK, background=True)
    try:
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(TokenUnavailableError):
                stage.sign(deadline=began + 0.05)
            assert time.monotonic() - began < 5
        stage.manager.close(timeout=0.01)
        assert [thread.name for thread in threading.enumerate()].count("chatsdk-token-renewal") == 1
    finally:
        go.set()
        stage.manager.close()


def test_quick_sources_need_no_thread() -> None:
    """Static tokens, files and signers are asked by the caller itself."""
    threads: set[str] = set()

    class Looking(Scripted):
        def get(self, wanted: object, now: float) -> Token | None:
            threads.add(threading.current_thread().name)
            return super().get(wanted, now)

    stage = Stage(Looking("a", "b"), clock=CLOCK, background=True)
    stage.refused(stage.sign())
    assert threads == {threading.current_thread().name}


def test_threads_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started (at interpreter exit), the caller refreshes itself."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    sessions = Sessions(CLOCK)
    stage = stage_of(sessions)
    header = stage.sign()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert stage.refused(header) != header


def _in_child(act: object) -> int:
    """The exit code of a forked child that runs `act`: 0 if it returned True."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if act() else 1  # type: ignore[operator]
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_during_a_refresh(tmp_path: Path) -> None:
    """A child forked while a thread of its parent refreshes, even while the lock is held, refreshes for itself."""
    sessions, go, there = Sessions(CLOCK), threading.Event(), threading.Event()
    sessions.before_answer = lambda: hold(there, go)
    stage = stage_of(sessions)
    header = stage.sign()
    waiting = threading.Thread(target=lambda: stage.refused(header))
    waiting.start()
    assert there.wait(20)

    def child() -> bool:
        signal_deadline = time.monotonic() + 10
        sessions._valid = "s0-refresh"  # the child's copy of a server that does not rotate
        sessions.before_answer = lambda: None
        return stage.refused(header, deadline=signal_deadline) != header

    try:
        with stage.manager._mutex:  # as if another thread were in the middle of something
            code = _in_child(child)
    finally:
        go.set()
        waiting.join(20)
    assert code == 0
    assert stage.sign() != header
    assert sessions.asked == 1


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_finds_the_parents_pair(tmp_path: Path) -> None:
    """Parent and child share a session through the store: the child does not use up the refresh token a second time."""
    sessions = Sessions(CLOCK)
    stage = stage_of(sessions, pairs=tmp_path / "tokens")
    header = stage.sign()
    new = stage.refused(header)
    stage.manager.replace(sessions.first)  # back to what was configured: the kept pair is found again
    assert stage.sign() == new

    def child() -> bool:
        return stage.sign() == new and stage.refused(header) == new

    assert _in_child(child) == 0
    assert sessions.asked == 1


def test_signing_is_cheap() -> None:
    """A good token costs a request far less than a millisecond."""
    stage = stage_of(Sessions(CLOCK))
    signed = request()
    stage.manager.authorize(signed, False)
    began = time.perf_counter()
    for _ in range(2_000):
        stage.manager.authorize(signed, False)
    assert (time.perf_counter() - began) / 2_000 < 0.0005
