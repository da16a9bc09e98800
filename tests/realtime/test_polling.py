"""Polling: what a channel is told while no websocket can be had, and that nothing is missed or told twice on either way
in or out. Played by hand: order, dispatch, cursors and backend are real, the time and the two servers are not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from chatsdk.core.exchange import Call
from chatsdk.core.protocols.outputs import Opened, Position, Subscribed, Unsubscribed
from chatsdk.core.realtime_events import ChangesMissed
from chatsdk.realtime.cursors import Cursors
from chatsdk.realtime.polling import AT_ONCE, INTERVAL, RECHECK, REFUSED, SLOWEST
from tests.realtime.channels import Stage, channel_id, message_json, message_new, stream_name

C = channel_id(1)
D = channel_id(2)
CHANNELS = [channel_id(number) for number in range(1, 41)]


class Stages:
    """Makes stages, and keeps what their polling tells."""

    def __init__(self) -> None:
        self.told: list[bool] = []
        self.offline = False
        self.made: list[Stage] = []

    def __call__(self, **options: Any) -> Stage:
        self.made.append(Stage(polls=self.told.append, offline=lambda: self.offline, **options))
        return self.made[-1]


@pytest.fixture
def stages() -> Iterator[Stages]:
    made = Stages()
    yield made
    for stage in made.made:
        stage.close()


@pytest.fixture
def stage(stages: Stages) -> Stage:
    return stages()


def looks(stage: Stage) -> int:
    return stage.chat.count("messages.list")


def test_it_begins_when_the_websocket_was_not_had_for_a_while(stage: Stage, stages: Stages) -> None:
    """Not before; then it is told, the channel is subscribed, and what comes is heard in order."""
    stage.begin_blocked(C, 1, 2)
    stage.pass_time(INTERVAL - 0.1)
    assert (looks(stage), stages.told) == (0, [])
    stage.pass_time(0.2)
    assert stages.told == [True]
    stage.chat.send(C, 3, 4)
    stage.pass_time(2 * INTERVAL)
    stage.chat.send(C, 5)
    stage.pass_time(2 * INTERVAL)
    stage.expect("changes:missed", "subscribed", "3", "4", "5")
    assert [event.ongoing for event in stage.events(ChangesMissed)] == [True]


def test_since_and_stored_places_are_kept_to(stages: Stages) -> None:
    """`since=0` is from the first message; where handlers stopped before, it goes on there."""
    cursors = Cursors(None)
    first = stages(cursors=cursors)
    first.begin_blocked(C, 1, 2, since=0)
    first.pass_time(2 * INTERVAL)
    first.expect("changes:missed", "subscribed", "1", "2")
    first.close()
    second = stages(cursors=cursors)
    second.begin_blocked(C, 3)
    second.pass_time(2 * INTERVAL)
    second.expect("changes:missed", "subscribed", "3")


def test_a_short_loss_polls_nothing(stage: Stage, stages: Stages) -> None:
    """The websocket is back before the interval is over."""
    stage.begin(C, 1)
    asked = looks(stage)
    stage.lose()
    stage.pass_time(INTERVAL - 0.1)
    stage.open()
    stage.join(C, offset=1, recovered=True)
    stage.pass_time(2 * INTERVAL)
    assert (looks(stage), stages.told) == (asked, [])


def test_nothing_is_polled_while_connected(stage: Stage) -> None:
    """However long."""
    stage.begin(C, 1)
    asked = looks(stage)
    stage.pass_time(50.0)
    assert looks(stage) == asked


@pytest.mark.parametrize("recovered", [True, False])
def test_into_polling_and_out_again(recovered: bool, stage: Stage, stages: Stages) -> None:
    """Messages before, during and after: each once, in order; what the server gives again was told already."""
    stage.begin(C, 1)
    stage.take(message_new(C, 2, 2))
    stage.lose()
    stage.chat.send(C, 2, 3, 4)
    stage.pass_time(2 * INTERVAL)
    stage.chat.send(C, 5)
    stage.open()
    assert stage.protocol.asked[-1][2] == Position(2, "e")
    if recovered:
        stage.take(
            Subscribed(stream_name(C), True, Position(5, "e"), True), *(message_new(C, seq, seq) for seq in (3, 4, 5))
        )
    else:
        stage.join(C, offset=5, epoch="f")
    stage.take(message_new(C, 6, 6))
    assert stages.told == [True, False]
    again = [] if recovered else ["changes:missed"]
    shown = ["subscribed", "2", "waiting", "changes:missed", "subscribed", "3", "4", *again, "5", "6"]
    stage.expect(*shown)
    asked = looks(stage)
    stage.pass_time(3 * INTERVAL)
    assert looks(stage) == asked
    assert stage.gaps() == []


def test_a_channel_is_polled_until_it_is_heard_again(stage: Stage, stages: Stages) -> None:
    """The connection is open, but this channel's turn has not come: it goes on being polled."""
    stage.begin_blocked(C, 1)
    stage.begin_blocked(D, 1)
    stage.pass_time(2 * INTERVAL)
    stage.open()
    stage.join(D, offset=1)
    stage.chat.send(C, 2)
    stage.chat.send(D, 2)
    stage.pass_time(3 * INTERVAL)
    stage.expect("changes:missed", "subscribed", "2", channel=C)
    assert stages.told == [True]
    stage.join(C, offset=2)
    assert stages.told == [True, False]


