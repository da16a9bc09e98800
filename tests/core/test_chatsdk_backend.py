"""What the builders make, and what they refuse because no server would take it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.core import errors
from chatsdk.core.backend import Backend
from chatsdk.core.chatsdk_backend import ChatSDKBackend
from chatsdk.core.errors import InvalidArgument, InvalidMessage, InvalidResponseError
from chatsdk.core.exchange import Request, Response
from chatsdk.core.models import Attachment
from chatsdk.core.tokens import Secret

BACKEND: Any = ChatSDKBackend()
C = "0190a1b2-0000-7000-8000-00000000000c"
M = "0190a1b2-0000-7000-8000-00000000000d"
K = "0190a1b2-0000-7000-8000-00000000000e"


def test_it_is_a_backend() -> None:
    """The class has every method of the seam (the type checker compares the signatures)."""
    backend: Backend = ChatSDKBackend()
    assert backend.name == "chatsdk"


def test_send() -> None:
    """A send carries its key in the body and on the request, its lane, and survives the outbox."""
    picture = Attachment(type="image", url="https://cdn.invalid/a", mime_type="image/png", width=3, waveform=(0.0, 1.0))
    request = BACKEND.send_message("alice", C.upper(), "hi", key=K, attachments=[picture], reply_to=M, parent_id=M)
    assert (request.operation, request.method, request.path) == ("messages.send", "POST", f"/api/channels/{C}/messages")
    assert (request.user, request.channel, request.key, request.repeatable) == ("alice", C, K, False)
    wire = {
        "type": "image",
        "url": "https://cdn.invalid/a",
        "mimeType": "image/png",
        "width": 3,
        "waveform": [0.0, 1.0],
    }
    assert request.body == {"text": "hi", "clientMsgId": K, "attachments": [wire], "parentId": M, "replyToId": M}
    assert Request.from_json(json.loads(json.dumps(request.to_json()))) == request


TEXTS: list[Any] = ["", None, 7, b"hi", "nul\0", "\ud83d", "\udc00x", "x" * 10_001, "🙂" * 5_001]
IDS: list[Any] = ["", "general", None, 7, "a/b", "..", C + "\n", C + "\0", f"{{{C}}}", C.replace("-", ""), "é" * 36]


@pytest.mark.parametrize("text", TEXTS)
def test_send_refuses_text_that_no_server_takes(text: Any) -> None:
    """Nothing but 1 to 10,000 UTF-16 units of real text is accepted."""
    with pytest.raises(InvalidMessage):
        BACKEND.send_message("alice", C, text, key=K)
    with pytest.raises(InvalidArgument):
        BACKEND.edit_message("alice", C, M, text)


@pytest.mark.parametrize("text", [" ", "\n", "x" * 10_000, "🙂" * 5_000, "é", "\r\n", "\ufeff"])
def test_send_takes_text_that_the_server_takes(text: str) -> None:
    """Blanks alone are text, nothing is trimmed, and emoji count as two."""
    assert BACKEND.send_message("alice", C, text, key=K).body["text"] == text


@pytest.mark.parametrize("wrong", IDS)
@pytest.mark.parametrize("argument", ["channel", "key", "reply_to", "parent_id"])
def test_send_refuses_ids_that_are_no_uuids(argument: str, wrong: Any) -> None:
    """The server answers 500 to them, which would be tried again."""
    arguments = {"channel": C, "key": K, argument: wrong}
    if wrong is None and argument in ("reply_to", "parent_id"):
        BACKEND.send_message("alice", text="x", **arguments)
        return
    with pytest.raises(InvalidMessage):
        BACKEND.send_message("alice", text="x", **arguments)


@pytest.mark.parametrize(
    "attachment",
    [
        {"type": "image", "url": "https://x"},
        Attachment(type="exe", url="https://x"),
        Attachment(type="image", url="x"),
        Attachment(type="image", url=""),
        Attachment(type="image", url="https://x y"),
        Attachment(type="image", url="https://x", name="nul\0"),
        Attachment(type="image", url="https://x", title="\ud800"),
        Attachment(type="image", url="https://x", duration=float("nan")),
        Attachment(type="image", url="https://x", waveform=(float("inf"),)),
    ],
)
def test_send_refuses_attachments_that_no_server_takes(attachment: Any) -> None:
    """What is no uploaded file, or holds what JSON or the database can't, is refused."""
    with pytest.raises(InvalidMessage):
        BACKEND.send_message("alice", C, "x", key=K, attachments=[attachment])


