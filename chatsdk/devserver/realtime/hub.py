"""Everybody who is connected, and everything that is published.

Rules:
* `announce` belongs into the transaction of the change that it tells of: offset and history are committed with it.
  `flush` delivers after the commit, in the order of the announcements; `discard` forgets them after a rollback.
* The API's events may be broken on their way to the streams (faults `event_*`: lost, late, twice, out of order, as the
  real server's queue does), publications on their way to the clients (faults `pub_*`; the history has them).
* Presence is who is subscribed now. It is not stored.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from chatsdk.devserver.clock import DevClock
from chatsdk.devserver.faults import FaultBook, Rule
from chatsdk.devserver.realtime.commands import FORCE_DISCONNECT, INSUFFICIENT_STATE, SERVER_UNSUBSCRIBE
from chatsdk.devserver.realtime.disturb import Disturbance
from chatsdk.devserver.realtime.namespaces import HISTORY_TTL_MS, Namespace, Namespaces
from chatsdk.devserver.realtime.publication import Publication, publication_body
from chatsdk.devserver.settings import ServerSettings
from chatsdk.devserver.store.database import Database
from chatsdk.devserver.store.streams import Streams

if TYPE_CHECKING:
    from wsproto.events import Request

    from chatsdk.devserver.realtime.connection import Connection, Session

_KNOWN_KEYS = 10_000
"""Idempotency keys of `publish` that are remembered."""


@dataclass(frozen=True)
class Presence:
    """One client in a stream, as presence, join and leave show it."""

    user: str
    client: str
    conn_info: Any = None
    chan_info: Any = None

    def to_json(self) -> dict[str, Any]:
        shown = {"user": self.user, "client": self.client, "conn_info": self.conn_info, "chan_info": self.chan_info}
        return {name: value for name, value in shown.items() if value is not None}


class Hub:
    """One server's realtime side. `upgrade` is set by whoever puts the server together."""

    def __init__(self, settings: ServerSettings, db: Database, clock: DevClock, faults: FaultBook) -> None:
        self.settings, self.db, self.clock, self.faults = settings, db, clock, faults
        self.streams = Streams(db)
        self.namespaces = Namespaces(history_size=settings.history_size, no_recovery=settings.no_recovery)
        self.connections: set[Connection] = set()
        self.upgrade: Callable[[Connection, Request], None]
        self._listeners: dict[str, dict[Session, Presence]] = {}
        self._pending: list[Publication] = []
        self._deferred: list[tuple[str, Any]] = []
        self._at_once = False
        self._results: OrderedDict[tuple[str, str], tuple[int, str]] = OrderedDict()
        self._on_the_wire: Disturbance[Publication] = Disturbance("publication", faults, self._fan_out)
        self._in_the_queue: Disturbance[tuple[str, Any]] = Disturbance("event", faults, self._publish_late)

    # Publishing

    def announce(self, stream: str, event: Mapping[str, Any]) -> None:
        """An event of the API: is stored now, inside the caller's transaction, and delivered by `flush`."""
        if self._in_the_queue.strikes(stream, event):
            self._deferred.append((stream, event))
        else:
            self._pending.append(self._store(stream, event))

    def flush(self) -> None:
        """Delivers what was announced. Call it after the commit."""
        pending, self._pending = self._pending, []
        deferred, self._deferred = self._deferred, []
        for publication in pending:
            self._deliver(publication)
        for stream, event in deferred:
            self._in_the_queue.put((stream, event), stream, event)

    def discard(self) -> None:
        """Forgets what was announced in a transaction that was rolled back."""
        self._pending.clear()
        self._deferred.clear()

    def publish(
        self,
        stream: str,
        data: Any,
        *,
        key: str | None = None,
        info: Any = None,
        tags: Any = None,
        skip: Session | None = None,
    ) -> tuple[int, str]:
        """Publishes past the API; returns offset and epoch (0 and "" without history). The first answer is given again
        for a known `key`. `skip`: a connection that does not hear it."""
        if key and (known := self._results.get((stream, key))) is not None:
            return known
        if self._at_once:
            publication = self._store(stream, data, info, tags)
            self._pending.append(publication)
        else:
            with self.db.transaction():
                publication = self._store(stream, data, info, tags)
            publication.skip = skip
            self._deliver(publication)
        position = publication.offset, publication.epoch
        if key:
            self._results[stream, key] = position
            if len(self._results) > _KNOWN_KEYS:
                self._results.popitem(last=False)
        return position

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Everything that is published inside is one transaction, and is delivered after it."""
        self._at_once = True
        try:
            with self.db.transaction():
                yield
        except BaseException:
            self.discard()
            self._results.clear()
            raise
        finally:
            self._at_once = False
        self.flush()

    def _publish_late(self, item: tuple[str, Any], **_: Any) -> None:
        self.publish(*item)

    def _store(self, stream: str, data: Any, info: Any = None, tags: Any = None) -> Publication:
        namespace = self.namespaces.of(stream)
        publication = Publication(stream, data, publication_body(data, info, tags))
        if namespace is not None and namespace.history:
            publication.offset, publication.epoch = self.streams.append(
                stream, publication.body, self.clock.milliseconds(), namespace.history
            )
        return publication

    def _deliver(self, publication: Publication) -> None:
        if self._on_the_wire.idle:
            self._fan_out(publication)
        else:
            self._on_the_wire.put(publication, publication.stream, publication.data)

    def _fan_out(self, publication: Publication, *, only: str | None = None, without: str | None = None) -> None:
        for session in list(self._listeners.get(publication.stream, ())):
            if session is publication.skip:
                continue
            if only is not None and not is_user(session.user, only):
                continue
            if without is not None and is_user(session.user, without):
                continue
            session.deliver(publication)

    # History

    def position(self, stream: str) -> tuple[int, str]:
        return self.streams.position(stream)

    def kept(self, stream: str, namespace: Namespace) -> list[tuple[int, str]]:
        """The publications in a stream's history, oldest first: offset and body."""
        oldest = self.clock.milliseconds() - HISTORY_TTL_MS
        rows = self.streams.kept(stream, namespace.history, oldest)
        return [(row["position"], row["body"]) for row in rows]

    def restart_streams(self, channel: str | None = None, *, tell: bool = True) -> int:
        """A new epoch for all streams or those of a channel (its id, or a whole stream); returns how many began anew.
        Clients that count on a position are told (2500), as by a Centrifugo that notices; `tell=False`: they find out
        by themselves."""
        names = [name for name in self.streams.names() if channel is None or is_channel(name, channel)]
        with self.db.transaction():
            for name in names:
                self.streams.restart(name)
        self._results.clear()
        for name in names if tell else ():
            for session in self.listeners(name):
                session.removed(name, *INSUFFICIENT_STATE)
        return len(names)

    # Who hears what

    def listen(self, session: Session, stream: str, presence: Presence) -> None:
        self._listeners.setdefault(stream, {})[session] = presence

    def stop_listening(self, session: Session, stream: str) -> None:
        listeners = self._listeners.get(stream)
        if listeners is not None and listeners.pop(session, None) is not None and not listeners:
            del self._listeners[stream]

    def is_heard(self, stream: str) -> bool:
        return stream in self._listeners

    def listeners(self, stream: str) -> list[Session]:
        return list(self._listeners.get(stream, ()))

    def presence(self, stream: str) -> list[Presence]:
        return list(self._listeners.get(stream, {}).values())

    def active_streams(self) -> Mapping[str, int]:
        """Streams that somebody hears, with how many clients."""
        return {stream: len(listeners) for stream, listeners in self._listeners.items()}

    def sessions(self, user: str | None = None) -> Iterator[Session]:
        """Everybody who is connected, or one user's connections."""
        for connection in list(self.connections):
            if (
                connection.session is not None
                and connection.live
                and (user is None or is_user(connection.session.user, user))
            ):
                yield connection.session

    def unsubscribe(self, user: str, stream: str) -> None:
        """Takes a user off a stream (push 2000: stay out)."""
        for session in self.listeners(stream):
            if is_user(session.user, user):
                session.removed(stream, *SERVER_UNSUBSCRIBE)

    def disconnect(self, user: str, code: int = FORCE_DISCONNECT[0], reason: str = FORCE_DISCONNECT[1]) -> None:
        """Takes all connections of a user off."""
        for session in list(self.sessions(user)):
            session.disconnect(code, reason)

    def reset(self) -> None:
        """Everybody goes: the server begins again."""
        self.discard()
        self._results.clear()
        for connection in list(self.connections):
            connection.shutdown()

    def reschedule(self) -> None:
        """The server's clock was moved."""
        for session in list(self.sessions()):
            session.reschedule()

    # Faults

    def suffers(self, kind: str, connection: Connection) -> Mapping[str, Any] | None:
        """The rule of this kind that strikes a connection now, if one stands."""
        if not self.faults.rules:
            return None
        user = connection.session.user if connection.session is not None else ""
        return self.faults.standing(kind, _bare(user), time.monotonic())

    def strike(self, rule: Rule) -> int:
        """Carries out a rule that acts at once; returns how many connections it struck."""
        spec = rule.spec
        if spec["kind"] == "epoch_reset":
            return self.restart_streams(spec.get("channel"), tell=spec.get("tell", True))
        struck = list(self._matching(spec))
        for connection in struck:
            _ACTIONS[spec["kind"]](connection, spec)
        return len(struck)

    def _matching(self, spec: Mapping[str, Any]) -> Iterable[Connection]:
        for connection in list(self.connections):
            user = connection.session.user if connection.session is not None else ""
            if spec.get("user") is None or is_user(user, spec["user"]):
                yield connection


