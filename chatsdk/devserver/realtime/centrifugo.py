"""One client on `/connection/websocket`: Centrifugo's JSON client protocol, as version 6.9.1 was recorded.

Rules (every one of them was seen at the real server):
* A frame holds commands, one a line. What makes no sense ends the connection with 3501: no JSON object, an id that is
  missing, 0 or no number, none or more than one method, a method that is not there, an empty channel, anything before
  `connect`, a second `connect`, a pong that no ping asked for.
* What is merely refused is an error in the reply, and the connection goes on: 102 unknown namespace, 103 not permitted
  (a bad signature too), 105 subscribed already, 106 the 129th channel, 108 no such thing here, 109 token expired.
* A token of somebody else or for something else is 3500, which is terminal; so is a bad connection token.
* Zero and false are left out of replies. `recovered` comes with the offset that the client gave.
* Expiry is not obeyed to the second: a connection is closed (3005), a subscription ended (2501) some time afterwards.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from chatsdk.devserver.realtime.commands import (
    ALREADY_SUBSCRIBED,
    BAD_REQUEST,
    EXPIRED,
    INVALID_TOKEN,
    LIMIT_EXCEEDED,
    NO_PONG,
    NOT_AVAILABLE,
    PERMISSION_DENIED,
    SHUTDOWN,
    SLOW,
    STALE,
    SUBSCRIPTION_EXPIRED,
    TOKEN_EXPIRED,
    UNKNOWN_CHANNEL,
    UNRECOVERABLE_POSITION,
    Disconnected,
    Refused,
    channel_of,
    commands,
    taken_apart,
)
from chatsdk.devserver.realtime.connection import Connection
from chatsdk.devserver.realtime.credentials import connection_claims, life, subscription_claims
from chatsdk.devserver.realtime.frames import text_frame
from chatsdk.devserver.realtime.hub import Hub, Presence
from chatsdk.devserver.realtime.namespaces import Namespace
from chatsdk.devserver.realtime.publication import Publication, compact, placed
from chatsdk.devserver.realtime.recovery import Unrecoverable, history_result, presence_stats, subscribe_result
from chatsdk.devserver.tokens import Tokens

VERSION = "0.0.0 chatsdk-devserver"
CHANNEL_LIMIT = 128
STALE_S = 10.0
"""How long a client may take to send its `connect`."""
MESSAGES_IN_FRAME = 16
"""How many messages share a frame when several wait (as in Centrifugo's writer)."""


@dataclass
class Subscription:
    """One stream that a client hears. `expires`: the end of its token in Unix seconds, 0 where it has none."""

    namespace: Namespace
    presence: Presence
    expires: float = 0.0
    positioned: bool = False
    timer: asyncio.TimerHandle | None = None


class CentrifugoSession:
    """A client of `/connection/websocket`."""

    def __init__(self, hub: Hub, connection: Connection, tokens: Tokens) -> None:
        self.hub, self.connection, self.tokens = hub, connection, tokens
        self.user = ""
        self.client = str(uuid.uuid4())
        self.subscriptions: dict[str, Subscription] = {}
        self._info: Any = None
        self._expires = 0.0
        self._connected = False
        self._pinged = False
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # What the connection tells

    def opened(self) -> None:
        self._later("stale", STALE_S, self._close, STALE)

    def received(self, text: str) -> None:
        try:
            for command in commands(text):
                self._command(command)
        except Disconnected as end:
            self._close(end.args)

    def received_binary(self) -> None:
        self._close(BAD_REQUEST)

    def frames(self, messages: list[bytes]) -> bytes:
        if len(messages) == 1:
            return text_frame(messages[0])
        step = MESSAGES_IN_FRAME
        return b"".join(text_frame(b"\n".join(messages[at : at + step])) for at in range(0, len(messages), step))

    def deliver(self, publication: Publication) -> None:
        text = publication.text(_publication_push)
        if text is not None:
            self.connection.send(text)

    def removed(self, stream: str, code: int, reason: str) -> None:
        subscription = self.subscriptions.get(stream)
        if subscription is None or (code == 2500 and not subscription.positioned):
            return
        self._unsubscribe(stream)
        self._push(stream, "unsubscribe", {"code": code, "reason": reason})

    def stop(self) -> tuple[int, str]:
        return SHUTDOWN

    def too_slow(self) -> tuple[int, str]:
        return SLOW

    def disconnect(self, code: int, reason: str) -> None:
        self._close((code, reason))

    def reschedule(self) -> None:
        if self._expires:
            self._expire_at(self._expires)
        for stream, subscription in self.subscriptions.items():
            self._end_subscription_at(stream, subscription)

    def ended(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for stream in list(self.subscriptions):
            self._unsubscribe(stream)

    # Commands

    def _command(self, command: Any) -> None:
        if command == {}:
            if not self._pinged:
                raise Disconnected(*BAD_REQUEST)
            self._pinged = False
            self._cancel("pong")
            return
        number, method, arguments = taken_apart(command)
        if (method == "connect") == self._connected:
            raise Disconnected(*BAD_REQUEST)
        try:
            result = _METHODS[method](self, arguments)
        except Refused as refusal:
            code, message = refusal.args
            self._send({"id": number, "error": {"code": code, "message": message}})
        else:
            self._send({"id": number, method: result})
            if method == "connect":
                for stream in result.get("subs", ()):
                    self._tell_join(stream)
            elif method == "subscribe":
                self._tell_join(arguments["channel"])

    def _connect(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        token = arguments.get("token")
        if not isinstance(token, str) or not token:
            raise Disconnected(*BAD_REQUEST)
        claims = connection_claims(self.tokens, token)
        self.user = str(claims.get("sub", ""))
        self._info = claims.get("info")
        self._expires = float(claims.get("exp", 0))
        self._connected = True
        self._cancel("stale")
        ping = self.hub.settings.ping_interval
        reply: dict[str, Any] = {"client": self.client, "version": VERSION, **life(self._expires, self.hub.clock)}
        subs = {}
        asked = arguments.get("subs")
        for stream in claims.get("channels") or ():
            namespace = self.hub.namespaces.of(stream)
            if namespace is not None:
                wish = asked.get(stream, {}) if isinstance(asked, dict) else {}
                subs[stream] = self._begin(stream, namespace, wish if isinstance(wish, dict) else {}, by_server=True)
        if subs:
            reply["subs"] = subs
        if ping:
            reply.update(ping=round(ping) or 1, pong=True)
            self._later("ping", random.uniform(0, ping), self._ping)
        if self._expires:
            self._expire_at(self._expires)
        return reply

    def _subscribe(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        stream = channel_of(arguments)
        namespace = self._namespace(stream)
        if stream in self.subscriptions:
            raise Refused(*ALREADY_SUBSCRIBED)
        if len(self.subscriptions) >= CHANNEL_LIMIT:
            raise Refused(*LIMIT_EXCEEDED)
        claims = subscription_claims(self.tokens, arguments.get("token"), stream, self.user)
        expires = float(claims.get("exp", 0))
        result = self._begin(stream, namespace, arguments, info=claims.get("info"), expires=expires)
        return {**life(expires, self.hub.clock), **result}

    def _begin(
        self,
        stream: str,
        namespace: Namespace,
        wish: Mapping[str, Any],
        *,
        info: Any = None,
        expires: float = 0.0,
        by_server: bool = False,
    ) -> dict[str, Any]:
        """Starts a subscription and returns its result without the token's life."""
        result = subscribe_result(self.hub, stream, namespace, wish, by_server=by_server)
        presence = Presence(self.user, self.client, self._info, info)
        subscription = Subscription(namespace, presence, expires, positioned=bool(result.get("positioned")))
        self.subscriptions[stream] = subscription
        self.hub.listen(self, stream, presence)
        self._end_subscription_at(stream, subscription)
        return result

    def subscribed_by_server(self, stream: str, namespace: Namespace) -> None:
        """The server's API subscribes this client: push `subscribe`."""
        if stream not in self.subscriptions:
            self._push(stream, "subscribe", self._begin(stream, namespace, {}, by_server=True))
            self._tell_join(stream)

    def _unsubscribe_command(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        self._unsubscribe(channel_of(arguments))
        return {}

    def _refresh(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        token = arguments.get("token")
        if not isinstance(token, str) or not token:
            raise Disconnected(*BAD_REQUEST)
        try:
            claims = connection_claims(self.tokens, token)
        except Refused:
            raise Disconnected(*EXPIRED) from None
        if claims.get("sub") != self.user:
            raise Disconnected(*INVALID_TOKEN)
        self._expires = float(claims.get("exp", 0))
        self._cancel("expiry")
        if self._expires:
            self._expire_at(self._expires)
        return life(self._expires, self.hub.clock)

    def _sub_refresh(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        stream = channel_of(arguments)
        subscription = self.subscriptions.get(stream)
        if subscription is None:
            raise Refused(*PERMISSION_DENIED)
        try:
            claims = subscription_claims(self.tokens, arguments.get("token"), stream, self.user)
        except Refused as refusal:
            if refusal.args == TOKEN_EXPIRED:
                return {}  # no error: only the missing life tells that this failed
            raise
        subscription.expires = float(claims.get("exp", 0))
        self._end_subscription_at(stream, subscription)
        return life(subscription.expires, self.hub.clock)

    def _publish(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        stream = channel_of(arguments)
        subscription = self._open_subscription(stream)
        if "data" not in arguments:
            raise Disconnected(*BAD_REQUEST)
        self.hub.publish(stream, arguments["data"], info=subscription.presence.to_json())
        return {}

    def _history(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        stream = channel_of(arguments)
        namespace = self._open_subscription(stream).namespace
        if not namespace.history:
            raise Refused(*NOT_AVAILABLE)
        try:
            return history_result(self.hub, stream, namespace, arguments)
        except Unrecoverable:
            raise Refused(*UNRECOVERABLE_POSITION) from None

    def _presence(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        stream = channel_of(arguments)
        self._open_subscription(stream)
        return {"presence": {each.client: each.to_json() for each in self.hub.presence(stream)}}

    def _presence_stats(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        stream = channel_of(arguments)
        self._open_subscription(stream)
        return presence_stats(self.hub.presence(stream))

    def _rpc(self, _: Mapping[str, Any]) -> dict[str, Any]:
        raise Refused(*NOT_AVAILABLE)

    # Streams

    def _namespace(self, stream: str) -> Namespace:
        namespace = self.hub.namespaces.of(stream)
        if namespace is None:
            raise Refused(*UNKNOWN_CHANNEL)
        return namespace

    def _open_subscription(self, stream: str) -> Subscription:
        """The subscription of a stream in whose namespace subscribers may do more than listen."""
        subscription = self.subscriptions.get(stream)
        if not self._namespace(stream).open_to_subscribers or subscription is None:
            raise Refused(*PERMISSION_DENIED)
        return subscription

    def _tell_join(self, stream: str) -> None:
        subscription = self.subscriptions.get(stream)  # gone if the reply was too much for a slow client
        if subscription is not None and subscription.namespace.joins:
            self._tell_all(stream, "join", subscription.presence)

    def _unsubscribe(self, stream: str) -> None:
        subscription = self.subscriptions.pop(stream, None)
        if subscription is None:
            return
        if subscription.timer is not None:
            subscription.timer.cancel()
        self.hub.stop_listening(self, stream)
        if subscription.namespace.joins:
            self._tell_all(stream, "leave", subscription.presence)

    def _tell_all(self, stream: str, what: str, who: Presence) -> None:
        for session in self.hub.listeners(stream):
            if isinstance(session, CentrifugoSession):
                session._push(stream, what, {"info": who.to_json()})

    # Time

    def _ping(self) -> None:
        settings = self.hub.settings
        self._later("ping", settings.ping_interval, self._ping)
        if self._pinged or self.hub.suffers("ws_no_pong", self.connection):
            return
        self._pinged = True
        self.connection.send(b"{}")
        self._later("pong", settings.pong_timeout, self._close, NO_PONG)

    def _expire_at(self, expires: float) -> None:
        late = expires + self.hub.settings.expired_close_delay - self.hub.clock.seconds()
        self._later("expiry", max(0.0, late), self._close, EXPIRED)

    def _end_subscription_at(self, stream: str, subscription: Subscription) -> None:
        if subscription.timer is not None:
            subscription.timer.cancel()
        if subscription.expires:
            late = subscription.expires + self.hub.settings.expired_unsubscribe_delay - self.hub.clock.seconds()
            subscription.timer = self._loop.call_later(max(0.0, late), self.removed, stream, *SUBSCRIPTION_EXPIRED)

    def _later(self, name: str, seconds: float, function: Callable[..., None], *arguments: Any) -> None:
        self._cancel(name)
        self._timers[name] = self._loop.call_later(seconds, function, *arguments)

    def _cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    # Sending

    def _send(self, message: Mapping[str, Any]) -> None:
        self.connection.send(_encoded(message))

    def _push(self, stream: str, what: str, content: Mapping[str, Any]) -> None:
        self._send({"push": {"channel": stream, what: content}})

    def _close(self, end: tuple[Any, ...]) -> None:
        self.connection.close(*end)


_METHODS: Mapping[str, Callable[[CentrifugoSession, Mapping[str, Any]], dict[str, Any]]] = {
    "connect": CentrifugoSession._connect,
    "subscribe": CentrifugoSession._subscribe,
    "unsubscribe": CentrifugoSession._unsubscribe_command,
    "refresh": CentrifugoSession._refresh,
    "sub_refresh": CentrifugoSession._sub_refresh,
    "publish": CentrifugoSession._publish,
    "history": CentrifugoSession._history,
    "presence": CentrifugoSession._presence,
    "presence_stats": CentrifugoSession._presence_stats,
    "rpc": CentrifugoSession._rpc,
}


def _encoded(message: Mapping[str, Any]) -> bytes:
    return compact(message).encode()


def _publication_push(publication: Publication) -> bytes:
    body = placed(publication.body, publication.offset, publication.epoch)
    return f'{{"push":{{"channel":{compact(publication.stream)},"pub":{body}}}}}'.encode()
