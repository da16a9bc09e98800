"""Dedup: one question, one call.

Reads
* that are asked while the same one is under way wait for its answer (in-flight window: the setting `dedup_window`);
* are answered from the cache for a while, by operation: `channels.*` and `messages.*` as the settings say, no others;
* with `fresh` go past both, and what they bring is the new entry.

Mutations
* that are keyed or repeatable and asked again while the same one is under way (a double tap on a reaction) share its
  call and its result. Only a user's latest mutation in a channel can be shared: like, unlike, like are three calls;
* make the cache forget what they touch: their channel, and everything that is about no single channel (lists). A read
  that was under way meanwhile is not kept either, nor shared with who asks later: it may be older than the mutation.

Memory is bounded by entries and bytes. A cached answer is shared between callers: its body must not be changed.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from chatsdk.plugin import CallNext, Middleware, PluginClient, Request, Response, Stage, errors, hookimpl

MAX_AGE = 300.0
"""Seconds that an entry lives at most, whatever the settings say (seed 000)."""

MAX_ENTRIES = 512
MAX_BYTES = 16 * 2**20
MAX_ENTRY_BYTES = 256 * 2**10

_TOUCH_NOTHING = ("typing", "presence.")
"""Mutations that change nothing that is cached, and are frequent."""


@dataclass(slots=True, eq=False, repr=False)
class _Flight:
    """A call under way. `done` is made by the first one who waits, so that a call that nobody shares costs little."""

    began: float
    generation: int
    what: Hashable | Request
    done: threading.Event | None = None
    response: Response | None = None
    error: BaseException | None = None


@dataclass(slots=True, eq=False, repr=False)
class _Entry:
    response: Response
    expires: float
    operation: str
    channel: str
    size: int


@dataclass(slots=True, eq=False, repr=False)
class _Cache:
    """Answers by key, the oldest first; whoever calls holds the lock."""

    entries: OrderedDict[Hashable, _Entry] = field(default_factory=OrderedDict)
    by_channel: dict[str, set[Hashable]] = field(default_factory=dict)
    size: int = 0

    def put(self, key: Hashable, entry: _Entry) -> None:
        self.drop(key)
        self.entries[key] = entry
        self.by_channel.setdefault(entry.channel, set()).add(key)
        self.size += entry.size
        while len(self.entries) > MAX_ENTRIES or self.size > MAX_BYTES:
            self.drop(next(iter(self.entries)))

    def drop(self, key: Hashable) -> None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.size -= entry.size
            keys = self.by_channel[entry.channel]
            keys.discard(key)
            if not keys:
                del self.by_channel[entry.channel]

    def drop_channel(self, channel: str) -> None:
        for key in tuple(self.by_channel.get(channel, ())):
            self.drop(key)


class Dedup:
    """The layer. `chat.invalidate` reaches it through the registry."""

    def __init__(self, client: PluginClient) -> None:
        settings = client.settings
        self._client = client
        self._monotonic = client.clock.monotonic
        self._server = settings.url
        self._timeout = settings.timeout
        self._window = settings.dedup_window
        self._channel_ttl = min(settings.dedup_channel_ttl, MAX_AGE)
        self._message_ttl = min(settings.dedup_message_ttl, MAX_AGE)
        self._lock = threading.Lock()
        self._generation = 0  # raised by whatever makes answers stale
        self._cache = _Cache()
        self._reads: dict[Hashable, _Flight] = {}
        self._writes: dict[Hashable, _Flight] = {}

    def __call__(self, request: Request, call_next: CallNext) -> Response:
        """One call, or a share in another one's answer."""
        if request.is_read:
            return self._read(request, call_next)
        if request.operation.startswith(_TOUCH_NOTHING):
            return call_next(request)
        return self._write(request, call_next)

    def invalidate(self, pattern: str = "*") -> int:
        """Forget the cached reads whose operation fits `pattern` ("channels.*"); returns how many."""
        with self._lock:
            self._generation += 1
            self._reads.clear()
            keys = [key for key, entry in self._cache.entries.items() if fnmatchcase(entry.operation, pattern)]
            for key in keys:
                self._cache.drop(key)
            return len(keys)

    # ---- reads

    def _read(self, request: Request, call_next: CallNext) -> Response:
        key = self._key(request)
        now = self._monotonic()
        with self._lock:
            other = None
            if not request.fresh:
                entry = self._cache.entries.get(key)
                if entry is not None and now < entry.expires:
                    return replace(entry.response, from_cache=True)
                other = self._joinable(self._reads.get(key), now)
            if other is None:
                flight = self._reads[key] = _Flight(now, self._generation, key)
        if other is not None:
            response = self._wait(other, request, again=True)
            return call_next(request) if response is None else response
        try:
            response = flight.response = call_next(request)
        except BaseException as error:
            flight.error = error
            raise
        finally:
            self._landed(self._reads, key, flight)
        ttl = self._ttl(request.operation)
        if ttl > 0:
            self._keep(key, flight, request, response, ttl)
        return response

    def _key(self, request: Request) -> Hashable:
        query, headers = tuple(sorted(request.query.items())), tuple(sorted(request.headers.items()))
        return (self._server, request.user, request.method, request.path, query, headers)

    def _ttl(self, operation: str) -> float:
        if operation.startswith("channels."):
            return self._channel_ttl
        return self._message_ttl if operation.startswith("messages.") else 0.0

    def _keep(self, key: Hashable, flight: _Flight, request: Request, response: Response, ttl: float) -> None:
        try:
            size = int(response.headers.get("content-length", "0"))
        except ValueError:
            return
        if size > MAX_ENTRY_BYTES:
            return
        with self._lock:
            if flight.generation == self._generation:  # else something changed while it was under way
                expires = flight.began + ttl
                self._cache.put(key, _Entry(response, expires, request.operation, request.channel, size))

    # ---- mutations

    def _write(self, request: Request, call_next: CallNext) -> Response:
        place = (request.user, request.channel)
        now = self._monotonic()
        shareable = not request.single_try and (request.repeatable or request.key is not None)
        with self._lock:
            other = self._writes.pop(place, None)
            if other is not None and shareable and _same(other.what, request):
                other = self._joinable(other, now)
            else:
                other = None
            flight = other or _Flight(now, self._generation, request)
            if shareable:
                self._writes[place] = flight
        if other is not None:
            response = self._wait(other, request, again=False)
            if response is not None:
                return response
            raise errors.OutcomeUnknownError(
                "the same call was under way and was interrupted", request_id=request.correlation_id
            )
        try:
            response = flight.response = call_next(request)
        except BaseException as error:
            flight.error = error
            raise
        finally:
            self._touch(request.channel)
            if shareable:
                self._landed(self._writes, place, flight)
        return response

    def _touch(self, channel: str) -> None:
        with self._lock:
            self._generation += 1
            if self._reads:
                self._reads.clear()
            if self._cache.entries:
                self._cache.drop_channel(channel)
                self._cache.drop_channel("")

    # ---- sharing

    def _joinable(self, flight: _Flight | None, now: float) -> _Flight | None:
        """The flight, with something to wait on, if it is young enough. Called with the lock held."""
        if flight is None or now - flight.began > self._window:
            return None
        if flight.done is None:
            flight.done = threading.Event()
        return flight

    def _landed(self, flights: dict[Hashable, _Flight], key: Hashable, flight: _Flight) -> None:
        with self._lock:
            if flights.get(key) is flight:
                del flights[key]
            done = flight.done
        if done is not None:
            done.set()

    def _wait(self, flight: _Flight, request: Request, *, again: bool) -> Response | None:
        """The flight's answer. None: it has none that counts for us (its caller was interrupted, or had less time than
        we have and we may ask `again`). Raises what it raised."""
        now = self._monotonic()
        left = self._timeout if request.deadline is None else max(0.0, request.deadline - now)
        done = flight.done
        if done is None or not self._client.clock.wait(done, left):
            raise errors.DeadlineExceeded("the same call is still under way", request_id=request.correlation_id)
        if flight.response is not None:
            return replace(flight.response, from_cache=True)
        error = flight.error
        if not isinstance(error, errors.ChatError) or (again and isinstance(error, TimeoutError)):
            return None
        raise copy.copy(error) from error  # threads that raise one object would mix up its traceback


def _same(other: Hashable | Request, request: Request) -> bool:
    return (
        isinstance(other, Request)
        and other.method == request.method
        and other.path == request.path
        and other.key == request.key
        and other.query == request.query
        and other.body == request.body
        and other.headers == request.headers
    )


@hookimpl
def chatsdk_middleware(client: PluginClient) -> Middleware:
    """The layer."""
    return Middleware("dedup", Stage.DEDUP, Dedup(client))
