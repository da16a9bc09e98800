"""The recorded realtime scenarios of a real server, as plays for the subscription layer.

A play is what one listener was sent, and what the server had stored by then. Where only the order of arrival was kept,
publications are made from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from chatsdk.core.protocols.outputs import Joined, Left, Output, Published, SubscribeFailed, Unsubscribed

TRANSCRIPTS = Path(__file__).parents[1] / "data" / "chatsdk-realtime-transcripts.jsonl"


class Stored(NamedTuple):
    """The server stored a message, and `since_seq` shows it."""

    channel: str
    message: dict[str, Any]


class Purged(NamedTuple):
    """It shows it no more."""

    channel: str
    message: str


class Cut(NamedTuple):
    """The connection was lost."""


class Back(NamedTuple):
    """It is there again."""


class Pause(NamedTuple):
    seconds: float


Beat = Stored | Purged | Cut | Back | Pause | Output


@dataclass
class Play:
    name: str
    user: str
    app: str = ""
    beats: list[Beat] = field(default_factory=list)

    @property
    def publications(self) -> list[int]:
        """The beats that are publications."""
        return [at for at, beat in enumerate(self.beats) if isinstance(beat, Published)]

    @property
    def channels(self) -> list[str]:
        """The channels that are heard."""
        streams = dict.fromkeys(b.stream for b in self.beats if isinstance(b, (Published, Joined)))
        return [stream.split(":")[2] for stream in streams if stream.startswith("chat:")]

    def start(self, channel: str) -> int:
        """The channel's newest seq before the play."""
        new: list[int] = []
        known = [1]
        for beat in self.beats:
            if isinstance(beat, Published) and beat.stream.endswith(channel):
                message = beat.data["payload"].get("message") or {}
                if "seq" in message:
                    (new if beat.data["type"] == "message.new" else known).append(int(message["seq"]))
        return min(new) - 1 if new else max(known)


def plays() -> list[Play]:
    """All of them; one for each listener of a scenario, and for each burst."""
    found: list[Play] = []
    with TRANSCRIPTS.open(encoding="utf-8") as lines:
        for line in lines:
            found += _plays(json.loads(line))
    return found


def _plays(scenario: dict[str, Any]) -> Iterator[Play]:
    name, steps = scenario["scenario"], scenario["steps"]
    made = {"outage-centrifugo": _outage, "rt-backlog": _backlog, "rt-many-events-order": _many}.get(name)
    if made is not None:
        yield from made(name, steps)
        return
    bursts = [step["burst"] for step in steps if "burst" in step]
    for number, burst in enumerate(bursts):
        yield _burst(f"{name}-{number}", burst)
    if not bursts:
        for user in dict.fromkeys(step["websocket"]["user"] for step in steps if "websocket" in step):
            yield _listener(name, user, steps)


# ---- as it was recorded


def _listener(name: str, user: str, steps: list[dict[str, Any]]) -> Play:
    play = Play(f"{name}-{user}", user)
    lost, out = False, set[str]()
    for step in steps:
        if step.get("note") == "socket cut" and "websocket" not in step:
            lost = True
            play.beats.append(Cut())
        if "request" in step:
            stored = _stored(step["request"], step["response"])
            # nobody who was taken out of a channel has to know what is written there
            play.beats += [beat for beat in stored if not any(stream.endswith(beat[0]) for stream in out)]
        if step.get("websocket", {}).get("user") != user:
            continue
        asked = {each.get("id"): each for each in step["websocket"].get("sent", ())}
        for message in step["websocket"]["messages"]:
            if "connect" in message and lost:
                lost = False
                play.beats.append(Back())
            if "close" in message:
                break  # another connection, which was refused, or the last thing that this one saw
            play.beats += [beat for beat in _said(message, asked) if getattr(beat, "stream", "") not in out]
            out |= {beat.stream for beat in play.beats if isinstance(beat, Unsubscribed)}
            play.beats.append(Pause(0.02))
        play.beats.append(Pause(0.1))
    streams = [beat.stream for beat in play.beats if isinstance(beat, (Published, Joined))]
    play.app = streams[0].split(":")[1] if streams else ""
    return play


def _stored(request: dict[str, Any], response: dict[str, Any]) -> list[Stored | Purged]:
    parts, body = request["path"].split("?")[0].split("/"), response.get("body") or {}
    if request["method"] == "POST" and parts[-1] == "messages" and response["status"] == 201:
        return [] if body.get("parentId") else [Stored(parts[3], body)]
    if parts[-1] == "purge":
        return [Purged(parts[3], parts[5])]
    return []


