"""What a real server sent, late and in disorder, fed to the subscriptions: it comes out complete and in order; also
with any one publication left out. With and without recovery at the server, with its history out of reach meanwhile."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from chatsdk.core.events import Event
from chatsdk.core.ordering import Order
from chatsdk.core.protocols.outputs import Position, Published, Subscribed, SubscribeFailed
from chatsdk.core.realtime_events import MessageReceived, RealtimeEvent
from tests.realtime.channels import Stage
from tests.realtime.transcript_plays import Back, Cut, Pause, Play, Purged, Stored, plays

PLAYS = {play.name: play for play in plays()}
SCENARIOS = 20
LAST_LOOK = 62.0
"""Seconds after which the quiet check has found what is left."""


class Theatre:
    """A play, on a stage."""

    def __init__(self, play: Play, *, recovery: bool, without: int | None = None, history: bool = True) -> None:
        self.play = play
        self.recovery = recovery
        self.without = without
        self.stage = Stage(listen_own=True, claims=lambda: {"app_id": play.app})
        self.stage.subscriptions._user = play.user
        self.log: dict[str, list[Published]] = {}  # what each stream has
        self.base: dict[str, int] = {}
        self.answered = 0
        for channel in play.channels:
            self.stage.chat.newest[channel] = play.start(channel)
            self.stage.subscriptions.subscribe(channel)
        self.stage.open()
        self.answer()
        if not history:
            self.stage.chat.always["messages.list"] = 503
        self.run()
        self.stage.chat.always.clear()
        self.rest(LAST_LOOK, step=0.5)
        self.wait_for_handlers()
        self.stage.close()

    def wait_for_handlers(self) -> None:
        here = self.stage.dispatch._process.get()
        self.stage.wait_for(lambda: not here.ready and not here.working)

    def answer(self) -> None:
        """The realtime server's answers to what was asked."""
        asked = self.stage.protocol.asked
        while self.answered < len(asked):
            stream, _, position = asked[self.answered]
            self.answered += 1
            log = self.log.setdefault(stream, [])
            if not self.recovery or stream.startswith("user:"):
                self.stage.take(Subscribed(stream, asked=position is not None))
            elif position is None:
                first = next(
                    (b.offset for b in self.play.beats if isinstance(b, Published) and b.stream == stream), None
                )
                self.stage.take(Subscribed(stream, position=Position((first or 1) - 1, "e")))
            else:
                missed = [each for each in log if (each.offset or 0) > position.offset]
                last = missed[-1].offset if missed else position.offset
                self.stage.take(Subscribed(stream, True, Position(last or 0, "e"), True), *missed)

    def rest(self, seconds: float, step: float = 0.02) -> None:
        end = self.stage.clock.now + seconds
        while self.stage.clock.now < end:
            self.stage.pass_time(min(step, end - self.stage.clock.now), step=step)
            self.answer()

    def run(self) -> None:
        stage = self.stage
        for at, beat in enumerate(self.play.beats):
            if isinstance(beat, Stored):
                stage.chat.messages.setdefault(beat.channel, []).append(beat.message)
                newest = stage.chat.newest.get(beat.channel, 0)
                stage.chat.newest[beat.channel] = max(newest, int(beat.message["seq"]))
            elif isinstance(beat, Purged):
                kept = [each for each in stage.chat.messages[beat.channel] if each["id"] != beat.message]
                stage.chat.messages[beat.channel] = kept
            elif isinstance(beat, Cut):
                stage.lose()
            elif isinstance(beat, Back):
                stage.open()
                self.answer()
            elif isinstance(beat, Pause):
                self.rest(beat.seconds)
            elif isinstance(beat, SubscribeFailed):
                stage.subscriptions.subscribe(beat.stream.split(":")[2])
                stage.settle()
                stage.take(beat)
            else:
                if isinstance(beat, Published):
                    beat = beat._replace(epoch=None)  # the epoch that the answers give
                    self.log.setdefault(beat.stream, []).append(beat)
                if at != self.without:
                    stage.take(beat)

    # ---- what came out

    def check(self) -> None:
        seen = [event for event in self.stage.seen if isinstance(event, RealtimeEvent)]
        for channel in self.play.channels:
            self.check_messages(channel, [event for event in seen if event.channel == channel])
        self.check_all_else(seen)
        assert [gap for gap in self.stage.gaps() if gap.channel] == []

    def check_messages(self, channel: str, seen: list[RealtimeEvent]) -> None:
        messages = [event for event in seen if isinstance(event, MessageReceived)]
        seqs = [event.seq or 0 for event in messages]
        assert max(Counter(seqs).values(), default=1) == 1, "none twice"
        listed = {int(each["seq"]) for each in self.stage.chat.messages.get(channel, ())}
        assert listed <= set(seqs), "all that the server has"
        on_time = [event.seq or 0 for event in messages if not event.late]
        assert on_time == sorted(on_time), "in order"
        places = {event.message_id: at for at, event in enumerate(seen) if isinstance(event, MessageReceived)}
        for at, event in enumerate(seen):
            if event.refers and event.message_id in places:
                assert places[event.message_id] < at, "nothing before its message"

    def check_all_else(self, seen: list[RealtimeEvent]) -> None:
        """Whatever else was published, each as often."""
        others = [
            (at, beat)
            for at, beat in enumerate(self.play.beats)
            if isinstance(beat, Published) and beat.data["type"] != "message.new"
        ]
        published = Counter(_shown(beat.data) for at, beat in others if at != self.without or self.comes_again(beat))
        assert Counter(_shown(event.raw) for event in seen if _is_published(event)) == published

    def comes_again(self, left_out: Published) -> bool:
        """The server can give it again, and a later publication shows that it is missing."""
        later = [each for each in self.log[left_out.stream] if (each.offset or 0) > (left_out.offset or 0)]
        return self.recovery and left_out.offset is not None and bool(later)


