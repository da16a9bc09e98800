"""The manager with a clock that is moved by hand: what is served when, and what ends a session."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from chatsdk.auth.token_file import TokenFile
from chatsdk.core.errors import (
    CircuitOpenError,
    NotSentError,
    OutcomeUnknownError,
    ServerError,
    SettingsError,
    TokenExpiredError,
    TokenUnavailableError,
)
from chatsdk.core.events import TokenExpired, TokenRefreshed
from chatsdk.core.tokens import Secret, Token
from chatsdk.testing.clock import FakeClock
from tests.auth.kit import USER, Scripted, Sessions, Stage, bearer, jwt_like, request, static, unauthorized


@pytest.fixture
def clock() -> FakeClock:
    """Time, moved by hand."""
    return FakeClock()


@pytest.fixture
def sessions(clock: FakeClock) -> Sessions:
    """A server whose tokens live 15 minutes."""
    return Sessions(clock)


# ---- ahead of the end


def test_good_token_is_served_without_asking(sessions: Sessions) -> None:
    """A configured token is used as it is, its websocket token with it, and no event is made of that."""
    stage = Stage(static(sessions.first), sessions=sessions)
    assert stage.sign() == bearer(sessions.first)
    assert stage.manager.token() == sessions.first
    assert (sessions.asked, stage.events, stage.woken) == (0, [], [])


def test_due_token_is_refreshed_once(sessions: Sessions, clock: FakeClock) -> None:
    """Five minutes before its end a token is replaced, told by one event that names no token."""
    stage = Stage(static(sessions.first), sessions=sessions)
    stage.sign()
    clock.advance(599)
    assert stage.sign() == bearer(sessions.first)
    clock.advance(1)
    second = stage.sign()
    assert second != bearer(sessions.first)
    assert stage.sign() == second
    assert sessions.asked == 1
    (event,) = stage.events
    assert isinstance(event, TokenRefreshed)
    assert (event.user, event.source, event.expires_at) == (USER, "refresh", clock.time() + 900)
    assert stage.woken == []  # nobody was waiting


def test_session_lives_for_a_day(sessions: Sessions, clock: FakeClock) -> None:
    """A minute at a time through 24 h: every token that is served is still good, and each one is refreshed once."""
    stage = Stage(static(sessions.first), sessions=sessions)
    for _ in range(24 * 60):
        stage.sign()
        ends = stage.manager.token().expires_at or float("inf")
        assert clock.time() < ends
        clock.advance(60)
    assert 24 * 60 / 11 <= sessions.asked <= 24 * 60 / 9


def test_failing_early_refresh_costs_nothing(sessions: Sessions, clock: FakeClock) -> None:
    """While the token is good, a refresh that fails is tried again with back-off and nobody notices."""
    stage = Stage(static(sessions.first), sessions=sessions)
    sessions.failing = [ServerError("x", status=503), NotSentError("x"), unauthorized("Invalid refresh token")]
    clock.advance(650)
    for _ in range(40):
        stage.sign()
        clock.advance(0.1)
    assert sessions.answered == 1
    assert sessions.asked == 4
    assert stage.names() == ["auth:token_refreshed"]


# ---- the server's 401


def test_refused_token_is_replaced(sessions: Sessions) -> None:
    """A 401 forces one refresh, whatever `exp` says."""
    stage = Stage(static(sessions.first), sessions=sessions)
    second = stage.refused(stage.sign())
    assert second != bearer(sessions.first)
    assert (stage.sign(), sessions.asked) == (second, 1)
    assert stage.woken == [USER]  # lanes that met the 401 may be waiting


def test_refusal_of_an_older_token_costs_nothing(sessions: Sessions) -> None:
    """Somebody whose 401 is about a token that was replaced meanwhile just gets the current one."""
    stage = Stage(static(sessions.first), sessions=sessions)
    second = stage.refused(stage.sign())
    assert stage.refused(bearer(sessions.first)) == second
    assert sessions.asked == 1


def test_refusal_without_a_header_means_the_current_token(sessions: Sessions) -> None:
    """A caller that forces with an unsigned request gets another token too."""
    stage = Stage(static(sessions.first), sessions=sessions)
    stage.sign()
    assert stage.manager.authorize(request(), True)["Authorization"] != bearer(sessions.first)


def test_websocket_refusal_renews_too(sessions: Sessions) -> None:
    """Realtime, told that its token is bad, gets a new pair by `token(refused=...)`."""
    stage = Stage(static(sessions.first), sessions=sessions)
    token = stage.manager.token()
    renewed = stage.manager.token(refused=token)
    assert renewed.ws == Secret("s1-ws")
    assert stage.manager.token(refused=token) == renewed


def test_new_tokens_that_are_refused_make_no_loop(sessions: Sessions, clock: FakeClock) -> None:
    """A server that gives tokens and refuses them all: a refresh at once, then after 1, 2, 4 ... 60 s, no more."""
    stage = Stage(static(sessions.first), sessions=sessions)
    began = clock.monotonic()
    asked_at = []
    header = stage.sign()
    while clock.monotonic() < began + 400:
        before = sessions.asked
        header = stage.refused(header)
        if sessions.asked > before:
            asked_at.append(round(clock.monotonic() - began))
        clock.advance(0.25)
    assert asked_at[:8] == [0, 1, 3, 7, 15, 31, 63, 123]
    assert len(asked_at) < 14
    assert not stage.manager.lost


def test_short_tokens_are_no_loop_either(clock: FakeClock) -> None:
    """Opaque tokens that live 4 s are renewed each time they end, without any pause."""
    stage = Stage(Scripted(*[f"t{number}" for number in range(100)]), clock=clock)
    header = stage.sign()
    for _ in range(20):
        clock.advance(4)
        new = stage.refused(header)
        assert new != header
        header = new


def test_refused_for_no_fault_of_its_own(sessions: Sessions, clock: FakeClock) -> None:
    """The server answers 401 to good tokens and to refreshes for 10 s (database busy): the session survives it."""
    stage = Stage(static(sessions.first), sessions=sessions)
    header = stage.sign()
    sessions.failing = [unauthorized("Invalid refresh token")] * 1000
    began = clock.monotonic()
    while clock.monotonic() < began + 10:
        assert stage.sign() == header  # by its exp it should be good
        with pytest.raises(TokenUnavailableError) as caught:
            stage.refused(header)
        assert caught.value.retryable
        clock.advance(0.1)
    assert sessions.asked < 10
    sessions.failing = []
    clock.advance(10)
    assert stage.sign() != header
    assert (stage.manager.lost, stage.names(), stage.woken) == (False, ["auth:token_refreshed"], [USER])


def test_refused_opaque_token_waits_for_the_refresh(clock: FakeClock, sessions: Sessions) -> None:
    """A token without `exp` that was refused is not sent again while its refresh fails."""
    sessions.first = Token("opaque", refresh=sessions.first.refresh)
    stage = Stage(static(sessions.first), sessions=sessions)
    sessions.failing = [NotSentError("x")] * 3
    with pytest.raises(TokenUnavailableError, match="NotSentError"):
        stage.refused(stage.sign())
    with pytest.raises(TokenUnavailableError):
        stage.sign()
    while sessions.failing:
        clock.advance(5)
        with pytest.raises(TokenUnavailableError):
            stage.sign()
    clock.advance(5)
    assert stage.sign() != "Bearer opaque"


@pytest.mark.parametrize(
    "error",
    [
        NotSentError("x"),
        OutcomeUnknownError("x"),
        ServerError("x", status=500),
        CircuitOpenError(circuit="auth", retry_after=30.0),
        unauthorized("Invalid refresh token"),
        RuntimeError("a bug"),
    ],
)
def test_what_is_not_final_is_tried_again(sessions: Sessions, clock: FakeClock, error: Exception) -> None:
    """Offline, time-out, 5xx, open circuit, an unclear 401 and even a bug of ours end no session."""
    stage = Stage(static(sessions.first), sessions=sessions)
    header = stage.sign()
    sessions.failing = [error]
    with pytest.raises(TokenUnavailableError):
        stage.refused(header)
    clock.advance(29)
    if isinstance(error, CircuitOpenError):  # it said when to come back
        with pytest.raises(TokenUnavailableError):
            stage.refused(header)
        assert sessions.asked == 1
    clock.advance(2)
    assert stage.refused(header) != header


def test_static_token_that_is_refused(clock: FakeClock) -> None:
    """Without anything newer the same header comes back, so the 401 is the answer; that is no loss while `exp` is
    to come."""
    token = jwt_like("x", exp=clock.time() + 900, iat=clock.time())
    stage = Stage(static(token), clock=clock)
    for _ in range(50):
        assert stage.refused(stage.sign()) == f"Bearer {token}"
        clock.advance(1)
    assert (stage.manager.lost, stage.events) == (False, [])
    clock.advance(900)
    assert stage.refused(stage.sign()) == f"Bearer {token}"  # our clock alone does not condemn it
    stage.manager.observe_skew(0.0)
    clock.advance(60)
    with pytest.raises(TokenExpiredError):
        stage.refused(f"Bearer {token}")
    assert stage.names() == ["auth:token_expired"]


# ---- hints are hints


def test_wrong_clock_costs_no_token(sessions: Sessions, clock: FakeClock) -> None:
    """With our clock an hour ahead and nobody to say so, every token looks expired; it is served, at a refresh a
    minute."""
    stage = Stage(static(sessions.first), sessions=sessions)
    real = sessions.clock
    sessions.clock = _shifted(clock, -3600.0)
    assert real is clock
    for _ in range(600):
        stage.sign()
        clock.advance(1)
    assert sessions.asked <= 12
    stage.manager.observe_skew(-3600.0)
    before = sessions.asked
    for _ in range(200):
        stage.sign()
        clock.advance(1)
    assert sessions.asked == before


def _shifted(clock: FakeClock, by: float) -> Any:
    class Shifted:
        def time(self) -> float:
            return clock.time() + by

    return Shifted()


def test_expired_by_our_clock_only_is_served_if_refresh_fails(sessions: Sessions, clock: FakeClock) -> None:
    """While nobody confirmed our clock, a token that looks expired is sent if there is nothing better."""
    stage = Stage(static(sessions.first), sessions=sessions)
    sessions.failing = [NotSentError("x")] * 10
    clock.advance(1000)
    assert stage.sign() == bearer(sessions.first)


def test_expired_by_the_servers_clock_is_not(sessions: Sessions, clock: FakeClock) -> None:
    """Once the server's clock is known, an expired token is kept back until there is another one."""
    stage = Stage(static(sessions.first), sessions=sessions)
    stage.manager.observe_skew(0.5)
    sessions.failing = [NotSentError("x")]
    clock.advance(1000)
    with pytest.raises(TokenUnavailableError):
        stage.sign()
    clock.advance(1)
    assert stage.sign() != bearer(sessions.first)


