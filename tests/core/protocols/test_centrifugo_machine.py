"""Centrifugo's protocol in the hands of a server that says anything, and a user who wishes anything at any time.

Nothing is raised, every output is one of the seam's, and nothing is sent that the real server's book of rules calls a
bad request. Four mutants, each with one rule taken out, must be found by the same machine.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from chatsdk.core.protocols.centrifugo import Centrifugo, _Phase
from chatsdk.core.protocols.centrifugo_streams import Step, Wish
from chatsdk.core.protocols.outputs import Close, Output, Position, Send
from chatsdk.core.tokens import Secret
from tests.core.protocols.kit import CONNECTED, BadRequest, RuleBook, frame

OUTPUTS = get_args(Output)
STREAMS = st.sampled_from(["", "a", "b", "c"])
TOKENS = st.sampled_from([None, Secret(""), Secret("t"), Secret("u"), Secret("x" * 70_000)])
POSITIONS = st.none() | st.builds(Position, st.integers(0, 5), st.sampled_from(["", "e", "f"]))
ODD: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats()
    | st.text(max_size=3)
    | st.just([])
    | st.just({})
)
CODES = st.sampled_from([0, 1, 99, 100, 102, 103, 105, 106, 109, 111, 2000, 2500, 2501, 3005, 3500, 4001, 4500]) | ODD
PUBS = st.fixed_dictionaries({}, optional={"data": ODD, "offset": st.integers(0, 9) | ODD, "epoch": ODD, "info": ODD})
FACTS = st.fixed_dictionaries(
    {},
    optional={
        "expires": st.booleans() | ODD,
        "ttl": st.sampled_from([0, 1, 5, 30, 900]) | ODD,
        "epoch": st.sampled_from(["e", "f"]) | ODD,
        "offset": st.integers(0, 9) | ODD,
        "recovered": st.booleans(),
        "was_recovering": st.booleans(),
        "publications": st.lists(PUBS, max_size=3) | ODD,
    },
)
KINDS = ["pub", "join", "leave", "unsubscribe", "subscribe", "refresh", "disconnect", "message", "connect"]


class Machine(RuleBasedStateMachine):
    """One connection. The server's side of the book is kept of what was said soundly; of rubbish it learns nothing."""

    protocol_class: type[Centrifugo] = Centrifugo

    @initialize(token=TOKENS, early=st.lists(STREAMS, max_size=2), answered=st.sampled_from([True, True, True, False]))
    def begin(self, token: Secret | None, early: list[str], answered: bool) -> None:
        self.now = 100.0
        self.over = False
        self.book = RuleBook()
        self.protocol = self.protocol_class()
        for stream in early:
            self.take(self.protocol.subscribe(stream, Secret("t"), None, self.now))
        self.take(self.protocol.opened(Secret("t") if answered else token, self.now))
        if answered:
            self.say({"id": 1, "connect": CONNECTED})

    def take(self, outputs: list[Output]) -> None:
        for output in outputs:
            assert type(output) in OUTPUTS
            if isinstance(output, Send):
                assert not self.over, "a word after the end"
                self.book.sent(output.text)
            if isinstance(output, Close):
                self.over = True

    def say(self, message: Any) -> None:
        if isinstance(message, dict):
            self.book.answered(message)
        self.take(self.protocol.receive(frame(message), self.now))

    @rule(fine=st.booleans(), pong=st.booleans(), facts=FACTS, subs=st.dictionaries(st.sampled_from(["a", "s"]), FACTS))
    def answer_connect(self, fine: bool, pong: bool, facts: dict[str, Any], subs: dict[str, Any]) -> None:
        number = next((number for number, asked in self.book.under_way.items() if asked[0] == "connect"), None)
        if number is not None and not self.over:
            result = {**CONNECTED, **facts, "pong": pong, "subs": subs}
            self.say({"id": number, "connect": result} if fine else {"id": number, "error": {"code": 109}})

    @rule(data=st.data(), facts=FACTS, code=CODES, fine=st.booleans())
    def answer(self, data: st.DataObject, facts: dict[str, Any], code: Any, fine: bool) -> None:
        others = [number for number, asked in self.book.under_way.items() if asked[0] != "connect"]
        if others and not self.over:
            number = data.draw(st.sampled_from(others))
            method = self.book.under_way[number][0]
            self.say({"id": number, method: facts} if fine else {"id": number, "error": {"code": code, "message": "x"}})

    @rule(kind=st.sampled_from(KINDS), stream=STREAMS, facts=FACTS, pub=PUBS, code=CODES)
    def push(self, kind: str, stream: str, facts: dict[str, Any], pub: dict[str, Any], code: Any) -> None:
        if self.over or (kind in ("subscribe", "unsubscribe") and not self.settled(stream)):
            return
        value = pub if kind == "pub" else {**facts, "code": code, "reason": "x", "info": {"user": "u", "client": "c"}}
        self.say({"push": {"channel": stream, kind: value}})

    def settled(self, stream: str) -> bool:
        """A server that tells of a subscription by itself while a command for it is under way is not modelled."""
        return (
            self.book.is_connected and bool(stream) and stream not in {name for _, name in self.book.under_way.values()}
        )

    @rule()
    def ping(self) -> None:
        self.say({})

    @rule(
        rubbish=st.binary(max_size=20)
        | st.builds(
            lambda value: json.dumps(value).encode(),
            st.dictionaries(st.sampled_from(["id", "push", "error", "subscribe", "connect", "pub"]), ODD),
        )
    )
    def rubbish(self, rubbish: bytes) -> None:
        try:
            message = json.loads(rubbish)
        except (ValueError, RecursionError):
            message = None
        if not rubbish.strip() or message == {} or self.is_answer(message):
            return  # that would be sense
        self.take(self.protocol.receive(rubbish, self.now))

    def is_answer(self, message: Any) -> bool:
        number = message.get("id") if isinstance(message, dict) else None
        return isinstance(number, int) and number in self.book.under_way

    @rule(stream=STREAMS, token=TOKENS, position=POSITIONS)
    def subscribe(self, stream: str, token: Secret | None, position: Position | None) -> None:
        self.take(self.protocol.subscribe(stream, token, position, self.now))

    @rule(stream=STREAMS)
    def unsubscribe(self, stream: str) -> None:
        self.take(self.protocol.unsubscribe(stream, self.now))

    @rule(stream=st.none() | STREAMS, token=TOKENS.filter(lambda token: token is not None))
    def renew(self, stream: str | None, token: Secret) -> None:
        self.take(self.protocol.renew(stream, token, self.now))

    @rule(method=st.sampled_from(["publish", "history", "rpc", "subscribe", ""]), stream=STREAMS, value=ODD)
    def request(self, method: str, stream: str, value: Any) -> None:
        with contextlib.suppress(ValueError):  # that is how it says so
            self.take(self.protocol.request(method, {"channel": stream, "data": value}, self.now)[1])

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 4.0, 20.0, 800.0]))
    def wait(self, seconds: float) -> None:
        """In the steps that the object asks for, as a reader does."""
        until = self.now + seconds
        for _ in range(1000):
            due = self.protocol.next_due()
            if due is None or due > until:
                break
            self.now = max(self.now, due)
            self.take(self.protocol.due(self.now))
            after = self.protocol.next_due()
            assert after is None or after > self.now, "it would be asked again at once, for ever"
        self.now = until

    @precondition(lambda self: not self.over)
    @rule(code=st.sampled_from([1006, 3001, 3005, 3500]))
    def close(self, code: int) -> None:
        self.take([self.protocol.closed(code, "")])

    @invariant()
    def it_knows_when_it_is_over(self) -> None:
        if self.over:
            assert self.protocol.next_due() is None