def _is_published(event: Event) -> bool:
    """Of another type than message.new, and not made from what the connection itself told."""
    return isinstance(event, RealtimeEvent) and not isinstance(event, MessageReceived) and "type" in event.raw


def _shown(data: Any) -> str:
    return json.dumps(data, sort_keys=True)


def test_all_recorded_scenarios_are_played() -> None:
    """Twenty, as plays of one listener each; none is empty but for what is only about connections."""
    names = {json.loads(line)["scenario"] for line in _lines()}
    assert len(names) == SCENARIOS
    for name in names:
        of_it = [play for play in PLAYS.values() if play.name.startswith(name)]
        assert of_it
        assert name == "ws-revoke" or any(play.publications for play in of_it)


def _lines() -> list[str]:
    from tests.realtime.transcript_plays import TRANSCRIPTS

    return TRANSCRIPTS.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("history", [True, False], ids=["history", "history-later"])
@pytest.mark.parametrize("recovery", [True, False], ids=["recovery", "no-recovery"])
@pytest.mark.parametrize("name", PLAYS)
def test_transcript_comes_out_complete_and_in_order(name: str, recovery: bool, history: bool) -> None:
    """As it was recorded."""
    Theatre(PLAYS[name], recovery=recovery, history=history).check()


@pytest.mark.parametrize("recovery", [True, False], ids=["recovery", "no-recovery"])
@pytest.mark.parametrize("name", PLAYS)
def test_transcript_with_each_publication_left_out(name: str, recovery: bool) -> None:
    """One after the other: a message is found all the same, nothing else is disturbed."""
    play = PLAYS[name]
    for at in play.publications:
        Theatre(play, recovery=recovery, without=at).check()


def test_transcript_of_a_removal_ends_the_subscription() -> None:
    """rt-members: carol was taken out (2000), and does not come back with her old token."""
    theatre = Theatre(PLAYS["rt-members-carol"], recovery=False)
    [channel] = theatre.play.channels
    assert theatre.stage.subscriptions.states()[channel] == "ended"


def test_transcript_of_a_refusal_is_a_failed_channel() -> None:
    """ws-connect-subscribe: 103 for a channel of others."""
    theatre = Theatre(PLAYS["ws-connect-subscribe-bob"], recovery=False)
    assert "failed" in theatre.stage.subscriptions.states().values()


def test_transcripts_find_out_a_layer_that_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: without backfills a message that is left out is missing."""
    monkeypatch.setattr(Order, "_ask", lambda self, now: setattr(self, "filling", True))
    play = PLAYS["rt-backlog"]
    with pytest.raises(AssertionError, match="all that the server has"):
        Theatre(play, recovery=False, without=play.publications[-1]).check()
