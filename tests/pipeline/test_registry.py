"""Plugins: which are taken, in what order, and what becomes of broken ones."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from chatsdk.core.errors import InvalidMessage, NotAcceptedError, PluginError
from chatsdk.core.events import Event, MessageSent, PluginFailed
from chatsdk.core.exchange import CallNext, Request, Response
from chatsdk.hookspecs import SPEC_VERSION, Middleware, Stage, hookimpl
from chatsdk.pipeline.registry import Registry
from tests.pipeline.kit import Client, Script, send

BUILT_IN = ["telemetry", "dedup", "retry", "breaker", "auth", "accept"]


class Point:
    """An entry point that loads what it is told."""

    def __init__(
        self, name: str, load: Callable[[], Any], dist: str = "chatsdk-contrib-x", version: str = "1.0"
    ) -> None:
        self.name = name
        self.value = f"{name}:plugin"
        self.load = load
        self.dist = SimpleNamespace(name=dist, version=version)


def through(request: Request, call_next: CallNext) -> Response:
    return call_next(request)


def plugin(name: str, **hooks: Callable[..., Any]) -> ModuleType:
    """A plugin module with these hooks; each is marked, unless it is already."""
    module = ModuleType(name)
    for hook, function in hooks.items():
        setattr(module, hook, function if hasattr(function, "chatsdk_impl") else hookimpl(function))
    return module


def layers_of(name: str, stage: Stage = Stage.CALL, *, tryfirst: bool = False, trylast: bool = False) -> ModuleType:
    """A plugin with one layer."""

    @hookimpl(tryfirst=tryfirst, trylast=trylast)
    def chatsdk_middleware() -> Middleware:
        return Middleware(name, stage, through)

    return plugin(name, chatsdk_middleware=chatsdk_middleware)


def registry(*given: Any, points: Sequence[Point] = (), **settings: Any) -> tuple[Registry, Client]:
    client = Client(**{"discover": bool(points), **settings})
    return Registry(client, given, entry_points=lambda: points), client  # type: ignore[arg-type, return-value]


def about(registry: Registry, name: str) -> dict[str, Any]:
    return next(facts for facts in registry.describe() if facts["name"] == name)


# ---- order


def test_built_in_plugins_are_always_there() -> None:
    """Without discovery, without installation: the five layers, in the order of their stages, and the accept check."""
    plugins, _ = registry()
    assert [facts["name"] for facts in plugins.describe()] == BUILT_IN
    assert [layer.middleware.name for layer in plugins.layers()] == ["telemetry", "dedup", "retry", "breaker", "auth"]
    assert all(facts["built_in"] and not facts["error"] for facts in plugins.describe())


def test_third_parties_stand_at_their_stages() -> None:
    """CALL is once per call, ATTEMPT once per try; tryfirst and trylast order inside a stage, else registration."""
    plugins, _ = registry(
        layers_of("last", trylast=True),
        layers_of("one"),
        layers_of("two"),
        layers_of("first", tryfirst=True),
        layers_of("try", Stage.ATTEMPT),
    )
    order = [layer.middleware.name for layer in plugins.layers()]
    assert order == [
        "telemetry",
        *("first", "one", "two", "last"),
        *("dedup", "retry"),
        "try",
        *("breaker", "auth"),
    ]


def test_several_layers_of_one_plugin() -> None:
    """A plugin may return a list of layers, or None."""

    def chatsdk_middleware() -> list[Middleware]:
        return [Middleware("a", Stage.CALL, through), Middleware("b", Stage.ATTEMPT, through)]

    plugins, _ = registry(
        plugin("both", chatsdk_middleware=chatsdk_middleware), plugin("no", chatsdk_middleware=lambda: None)
    )
    assert about(plugins, "both")["layers"] == [{"name": "a", "stage": "CALL"}, {"name": "b", "stage": "ATTEMPT"}]
    assert about(plugins, "no") == {
        "name": "no",
        "distribution": "given to the client",
        "version": "",
        "built_in": False,
        "hooks": ["chatsdk_middleware"],
        "layers": [],
        "error": "",
    }


def test_hooks_get_the_client_and_their_own_settings() -> None:
    """`client` and `config` are handed over to who asks for them; config is the plugin's own, and read only."""
    seen: list[Any] = []

    def chatsdk_middleware(config: Mapping[str, Any], client: Any) -> None:
        seen.extend([client, dict(config)])
        with pytest.raises(TypeError):
            config["x"] = 1  # type: ignore[index]

    plugins, client = registry(
        plugin("mine", chatsdk_middleware=chatsdk_middleware), plugins={"mine": {"loud": True}, "other": {"b": 2}}
    )
    plugins.layers()
    assert seen == [client, {"loud": True}]