def test_tokens_with_absurd_times_do_not_loop(clock: FakeClock) -> None:
    """A provider whose tokens are born expired, or say junk, is asked once a second at most."""
    for claims in ({"exp": 0}, {"exp": -5e300, "iat": 1e300}, {"exp": clock.time()}, {"exp": "soon"}):
        source = Scripted(*[jwt_like(str(number), **claims) for number in range(1000)])
        stage = Stage(source, clock=clock)
        began = clock.monotonic()
        while clock.monotonic() < began + 20:
            stage.sign()
            clock.advance(0.1)
        assert len(source.asked) <= 21


# ---- the end of a session, and after


def test_final_refusal_asks_the_next_source(sessions: Sessions, clock: FakeClock) -> None:
    """When the session is over, provider, file and command come in order; one that has none is passed over."""
    later = [Scripted(None), Scripted("from-file", name="file"), Scripted("from-command", name="command")]
    stage = Stage(static(sessions.first), *later, sessions=sessions)
    header = stage.sign()
    sessions.end()
    assert stage.refused(header) == "Bearer from-file"
    assert [source.asked for source in later] == [[True], [True], []]
    (event,) = stage.events
    assert isinstance(event, TokenRefreshed)
    assert event.source == "file"


def test_lost_is_told_once(sessions: Sessions, clock: FakeClock) -> None:
    """Nobody has a token: TokenExpiredError for everybody at once, one event, and not one request more."""
    stage = Stage(static(sessions.first), sessions=sessions)
    header = stage.sign()
    sessions.end()
    for _ in range(5):
        with pytest.raises(TokenExpiredError) as caught:
            stage.refused(header)
        assert not caught.value.retryable
        with pytest.raises(TokenExpiredError):
            stage.sign()
        stage.manager.recheck()
        clock.advance(30)
    (event,) = stage.events
    assert isinstance(event, TokenExpired)
    assert isinstance(event.error, TokenExpiredError)
    assert (stage.manager.lost, sessions.asked) == (True, 1)


