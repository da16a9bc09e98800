"""`chatsdk status`: does the realtime connection work, and what waits in the outbox?

It makes a connection of its own, as a program with these settings would, and says how that went; with `--watch` it
keeps it and shows every change, on a terminal in place, elsewhere a line each. Nothing is sent, nothing subscribed to.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import ChatError, ConnectionFailedError
from .. import exits, output
from ..options import Options, passes_options

if TYPE_CHECKING:
    from ...client import ChatClient

EVERY = 1.0
"""Seconds between two looks of `--watch`."""


@click.command("status")
@click.option("--watch", is_flag=True, help="stay, and show every change, until Ctrl-C")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object (with --watch: one a change)")
@passes_options
def command(options: Options, watch: bool, as_json: bool) -> int:
    """Whether the realtime connection works, and what waits in the outbox."""
    with options.client() as chat:
        if watch:
            return _watch(chat, as_json)
        with contextlib.suppress(ConnectionFailedError):  # shown below, as any other way not to be connected
            chat.connect(wait=chat.settings.timeout)
        facts = _facts(chat)
        _show(facts, as_json)
        if facts["connection"]["connected"]:
            return exits.OK
        error = chat.connection.error
        if error is not None and not as_json and error.hint:
            output.hint(output.plain(error.hint))
        return exits.UNREACHABLE if error is None else exits.of_error(error) or exits.UNREACHABLE


def _watch(chat: ChatClient, as_json: bool) -> int:
    from ...resources.listening import PoliteSignals

    told, changed = threading.Event(), threading.Event()

    def stop() -> None:
        told.set()
        changed.set()

    with PoliteSignals(stop), _Screen(as_json) as screen:
        chat.connection.watch(lambda _: changed.set())
        chat.connect()
        while not told.is_set() and not output.reader_is_gone():
            changed.clear()
            screen.show(_facts(chat))
            changed.wait(EVERY)
    return exits.OK


def _facts(chat: ChatClient) -> dict[str, Any]:
    connection = chat.connection
    metrics = connection.metrics()
    try:
        stats = chat.outbox.stats()
        outbox: dict[str, Any] = {"queued": stats.pending, "dead": stats.dead, "oldest": stats.oldest}
        if stats.pending:
            reason = chat.outbox.list(limit=1)[0].reason
            outbox["reason"] = None if reason is None else str(reason)
    except (ChatError, IndexError) as error:
        outbox = {"error": str(error)}
    return {
        "server": chat.settings.url,
        "user": chat.user,
        "connection": {
            "state": str(metrics.state),
            "connected": metrics.connected,
            "reconnects": metrics.reconnects,
            "url": metrics.url,
            "text": connection.status_text,
            "error": _error(connection.error),
        },
        "outbox": outbox,
        "circuits": {name: chat.circuits[name].state for name in chat.circuits},
    }


def _error(error: ChatError | None) -> dict[str, Any] | None:
    return None if error is None else {"code": error.code, "message": error.message, "hint": error.hint}


def _show(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        output.as_json(facts)
        return
    for line in _lines(facts):
        output.line(line)


def _lines(facts: dict[str, Any]) -> list[str]:
    connection, outbox = facts["connection"], facts["outbox"]
    lines = [
        f"server      {output.plain(facts['server'])} as {output.plain(facts['user'])}",
        f"connection  {output.plain(connection['text'])}",
    ]
    why = connection["error"]
    if why and not connection["connected"] and why["message"] not in connection["text"]:
        lines.append(f"            {output.plain(why['message'])}")
    if "error" in outbox:
        lines.append(f"outbox      {output.plain(outbox['error'])}")
    else:
        lines.append(f"outbox      {outbox['queued']} queued, {outbox['dead']} dead")
    if outbox.get("oldest"):
        age = max(0.0, time.time() - outbox["oldest"])
        lines.append(f"            the oldest waits for {age:.0f} s: {outbox.get('reason') or 'its turn'}")
    lines += [f"circuit     {name} is {state}" for name, state in facts["circuits"].items() if state != "closed"]
    return lines


class _Screen:
    """Shows facts in place on a terminal; elsewhere a line for each change that is more than the time."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._live: Any = None
        self._shown: Any = None

    def __enter__(self) -> _Screen:
        if not self._as_json and output.is_terminal(sys.stdout):
            try:
                from rich.live import Live
            except ModuleNotFoundError:
                return self
            self._live = Live(auto_refresh=False)
            self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def show(self, facts: dict[str, Any]) -> None:
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text("\n".join(_lines(facts))), refresh=True)
            return
        changed = {**facts, "connection": {**facts["connection"], "text": None}}
        if changed != self._shown:
            self._shown = changed
            if self._as_json:
                output.as_json(facts)
            else:
                now = time.strftime("%H:%M:%S")
                output.line(f"{now} " + "; ".join(line.strip() for line in _lines(facts)[1:]))