def test_what_is_on_its_way_at_the_switch_comes_once(stage: Stage) -> None:
    """A page that was asked for while polling arrives after the first publications."""
    stage.begin(C, 1)
    stage.lose()
    stage.pass_time(2 * INTERVAL)
    stage.chat.send(C, 2, 3)
    while not stage.errands.waiting:
        stage.clock.now += 0.1
        stage.settle(errands=False)
    stage.connected = True
    stage.subscriptions.take([Opened("c")], stage.clock.now)
    stage.settle(errands=False)
    stage.subscriptions.take(
        [Subscribed(stream_name(C), True, Position(3, "e"), True), message_new(C, 2, 2), message_new(C, 3, 3)],
        stage.clock.now,
    )
    stage.settle()
    stage.expect("subscribed", "waiting", "changes:missed", "subscribed", "2", "3")


def test_all_together_keep_below_the_servers_limit(stage: Stage) -> None:
    """40 channels: never more than 180 histories a minute, and each has its turn."""
    for channel in CHANNELS:
        stage.begin_blocked(channel, 1)
    stage.pass_time(INTERVAL + 60.0)
    assert looks(stage) <= 180
    assert {request.channel for request in stage.chat.requests} == set(CHANNELS)


def test_a_channel_that_brings_nothing_is_looked_up_less_often(stage: Stage) -> None:
    """Up to SLOWEST times; with the next message it is quick again."""
    stage.begin_blocked(C, 1)
    stage.pass_time(120.0)
    asked = looks(stage)
    stage.pass_time(60.0)
    assert 60 / (INTERVAL * SLOWEST * 1.2) <= looks(stage) - asked <= 60 / (INTERVAL * SLOWEST * 0.8)
    stage.chat.send(C, 2)
    asked = looks(stage)
    while looks(stage) == asked:
        stage.pass_time(0.1)
    stage.chat.send(C, 3)
    stage.pass_time(INTERVAL * 1.3)
    stage.expect("changes:missed", "subscribed", "2", "3")


def test_who_says_when_to_come_again_is_obeyed(stage: Stage) -> None:
    """429 with Retry-After: no channel is looked up before that; none is forgotten."""
    for channel in CHANNELS[:5]:
        stage.begin_blocked(channel, 1)
    stage.chat.refusals.append(("messages.list", 429, {"retry-after": "30"}))
    stage.pass_time(INTERVAL + 29.0)
    assert looks(stage) <= AT_ONCE
    stage.pass_time(20.0)
    assert {request.channel for request in stage.chat.requests} == set(CHANNELS[:5])


def test_a_server_that_is_away_hears_little_and_nobody_is_told_of_polling(stage: Stage, stages: Stages) -> None:
    """HTTP does not work either: an outage, asked after by AT_ONCE channels with their back-off."""
    for channel in CHANNELS:
        stage.begin_blocked(channel, 1)
    stage.chat.always["messages.list"] = 503
    stage.pass_time(180.0)
    assert stages.told == []
    assert {len({request.channel for request in stage.chat.requests})} == {AT_ONCE}
    assert looks(stage) <= AT_ONCE * 16
    stage.chat.always.clear()
    stage.pass_time(60.0)
    assert stages.told == [True]
    stage.expect("changes:missed", "subscribed", channel=CHANNELS[-1])