def test_name_of_a_given_plugin() -> None:
    """The last part of a module's name, a class's name, or what it calls itself."""

    class Shout:
        @hookimpl
        def chatsdk_middleware(self) -> None: ...

    class Named(Shout):
        chatsdk_name = "quiet"

    plugins, _ = registry(Shout(), Named(), layers_of("my.app.plug"))
    assert [facts["name"] for facts in plugins.describe()][6:] == ["Shout", "quiet", "plug"]


# ---- discovery


def test_entry_points_are_loaded_by_name() -> None:
    """The entry point's name is the plugin's name; distribution and version are shown."""
    points = [Point("b", lambda: layers_of("x")), Point("a", lambda: layers_of("y"), "chatsdk-contrib-y", "2.1")]
    plugins, _ = registry(points=points)
    assert [facts["name"] for facts in plugins.describe()][6:] == ["a", "b"]
    assert (about(plugins, "a")["distribution"], about(plugins, "a")["version"]) == ("chatsdk-contrib-y", "2.1")


def test_nothing_is_loaded_before_the_first_question() -> None:
    """Making a registry imports and finds nothing; `discover=False` never looks."""

    def explode() -> Any:
        raise AssertionError("looked for entry points")

    client = Client(discover=True)
    Registry(client, entry_points=explode)
    Registry(Client(discover=False), entry_points=explode).describe()


def test_real_entry_points_are_scanned() -> None:
    """The default looks for the group `chatsdk` of what is installed."""
    Registry(Client(discover=True)).describe()
    assert EntryPoint("x", "json", "chatsdk").load().__name__ == "json"


def test_turned_off_by_the_settings() -> None:
    """`[plugins.NAME] enabled = false` keeps a plugin from being imported at all; a built-in one stays."""

    def explode() -> Any:
        raise AssertionError("imported")

    for off in (False, "false", "0"):
        plugins, _ = registry(
            points=[Point("loud", explode)], plugins={"loud": {"enabled": off}, "retry": {"enabled": off}}
        )
        assert about(plugins, "loud")["error"] == "turned off by the settings"
        assert about(plugins, "retry")["error"] == ""


# ---- broken ones


def raises_on_import() -> Any:
    raise ImportError("no module named nonsense")


def wrong_arguments() -> ModuleType:
    return plugin("x", chatsdk_middleware=lambda no_such_argument: None)


def no_hooks() -> ModuleType:
    module = ModuleType("x")
    module.chatsdk_middleware = lambda: None  # type: ignore[attr-defined]  # not marked
    return module


def raising_hook() -> ModuleType:
    def chatsdk_middleware() -> None:
        raise ZeroDivisionError

    return plugin("x", chatsdk_middleware=chatsdk_middleware)


def newer() -> ModuleType:
    module = layers_of("x")
    module.chatsdk_spec_version = SPEC_VERSION + 1  # type: ignore[attr-defined]
    return module


def returning(value: Any) -> Callable[[], ModuleType]:
    return lambda: plugin("x", chatsdk_middleware=lambda: value)


BROKEN = [
    (raises_on_import, "no module named nonsense"),
    (wrong_arguments, "no_such_argument"),
    (no_hooks, "hookimpl"),
    (raising_hook, "ZeroDivisionError"),
    (newer, "needs version"),
    (returning(42), "not int"),
    (returning([through]), "not function"),
    (returning(Middleware("x", Stage.CALL, None)), "can't be called"),  # type: ignore[arg-type]
    (returning(Middleware("x", 25, through)), "no stage 25"),  # type: ignore[arg-type]
    (lambda: None, ""),
]


@pytest.mark.parametrize(("load", "reason"), BROKEN)
def test_broken_plugin_is_disabled_and_named(load: Callable[[], Any], reason: str) -> None:
    """It is warned about once, told as an event and shown; everything else works."""
    good = layers_of("good")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plugins, client = registry(points=[Point("bad", load), Point("good", lambda: good)])
        facts = about(plugins, "bad")
        about(plugins, "bad")
    assert reason in facts["error"]
    assert facts["error"]
    assert facts["layers"] == []
    assert about(plugins, "good")["layers"] == [{"name": "good", "stage": "CALL"}]
    warned = [str(warning.message) for warning in caught if warning.category is RuntimeWarning]
    assert len(warned) == 1
    assert "'bad' of chatsdk-contrib-x is disabled" in warned[0]
    assert [event.plugin for event in client.events if isinstance(event, PluginFailed)] == ["bad"]
    assert plugins.chain(Script(Response(status=200)))(send()).status == 200


