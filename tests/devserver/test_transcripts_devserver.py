"""The development server answers as the real one did, wherever that one was right.

Every recorded request of the scenarios in `tests/data` is sent again and the answers are compared. Where the real
server misbehaved, or had surroundings that this one has not, `EXCEPTIONS` says so, step by step, with what is expected
instead; everything that is not in that table must be equal.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from chatsdk.devserver.process import DevServer
from tests.devserver.exceptions import EXCEPTIONS, Differs, exception_for
from tests.devserver.replay import HEADERS, Answer, Comparer, Player, scenarios
from tests.devserver.stage import prepare

RECORDED = scenarios()
BY_HAND = ("http-wire", "abandoned-send")
"""Scenarios of bare sockets: `test_wire` below, and the faults `drop` and `reply_lost` in their own tests."""
LEAST_COMPARED = 600


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    """Give one server with the real limits; every scenario starts from a reset."""
    with DevServer(rate_limits=True) as started:
        yield started


@pytest.mark.parametrize("name", [name for name in RECORDED if name not in BY_HAND])
def test_scenario(server: DevServer, name: str) -> None:
    """Each answer of the scenario equals the recorded one, but for the listed exceptions."""
    player = Player(server)
    prepare(player, name)
    wrong: list[str] = []
    compared = 0
    for position, step in enumerate(RECORDED[name]["steps"]):
        exception = exception_for(name, position)
        if "wait_s" in step:
            server.skip(step["wait_s"])
        elif "request" not in step and "parallel" not in step:
            _happens(server, step["note"])
        elif exception is not None and exception.skipped:
            continue
        else:
            found = _differences(player, name, step, exception)
            wrong += [f"step {position}: {difference}" for difference in found]
            compared += exception is None or exception.status is None
    assert not wrong, "\n".join(wrong)
    assert compared == sum(1 for _ in _comparable(name)), "a step was passed over"


def _comparable(name: str) -> Iterator[dict[str, Any]]:
    """The steps of a scenario whose answers are compared, at least in part."""
    for position, step in enumerate(RECORDED[name]["steps"]):
        exception = exception_for(name, position)
        if ("request" in step or "parallel" in step) and (exception is None or exception.paths or exception.statuses):
            yield step


def test_enough_is_compared() -> None:
    """The comparison is not hollow: most recorded answers are compared, and few of them by way of an exception."""
    names = [name for name in RECORDED if name not in BY_HAND]
    recorded = sum(len(step.get("parallel", [step])) for name in names for step in RECORDED[name]["steps"])
    compared = sum(len(step.get("parallel", [step])) for name in names for step in _comparable(name))
    assert compared >= LEAST_COMPARED
    assert compared / recorded > 0.85


def test_every_exception_is_needed() -> None:
    """The table names steps that exist, with a reason, and expects no status that was recorded anyway."""
    for (name, position), exception in EXCEPTIONS.items():
        assert exception.reason
        if position is None:
            assert exception.skipped
            continue
        step = RECORDED[name]["steps"][position]
        if exception.status is not None:
            assert step["response"]["status"] != exception.status, (name, position)
        if exception.statuses:
            statuses = tuple(sorted(each["response"]["status"] for each in step["parallel"]))
            assert statuses != exception.statuses, (name, position)


def _happens(server: DevServer, note: str) -> None:
    """What was done to the real server's database between two requests."""
    if "auth_session.expires_at" in note:
        server.end_sessions("sid", "expire")
    elif "auth_session.revoked_at" in note:
        server.end_sessions("sid", "revoke")


def _differences(player: Player, name: str, step: dict[str, Any], exception: Differs | None) -> list[str]:
    if "parallel" in step:
        return _parallel_differences(player, step["parallel"], exception)
    answer = player.play(step["request"])
    return _judge(player.comparer, name, step["response"], answer, exception)


def _judge(
    comparer: Comparer, name: str, recorded: dict[str, Any], answer: Answer, exception: Differs | None
) -> list[str]:
    if exception is not None and exception.status is not None:
        return _instead(answer, exception)
    if answer.status != recorded["status"]:
        return [f"status {answer.status}, recorded {recorded['status']}: {answer.body!r}"]
    paths = () if exception is None else exception.paths
    if paths and not Comparer(dict(comparer.bound)).compare(recorded.get("body"), answer.body):
        return [f"the exception is not needed: {exception}"]
    differences = comparer.compare(recorded.get("body"), answer.body, paths)
    wanted = {header: recorded["headers"][header] for header in HEADERS if header in recorded["headers"]}
    if name.startswith("rate-limit") and "x-ratelimit-limit" in recorded["headers"]:
        wanted["x-ratelimit-limit"] = recorded["headers"]["x-ratelimit-limit"]
    got = {header: answer.headers.get(header) for header in wanted}
    return differences + [f"headers: {each}" for each in comparer.compare(wanted, got)]


