"""Bytes that nobody wrote on purpose: every parser here returns, or raises what its caller expects."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core.errors import ChatError
from chatsdk.core.exchange import Request, Response
from chatsdk.pipeline.answers import Answer, TooLarge, inflate, read_answer, redirect
from tests.pipeline.kit import read, send


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=3), st.integers(1, 50))
def test_compressed_bodies_in_any_pieces(members: list[bytes], size: int) -> None:
    """One member or several, cut anywhere."""
    data = b"".join(gzip.compress(member) for member in members)
    whole = b"".join(members)
    assert inflate(pieces(data, size), "gzip", len(whole)) == whole
    if whole:
        with pytest.raises(TooLarge):
            inflate(pieces(data, size), "gzip", len(whole) - 1)


@given(st.binary(max_size=200))
def test_damaged_compression(data: bytes) -> None:
    """Rubbish is an error of zlib, or happens to be right."""
    with contextlib.suppress(zlib.error, TooLarge):
        inflate(iter([data]), "gzip", 1000)


def test_a_bomb_never_unfolds() -> None:
    """64 MiB in one piece of 64 kB: no more than the limit is ever in memory."""
    bomb = gzip.compress(b"\0" * 2**26)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            inflate(iter([bomb]), "gzip", 100_000)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@given(
    st.integers(100, 999),
    st.dictionaries(
        st.sampled_from(["content-type", "retry-after", "location", "date", "content-length"]), st.text(max_size=30)
    ),
    st.binary(max_size=60) | st.sampled_from([b"{}", b'{"error":{}}', b'{"error":[1]}', b"<html>", b""]),
    st.sampled_from([read(), send(), read(method="HEAD")]),
)
def test_every_answer_is_a_response_or_one_of_our_errors(
    status: int, headers: dict[str, str], data: bytes, request_: Request
) -> None:
    """No status, header or body makes anything else of it."""
    answer = Answer(status, headers, data, 0.1)
    try:
        where = redirect(answer, request_, "http://chat.invalid/api/x", followed=False)
        assert where is None or where.startswith("http://chat.invalid")
        assert isinstance(read_answer(answer, request_, now=0.0), Response)
        assert 200 <= status < 300
    except ChatError as error:
        assert error.hint  # noqa: PT017 - some answers raise, some do not