@pytest.mark.parametrize(("load", "reason"), BROKEN)
def test_strict_makes_a_broken_plugin_an_error(load: Callable[[], Any], reason: str) -> None:
    """With `strict` the first question raises, and the second one as well."""
    plugins, _ = registry(points=[Point("bad", load)], strict=True)
    for _ in range(2):
        with pytest.raises(PluginError) as caught:
            plugins.layers()
        assert caught.value.plugin == "bad"
        assert reason in str(caught.value)


def test_second_plugin_of_a_name_is_refused() -> None:
    """Both distributions are named; the first one stays."""
    one, two = layers_of("x"), layers_of("x")
    points = [Point("x", lambda: one, "chatsdk-contrib-a"), Point("x", lambda: two, "chatsdk-contrib-b")]
    plugins, _ = registry(points=points)
    with pytest.warns(RuntimeWarning, match="called 'x': of chatsdk-contrib-a and of chatsdk-contrib-b"):
        layers = plugins.layers()
    assert [layer.middleware.name for layer in layers].count("x") == 1


def test_plugin_can_not_take_a_built_in_name() -> None:
    """Nobody replaces the retry layer by its name."""
    plugins, _ = registry(layers_of("retry"))
    with pytest.warns(RuntimeWarning, match="two plugins are called 'retry'"):
        layers = plugins.layers()
    assert [layer.plugin for layer in layers if layer.ours] == BUILT_IN[:5]
    assert len(layers) == 5


def test_one_module_under_two_names() -> None:
    """The second name is refused; the first one keeps working."""
    module = layers_of("x")
    plugins, _ = registry(points=[Point("a", lambda: module), Point("b", lambda: module)])
    with pytest.warns(RuntimeWarning, match="'b' of chatsdk-contrib-x is disabled"):
        layers = plugins.layers()
    assert [layer.plugin for layer in layers if not layer.ours] == ["a"]


def test_same_plugin_given_and_found_is_one() -> None:
    """Who passes a plugin that is installed as well gets it once, without a word."""
    module = layers_of("x")
    plugins, _ = registry(module, points=[Point("x", lambda: module)])
    assert [layer.middleware.name for layer in plugins.layers()].count("x") == 1


def test_misspelt_hook_is_reported() -> None:
    """A hook that nobody calls is told, once; the plugin's other hooks work."""
    module = layers_of("x")
    module.chatsdk_midleware = hookimpl(lambda: None)  # type: ignore[attr-defined]
    plugins, _ = registry(module)
    with pytest.warns(RuntimeWarning, match="'x' of given to the client has a mistake.*no hook 'chatsdk_midleware'"):
        facts = about(plugins, "x")
    assert facts["hooks"] == ["chatsdk_middleware"]
    assert facts["layers"]
    assert "chatsdk_midleware" in facts["error"]
    optional = layers_of("y")
    optional.chatsdk_later = hookimpl(optionalhook=True)(lambda: None)  # type: ignore[attr-defined]
    assert about(registry(optional)[0], "y")["error"] == ""


# ---- accept


def accepting(name: str, accept: Callable[..., Any], *, tryfirst: bool = False, trylast: bool = False) -> ModuleType:
    return plugin(name, chatsdk_accept=hookimpl(accept, tryfirst=tryfirst, trylast=trylast))


def test_accept_runs_each_plugin_once_in_order() -> None:
    """Each gets what the one before returned; None leaves it; the built-in check sees the result."""
    add = [
        accepting(word, lambda request, word=word: request.with_body(text=request.body["text"] + word))
        for word in ("a", "b")
    ]
    first = accepting("first", lambda request: request.with_body(text="0"), tryfirst=True)
    plugins, _ = registry(*add, accepting("none", lambda request: None), first)
    assert plugins.accept(send()).body["text"] == "0ab"
    blank = accepting("blank", lambda request: request.with_body(text=""), trylast=True)
    with pytest.raises(InvalidMessage):
        registry(*add, blank)[0].accept(send())


