"""The group of commands, and the border at which errors become sentences.

A built-in command's module is imported when the command is asked for. Plugins may add commands (`chatsdk_commands`);
they are loaded only for a name that is not built in, and for --help, so that they never slow down the rest. Beyond this
file no exception goes: what went wrong is one sentence and a hint on standard error, and an exit code out of `exits`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from .. import __version__
from ..core.errors import ChatError
from . import exits, output
from .options import Options, global_options

BUILT_IN = ("demo", "serve", "send", "tail", "channels", "outbox", "status", "doctor", "config", "plugins")
"""Each is `command` in the module of that name in `commands`; in the order in which --help lists them."""


class Commands(click.Group):
    """The group `chatsdk`. What plugins see as `cli`: `add_command` and the decorators work as on any group."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._asked_plugins = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._ask_plugins(ctx)
        return [*BUILT_IN, *sorted(self.commands)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in BUILT_IN:
            self._ask_plugins(ctx)
            return self.commands.get(cmd_name)
        command: click.Command = import_module(f".commands.{cmd_name}", __package__).command
        _take_options(command)
        return command

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a plugin's command. Raises ValueError if the name is taken."""
        name = name or cmd.name
        if name in BUILT_IN or name in self.commands:
            raise ValueError(f"there is a command {name!r} already")
        super().add_command(cmd, name)
        _take_options(cmd)

    def _ask_plugins(self, ctx: click.Context) -> None:
        if self._asked_plugins:
            return
        self._asked_plugins = True
        try:
            ctx.ensure_object(Options).registry().commands(self)
        except ChatError as error:  # without settings there are no plugins, but there is help
            output.note(f"plugins are left out: {output.plain(error.message)}")


def _take_options(command: click.Command) -> None:
    """Let a command, and each below it, take the options of every command."""
    known = {name for param in command.params for name in (param.name, *param.opts)}
    for option in global_options(hidden=True):
        if not known & {option.name, *option.opts}:
            command.params.append(option)
    if isinstance(command, click.Group):
        for child in command.commands.values():
            _take_options(child)


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        output.line(f"chatsdk {__version__}")
        ctx.exit()


def _commands() -> Commands:
    version = click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_version,
        help="show the version",
    )
    return Commands(
        name="chatsdk",
        params=[*global_options(hidden=False), version],
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Send chat messages that arrive: each is safe on disk first, then delivered exactly once and in order."
        " The options below may stand after a command as well.",
        epilog="Exit codes: 0 delivered, 1 failed, 2 usage, 65 died or refused, 69 server unreachable, 75 still queued"
        " (accepted: do not send it again), 77 token, 78 configuration.",
    )


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code. Nothing is raised."""
    options = Options()
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning  # type: ignore[assignment]  # it takes what it needs
        return _run(options, arguments)


def _run(options: Options, arguments: Sequence[str] | None) -> int:
    try:
        found = _commands().main(
            None if arguments is None else list(arguments), prog_name="chatsdk", standalone_mode=False, obj=options
        )
        return found if isinstance(found, int) else exits.OK
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        output.note("interrupted")
        return exits.INTERRUPTED
    except ChatError as error:
        _show_traceback(options)
        output.note(output.plain(error.message))
        if error.hint:
            output.hint(output.plain(error.hint))
        return exits.of_error(error)
    except Exception as error:
        if not _show_traceback(options):
            said = output.plain(output.redact(str(error)))
            output.note(f"unexpected {type(error).__name__}: {said}")
            output.hint("--debug shows the traceback")
        return exits.of_error(error)


def _show_warning(message: Warning | str, *_: object) -> None:
    output.note(f"warning: {output.plain(output.redact(str(message)).removeprefix('chatsdk: '))}")


def _show_traceback(options: Options) -> bool:
    if options.debug:
        import traceback

        sys.stderr.write(output.redact(traceback.format_exc()))
    return options.debug