def _instead(answer: Answer, exception: Differs) -> list[str]:
    """What stands in the place of an answer of the original that is not to be copied: a proper one."""
    if answer.status != exception.status:
        return [f"status {answer.status}, expected {exception.status} ({exception.reason}): {answer.body!r}"]
    if answer.status < 400:
        return []
    error = answer.body.get("error", {}) if isinstance(answer.body, dict) else {}
    return [] if error.get("message") or error.get("issues") else [f"no error in {answer.body!r}"]


def _parallel_differences(player: Player, steps: list[dict[str, Any]], exception: Differs | None) -> list[str]:
    """Which of several wins is nobody's promise: the statuses must fit, and each answer one of the recorded ones."""
    answers = player.play_at_once([step["request"] for step in steps])
    statuses = tuple(sorted(answer.status for answer in answers))
    expected = tuple(sorted(step["response"]["status"] for step in steps))
    if exception is not None and exception.statuses:
        expected = exception.statuses
    if statuses != expected:
        return [f"statuses {statuses}, expected {expected}: {[answer.body for answer in answers]}"]
    wrong = []
    paths = () if exception is None else exception.paths
    for answer in answers:
        alike = [step["response"]["body"] for step in steps if step["response"]["status"] == answer.status]
        tries: list[list[str]] = [player.comparer.compare(body, answer.body, paths) for body in alike]
        if alike and all(tries):
            closest: list[str] = min(tries, key=len)
            wrong += closest
    return wrong


# The comparer itself


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seq", "1"),
        ("text", "other"),
        ("createdAt", "yesterday"),
        ("user", None),
        ("clientMsgId", "no uuid"),
        ("id", 5),
    ],
)
def test_comparer_sees_a_wrong_value(path: str, value: Any) -> None:
    """A control: a changed type, text, time or id in an otherwise equal answer is a difference."""
    body = RECORDED["send-plain"]["steps"][0]["response"]["body"]
    assert Comparer().compare(body, body) == []
    assert Comparer().compare(body, {**body, path: value})


def test_comparer_sees_missing_and_added_keys() -> None:
    """A control: a key too few or too many is a difference."""
    body = RECORDED["send-plain"]["steps"][0]["response"]["body"]
    assert Comparer().compare(body, {key: value for key, value in body.items() if key != "mentions"})
    assert Comparer().compare(body, {**body, "more": 1})


def test_comparer_sees_mixed_up_ids() -> None:
    """A control: an id that stands for two recorded ones, or two for one, is a difference."""
    one, other = "01a201f8-da2c-7568-8539-b76e6142e34a", "01a201f8-da4f-71dd-bdfe-4bb76d7afee8"
    assert Comparer().compare([one, one], [other, other]) == []
    assert Comparer().compare([one, one], [one, other])


def test_judge_sees_a_wrong_status_and_header() -> None:
    """A control: the same body under another status, or without its Retry-After, is a difference."""
    recorded = RECORDED["rate-limit-send"]["steps"][20]["response"]
    headers = dict(recorded["headers"])
    right = Answer(429, headers, recorded["body"])
    assert _judge(Comparer(), "rate-limit-send", recorded, right, None) == []
    assert _judge(Comparer(), "rate-limit-send", recorded, Answer(503, headers, recorded["body"]), None)
    assert _judge(Comparer(), "rate-limit-send", recorded, Answer(429, {}, recorded["body"]), None)


# The wire


WIRE = {step["wire"]: step for step in RECORDED["http-wire"]["steps"] if "sent" in step}


@pytest.mark.parametrize(
    "name",
    [
        "one GET, then idle",
        "Connection: close",
        "two pipelined",
        "HTTP/1.0",
        "no Host",
        "rubbish",
        "chunked request body",
        "Expect: 100-continue, body at once",
        "204 and keep-alive",
    ],
)
def test_wire(server: DevServer, name: str) -> None:
    """Plain bytes on a socket get the recorded status lines, in their number and order."""
    step = WIRE[name]
    sent = step["sent"].replace("<jwt-1>", server.tokens["alice"]).replace("127.0.0.1:5500", f"127.0.0.1:{server.port}")
    server.reset()
    player = Player(server)
    sent = player.with_ids(sent, {"01a201fa-322f-728f-807f-e75783104391": server.channel_id})
    wanted = [line.split(" ", 2)[1] for line in step["received"].split("\r\n") if line.startswith("HTTP/1.1 ")]
    wanted += [line.split("HTTP/1.1 ")[1][:3] for line in step["received"].split("\r\n") if "}HTTP/1.1 " in line]
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(sent.encode())
        received = b""
        while received.count(b"HTTP/1.1 ") < len(wanted) or not _complete(received):
            part = connection.recv(65536)
            if not part:
                break
            received += part
    got = [piece[:3].decode() for piece in received.split(b"HTTP/1.1 ")[1:]]
    assert got == wanted


def _complete(received: bytes) -> bool:
    """Whether the last answer has come with its whole head; its body is not looked at."""
    return b"\r\n\r\n" in received.rpartition(b"HTTP/1.1 ")[2]
