"""Which channels are heard, and that nothing of them is missed: the part between the protocol and the handlers.

    outputs of one read -> per channel: events -> `core.ordering` -> deliveries -> one `dispatch.put`
                                                      |
                              wishes: a backfill or the newest seq (an errand), or to hear the stream anew

Rules.
1. Everything but `subscribe` and `unsubscribe` runs in the thread that reads: what comes (`take`), what is due or was
   handed in by others (`work`). It never blocks there; what may block runs in an errand, and its answer is handed in.
2. A channel's token is kept and used again while it is valid, so a reconnect costs none. Fetching is paced to what the
   server gives out, renewals first: they keep what there is.
3. After a reconnect each channel goes on from its position: by the server's recovery, else by a backfill over HTTP.
   A backfill is tried again until it succeeds or is refused for good, which is a `Gap`.
4. A channel that was quiet for a while is checked by seq (`quiet`).
5. A channel whose handlers fall behind is passed over until they are through, and then goes on from there.
6. What a server refuses for good is a state, `failed` with an error; so is one channel too many for a connection.
7. While there is no connection and HTTP works, channels are looked up over HTTP (`polling`). One that is, is subscribed
   in the sense of its state: from there on nothing is missed.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from random import random as system_random
from typing import Any, Protocol

from ..core.backend import Backend
from ..core.clock import Clock, Random
from ..core.errors import ChatError
from ..core.exchange import Call
from ..core.ordering import BOUND, HOLD, Delivery, Fetch, Locate, Mark, Order, Wish
from ..core.protocols.outputs import (
    Close,
    Joined,
    Left,
    Malformed,
    Opened,
    Output,
    Published,
    RealtimeProtocol,
    Subscribed,
    SubscribeFailed,
    TokenWanted,
    Unsubscribed,
)
from ..core.realtime_events import ListenerJoined, ListenerLeft
from ..core.tokens import Secret
from .agenda import Agenda
from .backfill import again_in
from .catching_up import CatchingUp
from .cursors import Cursors
from .dispatch import Dispatch
from .errands import Errands
from .handover import Handover
from .polling import INTERVAL, Polling
from .quiet import QUIET, Quiet
from .stream_tokens import A_MINUTE, LIFE, StreamTokens
from .subscription import ENDED, FAILED, SUBSCRIBED, WAITING, ChannelLane, Step, Subscription, refusal, too_many

CHANNELS = 128
"""Channels of one connection: Centrifugo's default."""

log = logging.getLogger("chatsdk.realtime")


class Post(Protocol):
    """How other threads reach the thread that reads: `Connection.post`."""

    def __call__(self, function: Callable[[RealtimeProtocol | None, float], Sequence[Output]], /) -> object: ...


