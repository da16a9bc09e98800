"""Secrets that nobody sees, and tokens made of them."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core.tokens import Secret, Token, TokenRequest

CANARY = "canary-5f2e"


def test_a_secret_shows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Neither text, repr, format, a log record nor an error about it holds the text."""
    secret = Secret(CANARY)
    with caplog.at_level(logging.INFO):
        logging.getLogger("test").info("token %s %r", secret, secret)
    seen = [str(secret), repr(secret), f"{secret}", f"{secret!r:>40}", f"{secret}", repr([secret]), caplog.text]
    seen.append(repr(Token(secret, ws=secret, refresh=secret)))
    assert CANARY not in "".join(seen)
    assert secret.reveal() == CANARY


@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_a_secret_goes_nowhere(way: Any) -> None:
    """It can't be pickled, copied or written as JSON, alone or in a token."""
    for value in (Secret(CANARY), Token(CANARY)):
        if value.__class__ is Token and way is copy.copy:
            continue  # a copy of a token holds the same secrets
        with pytest.raises(TypeError) as caught:
            way(value)
        assert CANARY not in str(caught.value)


@given(st.text(), st.text())
def test_secrets_compare_by_text(one: str, other: str) -> None:
    """Equal texts are equal secrets with one hash and one fingerprint; a secret is never equal to its text."""
    assert (Secret(one) == Secret(other)) == (one == other)
    assert (Secret(one).fingerprint() == Secret(other).fingerprint()) == (one == other)
    assert hash(Secret(one)) == hash(Secret(Secret(one)))
    assert Secret(one) != one
    assert bool(Secret(one)) == bool(one)
    assert not one or len(one) > 16 or one not in "0123456789abcdef" or len(Secret(one).fingerprint()) == 16


def test_a_token_is_secret_from_the_first_moment() -> None:
    """Users write plain text; what is kept are secrets."""
    token = Token("a", ws="w", refresh="r", expires_at=5.0)
    assert all(isinstance(each, Secret) for each in (token.access, token.ws, token.refresh))
    assert token == Token(Secret("a"), Secret("w"), Secret("r"), 5.0)
    assert (Token("a").ws, Token("a").refresh, Token("a").expires_at) == (None, None, None)
    with pytest.raises(AttributeError):
        token.access = Secret("b")  # type: ignore[misc]


def test_a_provider_is_told_who_and_why() -> None:
    """`force` is false unless the last token was refused."""
    assert TokenRequest("alice") == TokenRequest(user="alice", force=False)