def test_session_over_but_token_good(sessions: Sessions, clock: FakeClock) -> None:
    """If an early refresh is refused for good, the access token is used to its end: a revoked refresh token does not
    end it (contract 4.2)."""
    stage = Stage(static(sessions.first), sessions=sessions)
    sessions.end()
    for _ in range(14):
        clock.advance(60)
        assert stage.sign() == bearer(sessions.first)
    assert (sessions.asked, stage.events) == (1, [])
    with pytest.raises(TokenExpiredError):
        stage.refused(stage.sign())


def test_source_that_fails_keeps_hope(sessions: Sessions, clock: FakeClock) -> None:
    """If the next source is merely down, the session is not lost: the source is asked again, with back-off."""
    source = Scripted(*[TokenUnavailableError("the vault is sealed")] * 3, "late")
    stage = Stage(static(sessions.first), source, sessions=sessions)
    header = stage.sign()
    sessions.end()
    with pytest.raises(TokenUnavailableError, match="the vault is sealed"):
        stage.refused(header)
    assert not stage.manager.lost
    for _ in range(2):
        clock.advance(60)
        with pytest.raises(TokenUnavailableError):
            stage.refused(header)
    clock.advance(60)
    assert stage.refused(header) == "Bearer late"
    assert (stage.woken, source.asked) == ([USER], [True] * 4)