def _said(message: dict[str, Any], asked: dict[Any, dict[str, Any]]) -> list[Output]:
    if "error" in message:
        wish = asked.get(message["id"], {}).get("subscribe")
        error = message["error"]
        refused = wish is not None and error["code"] in (102, 103)
        return [SubscribeFailed(wish["channel"], error["code"], error["message"])] if wish and refused else []
    push = message.get("push", {})
    stream = push.get("channel", "")
    if "pub" in push:
        pub = push["pub"]
        return [Published(stream, pub["data"], pub.get("offset"), pub.get("epoch"))]
    if "unsubscribe" in push:
        return [Unsubscribed(stream, push["unsubscribe"]["code"], push["unsubscribe"]["reason"])]
    for kind, name in ((Joined, "join"), (Left, "leave")):
        if name in push:
            info = push[name]["info"]
            return [kind(stream, info["user"], info["client"], info)]
    return []


# ---- made from the order that was recorded


class _Maker:
    """A channel of its own, whose publications have offsets of their own."""

    def __init__(self, name: str, channel: str = "") -> None:
        self.app = str(UUID(int=1, version=4))
        self.channel = channel or str(UUID(int=sum(name.encode()) + 1000, version=4))
        self.play = Play(name, "bob", self.app)
        self.stream = f"chat:{self.app}:{self.channel}"
        self.offset = 0

    def message(self, seq: int) -> dict[str, Any]:
        name = str(UUID(int=(UUID(self.channel).int << 12 | seq) % (1 << 128), version=4))
        made = {"id": name, "cid": self.channel, "seq": seq, "text": f"text {seq}", "type": "regular"}
        return {**made, "userId": "alice", "createdAt": "2026-11-22T06:30:00.000Z"}

    def store(self, count: int) -> None:
        self.play.beats += [Stored(self.channel, self.message(seq)) for seq in range(1, count + 1)]

    def publish(self, kind: str, **payload: Any) -> None:
        self.offset += 1
        data = {"type": kind, "payload": {"channelId": self.channel, **payload}}
        self.play.beats.append(Published(self.stream, data, self.offset, "x" if self.offset == 1 else None))

    def tell(self, kind: str, count: int) -> None:
        """On the user's own stream."""
        payload = {"count": count, **({"channelId": self.channel} if kind == "channel.unread_changed" else {})}
        self.play.beats.append(Published(f"user:{self.app}:bob", {"type": kind, "payload": payload}))

    def pause(self, seconds: float) -> None:
        self.play.beats.append(Pause(max(0.0, seconds)))


def _burst(name: str, burst: dict[str, Any]) -> Play:
    maker = _Maker(name)
    arrived = burst.get("message_new") or [
        {"seq": seq, "at_ms": 10 * at} for at, seq in enumerate(burst["seqs_in_order_of_arrival"])
    ]
    maker.store(len(arrived))
    before = 0.0
    for each in arrived:
        maker.pause((each["at_ms"] - before) / 1000)
        before = each["at_ms"]
        maker.publish("message.new", message=maker.message(each["seq"]))
    for count in burst.get("unread_changed_counts", ()):
        maker.tell("channel.unread_changed", count)
    return maker.play


def _outage(name: str, steps: list[dict[str, Any]]) -> Iterator[Play]:
    maker = _Maker(name)
    requests = [step for step in steps if "request" in step]
    sends = [step["response"]["body"] for step in requests if step["request"]["path"].endswith("/messages")]
    gone = next(step["request"]["path"] for step in requests if step["request"]["method"] == "DELETE").split("/")[-1]
    deleted = next(each["seq"] for each in sends if each["id"] == gone)
    maker.store(len(sends))
    before = 0.0
    for event in next(step["late_events"] for step in steps if "late_events" in step):
        kind, value = event["type"], event["seq_or_count"]
        maker.pause(event["s_after_restart"] - (before or event["s_after_restart"]))
        before = event["s_after_restart"]
        if kind in ("message.new", "message.updated"):
            maker.publish(kind, message=maker.message(value))
        elif kind == "message.deleted":
            maker.publish(kind, messageId=maker.message(deleted)["id"])
        elif kind.startswith("channel."):
            maker.tell(kind, value)
        else:
            maker.publish(kind, user={"id": "alice", "name": "Alice"})
    yield maker.play


def _backlog(name: str, steps: list[dict[str, Any]]) -> Iterator[Play]:
    maker = _Maker(name)
    [step] = [step for step in steps if "seqs_in_order_of_arrival" in step]
    seqs = step["seqs_in_order_of_arrival"]
    maker.store(len(seqs))
    before = 0.0
    for seq, second in zip(seqs, step["events"]["message.new"]["seconds"], strict=True):
        maker.pause(second - before)
        before = second
        maker.publish("message.new", message=maker.message(seq))
    yield maker.play


def _many(name: str, steps: list[dict[str, Any]]) -> Iterator[Play]:
    maker = _Maker(name)
    maker.store(len(steps))
    for seq, step in enumerate(steps, 1):
        about = {"messageId": maker.message(seq)["id"], "reaction": {"type": "+1", "userId": "alice"}}
        for kind in step["seen_order"]:
            maker.publish(kind, **(about if kind != "message.new" else {}), message=maker.message(seq))
            maker.pause(0.01)
    yield maker.play
