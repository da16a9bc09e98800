"""Subscriptions: what is heard, and that nothing of it is missed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from chatsdk.core.errors import Forbidden, InvalidArgument, NotFound
from chatsdk.core.protocols.outputs import (
    Joined,
    Malformed,
    Position,
    Published,
    Subscribed,
    SubscribeFailed,
    TokenWanted,
    Unsubscribed,
)
from chatsdk.core.realtime_events import ListenerJoined, SubscriptionStateChanged, TypingStarted
from chatsdk.realtime.cursors import Cursors
from tests.realtime.channels import APP, Stage, channel_id, message_deleted, message_new, stream_name

C = channel_id(1)
D = channel_id(2)


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


def stages(**options: Any) -> Stage:
    return Stage(**options)


def test_a_channel_is_asked_for_with_a_token_and_heard(stage: Stage) -> None:
    """Token, subscribe, where it stands, subscribed; then its messages in order."""
    stage.begin(C, 1, 2)
    assert stage.protocol.asked == [(stream_name(C), "token-1", None)]
    stage.take(message_new(C, 3, 3), message_new(C, 4, 4))
    stage.expect("subscribed", "3", "4")
    assert stage.subscriptions.states() == {C: "subscribed"}


def test_what_no_channel_is_called_raises_at_once(stage: Stage) -> None:
    """And none of the others is subscribed."""
    with pytest.raises(InvalidArgument):
        stage.subscriptions.subscribe([C, "no channel"])
    assert stage.subscriptions.states() == {}


def test_the_cursor_is_stored_after_the_handler(stage: Stage) -> None:
    """While the handler runs it stands before the event; afterwards behind it."""
    stage.begin(C, 1)
    stage.expect("subscribed")
    stage.gate.clear()
    stage.take(message_new(C, 2, 2))
    assert stage.cursors.get(f"bot\n{C}") == (1, 1, "e")
    stage.gate.set()
    stage.wait_for(lambda: stage.cursors.get(f"bot\n{C}") == (2, 2, "e"))


def test_a_restart_goes_on_from_the_cursor() -> None:
    """The next process asks for recovery from where the last one left off, and for nothing else."""
    cursors = Cursors(None)
    first = stages(cursors=cursors)
    first.begin(C, 1)
    first.take(message_new(C, 2, 2))
    first.expect("subscribed", "2")
    first.close()
    second = stages(cursors=cursors)
    second.subscriptions.subscribe(C)
    second.open()
    assert second.protocol.asked[0][2] == Position(2, "e")
    second.join(C, offset=2, recovered=True)
    second.take(message_new(C, 3, 3))
    second.expect("subscribed", "3")
    assert second.chat.count("messages.list") == 0
    second.close()


def test_a_restart_without_recovery_is_caught_up(stage: Stage) -> None:
    """What was sent while the process was down comes over HTTP, in order, before what is new."""
    stage.cursors.set(f"bot\n{C}", 2, None, None)
    stage.chat.send(C, 1, 2, 3, 4)
    stage.subscriptions.subscribe(C)
    stage.open()
    stage.take(Subscribed(stream_name(C)), message_new(C, 5, 9))
    stage.expect("subscribed", "3", "4", "5")


def test_since_begins_after_that_seq(stage: Stage) -> None:
    """`since=1`: all messages after the first; whatever the cursor says."""
    stage.cursors.set(f"bot\n{C}", 3, 3, "e")
    stage.chat.send(C, 1, 2, 3)
    stage.subscriptions.subscribe(C, since=1)
    stage.open()
    assert stage.protocol.asked[0][2] is None
    stage.join(C, offset=3)
    stage.expect("subscribed", "2", "3")


def test_since_zero_is_from_the_start_however_long_it_is(stage: Stage) -> None:
    """450 messages, in pages of 200, each once and in order."""
    stage.chat.send(C, *range(1, 451))
    stage.subscriptions.subscribe(C, since=0)
    stage.open()
    stage.join(C, offset=450)
    stage.expect("subscribed", *map(str, range(1, 451)))


def test_a_reconnect_without_recovery_is_caught_up_page_by_page(stage: Stage) -> None:
    """Also what was sent to a channel in which nothing was ever heard."""
    stage.begin(C)
    stage.lose()
    stage.chat.send(C, *range(1, 431))
    stage.open()
    stage.join(C, offset=430, epoch="f")
    stage.expect("subscribed", "waiting", "changes:missed", "subscribed", *map(str, range(1, 431)))


def test_a_reconnect_with_recovery_asks_nothing_over_http(stage: Stage) -> None:
    """The token is used again, and so is the position."""
    stage.begin(C, 1)
    stage.take(message_new(C, 2, 2))
    asked = len(stage.chat.requests)
    stage.lose()
    stage.open()
    assert stage.protocol.asked[1:] == [(stream_name(C), "token-1", Position(2, "e"))]
    stage.join(C, offset=2, recovered=True)
    stage.take(message_new(C, 3, 3))
    stage.expect("subscribed", "2", "waiting", "subscribed", "3")
    assert len(stage.chat.requests) == asked


def test_tokens_are_paced_to_the_servers_limit(stage: Stage) -> None:
    """100 channels: 60 tokens at once, then one a second; every channel is heard in the end."""
    names = [channel_id(number) for number in range(1, 101)]
    stage.subscriptions.subscribe(names)
    stage.open()
    assert stage.chat.count("realtime.subscription_token") == 60
    stage.pass_time(10.05)
    assert stage.chat.count("realtime.subscription_token") == 70
    stage.pass_time(31.0)
    assert [asked[0] for asked in stage.protocol.asked] == [stream_name(name) for name in names]


def test_a_limit_of_the_server_is_obeyed(stage: Stage) -> None:
    """429 with Retry-After: no token is asked for before that, and none is forgotten."""
    stage.chat.refusals.append(("realtime.subscription_token", 429, {"retry-after": "7"}))
    stage.subscriptions.subscribe([C, D])
    stage.open()
    stage.pass_time(6.9)
    assert stage.chat.count("realtime.subscription_token") == 2  # both were under way
    stage.pass_time(0.3)
    assert {asked[0] for asked in stage.protocol.asked} == {stream_name(C), stream_name(D)}


def test_a_token_that_ran_out_is_fetched_anew(stage: Stage) -> None:
    """After its life, and when the server says so (109)."""
    stage.begin(C)
    stage.take(Unsubscribed(stream_name(C), 2501, "expired", again=True, fresh_token=True))
    assert len(stage.protocol.asked) == 2
    assert stage.protocol.asked[1][1] != stage.protocol.asked[0][1]
    stage.join(C, offset=0)
    stage.lose()
    stage.clock.now += 850.0
    stage.open()
    assert stage.chat.count("realtime.subscription_token") == 3


def test_renewals_come_before_new_channels(stage: Stage) -> None:
    """A token that runs out is renewed out of the same budget, first."""
    stage.begin(C)
    stage.subscriptions.subscribe([channel_id(number) for number in range(10, 110)])
    stage.settle()
    assert stage.chat.count("realtime.subscription_token") == 60
    stage.take(TokenWanted(stream_name(C)))
    stage.pass_time(1.1)
    assert stage.protocol.renewed == [stream_name(C)]
    assert stage.chat.count("realtime.subscription_token") == 61


@pytest.mark.parametrize(("code", "kind"), [(103, Forbidden), (102, NotFound)])
def test_what_the_server_refuses_for_good_failed(stage: Stage, code: int, kind: type[Exception]) -> None:
    """With an error that says what it is; the channel is not asked for again."""
    stage.subscriptions.subscribe(C)
    stage.open()
    stage.take(SubscribeFailed(stream_name(C), code, "no"))
    stage.expect("failed")
    [event] = stage.events(SubscriptionStateChanged)
    assert isinstance(event.error, kind)
    assert isinstance(stage.subscriptions.error(C), kind)
    stage.lose()
    stage.open()
    assert len(stage.protocol.asked) == 1


def test_a_channel_whose_token_is_refused_failed(stage: Stage) -> None:
    """403 to the token: not a member."""
    stage.chat.always["realtime.subscription_token"] = 403
    stage.subscriptions.subscribe(C)
    stage.open()
    stage.expect("failed")
    assert isinstance(stage.subscriptions.error(C), Forbidden)


def test_a_refusal_for_now_is_tried_again(stage: Stage) -> None:
    """100 (internal) and a token that a server has no database for (401, contract 15.1)."""
    stage.chat.refusals.append(("realtime.subscription_token", 401, {}))
    stage.subscriptions.subscribe(C)
    stage.open()
    assert stage.protocol.asked == []
    stage.pass_time(1.0)
    assert len(stage.protocol.asked) == 1
    stage.take(SubscribeFailed(stream_name(C), 100, "internal", again=True))
    stage.pass_time(1.0)
    assert len(stage.protocol.asked) == 2
    stage.join(C, offset=0)
    stage.expect("subscribed")


def test_one_channel_too_many_is_an_error_with_a_hint(stage: Stage) -> None:
    """128 are heard; the next one fails, and says what to do. With one less there is room again."""
    names = [channel_id(number) for number in range(1, 130)]
    stage.subscriptions.subscribe(names)
    assert [state for state in stage.subscriptions.states().values() if state == "failed"] == ["failed"]
    error = stage.subscriptions.error(names[-1])
    assert error is not None
    assert error.code == "channel_limit"
    assert "second client" in error.hint
    stage.expect("failed", channel=names[-1])
    stage.subscriptions.unsubscribe(names[0])
    stage.subscriptions.subscribe(names[-1])
    assert stage.subscriptions.states()[names[-1]] == "waiting"


def test_the_servers_own_limit_is_the_same_error(stage: Stage) -> None:
    """106."""
    stage.subscriptions.subscribe(C)
    stage.open()
    stage.take(SubscribeFailed(stream_name(C), 106, "limit exceeded"))
    stage.expect("failed")
    error = stage.subscriptions.error(C)
    assert error is not None
    assert error.code == "channel_limit"


def test_taken_out_by_the_server_stays_out(stage: Stage) -> None:
    """2000: ended, although the old token would let us in again (contract, 15.14)."""
    stage.begin(C)
    stage.take(Unsubscribed(stream_name(C), 2000, "server unsubscribe"))
    stage.expect("subscribed", "ended")
    stage.lose()
    stage.open()
    assert len(stage.protocol.asked) == 1


def test_unsubscribe_ends_it(stage: Stage) -> None:
    """The server is told; a publication that was under way is passed over."""
    stage.begin(C)
    stage.expect("subscribed")
    stage.subscriptions.unsubscribe(C)
    stage.settle()
    assert stage.protocol.left == [stream_name(C)]
    stage.take(message_new(C, 1, 1))
    stage.expect("subscribed", "ended")
    assert stage.subscriptions.unknown == 1


def test_who_comes_back_goes_on_where_the_handlers_stop(stage: Stage) -> None:
    """Not before they have: what they have in hand would come twice. What only waited comes again."""
    stage.begin(C)
    stage.expect("subscribed")
    stage.gate.clear()
    stage.chat.send(C, 1, 2)
    stage.take(message_new(C, 1, 1))
    stage.wait_for(lambda: stage.dispatch.pending == 0)  # a handler has it in hand
    stage.take(message_new(C, 2, 2))
    for _ in range(3):
        stage.subscriptions.unsubscribe(C)
        stage.subscriptions.subscribe(C)
        stage.settle()
    assert len(stage.protocol.asked) == 1
    assert stage.subscriptions.states()[C] == "waiting"
    stage.gate.set()
    stage.wait_for(lambda: len(stage.protocol.asked) == 2)
    assert stage.protocol.asked[1][2] == Position(1, "e")
    stage.join(C, offset=1, recovered=True)
    stage.take(message_new(C, 2, 2))
    stage.wait_for(lambda: "2" in stage.shown(C))
    assert [each for each in stage.shown(C) if each != "ended"] == ["subscribed", "1", "subscribed", "2"]


def test_a_hole_is_filled_over_http(stage: Stage) -> None:
    """Seq 2 was never published."""
    stage.begin(C)
    stage.chat.send(C, 1, 2, 3)
    stage.take(message_new(C, 1, 1), message_new(C, 3, 2))
    stage.expect("subscribed", "1")
    stage.pass_time(0.35)
    stage.expect("subscribed", "1", "2", "3")


def test_a_missing_publication_is_recovered(stage: Stage) -> None:
    """Offset 2 did not come: the stream is heard anew, with the token there is."""
    stage.begin(C)
    stage.chat.send(C, 1, 2)
    stage.take(message_new(C, 1, 1), message_new(C, 2, 3))
    stage.pass_time(0.35)
    assert stage.protocol.left == [stream_name(C)]
    assert stage.protocol.asked[1:] == [(stream_name(C), "token-1", Position(1, "e"))]
    stage.take(Subscribed(stream_name(C), True, Position(3, "e"), True), message_deleted(C, 1, 2), message_new(C, 2, 3))
    stage.expect("subscribed", "1", "message:deleted", "2")


def test_a_backfill_is_tried_again_until_it_succeeds(stage: Stage) -> None:
    """500, then 429 with Retry-After, then the page; the channel waits meanwhile, and others do not."""
    stage.begin(C)
    stage.begin(D)
    stage.chat.send(C, 1, 2, 3)
    stage.chat.refusals.append(("messages.list", 500, {}))
    stage.chat.refusals.append(("messages.list", 429, {"retry-after": "3"}))
    stage.take(message_new(C, 1, 1), message_new(C, 3, 2))
    stage.pass_time(0.35)
    stage.take(message_new(D, 1, 1))
    stage.expect("subscribed", "1", channel=D)
    stage.pass_time(3.1)
    stage.expect("subscribed", "1", channel=C)
    stage.pass_time(0.3)
    stage.expect("subscribed", "1", "2", "3", channel=C)


@pytest.mark.parametrize("status", [403, 404])
def test_a_history_that_may_not_be_read_is_a_gap(stage: Stage, status: int) -> None:
    """Said in its place; what is there goes on, and the channel is not checked in vain."""
    stage.begin(C)
    stage.take(message_new(C, 1, 1))
    stage.chat.always["messages.list"] = status
    stage.lose()
    stage.open()
    stage.take(Subscribed(stream_name(C)), message_new(C, 5, 1))
    stage.expect("subscribed", "1", "waiting", "changes:missed", "subscribed", "gap", "5")
    assert stage.gaps()[0].after == 1
    asked = stage.chat.count("messages.list")
    stage.pass_time(200.0, step=5.0)
    assert stage.chat.count("messages.list") == asked


def test_a_quiet_channel_is_checked(stage: Stage) -> None:
    """A message that is never published is found within a minute or so; one question a channel and minute."""
    stage.begin(C)
    stage.begin(D)
    asked = stage.chat.count("messages.list")
    stage.chat.send(C, 1)
    stage.pass_time(59.0, step=1.0)
    assert stage.chat.count("messages.list") == asked
    stage.pass_time(2.0)
    stage.expect("subscribed", "1", channel=C)
    assert stage.chat.count("messages.list") == asked + 2


def test_a_connection_that_is_lost_again_and_again_is_no_excuse(stage: Stage) -> None:
    """Recoveries say nothing of what was never published: the check comes as if there had been no loss."""
    stage.begin(C)
    stage.chat.send(C, 1)
    for _ in range(4):
        stage.lose()
        stage.pass_time(1.0)
        stage.open()
        stage.join(C, offset=0, recovered=True)
        stage.pass_time(19.0, step=1.0)
    stage.wait_for(lambda: "1" in stage.shown(C))


def test_quiet_checks_are_spread(stage: Stage) -> None:
    """Forty channels that fall silent together are not asked about together."""
    names = [channel_id(number) for number in range(1, 41)]
    for name in names:
        stage.begin(name)
    asked = stage.chat.count("messages.list")
    stage.pass_time(61.0, step=0.05)
    assert 0 < stage.chat.count("messages.list") - asked < 10
    stage.pass_time(10.0, step=0.05)
    assert stage.chat.count("messages.list") - asked == 40


def test_a_channel_that_falls_behind_goes_on_where_it_was(stage: Stage) -> None:
    """Handlers that stand still: what does not fit is dropped, and recovered when they are through."""
    stage.close()
    stage = stages(bound=10)
    stage.begin(C)
    stage.expect("subscribed")
    stage.gate.clear()
    for seq in range(1, 101):
        stage.chat.send(C, seq)
        stage.take(message_new(C, seq, seq))
    assert stage.dispatch.refused > 0
    stage.gate.set()
    stage.wait_for(lambda: len(stage.protocol.asked) == 2)
    position = stage.protocol.asked[1][2]
    assert position is not None
    assert 10 <= position.offset <= 21
    stage.expect("subscribed", *map(str, range(1, position.offset + 1)))
    begun = position.offset
    while begun < 100:  # the server's recovery, which overruns the handlers again
        rest = [message_new(C, seq, seq) for seq in range(begun + 1, min(100, begun + 8) + 1)]
        stage.take(Subscribed(stream_name(C), True, Position(begun + len(rest), "e"), True), *rest)
        begun += len(rest)
        stage.expect("subscribed", *map(str, range(1, begun + 1)))
    stage.close()


def test_a_channel_that_falls_behind_without_recovery_is_caught_up() -> None:
    """Over HTTP, as many pages as it takes, refused again or not."""
    stage = stages(bound=50)
    stage.chat.send(C)
    stage.subscriptions.subscribe(C)
    stage.open()
    stage.take(Subscribed(stream_name(C)))
    stage.expect("subscribed")
    stage.gate.clear()
    for seq in range(1, 1001):
        stage.chat.send(C, seq)
        if seq % 10 == 0:
            stage.take(*(message_new(C, each, each) for each in range(seq - 9, seq + 1)))
    stage.gate.set()
    stage.expect("subscribed", *map(str, range(1, 1001)))
    stage.close()


def test_a_state_that_a_full_channel_refused_is_told_later() -> None:
    """Nobody else would bring it again."""
    stage = stages(bound=5)
    stage.begin(C)
    stage.expect("subscribed")
    stage.gate.clear()
    stage.take(*(message_new(C, seq, seq) for seq in range(1, 40)))
    stage.lose()
    stage.gate.set()
    stage.wait_for(lambda: "waiting" in stage.shown())
    stage.close()


def test_a_stream_that_nobody_subscribed_is_counted(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """And said once, without what it carried."""
    stage.open()
    with caplog.at_level(logging.WARNING, logger="chatsdk.realtime"):
        stage.take(message_new(D, 1, 1), message_new(D, 2, 2))
    assert stage.subscriptions.unknown == 2
    assert len(caplog.records) == 1
    assert stage.seen == []


def test_nonsense_is_counted_and_said_once(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """And the connection goes on."""
    stage.begin(C)
    with caplog.at_level(logging.WARNING, logger="chatsdk.realtime"):
        stage.take(Malformed("no JSON"), message_new(C, 1, 1), Malformed("no JSON"))
    assert stage.subscriptions.malformed == 2
    assert len(caplog.records) == 1
    stage.expect("subscribed", "1")


def test_the_users_own_stream_is_heard(stage: Stage) -> None:
    """Without being asked for; after a loss it cannot be caught up, and that is said."""
    stage.close()
    stage = stages(listen_own=True)
    own = f"user:{APP}:bot"
    stage.open()
    assert [asked[0] for asked in stage.protocol.asked] == [own]
    stage.take(Subscribed(own))
    stage.take(Published(own, {"type": "channel.unread_changed", "payload": {"count": 3, "channelId": C}}))
    stage.expect("subscribed", "unread:changed")
    assert stage.received()[0].channel == C
    stage.lose()
    stage.open()
    stage.take(Subscribed(own))
    stage.expect("subscribed", "unread:changed", "waiting", "gap", "subscribed")
    stage.close()


def test_a_plain_server_is_asked_for_no_tokens() -> None:
    """Its frames for the user alone are heard without asking."""
    stage = stages(stream_tokens=False, own_stream="user", listen_own=True, claims=dict)
    stage.subscriptions.subscribe(C)
    stage.open()
    assert stage.protocol.asked == [(C, "", None)]
    stage.take(Subscribed(C))
    stage.take(
        Published(C, {"type": "message", "id": "m1", "conversation_id": C, "sequence_number": 1}),
        Published("user", {"type": "presence.online", "user_id": "alice"}),
    )
    stage.wait_for(lambda: len(stage.seen) == 3)
    assert sorted(stage.shown()) == ["1", "presence:online", "subscribed"]
    assert stage.chat.count("realtime.subscription_token") == 0
    stage.close()


def test_who_listens_is_told_by_the_users_id(stage: Stage) -> None:
    """Centrifugo's user is "<app>:<user>"."""
    stage.begin(C)
    stage.take(Joined(stream_name(C), f"{APP}:alice", "client", {}))
    stage.expect("subscribed", "listener:joined")
    [event] = stage.events(ListenerJoined)
    assert event.by == "alice"


