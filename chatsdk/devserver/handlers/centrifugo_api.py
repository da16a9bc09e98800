"""Centrifugo's own HTTP API, as `POST /__dev__/centrifugo/<method>`, and who is connected.

Rules: like all of `/__dev__/`, for programs on this machine only; no key is asked for. The answer is `{"result"}`, or
`{"error": {"code", "message"}}` with status 200, as at the real server. What is published here comes from outside of
the API: no message is stored, so a history over HTTP does not have it.

    publish         channel, data, idempotency_key?, tags?       -> offset, epoch (both missing without history)
    broadcast       channels, data, idempotency_key?             -> responses, one a channel
    subscribe       user, channel                                -> the user's connections hear the channel from now on
    unsubscribe     user, channel                                push `unsubscribe` 2000
    disconnect      user, disconnect {code, reason}?             close 3503, or the code that is given
    presence, presence_stats, history, history_remove            channel; history: limit, reverse, since
    channels        pattern?                                     -> what is subscribed to, with the number of clients
    info            -> one node
    batch           commands [{method: body}, ...]               -> replies, in one transaction

    GET /__dev__/realtime     every connection: user, protocol, streams; every stream: offset and epoch
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any

from chatsdk.devserver.answers import Answer, ok, thrown
from chatsdk.devserver.handlers.control import PREFIX
from chatsdk.devserver.realtime.centrifugo import CentrifugoSession
from chatsdk.devserver.realtime.commands import (
    FORCE_DISCONNECT,
    NOT_AVAILABLE,
    UNKNOWN_CHANNEL,
    UNRECOVERABLE_POSITION,
)
from chatsdk.devserver.realtime.hub import Hub
from chatsdk.devserver.realtime.namespaces import Namespace
from chatsdk.devserver.realtime.recovery import Unrecoverable, history_result, presence_stats
from chatsdk.devserver.routes import Operation
from chatsdk.devserver.world import Call

Body = Mapping[str, Any]
BAD_REQUEST = (107, "bad request")


class _ApiError(Exception):
    """Code and message of an `error`."""


def method(call: Call) -> Answer:
    name = call.params["method"]
    if name not in _METHODS and name != "batch":
        raise thrown(404, "Centrifugo's API has no such method")
    if not isinstance(call.body, dict):
        raise thrown(400, "The body must be a JSON object")
    return ok(_answer(call.world.hub, name, call.body))


def overview(call: Call) -> Answer:
    hub = call.world.hub
    connections = [
        {
            "user": session.user,
            "protocol": "centrifugo" if isinstance(session, CentrifugoSession) else "json",
            "streams": sorted(stream for stream in hub.active_streams() if session in hub.listeners(stream)),
        }
        for session in hub.sessions()
    ]
    streams = {name: dict(zip(("offset", "epoch"), hub.position(name), strict=True)) for name in hub.streams.names()}
    return ok({"sockets": len(hub.connections), "connections": connections, "streams": streams})


def _answer(hub: Hub, name: str, body: Body) -> dict[str, Any]:
    try:
        return {"result": _METHODS[name](hub, body)} if name != "batch" else _batch(hub, body)
    except _ApiError as error:
        code, message = error.args
        return {"error": {"code": code, "message": message}}


def _batch(hub: Hub, body: Body) -> dict[str, Any]:
    commands = body.get("commands")
    if not isinstance(commands, list):
        raise _ApiError(*BAD_REQUEST)
    replies = []
    with hub.at_once():
        for command in commands:
            name, arguments = next(iter(command.items())) if isinstance(command, dict) and command else ("", None)
            if name not in _METHODS or not isinstance(arguments, dict):
                raise _ApiError(*BAD_REQUEST)
            answer = _answer(hub, name, arguments)
            replies.append({name: answer["result"]} if "result" in answer else answer)
    return {"replies": replies}


def _publish(hub: Hub, body: Body) -> dict[str, Any]:
    stream, _ = _stream(hub, body)
    return _publish_to(hub, stream, body)


def _broadcast(hub: Hub, body: Body) -> dict[str, Any]:
    streams = body.get("channels")
    if not isinstance(streams, list):
        raise _ApiError(*BAD_REQUEST)
    return {"responses": [_answer(hub, "publish", {**body, "channel": stream}) for stream in streams]}


def _publish_to(hub: Hub, stream: str, body: Body) -> dict[str, Any]:
    if "data" not in body:
        raise _ApiError(*BAD_REQUEST)
    offset, epoch = hub.publish(stream, body["data"], key=body.get("idempotency_key"), tags=body.get("tags"))
    return {"offset": offset, "epoch": epoch} if offset else {}


def _subscribe(hub: Hub, body: Body) -> dict[str, Any]:
    stream, namespace = _stream(hub, body)
    for session in list(hub.sessions(_text(body, "user"))):
        if isinstance(session, CentrifugoSession):
            session.subscribed_by_server(stream, namespace)
    return {}


def _unsubscribe(hub: Hub, body: Body) -> dict[str, Any]:
    stream, _ = _stream(hub, body)
    hub.unsubscribe(_text(body, "user"), stream)
    return {}


def _disconnect(hub: Hub, body: Body) -> dict[str, Any]:
    wanted = body.get("disconnect")
    code, reason = FORCE_DISCONNECT
    if isinstance(wanted, dict):
        code, reason = int(wanted.get("code", code)), str(wanted.get("reason", ""))
    hub.disconnect(_text(body, "user"), code, reason)
    return {}


def _presence(hub: Hub, body: Body) -> dict[str, Any]:
    stream = _present(hub, body)
    return {"presence": {each.client: each.to_json() for each in hub.presence(stream)}}


def _presence_stats(hub: Hub, body: Body) -> dict[str, Any]:
    return {"num_clients": 0, "num_users": 0, **presence_stats(hub.presence(_present(hub, body)))}


def _history(hub: Hub, body: Body) -> dict[str, Any]:
    stream, namespace = _remembered(hub, body)
    try:
        return {"publications": [], "offset": 0, **history_result(hub, stream, namespace, body)}
    except Unrecoverable:
        raise _ApiError(*UNRECOVERABLE_POSITION) from None


def _history_remove(hub: Hub, body: Body) -> dict[str, Any]:
    stream, _ = _remembered(hub, body)
    hub.streams.clear(stream)
    return {}


def _channels(hub: Hub, body: Body) -> dict[str, Any]:
    pattern = str(body.get("pattern") or "*")
    heard = hub.active_streams().items()
    return {"channels": {name: {"num_clients": count} for name, count in heard if fnmatch.fnmatch(name, pattern)}}


def _info(hub: Hub, _: Body) -> dict[str, Any]:
    users = [session.user for session in hub.sessions()]
    counts = {"num_clients": len(users), "num_users": len(set(users)), "num_channels": len(hub.active_streams())}
    return {"nodes": [{"name": "devserver", **counts}]}


def _stream(hub: Hub, body: Body) -> tuple[str, Namespace]:
    stream = _text(body, "channel")
    namespace = hub.namespaces.of(stream)
    if namespace is None:
        raise _ApiError(*UNKNOWN_CHANNEL)
    return stream, namespace


def _present(hub: Hub, body: Body) -> str:
    stream, namespace = _stream(hub, body)
    if not namespace.presence:
        raise _ApiError(*NOT_AVAILABLE)
    return stream


def _remembered(hub: Hub, body: Body) -> tuple[str, Namespace]:
    stream, namespace = _stream(hub, body)
    if not namespace.history:
        raise _ApiError(*NOT_AVAILABLE)
    return stream, namespace


def _text(body: Body, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise _ApiError(*BAD_REQUEST)
    return value


_METHODS: Mapping[str, Callable[[Hub, Body], dict[str, Any]]] = {
    "publish": _publish,
    "broadcast": _broadcast,
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "disconnect": _disconnect,
    "presence": _presence,
    "presence_stats": _presence_stats,
    "history": _history,
    "history_remove": _history_remove,
    "channels": _channels,
    "info": _info,
}

OPERATIONS = (
    Operation("dev_centrifugo", "POST", f"{PREFIX}centrifugo/{{method}}", method, public=True),
    Operation("dev_realtime", "GET", f"{PREFIX}realtime", overview, public=True),
)