@pytest.mark.parametrize("user", ["x" * 256, "line\nbreak", "nul\0", 7])
def test_send_refuses_users_that_there_cannot_be(user: Any) -> None:
    """A user's id is 1 to 255 characters; "" stands for the token's user."""
    with pytest.raises(InvalidMessage):
        BACKEND.send_message(user, C, "x", key=K)
    assert BACKEND.send_message("", C, "x", key=K).user == ""


BY_ID: list[Callable[[Any], Any]] = [
    lambda wrong: BACKEND.get_message("u", wrong, M),
    lambda wrong: BACKEND.get_message("u", C, wrong),
    lambda wrong: BACKEND.list_messages("u", wrong),
    lambda wrong: (
        BACKEND.list_messages("u", C, before=wrong) if wrong is not None else BACKEND.list_messages("u", None)
    ),
    lambda wrong: BACKEND.delete_message("u", C, wrong),
    lambda wrong: BACKEND.react("u", C, wrong, "x"),
    lambda wrong: BACKEND.unreact("u", wrong, M, "x"),
    lambda wrong: BACKEND.mark_read("u", wrong),
    lambda wrong: BACKEND.get_channel("u", wrong),
    lambda wrong: BACKEND.channel_members("u", wrong),
    lambda wrong: BACKEND.leave_channel("u", wrong),
    lambda wrong: BACKEND.presence("u", wrong),
    lambda wrong: BACKEND.typing("u", wrong, True),
]


@pytest.mark.parametrize("wrong", IDS)
def test_direct_calls_refuse_ids_that_are_no_uuids(wrong: Any) -> None:
    """No path is ever built of anything but a UUID."""
    for call in BY_ID:
        with pytest.raises(InvalidArgument) as caught:
            call(wrong)
        assert isinstance(caught.value, ValueError)
        assert caught.value.hint


NUMBERS: list[Callable[[Any], Any]] = [
    lambda wrong: BACKEND.list_messages("u", C, limit=wrong),
    lambda wrong: BACKEND.list_messages("u", C, since_seq=wrong if wrong is not None else 0),
    lambda wrong: BACKEND.search("u", "x", limit=wrong),
    lambda wrong: BACKEND.list_channels("u", limit=wrong),
    lambda wrong: BACKEND.list_channels("u", offset=wrong if wrong != 0 else -1),
]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "10", None, 10**30])
def test_limits_are_positive_whole_numbers(wrong: Any) -> None:
    """The server answers 500 to some of these and takes 0 for "not given"."""
    for call in NUMBERS:
        with pytest.raises(InvalidArgument):
            call(wrong)


OTHERS: list[Callable[[], Any]] = [
    lambda: BACKEND.list_messages("u", C, before=M, after=M),
    lambda: BACKEND.list_messages("u", C, limit=201),
    lambda: BACKEND.search("u", "x", limit=101),
    lambda: BACKEND.search("u", ""),
    lambda: BACKEND.search("u", "x" * 501),
    lambda: BACKEND.search("u", "x", offset=-1),
    lambda: BACKEND.list_channels("u", limit=101),
    lambda: BACKEND.list_channels("u", type="nonsense"),
    lambda: BACKEND.react("u", C, M, ""),
    lambda: BACKEND.react("u", C, M, "🙂" * 26),
    lambda: BACKEND.react("u", C, M, "nul\0"),
    lambda: BACKEND.react("u", C, M, "100%"),
    lambda: BACKEND.unreact("u", C, M, "100%"),
    lambda: BACKEND.unreact("u", C, M, ".."),
    lambda: BACKEND.unreact("u", C, M, "."),
    lambda: BACKEND.leave_channel("..", C),
    lambda: BACKEND.leave_channel("", C),
    lambda: BACKEND.leave_channel("a\r\nb", C),
    lambda: BACKEND.create_channel("u", type="broadcast"),
    lambda: BACKEND.create_channel("u", type="messaging"),
    lambda: BACKEND.create_channel("u", type="messaging", members=["a", "b"]),
    lambda: BACKEND.create_channel("u", members="bob"),
    lambda: BACKEND.create_channel("u", members=[7]),
    lambda: BACKEND.create_channel("u", name="x" * 256),
    lambda: BACKEND.create_channel("u", image="x"),
    lambda: BACKEND.create_channel("u", config={"private": 1}),
    lambda: BACKEND.create_channel("u", key=""),
    lambda: BACKEND.create_channel("u", key="k" * 256),
]