def test_replace_revives(sessions: Sessions, clock: FakeClock) -> None:
    """A new token by `replace` ends the loss, wakes the user's lanes and has its own session."""
    stage = Stage(static(sessions.first), sessions=sessions)
    header = stage.sign()
    sessions.end()
    with pytest.raises(TokenExpiredError):
        stage.refused(header)
    new = Token("new", refresh="new-refresh")
    stage.manager.replace(new)
    assert (stage.sign(), stage.woken, stage.manager.lost) == ("Bearer new", [USER], False)
    assert stage.names() == ["auth:token_expired", "auth:token_refreshed"]
    sessions._valid = "new-refresh"
    assert stage.refused("Bearer new").startswith("Bearer ey")


def test_replace_wants_a_token(sessions: Sessions) -> None:
    """What is no token is refused, and the one in use stays."""
    stage = Stage(static(sessions.first), sessions=sessions)
    for wrong in ("", "a b", Token("")):
        with pytest.raises(TokenUnavailableError):
            stage.manager.replace(wrong)
    assert stage.sign() == bearer(sessions.first)


def test_recheck_asks_the_sources_of_a_lost_session(clock: FakeClock) -> None:
    """A provider that had none is asked again by `recheck`, at a pace, and revives the session."""
    stage = Stage(Scripted(None, "new"), clock=clock)
    with pytest.raises(TokenExpiredError, match="no token"):
        stage.sign()
    assert stage.events == []  # no session was there that could end
    stage.manager.recheck()
    assert stage.manager.lost  # too soon
    clock.advance(30)
    stage.manager.recheck()
    assert (stage.manager.lost, stage.sign(), stage.woken) == (False, "Bearer new", [USER])


