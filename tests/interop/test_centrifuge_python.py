"""centrifuge-python, a client that nobody here wrote, works against the development server."""

from __future__ import annotations

import asyncio
import gc
import json
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import centrifuge
import pytest

from chatsdk.devserver.process import DevServer
from tests.devserver.caller import call, send

WAIT_S = 10.0


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    """Give one server to all tests of this file; each has a channel of its own."""
    with DevServer(ping_interval=1, pong_timeout=1) as started:
        yield started


class Heard(centrifuge.ClientEventHandler, centrifuge.SubscriptionEventHandler):  # type: ignore[misc]
    """Everything that a client was told, as (name, what matters)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []
        self.changed = asyncio.Condition()

    async def on_publication(self, ctx: Any) -> None:
        await self.note("publication", ctx.pub.data)

    async def on_subscribed(self, ctx: Any) -> None:
        await self.note("subscribed", (ctx.was_recovering, ctx.recovered))

    async def on_unsubscribed(self, ctx: Any) -> None:
        await self.note("unsubscribed", getattr(ctx, "code", None))

    async def on_join(self, ctx: Any) -> None:
        await self.note("join", ctx.info.user)

    async def on_leave(self, ctx: Any) -> None:
        await self.note("leave", ctx.info.user)

    async def on_connected(self, ctx: Any) -> None:
        await self.note("connected", ctx.client)

    async def on_connecting(self, ctx: Any) -> None:
        await self.note("connecting", ctx.code)

    async def on_disconnected(self, ctx: Any) -> None:
        await self.note("disconnected", ctx.code)

    async def note(self, name: str, value: Any) -> None:
        async with self.changed:
            self.events.append((name, value))
            self.changed.notify_all()

    def all(self, name: str) -> list[Any]:
        return [value for found, value in self.events if found == name]

    async def until(self, name: str, count: int = 1) -> list[Any]:
        """Waits until so many of these came; returns all of them."""
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(lambda: len(self.all(name)) >= count), WAIT_S)
        return self.all(name)


class Bot:
    """A client of one user with everything that it heard."""

    def __init__(self, server: DevServer, user: str, **options: Any) -> None:
        self.server, self.user = server, user
        self.heard, self.told = Heard(), Heard()
        self.tokens_asked = 0
        self.client = centrifuge.Client(
            server.ws_url, events=self.told, get_token=self.token, min_reconnect_delay=0.05, **options
        )

    async def token(self, *_: Any) -> str:
        self.tokens_asked += 1
        return await asyncio.to_thread(self.ws_token)

    def ws_token(self) -> str:
        return self.server.session(self.user)["wsToken"]

    def subscription(self, stream: str, **options: Any) -> Any:
        async def token(channel: str) -> str:
            reply = await asyncio.to_thread(self.ask, channel)
            assert reply.status == 200, reply
            return str(reply.body["token"])

        return self.client.new_subscription(stream, events=self.heard, get_token=token, **options)

    def ask(self, stream: str) -> Any:
        path, body = "/api/realtime/subscription-token", {"channel": stream}
        return call(self.server, "POST", path, body, token=self.server.mint(self.user))


@asynccontextmanager
async def connected(server: DevServer, user: str, **options: Any) -> Any:
    """A connected bot, which goes in the end."""
    bot = Bot(server, user, **options)
    await bot.client.connect()
    await bot.client.ready(WAIT_S)
    try:
        yield bot
    finally:
        await bot.client.disconnect()


def run(body: Callable[[], Awaitable[None]]) -> None:
    """Runs a test's body, and clears up after the client: it closes its sockets in tasks that nobody waits for."""

    async def whole() -> None:
        await asyncio.wait_for(body(), 30.0)
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(left, timeout=2.0)

    asyncio.run(whole())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_centrifuge_python_subscribes_and_hears_what_is_sent(server: DevServer) -> None:
    """With tokens of the API it connects, subscribes, and hears messages sent over HTTP, in order."""

    async def body() -> None:
        channel = server.channel("alice", "bob")
        async with connected(server, "bob") as bob:
            subscription = bob.subscription(server.stream(channel))
            await subscription.subscribe()
            await subscription.ready(WAIT_S)
            for number in range(20):
                assert (await asyncio.to_thread(send, server, f"m{number}", channel=channel)).status == 201
            events = await bob.heard.until("publication", 20)
            assert [event["type"] for event in events] == ["message.new"] * 20
            messages = [event["payload"]["message"] for event in events]
            assert [(message["text"], message["seq"]) for message in messages] == [
                (f"m{number}", number + 1) for number in range(20)
            ]

    run(body)


def test_centrifuge_python_recovers_after_a_cut(server: DevServer) -> None:
    """A cut client comes back by itself and gets what was published meanwhile, once and in order."""

    async def body() -> None:
        channel = server.channel("alice", "bob")
        stream = server.stream(channel)
        async with connected(server, "bob", max_reconnect_delay=0.5) as bob:
            subscription = bob.subscription(stream, recoverable=True)
            await subscription.subscribe()
            await subscription.ready(WAIT_S)
            server.realtime.publish(stream, {"n": 0})
            await bob.heard.until("publication", 1)
            for turn in range(3):
                await asyncio.to_thread(server.realtime.refuse, 503, for_s=0.3)
                await asyncio.to_thread(server.realtime.cut)
                await asyncio.to_thread(server.realtime.publish, stream, *({"n": 1 + turn * 5 + n} for n in range(5)))
                recovered = await bob.heard.until("subscribed", turn + 2)
                assert recovered[-1] == (True, True)
                heard = await bob.heard.until("publication", 6 + turn * 5)
                assert [event["n"] for event in heard] == list(range(6 + turn * 5))

    run(body)


