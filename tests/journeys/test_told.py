"""What a client tells of its messages and of its end, to handlers and plugins alike."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

from chatsdk import ChatClient
from chatsdk.core.store import State
from chatsdk.devserver.process import DevServer
from chatsdk.plugin import PluginClient, events, hookimpl


class Told:
    """A plugin that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[events.Event] = []

    @hookimpl
    def chatsdk_event(self, client: PluginClient, event: events.Event) -> None:
        self.events.append(event)


def a_client(server: DevServer, state: Path, plugin: Told, **settings: Any) -> ChatClient:
    """alice's, with this plugin and no other."""
    token = server.tokens["alice"]
    return ChatClient(server.url, token, plugins=[plugin], discover=False, state_dir=str(state), **settings)


def test_a_message_is_told_with_the_id_that_the_server_was_told(devserver: DevServer, tmp_path: Path) -> None:
    """Each event of a message carries the correlation id of its call, through retries, and also where another client
    delivers it; it is the request id of each try."""
    devserver.faults("status", operation="send", status=503, times=2)
    accepting, delivering = Told(), Told()
    with closing(a_client(devserver, tmp_path, accepting, background=False)) as chat:
        assert chat.send(devserver.channel_id, "hello", wait=0).state == "QUEUED"
    with closing(a_client(devserver, tmp_path, delivering)) as chat:
        assert chat.outbox.flush(20).sent == 1
    told = [each for each in accepting.events + delivering.events if isinstance(each, events.MessageEvent)]
    assert [type(each) for each in told] == [
        events.MessageQueued,
        events.MessageFailed,
        events.MessageFailed,
        events.MessageSent,
    ]
    (id,) = {each.correlation_id for each in told}
    tries = [each["request_id"] for each in devserver.requests() if each["operation"] == "send"]
    assert tries == [id] * 3
    assert told[-1].to_dict()["correlation_id"] == id


def test_the_end_is_told_once_and_last(devserver: DevServer, tmp_path: Path) -> None:
    """Closing sends what waits, and then says so, once, however often it is called; a user's view closes nothing."""
    plugin, heard = Told(), list[events.Event]()
    chat = a_client(devserver, tmp_path, plugin)
    chat.on("client:closed", heard.append)
    chat.send(devserver.channel_id, "hello", wait=0)
    chat.as_user("alice").close()
    assert heard == []
    chat.close()
    chat.close()
    assert [type(each) for each in heard] == [events.ClientClosed]
    assert heard[0].at > 0
    assert isinstance(plugin.events[-1], events.ClientClosed)
    assert [each.state for each in plugin.events if isinstance(each, events.MessageSent)] == [State.SENT]


def test_a_client_that_did_nothing_closes_without_a_trace(tmp_path: Path) -> None:
    """It tells its handlers, and loads no plugin for it."""
    plugin, heard = Told(), list[events.Event]()
    chat = ChatClient("http://127.0.0.1:1", "t", user="a", plugins=[plugin], discover=False, state_dir=str(tmp_path))
    chat.on(events.ClientClosed, heard.append)
    chat.close()
    assert len(heard) == 1
    assert plugin.events == []
    assert not list(tmp_path.iterdir())