class Subscriptions:
    """The channels of one user's connection.

    post           has a function run in the thread that reads
    ask            has a call done over HTTP; may block
    claims         what the connection's token says; asked when the connection is open
    stream_tokens  whether a stream needs a token of its own
    own_stream     the stream of what is for the user alone, where the protocol hears it unasked
    listen_own     hear the user's own stream, where there is one
    limit          channels that a connection may carry
    offline        whether the network is known to be away
    polls          told when polling begins (True) and ends
    tokens_a_minute, token_life, quiet, poll, hold, bound   numbers, see above, `polling` and `core.ordering`
    """

    def __init__(
        self,
        user: str,
        backend: Backend,
        *,
        post: Post,
        ask: Callable[[Call[Any]], Any],
        dispatch: Dispatch[Delivery],
        errands: Errands,
        cursors: Cursors,
        claims: Callable[[], Mapping[str, Any]] = dict,
        stream_tokens: bool = True,
        own_stream: str | None = None,
        listen_own: bool = True,
        offline: Callable[[], bool] = lambda: False,
        polls: Callable[[bool], object] = lambda _: None,
        clock: Clock,
        random: Random = system_random,
        limit: int = CHANNELS,
        tokens_a_minute: int = A_MINUTE,
        token_life: float = LIFE,
        quiet: float | None = QUIET,
        poll: float = INTERVAL,
        hold: float = HOLD,
        bound: int = BOUND,
    ) -> None:
        self._user = user
        self._backend = backend
        self._dispatch = dispatch
        self._cursors = cursors
        self._claims = claims
        self._stream_tokens = stream_tokens
        self._own_stream = own_stream
        self._listen_own = listen_own
        self._clock = clock
        self._random = random
        self._limit = limit
        self._quiet = Quiet(quiet)
        self._hold = hold
        self._bound = bound
        # shared with the threads of callers
        self._lock = threading.RLock()
        self._channels: dict[str, Subscription] = {}
        self._agenda = Agenda(errands, lambda: post(self.work))
        # of the thread that reads
        self._open = False
        self._own: Subscription | None = None
        self._by_stream: dict[str, Subscription] = {}
        self._lanes: dict[str, ChannelLane] = {}  # of the last one that began, also if it is no more; by channel
        self._ready: deque[Subscription] = deque()
        self._handover = Handover(user, dispatch, self._serve, self._settled)
        self._touch, self._tell = self._handover.touch, self._handover.tell
        self._tokens = StreamTokens(
            lambda subscription: ask(backend.stream_token(user, subscription.stream)),
            errand=self._agenda.errand,
            later=self._agenda.at,
            granted=self._token_came,
            refused=self._token_refused,
            clock=clock,
            random=random,
            a_minute=tokens_a_minute,
            life=token_life,
        )
        self.polling = Polling(poll, random=random, offline=offline, changed=polls)
        self._catching_up = CatchingUp(
            user,
            backend,
            ask,
            errand=self._agenda.errand,
            later=self._agenda.at,
            touch=self._touch,
            hand_over=self._handover.flush,
            located=self._known,
            answers=self._answers,
            polling=self.polling,
            clock=clock,
            random=random,
        )
        self._sends: deque[Callable[[RealtimeProtocol, float], Iterable[Output]]] = deque()
        self._uneasy: set[Subscription] = set()
        self._prefix = ""
        self._said: set[str] = set()
        self.unknown = 0
        """Publications of streams that nobody subscribed."""
        self.malformed = 0
        """Frames, or parts of them, that made no sense."""

    # ---- by callers

    def subscribe(self, channels: str | Iterable[str], since: int | None = None, *, keep: bool = True) -> None:
        """Hear these channels from now on, or from where they were left off, or (`since`) from after that seq: 0 is
        from the start. Returns at once; how it went is told by `SubscriptionStateChanged`. `keep`: go by the stored
        place, and store it.

        Raises InvalidArgument for what is no channel; then none is subscribed.
        """
        wanted = list(dict.fromkeys([channels] if isinstance(channels, str) else channels))
        for channel in wanted:
            self._backend.stream(channel, {})
        added: list[Subscription] = []
        with self._lock:
            for channel in wanted:
                known = self._channels.get(channel)
                if known is not None and known.state in (WAITING, SUBSCRIBED):
                    continue
                subscription = self._new(channel, since, keep)
                carried = sum(each.state in (WAITING, SUBSCRIBED) for each in self._channels.values())
                self._channels[channel] = subscription
                if carried >= self._limit:
                    subscription.step = Step.DOWN
                    self._handover.fail(subscription, too_many(self._limit), FAILED)
                else:
                    subscription.step = Step.HELD
                    added.append(subscription)
        if added:
            self.hand_in(lambda _: self._begin(added, since is None and keep))

    def unsubscribe(self, channels: str | Iterable[str]) -> None:
        """Hear these channels no more. Events that wait for a handler are dropped. Returns at once."""
        with self._lock:
            gone = [self._channels.pop(name, None) for name in ([channels] if isinstance(channels, str) else channels)]
        ended = [each for each in gone if each is not None]
        if ended:
            self.hand_in(lambda _: self._leave(ended))

    def states(self) -> dict[str, str]:
        """The state of each channel, by its id."""
        with self._lock:
            return {channel: each.state for channel, each in self._channels.items()}

    def error(self, channel: str) -> ChatError | None:
        """Why a channel failed."""
        with self._lock:
            known = self._channels.get(channel)
        return None if known is None else known.error

    def stream_of(self, channel: str) -> str:
        """A channel's name at the realtime server, "" while it is not known."""
        with self._lock:
            known = self._channels.get(channel)
        return "" if known is None else known.stream

    def hand_in(self, function: Callable[[float], object]) -> None:
        """Have `function(now)` run in the thread that reads; where there is none, as soon as there is one."""
        self._agenda.hand_in(function)

    def check_now(self) -> None:
        """Look now whether channels have something that was never published. From any thread."""
        self.hand_in(self._check_all)

    # ---- by the thread that reads

    def take(self, outputs: Sequence[Output], now: float) -> None:
        """What one read brought. Never blocks."""
        at = self._clock.time()
        user, read, streams = self._user, self._backend.read_event, self._by_stream
        pending: list[Subscription] = []
        for output in outputs:
            if output.__class__ is not Published:
                self._order(pending, now)
                self._heard_of(output, now, at)
                continue
            stream, data, offset, epoch, _ = output
            subscription = streams.get(stream)
            if subscription is None:
                self.unknown += 1
                self._say("stream", "a publication of a stream that nobody subscribed was passed over")
                continue
            if epoch is not None and self._begins_anew(subscription, offset, epoch):
                self._order(pending, now)
                subscription.order.rejoined(False, None, now, self._touch(subscription))
            if not subscription.events:
                pending.append(subscription)
            subscription.events.append(read(data, user, subscription.channel, offset, at))
        self._order(pending, now)
        self._handover.flush()

    def next_due(self) -> float | None:
        """When to call `work`, at the latest."""
        polling = self.polling
        if not self._open and not polling:
            return polling.begins
        if self._open and (self._sends or self._ready):
            return float("-inf")
        times = [each.order.next_due() for each in self._uneasy if each.step is Step.HEARD]
        times.append(self._agenda.next_due())
        if polling:
            times.append(polling.next_due(self._clock.monotonic()))
        if self._open:
            times += (self._quiet.due, self._tokens.next_due())
        return min((each for each in times if each is not None), default=None)

    def work(self, protocol: RealtimeProtocol | None, now: float) -> list[Output]:
        """Everything that is due or was handed in; gives what is to be sent. `protocol`: None while the connection is
        not open."""
        self._agenda.work(now)
        for each in [each for each in self._uneasy if each.step is Step.HEARD]:
            due = each.order.next_due()
            if due is not None and due <= now:
                each.order.due(now, self._touch(each))
        if self._open and self._quiet.due is not None and self._quiet.due <= now:
            self._check_the_quiet(now)
        self._poll(now)
        self._handover.flush()
        outputs: list[Output] = []
        if protocol is not None and self._open:
            while self._sends:  # first: one of them may leave a stream that is to be heard again
                outputs += self._sends.popleft()(protocol, now)
            while self._ready:
                outputs += self._ask_for(self._ready.popleft(), protocol, now)
            self._tokens.fetch(now)
        return outputs

    def work_without(self, now: float) -> float | None:
        """The same while the server has not taken us; when to be called again, at the latest."""
        if not self._open:
            self.polling.away(now)
        self.work(None, now)
        return self.next_due()

    def over(self) -> None:
        """The connection was ended, or given up."""
        self.polling.over()
        for each in self._carried():
            each.step = Step.TOKEN if each.token_asked else Step.IDLE
            self._tell(each, WAITING)
        self._handover.flush()

    # ---- what came

    def _order(self, pending: list[Subscription], now: float) -> None:
        """Put what was collected into its order."""
        for subscription in pending:
            events, subscription.events = subscription.events, []
            subscription.heard = now
            subscription.order.take(events, now, self._touch(subscription))
        pending.clear()

    def _begins_anew(self, subscription: Subscription, offset: int | None, epoch: str) -> bool:
        """The stream's publications are counted anew, and nobody said so."""
        top = subscription.order.top
        return offset is not None and top is not None and offset <= top and epoch != subscription.order.epoch

    def _heard_of(self, output: Output, now: float, at: float) -> None:
        """Anything but a publication."""
        if isinstance(output, Opened):
            self._opened(now)
        elif isinstance(output, Close):
            self._closed(now)
        elif isinstance(output, Malformed):
            self.malformed += 1
            self._say("malformed", f"the realtime server sent {output.reason}; more of it is counted only")
        elif isinstance(output, Subscribed):
            self._subscribed(output, now)
        elif isinstance(output, (SubscribeFailed, Unsubscribed, TokenWanted, Joined, Left)):
            subscription = self._by_stream.get(output.stream or "")
            if subscription is None:
                return
            if isinstance(output, SubscribeFailed):
                self._refused(subscription, output, now)
            elif isinstance(output, Unsubscribed):
                self._unsubscribed(subscription, output, now)
            elif isinstance(output, TokenWanted):
                self._tokens.want(subscription, renew=True, refused=output.refused)
            else:
                kind = ListenerJoined if isinstance(output, Joined) else ListenerLeft
                by = output.user.removeprefix(self._prefix)
                raw = {"user": output.user, "client": output.client, "info": dict(output.info)}
                event = kind(self._user, subscription.channel, raw, lambda _: {"by": by}, at=at)
                subscription.order.take((event,), now, self._touch(subscription))

    def _opened(self, now: float) -> None:
        self._open = True
        claims = self._claims()
        app = claims.get("app_id")
        self._prefix = f"{app}:" if isinstance(app, str) and app else ""
        self._sends.clear()
        self._by_stream.clear()
        self._ready.clear()
        self.polling.here()
        carried = self._carried()
        for each in (*self._own_subscription(claims), *carried):
            each.step = Step.TOKEN if each.token_asked else Step.IDLE
            self._ready.append(each)
        self._quiet.begin(carried, now)

    def _carried(self) -> list[Subscription]:
        with self._lock:
            return [each for each in self._channels.values() if each.step not in (Step.DOWN, Step.HELD)]

    def _own_subscription(self, claims: Mapping[str, Any]) -> list[Subscription]:
        stream = self._own_stream or self._backend.user_stream(self._user, claims)
        if not self._listen_own or stream is None:
            return []
        if self._own is None or self._own.stream != stream:
            self._own = self._new("", None)
            self._own.stream = stream
        if self._own.step is Step.DOWN:
            return []
        if self._own_stream is not None:  # heard unasked
            self._by_stream[stream] = self._own
            self._own.step = Step.HEARD
            return []
        return [self._own]

    def _closed(self, now: float) -> None:
        self._open = False
        for each in self._by_stream.values():
            if each.step is not Step.DOWN:
                each.step = Step.TOKEN if each.token_asked else Step.IDLE
                each.renewing = False
                if not self.polling.covers(each):
                    self._tell(each, WAITING)
        self.polling.lost(self._carried(), now)

    def _subscribed(self, output: Subscribed, now: float) -> None:
        subscription = self._by_stream.get(output.stream)
        if subscription is None:
            if not output.by_server:
                return
            # the server's own idea: what comes says itself which channel it is about
            subscription = self._new("", None)
            subscription.stream = output.stream
            self._by_stream[output.stream] = subscription
        subscription.step, subscription.failures = Step.HEARD, 0
        if not (output.recovered and subscription.heard):  # a recovery shows nothing of what was never published
            subscription.heard = now
        order = subscription.order
        order.rejoined(output.recovered, output.position, now, self._touch(subscription))
        if order.seq is not None or not order.ordered:
            self._tell(subscription, SUBSCRIBED)  # else as soon as it is known from where on nothing is missed

    def _refused(self, subscription: Subscription, output: SubscribeFailed, now: float) -> None:
        if output.fresh_token:
            subscription.token = None
        if output.again:
            subscription.step = Step.IDLE
            self._again(subscription, now)
        else:
            self._fail(subscription, refusal(output.code, output.message, self._limit))

    def _unsubscribed(self, subscription: Subscription, output: Unsubscribed, now: float) -> None:
        if output.fresh_token:
            subscription.token = None
        if output.again:
            subscription.step = Step.IDLE
            self._tell(subscription, WAITING)
            self._ready.append(subscription)
        else:
            self._by_stream.pop(subscription.stream, None)
            subscription.step = Step.DOWN
            self._tell(subscription, ENDED)

    # ---- subscribing

    def _new(self, channel: str, since: int | None, keep: bool = False) -> Subscription:
        key = f"{self._user}\n{channel}" if keep else ""
        return Subscription(channel, key, self._order_from(channel, key, since), self._drained)

    def _order_from(self, channel: str, key: str, since: int | None) -> Order:
        """An order that begins after `since`, or where the handlers stopped."""
        mark: Mark = (since, None, "")
        if since is None and key:
            cursor = self._cursors.get(key)
            if cursor is not None:
                mark = cursor.seq, cursor.offset, cursor.epoch or ""
        return Order(self._user, channel, mark, ordered=bool(channel), hold=self._hold, bound=self._bound)

    def _begin(self, added: Iterable[Subscription], goes_on: bool) -> None:
        """Who goes on where handlers stopped waits until those of an earlier subscription have: else what they have in
        hand would come twice."""
        for subscription in added:
            earlier = self._lanes.get(subscription.channel) if goes_on else None
            if earlier is None:
                self._be_ready(subscription)
            else:
                self._dispatch.when_idle(earlier, partial(self.hand_in, partial(self._go_on, subscription)))

    def _go_on(self, subscription: Subscription, now: float) -> None:
        if subscription.step is Step.HELD:
            subscription.order = self._order_from(subscription.channel, subscription.lane.key, None)
            self._be_ready(subscription)

    def _be_ready(self, subscription: Subscription) -> None:
        self._lanes[subscription.channel] = subscription.lane
        if subscription.step is Step.HELD:
            subscription.step = Step.IDLE
            if self._open:
                self._ready.append(subscription)
            else:
                self.polling.add(subscription, self._clock.monotonic())

    def _ask_for(self, subscription: Subscription, protocol: RealtimeProtocol, now: float) -> Iterable[Output]:
        """Subscribe, if there is a token."""
        if subscription.step is not Step.IDLE:
            return ()
        if not subscription.stream:
            subscription.stream = self._backend.stream(subscription.channel, self._claims())
        self._by_stream[subscription.stream] = subscription
        if self._stream_tokens and (subscription.token is None or subscription.token_until <= now):
            subscription.step = Step.TOKEN
            self._tokens.want(subscription)
            return ()
        subscription.step = Step.ASKED
        token = subscription.token if self._stream_tokens else None
        return protocol.subscribe(subscription.stream, token, subscription.order.position(), now)

    def _leave(self, ended: Iterable[Subscription]) -> None:
        for each in ended:
            if self._by_stream.get(each.stream) is each:
                del self._by_stream[each.stream]
                if each.step in (Step.ASKED, Step.HEARD):
                    self._sends.append(partial(_unsubscribe, each.stream))
            each.step = Step.DOWN
            self._dispatch.drop(each.lane)
            self._tell(each, ENDED)

    def _token_came(self, subscription: Subscription, token: Secret, renewing: bool) -> None:
        if subscription.step is Step.TOKEN:
            subscription.step = Step.IDLE
            self._ready.append(subscription)
        elif renewing and subscription.step is Step.HEARD:
            self._sends.append(lambda protocol, now: protocol.renew(subscription.stream, token, now))

    def _token_refused(self, subscription: Subscription, error: ChatError) -> None:
        if subscription.step is Step.TOKEN:  # one that is heard is heard until its old token ends
            self._fail(subscription, error)

    def _fail(self, subscription: Subscription, error: ChatError) -> None:
        self._by_stream.pop(subscription.stream, None)
        subscription.step, subscription.error = Step.DOWN, error
        self._tell(subscription, FAILED)

    def _again(self, subscription: Subscription, now: float) -> None:
        """Try later what failed for now."""
        subscription.failures += 1
        delay = again_in(ChatError(), subscription.failures, self._random())
        self._agenda.at(now + delay, lambda _: self._ready.append(subscription))

    # ---- what an order wishes for

    def _serve(self, subscription: Subscription, wish: Wish) -> None:
        if isinstance(wish, Fetch):
            self._catching_up.fetch(subscription, wish)
        elif isinstance(wish, Locate):
            self._catching_up.locate(subscription)
        elif self._open:  # else it will be heard anew anyway
            self._sends.append(lambda protocol, now: self._hear_anew(subscription, protocol, now))

    def _hear_anew(self, subscription: Subscription, protocol: RealtimeProtocol, now: float) -> list[Output]:
        if subscription.step is not Step.HEARD:
            return []  # it will be, from the same position
        subscription.step = Step.IDLE
        outputs = list(protocol.unsubscribe(subscription.stream, now))
        return [*outputs, *self._ask_for(subscription, protocol, now)]

    def _known(self, subscription: Subscription) -> None:
        """From where on nothing is missed is known now, or that nobody can tell."""
        if subscription.step is Step.HEARD:
            self._tell(subscription, SUBSCRIBED)

    def _answers(self, subscription: Subscription) -> None:
        """Over HTTP; the first time, it is known that this channel can be polled."""
        if self.polling.answers(subscription):
            subscription.order.unheard(self._touch(subscription))
            self._tell(subscription, SUBSCRIBED)

    # ---- channels that are not heard, that are quiet, and that fell behind

    def _poll(self, now: float) -> None:
        polling = self.polling
        if polling.begins is not None and polling.begins <= now:
            polling.begin(self._carried(), now)
        for each in polling.due(now) if polling else ():
            self._touch(each)
            each.order.check(now)

    def _check_the_quiet(self, now: float) -> None:
        heard = [each for each in self._by_stream.values() if each.step is Step.HEARD and each.order.ordered]
        quiet = self._quiet.next(heard, now)
        if quiet is not None:
            self._check(quiet, now)

    def _check_all(self, now: float) -> None:
        for each in list(self._by_stream.values()):
            self._check(each, now)

    def _check(self, subscription: Subscription, now: float) -> None:
        subscription.heard = now
        if subscription.checkable and subscription.step is Step.HEARD:
            self._touch(subscription)
            subscription.order.check(now)

    def _resume(self, subscription: Subscription, now: float) -> None:
        if subscription.step is Step.DOWN:
            return
        self._handover.resume(subscription, now)
        self.polling.hurry(subscription, now)

    def _drained(self, subscription: Subscription) -> None:
        """Its handlers, which fell behind, are through. From any thread."""
        self.hand_in(lambda now: self._resume(subscription, now))

    # ---- the end of a read

    def _settled(self, subscription: Subscription) -> None:
        """What came of it is with the handlers."""
        order, step = subscription.order, subscription.step
        if order.calm or step is Step.DOWN:
            self._uneasy.discard(subscription)
        else:
            self._uneasy.add(subscription)
        if step is Step.DOWN or not order.ordered or (step is Step.HEARD and order.whole):
            self.polling.drop(subscription)

    def _say(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning("%s", text)


def _unsubscribe(stream: str, protocol: RealtimeProtocol, now: float) -> Iterable[Output]:
    return protocol.unsubscribe(stream, now)