def test_one_channel_that_cannot_be_read_holds_up_no_other(stage: Stage) -> None:
    """A 500 of one: it has its back-off, the others their pace."""
    stage.begin_blocked(C, 1)
    stage.begin_blocked(D, 1)
    answer = stage.chat.answer

    def broken(request: Any) -> Any:
        if request.channel == C:
            stage.chat.refusals.append(("messages.list", 500, {}))
            return stage.chat.ask(Call(request, lambda response: response))
        return answer(request)

    stage.chat.answer = broken  # type: ignore[method-assign]
    for seq in range(2, 8):
        stage.chat.send(D, seq)
        stage.pass_time(INTERVAL * 1.5)
    stage.pass_time(INTERVAL)
    stage.expect("changes:missed", "subscribed", *map(str, range(3, 8)), channel=D)


def test_a_refusal_is_not_believed_for_good(stage: Stage, stages: Stages, caplog: pytest.LogCaptureFixture) -> None:
    """A 403 may be that of something in between: said once, asked again after a while, and no gap is told."""
    stage.begin_blocked(C, 1)
    stage.chat.always["messages.list"] = 403
    with caplog.at_level(logging.WARNING, "chatsdk.realtime"):
        stage.pass_time(INTERVAL + 2.5 * REFUSED)
    assert looks(stage) == 3
    assert len(caplog.records) == 1
    stage.chat.always.clear()
    stage.pass_time(REFUSED)
    stage.chat.always["messages.list"] = 403
    stage.pass_time(2 * REFUSED)
    stage.open()
    stage.chat.always.clear()
    stage.chat.send(C, 2)
    stage.join(C, offset=2)
    stage.pass_time(1.0)
    stage.expect("changes:missed", "subscribed", "changes:missed", "2")
    assert stage.gaps() == []
    assert stages.told == [True, False]


def test_while_the_network_is_away_one_look_tells_when_it_is_back(stage: Stage, stages: Stages) -> None:
    """OFFLINE: at most one every RECHECK seconds, of all channels."""
    stages.offline = True
    for channel in CHANNELS:
        stage.begin_blocked(channel, 1)
    stage.pass_time(INTERVAL + 60.0)
    assert 1 <= looks(stage) <= 60 / RECHECK + 1
    stages.offline = False
    stage.pass_time(30.0)
    assert {request.channel for request in stage.chat.requests} == set(CHANNELS)


def test_zero_is_never(stages: Stages) -> None:
    """Whoever does not want it has the old behaviour."""
    stage = stages(poll=0.0)
    stage.begin_blocked(C, 1)
    stage.pass_time(100.0)
    assert (looks(stage), stages.told) == (0, [])


def test_handlers_that_fall_behind(stages: Stages) -> None:
    """What a full lane refuses comes with the next look, once and in order."""
    stage = stages(bound=50)
    stage.begin_blocked(C, 1)
    stage.pass_time(2 * INTERVAL)
    stage.gate.clear()
    stage.chat.send(C, *range(2, 400))
    stage.pass_time(INTERVAL * SLOWEST)
    stage.gate.set()
    wanted = ["changes:missed", "subscribed", *map(str, range(2, 400))]
    for _ in range(200):
        stage.wait_for(lambda: not stage.dispatch.pending)
        stage.pass_time(INTERVAL)
        if len(stage.shown()) >= len(wanted):
            break
    assert stage.shown() == wanted


def test_a_thread_reply_that_no_list_shows_comes_with_the_recovery(stage: Stage) -> None:
    """While polling it is a hole in the numbers; the server gives it again when the stream is heard."""
    stage.begin(C, 1)
    stage.lose()
    stage.chat.send(C, 3)  # 2 is a reply
    stage.pass_time(2 * INTERVAL)
    stage.open()
    reply = message_json(C, 2)
    reply["parentId"] = message_json(C, 1)["id"]
    payload = {"type": "message.new", "payload": {"channelId": C, "message": reply}}
    published = message_new(C, 2, 2)._replace(data=payload)
    stage.take(Subscribed(stream_name(C), True, Position(3, "e"), True), published, message_new(C, 3, 3))
    stage.expect("subscribed", "waiting", "changes:missed", "subscribed", "3", "2 late")


def test_it_ends_with_the_connection(stage: Stage, stages: Stages) -> None:
    """Closed or given up: nothing is polled any more, and the channels wait for the next connection."""
    stage.begin_blocked(C, 1)
    stage.pass_time(2 * INTERVAL)
    stage.subscriptions.over()
    assert stages.told == [True, False]
    asked = looks(stage)
    assert stage.subscriptions.next_due() is None
    stage.expect("changes:missed", "subscribed", "waiting")
    assert looks(stage) == asked