def is_user(full: str, wanted: str) -> bool:
    """Whether "<app>:<user>" is meant by `wanted`, which may be the user alone."""
    return wanted in (full, _bare(full))


def is_channel(stream: str, wanted: str) -> bool:
    """Whether a stream is meant by `wanted`, which may be a channel's id alone."""
    return stream == wanted or stream.endswith(f":{wanted}")


def _bare(full: str) -> str:
    return full.partition(":")[2]


def _cut(connection: Connection, spec: Mapping[str, Any]) -> None:
    if "code" in spec:
        connection.close(int(spec["code"]), str(spec.get("reason", "")))
    elif spec.get("how") == "fin":
        connection.cut()
    else:
        connection.reset()


def _garbage(connection: Connection, spec: Mapping[str, Any]) -> None:
    if "hex" in spec:
        connection.raw(bytes.fromhex(spec["hex"]))
    else:
        connection.raw_text(str(spec.get("text", '{"garbage":')).encode("utf-8", "surrogatepass"))


def _oversized(connection: Connection, spec: Mapping[str, Any]) -> None:
    size = int(spec.get("size", 16 * 1024 * 1024))
    connection.raw_text(b'{"padding":"' + b"a" * max(0, size - 14) + b'"}')


_ACTIONS: Mapping[str, Callable[[Connection, Mapping[str, Any]], None]] = {
    "ws_cut": _cut,
    "ws_half_open": lambda connection, _: connection.half_open(),
    "ws_garbage": _garbage,
    "ws_oversized": _oversized,
}
