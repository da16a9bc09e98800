"""Starting a development server and keeping it running: socket, secrets, first users, readiness, the closed door.

Rules: nothing starts at import; `run` blocks until the server is told to stop. What people and programs copy (users,
channel, secrets) belongs to the data file and survives restarts. A server that other machines could reach must be asked
for, and says so loudly.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from chatsdk.devserver import wire
from chatsdk.devserver.api import HttpApi
from chatsdk.devserver.clock import DevClock
from chatsdk.devserver.faults import FaultBook
from chatsdk.devserver.limits import RateLimiter
from chatsdk.devserver.realtime.connection import Connection
from chatsdk.devserver.realtime.events import Events
from chatsdk.devserver.realtime.hub import Hub
from chatsdk.devserver.realtime.rooms import Rooms
from chatsdk.devserver.realtime.upgrade import Upgrader
from chatsdk.devserver.settings import (
    ALL_SCOPES,
    APP_ID,
    GENERAL_CHANNEL_ID,
    WELL_KNOWN_USERS,
    ServerSettings,
    is_loopback,
)
from chatsdk.devserver.store.channels import Channels
from chatsdk.devserver.store.database import Database
from chatsdk.devserver.store.log import Log
from chatsdk.devserver.store.messages import Messages
from chatsdk.devserver.store.people import People
from chatsdk.devserver.store.sessions import Sessions
from chatsdk.devserver.tokens import Tokens
from chatsdk.devserver.world import World

logger = logging.getLogger(__name__)


class RemoteNotAllowed(ValueError):
    """The host can be reached from other machines, and nobody asked for that."""


@dataclass(frozen=True)
class Ready:
    """What one needs to use a server that is up. `tokens`: user to access token; `secret` signs tokens of one's own."""

    url: str
    host: str
    port: int
    pid: int
    app_id: str
    api_key: str
    secret: str
    ws_secret: str
    channel_id: str
    tokens: dict[str, str]
    ws_tokens: dict[str, str]

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def build_world(settings: ServerSettings, clock: DevClock | None = None) -> World:
    """Opens the data file and puts the parts together; makes the first users and channel where they are missing."""
    clock = clock or DevClock()
    db = Database(settings.data)
    log, people, channels, faults = Log(db), People(db), Channels(db), FaultBook()
    hub = Hub(settings, db, clock, faults)
    events = Events(APP_ID, hub, people, channels)
    world = World(
        settings=settings,
        db=db,
        clock=clock,
        tokens=Tokens(
            secret=db.setting("secret", secrets.token_hex(32)),
            ws_secret=db.setting("ws_secret", secrets.token_hex(32)),
            app=APP_ID,
            clock=clock,
        ),
        api_key=db.setting("api_key", "dev_" + secrets.token_hex(16)),
        faults=faults,
        limits=RateLimiter(),
        people=people,
        sessions=Sessions(db),
        channels=channels,
        messages=Messages(db),
        log=log,
        hub=hub,
        events=events,
        rooms=Rooms(APP_ID, channels, events),
        started=clock.seconds(),
        ordinal=log.last_ordinal(),
    )
    hub.upgrade = Upgrader(world)
    with db.transaction():
        world.furnish()
    return world


def run(settings: ServerSettings, on_ready: Callable[[Ready], None] | None = None) -> None:
    """Runs a server until SIGTERM or SIGINT; `on_ready` is called once it answers.

    Raises `RemoteNotAllowed`, `DataFileError`, or OSError where the address cannot be had.
    """
    if not is_loopback(settings.host):
        if not settings.allow_remote:
            raise RemoteNotAllowed(
                f"{settings.host} can be reached from other machines. A development server hands out tokens to anybody;"
                " ask for it explicitly (allow_remote) if that is what you want."
            )
        logger.warning(
            "THE DEVELOPMENT SERVER LISTENS ON %s: everybody who can reach it can read, write and become any user",
            settings.host,
        )
    listener = _listen(settings.host, settings.port)
    world = build_world(settings)
    try:
        _Server(settings, world, listener, on_ready).run(sockets=[listener])
    finally:
        world.db.close()
        listener.close()