def test_accept_refuses_with_the_plugins_name() -> None:
    """Any exception is a refusal; a NotAcceptedError keeps its type; both say whose it was."""

    def strict(request: Request) -> None:
        raise ValueError("no swearing")

    def typed(request: Request) -> None:
        raise InvalidMessage("too rude")

    with pytest.raises(NotAcceptedError, match="no swearing") as caught:
        registry(accepting("moderator", strict))[0].accept(send())
    assert (caught.value.plugin, type(caught.value.__cause__)) == ("moderator", ValueError)
    with pytest.raises(InvalidMessage) as typed_caught:
        registry(accepting("moderator", typed))[0].accept(send())
    assert typed_caught.value.plugin == "moderator"


@pytest.mark.parametrize("field", ["key", "user", "channel", "operation"])
def test_accept_must_not_change_what_a_message_is_known_by(field: str) -> None:
    """Key, user, channel and operation stay: order and idempotency go by them."""
    changing = accepting("changes", lambda request: request.replace(**{field: "other"}))
    with pytest.raises(NotAcceptedError, match=field) as caught:
        registry(changing)[0].accept(send())
    assert caught.value.plugin == "changes"


def test_accept_must_return_a_request() -> None:
    """Anything else is refused, and named."""
    with pytest.raises(NotAcceptedError, match="'odd' returned str"):
        registry(accepting("odd", lambda request: "text"))[0].accept(send())


# ---- events, backends, commands


def test_events_reach_plugins_and_a_raising_one_is_isolated(caplog: pytest.LogCaptureFixture) -> None:
    """Every plugin hears every event; what one raises is logged once and stops nobody."""
    heard: list[tuple[Any, Event]] = []

    def broken(event: Event) -> None:
        raise RuntimeError("boom")

    def hear(client: Any, event: Event) -> None:
        heard.append((client, event))

    plugins, client = registry(plugin("broken", chatsdk_event=broken), plugin("hears", chatsdk_event=hear))
    event = MessageSent(id=1, key="k", user="alice", channel="c", state="SENT")
    plugins.event(event)
    plugins.event(event)
    assert heard == [(client, event)] * 2
    assert len([record for record in caplog.records if "broken" in record.getMessage()]) == 1


def test_backend_of_a_plugin() -> None:
    """The first that answers is it; a broken one is passed over."""

    def broken(settings: Any) -> Any:
        raise RuntimeError

    other, mine = object(), object()
    plugins, client = registry(
        plugin("no", chatsdk_backend=lambda settings: None),
        plugin("broken", chatsdk_backend=broken),
        plugin("yes", chatsdk_backend=lambda settings: mine if settings.backend == "mine" else None),
        plugin("late", chatsdk_backend=lambda settings: other),
    )
    with pytest.warns(RuntimeWarning, match="broken"):
        assert plugins.backend(Client(backend="mine").settings) is mine
    assert plugins.backend(client.settings) is other
    assert registry()[0].backend(client.settings) is None


def test_commands_are_added_and_a_broken_one_is_left_out() -> None:
    """The command line works although one plugin's commands do not."""

    def broken(cli: list[str]) -> None:
        raise RuntimeError

    plugins, _ = registry(
        plugin("broken", chatsdk_commands=broken), plugin("adds", chatsdk_commands=lambda cli: cli.append("hello"))
    )
    cli: list[str] = []
    with pytest.warns(RuntimeWarning, match="broken"):
        plugins.commands(cli)
    assert cli == ["hello"]


def test_loading_happens_once_however_many_ask() -> None:
    """Threads that ask at the same time share one load and one set of layers."""
    loads: list[int] = []

    def load() -> ModuleType:
        loads.append(1)
        return layers_of("x")

    plugins, _ = registry(points=[Point("x", load)])
    gate = threading.Barrier(8)
    found: list[Any] = []

    def ask() -> None:
        gate.wait()
        found.append([id(layer.middleware) for layer in plugins.layers()])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert all(ids == found[0] for ids in found)


def test_forked_child_makes_its_layers_anew() -> None:
    """The child's layers have locks of their own; plugins are not loaded again."""
    plugins, _ = registry(layers_of("x"))
    before = plugins.middleware("dedup")
    plugins.after_fork()
    after = plugins.middleware("dedup")
    assert after is not None
    assert after is not before
    assert plugins.middleware("no such layer") is None
