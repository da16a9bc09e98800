"""Every extension point, on one page.

A plugin is a module or object whose functions, marked with `chatsdk.plugin.hookimpl`, have these names. It is found by
its entry point (group `chatsdk`; the entry point's name is the plugin's name) or given to `ChatClient(plugins=[...])`
(its name is then its `chatsdk_name`, or else the last part of its module's or class's name). An implementation may take
fewer arguments than the specification; later versions only ever add arguments. A plugin that needs a hook of a later
version says so: `chatsdk_spec_version = 2`. `[plugins.NAME] enabled = false` turns a plugin off.

Plugins come in the order: built in, given, found (by name). `tryfirst` and `trylast` move an implementation to the
front or the end of that order, among the middlewares inside their stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any

import pluggy

from .core.events import Event
from .core.exchange import CallNext, Request, Response
from .core.record import Record, record

SPEC_VERSION = 1
"""Raised by one when an extension point is added; none is ever taken away within a major version."""

PROJECT = "chatsdk"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Stage(IntEnum):
    """Where in the chain a middleware stands, outermost first. Everything inside RETRY runs once per try.

    Third parties use CALL (once per call) and ATTEMPT (once per try); the others belong to the built-in ones, and a
    third party that uses them stands beside those.
    """

    TELEMETRY = 10
    CALL = 20
    DEDUP = 30
    RETRY = 40
    ATTEMPT = 50
    BREAKER = 60
    AUTH = 70


@record(frozen=True, slots=True)
class Middleware(Record):
    """One layer: `call(request, call_next) -> Response`. It may call `call_next` any number of times."""

    name: str
    stage: Stage
    call: Callable[[Request, CallNext], Response]


@hookspec
def chatsdk_middleware(client: Any, config: Mapping[str, Any]) -> Middleware | Sequence[Middleware] | None:
    """The plugin's layers, asked for once per client.

    client: a `chatsdk.plugin.PluginClient`; config: the plugin's own settings (`[plugins.NAME]` in the TOML file,
    `CHATSDK_PLUGIN_NAME_*`).
    """


@hookspec
def chatsdk_accept(request: Request, config: Mapping[str, Any]) -> Request | None:
    """A message is about to be accepted: called once, in the caller's thread, before it is stored.

    Return a changed request (moderation, encryption), None to leave it, or raise: then the message is refused
    (`NotAcceptedError` with the plugin's name). What is returned is stored, and never changes again. Operation, user,
    channel and key must stay as they are. The built-in check of text and ids comes last.
    """


@hookspec
def chatsdk_event(client: Any, event: Event) -> None:
    """Something happened. Called in the thread where it happened; be quick. What it raises is logged."""


@hookspec
def chatsdk_commands(cli: Any) -> None:
    """Add commands to the command line: `cli` is the `click.Group` of `chatsdk`."""


@hookspec(firstresult=True)
def chatsdk_backend(settings: Any) -> Any:
    """Another chat system: return a `chatsdk.core.backend.Backend`, or None if `settings.backend` names another one."""
