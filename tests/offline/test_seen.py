"""What is found again of what was seen: the right messages, of the right user, and no more memory than promised."""

from __future__ import annotations

import marshal
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chatsdk.core.chatsdk_events import read_event
from chatsdk.core.models import Message, SearchHit
from chatsdk.core.realtime_events import MessageReceived, MessageUpdated
from chatsdk.offline import seen as module
from chatsdk.offline.seen import CAME, LOOK, MESSAGES, Seen, fold

NOW = 1_900_000_000.0


def message(
    id: str = "m1", text: str = "hello world", channel: str = "c1", created: float = NOW, changed: float | None = None
) -> Message:
    """A message as an answer over HTTP has it."""
    times = [datetime.fromtimestamp(at, UTC) for at in (created, created if changed is None else changed)]
    return Message(id=id, text=text, channel_id=channel, user_id="bob", seq=1, created_at=times[0], updated_at=times[1])


def event(id: str = "m1", text: str = "hello world", at: float = NOW, user: str = "alice", **more: Any) -> Any:
    """A message as realtime brings it."""
    stamp = datetime.fromtimestamp(at, UTC).isoformat()
    told = {"id": id, "channelId": "c1", "userId": "bob", "text": text, "createdAt": stamp, "updatedAt": stamp}
    data = {"type": "message.new", "payload": {"channelId": "c1", "message": {**told, **more}}}
    found = read_event(data, user, "c1", at=at)
    assert isinstance(found, MessageReceived)
    return found


def edit(id: str = "m1", at: float = NOW + 10, user: str = "alice", **what: Any) -> Any:
    """An edit, or what else is told in its form."""
    stamp = {"updatedAt": datetime.fromtimestamp(at, UTC).isoformat()} if "text" in what else {}
    data = {"type": "message.updated", "payload": {"channelId": "c1", "message": {"id": id, **stamp, **what}}}
    found = read_event(data, user, "c1", at=at)
    assert isinstance(found, MessageUpdated)
    return found


def ids(seen: Seen, query: str, user: str = "alice", channel: str = "") -> list[str]:
    return [hit.message_id for hit in seen.search(user, query, channel=channel, limit=1000, offset=0).hits]


def test_an_answer_is_found() -> None:
    """With all that a hit has, flagged as ours."""
    seen = Seen()
    seen.add("alice", [message()])
    page = seen.search("alice", "World", limit=20, offset=0)
    assert (page.local, page.total, page.query, page.limit, page.offset) == (True, 1, "World", 20, 0)
    (hit,) = page.hits
    assert (hit.message_id, hit.channel_id, hit.user_id, hit.text) == ("m1", "c1", "bob", "hello world")
    assert hit.created_at == datetime.fromtimestamp(NOW, UTC)
    assert hit.highlighted == hit.text


@pytest.mark.parametrize(
    ("query", "text", "found"),
    [
        ("hello", "Hello World", True),
        ("WORLD hello", "Hello World", True),
        ("hello mars", "Hello World", False),
        ("wor", "Hello World", True),
        ("STRASSE", "Straße 7", True),
        ("cafe\u0301", "CAF\u00c9", True),
        ("   ", "a b   c", False),
        ("ﬁle", "the FILE", True),
    ],
)
def test_all_words_in_any_case(query: str, text: str, found: bool) -> None:
    """Each word somewhere in the text, however it is written; blanks are no word."""
    seen = Seen()
    seen.add("alice", [message(text=text)])
    assert ids(seen, query) == (["m1"] if found else [])


def test_newest_first_a_page_at_a_time() -> None:
    """By the messages' own time, whenever they were seen; `total` counts all."""
    seen = Seen()
    seen.add("alice", [message(f"m{number}", created=NOW + (number * 7) % 10) for number in range(10)])
    pages = [seen.search("alice", "hello", limit=4, offset=offset) for offset in (0, 4, 8)]
    found = [hit.created_at.timestamp() for page in pages for hit in page.hits if hit.created_at]
    assert found == [NOW + number for number in reversed(range(10))]
    assert {page.total for page in pages} == {10}


def test_each_user_finds_their_own() -> None:
    """And in one channel what was seen there."""
    seen = Seen()
    seen.add("alice", [message("a"), message("b", channel="c2")])
    seen.add("bob", [message("a")])
    seen.heard(event("e"))
    assert set(ids(seen, "hello")) == {"a", "b", "e"}
    assert ids(seen, "hello", "bob") == ["a"]
    assert ids(seen, "hello", channel="c2") == ["b"]
    assert ids(seen, "hello", "carol") == []


def test_realtime_is_read_when_somebody_searches() -> None:
    """No model is made before."""
    seen = Seen()
    heard = event()
    seen.heard(heard)
    assert heard._facts is None
    assert ids(seen, "world") == ["m1"]
    assert heard._facts is not None


