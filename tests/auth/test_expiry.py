"""Reading `exp`, knowing the server's time, and when a token is due."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.auth.expiry import Claims, Phase, ServerTime, number, read_claims, schedule
from chatsdk.core.tokens import Token
from chatsdk.testing.clock import FakeClock
from tests.auth.kit import jwt_like, part

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.text() | st.text(alphabet="abcxyz0189-_.=", max_size=60))
def test_any_text_has_claims(text: str) -> None:
    """Whatever is given as a token, reading it raises nothing."""
    assert isinstance(read_claims(text), Claims)


@given(JSON, JSON, JSON)
def test_any_claims_are_numbers_or_nothing(exp: Any, iat: Any, user: Any) -> None:
    """`exp` and `iat` come out as finite floats or None, whatever JSON they were, and a user only as text."""
    claims = read_claims(jwt_like("x", exp=exp, iat=iat, user_id=user))
    for value, read in ((exp, claims.expires_at), (iat, claims.issued_at)):
        usable = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e308
        assert (read == float(value)) if usable else (read is None or math.isfinite(read))
    assert claims.user == (user if isinstance(user, str) and user else None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "opaque",
        "a.b",
        "a.b.c.d",
        f"a.{part([1])}.c",
        f"a.{part('text')}.c",
        "a.é.c",
        "a.____.c",
        f"a.{part({'exp': '1795322933'})}.c",
        f"a.{part({'exp': True})}.c",
        f"a.{part({'exp': 10**400})}.c",
        f"a.{part({'exp': float('inf')})}.c",
        "a." + "W" * 200_000 + ".c",
    ],
)
def test_junk_expires_never(text: str) -> None:
    """What is no JWT, or says nothing of use, has no end and no user."""
    assert read_claims(text) == Claims()


def test_deep_and_long_json_is_survived() -> None:
    """Thousands of brackets and numbers of 5000 digits are junk, not a crash."""
    import base64

    for claims in (b"[" * 20_000, b'{"exp": ' + b"9" * 5_000 + b"}"):
        assert read_claims(f"a.{base64.urlsafe_b64encode(claims).decode()}.c") == Claims()


def test_user_is_found_in_sub_too() -> None:
    """Without `user_id` the user is the end of `<app>:<user>`."""
    assert read_claims(jwt_like("x", sub="app-1:al:ice", app_id="app-1")).user == "al:ice"
    assert read_claims(jwt_like("x", sub="alice")).user == "alice"


def test_number_takes_numbers_only() -> None:
    """Text, True, NaN and integers beyond every float are no numbers."""
    assert [number(value) for value in (1, 1.5, "1", True, math.nan, 10**400)] == [1.0, 1.5, None, None, None, None]


def planned(life: float, *, random: float = 0.0, just_made: bool = True, **claims: Any) -> Any:
    """The schedule of a token made at server time 1000, monotonic time 0."""
    token = Token(jwt_like("x", **{"iat": 1000.0, "exp": 1000.0 + life, **claims}))
    return schedule(token, now=0.0, server_now=1000.0, before=300.0, random=random, just_made=just_made)


@pytest.mark.parametrize(
    ("life", "due_after"),
    [(86_400, 86_100), (900, 600), (600, 300), (599, 539), (300, 240), (120, 60), (100, 50), (4, 2), (0, 0)],
)
def test_due_five_minutes_ahead_or_less_for_short_tokens(life: float, due_after: float) -> None:
    """5 minutes ahead; short tokens max(60 s, 10 %) ahead, and never before half their life."""
    plan = planned(life)
    assert plan.refresh_at == 1000 + due_after
    assert plan.expires_at == 1000 + life


@given(st.floats(0, 1e7), st.floats(0, 1, exclude_max=True))
def test_due_lies_between_half_life_and_the_end(life: float, random: float) -> None:
    """Whatever chance says, a token is due in the second half of its life, and not before its floor allows."""
    plan = planned(life, random=random)
    assert 1000 + life / 2 - 1e-6 <= plan.refresh_at <= plan.expires_at
    assert 1.0 <= plan.floor <= 60.0


def test_jitter_spreads_the_refreshes() -> None:
    """Two clients that were started together do not refresh together."""
    assert planned(900, random=0.0).refresh_at - planned(900, random=0.5).refresh_at == pytest.approx(15)


def test_phases() -> None:
    """Good, then due, then expired: at `exp` itself a token is expired (contract 15.42)."""
    plan = planned(900)
    seen = [plan.phase(1000 + age) for age in (0, 599, 600, 899.9, 900)]
    assert seen == [Phase.GOOD, Phase.GOOD, Phase.DUE, Phase.DUE, Phase.EXPIRED]


def test_no_exp_no_phase() -> None:
    """An opaque token is good until the server says otherwise; `Token.expires_at` stands in for `exp`."""
    opaque = schedule(Token("x"), now=0, server_now=1000, before=300, random=0, just_made=True)
    assert opaque.phase(1e12) is Phase.GOOD
    dated = schedule(Token("x", expires_at=1900.0), now=0, server_now=1000, before=300, random=0, just_made=True)
    assert dated.refresh_at == 1600


def test_kept_tokens_have_no_floor() -> None:
    """A token from the configuration that is over is refreshed at once; one that was just made is not."""
    assert planned(900, just_made=False).floor == 0
    assert planned(900, just_made=True).floor == 60


def test_server_time_is_learned() -> None:
    """Server time is our wall clock until a Date header was seen, then that; junk is not taken."""
    clock = FakeClock(time=5000.0)
    server = ServerTime(clock)
    assert (server.now(), server.known) == (5000.0, False)
    server.observe(math.nan)
    assert not server.known
    server.observe(-3600.0)
    assert (server.now(), server.known) == (1400.0, True)
    clock.advance(10)
    assert server.now() == 1410.0


def test_server_time_survives_jumps_of_the_wall_clock() -> None:
    """A wall clock set back does not stretch a token's life; one set forward is put right by the next answer."""
    clock = FakeClock(time=5000.0)
    server = ServerTime(clock)
    server.observe(0.0)
    clock.set_time(1400.0)
    assert server.now() == 5000.0
    clock.set_time(8600.0)
    assert server.now() == 8600.0
    server.observe(-3600.0)
    assert server.now() == 5000.0


def test_claims_of_a_real_token() -> None:
    """What PyJWT signs is read the same way."""
    import jwt

    text = jwt.encode({"exp": 1900, "iat": 1000, "user_id": "bob"}, "k" * 32, algorithm="HS256")
    assert read_claims(text) == Claims(1900.0, 1000.0, "bob")
    assert json.loads(json.dumps(jwt.decode(text, options={"verify_signature": False})))["exp"] == 1900
