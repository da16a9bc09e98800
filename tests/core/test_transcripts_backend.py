"""The backend against what the real server was asked and answered: every recorded exchange of its operations.

Requests: where the recorded one can be said in the builder's words, the builder makes the same, or refuses what the
server refused. Answers: what the reader makes of the recorded body is compared, field by field, with that body by a
table of this file; an error status becomes the error that the contract says. The last tests corrupt requests and
answers, and the comparison has to notice.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from chatsdk.core import errors
from chatsdk.core import exchange as wire
from chatsdk.core.chatsdk_backend import ChatSDKBackend
from chatsdk.core.exchange import Call, Response
from chatsdk.core.models import Attachment
from chatsdk.core.tokens import Secret, Token

TRANSCRIPTS = Path(__file__).parents[1] / "data" / "http-transcripts.jsonl"
BACKEND = ChatSDKBackend()
NOW = 1_790_000_000.0


@dataclass(frozen=True)
class Exchange:
    """One recorded request with its answer."""

    scenario: str
    user: str
    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    raw: bool
    response: Response

    def __str__(self) -> str:
        return f"{self.scenario}: {self.method} {self.path} {dict(self.query)} -> {self.response.status}"


def expand(value: Any) -> Any:
    """The notation's {"$repeat": [text, n]}, written out."""
    if isinstance(value, dict):
        if "$repeat" in value:
            text, times = value["$repeat"]
            return text * times
        return {key: expand(item) for key, item in value.items()}
    return [expand(item) for item in value] if isinstance(value, list) else value


