"""`chatsdk outbox ...`: what waits, what died, and what to do about it.

list, dead, get and discard read and write the outbox's file only: they need no token and no network. `flush` sends what
waits, once, within a budget; `run` stays and keeps sending.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from ...core.errors import NotFound
from ...core.store import Reason, State
from .. import exits, output
from ..options import Options, passes_options, seconds
from ..rows import SHOWN, line_of

if TYPE_CHECKING:
    from ...client import ChatClient
    from ...resources.receipt import Receipt

_limit = click.option("--limit", type=click.IntRange(1), default=1000, show_default=True, help="how many at most")
_json = click.option("--json", "as_json", is_flag=True, help="print one JSON object")


@click.group("outbox")
def command() -> None:
    """What waits, what died, and what to do about it."""


@command.command("list")
@click.option("--all", "every", is_flag=True, help="of every server and profile under the state directory")
@click.option(
    "--state",
    type=click.Choice([str(state) for state in State], case_sensitive=False),
    default="QUEUED",
    show_default=True,
)
@_limit
@_json
@passes_options
def list_(options: Options, every: bool, state: str, limit: int, as_json: bool) -> int:
    """Messages that wait (or those in another state), oldest first."""
    if every:
        from ..everywhere import show_all

        return show_all(options, State(state.upper()), limit, as_json)
    with options.client() as chat:
        _show(chat.outbox.list(state=State(state.upper()), limit=limit), as_json)
    return exits.OK


@command.command("dead")
@_limit
@_json
@passes_options
def dead(options: Options, limit: int, as_json: bool) -> int:
    """Dead letters, oldest first: rejected, expired or poison."""
    with options.client() as chat:
        _show(chat.outbox.dead(limit=limit), as_json)
    return exits.OK


@command.command("get")
@click.argument("id")
@_json
@passes_options
def get(options: Options, id: str, as_json: bool) -> int:
    """One message, by its id or key. Results stay known for 24 h."""
    with options.client() as chat:
        receipt = chat.outbox.get(id)
        facts = receipt.to_dict()
        if as_json:
            output.as_json(facts)
            return exits.OK
        for name, value in facts.items():
            if value is not None:
                said = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
                output.line(f"{name}: {output.plain(said)}")
    return exits.OK


@command.command("retry")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="all dead letters")
@passes_options
def retry(options: Options, ids: tuple[str, ...], every: bool) -> int:
    """Put dead letters back into the queue, at the end, with their keys. It looks first whether the server has them."""
    with options.client() as chat:
        if every:
            count = chat.outbox.retry()
        else:
            _check_ids(ids)
            count = chat.outbox.retry(_known(chat, ids, (State.DEAD,)))
        output.line(f"{count} back in the queue")
        if count:
            output.note("nothing was sent yet")
            output.hint(f"`{options.command('outbox flush')}` sends what waits")
    return exits.OK


@command.command("discard")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "every", is_flag=True, help="all dead letters (messages that wait are discarded by id only)")
@passes_options
def discard(options: Options, ids: tuple[str, ...], every: bool) -> int:
    """Give up dead letters, or by id messages that wait. They are counted, and gone."""
    with options.client() as chat:
        if every:
            count = chat.outbox.discard()
        else:
            _check_ids(ids)
            known = _known(chat, ids, (State.DEAD, State.QUEUED))
            count = chat.outbox.discard(known)
            if count < len(known):
                output.note(f"{len(known) - count} being sent just now, and not discarded")
        output.line(f"{count} discarded")
    return exits.OK


@command.command("flush")
@click.option(
    "--budget", callback=seconds, metavar="SECONDS", help="for at most so long (default: until nothing can be sent)"
)
@click.option("--queued-ok", is_flag=True, help="exit 0, not 75, if something still waits")
@_json
@passes_options
def flush(options: Options, budget: float | None, queued_ok: bool, as_json: bool) -> int:
    """Send what waits, and say what became of it."""
    with options.client() as chat:
        report = chat.outbox.flush(budget)
        code = exits.OK
        if report.queued:
            lost = any(each.reason is Reason.AUTH for each in chat.outbox.list())
            code = exits.AUTH if lost else exits.OK if queued_ok else exits.QUEUED
        code = exits.worst(code, exits.DIED if report.dead else exits.OK)
        if as_json:
            output.as_json({**report.to_dict(), "exit": code})
    if report.dead:
        output.note(f"{report.dead} died")
        output.hint(f"`{options.command('outbox dead')}` shows why")
    if report.queued:
        output.note(f"{report.queued} still queued, safe on disk; {report.sent} sent")
        output.hint(f"`{options.command('outbox list')}` shows why; `{options.command('outbox run')}` keeps trying")
    return code


@command.command("run")
@passes_options
def run(options: Options) -> int:
    """Stay and send whatever any process puts into this outbox, until SIGTERM or Ctrl-C."""
    from ..drainer import drain_until_told

    return drain_until_told(options)


def _check_ids(ids: tuple[str, ...]) -> None:
    if not ids:
        raise click.UsageError("give ids, or --all")


def _known(chat: ChatClient, ids: Iterable[str], states: Sequence[State]) -> Sequence[int]:
    """The ids of what is there, in one of the states; raises NotFound before anything is changed."""
    found = [chat.outbox.get(id) for id in ids]
    for receipt in found:
        if receipt.state not in states:
            raise NotFound(
                f"message {receipt.id} is {receipt.state}", hint="`chatsdk outbox dead` lists the dead letters"
            )
    return [receipt.id for receipt in found]


def _show(receipts: Sequence[Receipt], as_json: bool) -> None:
    if as_json:
        output.as_json({"messages": [receipt.to_dict() for receipt in receipts]})
        return
    import time

    now = time.time()
    output.table(SHOWN, [line_of(receipt.to_dict(), now) for receipt in receipts])
