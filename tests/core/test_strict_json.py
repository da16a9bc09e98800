"""JSON from a stranger: what is no JSON by the standard is refused, what comes out can be written again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatsdk.core.strict_json import MAX_DEPTH, parse_json

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:0123456789.eE+-NaInfty\\ud8 \n').map(str.encode))
@example(b"[" * 100_000)
@example(b"9" * 5000)
@example(b'"\\ud800"')
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    """What comes out can be written as UTF-8 JSON again, whatever came in."""
    try:
        value = parse_json(data)
    except (ValueError, RecursionError):
        return
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


@given(PLAIN, st.booleans())
def test_good_json_is_read_as_it_is(value: Any, ascii_only: bool) -> None:
    """Escaped or not, what a server writes is what is read."""
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


def test_depth_is_counted_exactly() -> None:
    """The limit itself passes, one more does not; brackets in texts and a wide list are no depth."""
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(ValueError, match="deeper"):
        parse_json(b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1))
    assert parse_json(json.dumps(["[[[{{{" * 100] * 500 + [[{}]] * 500).encode())