def test_channels_that_come_and_go(stage: Stage, stages: Stages) -> None:
    """One that is left is not looked up any more; with the last one it has ended; a new one is looked up at once."""
    stage.begin_blocked(C, 1)
    stage.pass_time(2 * INTERVAL)
    stage.subscriptions.unsubscribe(C)
    stage.settle()
    assert stages.told == [True, False]
    asked = looks(stage)
    stage.pass_time(50.0)
    assert looks(stage) == asked
    stage.begin_blocked(D, 1)
    stage.pass_time(0.5)
    stage.chat.send(D, 2)
    stage.pass_time(2 * INTERVAL)
    stage.expect("changes:missed", "subscribed", "2", channel=D)
    assert stages.told == [True, False, True]


def test_lost_again_before_all_were_heard(stage: Stage, stages: Stages) -> None:
    """Those that were heard meanwhile are polled again, after the interval."""
    stage.begin_blocked(C, 1)
    stage.begin_blocked(D, 1)
    stage.pass_time(2 * INTERVAL)
    stage.open()
    stage.join(C, offset=1)
    stage.lose()
    stage.chat.send(C, 2)
    stage.chat.send(D, 2)
    stage.pass_time(1.2 * SLOWEST * INTERVAL)
    stage.expect(
        "changes:missed", "subscribed", "changes:missed", "waiting", "changes:missed", "subscribed", "2", channel=C
    )
    stage.expect("changes:missed", "subscribed", "2", channel=D)
    assert stages.told == [True]


def test_the_server_ends_a_subscription_for_a_moment(stage: Stage) -> None:
    """The connection stands: nothing is polled."""
    stage.begin(C, 1)
    asked = looks(stage)
    stage.take(Unsubscribed(stream_name(C), 2500, "insufficient state", again=True))
    stage.pass_time(20.0)
    assert looks(stage) == asked


@pytest.mark.parametrize("recovered", [True, False])
def test_an_outage_that_is_over_was_no_polling(recovered: bool, stage: Stage, stages: Stages) -> None:
    """Nothing could be had, and then the websocket: nobody is told that it is done without, or what that misses."""
    stage.begin(C, 1)
    stage.lose()
    stage.chat.always["messages.list"] = 503
    stage.pass_time(20.0)
    stage.chat.always.clear()
    stage.chat.send(C, 2)
    stage.open()
    stage.join(C, offset=1 if recovered else 2, recovered=recovered)
    stage.pass_time(1.0)
    stage.expect("subscribed", "waiting", *([] if recovered else ["changes:missed"]), "subscribed", "2")
    assert stages.told == []
    assert not any(event.ongoing for event in stage.events(ChangesMissed))


def test_a_try_that_is_waited_for_holds_up_nothing_that_is_heard(stage: Stage) -> None:
    """After a long outage the next try over HTTP is far off; a hole in what is heard is not held until then."""
    stage.begin(C, 1)
    stage.lose()
    stage.chat.always["messages.list"] = 503
    stage.pass_time(120.0)
    stage.chat.always.clear()
    stage.open()
    stage.join(C, offset=1, recovered=True)
    stage.chat.send(C, 3)  # 2 was purged
    stage.take(message_new(C, 3, 2))
    stage.pass_time(1.0)
    stage.expect("subscribed", "waiting", "subscribed", "3")


def test_where_it_stands_is_asked_anew_once_it_is_heard(stage: Stage) -> None:
    """Nobody could say it during a long outage; with the websocket it is known at once."""
    stage.begin_blocked(C, 1)
    stage.chat.always["messages.list"] = 503
    stage.pass_time(120.0)
    stage.chat.always.clear()
    asked = looks(stage)
    stage.open()
    stage.join(C, offset=1)
    stage.pass_time(1.0)
    stage.expect("subscribed")
    assert looks(stage) == asked + 1
    stage.pass_time(50.0)
    assert looks(stage) == asked + 1


def test_it_has_ended_with_the_last_channel_that_answers(stage: Stage, stages: Stages) -> None:
    """One that is refused is no polling."""
    stage.begin_blocked(C, 1)
    stage.pass_time(2 * INTERVAL)
    stage.chat.always["messages.list"] = 403
    stage.begin_blocked(D, 1)
    stage.subscriptions.unsubscribe(C)
    stage.pass_time(2 * INTERVAL)
    assert stages.told == [True, False]