class _Server(uvicorn.Server):
    """uvicorn's server that reports when it is up and can close its door for a while."""

    def __init__(
        self,
        settings: ServerSettings,
        world: World,
        listener: socket.socket,
        on_ready: Callable[[Ready], None] | None,
    ) -> None:
        self.settings, self.world, self.on_ready = settings, world, on_ready
        self.address: tuple[str, int] = listener.getsockname()[:2]
        self.closed_until = 0.0
        api = HttpApi(world, refuse=self.refuse)
        super().__init__(
            uvicorn.Config(
                Starlette(routes=[Mount("/", app=api)]),
                http=wire.WireProtocol,
                ws=self._websocket,  # type: ignore[arg-type]
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=max(1, round(settings.keep_alive)),
                timeout_graceful_shutdown=1,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.settings.exit_with_stdin:
            self._watch_stdin(asyncio.get_running_loop())
        ready = self._ready()
        if self.settings.ready_file is not None:
            _write_whole(self.settings.ready_file, ready.to_json())
        if self.on_ready is not None:
            self.on_ready(ready)

    def refuse(self, seconds: float) -> None:
        """Closes the door: the port refuses connections and open ones are reset, for so many seconds."""
        loop = asyncio.get_running_loop()
        was_open = loop.time() >= self.closed_until
        self.closed_until = max(self.closed_until, loop.time() + seconds)
        if was_open:
            task = loop.create_task(self._closed_door())
            self.server_state.tasks.add(task)
            task.add_done_callback(self.server_state.tasks.discard)

    async def _closed_door(self) -> None:
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            wire.reset(connection.transport)
        loop = asyncio.get_running_loop()
        while not self.should_exit:
            await asyncio.sleep(min(0.05, max(0.0, self.closed_until - loop.time())))
            if loop.time() < self.closed_until:
                continue
            try:
                listener = _listen(*self.address)
            except OSError:
                self.closed_until = loop.time() + 0.05  # somebody else has the port just now
                continue
            self.servers = [await loop.create_server(self._protocol, sock=listener)]
            return

    def _protocol(self) -> asyncio.Protocol:
        return wire.WireProtocol(self.config, self.server_state, self.lifespan.state)

    def _websocket(self, server_state: Any, **_: Any) -> asyncio.Protocol:
        """What uvicorn gives an upgraded connection to."""
        return Connection(self.world.hub, server_state)

    def _watch_stdin(self, loop: asyncio.AbstractEventLoop) -> None:
        def wait_for_the_end() -> None:
            while os.read(0, 4096):
                pass
            loop.call_soon_threadsafe(self._leave)

        threading.Thread(target=wait_for_the_end, name="chatsdk-devserver-stdin", daemon=True).start()

    def _leave(self) -> None:
        self.should_exit = True

    def _ready(self) -> Ready:
        world, (host, port) = self.world, self.address
        shown = f"[{host}]" if ":" in host else host
        users = [user for user, _ in WELL_KNOWN_USERS]
        ttl = self.settings.token_ttl
        return Ready(
            url=f"http://{shown}:{port}",
            host=host,
            port=port,
            pid=os.getpid(),
            app_id=world.app,
            api_key=world.api_key,
            secret=world.tokens.secret,
            ws_secret=world.tokens.ws_secret,
            channel_id=GENERAL_CHANNEL_ID,
            tokens={user: world.mint(user, "access", ttl, ALL_SCOPES) for user in users},
            ws_tokens={user: world.mint(user, "ws", ttl, ALL_SCOPES) for user in users},
        )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restarted server takes its port back at once, though old connections linger in TIME_WAIT.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def _write_whole(path: str, text: str) -> None:
    """Writes a file that its reader finds either not at all or complete; only the owner may read it."""
    partial = f"{path}.{os.getpid()}.part"
    with os.fdopen(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        file.write(text + "\n")
    os.replace(partial, path)


def describe(ready: Ready) -> str:
    """What `serve` prints: ready for copy and paste."""
    lines: list[Any] = [f"chatsdk development server: {ready.url}", "", f"CHATSDK_URL={ready.url}"]
    lines += [f"CHATSDK_TOKEN={token}  # {user}" for user, token in ready.tokens.items()]
    lines += [f"CHATSDK_WS_TOKEN={token}  # {user}" for user, token in ready.ws_tokens.items()]
    lines += [f"channel general: {ready.channel_id}", f"API key: {ready.api_key}"]
    return "\n".join(lines) + "\n"


def announce(ready: Ready, *, as_json: bool) -> None:
    """Writes the above, or one JSON line, to standard output."""
    sys.stdout.write(ready.to_json() + "\n" if as_json else describe(ready))
    sys.stdout.flush()