@pytest.mark.parametrize("call", OTHERS)
def test_what_no_server_takes_is_refused(call: Callable[[], Any]) -> None:
    """Each is an InvalidArgument before anything is sent."""
    with pytest.raises(InvalidArgument):
        call()


def test_parts_of_paths_are_quoted() -> None:
    """A user's id or an emoji can't lead to another path."""
    assert BACKEND.leave_channel("a/b?c#d", C).request.path == f"/api/channels/{C}/members/a%2Fb%3Fc%23d"
    assert BACKEND.unreact("u", C, M, "👍/").request.path.endswith("/reactions/%F0%9F%91%8D%2F")


@given(user=st.text(max_size=20), emoji=st.text(max_size=20))
def test_paths_stay_inside_their_parts(user: str, emoji: str) -> None:
    """Whatever the user's id and the emoji are, the path has the parts it should have, in ASCII, none of them dots."""
    builds: list[tuple[Callable[[], Any], int]] = [
        (lambda: BACKEND.leave_channel(user, C), 6),
        (lambda: BACKEND.unreact("u", C, M, emoji), 8),
    ]
    for build, parts in builds:
        try:
            path = build().request.path
        except InvalidArgument:
            continue
        assert path.isascii()
        assert path.isprintable()
        assert len(path.split("/")) == parts
        assert not {".", "..", ""} & set(path.split("/")[1:])
        assert "?" not in path
        assert "#" not in path


@given(st.text(max_size=30))
def test_text_is_sent_as_it_is_or_refused(text: str) -> None:
    """What is accepted is stored and sent unchanged, as JSON that is UTF-8."""
    try:
        request = BACKEND.send_message("alice", C, text, key=K)
    except InvalidMessage:
        assert not text or "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text)
        return
    assert json.loads(json.dumps(request.to_json(), ensure_ascii=False).encode("utf-8"))["body"]["text"] == text


def test_members_are_named_once() -> None:
    """The server would count a repeated member, or the maker of the channel, twice; a direct channel is left alone."""
    assert BACKEND.create_channel("a", members=["b", "b", "a"]).request.body["memberIds"] == ["b"]
    assert "memberIds" not in BACKEND.create_channel("a", members=["a"]).request.body
    alone = BACKEND.create_channel("a", type="messaging", members=["a"]).request
    assert alone.body["memberIds"] == ["a"]
    assert alone.repeatable


def test_a_channel_is_created_once_per_key() -> None:
    """The key travels in the body and makes the request one that may be tried again."""
    request = BACKEND.create_channel("a", name="Ops", key="ops-1").request
    assert request.key == "ops-1"
    assert request.body["idempotencyKey"] == "ops-1"
    assert BACKEND.create_channel("a").request.key is None


