"""What every command takes: the settings that have a flag, and how much to say.

The flags are made from the table of settings, so a setting that gets a flag has it here. They may stand before or after
the command's name. A token has no flag: the arguments of a process are visible to everybody on the machine.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from ..core.settings import ROWS, TABLE
from ..resilience.log_lines import show_records

if TYPE_CHECKING:
    from ..client import ChatClient
    from ..core.settings import Settings
    from ..pipeline.registry import Registry


ANY_URL = "http://localhost"
"""Stands in where a URL is needed and none will be used."""


@dataclass
class Options:
    """What was said on the command line. `given`: settings by name; `verbose`: how often -v was."""

    given: dict[str, Any] = field(default_factory=dict)
    verbose: int = 0
    debug: bool = False

    def client(self, **more: Any) -> ChatClient:
        """A client in one-shot mode: no threads, delivery in the calling thread. Root goes on as the outbox's owner."""
        from .owner import become_owner

        chat = self._client(**more)
        become_owner(chat)
        return chat

    def listener(self, **more: Any) -> ChatClient:
        """Such a client for a command that will connect to the realtime server."""
        from .owner import import_realtime

        import_realtime()
        return self.client(**more)

    def _client(self, **more: Any) -> ChatClient:
        from ..client import ChatClient

        return ChatClient(**{"background": False, **self.given, **more})

    def command(self, words: str) -> str:
        """The command line of another command that means the same outbox: with the flags of this one that say which."""
        flags = [
            f"{ROWS[name].flag} {shlex.quote(str(self.given[name]))}"
            for name in ("config", "profile", "url", "state_dir")
            if name in self.given
        ]
        return " ".join(["chatsdk", words, *flags])

    def registry(self) -> Registry:
        """The plugins, as such a client has them."""
        url = {} if self.settings().url else {"url": ANY_URL}
        return self._client(**url)._parts.registry

    def settings(self) -> Settings:
        """The settings in force. Raises SettingsError."""
        from ..config import load_settings

        return load_settings(self.given)


passes_options = click.make_pass_decorator(Options)
"""Gives a command the `Options` as its first argument."""


def seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Callback of an option that is a time: 90, 90s, 5m or 24h, as the settings have it."""
    if value is None:
        return None
    from ..core.values import parse_seconds

    try:
        return parse_seconds(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no time: 90, 90s, 5m, 24h", ctx, param) from None


def global_options(*, hidden: bool) -> list[click.Option]:
    """The options of every command; `hidden` where they would crowd a command's own out of its help."""
    made = [
        click.Option(
            [row.flag],
            help=row.doc,
            metavar=row.flag.rpartition("-")[2].upper(),
            expose_value=False,
            callback=_keep_setting,
            hidden=hidden,
        )
        for row in TABLE
        if row.flag
    ]
    made.append(
        click.Option(
            ["-v", "--verbose"],
            count=True,
            help="log to standard error; twice: everything",
            expose_value=False,
            callback=_keep_verbose,
            hidden=hidden,
        )
    )
    made.append(
        click.Option(
            ["--debug"],
            is_flag=True,
            help="show tracebacks",
            expose_value=False,
            is_eager=True,
            callback=_keep_debug,
            hidden=hidden,
        )
    )
    return made


def _keep_setting(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is None or param.name is None:
        return
    kind = ROWS[param.name].kind
    try:
        ctx.ensure_object(Options).given[param.name] = kind.parse(value)
    except ValueError:
        raise click.BadParameter(f"must be {kind.allowed}", ctx, param) from None


def _keep_verbose(ctx: click.Context, _: click.Parameter, value: int) -> None:
    if not value:
        return
    options = ctx.ensure_object(Options)
    options.verbose += value
    options.given["log"] = "debug" if options.verbose > 1 else "info"
    show_records(options.given["log"])  # now: not every command makes a client


def _keep_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.ensure_object(Options).debug |= value
