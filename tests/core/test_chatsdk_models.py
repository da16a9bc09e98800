"""Reading the server's JSON: what is needed, what is forgiven, and that nothing else ever comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core import chatsdk_models as read
from chatsdk.core.errors import InvalidResponseError
from chatsdk.core.tokens import Secret

READERS: dict[str, Callable[[Any], Any]] = {
    "user": read.read_user,
    "member": read.read_member,
    "members": read.read_members,
    "presence": read.read_presence,
    "message": read.read_message,
    "page": lambda body: read.read_message_page(body, channel="c", limit=10),
    "search": read.read_search_page,
    "channel": read.read_channel,
    "channels": read.read_channels,
    "done": read.read_done,
    "last_read": read.read_last_read,
    "health": read.read_health,
    "token": lambda body: read.read_token(body, now=1000.0),
}

NAMES = [
    *("id", "userId", "channelId", "cid", "messageId", "text", "seq", "maxSeq", "lastReadSeq", "status", "type"),
    *("messages", "members", "channels", "results", "online", "offline", "user", "users", "reactions", "attachments"),
    *("mentions", "waveform", "createdAt", "updatedAt", "deletedAt", "joinedAt", "lastSeen", "timestamp", "uptime"),
    *("config", "custom", "success", "token", "accessToken", "refreshToken", "expiresIn", "wsToken", "_internal"),
    *("count", "own", "size", "fileSize", "width", "duration", "totalOnline", "totalMembers", "duplicate", "email"),
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["7", "-1", "9" * 40, "2026-11-22T06:12:58.168Z", "2026-11-22", "9999-12-31T23:59:59+14:00", 10**400]
    )
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=8),
    max_leaves=25,
)


@pytest.mark.parametrize("name", READERS)
def test_readers_raise_nothing_but_invalid_response(name: str) -> None:
    """Whatever JSON comes, a reader gives a model that can be written as JSON, or InvalidResponseError."""

    @given(JSON)
    def promise(body: Any) -> None:
        try:
            model = READERS[name](body)
        except InvalidResponseError:
            return
        if hasattr(model, "to_dict"):
            json.dumps(model.to_dict())

    promise()


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("body", [None, [], "text", 7, {}, {"error": {"message": "no"}}, "<html></html>"])
def test_other_answers_are_refused(name: str, body: Any) -> None:
    """An answer that is not about what was asked is no model, and the error quotes nothing of it."""
    with pytest.raises(InvalidResponseError) as caught:
        READERS[name](body)
    assert "html" not in str(caught.value)


@pytest.mark.parametrize(
    ("given_", "seq"),
    [(7, 7), ("7", 7), (7.0, 7), ("9007199254740993", 2**53 + 1), (True, None), ("7x", None), (None, None), ([], None)],
)
def test_seq_is_a_number_however_it_is_written(given_: Any, seq: int | None) -> None:
    """Large integers come as text or as numbers; what is neither is "not said"."""
    assert read.read_message({"id": "m", "seq": given_}).seq == seq


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2026-11-22T06:12:58.168Z", datetime(2026, 11, 22, 6, 12, 58, 168000, tzinfo=UTC)),
        ("2026-11-22T06:12:58", datetime(2026, 11, 22, 6, 12, 58, tzinfo=UTC)),
        ("2026-11-22T06:12:58+02:00", datetime(2026, 11, 22, 6, 12, 58, tzinfo=timezone(timedelta(hours=2)))),
        ("yesterday", None),
        (1_790_000_000, None),
    ],
)
def test_times_are_aware(written: Any, moment: datetime | None) -> None:
    """A time without a zone is UTC; what is no time is "not said"."""
    found = read.read_message({"id": "m", "createdAt": written}).created_at
    assert found == moment
    assert found is None or found.tzinfo is not None


def test_messages_in_every_shape() -> None:
    """A thread reply names no channel and no user id of its own; a deleted message has no text."""
    reply = read.read_message({"id": "m", "seq": "3", "user": {"id": "bob"}, "parentId": "p"}, channel="c")
    assert (reply.channel_id, reply.user_id, reply.seq, reply.parent_id) == ("c", "bob", 3, "p")
    assert read.read_message({"id": "m", "cid": "c2"}, channel="c").channel_id == "c2"
    deleted = read.read_message({"id": "m", "type": "deleted", "text": None})
    assert deleted.deleted
    assert deleted.text == ""


def test_what_is_broken_inside_a_message_does_not_lose_it() -> None:
    """Attachments, reactions and mentions of unknown form are left out or empty; the message stays."""
    body = {
        "id": "m",
        "attachments": [{"anything": 1}, 7, {"type": "image", "url": "u", "fileSize": 5, "waveform": [0, "x", 1]}],
        "reactions": [{"count": 1}, {"type": "x", "users": [{"id": "a"}, {"name": "nobody"}]}],
        "mentions": ["a", 7],
        "user": {"name": "nobody"},
    }
    message = read.read_message(body)
    assert [(each.type, each.url, each.size, each.waveform) for each in message.attachments] == [
        ("", "", None, ()),
        ("image", "u", 5, (0.0, 1.0)),
    ]
    assert [(each.type, [user.id for user in each.users]) for each in message.reactions] == [("x", ["a"])]
    assert (message.mentions, message.user) == (("a",), None)
    assert message.raw is body


def test_page_is_sorted_and_counts_for_itself() -> None:
    """A page is in order of seq, and has more only if it is full, whatever `hasMore` says."""
    bodies = [{"id": "b", "seq": 2}, {"id": "none"}, {"id": "a", "seq": "1"}]
    page = read.read_message_page({"messages": bodies, "maxSeq": "9", "hasMore": True}, channel="c", limit=4)
    assert [message.id for message in page.messages] == ["a", "b", "none"]
    assert (page.max_seq, page.has_more) == (9, False)
    assert read.read_message_page({"messages": bodies, "hasMore": False}, channel="c", limit=3).has_more


def test_both_shapes_of_a_member() -> None:
    """`{userId, user}` and the flat one are the same member."""
    nested = {"userId": "a", "role": "owner", "joinedAt": "2026-11-22T06:12:58Z", "user": {"id": "a", "name": "A"}}
    flat = {"id": "a", "name": "A", "role": "owner", "joinedAt": "2026-11-22T06:12:58Z"}
    assert read.read_member(nested) == read.read_member(flat)


def test_confirmations() -> None:
    """Only `success: true` confirms."""
    read.read_done({"success": True})
    for body in ({"success": False}, {"success": "true"}, {}):
        with pytest.raises(InvalidResponseError):
            read.read_done(body)
    assert read.read_last_read({"lastReadSeq": "3"}) == 3


@pytest.mark.parametrize(
    ("body", "ws", "expires_at"),
    [
        ({"token": "a", "refreshToken": "r", "expiresIn": 900, "_internal": {"wsToken": "w"}}, "w", 1900.0),
        ({"accessToken": "a", "refreshToken": "r", "wsToken": "w"}, "w", None),
        ({"token": "a", "refreshToken": "r", "expiresIn": "soon"}, None, None),
        ({"token": "a", "refreshToken": "r", "expiresIn": -5}, None, None),
    ],
)
def test_tokens_in_every_form(body: Any, ws: str | None, expires_at: float | None) -> None:
    """The access token, the websocket's and the time of expiry are found where any of the routes puts them."""
    token = read.read_token(body, now=1000.0)
    assert (token.access, token.refresh) == (Secret("a"), Secret("r"))
    assert token.ws == (None if ws is None else Secret(ws))
    assert token.expires_at == expires_at


@pytest.mark.parametrize("access", ["", "two words", "line\nbreak", "nul\0", "ü", None, 7])
def test_a_token_that_fits_no_header_is_none(access: Any) -> None:
    """What could not stand in a header is no token, and the error does not quote it."""
    with pytest.raises(InvalidResponseError) as caught:
        read.read_token({"token": access}, now=0.0)
    assert str(access) not in str(caught.value) or access in ("", None, 7)