def test_which_calls_may_be_repeated() -> None:
    """Reads, and what has the same effect twice; an edit or a leave is not among them."""
    repeatable = [
        BACKEND.get_message("u", C, M),
        BACKEND.list_messages("u", C),
        BACKEND.delete_message("u", C, M),
        BACKEND.react("u", C, M, "x"),
        BACKEND.unreact("u", C, M, "x"),
        BACKEND.mark_read("u", C),
        BACKEND.set_presence("u", True),
        BACKEND.health(),
    ]
    once = [
        BACKEND.edit_message("u", C, M, "x"),
        BACKEND.leave_channel("u", C),
        BACKEND.typing("u", C, True),
        BACKEND.create_channel("u"),
        BACKEND.refresh_token("u", "r", now=0.0),
    ]
    assert all(call.request.repeatable for call in repeatable)
    assert not any(call.request.repeatable for call in once)


# ---- the answer to a send

SENT = BACKEND.send_message("alice", C, "hi", key=K, parent_id=M)


def test_short_answer_is_completed_from_the_request() -> None:
    """A repeat is answered with id and seq only."""
    body = {"id": K, "seq": "5", "status": "sent", "duplicate": True}
    message = BACKEND.sent_message(SENT, Response(status=200, body=body))
    assert (message.id, message.key, message.seq, message.duplicate) == (K, K, 5, True)
    assert (message.channel_id, message.user_id, message.text, message.parent_id) == (C, "alice", "hi", M)
    assert message.raw == body


def test_whole_answer_wins_over_the_request() -> None:
    """What the server stored is what counts, where it says so."""
    body = {"id": K, "text": "HI", "seq": 5, "userId": "alice", "channelId": C}
    assert BACKEND.sent_message(SENT, Response(status=201, body=body)).text == "HI"


@pytest.mark.parametrize(
    "body", [None, [], "", {}, {"id": M}, {"id": None}, {"ok": True}, {"message": {"id": K}}, {"id": K.upper() + "x"}]
)
def test_an_answer_about_something_else_is_no_success(body: Any) -> None:
    """Only an answer that names the key says that the message was sent; anything else leaves the outcome unknown."""
    with pytest.raises(InvalidResponseError) as caught:
        BACKEND.sent_message(SENT, Response(status=200, body=body))
    assert caught.value.maybe_done
    assert isinstance(caught.value, errors.OutcomeUnknownError)


def test_settling_asks_past_the_cache() -> None:
    """Whether the server has a message is asked by its key, of the server, under the same correlation id."""
    call = BACKEND.settle(SENT.replace(correlation_id="c-1"))
    assert call.request.path == f"/api/channels/{C}/messages/{K}"
    assert (call.request.operation, call.request.fresh, call.request.correlation_id) == ("messages.get", True, "c-1")
    assert call.parse(Response(status=200, body={"id": K})).channel_id == C


# ---- tokens


def test_refresh_speaks_to_both_kinds_of_server() -> None:
    """The refresh token stands in header and body; neither shows in a repr, and the new one's end is known."""
    call = BACKEND.refresh_token("alice", Secret("refresh-1"), now=1000.0)
    request = call.request
    assert (request.method, request.path, request.operation) == ("POST", "/api/auth/refresh", "auth.refresh")
    assert request.headers == {"Authorization": "Bearer refresh-1"}
    assert request.body == {"refreshToken": "refresh-1"}
    assert "refresh-1" not in repr(request)
    assert "refresh-1" not in repr(call)
    assert call.parse(Response(status=200, body={"token": "t", "expiresIn": 60})).expires_at == 1060.0


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        ({"error": {"code": "REFRESH_TOKEN_EXPIRED", "message": "anything"}}, True),
        ({"error": {"message": "token session not found"}}, True),
        ({"error": "Token has been revoked"}, True),
        ({"error": {"code": "INVALID_REFRESH_TOKEN", "message": "Invalid refresh token"}}, False),
        ({"error": {"code": "INVALID_REFRESH_TOKEN"}}, False),
        ({"error": {"message": 7}}, False),
        ({"error": None}, False),
        ({}, False),
        (None, False),
        ("Token has been revoked", False),
    ],
)
def test_only_a_clear_word_ends_a_session(body: Any, refused: bool) -> None:
    """Where the answer does not say that the session is over, the refresh is tried again."""
    assert BACKEND.refresh_refused(body) is refused
