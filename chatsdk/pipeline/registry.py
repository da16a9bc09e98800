"""The plugins of one client: one pluggy `PluginManager`, filled when it is first asked for something.

Rules:
* The built-in plugins are named here as strings and registered like anybody's; they are always there.
* Others are given to the client or found by their entry points, which are loaded one by one. A plugin that is broken
  (its import, a hook's signature, what its `chatsdk_middleware` does or returns) is disabled, warned about once, and
  shown by `describe`; the client goes on without it. With `strict` it is an error instead.
* A plugin's name is its entry point's name. A second one of that name is refused.
* Hooks are called by our own loops, not by pluggy's: so we know whose hook it was, and one that raises stops only
  itself.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pluggy

from .. import hookspecs
from ..core.errors import ChatError, NotAcceptedError, PluginError
from ..core.events import Event, PluginFailed
from ..core.exchange import Request, Response
from ..hookspecs import PROJECT, SPEC_VERSION, Middleware, Stage
from .chain import Handler, Layer, compose

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from ..plugin import PluginClient

log = logging.getLogger("chatsdk.plugins")

GROUP = "chatsdk"

BUILT_IN = (
    "chatsdk.middleware.telemetry",
    "chatsdk.middleware.dedup",
    "chatsdk.middleware.retry",
    "chatsdk.middleware.breaker",
    "chatsdk.middleware.auth",
    "chatsdk.middleware.accept",
)

_KEPT = ("operation", "user", "channel", "key")
"""What a message is known by: a `chatsdk_accept` that changed it would break its order or its idempotency."""

_OFF = (False, 0, "false", "0", "no", "off")


@dataclass(slots=True, eq=False, repr=False)
class _Entry:
    """What is known of a plugin. `origin`: where it came from, in words."""

    name: str
    origin: str
    version: str = ""
    ours: bool = False
    error: str = ""
    plugin: Any = None
    config: Mapping[str, Any] = field(default_factory=dict)
    hooks: list[str] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)


_Hook = tuple[_Entry, Callable[..., Any]]


class Registry:
    """The plugins of `client`. Thread-safe; makes and imports nothing before the first question.

    client        what the hooks get; `settings.discover`, `.strict` and `.plugins` are obeyed
    plugins       modules or objects beside those found by entry points
    entry_points  finds those; for tests

    Everything raises PluginError if `settings.strict` is set and a plugin is broken.
    """

    def __init__(
        self,
        client: PluginClient,
        plugins: Sequence[Any] = (),
        *,
        entry_points: Callable[[], Iterable[EntryPoint]] | None = None,
    ) -> None:
        self._client = client
        self._given = tuple(plugins)
        self._entry_points = entry_points or _installed
        self._lock = threading.RLock()
        self._blamed: set[str] = set()
        self._failures: list[PluginFailed] = []
        self._reset()

    def _reset(self) -> None:
        self._loaded = False
        self._asked = False
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._entries: list[_Entry] = []
        self._accept_hooks: tuple[_Hook, ...] = ()
        self._event_hooks: tuple[_Hook, ...] = ()

    # ---- questions

    def chain(self, transport: Handler) -> Callable[[Request], Response]:
        """All layers around `transport`."""
        return compose(self.layers(), transport)

    def layers(self) -> list[Layer]:
        """The layers, outermost first: by stage, then in the plugins' order."""
        self._ready()
        with self._lock:
            if not self._asked:
                try:
                    self._ask_for_layers()
                except BaseException:
                    self._reset()  # strict: the next question gets the same answer
                    raise
                self._asked = True
            ranked = [
                (layer.middleware.stage, rank, layer)
                for rank, entry in self._in_order("chatsdk_middleware")
                for layer in entry.layers
            ]
        self._tell_failures()
        return [layer for _, _, layer in sorted(ranked, key=lambda item: item[:2])]

    def middleware(self, name: str) -> Any:
        """The `call` of the layer of that name, or None: a built-in layer that can do more than pass requests on (the
        cache can forget) is an object."""
        return next((layer.middleware.call for layer in self.layers() if layer.middleware.name == name), None)

    def accept(self, request: Request) -> Request:
        """The request as every plugin's `chatsdk_accept` left it. Raises NotAcceptedError, with the plugin's name."""
        self._ready()
        for entry, call in self._accept_hooks:
            try:
                changed = call(request=request, config=entry.config)
            except NotAcceptedError as error:
                error.plugin = error.plugin or entry.name
                raise
            except Exception as error:
                raise _refusal(entry.name, f"refused the message: {error}") from error
            if changed is not None:
                request = _checked(entry.name, request, changed)
        return request

    def event(self, event: Event) -> None:
        """Tell every plugin's `chatsdk_event`. Never raises for what one does."""
        if not self._loaded:
            self._ready()
        for entry, call in self._event_hooks:
            try:
                call(client=self._client, event=event)
            except (Exception, SystemExit) as error:  # a plugin that wants to leave would only end a delivery thread
                if entry.name not in self._blamed:
                    self._blamed.add(entry.name)
                    log.error("plugin %s raised on %s (said once)", entry.name, event.NAME, exc_info=error)

    def commands(self, cli: Any) -> None:
        """Let every plugin add its commands to a `click.Group`."""
        self._ready()
        for entry, call in self._hooks("chatsdk_commands"):
            try:
                call(cli=cli)
            except Exception as error:
                self._disable(entry, error)
        self._tell_failures()

    def backend(self, settings: Any) -> Any:
        """The first plugin's `chatsdk.core.backend.Backend` for `settings.backend`, or None."""
        self._ready()
        found = None
        for entry, call in self._hooks("chatsdk_backend"):
            try:
                found = call(settings=settings)
            except ChatError:
                raise
            except Exception as error:
                self._disable(entry, error)
            if found is not None:
                break
        self._tell_failures()
        return found

    def describe(self) -> list[dict[str, Any]]:
        """Every plugin, in order: `{"name", "distribution", "version", "built_in", "hooks": [...],
        "layers": [{"name", "stage"}], "error"}`; `error` is "" if it works."""
        self.layers()
        return [
            {
                "name": entry.name,
                "distribution": entry.origin,
                "version": entry.version,
                "built_in": entry.ours,
                "hooks": list(entry.hooks),
                "layers": [
                    {"name": layer.middleware.name, "stage": layer.middleware.stage.name} for layer in entry.layers
                ],
                "error": entry.error,
            }
            for entry in self._entries
        ]

    @property
    def making(self) -> threading.RLock:
        """Held while plugins are loaded: a fork waits for it."""
        return self._lock

    def after_fork(self) -> None:
        """In a forked child: fresh locks, here and in the layers, which are made anew for the next `chain`."""
        self._lock = threading.RLock()
        self._asked = False
        for entry in self._entries:
            entry.layers = []

    # ---- loading

    def _ready(self) -> None:
        """Load, if that has not been done."""
        if not self._loaded:
            with self._lock:
                self._load()
            self._tell_failures()

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True  # first: an event that loading causes must not load again
        try:
            self._register_all()
        except BaseException:
            self._reset()  # strict: the next question gets the same answer
            raise

    def _register_all(self) -> None:
        for module in BUILT_IN:
            entry = _Entry(module.rpartition(".")[2], "chatsdk", ours=True)
            self._register(entry, partial(import_module, module))
        for plugin in self._given:
            self._register(_Entry(_name_of(plugin), "given to the client"), partial(_same, plugin))
        if self._client.settings.discover:
            for point in sorted(self._entry_points(), key=lambda point: point.name):
                name, version = (point.dist.name, point.dist.version) if point.dist else (point.value, "")
                self._register(_Entry(point.name, name, version), point.load)
        self._report_unknown_hooks()
        self._refresh()

    def _refresh(self) -> None:
        self._accept_hooks = tuple(sorted(self._hooks("chatsdk_accept"), key=lambda hook: hook[0].ours))
        self._event_hooks = tuple(self._hooks("chatsdk_event"))

    def _register(self, entry: _Entry, load: Callable[[], Any]) -> None:
        """Load a plugin, unless it is turned off, and take its hooks in."""
        other = next((other for other in self._entries if other.name == entry.name), None)
        self._entries.append(entry)
        entry.config = MappingProxyType(dict(self._client.settings.plugins.get(entry.name, {})))
        if entry.config.get("enabled", True) in _OFF and not entry.ours:
            entry.error = "turned off by the settings"
            return
        try:
            plugin = load()
            if other is not None:
                if plugin is other.plugin:  # given to the client and installed: the same one
                    self._entries.remove(entry)
                    return
                raise ValueError(f"two plugins are called {entry.name!r}: of {other.origin} and of {entry.origin}")
            needed = getattr(plugin, "chatsdk_spec_version", SPEC_VERSION)
            if not isinstance(needed, int) or needed > SPEC_VERSION:
                raise ValueError(f"it needs version {needed} of the extension points; this chatsdk has {SPEC_VERSION}")
            entry.plugin = plugin
            self._manager.register(plugin, name=entry.name)
            callers = self._manager.get_hookcallers(plugin) or []
            entry.hooks = sorted(caller.name for caller in callers if caller.has_spec())
            if not callers:
                raise ValueError("it implements no hook; are they marked with @hookimpl?")
        except (Exception, SystemExit) as error:  # a script that was installed as a plugin
            self._disable(entry, error)

    def _report_unknown_hooks(self) -> None:
        """A misspelt hook would be ignored in silence. The rest of its plugin works."""
        for entry in self._entries:
            callers = self._manager.get_hookcallers(entry.plugin) if entry.plugin is not None else None
            for caller in callers or ():
                if not caller.has_spec() and not all(impl.optionalhook for impl in _impls(caller, entry.name)):
                    self._complain(entry, ValueError(f"there is no hook {caller.name!r}"))

    def _ask_for_layers(self) -> None:
        for entry, call in self._hooks("chatsdk_middleware"):
            try:
                returned = call(client=self._client, config=entry.config)
                entry.layers = [Layer(entry.name, made, entry.ours) for made in _middlewares(returned)]
            except Exception as error:
                if entry.ours:
                    raise
                self._disable(entry, error)

    def _disable(self, entry: _Entry, error: BaseException) -> None:
        # pluggy before 1.7 keeps one that fails its validation; one object under two names stays under the first
        if entry.plugin is not None and self._manager.get_name(entry.plugin) == entry.name:
            self._manager.unregister(entry.plugin)
        entry.plugin = None
        entry.layers = []
        self._refresh()
        self._complain(entry, error)

    def _complain(self, entry: _Entry, error: BaseException) -> None:
        entry.error = f"{type(error).__name__}: {error}"
        if self._client.settings.strict:
            raise PluginError(f"plugin {entry.name!r} of {entry.origin}: {entry.error}", plugin=entry.name) from error
        self._failures.append(PluginFailed(plugin=entry.name, error=entry.error))
        state = "has a mistake" if entry.plugin is not None else "is disabled"
        warnings.warn(
            f"chatsdk: plugin {entry.name!r} of {entry.origin} {state}: {entry.error}", RuntimeWarning, stacklevel=2
        )

    def _tell_failures(self) -> None:
        while self._failures:  # outside of the lock: a handler may ask us something
            self._client.emit(self._failures.pop(0))

    # ---- hooks

    def _in_order(self, hook: str) -> list[tuple[tuple[int, int], _Entry]]:
        """The plugins that have `hook`, with their rank: tryfirst, ..., trylast, else as they were registered."""
        caller = getattr(self._manager.hook, hook)
        impls = {impl.plugin_name: impl for impl in caller.get_hookimpls()}
        ranked = []
        for number, entry in enumerate(self._entries):
            impl = impls.get(entry.name)
            if impl is not None and entry.plugin is not None:
                ranked.append(((-1 if impl.tryfirst else 1 if impl.trylast else 0, number), entry))
        return sorted(ranked, key=lambda item: item[0])

    def _hooks(self, hook: str) -> list[_Hook]:
        """Every plugin's implementation of `hook`, as a function that takes all of the hook's arguments by name."""
        with self._lock:
            caller = getattr(self._manager.hook, hook)
            names = caller.spec.argnames
            return [(entry, _by_name(_impls(caller, entry.name)[0], names)) for _, entry in self._in_order(hook)]