def test_centrifuge_python_learns_that_nothing_can_be_recovered() -> None:
    """After an epoch reset it is told so and subscribes anew."""

    async def body() -> None:
        with DevServer() as server:
            stream = server.stream()
            async with connected(server, "bob") as bob:
                subscription = bob.subscription(stream, recoverable=True)
                await subscription.subscribe()
                await subscription.ready(WAIT_S)
                await asyncio.to_thread(server.realtime.publish, stream, {"n": 0})
                await bob.heard.until("publication", 1)
                await asyncio.to_thread(server.realtime.epoch_reset)
                assert (await bob.heard.until("subscribed", 2))[-1] == (True, False)

    run(body)


def test_centrifuge_python_refreshes_its_tokens() -> None:
    """Connection and subscription tokens are renewed in time: nobody is cut off, nothing is missed."""

    async def body() -> None:
        with DevServer(expired_close_delay=2, expired_unsubscribe_delay=2) as server:
            stream = server.stream()

            class ShortLived(Bot):
                def ws_token(self) -> str:
                    return self.server.session(self.user, ttl=2)["wsToken"]

                def ask(self, channel: str) -> Any:
                    self.subscription_tokens = getattr(self, "subscription_tokens", 0) + 1
                    token = self.server.subscription_token(channel, self.user, ttl=2)
                    return type("Reply", (), {"status": 200, "body": {"token": token}})

            bob = ShortLived(server, "bob")
            await bob.client.connect()
            subscription = bob.subscription(stream)
            await subscription.subscribe()
            await subscription.ready(WAIT_S)
            ends = asyncio.get_running_loop().time() + 8
            while (bob.tokens_asked < 3 or bob.subscription_tokens < 3) and asyncio.get_running_loop().time() < ends:
                await asyncio.sleep(0.05)
            await asyncio.to_thread(server.realtime.publish, stream, "still here")
            assert await bob.heard.until("publication", 1) == ["still here"]
            assert bob.tokens_asked >= 3
            assert bob.subscription_tokens >= 3
            assert len(bob.told.all("connected")) == 1
            assert len(bob.heard.all("subscribed")) == 1
            await bob.client.disconnect()

    run(body)


def test_centrifuge_python_sees_who_comes_and_goes(server: DevServer) -> None:
    """Join and leave of another client, and one's own join."""

    async def body() -> None:
        channel = server.channel("alice", "bob")
        names = [f"{server.app_id}:{user}" for user in ("bob", "alice")]
        async with connected(server, "bob") as bob:
            first = bob.subscription(server.stream(channel))
            await first.subscribe()
            await first.ready(WAIT_S)
            async with connected(server, "alice") as alice:
                second = alice.subscription(server.stream(channel))
                await second.subscribe()
                await second.ready(WAIT_S)
                assert await bob.heard.until("join", 2) == names
            assert await bob.heard.until("leave", 1) == [names[1]]

    run(body)


def test_centrifuge_python_uses_what_subscribers_may(server: DevServer) -> None:
    """Where the namespace permits it: publish, history, presence; elsewhere it is refused, and the connection lives."""

    async def body() -> None:
        stream = "forced:app:open"
        async with connected(server, "bob") as bob:
            bob.ask = lambda channel: type(
                "Reply", (), {"status": 200, "body": {"token": server.subscription_token(channel, "bob")}}
            )
            subscription = bob.subscription(stream)
            await subscription.subscribe()
            await subscription.ready(WAIT_S)
            await subscription.publish({"hello": 1})
            await subscription.publish({"hello": 2})
            assert await bob.heard.until("publication", 2) == [{"hello": 1}, {"hello": 2}]
            history = await subscription.history(limit=10)
            assert [(each.offset, each.data) for each in history.publications] == [(1, {"hello": 1}), (2, {"hello": 2})]
            assert history.offset == 2
            presence = await subscription.presence()
            assert [info.user for info in presence.clients.values()] == [f"{server.app_id}:bob"]
            stats = await subscription.presence_stats()
            assert (stats.num_clients, stats.num_users) == (1, 1)
            closed = bob.subscription(server.stream())
            await closed.subscribe()
            await closed.ready(WAIT_S)
            with pytest.raises(centrifuge.ReplyError) as refused:
                await closed.publish("no")
            assert refused.value.code == 103
            with pytest.raises(centrifuge.ReplyError) as unavailable:
                await bob.client.rpc("method", {})
            assert unavailable.value.code == 108

    run(body)


def test_centrifuge_python_obeys_the_server(server: DevServer) -> None:
    """Taken off a channel it stays out; disconnected for good it does not come back; closed with 4001 it does."""

    async def body() -> None:
        channel = server.channel("alice", "bob")
        async with connected(server, "bob", max_reconnect_delay=0.5) as bob:
            subscription = bob.subscription(server.stream(channel))
            await subscription.subscribe()
            await subscription.ready(WAIT_S)
            path = f"/api/channels/{channel}/members/bob"
            assert (await asyncio.to_thread(call, server, "DELETE", path, user="alice")).status == 200
            assert await bob.heard.until("unsubscribed") == [2000]
            await asyncio.to_thread(
                server.realtime.api, "disconnect", user="bob", disconnect={"code": 4001, "reason": "come back"}
            )
            await bob.told.until("connected", 2)
            await asyncio.to_thread(server.end_sessions, "bob")
            assert await bob.told.until("disconnected") == [3503]

    run(body)


def test_centrifuge_python_lives_by_pings(server: DevServer) -> None:
    """Over three pings of the server the connection stays one and the same."""

    async def body() -> None:
        async with connected(server, "alice") as alice:
            await asyncio.sleep(3.2)
            assert len(alice.told.all("connected")) == 1
            assert json.dumps(server.realtime.overview()["connections"]).count(f"{server.app_id}:alice") == 1

    run(body)