def test_edits() -> None:
    """The newest text counts, whatever comes later from before; a pin or preview changes nothing."""
    seen = Seen()
    seen.heard(event(text="the first text"))
    seen.changed(edit(text="the second text"))
    seen.changed(edit(pinned=True))
    seen.add("alice", [message(text="the first text")])  # a list that was on its way
    seen.heard(event(text="the first text"))
    assert ids(seen, "first") == []
    assert ids(seen, "second") == ["m1"]
    seen.add("alice", [message(text="the third text", changed=NOW + 20)])
    assert (ids(seen, "second"), ids(seen, "third")) == ([], ["m1"])


def test_the_server_s_search_may_lag_behind() -> None:
    """What it finds is kept, unless more is known of the message."""
    seen = Seen()
    seen.add("alice", [message(text="new text", changed=NOW + 5)])
    marked = "<mark>old</mark> text"
    seen.found(
        "alice", [SearchHit(message_id=id, channel_id="c1", text="old text", highlighted=marked) for id in ("m1", "m2")]
    )
    assert ids(seen, "old") == ["m2"]
    assert seen.search("alice", "old", limit=1, offset=0).hits[0].highlighted == "old text"


def test_what_is_deleted_is_never_found() -> None:
    """By anybody, and whatever brings it again."""
    seen = Seen()
    seen.add("alice", [message(), message("m2")])
    seen.add("bob", [message()])
    seen.heard(event("m3"))
    seen.deleted("alice", "M1")
    seen.deleted("alice", "m3")
    for user in ("alice", "bob"):
        seen.add(user, [message(), message("m3")])
        seen.found(user, [SearchHit(message_id="m1", text="hello")])
        seen.heard(event("m1", user=user))
    assert (ids(seen, "hello"), ids(seen, "hello", "bob")) == (["m2"], [])
    seen.add("alice", [Message(id="m2", type="deleted")])
    assert ids(seen, "hello") == []


def test_what_the_server_does_not_have() -> None:
    """Is forgotten, and found again if it comes again."""
    seen = Seen()
    seen.heard(event("m1"))
    seen.add("bob", [message()])
    seen.missing("alice", "m1")
    assert (ids(seen, "hello"), ids(seen, "hello", "bob")) == ([], ["m1"])
    seen.add("alice", [message()])
    assert ids(seen, "hello") == ["m1"]


def test_a_forgotten_deletion_brings_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deletions are bounded, too; another user's copy goes with them."""
    monkeypatch.setattr(module, "DELETED", 4)
    seen = Seen()
    for number in range(20):
        for user in ("alice", "bob"):
            seen.add(user, [message(f"m{number}")])
        seen.deleted("alice", f"m{number}")
        assert ids(seen, "hello", "bob") == []
    assert len(seen._deleted) <= 4


def test_a_channel_that_was_left() -> None:
    """Is the past, for that user."""
    seen = Seen()
    seen.heard(event("e"))
    seen.add("alice", [message("a"), message("b", channel="c2")])
    seen.add("bob", [message("a")])
    seen.left("alice", "c1")
    assert (ids(seen, "hello"), ids(seen, "hello", "bob")) == (["b"], ["a"])


def test_what_cannot_be_read_is_passed_over() -> None:
    """Raw data that is no message, or no JSON: nothing raises, nothing is found."""
    seen = Seen()
    odd: tuple[Any, ...] = ({"type": "message.new", "payload": 7}, [], None, {"x": object()}, _nested())
    for raw in odd:
        seen.heard(MessageReceived("alice", "c1", raw, message_id="odd", at=NOW))
    seen.heard(MessageReceived("alice", "c1", {}, at=NOW))

    def no_message(_: Any) -> Any:
        return {"message": read_message_of_nothing()}

    seen.heard(MessageReceived("alice", "c1", {}, no_message, "odd", at=NOW))
    nothing = MessageUpdated("alice", "c1", {}, message_id="odd", at=NOW)
    seen.changed(nothing)
    assert ids(seen, "hello") == []


def read_message_of_nothing() -> Message:
    from chatsdk.core.chatsdk_models import read_message

    return read_message({})


def _nested() -> Any:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    return deep


def test_the_oldest_go() -> None:
    """No more than so many, and no more than so many bytes, whoever brings them."""
    seen = Seen()
    seen.add("alice", [message(f"m{number}") for number in range(MESSAGES + 50)])
    found = ids(seen, "hello")
    assert len(seen) == MESSAGES
    assert "m49" not in found
    small = Seen(most_bytes=20_000)
    for number in range(100):
        small.heard(event(f"m{number}", "x" * 1000, at=NOW + number))
    assert 5 <= len(small) <= 20
    assert ids(small, "x")[0] == "m99"
    small.heard(event("huge", "x" * 30_000, at=NOW + 200))
    assert len(small) == 0  # it takes more than there is, and everything else was seen before


