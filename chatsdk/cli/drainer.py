"""`chatsdk outbox run`: the long-lived drainer, for a service manager or a second terminal.

It keeps an outbox open with the client's own threads, which send whatever any process puts into it. What it says is the
SDK's warnings, which are one line at an outage's beginning and one at its end. SIGTERM and Ctrl-C end it politely: what
is under way is awaited for `close_timeout`, what waits stays on disk. A second one ends it at once.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

from ..resilience.log_lines import show_records
from . import exits
from .options import Options


def drain_until_told(options: Options) -> int:
    """Drain until SIGTERM or SIGINT. Raises SettingsError, StorageError where the outbox can't be opened."""
    if not options.verbose:
        show_records("warning")
    told = threading.Event()

    def stop(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        told.set()

    with options.client(background=True) as chat:
        outbox = chat._parts.outbox()
        chat.plugins()  # asked now, not at the first message: an exporter is there, or a complaint, from the beginning
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        outbox.run_forever(told)
    return exits.OK
