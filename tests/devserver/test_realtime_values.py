"""The realtime side's pure parts: commands out of any text, recovery out of any history, frames of any size."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.devserver.faults import FaultBook, Happening
from chatsdk.devserver.realtime.commands import METHODS, Disconnected, commands, taken_apart
from chatsdk.devserver.realtime.frames import close_frame, text_frame
from chatsdk.devserver.realtime.hub import Hub
from chatsdk.devserver.realtime.namespaces import Namespaces
from chatsdk.devserver.realtime.plain import event_frame
from chatsdk.devserver.realtime.publication import Publication, compact, placed, publication_body
from chatsdk.devserver.realtime.recovery import subscribe_result
from chatsdk.devserver.server import build_world
from chatsdk.devserver.settings import ServerSettings

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
COMMANDS = st.fixed_dictionaries({}, optional={"id": JSON, **dict.fromkeys(sorted(METHODS), JSON), "nonsense": JSON})


@given(
    st.text() | JSON.map(json.dumps) | st.lists(COMMANDS, max_size=3).map(lambda all: "\n".join(map(json.dumps, all)))
)
def test_any_text_is_commands_or_the_end(text: str) -> None:
    """Whatever a frame holds, it is taken apart into good commands, or ends the connection; nothing else is raised."""
    with contextlib.suppress(Disconnected):
        for command in commands(text):
            number, method, arguments = taken_apart(command)
            assert number > 0
            assert method in METHODS
            assert isinstance(arguments, dict)


@given(
    published=st.integers(0, 60),
    kept=st.integers(1, 40),
    since=st.integers(0, 70),
    epoch=st.sampled_from(["", "ours", "other"]),
)
def test_recovered_is_who_gets_everything(published: int, kept: int, since: int, epoch: str) -> None:
    """`recovered` is said exactly when nothing after the given offset is missing from the reply."""
    with _hub(kept) as hub:
        _check_recovery(hub, published, kept, since, epoch)


def _check_recovery(hub: Hub, published: int, kept: int, since: int, epoch: str) -> None:
    stream = "chat:app:x"
    for number in range(1, published + 1):
        hub.publish(stream, number)
    known = hub.position(stream)[1] if epoch == "ours" else epoch
    namespace = hub.namespaces.of(stream)
    assert namespace is not None
    wish = {"recoverable": True, "recover": True, "offset": since, "epoch": known}
    told = subscribe_result(hub, stream, namespace, wish)
    missed = list(range(since + 1, published + 1))
    complete = epoch != "other" and since <= published and len(missed) <= kept
    assert told.get("recovered", False) is complete
    assert [each["data"] for each in told.get("publications", ())] == (missed if complete else [])
    assert told.get("offset", 0) == (since if complete else published)


@given(data=JSON, kind=st.sampled_from(["message.new", "message.updated", "message.deleted", "typing.start", "x"]))
def test_any_publication_has_a_plain_frame(data: Any, kind: str) -> None:
    """What is published past the API, however like its events, becomes a frame of that type or none."""
    for published in (data, {"type": kind, "payload": data}, {"type": kind, "payload": {"message": data}}):
        frame = event_frame(Publication("chat:app:x", published, publication_body(published)))
        if frame is not None:
            assert isinstance(json.loads(frame)["type"], str)


@given(data=JSON | st.text(st.characters(), max_size=5), offset=st.integers(0, 3))
def test_publications_are_whole_json(data: Any, offset: int) -> None:
    """A publication's text is UTF-8 and JSON, with the position worked in; the epoch on the first offset only."""
    text = placed(publication_body(data), offset, "abc")
    found = json.loads(text.encode())
    assert found["data"] == json.loads(compact(data))
    assert found.get("offset", 0) == offset
    assert ("epoch" in found) == (offset == 1)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_frames(size: int) -> None:
    """Lengths are written in the shortest form (RFC 6455, 5.2)."""
    frame = text_frame(b"x" * size)
    head = 2 if size < 126 else 4 if size < 65536 else 10
    assert len(frame) == head + size
    assert frame[0] == 0x81
    assert len(close_frame(3001, "y" * 1000)) <= 127


def test_every_nth_and_the_dice() -> None:
    """`every` counts what fits; the first rule that hits wins, and all throw their dice."""
    book = FaultBook()
    third = book.add({"kind": "pub_drop", "every": 3, "operation": "message.new"}, 0, 0)
    second = book.add({"kind": "pub_duplicate", "every": 2}, 0, 0)
    message, other = (Happening("publication", kind, "chat:app:x") for kind in ("message.new", "typing.start"))
    struck = [book.judge_happening(each, 0) for each in (message, other, message, message, other, message)]
    assert struck == [None, second, None, third, None, second]
    assert (third.seen, third.fired, second.seen, second.fired) == (4, 1, 6, 2)
    assert book.judge_happening(Happening("event", "message.new"), 0) is None


def test_namespaces() -> None:
    """The name before the first colon decides; without a colon, or unknown, there is none."""
    namespaces = Namespaces(history_size=5, no_recovery=True)
    found = {name: namespaces.of(f"{name}:a:b") for name in ("chat", "forced", "user", "zz")}
    assert found["zz"] is None
    assert namespaces.of("chat") is None
    assert [found[name].history for name in ("chat", "forced", "user")] == [5, 5, 0]  # type: ignore[union-attr]
    assert [found[name].recovery for name in ("chat", "forced")] == [False, True]  # type: ignore[union-attr]


@contextlib.contextmanager
def _hub(history_size: int) -> Iterator[Hub]:
    world = build_world(ServerSettings(history_size=history_size))
    try:
        yield world.hub
    finally:
        world.db.close()