def test_what_is_seen_again_stays() -> None:
    """A page that is looked at again and again is not the oldest, and takes its room once."""
    seen = Seen(most=10)
    for number in range(100):
        seen.add("alice", [message("often")])
        seen.add("alice", [message(f"m{number}")])
    assert "often" in ids(seen, "hello")
    assert seen._bytes == sum(kept.weight for kept in seen._kept.values())


def test_a_flood_costs_no_more_than_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many come within a moment, so many are weighed and kept; then it goes on."""
    weighed: list[Any] = []

    def weigh(raw: Any) -> bytes:
        weighed.append(raw)
        return b""

    monkeypatch.setattr(marshal, "dumps", weigh)
    seen = Seen(most=10 * CAME)
    for number in range(3 * CAME):
        seen.heard(event(f"m{number}", at=NOW + number * LOOK / (10 * CAME)))
    assert len(seen) == len(weighed) == CAME
    assert len(seen._came) == 0
    seen.heard(event("later", at=NOW + LOOK))
    assert "later" in ids(seen, "hello")


def test_a_clock_that_was_set_back() -> None:
    """Does not stop the looking."""
    seen = Seen()
    seen.heard(event("before", at=NOW))
    for number in range(CAME):
        seen.heard(event(f"m{number}", at=NOW - 3600 + number))
    assert len(seen) == CAME + 1


def test_a_forked_child_has_seen_nothing() -> None:
    """And begins with locks that nobody holds."""
    seen = Seen()
    seen.add("alice", [message()])
    seen._lock.acquire()
    seen.after_fork()
    assert ids(seen, "hello") == []
    seen.add("alice", [message()])
    assert ids(seen, "hello") == ["m1"]


def test_many_threads() -> None:
    """Handlers, answers, deletions and searches at once: what was deleted is not found, and the weights are right."""
    seen = Seen(most=300)
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(200):
                name = f"m{turn}"
                if number % 2:
                    seen.heard(event(name, at=NOW + turn))
                else:
                    seen.add("alice", [message(name)])
                if turn % 5 == 0:
                    seen.deleted("alice", name)
                if turn % 20 == 0:
                    ids(seen, "hello")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    found = ids(seen, "hello")
    assert not {f"m{turn}" for turn in range(0, 200, 5)} & set(found)
    assert len(found) == 160
    assert seen._bytes == sum(kept.weight for kept in seen._kept.values())


@given(st.text())
def test_folding_twice_changes_nothing(text: str) -> None:
    """So a word of a text is found in it."""
    assert fold(fold(text)) == fold(text)


class Against(RuleBasedStateMachine):
    """Anything in any order, beside a list of what every user knows."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = Seen()
        self.clock = NOW
        self.known: dict[tuple[str, str], tuple[str, str]] = {}
        self.gone: set[str] = set()

    users = st.sampled_from(["alice", "bob"])
    names = st.sampled_from(["m1", "m2", "m3", "m4"])
    texts = st.sampled_from(["red apple", "Red pear", "green apple"])

    @rule(user=users, name=names, text=texts, how=st.sampled_from(["list", "heard", "edit"]))
    def comes(self, user: str, name: str, text: str, how: str) -> None:
        self.clock += 1
        if how == "list":
            self.seen.add(user, [message(name, text, changed=self.clock)])
        elif how == "heard":
            self.seen.heard(event(name, text, at=self.clock, user=user))
        else:
            self.seen.changed(edit(name, at=self.clock, user=user, text=text, channelId="c1"))
        self.known[user, name] = (text, "c1")

    @rule(user=users, name=names, text=texts)
    def an_old_list(self, user: str, name: str, text: str) -> None:
        if (user, name) in self.known:
            self.seen.add(user, [message(name, text, changed=NOW - 1)])

    @rule(user=users, name=names)
    def deleted(self, user: str, name: str) -> None:
        self.seen.deleted(user, name)
        self.gone.add(name)

    @rule(user=users)
    def left(self, user: str) -> None:
        self.seen.left(user, "c1")
        self.known = {key: value for key, value in self.known.items() if key[0] != user}

    @invariant()
    def the_same_is_found(self) -> None:
        for user in ("alice", "bob"):
            for query in ("red", "APPLE", "red apple"):
                wanted = {
                    name
                    for (who, name), (text, _) in self.known.items()
                    if who == user
                    and name not in self.gone
                    and all(word in text.lower() for word in query.lower().split())
                }
                assert set(ids(self.seen, query, user)) == wanted
        assert self.seen._bytes == sum(kept.weight for kept in self.seen._kept.values())


Against.TestCase.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
TestAgainst = Against.TestCase


def test_all_of_an_event_is_weighed() -> None:
    """Not only its text: about as much as its JSON has."""
    seen = Seen()
    heard = event(text="x" * 5000, custom={"more": ["y" * 5000]})
    seen.heard(heard)
    assert len(seen) == 1
    assert 10_000 < seen._bytes < 12_000
