"""Realtime events: cheap, frozen, read on first access."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from chatsdk.core import events
from chatsdk.core.chatsdk_events import event_of, read_event
from chatsdk.core.models import Message
from chatsdk.core.realtime_events import RealtimeEvent

MESSAGE = {"id": "m1", "channelId": "c", "userId": "alice", "text": "hi", "seq": 7, "clientMsgId": "k"}


def heard(kind: str, **payload: Any) -> RealtimeEvent:
    return read_event({"type": kind, "payload": payload}, user="bob", channel="c", offset=3, at=5.0)


def test_sending_processes_do_not_load_them() -> None:
    """The module is loaded when the first of its names is asked for, by attribute or by seed name."""
    code = (
        "import sys; from chatsdk.core import events\n"
        "assert 'chatsdk.core.realtime_events' not in sys.modules\n"
        "assert events.MessageReceived.NAME == 'message:received'\n"
        "assert events.by_name('gap') is events.Gap"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_message() -> None:
    """What orders it is there at once, its model on first access and only once."""
    event = heard("message.new", channelId="c", message=MESSAGE)
    assert isinstance(event, events.MessageReceived)
    assert (event.message_id, event.seq, event.offset, event.at, event.late) == ("m1", 7, 3, 5.0, False)
    assert event.message == Message(id="m1", channel_id="c", user_id="alice", text="hi", seq=7, key="k")
    assert event.message is event.message
    assert event.key == "k"
    assert not event.own


def test_ones_own() -> None:
    """A bot sees whether it wrote the message itself."""
    assert heard("message.new", message={**MESSAGE, "userId": "bob"}).own  # type: ignore[attr-defined]


def test_seq_as_text() -> None:
    """The thread route writes it as text."""
    assert heard("message.new", message={**MESSAGE, "seq": "8"}).seq == 8


@pytest.mark.parametrize("seq", ["", "x", "-1", "9" * 30, 1.5, True, None, [], -4, 2**70])
def test_strange_seqs_are_none(seq: Any) -> None:
    """What is no place in a channel does not order anything."""
    assert heard("message.new", message={**MESSAGE, "seq": seq}).seq is None


@pytest.mark.parametrize(
    "data",
    [
        None,
        1,
        "x",
        [],
        {},
        {"type": []},
        {"type": "new.kind", "payload": {}},
        {"type": "message.new"},
        {"type": "message.new", "payload": []},
        {"type": "message.new", "payload": {"message": 1}},
        {"type": "message.new", "payload": {"message": {"id": ""}}},
        {"type": "message.deleted", "payload": {"messageId": 3}},
        {"type": "reaction.added", "payload": {}},
    ],
    ids=repr,
)
def test_what_nobody_knows(data: Any) -> None:
    """It is delivered, as it came."""
    event = read_event(data, user="bob", channel="c")
    assert isinstance(event, events.Unknown)
    assert event.raw is data
    assert event.facts == {}


@pytest.mark.parametrize(
    ("kind", "payload", "cls", "facts"),
    [
        ("message.updated", {"message": {"id": "m1", "pinned": True}}, events.MessageUpdated, {"message_id": "m1"}),
        ("message.deleted", {"messageId": "m1"}, events.MessageDeleted, {"message_id": "m1"}),
        ("thread.reply", {"message": MESSAGE, "parentId": "p"}, events.ThreadReplied, {"message_id": "m1"}),
        (
            "reaction.added",
            {"messageId": "m1", "reaction": {"type": "👍", "userId": "eve", "user": {"id": "eve", "name": "Eve"}}},
            events.ReactionAdded,
            {"reaction": "👍", "by": "eve", "message_id": "m1"},
        ),
        ("reaction.removed", {"messageId": "m1", "reaction": {}}, events.ReactionRemoved, {"by": "", "by_user": None}),
        ("typing.start", {"user": {"id": "eve", "name": "Eve"}}, events.TypingStarted, {"by": "eve"}),
        ("typing.stop", {"user": {"id": "eve"}}, events.TypingStopped, {"by": "eve"}),
        (
            "read.updated",
            {"userId": "eve", "lastReadSeq": "12"},
            events.ReadUpdated,
            {"by": "eve", "last_read_seq": 12},
        ),
        ("channel.updated", {"channel": 5}, events.ChannelUpdated, {"about": None}),
        ("channel.member_left", {"userId": "eve"}, events.MemberLeft, {"by": "eve"}),
        ("channel.unread_changed", {"channelId": "c", "count": 4}, events.UnreadChanged, {"count": 4}),
        ("poll.voted", {"userId": None}, events.PollVoted, {"by": ""}),
        ("presence.online", {"userId": "bob"}, events.PresenceOnline, {"by": "bob"}),
        ("workspace.created", {"workspace": {}}, events.WorkspaceChanged, {}),
    ],
)
def test_every_kind(kind: str, payload: Any, cls: type[RealtimeEvent], facts: dict[str, Any]) -> None:
    """Each type of the contract has its event, which says who and what."""
    event = heard(kind, **payload)
    assert type(event) is cls
    for name, value in facts.items():
        assert getattr(event, name) == value


def test_plain_frames() -> None:
    """The frames of the plain protocol give the same events."""
    frame = {
        "type": "message",
        "id": "m1",
        "conversation_id": "c",
        "sender_id": "alice",
        "text": "hi",
        "sequence_number": 7,
    }
    event = read_event(frame, user="bob", channel="c")
    assert isinstance(event, events.MessageReceived)
    assert event.seq == 7
    assert event.message == Message(id="m1", channel_id="c", user_id="alice", text="hi", seq=7)
    typing = read_event({"type": "typing", "conversation_id": "c", "user_id": "eve"}, user="bob")
    assert isinstance(typing, events.TypingStarted)
    assert (typing.channel, typing.by) == ("c", "eve")
    stop = read_event({"type": "typing", "conversation_id": "c", "user_id": "eve", "typing": False}, user="bob")
    assert isinstance(stop, events.TypingStopped)


def test_fetched_messages() -> None:
    """A message that was fetched is the same event, with nothing left to read."""
    message = Message(id="m1", channel_id="c", user_id="bob", seq=9, raw={"id": "m1"})
    event = event_of(message, user="bob", channel="c", at=2.0)
    assert (event.message_id, event.seq, event.message, event.own, event.at) == ("m1", 9, message, True, 2.0)


def test_frozen() -> None:
    """Nobody changes what others are shown."""
    event = heard("typing.start", user={"id": "eve"})
    with pytest.raises(FrozenInstanceError):
        event.late = True
    with pytest.raises(FrozenInstanceError):
        del event.late


def test_equal_by_what_they_say() -> None:
    """The same thing twice is equal and hashes alike; another message of the same moment is not."""
    event, again = heard("message.new", message=MESSAGE), heard("message.new", message=dict(MESSAGE))
    assert event.facts
    assert event == again
    assert len({event, again}) == 1
    assert event != heard("message.new", message={**MESSAGE, "id": "m2"})
    assert event != heard("message.new", message={**MESSAGE, "text": "ho"})
    assert event != heard("thread.reply", message=MESSAGE)


def test_late_copies_and_times() -> None:
    """Flags and times make copies, and copies survive pickle and copy."""
    event = heard("message.new", message=MESSAGE)
    late = event.flagged_late()
    assert (late.late, event.late, late.seq, type(late)) == (True, False, 7, type(event))
    assert event.timed(9.0).at == 9.0
    twins: list[Any] = [copy.copy(late), pickle.loads(pickle.dumps(late))]
    assert [(twin.late, twin.message.seq) for twin in twins] == [(True, 7)] * 2


def test_json() -> None:
    """`to_dict` has what came and what orders it; repr does not show what was written."""
    event = heard("message.new", message=MESSAGE)
    assert event.to_dict()["raw"] == event.raw
    assert event.to_dict()["event"] == "message:received"
    assert "hi" not in repr(event)