def _installed() -> Iterable[EntryPoint]:
    """`importlib.metadata.entry_points(group=GROUP)` in half its time: only files that name the group are parsed."""
    from importlib.metadata import distributions  # slow to import, and of no use to who asks for no plugins

    found: dict[str, Iterable[EntryPoint]] = {}
    for distribution in distributions():
        if GROUP in (distribution.read_text("entry_points.txt") or ""):
            # of two of one name the first one on the path is the one that is imported
            found.setdefault(distribution.name, distribution.entry_points.select(group=GROUP))
    return [point for points in found.values() for point in points]


def _name_of(plugin: Any) -> str:
    name = getattr(plugin, "chatsdk_name", None) or getattr(plugin, "__name__", None) or type(plugin).__name__
    return str(name).rpartition(".")[2]


def _impls(caller: Any, plugin: str) -> list[Any]:
    return [impl for impl in caller.get_hookimpls() if impl.plugin_name == plugin]


def _by_name(impl: Any, names: Collection[str]) -> Callable[..., Any]:
    """An implementation may take fewer arguments than there are."""
    function, wanted = impl.function, impl.argnames
    if set(wanted) == set(names):
        return function  # type: ignore[no-any-return]
    return lambda **given: function(*[given[name] for name in wanted])


def _same(plugin: Any) -> Any:
    return plugin


def _middlewares(returned: Any) -> list[Middleware]:
    """What a `chatsdk_middleware` returned, as a list. Raises TypeError for what is no middleware."""
    if returned is None:
        return []
    made = list(returned) if isinstance(returned, (list, tuple)) else [returned]
    for one in made:
        if not isinstance(one, Middleware):
            raise TypeError(f"chatsdk_middleware must return Middleware(name, stage, call), not {type(one).__name__}")
        if not callable(one.call):
            raise TypeError(f"the call of the middleware {one.name!r} can't be called")
        if not isinstance(one.stage, Stage):
            raise TypeError(f"there is no stage {one.stage!r}")
    return made


def _checked(plugin: str, before: Request, after: Any) -> Request:
    if not isinstance(after, Request):
        raise _refusal(plugin, f"returned {type(after).__name__}, no Request")
    for name in _KEPT:
        if getattr(after, name) != getattr(before, name):
            raise _refusal(plugin, f"changed the message's {name}, which it must not")
    return after


def _refusal(plugin: str, what: str) -> NotAcceptedError:
    return NotAcceptedError(f"plugin {plugin!r} {what}", plugin=plugin, code="plugin_refused")
