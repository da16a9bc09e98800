"""The small values of the wire: UUIDs, times, lengths, bodies, query numbers, token buckets."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.devserver.answers import ApiError
from chatsdk.devserver.checks import Form, is_url, parse_body, whole_number
from chatsdk.devserver.ids import canonical_uuid, from_iso, iso, utf16_length, uuid7
from chatsdk.devserver.limits import SEND, RateLimiter
from chatsdk.devserver.routes import Operation, RouteTable

JSON = "application/json"
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.uuids())
def test_every_spelling_is_one_uuid(value: uuid.UUID) -> None:
    """Upper case, braces and bare digits are the same id; a prefix, a blank or half a brace is none."""
    text = str(value)
    for spelling in (text, text.upper(), value.hex, "{" + text + "}"):
        assert canonical_uuid(spelling) == text
    for spelling in (" " + text, "urn:uuid:" + text, "{" + text, text + "}", text[:-1], text + "0", text + "\n"):
        assert canonical_uuid(spelling) is None


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**48 - 1))
def test_uuid7_sorts_by_time(one: int, other: int) -> None:
    """Ids are well-formed version 7 and sort as their times do."""
    first, second = uuid7(one), uuid7(other)
    assert (uuid.UUID(first).version, uuid.UUID(first).variant) == (7, uuid.RFC_4122)
    if one != other:
        assert (first < second) == (one < other)


@given(st.integers(0, 4_000_000_000_000))
def test_times_there_and_back(milliseconds: int) -> None:
    """A time survives being written and read."""
    text = iso(milliseconds)
    assert text is not None
    assert from_iso(text) == milliseconds


def test_odd_times() -> None:
    """None stays None, rubbish is none, a time without a zone is UTC."""
    assert iso(None) is None
    assert from_iso("yesterday") is None
    assert from_iso("1970-01-01T00:00:01") == 1000


@given(st.text())
def test_length_is_javascripts(text: str) -> None:
    """Lengths are counted in UTF-16 units."""
    assert utf16_length(text) == len(text.encode("utf-16-le")) // 2


@given(ANYTHING)
def test_bodies_come_through(value: Any) -> None:
    """Every JSON value is read as it was written."""
    assert parse_body(JSON, json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_body_or_a_400(raw: bytes) -> None:
    """No bytes whatever break the parser: they are JSON without lone surrogates, or refused."""
    try:
        value, status = parse_body(JSON, raw), 200
    except ApiError as error:
        value, status = None, error.answer.status
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    assert status in (200, 400)


@pytest.mark.parametrize(
    "raw", [b"[" * 100_000, b"1" * 5000, b'{"a": NaN}', b'{"a": Infinity}', b"1e999", b"", b"{} {}"]
)
def test_bombs_are_refused(raw: bytes) -> None:
    """Nesting without end, endless digits, what is no JSON: 400, not a crash."""
    with pytest.raises(ApiError) as refused:
        parse_body(JSON, raw)
    assert refused.value.answer.status == 400


def test_surrogates_and_wrong_bytes_are_replaced() -> None:
    """Lone surrogates and bytes that are not UTF-8 become U+FFFD, pairs stay, a byte order mark is skipped."""
    assert parse_body(JSON, rb'{"\ud83d": "a\ud83d b\ud83d\ude42"}') == {"\ufffd": "a\ufffd b🙂"}
    assert parse_body(JSON, b'\xef\xbb\xbf"latin \xe9"') == "latin \ufffd"


@pytest.mark.parametrize(
    ("content_type", "is_json"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("application/vnd.api+json", True),
        ("Application/JSON", False),
        ("text/json", False),
        ("application/jsonp", False),
        ("", False),
    ],
)
def test_content_type_decides(content_type: str, is_json: bool) -> None:
    """Only JSON types, compared with case, make a body; others are as if there were none."""
    assert parse_body(content_type, b'{"a": 1}') == ({"a": 1} if is_json else {})


def test_all_issues_come_at_once() -> None:
    """A form tells everything that is wrong, each with its path, and takes NUL for wrong."""
    form = Form({"text": "a\0", "flag": "yes", "users": ["a", 1], "kind": "z"})
    form.string("text")
    form.boolean("flag")
    form.strings("users")
    form.choice("kind", ("x", "y"))
    form.string("gone", required=True)
    with pytest.raises(ApiError) as refused:
        form.done()
    issues = refused.value.answer.body["error"]["issues"]
    assert [issue["path"] for issue in issues] == [["text"], ["flag"], ["users", 1], ["kind"], ["gone"]]


@pytest.mark.parametrize(
    ("text", "url"),
    [
        *((text, True) for text in ("https://a.example/x", "javascript:alert(1)", "mailto:a@b.example")),
        *((text, False) for text in ("https://", "/relative", "x", "http://a b", "http://[::1")),
    ],
)
def test_urls(text: str, url: bool) -> None:
    """Any scheme will do; http needs a host."""
    assert is_url(text) == url


@pytest.mark.parametrize(("text", "number"), [(None, 7), ("", 7), ("3", 3), ("2.9", 2), ("500", 100), ("0", 0)])
def test_query_numbers(text: str | None, number: int) -> None:
    """Absent and empty mean the default, fractions are cut off, too much is the most."""
    assert whole_number(text, 7, "limit", most=100) == number


@pytest.mark.parametrize("text", ["-1", "abc", "99999999999999999999", "--2", "1" * 5000])
def test_bad_query_numbers(text: str) -> None:
    """What is no number in reason is the caller's mistake: 400."""
    with pytest.raises(ApiError) as refused:
        whole_number(text, 7, "limit")
    assert refused.value.answer.status == 400
    assert whole_number("abc", 7, "limit", lenient=True) == 7


@given(st.lists(st.floats(0, 10), min_size=30, max_size=80))
def test_bucket_never_gives_more_than_its_rate(gaps: list[float]) -> None:
    """In any stretch of time no more passes than the burst and what came back; a refusal says when to come again."""
    limiter, now, granted = RateLimiter(), 0.0, 0
    for gap in gaps:
        now += gap
        try:
            headers = limiter.take(SEND, ("alice",), now)
        except ApiError as error:
            wait = int(error.answer.headers["retry-after"])
            assert 1 <= wait <= 2
            later = RateLimiter(
                {key: type(bucket)(bucket.tokens, bucket.at) for key, bucket in limiter.buckets.items()}
            )
            later.take(SEND, ("alice",), now + wait)
        else:
            granted += 1
            assert 0 <= int(headers["x-ratelimit-remaining"]) < SEND.burst
    assert granted <= SEND.burst + now * SEND.per_minute / 60 + 1e-3


def test_routes_match_segment_by_segment() -> None:
    """Parameters are decoded once and never contain a slash of the path; odd slashes match nothing."""
    table = RouteTable([Operation("one", "GET", "/a/{b}/c", lambda call: None)])  # type: ignore[arg-type, return-value]
    found = table.match("GET", "/a/x%2Fy%2525/c")
    assert found is not None
    assert found[1] == {"b": "x/y%25"}
    for path in ("/a//c", "/a/x/c/", "//a/x/c", "/a/x/C", "/a/x"):
        assert table.match("GET", path) is None
    assert table.match("POST", "/a/x/c") is None