def test_no_source_at_all(clock: FakeClock) -> None:
    """A user without any token: TokenExpiredError that says so, no event, revived by `replace`."""
    stage = Stage(clock=clock)
    with pytest.raises(TokenExpiredError) as caught:
        stage.sign()
    assert (caught.value.code, stage.events) == ("no_token", [])
    stage.manager.replace("t")
    assert stage.sign() == "Bearer t"


def test_refresh_token_alone_buys_the_first_token(sessions: Sessions) -> None:
    """With only a refresh token configured, the first request refreshes; an empty token is never sent."""
    stage = Stage(static(Token("", refresh=sessions.first.refresh)), sessions=sessions)
    assert stage.sign().startswith("Bearer ey")
    assert sessions.asked == 1


def test_first_source_that_works_is_used(clock: FakeClock) -> None:
    """A source that fails at the start is passed over; if all fail it is TokenUnavailableError, tried again later."""
    stage = Stage(Scripted(TokenUnavailableError("down"), "up"), Scripted(None), clock=clock)
    with pytest.raises(TokenUnavailableError, match="down"):
        stage.sign()
    clock.advance(1)
    assert stage.sign() == "Bearer up"


def test_ended_token_is_not_taken_up_again(clock: FakeClock) -> None:
    """A configured token that a provider's replaced is not gone back to once it ended."""
    first = jwt_like("first", iat=clock.time(), exp=clock.time() + 900)
    source = Scripted(*[jwt_like(str(n), iat=clock.time(), exp=clock.time() + 3600 * n) for n in range(1, 9)])
    stage = Stage(static(first), source, clock=clock)
    assert stage.sign() == f"Bearer {first}"
    clock.advance(700)
    assert stage.sign() != f"Bearer {first}"
    for _ in range(4):
        clock.advance(3500)
        assert stage.sign() != f"Bearer {first}"


def test_provider_that_repeats_itself(clock: FakeClock) -> None:
    """A provider that caches its token too long is asked with `force` and at a pace; the token it has is served."""
    source = Scripted("same")
    stage = Stage(source, clock=clock)
    for _ in range(100):
        assert stage.refused(stage.sign()) == "Bearer same"
        clock.advance(0.5)
    assert source.asked[0] is False
    assert all(source.asked[1:])
    assert len(source.asked) < 12


# ---- files


def test_changed_file_is_taken_up(tmp_path: Path, sessions: Sessions, clock: FakeClock) -> None:
    """New content of the file wins over a pair that was refreshed meanwhile, within a second, and wakes the lanes."""
    path = tmp_path / "token"
    path.write_text(f'{{"token": "{sessions.first.access.reveal()}", "refreshToken": "s0-refresh"}}')
    stage = Stage(TokenFile(path), sessions=sessions)
    refreshed = stage.refused(stage.sign())
    assert refreshed != bearer(sessions.first)
    path.write_text("by-the-operator")
    clock.advance(1)
    assert stage.sign() == "Bearer by-the-operator"
    assert stage.woken[-1] == USER
    path.write_text("by-the-operator\n")  # touched, not changed
    clock.advance(1)
    events = len(stage.events)
    assert stage.sign() == "Bearer by-the-operator"
    assert len(stage.events) == events


