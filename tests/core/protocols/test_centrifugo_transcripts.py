"""What a real Centrifugo was seen to say, replayed against the protocol object.

Every recorded connection is driven by the wishes that stand behind its recorded commands. What the object sends is
compared with what was sent then; each recorded message of the server goes in, and what comes out is compared with what
this file's tables say that it means. Commands that were recorded because they are wrong have no wish: they are shown
to the book of rules instead, which must find them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chatsdk.core.protocols.centrifugo import Centrifugo
from chatsdk.core.protocols.outputs import (
    Close,
    Heartbeat,
    Joined,
    Left,
    Malformed,
    Opened,
    Output,
    Position,
    Published,
    Replied,
    Send,
    Subscribed,
    SubscribeFailed,
    TokenWanted,
    Unsubscribed,
)
from chatsdk.core.tokens import Secret
from tests.core.protocols.kit import BadRequest, RuleBook, commands, frame, of

TRANSCRIPTS = Path(__file__).parents[2] / "data" / "centrifugo-transcripts.jsonl"
SCENARIOS: list[dict[str, Any]] = [json.loads(line) for line in TRANSCRIPTS.read_text().splitlines()]
BY_NAME = {each["scenario"]: each for each in SCENARIOS}

CLOSES = {
    3001: (True, False),
    3005: (True, True),
    3008: (True, False),
    3012: (True, False),
    4001: (True, False),
    3500: (False, False),
    3501: (False, False),
    3503: (False, False),
    4500: (False, False),
}
"""Of every recorded close code: come back, and with a fresh token."""

ERRORS = {
    102: (False, False),
    103: (False, False),
    105: None,
    106: (False, False),
    108: (False, False),
    109: (True, True),
}
"""Of every recorded error: again, and with a fresh token. 105 is none."""

UNSUBSCRIBES = {2000: (False, False), 2501: (True, True)}

RECOVERIES = {
    "recover: some missed": (True, Position(5, "wZsmUhTk"), [3, 4, 5]),
    "recover: nothing missed": (True, Position(5, "tkghVjPP"), []),
    "recover from the start, epoch known": (True, Position(5, "lLZJNzZz"), [1, 2, 3, 4, 5]),
    "recover from the start, epoch empty": (True, Position(5, "eVsTNLqu"), [1, 2, 3, 4, 5]),
    "recover: other epoch": (False, Position(5, "jvEGMMrG"), []),
    "recover: offset ahead of the stream": (False, Position(5, "HDcqtsXq"), []),
    "recover: history no longer reaches back (150 published, 100 kept)": (False, Position(150, "exWQRkBx"), []),
    "recover asked without recoverable:true": (False, None, []),
    "namespace as in ChatSDK's own configuration (history, no allow_recovery): recovery asked": (False, None, []),
    "server stops (SIGTERM), starts anew with an empty history; recovery asked": (False, Position(0, "IdliFMBn"), []),
}
"""Of each scenario that asks for recovery: recovered, the position afterwards, and the offsets that come with it."""


def token(spec: Any) -> Secret:
    return Secret(json.dumps(spec))


class Replay:
    """A scenario, driven. `seen`: every output, connection by connection; `wishless`: commands that nobody wishes."""

    def __init__(self, scenario: dict[str, Any]) -> None:
        self.seen: list[list[Output]] = []
        self.meanings: list[tuple[Any, list[Output]]] = []
        self.wishless: list[Any] = []
        self.now = 1000.0
        for step in scenario["steps"]:
            self.now += 0.1
            getattr(self, "_" + step["do"])(step)

    def _open(self, step: dict[str, Any]) -> None:
        self.protocol = Centrifugo()
        assert step.get("subprotocol") in (None, *self.protocol.subprotocols)
        self.ids: dict[int, int] = {}  # recorded -> ours
        self.seen.append([])
        self.book = RuleBook()

    def _send(self, step: dict[str, Any]) -> None:
        for recorded in step["commands"]:
            (method,) = recorded.keys() - {"id"}
            outputs = self._wish(method, recorded[method])
            self.note(outputs)
            sent = commands(outputs)
            if not sent:
                self.wishless.append(recorded)
                continue
            (command,) = sent
            self.ids[recorded["id"]] = command["id"]
            expected = {**recorded[method]}
            if "token" in expected:
                expected["token"] = json.dumps(expected["token"])
            if method == "subscribe":
                expected["recoverable"] = True  # not asked for in each of the recorded ones; we always do
            assert command == {"id": command["id"], method: expected}

    def _wish(self, method: str, params: dict[str, Any]) -> list[Output]:
        given = token(params["token"]) if "token" in params else None
        protocol, channel = self.protocol, params.get("channel", "")
        if method == "connect":
            return protocol.opened(given, self.now)
        if method == "subscribe":
            position = Position(params["offset"], params["epoch"]) if params.get("recover") else None
            return protocol.subscribe(channel, given, position, self.now)
        if method == "unsubscribe":
            return protocol.unsubscribe(channel, self.now)
        if method in ("refresh", "sub_refresh"):
            assert given is not None
            return protocol.renew(channel or None, given, self.now)
        return protocol.request(method, params, self.now)[1]

    def _receive(self, step: dict[str, Any]) -> None:
        for message in step["messages"]:
            if "close" in message:
                outputs: list[Output] = [self.protocol.closed(message["close"], message["reason"])]
            elif "lost" in message:
                outputs = [self.protocol.closed(1006, "")]
            elif "ws_pong" in message:
                self.protocol.heard(self.now)
                outputs = []
            else:
                ours = {**message}
                if "id" in ours:
                    ours["id"] = self.ids.get(ours["id"], 10_000 + ours["id"])
                self.book.answered(ours)
                outputs = self.protocol.receive(frame(ours), self.now)
                if "id" in message and message["id"] not in self.ids:  # of a command that nobody wishes
                    assert [type(output) for output in outputs] == [Malformed]
                    continue
            self.note(outputs)
            self.meanings.append((message, outputs))

    def note(self, outputs: list[Output]) -> None:
        for send in of(Send, outputs):
            self.book.sent(send.text)
        self.seen[-1] += outputs

    def _send_raw(self, step: dict[str, Any]) -> None:
        self.wishless.append(step["text"])

    def _nothing(self, step: dict[str, Any]) -> None:
        pass

    _server_api = _server_stop = _server_start = _note = _ws_ping = _nothing


def names(scenarios: list[dict[str, Any]]) -> list[str]:
    return [each["scenario"] for each in scenarios]


@pytest.fixture(params=SCENARIOS, ids=names(SCENARIOS))
def replay(request: pytest.FixtureRequest) -> Replay:
    return Replay(request.param)


def test_transcript_every_message_means_what_the_tables_say(replay: Replay) -> None:
    """Closes, answers, errors, pushes and pings: each recorded one leads to its output, and to no complaint."""
    for message, outputs in replay.meanings:
        assert means(message, outputs), (message, outputs)


def means(message: dict[str, Any], outputs: list[Output]) -> bool:
    """Whether that is what the real server's message asks for."""
    if "close" in message:
        return outputs == [Close(message["close"], message["reason"], *CLOSES[message["close"]])]
    if "lost" in message:
        return outputs == [Close(1006, "", True)]
    if message == {}:
        return outputs == [Heartbeat(None), Send("{}")]
    if "ws_pong" in message:
        return outputs == []
    if "error" in message:
        return error_means(message["error"], outputs)
    if "push" in message:
        return push_means(message["push"], outputs)
    return answer_means(message, outputs)


