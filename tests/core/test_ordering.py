"""The order of one channel, rule by rule."""

from __future__ import annotations

from chatsdk.core.chatsdk_events import read_event
from chatsdk.core.ordering import BOUND, HOLD, ORPHANS, WINDOW, Delivery, Fetch, Ids, Locate, Mark, Order, Recover
from chatsdk.core.protocols.outputs import Position
from chatsdk.core.realtime_events import MessageReceived, MessageUpdated, RealtimeEvent
from tests.core.ordering_model import deleted, new, shown, typing

RECOVERABLE: Mark = (0, 0, "e")


def order(mark: Mark = RECOVERABLE, *, window: int = WINDOW, bound: int = BOUND) -> Order:
    """An order that stands at the mark."""
    return Order("bot", "c", mark, window=window, bound=bound)


def take(which: Order, *events: RealtimeEvent, now: float = 0.0) -> list[Delivery]:
    out: list[Delivery] = []
    which.take(events, now, out)
    return out


def due(which: Order, now: float) -> list[str]:
    out: list[Delivery] = []
    which.due(now, out)
    return shown(out)


def wishes(which: Order) -> list[object]:
    taken, which.wishes = which.wishes, []
    return list(taken)


def filled(which: Order, turn: int, *events: MessageReceived, newest: int = 0, now: float = 1.0) -> list[str]:
    out: list[Delivery] = []
    which.filled(turn, events, False, newest, now, out)
    return shown(out)


def test_in_order_is_delivered_at_once_with_its_marks() -> None:
    """What comes in order goes out as it is, and each carries the position up to itself."""
    it = order()
    out = take(it, new(1, 1), new(2, 2), typing(3), new(3, 4))
    assert shown(out) == ["1", "2", "typing", "3"]
    assert [mark for _, *mark in out] == [[1, 1, "e"], [2, 2, "e"], [2, 3, "e"], [3, 4, "e"]]
    assert it.calm
    assert it.next_due() is None
    assert not it.wishes


def test_a_repetition_is_dropped_by_offset_and_by_id_and_by_seq() -> None:
    """The same publication, the same message under another offset, the same seq long after its id was forgotten."""
    it = order(window=2)
    take(it, *(new(n, n) for n in range(1, 11)))
    assert take(it, new(10, 10)) == []
    assert take(it, new(10, 11)) == []
    assert take(it, new(2, 12)) == []
    assert it.duplicates == 3
    assert it.top == 12


def test_disorder_within_the_hold_is_put_right() -> None:
    """A seq that comes a moment later is waited for, and nobody is asked."""
    it = order()
    assert shown(take(it, new(1, 1), new(3, 2), typing(3))) == ["1", "typing"]
    assert due(it, HOLD / 2) == []
    assert shown(take(it, new(2, 4), now=0.2)) == ["2", "3"]
    assert it.wishes == []
    assert it.calm


def test_a_mark_never_stands_above_what_waits() -> None:
    """While 3 waits (offset 2), no delivery may store an offset of 2 or more."""
    it = order()
    out = take(it, new(1, 1), new(3, 2), typing(3))
    assert [mark for _, *mark in out] == [[1, 1, "e"], [1, 1, "e"]]
    out = take(it, new(2, 4))
    assert [mark for _, *mark in out] == [[2, 1, "e"], [3, 4, "e"]]


def test_a_hole_is_asked_for_once_and_what_stays_missing_is_no_loss() -> None:
    """After the hold one backfill from the watermark; 2 is not in it (a thread's reply), so 3 goes out."""
    it = order()
    take(it, new(1, 1), new(3, 2))
    assert it.next_due() == HOLD
    assert due(it, HOLD) == []
    assert wishes(it) == [Fetch(1, 1)]
    assert due(it, HOLD * 2) == []
    assert wishes(it) == []
    assert filled(it, 1, new(3), newest=3) == ["3"]
    assert it.calm
    assert it.seq == 3


def test_what_a_backfill_finds_comes_before_what_waited() -> None:
    """2 and 4 were never published; both go out in their places."""
    it = order()
    take(it, new(1, 1), new(3, 2))
    due(it, HOLD)
    assert shown(take(it, new(5, 3), now=0.35)) == []
    assert filled(it, 1, new(2), new(3), new(4), new(5), newest=5) == ["2", "3", "4", "5"]