def test_unreadable_file_costs_nothing(tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """A file that vanishes or holds junk for a moment leaves the token in use, and the next good content is taken."""
    path = tmp_path / "token"
    path.write_text("one")
    stage = Stage(TokenFile(path), clock=clock)
    assert stage.sign() == "Bearer one"
    for broken in (None, "", '{"token": ', "a b"):
        path.unlink() if broken is None else path.write_text(broken)
        clock.advance(1)
        assert stage.sign() == "Bearer one"
    path.write_text("two")
    clock.advance(1)
    assert stage.sign() == "Bearer two"


def test_file_revives_a_lost_session(tmp_path: Path, clock: FakeClock) -> None:
    """Lost, because the file's token ended: its next content is found by the next request or by `recheck`."""
    path = tmp_path / "token"
    for by_recheck in (True, False):
        path.write_text(jwt_like("x", exp=clock.time() - 1))
        stage = Stage(TokenFile(path), clock=clock)
        stage.manager.observe_skew(0.0)
        with pytest.raises(TokenExpiredError):
            stage.refused(stage.sign())
        new = tmp_path / "new"
        new.write_text("fresh")
        os.replace(new, path)
        clock.advance(1)
        if by_recheck:
            stage.manager.recheck()
            assert (stage.manager.lost, stage.woken) == (False, [USER])
        assert stage.sign() == "Bearer fresh"


def test_refused_file_token_is_read_at_once(tmp_path: Path, clock: FakeClock) -> None:
    """A 401 looks at the file without waiting for the next second."""
    path = tmp_path / "token"
    path.write_text("one")
    stage = Stage(TokenFile(path), clock=clock)
    header = stage.sign()
    path.write_text("another")
    assert stage.refused(header) == "Bearer another"


def test_file_that_comes_late(tmp_path: Path, clock: FakeClock) -> None:
    """A file that is not there yet is TokenUnavailableError until it is, then found within a second or two."""
    path = tmp_path / "token"
    stage = Stage(TokenFile(path), clock=clock)
    for _ in range(100):
        with pytest.raises(TokenUnavailableError, match="can't be read"):
            stage.sign()
        clock.advance(1)
    path.write_text("late")
    clock.advance(1)
    assert stage.sign() == "Bearer late"


# ---- odds and ends


def test_waking_that_fails_costs_no_request(sessions: Sessions) -> None:
    """A callback that raises is logged; the request that renewed the token goes out."""

    def raises(user: str) -> None:
        raise SettingsError("x")

    stage = Stage(static(sessions.first), sessions=sessions)
    stage.manager._on_token = raises
    assert stage.refused(stage.sign()) != bearer(sessions.first)


def test_token_of_somebody_else_is_told(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """A token that names another user is used, for it is only a hint, and warned of."""
    stage = Stage(static(jwt_like("x", user_id="mallory")), clock=clock)
    stage.sign()
    assert "says that it is of user 'mallory'" in caplog.text


def test_answers_that_are_no_tokens(sessions: Sessions, clock: FakeClock) -> None:
    """A refresh that answers something unusable is a failure like others, and the pair in use stays."""
    answers: list[Any] = [Token("a\nb"), Token("", refresh="x"), "plain"]
    stage = Stage(static(sessions.first), clock=clock, refresh=lambda secret, deadline: answers.pop(0))
    header = stage.sign()
    for _ in range(2):
        with pytest.raises(TokenUnavailableError):
            stage.refused(header)
        clock.advance(5)
    assert stage.refused(header) == "Bearer plain"


def test_answer_without_new_refresh_token_keeps_the_old_one(clock: FakeClock) -> None:
    """Where the server does not rotate, refresh and websocket tokens stay in force (seed 001)."""
    given: list[str] = []

    def refresh(secret: str, deadline: float) -> Token:
        given.append(secret)
        return Token(f"t{len(given)}")

    stage = Stage(static(Token("t0", ws="w", refresh="r")), clock=clock, refresh=refresh)
    header = stage.sign()
    for _ in range(3):
        clock.advance(100)
        header = stage.refused(header)
    assert (header, given) == ("Bearer t3", ["r", "r", "r"])
    assert stage.manager.token().ws == Secret("w")
