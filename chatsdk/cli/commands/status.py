"""`chatsdk status`: does the realtime connection work, and what waits in the outbox?

It makes a connection of its own, as a program with these settings would, and says how that went; with `--watch` it
keeps it and shows every change, on a terminal in place, elsewhere a line each. Nothing is sent, nothing subscribed to.

With `--check` it is for monitors and health checks (cron, Nagios, a container's probe): it looks at the outbox only,
needs neither token nor network, and its answer is the exit code: 0, or 1 and a line that says why. Whatever stops
messages, a dead server, a lost token, a worker that does not run, is seen there: they wait for too long.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import ChatError, ConnectionFailedError
from .. import exits, output
from ..options import Options, passes_options, seconds

if TYPE_CHECKING:
    from ...client import ChatClient
    from ...core.store import Stats

EVERY = 1.0
"""Seconds between two looks of `--watch`."""

MAX_AGE = 600.0
MAX_DEAD = 0
"""What `--check` allows, if it is not told."""


@click.command("status")
@click.option("--watch", is_flag=True, help="stay, and show every change, until Ctrl-C")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object (with --watch: one a change)")
@click.option("--check", is_flag=True, help="for monitors: look at the outbox only; exit 0, or 1 if it needs a look")
@click.option(
    "--max-age",
    callback=seconds,
    metavar="TIME",
    help="how long the oldest message may wait for --check [default: 10m]",
)
@click.option("--max-dead", type=click.IntRange(0), help="how many dead letters --check allows [default: 0]")
@passes_options
def command(
    options: Options, watch: bool, as_json: bool, check: bool, max_age: float | None, max_dead: int | None
) -> int:
    """Whether the realtime connection works, and what waits in the outbox."""
    if watch and check:
        raise click.UsageError("--check looks once: leave out --watch")
    if check:
        return _check(
            options, MAX_AGE if max_age is None else max_age, MAX_DEAD if max_dead is None else max_dead, as_json
        )
    if max_age is not None or max_dead is not None:
        raise click.UsageError("--max-age and --max-dead go with --check")
    with options.listener() as chat:
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


def _check(options: Options, max_age: float, max_dead: int, as_json: bool) -> int:
    limits: dict[str, Any] = {"max_age": max_age, "max_dead": max_dead}
    stats, error = None, ""
    with options.client() as chat:  # settings that make no sense are no answer: 78, as everywhere
        try:
            stats = _stats(chat)
        except ChatError as failed:
            error = failed.message
    if stats is None:
        facts: dict[str, Any] = {"ok": False, "why": f"the outbox can't be read: {error}", **limits}
    else:
        age = None if stats.oldest is None else max(0.0, time.time() - stats.oldest)
        wrong = []
        if age is not None and age > max_age:
            wrong.append(f"the oldest message waits for {age:.0f} s (allowed: {max_age:g} s)")
        if stats.dead > max_dead:
            wrong.append(f"too many dead letters (allowed: {max_dead})")
        waits = "" if age is None else f", the oldest for {age:.0f} s"
        facts = {
            "ok": not wrong,
            "why": "; ".join([*wrong, f"{stats.pending} queued{waits}, {stats.dead} dead"]),
            "queued": stats.pending,
            "dead": stats.dead,
            "oldest_age": age,
            **limits,
        }
    if as_json:
        output.as_json(facts)
    else:
        output.line(f"{'ok' if facts['ok'] else 'FAILED'}: {output.plain(facts['why'])}")
    return exits.OK if facts["ok"] else exits.FAILED


def _stats(chat: ChatClient) -> Stats:
    """What is in the outbox. One that is not there yet is empty, and not made: it would be the monitor's."""
    from ...config import state_directory
    from ...core.store import Stats

    try:
        os.lstat(state_directory(chat.settings))
    except FileNotFoundError:
        return Stats()
    except OSError:
        pass  # whoever opens it says that better
    return chat.outbox.stats()


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