def steps(values: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for step in values:
        if "parallel" in step:
            yield from steps(step["parallel"])
        elif "request" in step and "response" in step and "store" not in step:
            yield step


def load() -> list[Exchange]:
    found = []
    with TRANSCRIPTS.open(encoding="utf-8") as lines:
        for line in lines:
            scenario = json.loads(line)
            for step in steps(scenario["steps"]):
                request, response = step["request"], step["response"]
                parts = urlsplit(request["path"])
                authorization = request.get("headers", {}).get("Authorization")
                bearer = authorization.get("$bearer", {}) if isinstance(authorization, dict) else {}
                found.append(
                    Exchange(
                        scenario=scenario["scenario"],
                        user=str(bearer.get("user", "")),
                        method=request["method"],
                        path=parts.path,
                        query=dict(parse_qsl(parts.query, keep_blank_values=True)),
                        body=expand(request.get("body")),
                        raw="raw_body" in request,
                        response=Response(
                            status=response["status"],
                            headers={name.lower(): value for name, value in response["headers"].items()},
                            body=expand(response.get("body")),
                        ),
                    )
                )
    return found


ALL = load()

ROUTES: list[tuple[str, str, str]] = [
    ("messages.send", "POST", r"/api/channels/([^/]+)/messages"),
    ("messages.list", "GET", r"/api/channels/([^/]+)/messages"),
    ("messages.get", "GET", r"/api/channels/([^/]+)/messages/([^/]+)"),
    ("messages.edit", "PATCH", r"/api/channels/([^/]+)/messages/([^/]+)"),
    ("messages.delete", "DELETE", r"/api/channels/([^/]+)/messages/([^/]+)"),
    ("messages.react", "POST", r"/api/channels/([^/]+)/messages/([^/]+)/reactions"),
    ("messages.unreact", "DELETE", r"/api/channels/([^/]+)/messages/([^/]+)/reactions/([^/]+)"),
    ("messages.read", "POST", r"/api/channels/([^/]+)/read"),
    ("search", "GET", r"/api/search"),
    ("channels.list", "GET", r"/api/channels"),
    ("channels.get", "GET", r"/api/channels/(?!unread-count$)([^/]+)"),
    ("channels.create", "POST", r"/api/channels"),
    ("channels.members", "GET", r"/api/channels/([^/]+)/members"),
    ("channels.leave", "DELETE", r"/api/channels/([^/]+)/members/([^/]+)"),
    ("presence.get", "GET", r"/api/channels/([^/]+)/presence"),
    ("presence.set", "POST", r"/api/presence/(online|offline)"),
    ("users.me", "GET", r"/api/users/me"),
    ("typing", "POST", r"/api/channels/([^/]+)/typing"),
    ("health", "GET", r"/health"),
    ("auth.refresh", "POST", r"/api/auth/refresh"),
]


def route(exchange: Exchange) -> tuple[str, list[str]] | None:
    """(operation, path parts) of a recorded request, or None if it is none of the backend's."""
    for operation, method, pattern in ROUTES:
        match = re.fullmatch(pattern, exchange.path)
        if match and method == exchange.method:
            return operation, [unquote(part) for part in match.groups()]
    return None


OURS = [(exchange, *found) for exchange in ALL if (found := route(exchange))]


# ---- the recorded request in the builder's words; None where it can't be said


class Unsaid(Exception):
    """The recorded request has something that no argument of the builder stands for."""


def only(given: Any, *names: str) -> dict[str, Any]:
    """A JSON object that has no other keys."""
    if not isinstance(given, dict) or set(given) - set(names):
        raise Unsaid
    return given


ATTACHMENT = {
    "type": "type",
    "url": "url",
    "name": "name",
    "title": "title",
    "mimeType": "mime_type",
    "size": "size",
    "width": "width",
    "height": "height",
    "duration": "duration",
    "waveform": "waveform",
    "thumbnailUrl": "thumbnail_url",
}


def attachments(values: Any) -> list[Attachment]:
    if not isinstance(values, list) or not values:
        raise Unsaid
    made = []
    for value in values:
        facts = {ATTACHMENT[name]: fact for name, fact in only(value, *ATTACHMENT).items()}
        if not {"type", "url"} <= facts.keys():
            raise Unsaid
        if "waveform" in facts:
            facts["waveform"] = tuple(facts["waveform"])
        made.append(Attachment(**facts))
    return made


def whole(query: Mapping[str, str], name: str, default: int) -> int:
    """A number of the query; what is no number can't be said."""
    if not re.fullmatch(r"-?\d+", query.get(name, str(default))):
        raise Unsaid
    return int(query.get(name, default))


def say(exchange: Exchange, operation: str, parts: list[str]) -> Any:
    """The `Request` (send) or `Call` (others) that the builder makes of it. Raises Unsaid, or what it raises."""
    backend: Any = BACKEND  # recorded arguments have any type
    user, body, query = exchange.user, exchange.body, exchange.query
    if exchange.raw:
        raise Unsaid
    match operation:
        case "messages.send":
            given = only(body, "text", "clientMsgId", "attachments", "parentId", "replyToId")
            if not {"text", "clientMsgId"} <= given.keys():
                raise Unsaid
            more = {"parent_id": given.get("parentId"), "reply_to": given.get("replyToId")}
            files = attachments(given["attachments"]) if "attachments" in given else []
            return backend.send_message(
                user, *parts, given["text"], key=given["clientMsgId"], attachments=files, **more
            )
        case "messages.list":
            only(dict(query), "limit", "before", "after", "since_seq")
            since = whole(query, "since_seq", 0) if "since_seq" in query else None
            return backend.list_messages(
                user,
                *parts,
                limit=whole(query, "limit", 100),
                before=query.get("before"),
                after=query.get("after"),
                since_seq=since,
            )
        case "messages.get":
            return backend.get_message(user, *parts)
        case "messages.edit":
            return backend.edit_message(user, *parts, only(body, "text").get("text"))
        case "messages.delete":
            return backend.delete_message(user, *parts)
        case "messages.react":
            return backend.react(user, *parts, only(body, "emoji").get("emoji"))
        case "messages.unreact":
            return backend.unreact(user, *parts)
        case "messages.read":
            if body != {}:
                raise Unsaid
            return backend.mark_read(user, *parts)
        case "search":
            only(dict(query), "q", "limit", "offset", "channelId")
            return backend.search(
                user,
                query.get("q"),
                channel=query.get("channelId"),
                limit=whole(query, "limit", 20),
                offset=whole(query, "offset", 0),
            )
        case "channels.list":
            only(dict(query), "limit", "offset", "type")
            return backend.list_channels(
                user, type=query.get("type"), limit=whole(query, "limit", 50), offset=whole(query, "offset", 0)
            )
        case "channels.get":
            return backend.get_channel(user, *parts)
        case "channels.create":
            given = only(body, "type", "name", "image", "memberIds", "config", "idempotencyKey")
            if "type" not in given:
                raise Unsaid
            return backend.create_channel(
                user,
                type=given["type"],
                name=given.get("name"),
                members=given.get("memberIds", ()),
                image=given.get("image"),
                config=given.get("config"),
                key=given.get("idempotencyKey"),
            )
        case "channels.members":
            return backend.channel_members(user, *parts)
        case "channels.leave":
            if parts[1] != user:
                raise Unsaid
            return backend.leave_channel(user, parts[0])
        case "presence.get":
            return backend.presence(user, *parts)
        case "presence.set":
            if body != {}:
                raise Unsaid
            return backend.set_presence(user, parts[0] == "online")
        case "users.me":
            only(dict(query))
            return backend.me(user)
        case "typing":
            given = only(body, "typing")
            if not isinstance(given.get("typing"), bool):
                raise Unsaid
            return backend.typing(user, *parts, given["typing"])
        case "health":
            only(dict(query))
            return backend.health()
    raise Unsaid


DEFAULTS = {
    "messages.list": {"limit": "100"},
    "search": {"limit": "20", "offset": "0"},
    "channels.list": {"limit": "50", "offset": "0"},
}
"""What the server takes where a query does not say it; the builder always says it."""

REFUSED_HERE = {
    "channel-create-errors": 1,  # an empty name
    "channel-create-idempotency": 2,  # the key "" would be a key like any other
    "channel-list": 3,  # limits of 0 and 1000; a type that there is not
    "clientmsgid-forms": 3,  # keys that are empty or no UUID in its usual form
    "list-messages": 6,  # limits of 0 and 1000, since_seq of 0 and -1, two bounds at once
    "reactions": 1,  # "%" could never be taken back
}
"""What the real server took and the builders refuse: how many requests of which scenario."""

WRITTEN_OTHERWISE = {
    "channel-create-errors": 1,  # members who are named twice or are the maker would be counted twice
    "clientmsgid-forms": 1,  # upper case
    "clientmsgid-repeat": 1,  # upper case
    "get-one": 1,  # upper case
}
"""What the builders say in another form."""


def request_of(made: Any) -> wire.Request:
    request = made if isinstance(made, wire.Request) else made.request
    assert isinstance(request, wire.Request)
    return request


def compare_request(exchange: Exchange, operation: str, request: wire.Request) -> None:
    """The builder's request is the recorded one."""
    assert request.operation == operation, exchange
    assert request.user == exchange.user, exchange
    assert request.method == exchange.method, exchange
    assert request.path == exchange.path, exchange
    assert dict(request.query) == {**DEFAULTS.get(operation, {}), **exchange.query}, exchange
    assert request.body == exchange.body, exchange


# ---- answers: what each model must say, by the recorded JSON


def moment(value: str | None) -> datetime | None:
    return None if value is None else datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%f%z")


Compare = Callable[[Any, Any], None]


def same(model: Any, body: Mapping[str, Any], names: Table) -> None:
    """Every JSON field of the table that the body has stands in the model."""
    for name, (field, read) in names.items():
        if name in body:
            assert getattr(model, field) == read(body[name]), (name, body[name], getattr(model, field))


def as_is(value: Any) -> Any:
    return value


def number(value: Any) -> int:
    return 0 if value is None else int(value)


def text(value: Any) -> str:
    return "" if value is None else value


Table = Mapping[str, tuple[str, Callable[[Any], Any]]]
"""JSON field: model field, and what its value becomes."""

MESSAGE: Table = {
    "id": ("id", as_is),
    "channelId": ("channel_id", as_is),
    "userId": ("user_id", as_is),
    "text": ("text", text),
    "seq": ("seq", int),
    "clientMsgId": ("key", as_is),
    "status": ("status", as_is),
    "type": ("type", as_is),
    "createdAt": ("created_at", moment),
    "updatedAt": ("updated_at", moment),
    "deletedAt": ("deleted_at", moment),
    "parentId": ("parent_id", as_is),
    "replyToId": ("reply_to_id", as_is),
    "mentions": ("mentions", tuple),
    "duplicate": ("duplicate", as_is),
}
CHANNEL: Table = {
    "id": ("id", as_is),
    "cid": ("cid", as_is),
    "type": ("type", as_is),
    "name": ("name", as_is),
    "image": ("image", as_is),
    "memberCount": ("member_count", number),
    "messageCount": ("message_count", number),
    "lastMessageAt": ("last_message_at", moment),
    "createdBy": ("created_by", as_is),
    "createdAt": ("created_at", moment),
    "updatedAt": ("updated_at", moment),
    "config": ("config", lambda value: value or {}),
    "workspaceId": ("workspace_id", as_is),
    "role": ("role", as_is),
    "lastReadSeq": ("last_read_seq", number),
    "unreadCount": ("unread_count", number),
    "muted": ("muted", bool),
    "starred": ("starred", bool),
}
USER: Table = {
    "id": ("id", as_is),
    "name": ("name", as_is),
    "image": ("image", as_is),
    "email": ("email", as_is),
    "custom": ("custom", lambda value: value or {}),
    "lastActiveAt": ("last_active_at", moment),
    "createdAt": ("created_at", moment),
}


def pairs(models: Any, bodies: Any, compare: Compare) -> None:
    assert len(models) == len(bodies)
    for model, body in zip(models, bodies, strict=True):
        compare(model, body)


def compare_user(user: Any, body: Any) -> None:
    same(user, body, USER)


def compare_message(message: Any, body: Any) -> None:
    same(message, body, MESSAGE)
    if body.get("user"):
        compare_user(message.user, body["user"])
    for made, sent in zip(message.attachments, body.get("attachments", []), strict=True):
        for name, field in ATTACHMENT.items():
            if name in sent:
                found = getattr(made, field)
                assert (list(found) if name == "waveform" else found) == sent[name]
    for made, given in zip(message.reactions, body.get("reactions", []), strict=True):
        assert (made.type, made.count, made.own) == (given["type"], given["count"], given["own"])
        pairs(made.users, given["users"], compare_user)


def compare_page(page: Any, body: Any) -> None:
    assert page.max_seq == int(body["maxSeq"])
    pairs(page.messages, sorted(body["messages"], key=lambda message: int(message["seq"])), compare_message)


def compare_member(member: Any, body: Any) -> None:
    assert member.user_id == body.get("userId", body.get("id"))
    assert member.role == body["role"]
    assert member.joined_at == moment(body.get("joinedAt"))
    compare_name(member.user, body.get("user", body))


def compare_name(user: Any, body: Any) -> None:
    assert (user.id, user.name, user.image) == (body["id"], body["name"], body["image"])


def compare_channel(channel: Any, body: Any) -> None:
    same(channel, body, CHANNEL)
    pairs(channel.members, body.get("members", []), compare_member)


def compare_presence(presence: Any, body: Any) -> None:
    assert (presence.total_online, presence.total_members) == (body["totalOnline"], body["totalMembers"])
    for models, bodies in ((presence.online, body["online"]), (presence.offline, body["offline"])):
        for model, each in zip(models, bodies, strict=True):
            assert (model.user_id, model.name, model.image) == (each["id"], each["name"], each["image"])
            assert (model.online, model.last_seen) == (each["online"], moment(each["lastSeen"]))


def compare_search(page: Any, body: Any) -> None:
    assert (page.query, page.total) == (body["query"], body["totalHits"])
    assert (page.offset, page.limit, list(page.hits)) == (body["offset"], body["limit"], body["results"])


def compare_health(health: Any, body: Any) -> None:
    assert (health.status, health.time, health.uptime) == (body["status"], moment(body["timestamp"]), body["uptime"])
    assert health.ok == (body["status"] == "ok")


def compare_token(token: Token, body: Any) -> None:
    assert token.access == Secret(body["token"])
    assert token.refresh == Secret(body["refreshToken"])
    assert token.ws == Secret(body["_internal"]["wsToken"])
    assert token.expires_at == NOW + body["expiresIn"]


def compare_done(result: Any, body: Any) -> None:
    assert result is None
    assert body["success"] is True


def compare_read(result: Any, body: Any) -> None:
    assert result == int(body["lastReadSeq"])


COMPARE: dict[str, Compare] = {
    "messages.send": compare_message,
    "messages.list": compare_page,
    "messages.get": compare_message,
    "messages.edit": compare_message,
    "messages.delete": compare_done,
    "messages.react": compare_done,
    "messages.unreact": compare_done,
    "messages.read": compare_read,
    "search": compare_search,
    "channels.list": lambda channels, body: pairs(channels, body["channels"], compare_channel),
    "channels.get": compare_channel,
    "channels.create": compare_channel,
    "channels.members": lambda members, body: pairs(members, body["members"], compare_member),
    "channels.leave": compare_done,
    "presence.get": compare_presence,
    "presence.set": compare_done,
    "users.me": compare_user,
    "typing": compare_done,
    "health": compare_health,
    "auth.refresh": compare_token,
}

A, B = "0190a1b2-0000-7000-8000-000000000001", "0190a1b2-0000-7000-8000-000000000002"
"""Stand-ins where only the answer is read."""


def reader(operation: str, exchange: Exchange) -> Callable[[Response], Any]:
    """What reads an answer to this operation."""
    if operation == "messages.send":
        body = exchange.response.body
        key = body["id"] if isinstance(body, dict) else A
        channel = exchange.path.split("/")[3].lower()
        sent = BACKEND.send_message(exchange.user, channel, "text", key=key)
        return lambda response: BACKEND.sent_message(sent, response)
    calls: dict[str, Call[Any]] = {
        "messages.list": BACKEND.list_messages("u", A),
        "messages.get": BACKEND.get_message("u", A, B),
        "messages.edit": BACKEND.edit_message("u", A, B, "x"),
        "messages.delete": BACKEND.delete_message("u", A, B),
        "messages.react": BACKEND.react("u", A, B, "x"),
        "messages.unreact": BACKEND.unreact("u", A, B, "x"),
        "messages.read": BACKEND.mark_read("u", A),
        "search": BACKEND.search("u", "x"),
        "channels.list": BACKEND.list_channels("u"),
        "channels.get": BACKEND.get_channel("u", A),
        "channels.create": BACKEND.create_channel("u"),
        "channels.members": BACKEND.channel_members("u", A),
        "channels.leave": BACKEND.leave_channel("u", A),
        "presence.get": BACKEND.presence("u", A),
        "presence.set": BACKEND.set_presence("u", True),
        "users.me": BACKEND.me("u"),
        "typing": BACKEND.typing("u", A, True),
        "health": BACKEND.health(),
        "auth.refresh": BACKEND.refresh_token("u", Secret("refresh"), now=NOW),
    }
    return calls[operation].parse


def answered() -> list[tuple[Exchange, str]]:
    """Exchanges with a body that a reader must understand; a 303 is followed before anybody reads it."""
    return [(exchange, operation) for exchange, operation, _ in OURS if 200 <= exchange.response.status < 300]


# ---- the promises


def test_builders_make_the_recorded_requests() -> None:
    """What the real server was asked is what the builders make; what it refused with 4xx or 5xx, they may refuse."""
    same_as: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    otherwise: Counter[str] = Counter()
    for exchange, operation, parts in OURS:
        try:
            request = request_of(say(exchange, operation, parts))
        except Unsaid:
            continue
        except (errors.InvalidMessage, errors.InvalidArgument):
            if exchange.response.status < 400:
                refused[exchange.scenario] += 1
            continue
        try:
            compare_request(exchange, operation, request)
        except AssertionError:
            assert exchange.scenario in WRITTEN_OTHERWISE
            otherwise[exchange.scenario] += 1
        else:
            same_as[operation] += 1
    assert dict(refused) == REFUSED_HERE
    assert dict(otherwise) == WRITTEN_OTHERWISE
    assert set(same_as) == set(COMPARE) - {"auth.refresh"}  # which also sends what other servers want
    assert same_as.total() >= 320


def test_refused_requests_are_those_that_the_server_refuses() -> None:
    """The builders refuse what the real server answers with 500, and so would be sent again and again."""
    refused = 0
    for exchange, operation, parts in OURS:
        with contextlib.suppress(Unsaid):
            try:
                say(exchange, operation, parts)
            except (errors.InvalidMessage, errors.InvalidArgument):
                refused += exchange.response.status == 500
    assert refused >= 15


def test_readers_understand_the_recorded_answers() -> None:
    """Each recorded success becomes a model that says what its body says, field by field."""
    seen: Counter[str] = Counter()
    for exchange, operation in answered():
        result = reader(operation, exchange)(exchange.response)
        COMPARE[operation](result, exchange.response.body)
        if hasattr(result, "raw"):
            assert result.raw == exchange.response.body
        seen[operation] += 1
    assert set(seen) == set(COMPARE)
    assert seen.total() >= 290


def test_short_answer_to_a_repeat_becomes_the_whole_message() -> None:
    """A repeated send is answered with id and seq; text, channel and user are those of the request."""
    repeats = 0
    for exchange, operation, parts in OURS:
        body = exchange.response.body
        if operation != "messages.send" or exchange.response.status != 200 or exchange.scenario in WRITTEN_OTHERWISE:
            continue
        with contextlib.suppress(Unsaid):
            request = say(exchange, operation, parts)
            message = BACKEND.sent_message(request, exchange.response)
            assert message.duplicate
            assert (message.id, message.key, message.seq) == (request.key, request.key, int(body["seq"]))
            assert (message.text, message.channel_id) == (request.body["text"], parts[0])
            assert message.user_id == exchange.user
            repeats += 1
    assert repeats >= 30


STATUS: dict[int, tuple[type[errors.StatusError], bool]] = {
    400: (errors.BadRequest, False),
    401: (errors.Unauthorized, False),
    403: (errors.Forbidden, False),
    404: (errors.NotFound, False),
    409: (errors.Conflict, False),
    410: (errors.StatusError, False),
    423: (errors.StatusError, False),
    429: (errors.RateLimited, True),
    431: (errors.StatusError, False),
    500: (errors.ServerError, True),
    503: (errors.ServerError, True),
}


def test_recorded_errors_become_typed_errors() -> None:
    """Each recorded status of 400 and above becomes the error of the contract: class, code, text, retry_after."""
    seen: Counter[int] = Counter()
    for exchange in ALL:
        response = exchange.response
        if response.status < 400:
            continue
        error = wire.status_error(response, request_id="r", now=NOW)
        cls, retryable = STATUS[response.status]
        assert type(error) is cls, exchange
        assert (error.status, error.retryable, error.request_id) == (response.status, retryable, "r")
        said = response.body.get("error") if isinstance(response.body, dict) else None
        facts = said if isinstance(said, dict) else {}
        assert error.code == facts.get("code", cls.default_code).lower(), exchange
        if "message" in facts:
            assert error.message == facts["message"]
        for issue in facts.get("issues", []):
            assert issue["message"] in error.message
        wait = response.headers.get("retry-after")
        assert error.retry_after == (None if wait is None else float(wait)), exchange
        assert error.maybe_done == (response.status >= 500)
        seen[response.status] += 1
    assert seen.total() >= 250
    assert seen[429] >= 5


def test_refused_refreshes_are_told_from_a_busy_server() -> None:
    """Only one recorded 401 to a refresh says nothing about the session: that of the server whose database was busy."""
    final: set[str] = set()
    not_final: set[str] = set()
    for exchange, operation, _ in OURS:
        if operation == "auth.refresh" and exchange.response.status == 401:
            refused = BACKEND.refresh_refused(exchange.response.body)
            (final if refused else not_final).add(exchange.response.body["error"]["message"])
    assert not_final == {"Invalid refresh token", "Missing refresh token"}
    assert final == {
        "Invalid token",
        "Invalid token type",
        "Refresh token expired",
        "Refresh token replay detected",
        "Token has been revoked",
        "Token session has been revoked",
    }


# ---- controls: the comparisons above can fail


def _corruptions(body: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of a JSON value that hold a text or a number."""
    if isinstance(body, dict):
        for name, value in body.items():
            yield from _corruptions(value, (*path, name))
    elif isinstance(body, list):
        for position, value in enumerate(body):
            yield from _corruptions(value, (*path, position))
    elif isinstance(body, (str, int, float)):
        yield path


def _corrupt(body: Any, path: tuple[Any, ...]) -> Any:
    changed = copy.deepcopy(body)
    place = changed
    for step in path[:-1]:
        place = place[step]
    value = place[path[-1]]
    place[path[-1]] = (not value) if isinstance(value, bool) else value + ("1" if isinstance(value, str) else 1)
    return changed


NOT_MODELLED = {
    *(
        "cid",
        "created_at",
        "hardDeletedAt",
        "hasMore",
        "linkPreviews",
        "pinned",
        "pinnedAt",
        "pinnedBy",
        "poll",
        "pollId",
    ),
    *("processingTimeMs", "reactionCount", "replyCount", "threadCount", "updated_at", "deleted_at", "hard_deleted_at"),
    *("fileSize", "idempotencyKey"),
}
"""What stays in `raw` only (of a channel, "cid" is read)."""


def _is_modelled(operation: str, path: tuple[Any, ...]) -> bool:
    if operation == "messages.read" and path == ("success",):
        return False
    # in lists of members the user's fields stand beside the member's, as in a user
    return not NOT_MODELLED & set(path) and path[-2:] not in (("user", "createdAt"), ("user", "updatedAt"))


@pytest.mark.parametrize("operation", sorted(COMPARE))
def test_a_corrupted_answer_is_noticed(operation: str) -> None:
    """Whatever single value of a recorded answer is changed on the way to the reader, the comparison fails."""
    bodies = [(exchange, len(json.dumps(exchange.response.body))) for exchange, name in answered() if name == operation]
    exchange = max((each for each in bodies if each[1] < 20_000), key=lambda each: each[1])[0]
    body, read = exchange.response.body, reader(operation, exchange)
    tried = 0
    for path in _corruptions(body):
        if _is_modelled(operation, path):
            answer = Response(status=200, body=_corrupt(body, path))
            with pytest.raises((AssertionError, errors.InvalidResponseError)):
                COMPARE[operation](read(answer), body)
            tried += 1
    assert tried


def test_a_changed_request_is_noticed() -> None:
    """A builder that made another path, query or body would fail the comparison."""
    exchange, operation, parts = next(each for each in OURS if each[1] == "messages.list" and each[0].query)
    request = request_of(say(exchange, operation, parts))
    compare_request(exchange, operation, request)
    changes: list[dict[str, Any]] = [
        {"path": request.path + "/"},
        {"query": {**request.query, "limit": "7"}},
        {"body": {}},
    ]
    for change in changes:
        with pytest.raises(AssertionError):
            compare_request(exchange, operation, request.replace(**change))
