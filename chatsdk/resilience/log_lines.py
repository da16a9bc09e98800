"""The SDK's log records as lines on standard error, for who asks by the setting `log` (CHATSDK_LOG=debug).

    2026-11-22T09:41:07.120Z DEBUG chatsdk.retry 019ab0f2-6c1e-7d0e-a0b1-3a5e2f0c9d44: channels.get: try 1 failed ...

Behind the logger's name stands the correlation id of the call, which the server got as X-Request-ID ("-": none).

Rules.
1. Where nobody asks, nothing is attached and no level is touched: the application decides.
2. One handler a process, on the logger "chatsdk" and never on the root: no other library begins to talk. It is there
   from the first client that asks; of several, the most talkative one counts.
3. The application gets the records as ever (`propagate` stays as it is). One that a handler of the application writes
   to this terminal is left to that one, so no line is there twice.
4. One line a record, with control characters shown as \\x1b and a bounded length. Of a record's extra fields only the
   correlation id is shown. Of an exception its type and place are shown, and its text only if it is an error of ours: a
   stranger's may hold anything, a token for one.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

from ..core.errors import ChatError
from ..core.plain_text import excerpt
from .process_lock import ProcessLock

LONGEST = 2000
"""Characters of a message that are shown."""

LONGEST_ID = 64
"""Of a correlation id: ours have 36, a plugin may set another one."""

_attaching = ProcessLock()


def show_records(level: str) -> None:
    """Write the SDK's records from `level` on ("debug", "info", "warning", "error") to standard error."""
    wanted, logger = logging.getLevelName(level.upper()), logging.getLogger("chatsdk")
    with _attaching:
        handler = next((each for each in logger.handlers if isinstance(each, _Lines)), None)
        if handler is None:
            handler = _Lines(wanted)
            logger.addHandler(handler)
        handler.setLevel(min(handler.level, wanted))
        if logger.level == logging.NOTSET or logger.level > wanted:
            logger.setLevel(wanted)


def line_of(record: logging.LogRecord) -> str:
    """A record as one line."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    said = record.correlation_id if hasattr(record, "correlation_id") else ""
    who = excerpt(said, LONGEST_ID) if isinstance(said, str) and said else "-"
    text = excerpt(record.getMessage(), LONGEST) + _cause(record)
    return f"{when}.{int(record.msecs):03d}Z {record.levelname} {record.name} {who}: {text}"


def _cause(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""
    text = f": {error.message}" if isinstance(error, ChatError) else ""
    return excerpt(f" [{type(error).__name__}{place}{text}]", LONGEST)


class _Lines(logging.Handler):
    """Standard error as it is when something is written: tests and services exchange it."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr
        if stream is None or _is_shown_by_others(record, self):
            return
        try:
            encoding = getattr(stream, "encoding", None) or "utf-8"
            stream.write(line_of(record).encode(encoding, "backslashreplace").decode(encoding) + "\n")
            stream.flush()
        except Exception:
            # a terminal that went away, or a record that is no text: neither is a reason to fail who logged
            return


def _is_shown_by_others(record: logging.LogRecord, ours: logging.Handler) -> bool:
    terminals = [each for each in (sys.stderr, sys.__stderr__, sys.stdout, sys.__stdout__) if each is not None]
    return any(
        handler is not ours and record.levelno >= handler.level and any(_stream(handler) is each for each in terminals)
        for handler in _handlers(record.name)
    )


def _handlers(name: str) -> Iterator[logging.Handler]:
    """All that get the records of a logger."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _stream(handler: Any) -> object:
    """What a handler writes to, if that is a stream; rich's hides it in its console."""
    return getattr(handler, "stream", None) or getattr(getattr(handler, "console", None), "file", None)