def test_what_came_after_the_question_is_not_settled_by_its_answer() -> None:
    """5 came after we asked: 4 may have been committed after that too, so 5 waits for its own hold."""
    it = order()
    take(it, new(1, 1), new(3, 2))
    due(it, HOLD)
    take(it, new(5, 3), now=HOLD + 0.1)
    assert filled(it, 1, new(2), new(3), newest=3, now=HOLD + 0.2) == ["2", "3"]
    assert it.next_due() == HOLD + 0.1 + HOLD
    wishes(it)
    due(it, 1.0)
    assert wishes(it) == [Fetch(3, 2)]


def test_a_late_one_is_delivered_once_and_flagged() -> None:
    """2 was given up, comes after all, and comes again."""
    it = order()
    take(it, new(1, 1), new(3, 2))
    due(it, HOLD)
    filled(it, 1, new(3), newest=3)
    out = take(it, new(2, 3), new(2, 4))
    assert shown(out) == ["2 late"]
    assert out[0][1:] == (3, 3, "e") or out[0][1:] == (3, 4, "e")


def test_an_answer_to_an_old_question_is_ignored() -> None:
    """Only the last question counts."""
    it = order()
    take(it, new(1, 1), new(3, 2))
    due(it, HOLD)
    out: list[Delivery] = []
    it.rejoined(False, Position(7, "f"), 1.0, out)
    assert wishes(it) == [Fetch(1, 1), Fetch(1, 2)]
    assert filled(it, 1, new(2), new(3), newest=3) == []
    assert filled(it, 2, new(2), new(3), new(4), newest=4) == ["2", "3", "4"]


def test_a_backfill_that_fails_for_good_is_a_gap() -> None:
    """The gap takes its place before what waited, which then goes out."""
    it = order()
    take(it, new(1, 1), new(3, 2))
    due(it, HOLD)
    out: list[Delivery] = []
    it.unfilled(1, "not allowed", 1.0, out)
    assert shown(out) == ["gap", "3"]
    gap = out[0][0]
    assert (gap.after, gap.reason, gap.channel) == (1, "not allowed", "c")  # type: ignore[attr-defined]
    assert it.calm


def test_the_first_message_of_an_unknown_channel_sets_the_watermark() -> None:
    """Nobody said where we stand: from the first one on, and lower ones are late."""
    it = order((None, None, ""))
    assert shown(take(it, new(7, 3))) == ["7"]
    assert shown(take(it, new(6, 4), new(8, 5))) == ["6 late", "8"]


def test_where_an_unknown_channel_stands_is_asked_for() -> None:
    """After the first subscribe; what is sent from then on is not missed even if it is never published."""
    it = order((None, None, ""))
    out: list[Delivery] = []
    it.rejoined(False, None, 0.0, out)
    assert wishes(it) == [Locate()]
    it.located(0, 0.0, out)
    it.check(60.0)
    assert wishes(it) == [Fetch(0, 1)]
    assert filled(it, 1, new(1), newest=1) == ["1"]


def test_an_edit_waits_for_its_message() -> None:
    """The deletion of 2 comes before 2: it goes out right after it."""
    it = order()
    assert shown(take(it, deleted(2, 1), new(1, 2))) == ["1"]
    out = take(it, new(2, 3))
    assert shown(out) == ["2", "-2"]
    assert out[-1][2] == 3


def test_an_edit_of_an_unknown_message_asks_once_and_goes_out() -> None:
    """The message is older than we are: after one backfill the edit is delivered, a second edit at once."""
    it = order((5, 0, "e"))
    assert take(it, deleted(2, 1)) == []
    assert due(it, HOLD) == []
    assert wishes(it) == [Fetch(5, 1)]
    assert filled(it, 1, newest=5) == ["-2"]
    assert shown(take(it, deleted(2, 2), now=2.0)) == ["-2"]


def test_an_edit_that_tells_a_seq_below_the_watermark_does_not_wait() -> None:
    """It is about something that was delivered before."""
    it = order((5, 0, "e"))
    edit = MessageUpdated("bot", "c", {}, message_id="m2", seq=2, offset=1)
    assert [event for event, *_ in take(it, edit)] == [edit]


def test_edits_of_unknown_messages_are_bounded() -> None:
    """Beyond the bound the oldest goes out; the message itself is still no repetition when it comes."""
    it = order()
    out = take(it, *(deleted(n, n) for n in range(1, ORPHANS + 11)))
    assert shown(out) == [f"-{n}" for n in range(1, 11)]
    assert shown(take(it, new(1, ORPHANS + 11))) == ["1"]