def test_the_time_of_an_event_is_that_of_its_read(stage: Stage) -> None:
    """Unix time, one look at the clock a read."""
    stage.begin(C)
    stage.take(Published(stream_name(C), {"type": "typing.start", "payload": {"user": {"id": "alice"}}}))
    stage.expect("subscribed", "typing:start")
    assert stage.events(TypingStarted)[0].at == stage.clock.time()


def test_a_stream_that_is_counted_anew_is_caught_up(stage: Stage) -> None:
    """Offset 1 of another epoch in a running connection: what came between is fetched, nothing is taken for a
    repetition."""
    stage.begin(C)
    stage.take(message_new(C, 1, 1), message_new(C, 2, 2))
    stage.chat.send(C, 1, 2, 3, 4)
    stage.take(message_new(C, 4, 1, "f"))
    stage.expect("subscribed", "1", "2", "changes:missed", "3", "4")


def test_while_nobody_can_tell_where_a_channel_stands_it_is_heard_all_the_same(stage: Stage) -> None:
    """The HTTP side is down: subscribed, and messages come."""
    stage.chat.always["messages.list"] = 503
    stage.begin(C)
    stage.take(message_new(C, 7, 1))
    stage.expect("subscribed", "7")


def test_subscribing_twice_does_nothing(stage: Stage) -> None:
    """The second time nothing is asked."""
    stage.begin(C)
    stage.subscriptions.subscribe(C)
    stage.settle()
    assert len(stage.protocol.asked) == 1


def test_left_and_heard_again_at_once(stage: Stage) -> None:
    """The server is told to leave before it is asked again: the new subscription stands."""
    stage.begin(C)
    stage.take(message_new(C, 1, 1))
    stage.expect("subscribed", "1")
    stage.wait_for(lambda: stage.cursors.get(f"bot\n{C}") == (1, 1, "e"))
    done = stage.protocol.done
    done.clear()
    stage.subscriptions.unsubscribe(C)
    stage.subscriptions.subscribe(C)
    stage.settle()
    assert done == ["unsubscribe", "subscribe"]
    assert stage.protocol.asked[-1][2] == Position(1, "e")
    stage.join(C, offset=1, recovered=True)
    stage.take(message_new(C, 2, 2))
    stage.wait_for(lambda: stage.shown(C)[-1] == "2")
    assert stage.subscriptions.states() == {C: "subscribed"}