def error_means(error: dict[str, Any], outputs: list[Output]) -> bool:
    (output,) = outputs
    code, rule = error["code"], ERRORS[error["code"]]
    if isinstance(output, Replied):
        return output == Replied(output.id, None, code, error["message"])
    if isinstance(output, Close):
        return rule is not None and output == Close(code, error["message"], *rule)
    return rule is not None and isinstance(output, SubscribeFailed) and output[1:] == (code, error["message"], *rule)


def push_means(push: dict[str, Any], outputs: list[Output]) -> bool:
    (output,) = outputs
    channel = push["channel"]
    if "pub" in push:
        pub = push["pub"]
        return output == Published(channel, pub["data"], pub.get("offset"), pub.get("epoch"), pub.get("info"))
    if "unsubscribe" in push:
        ended = push["unsubscribe"]
        return output == Unsubscribed(channel, ended["code"], ended["reason"], *UNSUBSCRIBES[ended["code"]])
    kind, info = (Joined, push["join"]["info"]) if "join" in push else (Left, push["leave"]["info"])
    return output == kind(channel, info["user"], info["client"], info)


def answer_means(message: dict[str, Any], outputs: list[Output]) -> bool:
    ((method, result),) = ((key, value) for key, value in message.items() if key != "id")
    if method == "connect":
        subs = tuple(result.get("subs", {}))
        expected: list[Output] = [Opened(result["client"], result["version"], subs)]
        return outputs == expected + [Subscribed(name, by_server=True) for name in subs]
    if method == "subscribe":
        subscribed = outputs[0]
        return isinstance(subscribed, Subscribed) and subscribed.asked is result.get("was_recovering", False)
    if method == "unsubscribe":
        return outputs == []
    if method == "refresh":
        return outputs == []
    if method == "sub_refresh":
        (failed,) = [result == {}]
        return [type(output) for output in outputs] == ([TokenWanted] if failed else [])
    return isinstance(outputs[0], Replied) and outputs[0].result == result


@pytest.mark.parametrize("name", RECOVERIES)
def test_transcript_recovery_ends_at_the_right_position(name: str) -> None:
    """Recovered or not, from where on publications come, and what comes first; then the next one fits."""
    recovered, position, offsets = RECOVERIES[name]
    outputs = Replay(BY_NAME[name]).seen[-1]
    at = next(place for place, output in enumerate(outputs) if isinstance(output, Subscribed))
    assert outputs[at][1:] == Subscribed("", recovered, position, asked=True)[1:]
    published = of(Published, outputs[at:])
    assert outputs[at + 1 : at + 1 + len(offsets)] == published[: len(offsets)]
    assert [each.offset for each in published[: len(offsets)]] == offsets
    if position is not None and len(published) > len(offsets):
        assert published[len(offsets)].offset == position.offset + 1