def test_a_refusal_from_before_the_switch_is_no_gap(stage: Stage) -> None:
    """What lets no websocket through may refuse a look as well; its answer comes when all has been recovered."""
    stage.begin(C, 1)
    stage.lose()
    while not stage.errands.waiting:
        stage.clock.now += 0.1
        stage.settle(errands=False)
    stage.chat.refusals.append(("messages.list", 403, {}))
    stage.connected = True
    stage.subscriptions.take([Opened("c")], stage.clock.now)
    stage.settle(errands=False)
    stage.subscriptions.take([Subscribed(stream_name(C), True, Position(1, "e"), True)], stage.clock.now)
    stage.settle()
    stage.take(message_new(C, 2, 2))
    stage.expect("subscribed", "waiting", "subscribed", "2")


def test_a_refusal_before_polling_begins_is_no_gap(stage: Stage) -> None:
    """The connection is lost while a backfill is under way, and what lies between refuses that: it is asked again."""
    stage.begin(C, 1)
    stage.lose()
    stage.chat.send(C, 2)
    stage.connected = True
    stage.subscriptions.take([Opened("c")], stage.clock.now)
    stage.settle(errands=False)
    stage.subscriptions.take([Subscribed(stream_name(C), False, Position(2, "f"), True)], stage.clock.now)
    stage.settle(errands=False)
    stage.chat.refusals.append(("messages.list", 403, {}))
    stage.lose()
    stage.pass_time(2 * INTERVAL)
    told = ["changes:missed", "subscribed", "waiting", "changes:missed", "subscribed", "2"]
    stage.expect("subscribed", "waiting", *told)


class Story:
    """A chat server whose websocket and history come and go, played to the end by dice. Each message is published with
    its seq for an offset."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.dice = Random(seed)
        self.channels = CHANNELS[:4]
        self.seqs = dict.fromkeys(self.channels, 0)

    def play(self, steps: int) -> None:
        """So many moves, then peace."""
        self.stage.subscriptions.subscribe(self.channels, since=0)
        for _ in range(steps):
            move = self.dice.choice((self.send, self.send, self.send, self.turn, self.trouble, self.wait, self.wait))
            move()
        self.stage.chat.always.clear()
        if self.dice.random() < 0.5:
            self.turn()
        for channel in self.channels:
            self.send(channel)
        self.stage.pass_time(200.0, 0.5)

    def send(self, channel: str = "") -> None:
        """A message, told if anybody hears it."""
        where = channel or self.dice.choice(self.channels)
        self.seqs[where] += 1
        self.stage.chat.send(where, self.seqs[where])
        if self.stage.connected:
            self.stage.take(message_new(where, self.seqs[where], self.seqs[where]))

    def turn(self) -> None:
        """The websocket goes, or comes back; what it gives again is up to it."""
        stage = self.stage
        if stage.connected:
            stage.lose()
            return
        asked = len(stage.protocol.asked)
        if 403 in stage.chat.always.values():  # where a channel is heard, that is believed, and messages are missing
            stage.chat.always.clear()
        stage.open()
        for stream, _, position in stage.protocol.asked[asked:]:
            channel = stream.rpartition(":")[2]
            newest = self.seqs[channel]
            if position is not None and self.dice.random() < 0.5:
                missed = [message_new(channel, seq, seq) for seq in range(position.offset + 1, newest + 1)]
                stage.take(Subscribed(stream, True, Position(newest, "e"), True), *missed)
            else:
                stage.take(Subscribed(stream, False, Position(newest, "e"), position is not None))

    def trouble(self) -> None:
        """Histories cannot be had for a while."""
        always = self.stage.chat.always
        if always:
            always.clear()
        else:
            always["messages.list"] = self.dice.choice((500, 503) if self.stage.connected else (403, 500, 503))

    def wait(self) -> None:
        self.stage.pass_time(self.dice.choice((0.3, 2.0, 5.0)), 0.25)


@pytest.mark.parametrize("seed", range(40))
def test_any_story(seed: int, stages: Stages) -> None:
    """However websocket and history come and go: each message of each channel once, in order, and no gap; polling is
    told to begin and to end in turns."""
    stage = stages()
    story = Story(stage, seed)
    story.play(60)
    for channel in story.channels:
        wanted = [str(seq) for seq in range(1, story.seqs[channel] + 1)]
        stage.wait_for(lambda channel=channel, wanted=wanted: len(told(stage, channel)) >= len(wanted))
        assert told(stage, channel) == wanted
    assert stage.gaps() == []
    assert stages.told == [number % 2 == 0 for number in range(len(stages.told))]


def told(stage: Stage, channel: str) -> list[str]:
    return [each for each in stage.shown(channel) if each.partition(" ")[0].isdecimal()]
