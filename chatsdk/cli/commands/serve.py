"""`chatsdk serve`: the development server, here and now, with what one needs to use it ready to copy."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

import click

from ...core.errors import SettingsError
from ...core.resolve import resolve
from ...core.settings import ROWS
from ...resilience.log_lines import show_records
from .. import exits, output

PORT = 5500


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="where to listen")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 lets the system choose")
@click.option("--data", default=":memory:", show_default=True, help="SQLite file that keeps everything")
@click.option("--rate-limits", is_flag=True, help="the real server's limits, with 429")
@click.option("--allow-remote", is_flag=True, help="permit a --host that other machines can reach")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def command(host: str, port: int, data: str, rate_limits: bool, allow_remote: bool, as_json: bool) -> int:
    """Run a development server until Ctrl-C. It hands out tokens to anybody who can reach it."""
    try:
        from ...devserver.server import Ready, RemoteNotAllowed, run
        from ...devserver.settings import ServerSettings
        from ...devserver.store.database import DataFileError
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn", "wsproto"):
            raise
        raise missing_extra("serve") from None

    def show(ready: Ready) -> None:
        if as_json:
            output.line(ready.to_json())
            return
        for text in _greeting(ready.url, ready.tokens, ready.ws_tokens, ready.channel_id):
            output.line(text)

    show_records(_log_level())
    for number in (signal.SIGINT, signal.SIGTERM):
        # The server catches these, ends in good order, and raises them again; to end is no failure here.
        signal.signal(number, _nothing)
    try:
        run(ServerSettings(host=host, port=port, data=data, rate_limits=rate_limits, allow_remote=allow_remote), show)
    except RemoteNotAllowed:
        raise SettingsError(
            f"{host} can be reached from other machines, and a development server hands out tokens to anybody",
            hint="--allow-remote permits it",
        ) from None
    except (DataFileError, OSError) as error:
        raise SettingsError(f"the server can't start: {error}", hint="another --port or --data may help") from None
    return exits.OK


def _log_level() -> str:
    """What CHATSDK_LOG says, else warnings, such as the one that comes with --allow-remote. No other setting is looked
    at: a server needs none, and wrong ones must not stop it. Raises SettingsError."""
    name = ROWS["log"].environ
    return resolve({}, {name: os.environ.get(name, "")}).log or "warning"


def _nothing(*_: object) -> None:
    """A signal that was obeyed already."""


def missing_extra(command: str) -> SettingsError:
    """What to raise where the development server's libraries are not installed."""
    return SettingsError(f"`chatsdk {command}` needs the extra [server]", hint="install chatsdk with the extra [demo]")


def _greeting(url: str, tokens: Mapping[str, str], ws_tokens: Mapping[str, str], channel: str) -> list[str]:
    first, *others = tokens
    lines = [f"# A chat server for development, at {url}. Copy these into another terminal:", ""]
    lines.append(f"export CHATSDK_URL={url}")
    lines.append(f"export {_of(tokens[first], ws_tokens[first])}  # you are {first}")
    for name in others:
        lines.append(f"# or, as {name}:  export {_of(tokens[name], ws_tokens[name])}")
    lines += ["", 'chatsdk send general "hello"', "chatsdk tail general --since 0"]
    lines.append(f"# general is {channel}; Ctrl-C ends the server")
    return lines


def _of(token: str, ws_token: str) -> str:
    return f"CHATSDK_TOKEN={token} CHATSDK_WS_TOKEN={ws_token}"
