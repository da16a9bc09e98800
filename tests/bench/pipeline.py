"""What a request costs on its way through the complete default chain, beside the clients that people use otherwise.

Everybody posts the same 250 bytes of JSON over a kept-alive connection to the same server in another process, reads the
answer and parses it. slack_sdk opens a connection for each call: that is how it comes. `http.client` is the floor: what
is left of a client that does nothing for its user.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

from chatsdk import ChatClient
from chatsdk.core.exchange import Call, Json, Request, Response
from chatsdk.network.tries import observed
from chatsdk.pipeline.chain import compose

from .report import Row, alternate, differences, goal, measured, ratios
from .server import KEY, Server

BENCH = "pipeline"
CALLS = 150
"""Of each client in a round; the median of their times is the round's figure."""

CHAIN_CALLS = 5000
_TOKEN = "bench-token"
_PATH = "/api/bench"


def body() -> dict[str, Json]:
    """250 bytes, as JSON."""
    made: dict[str, Json] = {"clientMsgId": KEY, "text": ""}
    made["text"] = "x" * (250 - len(json.dumps(made, separators=(",", ":"))))
    return made


def request() -> Request:
    """The POST, as a backend would build it."""
    return Request(operation="bench.post", method="POST", path=_PATH, body=body(), user="alice", channel=KEY, key=KEY)


# ---- the subjects: each gives a function that makes one call, or None if its package is not installed

Once = Callable[[], object]


@contextlib.contextmanager
def our_client(url: str) -> Iterator[ChatClient]:
    """A client as a user makes it, with the default chain."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as state,
        ChatClient(url, _TOKEN, user="alice", state_dir=state) as chat,
    ):
        yield chat


@contextlib.contextmanager
def _ours(url: str) -> Iterator[Once]:
    with our_client(url) as chat:
        call = Call(request(), _parsed)
        yield lambda: chat.call(call)


def _parsed(response: Response) -> Json:
    return response.body


@contextlib.contextmanager
def _requests(url: str) -> Iterator[Once]:
    import requests

    with requests.Session() as session:
        target, data, headers = url + _PATH, body(), {"Authorization": f"Bearer {_TOKEN}"}
        yield lambda: session.post(target, json=data, headers=headers, timeout=10).json()


@contextlib.contextmanager
def _httpx(url: str) -> Iterator[Once | None]:
    try:
        import httpx
    except ImportError:
        yield None
        return
    with httpx.Client(timeout=10) as client:
        target, data, headers = url + _PATH, body(), {"Authorization": f"Bearer {_TOKEN}"}
        yield lambda: client.post(target, json=data, headers=headers).json()


@contextlib.contextmanager
def _stream_chat(url: str) -> Iterator[Once | None]:
    try:
        from stream_chat import StreamChat
    except ImportError:
        yield None
        return
    client, data = StreamChat("key", "a secret that signs its own token", base_url=url), body()
    try:
        yield lambda: client.post(_PATH[1:], data=data)
    finally:
        client.session.close()


@contextlib.contextmanager
def _slack_sdk(url: str) -> Iterator[Once | None]:
    try:
        from slack_sdk import WebClient
    except ImportError:
        yield None
        return
    client, data = WebClient(token=_TOKEN, base_url=f"{url}/"), body()
    yield lambda: client.api_call(_PATH[1:], json=data)


@contextlib.contextmanager
def _http_client(url: str) -> Iterator[Once]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)
    data = json.dumps(body(), separators=(",", ":"))
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {_TOKEN}"}

    def call() -> Json:
        connection.request("POST", _PATH, data, headers)
        return json.loads(connection.getresponse().read())

    try:
        yield call
    finally:
        connection.close()


SUBJECTS = {
    "chatsdk": _ours,
    "requests.Session.post": _requests,
    "httpx.Client.post": _httpx,
    "stream-chat": _stream_chat,
    "slack_sdk WebClient": _slack_sdk,
    "http.client": _http_client,
}


# ---- measuring


def each_time(call: Once, count: int) -> float:
    """Microseconds of one of `count` calls, the median."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return median(taken) * 1e6


CHAIN = "the chain without transport"
OBSERVED = "with telemetry and network monitor"
UNOBSERVED = "without the two"


@contextlib.contextmanager
def chains_alone(url: str) -> Iterator[dict[str, Once]]:
    """The default chain, with an answer that is there already in the transport's place: as it is, as a client has it
    that observes its network, and with nothing that observes."""
    answer = Response(status=201, body={"ok": True})
    with our_client(url) as chat:
        parts = chat._parts
        layers = parts.registry.layers()
        exchange = observed(lambda _: answer, parts.condition.network.sample, parts.clock.monotonic)
        chains = {
            CHAIN: compose(layers, lambda _: answer),
            OBSERVED: compose(layers, exchange),
            UNOBSERVED: compose([layer for layer in layers if layer.plugin != "telemetry"], lambda _: answer),
        }
        asked = request().replace(correlation_id=KEY)
        yield {name: partial(chain, asked) for name, chain in chains.items()}


def run(rounds: int = 9, *, calls: int = CALLS, chain_calls: int = CHAIN_CALLS) -> Iterator[Row]:
    """Measure; about ten seconds with nine rounds."""
    with Server() as server, contextlib.ExitStack() as stack:
        subjects: dict[str, Callable[[], float] | None] = {}
        for name, make in SUBJECTS.items():
            once = stack.enter_context(make(server.url))
            if once is not None:
                once()  # connections are made, modules are loaded
            subjects[name] = None if once is None else partial(each_time, once, calls)
        series = alternate(rounds, subjects)
        chains = stack.enter_context(chains_alone(server.url))
        alone = alternate(
            rounds, {name: partial(each_time, chain, chain_calls) for name, chain in chains.items()}, least_of=2
        )
    ours = series["chatsdk"]
    yield from measured(BENCH, "POST of 250 bytes, keep-alive", series, "us")
    yield from measured(BENCH, "the chain", alone, "us")
    for name, limit in (
        ("requests.Session.post", 0.60),
        ("httpx.Client.post", 0.90),
        ("stream-chat", 0.60),
        ("slack_sdk WebClient", 1.00),
    ):
        yield goal(BENCH, f"POST through the default chain : {name}", ratios(ours, series[name]), limit)
    yield goal(BENCH, "the chain without transport, us", alone[CHAIN], 10.0)
    yield goal(BENCH, "telemetry and network monitor, us a call", differences(alone[OBSERVED], alone[UNOBSERVED]), 8.0)
