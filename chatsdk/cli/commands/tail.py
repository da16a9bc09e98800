"""`chatsdk tail CHANNEL`: what is written in a channel, as it is written.

It looks on: it stores no place and disturbs no bot that has one in the same state directory. What was missed while the
connection was down is shown, in order, once; what could not be had again is said on standard error.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from ...core.errors import ChatError, ConnectionFailedError
from .. import exits, output
from ..options import Options, passes_options, seconds

if TYPE_CHECKING:
    from ...client import ChatClient
    from ...core.events import Event


@click.command("tail")
@click.argument("channels", nargs=-1, required=True, metavar="CHANNEL...")
@click.option("--since", type=click.IntRange(0), metavar="SEQ", help="begin after this message (0: with the first one)")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="end after so many messages")
@click.option("--timeout", "quiet", callback=seconds, metavar="SECONDS", help="end after so long without a message")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line: every event, not only messages")
@passes_options
def command(
    options: Options,
    channels: tuple[str, ...],
    since: int | None,
    limit: int | None,
    quiet: float | None,
    as_json: bool,
) -> int:
    """Show what is written in CHANNEL (an id or an alias), until Ctrl-C.

    Times are local. On standard error: when the connection is lost and comes back.
    """
    with options.listener() as chat:
        watch = _Watch(chat, as_json, limit)
        with chat.events(timeout=quiet) as events:
            chat.subscribe(channels, since=since, keep=False)
            watch.ending = events.close
            with watch.signals():
                for event in events:
                    if not watch.show(event):
                        break
        return watch.code


class _Watch:
    """What is shown, and what ends it."""

    def __init__(self, chat: ChatClient, as_json: bool, limit: int | None) -> None:
        from ...core import events

        self._as_json = as_json
        self._left = limit
        self.code = exits.OK
        self.ending: Any = None
        chat.on(events.ConnectionStateChanged, self._on_connection)
        chat.on(events.SubscriptionStateChanged, self._on_subscription)
        self._chat = chat

    def signals(self) -> Any:
        from ...resources.listening import PoliteSignals

        return PoliteSignals(lambda: self.ending())

    def show(self, event: Event) -> bool:
        """False: that was the last one."""
        from ...core.realtime_events import Gap, MessageReceived

        if self._as_json:
            output.as_json(event.to_dict())
        elif isinstance(event, MessageReceived):
            message = event.message
            at = message.created_at.timestamp() if message.created_at else event.at
            when = time.strftime("%H:%M:%S", time.localtime(at))
            output.line(f"{when} {output.plain(message.user_id)}: {output.plain(message.text)}")
        if isinstance(event, Gap) and event.channel:
            output.note(f"something is missing here: {output.plain(event.reason)}")
        if isinstance(event, MessageReceived) and self._left is not None:
            self._left -= 1
        return self._left != 0 and not output.reader_is_gone()

    def _on_connection(self, event: Any) -> None:
        if event.new == "FAILED":
            error = self._chat.connection.error
            self._fail(error or ConnectionFailedError(event.reason))
        elif event.new in ("DISCONNECTED", "CONNECTED") and event.old != "CONNECTING" and not self._as_json:
            output.note(output.plain(self._chat.connection.status_text))

    def _on_subscription(self, event: Any) -> None:
        if event.state == "failed":
            self._fail(event.error)
        elif event.state == "ended":
            output.note(f"{output.plain(event.channel)}: the server ended the subscription")

    def _fail(self, error: ChatError) -> None:
        self.code = exits.worst(self.code, exits.of_error(error)) or exits.FAILED
        output.note(output.plain(error.message))
        if error.hint:
            output.hint(output.plain(error.hint))
        sys.stderr.flush()
        if self.ending is not None:
            self.ending()
