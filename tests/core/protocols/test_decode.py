"""Frames into JSON values: what is sound comes out, what is not is told, nothing is raised."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatsdk.core.protocols.decode import decode
from chatsdk.core.protocols.outputs import Malformed
from chatsdk.core.strict_json import MAX_DEPTH

LIMIT = 100_000
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def deep(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@given(st.lists(VALUES, min_size=1, max_size=30), st.booleans(), st.booleans())
def test_sound_lines_come_out_as_they_went_in(values: list[object], as_text: bool, ascii_only: bool) -> None:
    """Any JSON, one a line, as bytes or as text, escaped or not."""
    text = "\n".join(json.dumps(value, ensure_ascii=ascii_only) for value in values)
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    expected = [json.loads(line) for line in whole.split("\n")] if not ascii_only else None
    got, wrong = decode(whole if as_text else whole.encode(), LIMIT, lines=True)
    assert wrong is None
    if expected is not None:
        assert got == expected
    else:
        assert len(got) == len(values)


@given(st.binary(max_size=200))
@example(b'{"a":1}\n\xff\n{"b":2}')
@example(b"[" * 100_000)
@example(b'{"a":' * 20_000)
@example(b"9" * 5000)
@example(b"NaN\n1e999\n-Infinity")
@example(b"\xef\xbb\xbf{}")
def test_nothing_is_raised_for_any_bytes(data: bytes) -> None:
    """Garbage gives at most one complaint a frame, which quotes nothing."""
    for lines in (True, False):
        values, wrong = decode(data, LIMIT, lines=lines)
        json.dumps(values, allow_nan=False)
        assert wrong is None or len(wrong.reason) < 100


@given(st.text(alphabet=st.characters(), max_size=50))
@example("\ud800")
@example('"\ud800"')
def test_nothing_is_raised_for_any_text(text: str) -> None:
    """Text that can't be written as UTF-8 is no exception."""
    for lines in (True, False):
        decode(text, LIMIT, lines=lines)


@pytest.mark.parametrize(
    "bad",
    [
        b"garbage",
        b'{"a":1',
        b'{"a":1}}',
        b'"\xff"',
        b"NaN",
        b"1e999",
        b"9" * 5000,
        deep(MAX_DEPTH + 1),
        deep(5000),
        b"'a'",
    ],
)
def test_the_good_lines_of_a_bad_frame_are_saved(bad: bytes) -> None:
    """One bad line costs that line only, wherever it stands, and is told."""
    good = [{"i": number} for number in range(3)]
    lines = [json.dumps(each).encode() for each in good]
    for place in range(4):
        values, wrong = decode(b"\n".join([*lines[:place], bad, *lines[place:]]), LIMIT, lines=True)
        assert values == good
        assert wrong is not None
    assert decode(bad, LIMIT, lines=False)[0] == []


def test_bad_lines_are_counted() -> None:
    """A frame of rubbish is one complaint, not a hundred thousand."""
    values, wrong = decode(b"x\n" * 40_000, LIMIT, lines=True)
    assert values == []
    assert wrong == Malformed("no JSON, or too deep (1 bytes, and 39999 more)")


def test_a_frame_over_the_limit_is_not_parsed() -> None:
    """The size is looked at before anything else."""
    assert decode(b"1" * 101, 100, lines=True) == ([], Malformed("a frame of 101 bytes, 100 are allowed"))
    assert decode(b'"' + b"1" * 98 + b'"', 100, lines=True)[1] is None


def test_depth_is_limited_where_one_line_stands_among_many() -> None:
    """The limit holds for each line: many shallow ones are fine, also where they have many brackets."""
    shallow = json.dumps([{"a": [1]}] * 300).encode()
    assert decode(b"\n".join([shallow] * 5), LIMIT, lines=True)[1] is None
    assert decode(b"\n".join([deep(MAX_DEPTH)] * 50), LIMIT, lines=True)[1] is None
    for place in range(50):
        lines = [b'{"i":1}'] * 50
        lines[place] = deep(MAX_DEPTH + 1)
        values, wrong = decode(b"\n".join(lines), LIMIT, lines=True)
        assert len(values) == 49
        assert wrong is not None


def test_lone_surrogates_become_replacement_characters() -> None:
    """What comes out can be written as UTF-8; pairs stay what they are."""
    values, wrong = decode(rb'{"a":"\ud800x","b":"\ud83d\ude00"}' + b"\n" + rb'"\uDC00"', LIMIT, lines=True)
    assert wrong is None
    assert values == [{"a": "�x", "b": "😀"}, "�"]


def test_empty_lines_mean_nothing() -> None:
    """A newline at the end of a frame is no message."""
    assert decode(b'{"a":1}\n', LIMIT, lines=True) == ([{"a": 1}], None)
    assert decode(b"\n{}\n\n{}\n", LIMIT, lines=True) == ([{}, {}], None)


def test_two_values_in_one_frame_are_an_error_where_one_is_expected() -> None:
    """The plain protocol has one object a frame, which may have line breaks in it."""
    assert decode(b"{}\n{}", LIMIT, lines=False)[0] == []
    assert decode(b'{"a":\n1}', LIMIT, lines=False) == ([{"a": 1}], None)


def test_lines_that_make_sense_only_together_make_none() -> None:
    """However many lines are read at once, each is judged by itself."""
    for text in (b"1]\n[2", b'{"a":\n1}', b'["a\nb"]'):
        values, wrong = decode(text, LIMIT, lines=True)
        assert values == []
        assert wrong is not None
