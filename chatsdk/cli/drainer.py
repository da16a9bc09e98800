"""`chatsdk outbox run`: the long-lived drainer, for a service manager or a second terminal.

It keeps an outbox open with the client's own threads, which send whatever any process puts into it. What it says is
for a log: one line when an outage has lasted a while, one when it is over, beside the SDK's own warnings. SIGTERM and
Ctrl-C end it politely: what is under way is awaited for `close_timeout`, what waits stays on disk. A second one ends it
at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import exits, output
from .options import Options, log_to_stderr

if TYPE_CHECKING:
    from ..core.events import MessageEvent, MessageFailed

WORTH_A_LINE = 5.0
"""Seconds that trouble lasts before it is said."""


class Outages:
    """Turns failures and successes of many lanes into one line an outage and one at its end. Thread-safe.

    An outage is the time in which some lane fails; it is over when every lane that failed has delivered again, or its
    message died. `say` gets the lines.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._lock = threading.Lock()
        self._failing: set[tuple[str, str]] = set()
        self._since = 0.0
        self._said = False

    def failed(self, event: MessageFailed) -> None:
        """A try failed; the message stays queued."""
        with self._lock:
            if not self._failing:
                self._since = event.at
            self._failing.add((event.user, event.channel))
            if self._said or event.at - self._since < WORTH_A_LINE:
                return
            self._said = True
        why = f": {event.error.message}" if event.error is not None else ""
        self._say(f"delivery is failing ({event.reason or 'unknown reason'}{why}); what waits is safe on disk")

    def ended(self, event: MessageEvent) -> None:
        """A message was delivered, or died: its lane goes on."""
        with self._lock:
            self._failing.discard((event.user, event.channel))
            if self._failing or not self._said:
                return
            self._said = False
        self._say(f"delivering again, after {event.at - self._since:.0f} s")


def drain_until_told(options: Options) -> int:
    """Drain until SIGTERM or SIGINT. Raises SettingsError, StorageError where the outbox can't be opened."""
    from ..core.events import MessageFailed, MessagePermanentFailure, MessageSent

    if not options.verbose:
        log_to_stderr("WARNING")
    told = threading.Event()

    def stop(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        told.set()

    outages = Outages(lambda text: output.note(output.plain(output.redact(text))))
    with options.client(background=True) as chat:
        chat.on(MessageFailed, outages.failed)
        chat.on(MessageSent, outages.ended)
        chat.on(MessagePermanentFailure, outages.ended)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        chat._parts.outbox().run_forever(told)
    return exits.OK
