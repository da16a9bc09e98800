"""Keys: which UUID names a message."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core.identity import is_uuid, message_key, uuid7

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)
PARTS = st.tuples(TEXT.filter(lambda text: not is_uuid(text)), TEXT, TEXT, TEXT)


def key(parts: tuple[str, str, str, str]) -> str:
    given_, server, user, channel = parts
    return message_key(given_, server=server, user=user, channel=channel)


@given(PARTS, PARTS)
def test_different_texts_are_different_messages(
    one: tuple[str, str, str, str], other: tuple[str, str, str, str]
) -> None:
    """The same key, server, user and channel give the same UUID; anything else gives another."""
    assert (key(one) == key(other)) == (one == other)


@given(TEXT, TEXT, TEXT, st.integers(0, 3))
def test_parts_do_not_run_together(first: str, second: str, third: str, where: int) -> None:
    """A letter that moves from one part to the next makes another key."""
    parts = [first, second + "x", third, "y"]
    moved = list(parts)
    moved[where], moved[(where + 1) % 4] = moved[where] + "x", moved[(where + 1) % 4].removeprefix("x")
    if moved != parts:
        assert key(tuple(parts)) != key(tuple(moved))  # type: ignore[arg-type]


def test_a_text_key_names_the_same_message_for_ever() -> None:
    """The derivation never changes: an outbox of an older version would send its messages twice."""
    made = message_key("deploy-42", server="https://chat.example", user="bot", channel="c-1")
    assert made == "c650197e-9cb1-5015-8dc9-eb67259418b3"


@given(st.uuids())
def test_a_uuid_is_used_as_it_is(given_: uuid.UUID) -> None:
    """In lower case, which is how the server writes it."""
    assert message_key(str(given_).upper(), server="s", user="u", channel="c") == str(given_)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("6b1b7a0e-5d4f-5c63-9a42-7c1d8a3e2f10", True),
        ("6B1B7A0E-5D4F-5C63-9A42-7C1D8A3E2F10", True),
        ("6b1b7a0e5d4f5c639a427c1d8a3e2f10", False),
        ("{6b1b7a0e-5d4f-5c63-9a42-7c1d8a3e2f10}", False),
        ("urn:uuid:6b1b7a0e-5d4f-5c63-9a42-7c1d8a3e2f10", False),
        ("6b1b7a0e-5d4f-5c63-9a42-7c1d8a3e2f10\n", False),
        (" 6b1b7a0e-5d4f-5c63-9a42-7c1d8a3e2f10", False),
        ("６b1b7a0e-5d4f-5c63-9a42-7c1d8a3e2f10", False),
        ("", False),
    ],
)
def test_what_is_a_uuid(text: str, answer: bool) -> None:
    """Only the form that the server takes and gives."""
    assert is_uuid(text) is answer


@given(st.floats(0, 4e9), st.binary(min_size=10, max_size=10))
def test_uuid7_is_a_version_7_uuid_of_its_time(now: float, random: bytes) -> None:
    """RFC 9562: 48 bits of milliseconds, version 7, variant 10, and the random bits where they belong."""
    made = uuid.UUID(uuid7(now, random))
    assert is_uuid(str(made))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == int(now * 1000)
    bits = int.from_bytes(random, "big")
    assert made.int & ((1 << 62) - 1) == bits & ((1 << 62) - 1)


@given(st.integers(0, 4 * 10**12), st.integers(1, 10**6), st.binary(min_size=10), st.binary(min_size=10))
def test_uuid7_sorts_by_time(milliseconds: int, later: int, one: bytes, other: bytes) -> None:
    """A later key is a larger key, whatever the chance: the outbox's index grows at its end."""
    assert uuid7(milliseconds / 1000, one) <= uuid7((milliseconds + later + 1) / 1000, other)
