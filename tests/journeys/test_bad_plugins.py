"""A broken plugin is disabled or blamed by name; it never costs a message, a thread or the program."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chatsdk import ChatClient, NotAcceptedError, PluginError, Reason, State, events
from chatsdk.plugin import CallNext, Middleware, Request, Response, Stage, hookimpl
from tests.waiting import eventually

BROKEN = {
    "broken_import": 'raise RuntimeError("broken on import")',
    "broken_syntax": "def (:",
    "broken_exit": 'raise SystemExit("broken on exit")',
    "broken_hook": "from chatsdk.plugin import hookimpl\n@hookimpl\ndef chatsdk_middleware(cleint): pass",
    "broken_answer": "from chatsdk.plugin import hookimpl\n@hookimpl\ndef chatsdk_middleware(client): return 5",
    "broken_making": "from chatsdk.plugin import hookimpl\n@hookimpl\ndef chatsdk_middleware(client): 1 / 0",
    "no_hooks": "x = 1",
}


def install(directory: Path, modules: dict[str, str]) -> None:
    """Lay a distribution with these modules as plugins into a directory, as pip does."""
    for name, source in modules.items():
        (directory / f"{name}.py").write_text(source)
    facts = directory / "chatsdk_contrib_broken-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: chatsdk-contrib-broken\nVersion: 1.0\n")
    points = [f"{name} = {name}" for name in [*modules, "broken_missing"]]
    (facts / "entry_points.txt").write_text("[chatsdk]\n" + "\n".join(points) + "\n")


def test_broken_plugins_that_are_installed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    connect: Callable[..., ChatClient],
    channel: str,
) -> None:
    """Each is warned of by its name and its distribution, and listed with its error; the client works."""
    install(tmp_path, BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    chat = connect(discover=True)
    failed: list[events.PluginFailed] = []
    chat.on("plugin:failed", failed.append)
    with pytest.warns(RuntimeWarning) as warned:
        assert chat.send(channel, "text").state is State.SENT
    said = "\n".join(str(each.message) for each in warned)
    listed = {plugin["name"]: plugin for plugin in chat.plugins()}
    for name in (*BROKEN, "broken_missing"):
        assert name in said
        assert listed[name]["error"]
        assert listed[name]["distribution"] == "chatsdk-contrib-broken"
    assert {event.plugin for event in failed} == {*BROKEN, "broken_missing"}
    with pytest.raises(PluginError) as caught:
        connect(discover=True, strict=True).send(channel, "text")
    assert caught.value.hint


class Faulty:
    """A plugin whose layer does what it is told to."""

    chatsdk_name = "faulty"

    def __init__(self, stage: Stage, act: Callable[[Request, CallNext], Any]) -> None:
        self.stage = stage
        self.act = act

    @hookimpl
    def chatsdk_middleware(self) -> Middleware:
        """One layer."""
        return Middleware("faulty", self.stage, lambda request, call_next: self.act(request, call_next))


def _raises(request: Request, call_next: CallNext) -> Response:
    raise ZeroDivisionError("the plugin's own mistake")


def _raises_after(request: Request, call_next: CallNext) -> Response:
    call_next(request)
    raise KeyError("the plugin's own mistake")


def _exits(request: Request, call_next: CallNext) -> Response:
    raise SystemExit("the plugin wants to leave")


def _returns_nothing(request: Request, call_next: CallNext) -> None:
    call_next(request)


def _passes_nothing(request: Request, call_next: CallNext) -> Response:
    return call_next(None)  # type: ignore[arg-type]


def _recurses(request: Request, call_next: CallNext) -> Response:
    return _recurses(request, call_next)


MISTAKES = [_raises, _raises_after, _exits, _returns_nothing, _passes_nothing, _recurses]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda each: each.__name__.strip("_"))
@pytest.mark.parametrize("stage", [Stage.CALL, Stage.ATTEMPT], ids=lambda each: each.name)
def test_layer_that_fails(
    stage: Stage,
    mistake: Callable[[Request, CallNext], Any],
    connect: Callable[..., ChatClient],
    channel: str,
    texts: Callable[[str], list[str]],
) -> None:
    """The lane is parked with the reason `plugin`, uses up no attempt, and everything is delivered, once, as soon as
    the plugin is repaired. Direct calls raise PluginError with its name."""
    plugin = Faulty(stage, mistake)
    chat = connect(plugins=[plugin])
    with pytest.raises(PluginError) as caught:
        chat.channels.get(channel, fresh=True)
    assert (caught.value.plugin, bool(caught.value.hint)) == ("faulty", True)
    receipts = [chat.send(channel, f"{n}", wait=0.2) for n in range(3)]
    assert {receipt.state for receipt in receipts} == {State.QUEUED}
    assert receipts[0].reason is Reason.PLUGIN
    assert receipts[0].attempts == 0
    assert chat.circuits["api"].state == "closed"
    assert chat.outbox.stats().dead == 0
    plugin.act = lambda request, call_next: call_next(request)
    assert [receipt.wait(20).state for receipt in receipts] == [State.SENT] * 3
    assert texts(channel) == ["0", "1", "2"]
    assert any(thread.name.startswith("chatsdk") for thread in threading.enumerate())


class Refusing:
    """A plugin that moderates, or fails to."""

    def __init__(self, act: Callable[[Request], Any]) -> None:
        self.act = act

    @hookimpl
    def chatsdk_accept(self, request: Request) -> Any:
        """What it is told to do."""
        return self.act(request)


def _refuses(request: Request) -> None:
    raise NotAcceptedError("mind your language")


def _breaks(request: Request) -> None:
    raise ValueError("broken")


@pytest.mark.parametrize(
    "act",
    [
        _refuses,
        _breaks,
        lambda request: 5,
        lambda request: request.replace(key=None),
        lambda request: request.replace(channel="elsewhere"),
        lambda request: request.replace(user="bob"),
        lambda request: request.with_body(text=object()),
        lambda request: request.with_body(text=""),
    ],
    ids=["refuses", "raises", "no request", "key", "channel", "user", "no JSON", "no text"],
)
def test_plugin_that_does_not_accept(
    act: Callable[[Request], Any], connect: Callable[..., ChatClient], channel: str
) -> None:
    """`send` raises NotAcceptedError with a hint, and nothing happened."""
    chat = connect(plugins=[Refusing(act)])
    with pytest.raises(NotAcceptedError) as caught:
        chat.send(channel, "text")
    assert caught.value.hint
    assert chat.outbox.stats().accepted == 0


class Listening:
    """A plugin that fails at every event."""

    @hookimpl
    def chatsdk_event(self, event: events.Event) -> None:
        """Fail."""
        raise RuntimeError("a bad listener")


def test_listeners_that_raise(
    connect: Callable[..., ChatClient], channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither a plugin's nor a handler's mistake reaches the sender; each is logged once, with its name."""
    chat = connect(plugins=[Listening()])

    def bad_handler(event: events.Event) -> None:
        raise RuntimeError("a bad handler")

    heard: list[events.MessageSent] = []
    chat.on(events.Event, bad_handler)
    chat.on(events.MessageSent, heard.append)
    for n in range(5):
        assert chat.send(channel, f"{n}").state is State.SENT
    eventually(lambda: len(heard) == 5)
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert sum("bad_handler" in each for each in said) == 1
    assert sum("Listening" in each for each in said) == 1
