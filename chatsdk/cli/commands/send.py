"""`chatsdk send CHANNEL TEXT`: one message, safe on disk, then delivered in this very process.

Quiet when it is delivered. What stays queued is said, with the command that sends it: nobody else will, unless some
process that opens this outbox comes along. The key is made here, so that a Ctrl-C can still say what became of it.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import ChatError, MessageRejected, NotFound
from ...core.identity import message_key, uuid7
from ...core.store import Reason, State
from .. import exits, output
from ..options import Options, passes_options, seconds

if TYPE_CHECKING:
    from ...client import ChatClient
    from ...resources.receipt import Receipt

MAX_INPUT = 1 << 20
"""Bytes of standard input that are read as a text. No server takes as much; it keeps a mistaken pipe short."""


@click.command("send")
@click.argument("channel")
@click.argument("text", required=False)
@click.option("--wait", callback=seconds, metavar="SECONDS", help="how long to wait for delivery (default: send_wait)")
@click.option("--no-wait", is_flag=True, help="put it into the outbox and do not try to deliver it now")
@click.option("--queued-ok", is_flag=True, help="exit 0, not 75, if it is still queued after waiting")
@click.option("--key", help="names the message for ever: sending it again with this key does nothing")
@click.option("--json", "as_json", is_flag=True, help="print the receipt and the exit code as one JSON object")
@passes_options
def command(
    options: Options,
    channel: str,
    text: str | None,
    wait: float | None,
    no_wait: bool,
    queued_ok: bool,
    key: str | None,
    as_json: bool,
) -> int:
    """Send a message to CHANNEL (an id or an alias).

    TEXT may come from standard input: leave it out, or give "-". It is accepted once it is on disk; what cannot be
    delivered now stays in the outbox and is delivered later, once, by `chatsdk outbox flush` or `chatsdk outbox run`.
    """
    if no_wait and wait is not None:
        raise click.UsageError("--wait and --no-wait contradict each other")
    body = _text(text)
    with options.client() as chat:
        where = chat.settings.channels.get(channel, channel)
        made = key if key is not None else uuid7(time.time(), os.urandom(10))
        try:
            receipt = chat.send(where, body, key=made, wait=0 if no_wait else wait)
        except MessageRejected as error:
            return _end(options, error.receipt, exits.DIED, as_json, error)
        except KeyboardInterrupt:
            return _interrupted(options, chat, where, made, as_json)
        return _end(options, receipt, _code(receipt, no_wait=no_wait, queued_ok=queued_ok), as_json)


def _text(given: str | None) -> str:
    if given is not None and given != "-":
        return given
    if given is None and sys.stdin.isatty():
        raise click.UsageError("TEXT is missing (or pipe it in)")
    data = sys.stdin.buffer.read(MAX_INPUT + 1)
    if len(data) > MAX_INPUT:
        raise click.UsageError(f"standard input is longer than {MAX_INPUT} bytes")
    try:
        text = data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise click.UsageError("standard input is not UTF-8") from None
    if not text:
        raise click.UsageError("standard input is empty")
    return text


def _code(receipt: Receipt, *, no_wait: bool, queued_ok: bool) -> int:
    if receipt.state is not State.QUEUED or no_wait:
        return exits.OK
    if receipt.reason is Reason.AUTH:
        return exits.AUTH
    return exits.OK if queued_ok else exits.QUEUED


def _end(options: Options, receipt: Receipt, code: int, as_json: bool, error: ChatError | None = None) -> int:
    facts: dict[str, Any] = receipt.to_dict()
    if as_json:
        output.as_json({**facts, "exit": code})
    if error is not None:
        output.note(output.plain(error.message))
        output.hint(output.plain(error.hint))
    elif receipt.state is State.QUEUED:
        why = f" ({facts['reason']})" if facts["reason"] else ""
        output.note(f"message {receipt.id} is safe in the outbox, not delivered yet{why}; do not send it again")
        flush, run = options.command("outbox flush"), options.command("outbox run")
        output.hint(f"`{flush}` sends what waits; `{run}` stays and keeps sending")
        if facts["error"] and code != exits.OK:
            output.hint(f"last error: {output.plain(str(facts['error'].get('message', '')))}")
    return code


def _interrupted(options: Options, chat: ChatClient, channel: str, key: str, as_json: bool) -> int:
    try:
        receipt = chat.outbox.get(message_key(key, server=chat.settings.url, user=chat.user, channel=channel))
    except NotFound:
        output.note("interrupted before the message was accepted: nothing was sent")
        return exits.INTERRUPTED
    return _end(options, receipt, exits.OK if receipt.state is State.SENT else exits.QUEUED, as_json)