def test_transcript_the_129th_channel_is_refused_for_good() -> None:
    """Its commands were not recorded one by one, so they are made here; the ids fit."""
    steps = BY_NAME["more than 128 channels on one connection"]["steps"]
    replay = Replay({"steps": steps[:3]})
    for number in range(1, 131):
        assert len(commands(replay.protocol.subscribe(f"chat:app:{number}", token(1), None, replay.now))) == 1
    outputs = replay.protocol.receive(frame(*steps[3]["messages"]), replay.now)
    assert outputs == [SubscribeFailed(f"chat:app:{number}", 106, "limit exceeded") for number in (129, 130)]


def test_transcript_every_recovery_is_in_the_table() -> None:
    """No recorded answer to a recovery goes unlooked at."""
    recorded = {each["scenario"] for each in SCENARIOS if '"was_recovering"' in json.dumps(each)}
    assert recorded == set(RECOVERIES)


ENDS: dict[str, type | None] = {
    "connect: token expired": Close,
    "subscribe: token expired": SubscribeFailed,
    "sub_refresh: expired token; not subscribed": TokenWanted,
    "subscription token runs out, no sub_refresh sent": Unsubscribed,
    "refresh: in time, then expired token": Close,
}


@pytest.mark.parametrize("name", ENDS)
def test_transcript_a_token_that_ran_out_is_followed_by_another(name: str) -> None:
    """Code 109, 2501, 3005 or an empty renewal: all ask for a fresh token."""
    kind = ENDS[name]
    asked = [output for output in Replay(BY_NAME[name]).seen[-1] if type(output) is kind]
    assert asked
    assert all(getattr(output, "refused" if kind is TokenWanted else "fresh_token") for output in asked)


def test_transcript_a_token_is_asked_for_before_the_recorded_end() -> None:
    """Each recorded life of a connection's token leads to a question within it."""
    lives = []
    for scenario in SCENARIOS:
        steps = [step for step in scenario["steps"] if step["do"] in ("open", "send", "send_raw", "receive")][:3]
        replay = Replay({"steps": steps})
        if of(Opened, replay.seen[-1]):
            ttl = steps[-1]["messages"][0]["connect"]["ttl"]
            replay.protocol.heard(replay.now + ttl)
            assert replay.protocol.due(replay.now + ttl) == [TokenWanted(None)]
            lives.append(ttl)
    assert set(lives) == {2, 20, 900}


def test_transcript_after_a_terminal_close_nothing_is_said() -> None:
    """Whatever is wished for."""
    for scenario in SCENARIOS:
        replay = Replay(scenario)
        ends = of(Close, replay.seen[-1])
        if ends:
            now = replay.now + 1000
            assert replay.protocol.next_due() is None
            assert replay.protocol.due(now) == []
            assert replay.protocol.subscribe("chat:app:new", token(1), None, now) == []
            assert replay.protocol.receive(frame({}), now) == []


def test_transcript_nothing_that_the_real_server_refused_has_a_wish() -> None:
    """The recorded bad requests are exactly those that the object can't be made to send; and a second subscription or
    unsubscription, a renewal of what is not subscribed."""
    wishless = {name: Replay(scenario).wishless for name, scenario in BY_NAME.items()}
    methods = {
        name: [next(iter(each.keys() - {"id"})) if isinstance(each, dict) else "raw" for each in found]
        for name, found in wishless.items()
        if found
    }
    assert {name: found for name, found in methods.items() if found != ["raw"]} == {
        "subscribe twice": ["subscribe"],
        "command before connect": ["subscribe"],
        "connect twice": ["connect"],
        "connect: no token": ["connect"],
        "sub_refresh: expired token; not subscribed": ["sub_refresh"],
        "unsubscribe by the client; again; publish after": ["unsubscribe"],
    }


def test_transcript_the_book_of_rules_is_the_real_servers() -> None:
    """It refuses what was answered with 3501 or cut off, and nothing else that was recorded."""
    judged = 0
    for scenario in SCENARIOS:
        book, verdict = RuleBook(strict=False), None
        for step in scenario["steps"]:
            if step["do"] == "open":
                book = RuleBook(strict=False)
            elif step["do"] in ("send", "send_raw"):
                text = step["text"] if step["do"] == "send_raw" else "\n".join(map(json.dumps, step["commands"]))
                try:
                    book.sent(text)
                    verdict = None
                except BadRequest as found:
                    verdict = found
            elif step["do"] == "receive":
                for message in step["messages"]:
                    book.answered(message)
                bad = any(message.get("close") == 3501 or "lost" in message for message in step["messages"])
                assert (verdict is not None) is bad, (scenario["scenario"], verdict)
                judged += bad
                verdict = None
    assert judged == 15