SETTINGS = settings(
    max_examples=150,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)

TestCentrifugo = Machine.TestCase
TestCentrifugo.settings = SETTINGS


# ---- mutants


class Impatient(Centrifugo):
    """Sends commands before `connect` is answered."""

    def subscribe(self, stream: str, token: Secret | None, position: Position | None, now: float) -> list[Output]:
        if not stream or self._phase is _Phase.OVER:
            return []
        return self._streams.subscribe(stream, Wish(token, position), now)


class Twice(Centrifugo):
    """Subscribes to what it is subscribed to."""

    def subscribe(self, stream: str, token: Secret | None, position: Position | None, now: float) -> list[Output]:
        self._streams.known.pop(stream, None)
        return super().subscribe(stream, token, position, now)


class Polite(Centrifugo):
    """Says thank you for rubbish with a pong."""

    def _message(self, message: Any, now: float, outputs: list[Output]) -> str:
        wrong = super()._message(message, now, outputs)
        if wrong and self._phase is _Phase.OPEN:
            outputs.append(Send("{}"))
        return wrong


class Careless(Centrifugo):
    """Renews with an empty token."""

    def renew(self, stream: str | None, token: Secret, now: float) -> list[Output]:
        about = None if stream is None else self._streams.known.get(stream)
        if self._phase is _Phase.OPEN and (stream is None or (about is not None and about.step is Step.HEARD)):
            return [Send(self._commands.make("refresh", {"token": token.reveal()[:9]}, None, now))]
        return []


@pytest.mark.parametrize("mutant", [Impatient, Twice, Polite, Careless])
def test_a_mutant_is_found(mutant: type[Centrifugo]) -> None:
    """The machine is sharp enough: with one rule less the book of rules is broken."""

    class Mutated(Machine):
        protocol_class = mutant

    with pytest.raises(BadRequest):
        run_state_machine_as_test(
            Mutated, settings=settings(SETTINGS, max_examples=500, phases=[Phase.generate], database=None)
        )