def test_a_hole_in_the_offsets_asks_for_a_recovery() -> None:
    """Offset 2 did not come: what is beyond waits for the hold, then the stream is heard anew from offset 1."""
    it = order()
    assert shown(take(it, new(1, 1), typing(3), new(2, 4))) == ["1"]
    assert due(it, HOLD) == []
    assert wishes(it) == [Recover(Position(1, "e"))]
    out: list[Delivery] = []
    it.rejoined(True, Position(1, "e"), 0.5, out)
    out = take(it, deleted(1, 2), typing(3), new(2, 4), now=0.5)
    assert shown(out) == ["-1", "typing", "2"]
    assert it.calm


def test_a_hole_that_a_recovery_does_not_close_is_passed() -> None:
    """The server does not have it either: a backfill, and on."""
    it = order()
    take(it, new(1, 1), typing(3))
    due(it, HOLD)
    it.rejoined(True, Position(1, "e"), 0.5, [])
    take(it, typing(3), now=0.5)
    wishes(it)
    assert due(it, 0.5 + HOLD) == ["typing"]
    assert wishes(it) == [Fetch(1, 1)]
    assert filled(it, 1, newest=1) == []
    assert it.calm


def test_without_recovery_a_hole_in_the_offsets_causes_a_backfill() -> None:
    """The last message may be what is missing: no later seq would tell."""
    it = order((1, 1, ""))
    take(it, typing(3))
    assert due(it, HOLD) == ["typing"]
    assert wishes(it) == [Fetch(1, 1)]
    assert filled(it, 1, new(2), newest=2) == ["2"]


def test_without_seq_and_recovery_a_hole_is_a_gap() -> None:
    """Another backend's channel: nobody can give it again."""
    it = Order("bot", "c", (None, 1, ""), ordered=False)
    take(it, new(None, 3, "x"))
    assert due(it, HOLD) == ["None", "gap"]
    assert wishes(it) == []


def test_a_reconnect_without_recovery_is_caught_up_from_the_watermark() -> None:
    """And until it is, no offset of the new epoch may be stored."""
    it = order()
    take(it, new(1, 1))
    out: list[Delivery] = []
    it.rejoined(False, Position(2, "f"), 1.0, out)
    assert wishes(it) == [Fetch(1, 1)]
    out = take(it, typing(3), now=1.0)
    assert out[0][1:] == (1, None, "f")
    it.filled(1, [new(2), new(3)], False, 3, 1.0, out)
    assert [mark for _, *mark in out[1:]] == [[2, None, "f"], [3, 3, "f"]]


def test_a_reconnect_with_recovery_asks_for_nothing() -> None:
    """The publications that were missed follow."""
    it = order()
    take(it, new(1, 1))
    it.rejoined(True, Position(1, "e"), 1.0, [])
    assert it.wishes == []
    assert shown(take(it, new(2, 2), new(3, 3))) == ["2", "3"]


def test_a_reconnect_at_an_unknown_place_is_a_gap() -> None:
    """A stream without seq and history (the user's own): what came meanwhile is gone, and that is said."""
    it = Order("bot", "", ordered=False)
    out: list[Delivery] = []
    it.rejoined(False, None, 0.0, out)
    assert out == []
    it.rejoined(False, None, 5.0, out)
    assert shown(out) == ["gap"]
    assert it.wishes == []


def test_what_waits_for_a_backfill_is_bounded() -> None:
    """A flood beyond a hole: memory stays within the bounds of both gates, and nothing is missing afterwards."""
    it = order(bound=100)
    take(it, new(1, 1))
    out = take(it, *(new(n + 1, n) for n in range(2, 2000)))
    assert out == []
    assert len(it._held) <= 100
    assert len(it._ahead) <= 100
    [asked] = wishes(it)
    assert isinstance(asked, Fetch)
    got = filled(it, asked.turn, *(new(n) for n in range(2, 2001)), newest=2000)
    assert got == [str(n) for n in range(2, 2001)]
    assert wishes(it) == [Recover(Position(101, "e"))]
    it.rejoined(True, Position(101, "e"), 1.0, [])
    assert take(it, *(new(n + 1, n) for n in range(102, 2000))) == []
    assert it.calm


def test_a_seq_that_the_server_has_not_reached_is_not_believed() -> None:
    """A publication with seq 2**60 is delivered, and does not make later ones repetitions."""
    it = order()
    take(it, new(1, 1), new(2**60, 2))
    due(it, HOLD)
    assert filled(it, 1, new(2), newest=2) == ["2", str(2**60)]
    assert it.seq == 2
    assert shown(take(it, new(3, 3))) == ["3"]


def test_a_jump_over_many_seqs_costs_bounded_memory() -> None:
    """And those below that come after all are delivered, late."""
    it = order()
    take(it, new(1, 1), new(10**6, 2))
    due(it, HOLD)
    assert filled(it, 1, new(10**6), newest=10**6) == [str(10**6)]
    assert len(it._holes) <= 20_000
    assert shown(take(it, new(500, 3), new(999_999, 4))) == ["500 late", "999999 late"]


def test_after_a_refusal_it_goes_on_where_it_was_refused() -> None:
    """The handlers fell behind at 2: everything is dropped, then heard anew from offset 1."""
    it = order()
    before = it.mark()
    out = take(it, new(1, 1), new(2, 2), new(3, 3))
    it.refused(out[1:], out[0][1:])
    assert before == (0, 0, "e")
    assert take(it, new(4, 4)) == []
    it.drained(1.0, [])
    assert wishes(it) == [Recover(Position(1, "e"))]
    it.rejoined(True, Position(1, "e"), 1.0, [])
    assert shown(take(it, new(2, 2), new(3, 3), new(4, 4))) == ["2", "3", "4"]
    assert it.calm


def test_after_a_refusal_without_recovery_it_is_caught_up() -> None:
    """By seq; the deletion that was dropped is gone, and that is said."""
    it = order((0, 0, ""))
    out = take(it, new(1, 1), new(2, 2))
    it.refused(out[1:], out[0][1:])
    take(it, new(3, 3), deleted(1, 4))
    out = []
    it.drained(1.0, out)
    assert shown(out) == ["gap"]
    [asked] = wishes(it)
    assert isinstance(asked, Fetch)
    assert asked.after == 1
    assert filled(it, asked.turn, new(2), new(3), newest=3) == ["2", "3"]


def test_no_gap_is_told_of_what_was_true_for_a_moment_only() -> None:
    """Of a refusal's messages nothing is missing after the backfill, and nobody misses a typing signal."""
    it = order((0, 0, ""))
    out = take(it, new(1, 1), new(2, 2))
    it.refused(out[1:], out[0][1:])
    take(it, new(3, 3), typing(4))
    out = []
    it.drained(1.0, out)
    assert shown(out) == []
    [asked] = wishes(it)
    assert isinstance(asked, Fetch)
    assert filled(it, asked.turn, new(2), new(3), newest=3) == ["2", "3"]


def published(seq: int, offset: int | None = None, parent: str | None = None) -> RealtimeEvent:
    """A publication of the server; `parent`: it is a reply, which no list shows."""
    message = {"id": f"m{seq}", "seq": seq, "text": "x", "parentId": parent}
    return read_event({"type": "message.new", "payload": {"message": message}}, user="bot", channel="c", offset=offset)


def test_what_an_earlier_process_handled_does_not_come_again() -> None:
    """Its publication may come late, or be recovered from an offset that lags: who stood at 10 had all that lists show.
    Whether he had a reply, nobody knows: it comes again rather than never."""
    it = order((10, 8, "e"))
    assert shown(take(it, published(11, 9), published(10, 10), published(12, 11))) == ["11", "12"]
    assert it.duplicates == 1
    assert shown(take(it, published(9, 12, parent="m1"), published(3, 13))) == ["9 late"]


def test_where_it_begins_is_no_earlier_process() -> None:
    """A message may be committed between the subscription and the question for the newest seq: its publication comes
    after the answer, and is news."""
    it = order((None, None, ""))
    it.located(5, 0.0, [])
    assert shown(take(it, published(5, 1), published(6, 2))) == ["5 late", "6"]


def test_offsets_that_begin_anew_unannounced_are_noticed() -> None:
    """A message above the watermark under an offset that was long passed is news, not a repetition."""
    it = order()
    take(it, *(new(n, n) for n in range(1, 11)))
    assert shown(take(it, new(12, 2))) == ["changes"]
    [asked] = wishes(it)
    assert isinstance(asked, Fetch)
    assert asked.after == 10
    assert filled(it, asked.turn, new(11), new(12), newest=12) == ["11", "12"]
    assert shown(take(it, new(13, 3))) == ["13"]


def test_the_quiet_check_asks_from_the_watermark() -> None:
    """Once: while one is under way there is no second."""
    it = order((5, 0, "e"))
    it.check(60.0)
    it.check(61.0)
    assert wishes(it) == [Fetch(5, 1)]
    assert filled(it, 1, new(6), newest=6) == ["6"]


def test_ids_are_bounded() -> None:
    """At least `size` are known, never more than twice that."""
    ids = Ids(10)
    for n in range(1000):
        ids.add(str(n))
        assert all(str(k) in ids for k in range(max(0, n - 9), n + 1))
        assert len(ids.new) + len(ids.old) <= 20
    assert "0" not in ids
    assert BOUND >= 100
